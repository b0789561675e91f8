"""Which network a checkpoint is, by its tensors; and what an error says about one that is not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from import_peers import candidate, look_alike, save

import mobilenet
from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.files.imports.read import read_import
from mobilenet.files.imports.sources import Ends, candidates

PUBLISHED = [
    ("torchvision", "mobilenet_v2", 1.4),
    ("torchvision", "mobilenet_v3_large", 0.75),
    ("torchvision", "mobilenet_v3_small_reduced_tail", 1.0),
    ("timm", "mobilenetv1", 1.25),
    ("timm", "mobilenetv2", 0.5),
    ("timm", "mobilenetv4_conv_small", 0.35),
    ("timm", "mobilenetv4_hybrid_large", 0.75),
    ("d-li14", "mobilenet_v2", 0.1),
    ("d-li14", "mobilenet_v2", 0.25),
    ("d-li14", "mobilenet_v3_large", 0.75),
    ("transformers", "mobilenet_v1", 0.75),
    ("transformers", "mobilenet_v2", 0.35),
]


@pytest.mark.parametrize(("project", "name", "width"), PUBLISHED)
def test_the_project_table_and_width_are_found(project: str, name: str, width: float, tmp_path: Path) -> None:
    path = save(look_alike(project, name, width), tmp_path / "a_misleading_resnet50.safetensors")
    said = read_import(path).provenance
    found = candidate(project, name)
    assert (said["project"], said["model"], said["width_multiplier"]) == (project, found.table, width)
    assert said["epsilon"] == found.rules.epsilon


def test_no_two_candidates_have_the_same_tensors_but_those_that_a_name_tells_apart() -> None:
    same: dict[frozenset[tuple[str, tuple[int, ...]]], list[str]] = {}
    for found in candidates("torch"):
        wanted = found.wanted(found.graph(found.rows.width_multiplier)).values()
        same.setdefault(frozenset((t.name, t.shapes[0]) for t in wanted), []).append(found.name)
    alike = sorted(sorted(names) for names in same.values() if len(names) > 1)
    assert alike == [
        ["mobilenetv3_large", "tf_mobilenetv3_large"],
        ["mobilenetv3_small", "tf_mobilenetv3_small"],
        ["mobilenetv4_conv_aa_large", "mobilenetv4_conv_large"],
        ["mobilenetv4_conv_aa_medium", "mobilenetv4_conv_blur_medium", "mobilenetv4_conv_medium"],
    ]


def test_names_of_the_reference_are_the_recognised_ones(shared: Path) -> None:
    """d-li14's projects are no packages: their names and shapes are known from the reference facts alone."""
    keys = json.loads((shared / "reference" / "state_dict_keys.json").read_text())
    for name, tensors in keys["d-li14"].items():
        table, _, width = name.replace("mobilenetv", "mobilenet_v").rpartition("_")
        found = candidate("d-li14", table)
        wanted = found.wanted(found.graph(float(width))).values()
        stored = {key: tuple(shape) for key, shape in tensors if "num_batches" not in key}
        assert {t.name for t in wanted} == stored.keys()
        assert all(stored[t.name] in t.shapes for t in wanted)


def test_classes_channels_and_a_missing_top_come_from_the_shapes(tmp_path: Path) -> None:
    tensors = look_alike("torchvision", "mobilenet_v2", 0.35, Ends(1, 5))
    model = mobilenet.load(save(tensors, tmp_path / "x.safetensors"))
    assert model.input.shape == (224, 224, 1)
    assert len(model.names) == 5
    headless = {name: array for name, array in tensors.items() if not name.startswith("classifier")}
    assert mobilenet.load(save(headless, tmp_path / "y.safetensors")).task == "embed"


def test_one_of_several_with_the_same_tensors_is_taken_and_said(tmp_path: Path) -> None:
    path = save(look_alike("timm", "mobilenetv3_small", 0.75), tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match="tf_mobilenetv3_small has the very same tensors"):
        plain = mobilenet.load(path)
    assert plain.provenance["dialect"] == "timm"
    named = read_import(path, name="tf_mobilenetv3_small_075.in1k")
    assert named.provenance["dialect"] == "timm_tf"
    assert named.provenance["epsilon"] == 1e-3
    assert "ambiguous" not in named.provenance
    (tmp_path / "config.json").write_text('{"architecture": "tf_mobilenetv3_small_075"}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mobilenet.load(path).provenance["dialect"] == "timm_tf"


@pytest.mark.parametrize("said", ["mobilenetv3_large_100", "mobilenetv3_small_100", "resnet50", "mobilenet_v2"])
def test_a_name_that_contradicts_the_tensors_is_an_error(said: str, tmp_path: Path) -> None:
    path = save(look_alike("timm", "mobilenetv3_small", 0.75), tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": said}))
    with pytest.raises(ModelFileError, match=rf"config.json says '{said}', but the tensors are those of timm's"):
        read_import(path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelFileError, match=rf"the given name says '{said}'"):
        read_import(path, name=said)


def damaged(change: str) -> dict[str, np.ndarray]:
    tensors = look_alike("torchvision", "mobilenet_v2", 0.35)
    name = "features.3.conv.1.0.weight"
    if change == "missing":
        del tensors[name]
    elif change == "left over":
        tensors["features.3.conv.9.weight"] = np.zeros(3, np.float32)
    elif change == "wrong shape":
        tensors[name] = np.zeros((48, 1, 5, 5), np.float32)
    elif change in ("NaN", "infinite"):
        tensors[name][3, 0, 1, 2] = np.nan if change == "NaN" else -np.inf
    elif change == "integers":
        tensors[name] = tensors[name].astype(np.int8)
    elif change == "negative variance":
        tensors["features.0.1.running_var"][2] = -1e-3
    elif change == "overflow":
        tensors[name] = np.full(tensors[name].shape, 1e300)
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"missing: 'features.3.conv.1.0.weight' \(48, 1, 3, 3\)"),
        ("left over", r"left over: 'features.3.conv.9.weight' \(3,\)"),
        ("wrong shape", r"'features.3.conv.1.0.weight' is \(48, 1, 5, 5\), not \(48, 1, 3, 3\)"),
        ("NaN", "tensor 'features.3.conv.1.0.weight' holds 1 of 432 values that are NaN"),
        ("infinite", "tensor 'features.3.conv.1.0.weight' holds 1 of 432 values that are NaN or infinite"),
        ("integers", "tensor 'features.3.conv.1.0.weight' has dtype int8"),
        ("negative variance", "tensor 'features.0.1.running_var' holds a negative variance"),
        ("overflow", "tensor 'features.3.conv.1.0.weight' holds 432 of 432"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: str, message: str, tmp_path: Path) -> None:
    path = save(damaged(change), tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match=message) as error:
        read_import(path)
    assert str(error.value).startswith(str(path))


def test_names_in_errors_are_those_of_the_file(tmp_path: Path) -> None:
    tensors = {f"module.{name}": array for name, array in damaged("NaN").items()}
    with pytest.raises(ModelFileError, match=r"tensor 'module.features.3.conv.1.0.weight'"):
        read_import(save(tensors, tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "fc.weight"), "looks like a ResNet"),
        (("cls_token", "blocks.0.attn.qkv.weight", "head.weight"), "looks like a vision transformer"),
        (("features.0.weight", "features.0.bias", "classifier.6.weight"), "looks like a VGG"),
        (("a", "b"), "no architecture that is known"),
    ],
)
def test_another_architecture_is_said_by_its_name(names: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    path = save({name: np.zeros(3, np.float32) for name in names}, tmp_path / "mobilenetv2.safetensors")
    with pytest.raises(ModelFileError, match=rf"{kind}.*MobileNets V1 to V4 of timm"):
        mobilenet.load(path)


def test_the_nearest_network_is_named_for_a_relative(tmp_path: Path) -> None:
    """timm's EfficientNets have the names of its MobileNets."""
    tensors = look_alike("timm", "mobilenetv2")
    tensors |= {f"blocks.1.0.se.conv_reduce.{kind}": np.zeros(3, np.float32) for kind in ("weight", "bias")}
    with pytest.raises(ModelFileError, match=r"nearest to timm's mobilenetv2 at width 1, and looks like an Eff"):
        read_import(save(tensors, tmp_path / "x.safetensors"))


def test_labels_of_1000_and_1001_classes_are_made_to_fit(tmp_path: Path) -> None:
    names = tuple(f"class {n}" for n in range(1000))
    (tmp_path / "names.txt").write_text("\n".join(names))
    with_background = save(
        look_alike("transformers", "mobilenet_v1", 0.25, Ends(3, 1001)), tmp_path / "a.safetensors"
    )
    without = save(look_alike("torchvision", "mobilenet_v2", 0.35), tmp_path / "b.safetensors")
    assert read_import(with_background, labels=tmp_path / "names.txt").labels == ("background", *names)
    assert read_import(without, labels=("background", *names)).labels == names
    with pytest.raises(ModelFileError, match="has 1000 outputs, but the labels given are 3"):
        read_import(without, labels=("a", "b", "c"))


@pytest.mark.parametrize("resolution", [31, 20_000, (64,), "224"])
def test_an_impossible_resolution(resolution: object, tmp_path: Path) -> None:
    path = save(look_alike("torchvision", "mobilenet_v2", 0.35), tmp_path / "x.safetensors")
    with pytest.raises(ArgumentError, match="resolution"):
        read_import(path, resolution=resolution)  # type: ignore[arg-type]


def test_an_imported_model_is_saved_and_gives_the_same(tmp_path: Path) -> None:
    model = mobilenet.load(save(look_alike("d-li14", "mobilenet_v3_small"), tmp_path / "x.safetensors"))
    model.save(tmp_path / "m.safetensors")
    again = mobilenet.load(tmp_path / "m.safetensors")
    again.verify()
    picture = np.zeros((50, 60, 3), np.uint8)
    assert np.array_equal(again.predict(picture).probs.data, model.predict(picture).probs.data)
    assert again.provenance["project"] == "d-li14"
