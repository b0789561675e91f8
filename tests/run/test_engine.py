"""The engine gives what the reference gives, from any thread, and refuses what it should."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet.errors import (
    ArgumentError,
    EngineMissingError,
    MobilenetError,
    ModelFileError,
    OutOfMemoryError,
)
from mobilenet.files.contents import ModelContents
from mobilenet.files.model_file import encode
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType
from mobilenet.graph.ops import Add, Conv, Dense, DepthwiseConv, Mean
from mobilenet.run import reference
from mobilenet.run.engine import Engine, Tensor, isas, quantise, thread_count

FAMILY = (
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v4_conv_small",
    "mobilenet_v4_hybrid_medium", "mobilefacenet",
)  # fmt: skip


def random_model(name: str = "mobilenet_v2", resolution: int = 64, **options: Any) -> mobilenet.Model:
    return mobilenet.create(name, width_multiplier=options.pop("width", 0.5), resolution=resolution, **options)


def pictures(model: mobilenet.Model, count: int = 1, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, *model.input.shape))
    return values.astype(np.float32)


def integer_model(dtype: str = "uint8") -> mobilenet.Model:
    """A stem, a depthwise layer, a projection with a residual, a mean and a classifier, all of integers."""
    zero = 128 if dtype == "uint8" else 0
    wide, narrow = Quantisation(0.05, zero), Quantisation(0.1, zero - 3)
    nodes = (
        Node("stem", Conv(kernel=(3, 3), stride=(2, 2), padding=(0, 1, 0, 1), out_channels=20, activation="relu6"),
             ("image",), dtype, wide),
        Node("depthwise", DepthwiseConv(kernel=(3, 3), padding=(1, 1, 1, 1)), ("stem",), dtype, wide),
        Node("project", Conv(out_channels=20, bias=True), ("depthwise",), dtype, wide),
        Node("sum", Add(), ("project", "stem"), dtype, narrow),
        Node("mean", Mean(), ("sum",), dtype, narrow),
        Node("classifier", Dense(out_features=5, bias=True), ("mean",), dtype, Quantisation(0.2, zero)),
    )  # fmt: skip
    outputs = {"logits": "classifier", "embedding": "mean"}
    graph = Graph({"image": TensorType((17, 23, 3), dtype, Quantisation(1 / 64, zero))}, nodes, outputs)
    generator = np.random.default_rng(3)
    weights = {}
    for name, parameter in graph.parameters().items():
        if name.endswith("weight_scale"):
            weights[name] = generator.uniform(0.002, 0.01, parameter.shape).astype(np.float32)
        elif name.endswith("weight_zero_point"):
            weights[name] = np.zeros(1, np.int32)
        elif name.endswith("bias"):
            weights[name] = generator.integers(-2000, 2000, parameter.shape, dtype=np.int32)
        else:
            weights[name] = generator.integers(-127, 128, parameter.shape, dtype=np.int8)
    return mobilenet.Model.of(ModelContents(graph, weights, None, task="features"))


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        if array.dtype == np.float32:
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * np.abs(array).max())
        else:
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("isa", [None, *isas()])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_floats_are_those_of_the_reference(name: str, isa: str | None) -> None:
    model = random_model(name)
    batch = pictures(model, 2)
    found = Engine(encode(model), isa=isa).run(batch)
    assert_close(found, reference.run(model.graph, model.weights, batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_every_generation_runs(name: str) -> None:
    model = mobilenet.create(name, resolution=112 if name == "mobilefacenet" else 96, seed=2)
    batch = pictures(model)
    assert_close(model.run(batch), reference.run(model.graph, model.weights, batch))


@pytest.mark.parametrize("isa", [None, *isas()])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_are_exactly_those_of_the_reference(dtype: str, isa: str | None) -> None:
    model = integer_model(dtype)
    info = np.iinfo(dtype)
    batch = np.random.default_rng(0).integers(info.min, info.max + 1, (3, *model.input.shape)).astype(dtype)
    expected = reference.run(model.graph, model.weights, batch)
    assert len(np.unique(expected["logits"])) > 3  # not all saturated
    assert_close(Engine(encode(model), isa=isa).run(batch), expected)


def test_a_quantised_model_takes_real_numbers_as_well() -> None:
    model = integer_model()
    real = np.random.default_rng(0).uniform(-1, 1, (2, *model.input.shape)).astype(np.float32)
    quanta = reference.quantise_array(real, model.input.quantisation, "uint8")  # type: ignore[arg-type]
    integers = reference.run(model.graph, model.weights, quanta)
    for name, array in model.run(real).items():
        kind = model.graph.types[model.graph.outputs[name]]
        np.testing.assert_array_equal(array, reference.dequantise_array(integers[name], kind.quantisation))  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [("uint8", 0.5, 128), ("uint8", 1 / 127.5, 0), ("int8", 0.1, -128), ("int8", 3e-39, 127), ("int8", 1e30, 5)],
)
def test_quantising_is_bit_for_bit_the_reference_s(
    dtype: str, scale: float, zero_point: int, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILENET_ISA", isa)
    ties = (np.arange(-300, 301, dtype=np.float32) + 0.5) * np.float32(scale)
    special = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 3e38, -3e38, 1e-45], np.float32)
    spread = np.random.default_rng(0).normal(0, 90 * scale, 1000).astype(np.float32)
    numbers = np.concatenate([ties, special, spread])
    with np.errstate(invalid="ignore", over="ignore"):
        expected = reference.quantise_array(numbers, Quantisation(scale, zero_point), dtype)
    kind = Tensor(dtype, (), float(np.float32(scale)), zero_point)
    for count in (len(numbers), 0, 1, 15, 16, 17, 33):  # a kernel does 16 at a time
        found = quantise(numbers[:count], kind)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected[:count])
    np.testing.assert_array_equal(quantise(numbers[:600].reshape(30, 20)[:, ::2], kind).ravel(), expected[:600:2])


def test_quantising_refuses_what_is_no_scale_or_zero_point() -> None:
    for kind in (Tensor("int8", (), 0.0, 0), Tensor("int8", (), 1.0, 128), Tensor("uint8", (), 1.0, -1)):
        with pytest.raises(ArgumentError, match="zero point"):
            quantise(np.zeros(4, np.float32), kind)


@pytest.mark.parametrize("model", [random_model("mobilenet_v3_small"), integer_model()], ids=["fp32", "int8"])
def test_threads_and_batches_change_no_bit(model: mobilenet.Model) -> None:
    data = encode(model)
    batch = pictures(model, 3) if model.input.dtype == "float32" else np.full((3, 17, 23, 3), 77, np.uint8)
    batch[1] = batch[1][::-1]
    expected = Engine(data, threads=1).run(batch)
    for threads in (2, 3, 8):
        engine = Engine(data, threads=threads)
        for _ in range(3):
            for name, array in engine.run(batch).items():
                np.testing.assert_array_equal(array, expected[name])
        singles = [engine.run(batch[i : i + 1]) for i in range(3)]
        for name, array in expected.items():
            np.testing.assert_array_equal(np.concatenate([single[name] for single in singles]), array)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_model_serves_many_python_threads(threads: int) -> None:
    model = random_model()
    model.threads = threads
    batches = [pictures(model, 1 + seed % 2, seed) for seed in range(8)]
    expected = [model.run(batch)["logits"] for batch in batches]
    fresh = pickle.loads(pickle.dumps(model))  # its engine is made by whichever thread comes first
    barrier = threading.Barrier(8)

    def work(number: int) -> list[np.ndarray]:
        barrier.wait()
        return [fresh.run(batches[number])["logits"] for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(work, range(8)), expected, strict=True):
            for logits in found:
                np.testing.assert_array_equal(logits, wanted)


def test_other_python_threads_go_on_meanwhile() -> None:
    engine = Engine(encode(random_model(resolution=448, width=1.0)), threads=1, isa="generic")
    batch = np.zeros((1, 448, 448, 3), np.float32)
    counts, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counts[0] += 1
            stop.wait(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = counts[0]
    engine.run(batch)
    after = counts[0]
    stop.set()
    thread.join()
    assert after - before >= 5  # with the GIL held it would be none, or one


def test_pictures_of_another_size() -> None:
    model = random_model()
    engine = Engine(encode(model))
    for height, width in ((96, 64), (33, 47), (64, 64), (128, 160)):
        batch = np.random.default_rng(1).normal(size=(1, height, width, 3)).astype(np.float32)
        expected = reference.run(model.graph.resized(height, width), model.weights, batch)
        assert_close(engine.run(batch), expected)
        assert engine.inputs(height, width)["image"].shape == (height, width, 3)
    features = random_model(features_only=True, resolution=64)
    resized = features.graph.resized(96, 128)
    kinds = Engine(encode(features)).outputs(96, 128)
    assert {name: kind.shape for name, kind in kinds.items()} == {
        name: resized.types[node].shape for name, node in resized.outputs.items()
    }


def test_arrays_may_lie_anyhow_and_are_not_changed() -> None:
    model = random_model()
    batch = pictures(model, 2)
    expected = model.run(batch)["logits"]
    turned = np.asfortranarray(batch)
    reverse = batch[::-1].copy()[::-1]
    frozen = batch.copy()
    frozen.setflags(write=False)
    for same in (turned, reverse, frozen):
        np.testing.assert_array_equal(model.run(same)["logits"], expected)
    np.testing.assert_array_equal(frozen, batch)


def test_no_pictures_give_no_answers() -> None:
    model = random_model()
    assert model.run(pictures(model, 0))["logits"].shape == (0, 1000)


def test_bf16_is_near_and_says_where_it_cannot_be() -> None:
    model = random_model()
    batch = pictures(model, 2)
    try:
        engine = Engine(encode(model), precision="bf16")
    except MobilenetError as error:
        assert "bf16" in str(error)
        pytest.skip(str(error))
    expected = reference.run(model.graph, model.weights, batch)
    found = engine.run(batch)
    assert_close(found, expected, tolerance=0.05)
    assert (found["logits"] != expected["logits"]).any()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((1, 64, 64, 3)), "float64; the model needs float32"),
        (np.zeros((1, 64, 64, 3), np.uint8), "uint8; the model needs float32"),
        (np.zeros((64, 64, 3), np.float32), r"\(64, 64, 3\); the model needs \(N, 64, 64, 3\)"),
        (np.zeros((1, 64, 64, 4), np.float32), r"needs \(N, 64, 64, 3\)"),
        (np.zeros((1, 0, 64, 3), np.float32), r"needs \(N, 64, 64, 3\)"),
        ([[1.0]], "'image' is a list; give a numpy array"),
        ({"picture": np.zeros((1, 64, 64, 3), np.float32)}, "no input 'picture'; it has image"),
        ({}, r"input 'image' of shape \(N, 64, 64, 3\) is missing"),
    ],
)
def test_wrong_inputs_are_named(batch: Any, message: str) -> None:
    engine = Engine(encode(random_model()))
    with pytest.raises(ArgumentError, match=message):
        engine.run(batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "fp32, bf16, not 'fp16'"),
        ({"threads": 0}, "threads must be a whole number from 1 to 256"),
        ({"threads": 2.0}, "threads must be"),
        ({"threads": True}, "threads must be"),
        ({"isa": "z80"}, "'z80'"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"mac_limit": -1}, "mac_limit"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Engine(encode(integer_model()), **options)


def test_sizes_that_cannot_be() -> None:
    engine = Engine(encode(integer_model()))
    for height, width in ((0, 5), (-1, -1), (2**40, 1)):
        with pytest.raises(ArgumentError, match="pictures of"):
            engine.inputs(height, width)
    with pytest.raises(ArgumentError, match="whole numbers"):
        engine.inputs("a", 3)  # type: ignore[arg-type]


def test_limits_hold() -> None:
    data = encode(random_model())
    with pytest.raises(OutOfMemoryError):
        Engine(data, memory_limit=100_000)
    with pytest.raises(MobilenetError):
        Engine(data, mac_limit=1000)


@pytest.mark.parametrize("data", [b"", b"TFL3" * 9, bytes(64), b"\x08" + bytes(7) + b"{}      "])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelFileError):
        Engine(data)


def test_the_environment_decides_what_the_caller_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(integer_model())
    monkeypatch.setenv("MOBILENET_THREADS", "3")
    monkeypatch.setenv("MOBILENET_ISA", "generic")
    assert Engine(data).threads == 3
    assert Engine(data, threads=1).threads == 1
    assert Engine(data).plan()["isa"] == "generic"
    for nonsense in ("0", "257", "two", "-1", " 2", "٣"):
        monkeypatch.setenv("MOBILENET_THREADS", nonsense)
        with pytest.raises(ArgumentError, match="MOBILENET_THREADS"):
            thread_count()
    monkeypatch.setenv("MOBILENET_ISA", "z80")
    with pytest.raises(ArgumentError, match="z80"):
        Engine(data, threads=1)


def test_a_model_can_be_pickled_and_copied(tmp_path: Path) -> None:
    made = random_model()
    made.save(tmp_path / "m.safetensors")
    batch = pictures(made)
    for model in (made, mobilenet.load(tmp_path / "m.safetensors", threads=2)):
        expected = model.run(batch)["logits"]
        for same in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model), replace(model)):
            np.testing.assert_array_equal(same.run(batch)["logits"], expected)
    assert pickle.loads(pickle.dumps(mobilenet.load(tmp_path / "m.safetensors", threads=2))).threads == 2


def test_changed_weights_are_what_runs(tmp_path: Path) -> None:
    made = random_model()
    made.save(tmp_path / "m.safetensors")
    loaded = mobilenet.load(tmp_path / "m.safetensors")
    bias = next(name for name in loaded.weights if name.endswith("classifier.bias"))
    loaded.weights[bias] = loaded.weights[bias] + 5
    batch = pictures(made)
    np.testing.assert_allclose(loaded.run(batch)["logits"], made.run(batch)["logits"] + 5, rtol=1e-4, atol=1e-4)


def photos(folder: Path, count: int) -> list[Path]:
    generator = np.random.default_rng(5)
    paths = []
    for number in range(count):
        size = generator.integers(40, 200, 2)
        pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        paths.append(folder / f"{number:02}.jpg")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("batch", [1, 3])
def test_many_paths_are_answered_in_order_as_one_by_one(tmp_path: Path, batch: int) -> None:
    model = random_model()
    paths: list[Any] = photos(tmp_path, 17)
    paths[4].write_bytes(b"no picture")
    paths[9] = np.asarray(Image.open(paths[9]))  # pictures in memory among paths
    one_by_one = [next(model.answers([path])) for path in paths]
    for threads in (1, 2, 4):
        model.threads = threads
        answers = list(model.answers(iter(paths), batch=batch))
        assert [answer.path for answer in answers] == [answer.path for answer in one_by_one]
        for answer, wanted in zip(answers, one_by_one, strict=True):
            assert (answer.error is None) == (wanted.error is None)
            for name, array in wanted.outputs.items():
                np.testing.assert_array_equal(answer.outputs[name], array)


def test_paths_are_read_ahead_by_a_few_only(tmp_path: Path) -> None:
    model = random_model(resolution=32)
    model.threads = 2
    (path,) = photos(tmp_path, 1)
    taken = []

    def endless() -> Any:
        while True:
            taken.append(path)
            yield path

    stream = model.predict(endless())
    for _ in range(20):
        next(stream)
    assert len(taken) <= 20 + 2 * 2 + 1
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mobilenet")]


def test_a_failing_list_of_paths_fails_after_what_came_before(tmp_path: Path) -> None:
    model = random_model(resolution=32)
    model.threads = 2
    paths = photos(tmp_path, 5)

    def broken() -> Any:
        yield from paths
        raise RuntimeError("the list ends badly")

    stream = model.answers(broken())
    assert [next(stream).path for _ in paths] == [str(path) for path in paths]
    with pytest.raises(RuntimeError, match="ends badly"):
        next(stream)


def test_verify_holds_in_both_precisions(tmp_path: Path) -> None:
    random_model(resolution=32).save(tmp_path / "m.safetensors")
    mobilenet.load(tmp_path / "m.safetensors").verify()
    if "avx512bf16" in isas():
        mobilenet.load(tmp_path / "m.safetensors", precision="bf16").verify()
    with pytest.raises(ArgumentError, match="fp32, bf16, not 'fp64'"):
        mobilenet.load(tmp_path / "m.safetensors", precision="fp64")
    with pytest.raises(ArgumentError, match="threads"):
        mobilenet.load(tmp_path / "m.safetensors", threads=0)


def test_a_missing_engine_is_said_clearly() -> None:
    code = "import sys; sys.modules['mobilenet._engine'] = None\nimport mobilenet.run.engine"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert EngineMissingError.__name__ in done.stderr
    assert "pip install ." in done.stderr


def test_a_forked_child_runs_too() -> None:
    code = (
        "import os, signal, numpy as np, mobilenet\n"
        "model = mobilenet.create('mobilenet_v2', width_multiplier=0.35, resolution=64)\n"
        "model.threads = 2\n"
        "batch = np.ones((1, 64, 64, 3), np.float32)\n"
        "expected = model.run(batch)['logits']\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(60)\n"
        "    os._exit(not (model.run(batch)['logits'] == expected).all())\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_a_dead_channel_with_a_huge_bias_still_has_a_kernel():
    """Calibration gives a channel whose weights are all zero a bias of up to 31 bits."""
    size = TensorType((5, 5, 24), "uint8", Quantisation(0.02, 100))
    conv = Node("conv", Conv(out_channels=20, bias=True), ("x",), "uint8", Quantisation(0.5, 3))
    graph = Graph({"x": size}, (conv,), {"y": "conv"})
    generator = np.random.default_rng(0)
    weight = generator.integers(-127, 128, (20, 1, 1, 24)).astype(np.int8)
    weight[7] = 0
    bias = generator.integers(-1000, 1000, 20).astype(np.int32)
    bias[7] = 2**31 - 1
    scale = np.full(20, 0.01, np.float32)
    scale[7] = 1e-10
    weights = {
        "conv.weight": weight,
        "conv.bias": bias,
        "conv.weight_scale": scale,
        "conv.weight_zero_point": np.zeros(1, np.int32),
    }
    contents = ModelContents(graph, weights, None, task="features")
    engine = Engine(encode(contents))
    assert "generic_conv" not in {step["kernel"] for step in engine.plan()["steps"]}
    x = generator.integers(0, 256, (2, 5, 5, 24)).astype(np.uint8)
    np.testing.assert_array_equal(engine.run(x)["y"], reference.run(graph, weights, x)["y"])
