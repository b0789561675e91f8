"""Torch checkpoints: wrapped ones are unwrapped, hostile and damaged ones are refused, no code of theirs runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_peers import look_alike

import mobilenet
from mobilenet.errors import MissingExtraError, ModelFileError
from mobilenet.files.imports.read import read_import

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'mobilenet[train]'")


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    return {
        name: torch.from_numpy(array) for name, array in look_alike("torchvision", "mobilenet_v2", 0.35).items()
    }


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model in module": lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    "Lightning and compile": lambda state: {"state_dict": {f"model._orig_mod.{n}": v for n, v in state.items()}},
    "averaged": lambda state: {
        "state_dict": {name: torch.full_like(value, torch.nan) for name, value in state.items()},
        "state_dict_ema": {"n_averaged": torch.tensor(3), **{f"module.{name}": v for name, v in state.items()}},
    },
    "half": lambda state: {name: value.half() for name, value in state.items()},
    "parameters": lambda state: {name: torch.nn.Parameter(value) for name, value in state.items()},
}


@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_checkpoints_are_unwrapped(name: str, zipped: bool, state: Any, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[name](state), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    weights = mobilenet.load(tmp_path / "x.pth").weights
    expected = state["features.0.0.weight"].permute(0, 2, 3, 1).numpy()
    assert np.abs(weights["stem.conv.weight"] - expected).max() <= (1e-3 if name == "half" else 0)


class Runs:
    """Unpickling this writes a file, as code of a hostile checkpoint would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(form: str, state: Any, tmp_path: Path) -> None:
    hostile = {**state, "extra": Runs(tmp_path / "ran")}
    if form == "pickle":
        (tmp_path / "x.pth").write_bytes(pickle.dumps(hostile["extra"], protocol=2))
    else:
        torch.save(hostile, tmp_path / "x.pth", _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(ModelFileError, match="holds more than weights"):
        mobilenet.load(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match=r"save the network's state_dict\(\) alone"):
        mobilenet.load(tmp_path / "x.pth")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint(share: float, zipped: bool, state: Any, tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=zipped)
    data = stream.getvalue()
    (tmp_path / "x.pth").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFileError, match=r"x.pth: (is|holds)"):
        mobilenet.load(tmp_path / "x.pth")


def test_an_archive_that_unpacks_to_more_is_refused(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "stored.pth")
    with zipfile.ZipFile(tmp_path / "stored.pth") as stored, zipfile.ZipFile(tmp_path / "x.pth", "w") as packed:
        for name in stored.namelist():
            packed.writestr(name, stored.read(name), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match="in it is compressed"):
        mobilenet.load(tmp_path / "x.pth")


def test_a_tensor_that_claims_more_than_it_holds(state: Any, tmp_path: Path) -> None:
    one = torch.zeros(1)
    torch.save({**state, "features.0.0.weight": one.expand(10**9)}, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match=r"'features.0.0.weight' .* has fewer values than its shape"):
        mobilenet.load(tmp_path / "x.pth")


def test_quantised_tensors_are_refused(state: Any, tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(state["features.0.0.weight"], 0.1, 0, torch.qint8)
    torch.save({**state, "features.0.0.weight": quantised}, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match=r"'features.0.0.weight' is quantised|holds more than weights"):
        mobilenet.load(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3)])
def test_what_holds_no_dictionary_of_tensors(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match="holds"):
        mobilenet.load(tmp_path / "x.pth")


def test_a_name_that_appears_twice(state: Any, tmp_path: Path) -> None:
    torch.save({**state, "module.features.0.0.weight": state["features.0.0.weight"]}, tmp_path / "x.pth")
    with pytest.raises(ModelFileError, match=r"holds 'features.0.0.weight' twice"):
        mobilenet.load(tmp_path / "x.pth")


def test_without_torch_the_extra_is_named(state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state, tmp_path / "x.pth")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"mobilenet\[train\]"):
        read_import(tmp_path / "x.pth")
