"""What an imported .tflite file becomes: outputs, preprocessing, labels, weights, names, the float graph."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tflite_builder import TfliteBuilder

from mobilenet.errors import ModelFileError, UnsupportedOperatorError
from mobilenet.files.dequantise import to_float
from mobilenet.files.model_file import read_model_file, write_model_file
from mobilenet.files.tflite import read_tflite
from mobilenet.files.tflite_labels import split_labels
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.run.reference import dequantise_array, quantise_array, run

CLASSIFIERS = {
    "mobilenet_v1_0.25_128_quant": (128, 1001, (1, 1, 256)),
    "mobilenet_v1_0.5_160_quant": (160, 1001, (1, 1, 512)),
    "mobilenet_v1_0.75_192_quant": (192, 1001, (1, 1, 768)),
    "mobilenet_v2_1.0_224_inat_bird_quant": (224, 965, (1280,)),
    "mobilenet_v2_1.0_224_quant": (224, 1001, (1, 1, 1280)),
    "tf2_mobilenet_v2_1.0_224_ptq": (224, 1001, (1, 1, 1280)),
}
OTHERS = ["mobilenet_v1_1.0_224_quant_embedding_extractor", "deeplabv3_mnv2_pascal_quant"]


def coral(shared, name):
    return shared / "weights/coral" / f"{name}.tflite"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(shared, name):
    size, classes, embedding = CLASSIFIERS[name]
    contents = read_tflite(coral(shared, name))
    types = {output: contents.graph.types[node] for output, node in contents.graph.outputs.items()}
    assert contents.task == "classify"
    assert types["probabilities"].shape == types["logits"].shape == (classes,)
    assert types["embedding"].shape == embedding
    assert contents.graph.inputs["image"].shape == (size, size, 3)
    assert contents.preprocessing.height == contents.preprocessing.width == size
    assert len(contents.labels) == classes
    assert all(types[output].integer for output in types)


def test_labels_are_packed_into_the_file_or_given(shared):
    path = coral(shared, "mobilenet_v1_0.25_128_quant")
    packed = read_tflite(path).labels
    assert packed[:2] == ("background", "tench, Tinca tinca")
    assert read_tflite(path, labels=shared / "weights/coral/imagenet_labels.txt").labels == packed
    assert read_tflite(path, labels=[str(i) for i in range(1001)]).labels[1000] == "1000"
    birds = shared / "weights/coral/inat_bird_labels.txt"
    with pytest.raises(ModelFileError, match=r"0.25_128.*1001 outputs.*965"):
        read_tflite(path, labels=birds)
    with pytest.raises(ModelFileError, match=r"nowhere.txt"):
        read_tflite(path, labels="nowhere.txt")
    with pytest.raises(ModelFileError, match=r"1001 outputs.* 0"):
        read_tflite(path, labels=[])
    with pytest.raises(ModelFileError, match=r"no classes"):
        read_tflite(coral(shared, OTHERS[0]), labels=birds)


def test_labels_that_are_no_text_are_refused_by_name(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xff\xfe\x00cat")
    with pytest.raises(ModelFileError, match=r"labels.txt.*UTF-8"):
        read_tflite(dense_file(tmp_path), labels=path)
    path.write_bytes(b"cat\n" * 2_000_000)
    with pytest.raises(ModelFileError, match=r"labels.txt.*larger"):
        read_tflite(dense_file(tmp_path), labels=path)


def test_weights_are_arrays_of_their_own(tmp_path):
    for quantised in (False, True):
        contents = read_tflite(dense_file(tmp_path, quantised=quantised))
        assert all(array.flags.writeable and array.flags.aligned for array in contents.weights.values())


def test_deeplab(shared):
    labels = shared / "weights/coral/pascal_voc_segmentation_labels.txt"
    contents = read_tflite(coral(shared, "deeplabv3_mnv2_pascal_quant"), labels=labels)
    types = {output: contents.graph.types[node] for output, node in contents.graph.outputs.items()}
    assert contents.task == "segment"
    assert types["classes"] == TensorType((513, 513), "int64")
    assert types["logits"].shape == (513, 513, 21)
    assert len(contents.labels) == 21
    assert contents.labels[8] == "cat"


def test_embedding_extractor(shared):
    contents = read_tflite(coral(shared, "mobilenet_v1_1.0_224_quant_embedding_extractor"))
    assert contents.task == "embed"
    assert list(contents.graph.outputs) == ["embedding"]
    assert contents.labels == ()


def test_movenet_is_refused_with_all_its_unsupported_operators(shared):
    path = coral(shared, "movenet_single_pose_lightning_ptq")
    with pytest.raises(UnsupportedOperatorError) as error:
        read_tflite(path)
    assert str(path) in str(error.value)
    assert str(error.value).endswith("CAST, DIV, FLOOR_DIV, GATHER_ND, PACK, SQRT, SUB, UNPACK")


@pytest.mark.parametrize("name", [*CLASSIFIERS, *OTHERS])
def test_pixels_are_the_quantised_input(shared, name):
    """Quantising (pixel - mean) / std gives the pixel back."""
    contents = read_tflite(coral(shared, name))
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    real = contents.preprocessing.normalise(pixels)
    kind = contents.graph.inputs["image"]
    np.testing.assert_array_equal(quantise_array(real, kind.quantisation, kind.dtype), pixels)
    np.testing.assert_allclose(dequantise_array(pixels, kind.quantisation), real, rtol=1e-6)


@pytest.mark.parametrize("name", [*CLASSIFIERS, *OTHERS])
def test_names_tell_the_place_and_the_kind(shared, name):
    graph = read_tflite(coral(shared, name)).graph
    for node in graph.nodes:
        assert node.name.endswith(f".{node.operator.kind}") or node.name.endswith(".flatten")
    places = [node.name.split(".")[0] for node in graph.nodes]
    assert places == sorted(places)
    assert list(to_float(read_tflite(coral(shared, name))).graph.outputs) == list(graph.outputs)


def test_same_padding_can_be_counted_anew(shared):
    contents = read_tflite(coral(shared, "mobilenet_v1_0.25_128_quant"))
    stem = contents.graph.nodes[0].operator
    assert (stem.same, stem.padding) == (True, (0, 1, 0, 1))
    last = contents.graph.resized(160, 160).types["layer_26.conv"]
    assert last.shape == (5, 5, 256)


def test_provenance_and_the_model_file(shared, tmp_path):
    path = coral(shared, "mobilenet_v1_0.25_128_quant")
    contents = read_tflite(path)
    assert contents.provenance["source"] == path.name
    assert contents.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    write_model_file(contents, tmp_path / "v1.safetensors")
    again = read_model_file(tmp_path / "v1.safetensors")
    assert again.graph == contents.graph
    pixels = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3)).astype(np.uint8)
    first, second = (run(c.graph, c.weights, pixels)["logits"] for c in (contents, again))
    np.testing.assert_array_equal(first, second)


def test_weights_are_the_files_own(shared):
    """Against the classes that come with LiteRT."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    path = coral(shared, "tf2_mobilenet_v2_1.0_224_ptq")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    tensors, weights = model.subgraphs[0].tensors, read_tflite(path).weights
    for index, operator in enumerate(model.subgraphs[0].operators):
        names = [k for k in ("conv", "depthwise_conv") if f"layer_{index:02d}.{k}.weight" in weights]
        if not names:
            continue
        name = names[0]
        weight = tensors[operator.inputs[1]]
        data = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8)
        np.testing.assert_array_equal(weights[f"layer_{index:02d}.{name}.weight"].ravel(), data)
        scale = weights[f"layer_{index:02d}.{name}.weight_scale"]
        np.testing.assert_array_equal(scale, weight.quantization.scale)
    assert sum(name.endswith(".weight") for name in weights) == 36 + 17


@pytest.mark.parametrize("name", [*CLASSIFIERS, *OTHERS])
def test_float_graph(shared, name):
    quantised = read_tflite(coral(shared, name))
    floats = read_tflite(coral(shared, name), to_float=True)
    assert not any(kind.integer for kind in floats.graph.types.values())
    assert not any(isinstance(node.operator, ops.Quantise | ops.Dequantise) for node in floats.graph.nodes)
    assert {array.dtype for array in floats.weights.values()} == {np.dtype("float32")}
    for node in floats.graph.nodes:
        assert node.operator == quantised.graph.node(node.name).operator
    clamps = sum(getattr(node.operator, "activation", "") == "relu6" for node in floats.graph.nodes)
    assert clamps == {"v1": 27, "v2": 35}.get(name.split("net_")[1][:2] if "net_" in name else "", 34)
    assert floats.labels == quantised.labels
    assert floats.preprocessing == quantised.preprocessing


def test_dequantised_weights_by_hand():
    quantisation, out = Quantisation(0.5, 10), Quantisation(1.0, 0)
    node = Node("dense", ops.Dense(2), ("x",), "int8", out)
    last = Node("back", ops.Dequantise(), ("dense",))
    graph = Graph({"x": TensorType((2,), "uint8", quantisation)}, (node, last), {"y": "back"})
    weights = {
        "dense.weight": np.array([[130, 120], [128, 0]], np.uint8),
        "dense.weight_scale": np.array([0.25, 2], np.float32),
        "dense.weight_zero_point": np.array([128], np.int32),
        "dense.bias": np.array([8, -3], np.int32),
    }
    contents = to_float(contents_of(graph, weights))
    assert contents.graph.outputs == {"y": "dense"}
    np.testing.assert_array_equal(contents.weights["dense.weight"], [[0.5, -2], [0, -256]])
    np.testing.assert_array_equal(contents.weights["dense.bias"], [1, -3])
    assert set(contents.weights) == {"dense.weight", "dense.bias"}
    assert to_float(contents) is contents


def contents_of(graph, weights):
    from mobilenet.files.contents import ModelContents

    return ModelContents(graph, weights, None, task="features")


def dense_file(tmp_path, *, softmax=False, quantised=False, channels=3):
    builder = TfliteBuilder()
    scales = {"scale": 0.5, "zero_point": 3} if quantised else {}
    dtype = "int8" if quantised else "float32"
    image = builder.tensor((1, 4, 4, channels), dtype, **scales)
    pooled, out = (builder.tensor((1, n), dtype, **scales) for n in (channels, 5))
    axes = builder.constant([1, 2])
    builder.operator("MEAN", [image, axes], pooled, "ReducerOptions", keepDims=False)
    weight = builder.constant(np.ones((5, channels)), dtype, **({"scale": 0.5} if quantised else {}))
    builder.operator("FULLY_CONNECTED", [pooled, weight], out, "FullyConnectedOptions")
    if softmax:
        final = builder.tensor((1, 5), dtype, **scales)
        out = builder.operator("SOFTMAX", [out], final, "SoftmaxOptions", beta=1.0)
    path = tmp_path / "dense.tflite"
    path.write_bytes(builder.finish([image], [out]))
    return path


def test_a_float_classifier_without_softmax_gives_logits(tmp_path):
    contents = read_tflite(dense_file(tmp_path))
    assert set(contents.graph.outputs) == {"logits", "embedding"}
    assert contents.preprocessing.mean == (127.5,) * 3
    assert contents.preprocessing.std == (127.5,) * 3
    assert set(read_tflite(dense_file(tmp_path, softmax=True)).graph.outputs) == {
        "probabilities", "logits", "embedding",
    }  # fmt: skip


def test_an_int8_input_is_the_pixel_less_128(tmp_path):
    preprocessing = read_tflite(dense_file(tmp_path, quantised=True)).preprocessing
    assert preprocessing.mean == (131,) * 3
    assert preprocessing.std == (2,) * 3


def test_an_input_of_five_channels_has_no_preprocessing(tmp_path):
    assert read_tflite(dense_file(tmp_path, channels=5)).preprocessing is None
    assert read_tflite(dense_file(tmp_path, channels=1)).preprocessing.channels == "L"


def test_labels_end_at_an_empty_line():
    assert split_labels("cat\n dog \n\nand a remark\n") == ("cat", "dog")
    assert split_labels("cat\r\ndog") == ("cat", "dog")
    assert split_labels("") == ()


def test_a_missing_file_a_folder_and_another_format_are_named(tmp_path):
    for path, words in ((tmp_path / "no.tflite", "does not exist"), (tmp_path, "folder")):
        with pytest.raises(ModelFileError, match=words) as error:
            read_tflite(path)
        assert str(path) in str(error.value)
    other = tmp_path / "other.tflite"
    other.write_bytes(b"PK\x03\x04 not a flatbuffer")
    with pytest.raises(ModelFileError, match="TFL3"):
        read_tflite(other)
