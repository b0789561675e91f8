"""Keras files of all releases: names and layouts; hostile and damaged ones are refused, nothing of theirs runs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_peers import candidate, look_alike

import mobilenet
from mobilenet.errors import MissingExtraError, ModelFileError
from mobilenet.files.imports.keras_names import plain_keras_name
from mobilenet.files.imports.read import read_import
from mobilenet.graph.graph import Weights

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'mobilenet[import]'")

ORDER = ("gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias")
V3 = ("Keras", "mobilenet_v3_small", 0.35)


def grouped(tensors: Weights) -> dict[str, Weights]:
    """layer -> parameter -> array."""
    layers: dict[str, Weights] = {}
    for name, array in tensors.items():
        layer, _, parameter = name.rpartition("/")
        layers.setdefault(layer, {})[parameter] = array
    return layers


def keras_tensors(width: float = 0.35, name: str = "mobilenet_v3_small") -> Weights:
    return look_alike("Keras", name, width, layout="keras")


def legacy(tensors: Weights, path: Path, root: str = "", colon: str = ":0") -> Path:
    """As Keras 1 and 2 wrote weights, and Keras 3 still writes whole models."""
    with h5py.File(path, "w") as file:
        for layer, parameters in grouped(tensors).items():
            for parameter, array in parameters.items():
                stored = f"depthwise_{parameter}" if "depthwise" in layer and parameter == "kernel" else parameter
                file[f"{root}{layer}/{layer}/{stored}{colon}"] = array
    return path


def numbered(tensors: Weights, path: Path, *, named: bool) -> Path:
    """As Keras 3 writes weights: arrays are numbered, and layers named (or, in its first releases, counted)."""
    count: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        for layer, parameters in grouped(tensors).items():
            kernel = parameters.get("kernel")
            kind = (
                "batch_normalization"
                if kernel is None
                else "depthwise_conv2d"
                if "depthwise" in layer
                else "conv2d"
            )
            number = count.get(kind, 0)
            count[kind] = number + 1
            place = layer if named else f"{kind}_{number}" if number else kind
            order = [
                p for p in ("gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias") if p in parameters
            ]
            for index, parameter in enumerate(order):
                file[f"layers/{place}/vars/{index}"] = parameters[parameter]
            if named:
                file[f"layers/{place}/vars"].attrs["name"] = layer
    return path


def old_name(name: str) -> str:
    """What tf.keras 2 called a layer of V3."""
    layer, _, parameter = name.rpartition("/")
    parts = layer.replace("_bn", "/BatchNorm").replace("expanded_conv_", "expanded_conv#")
    for role in ("expand", "depthwise", "project", "squeeze_excite"):
        parts = parts.replace(f"_{role}", f"/{role}").replace(f"#{role}", f"/{role}")
    return f"{parts.replace('squeeze_excite_conv', 'squeeze_excite/Conv').replace('#', '_')}/{parameter}"


@pytest.mark.parametrize("form", ["legacy", "legacy whole", "keras 3 whole", "older names", "named", "counted"])
def test_every_layout_of_a_file_gives_the_same_weights(form: str, tmp_path: Path) -> None:
    tensors, path = keras_tensors(), tmp_path / "x.h5"
    if form == "older names":
        older = {old_name(name): array for name, array in tensors.items()}
        assert "expanded_conv_3/squeeze_excite/Conv_1/kernel" in older
        assert {plain_keras_name(name.rpartition("/")[0]) for name in older} == set(grouped(tensors))
        legacy(older, path)
    elif form in ("named", "counted"):
        numbered(tensors, path, named=form == "named")
    else:
        legacy(tensors, path, "model_weights/" if "whole" in form else "", "" if "3" in form else ":0")
    model = mobilenet.load(path)
    found = candidate(*V3[:2], layout="keras")
    expected = found.wanted(found.graph(0.35))
    assert all(np.array_equal(model.weights[ours], t.turn(tensors[t.name])) for ours, t in expected.items())
    assert model.provenance["width_multiplier"] == 0.35
    assert model.provenance["epsilon"] == 1e-3


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("mobilenet_v1", 0.5),
        ("mobilenet_v2", 1.3),
        ("mobilenet_v3_large_minimalistic", 1.0),
        ("mobilenet_v3_large", 0.75),
    ],
)
def test_the_network_and_alpha_come_from_the_shapes(name: str, width: float, tmp_path: Path) -> None:
    path = legacy(keras_tensors(width, name), tmp_path / "weights.h5")
    said = mobilenet.load(path).provenance
    assert (said["model"], said["width_multiplier"]) == (name, width)


def test_a_damaged_tensor_is_named(tmp_path: Path) -> None:
    tensors = keras_tensors()
    tensors["expanded_conv_2_expand/kernel"] = tensors["expanded_conv_2_expand/kernel"][..., :-1]
    with pytest.raises(ModelFileError, match=r"_2_expand/kernel' is \(1, 1, 8, 31\), not \(1, 1, 8, 32\)"):
        read_import(legacy(tensors, tmp_path / "x.h5"))
    tensors = keras_tensors()
    tensors["conv/kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(ModelFileError, match="tensor 'conv/kernel' holds 1 of 432 values that are NaN"):
        read_import(legacy(tensors, tmp_path / "y.h5"))


def test_another_architecture(tmp_path: Path) -> None:
    path = legacy({"conv1_conv/kernel": np.zeros((7, 7, 3, 64), np.float32)}, tmp_path / "x.h5")
    with pytest.raises(ModelFileError, match="looks like a ResNet"):
        mobilenet.load(path)


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    tensors = keras_tensors()
    secret = legacy({"conv/kernel": tensors.pop("conv/kernel")}, tmp_path / "secret.h5")
    path = legacy(tensors, tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        file["conv"] = h5py.ExternalLink(str(secret), "/conv")
    with pytest.raises(ModelFileError, match="missing: 'conv/kernel'"):
        mobilenet.load(path)


@pytest.mark.parametrize("form", ["external", "virtual"])
def test_values_that_lie_in_other_files_are_refused(form: str, tmp_path: Path) -> None:
    tensors = keras_tensors()
    kernel = tensors.pop("conv/kernel")
    kernel.tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = kernel
    path = legacy(tensors, tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        if form == "external":
            place = [(str(tmp_path / "secret.bin"), 0, kernel.nbytes)]
            file.create_dataset("conv/conv/kernel:0", kernel.shape, np.float32, external=place)
        else:
            layout = h5py.VirtualLayout(kernel.shape, np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "data", kernel.shape)
            file.create_virtual_dataset("conv/conv/kernel:0", layout)
    with pytest.raises(ModelFileError, match="'conv/conv/kernel:0' in it refers to another file"):
        mobilenet.load(path)


def test_a_dataset_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = legacy(keras_tensors(), tmp_path / "x.h5")
    with h5py.File(path, "a") as file:  # chunks that were never written take no room
        file.create_dataset(
            "big/big/kernel:0", (2**20, 2**16), np.float32, chunks=(1024, 1024), compression="gzip"
        )
    with pytest.raises(ModelFileError, match=r"'big/big/kernel:0' in it claims 68,719,476,736 values"):
        mobilenet.load(path)


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.95])
def test_a_truncated_hdf5_file(share: float, tmp_path: Path) -> None:
    data = legacy(keras_tensors(), tmp_path / "x.h5").read_bytes()
    (tmp_path / "y.h5").write_bytes(data[: max(9, int(share * len(data)))])
    with pytest.raises(ModelFileError, match=r"y.h5: "):
        mobilenet.load(tmp_path / "y.h5")


def packed(path: Path, weights: bytes, config: Any, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def functional(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Functional", "config": {"name": "net", "layers": list(layers)}}


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return numbered(keras_tensors(), tmp_path / "w.h5", named=True).read_bytes()


def test_a_configuration_gives_epsilon_size_and_range(weights: bytes, tmp_path: Path) -> None:
    config = functional(
        layer("InputLayer", "in", batch_shape=[None, 96, 128, 3]),
        layer("Rescaling", "r", scale=1 / 255, offset=0.0),
        layer("BatchNormalization", "conv_bn", epsilon=0.01),
    )
    model = mobilenet.load(packed(tmp_path / "x.keras", weights, config))
    assert model.provenance["epsilon"] == 0.01
    assert model.input.shape == (96, 128, 3)
    assert model.preprocessing is not None
    assert model.preprocessing.mean == pytest.approx((0, 0, 0))
    assert model.preprocessing.std == pytest.approx((255, 255, 255))


def test_code_in_a_configuration_is_not_run(weights: bytes, tmp_path: Path) -> None:
    """A Lambda layer holds a marshalled function, a custom object the name of a module to import."""
    hostile = layer("Lambda", "l", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA="}})
    other = {"module": "this_module_must_not_be_imported", "class_name": "Evil", "config": {"name": "e"}}
    model = mobilenet.load(packed(tmp_path / "x.keras", weights, functional(hostile, other)))
    assert model.provenance["project"] == "Keras"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "configuration that is no JSON"),
        ("[" * 200_000, "configuration that is no JSON"),
        (functional(layer("BatchNormalization", "a", epsilon="x")), "epsilon 'x'"),
        (
            functional(
                layer("BatchNormalization", "a", epsilon=1e-3), layer("BatchNormalization", "b", epsilon=1e-5)
            ),
            "different epsilons",
        ),
        (functional(layer("Rescaling", "r", scale=[1, 2, 3])), "rescales pictures by"),
    ],
)
def test_a_configuration_that_is_wrong(config: Any, message: str, weights: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        mobilenet.load(packed(tmp_path / "x.keras", weights, config))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.keras", bytes(2**28), {}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(ModelFileError, match=r"packs 'model.weights.h5' of 268,435,456 bytes"):
        mobilenet.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_archive(share: float, weights: bytes, tmp_path: Path) -> None:
    data = packed(tmp_path / "x.keras", weights, {}).read_bytes()
    (tmp_path / "y.keras").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFileError, match="damaged or truncated archive"):
        mobilenet.load(tmp_path / "y.keras")


def test_an_archive_of_another_kind(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    (tmp_path / "x.keras").write_bytes(stream.getvalue())
    with pytest.raises(ModelFileError, match=r"an archive of no known kind; it packs word/document.xml"):
        mobilenet.load(tmp_path / "x.keras")


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = legacy(keras_tensors(), tmp_path / "x.h5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"mobilenet\[import\]"):
        read_import(path)
