"""A run of a segmenter that is killed and resumed ends with the same weights as one that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import learn_child
from safetensors.numpy import load_file
from segment_pictures import quick, write_discs

from mobilenet.errors import TrainingError
from mobilenet.files.model_file import read_model_file
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.train import train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mobilenet.learn.session", "mobilenet.report.plots"])


def run(words: dict[str, Any], fault: str = "", number: int = 0) -> int:
    """Trains in a process of its own, which may die; returns its exit status."""
    log = Path(words["project"]) / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    child = CONTEXT.Process(target=learn_child.run, args=(words, fault, number, str(log)))
    child.start()
    child.join(120)
    assert child.exitcode is not None, "the run hangs"
    if child.exitcode not in (0, -signal.SIGKILL):
        pytest.fail(log.read_text())
    return child.exitcode


def outcome(project: Path) -> dict[str, Any]:
    folder = project / "segment" / "train"
    best = read_model_file(folder / "best.safetensors")
    arrays = {f"best {name}": array for name, array in best.weights.items()}
    arrays |= {f"state {name}": array for name, array in load_file(folder / "last.safetensors").items()}
    return {name: array.tobytes() for name, array in arrays.items()} | {"miou": best.metrics["miou"]}


def test_killed_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    data = write_discs(tmp_path / "data", {"train": 20, "val": 4})
    more = {"width": 0.1, "save_period_seconds": 0.01, "region": "dice", "head": "lraspp", "amp": "bf16"}
    assert run(quick(data, tmp_path / "whole", **more)) == 0
    words = quick(data, tmp_path / "killed", **more)
    for fault, number in (("step", 2), ("before rename", 3), ("fsync", 2)):
        assert run(words, fault, number) == -signal.SIGKILL, f"{fault} {number} did not happen"
        words["resume"] = True
    assert run(words) == 0
    wanted, got = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert wanted.keys() == got.keys()
    assert not [name for name in wanted if wanted[name] != got[name]]


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    data = write_discs(tmp_path / "data", {"train": 20, "val": 4})
    words = quick(data, tmp_path / "runs", width=0.1, head="lraspp")
    assert run(words, "step", 4) == -signal.SIGKILL
    (data / "train.txt").write_text("".join(f"train{number:02}\n" for number in range(19)))
    with pytest.raises(TrainingError, match="changed since this run was started"):
        train(TrainOptions(**words, resume=True))
