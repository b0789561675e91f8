"""A run that is killed and resumed ends with the same weights, bit for bit, as one that nobody disturbed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import learn_child
from safetensors.numpy import load_file

from mobilenet.errors import ArgumentError, TrainingError
from mobilenet.files.model_file import read_model_file
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.train import train

# A child starts from a process that has imported torch already, so that it takes no seconds to start.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mobilenet.learn.session", "mobilenet.report.plots"])


def start(words: dict[str, Any], fault: str = "", number: int = 0) -> ForkServerProcess:
    project = Path(words["project"])
    project.mkdir(parents=True, exist_ok=True)
    child = CONTEXT.Process(target=learn_child.run, args=(words, fault, number, str(project / "log.txt")))
    child.start()
    return child


def finish(child: ForkServerProcess, words: dict[str, Any]) -> int:
    child.join(120)
    assert child.exitcode is not None, "the run hangs"
    if child.exitcode not in (0, -signal.SIGKILL, 130, 143):
        pytest.fail((Path(words["project"]) / "log.txt").read_text())
    return child.exitcode


def whole_files(run: Path) -> None:
    """Whatever has its final name must be readable."""
    if (run / "best.safetensors").exists():
        read_model_file(run / "best.safetensors")
    if (run / "last.safetensors").exists():
        load_file(run / "last.safetensors")


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights that an uninterrupted run of `words` ends with."""
    words = resume_words(pictures, tmp_path_factory.mktemp("undisturbed"))
    assert finish(start(words), words) == 0
    return result_of(Path(words["project"]) / "classify" / "train")


def resume_words(pictures: Path, project: Path) -> dict[str, Any]:
    return {
        "data": str(pictures), "model": "mobilenet_v2", "width": 0.1, "resolution": 32, "epochs": 3, "batch": 8,
        "warmup_epochs": 1.0, "dropout": 0.2, "drop_path": 0.2, "randaugment": 3, "mixup": 0.2, "cutmix": 0.5,
        "amp": "bf16", "device": "cpu", "threads": 1, "workers": 1, "project": str(project),
        "save_period_seconds": 0.05,
    }  # fmt: skip


def result_of(run: Path) -> dict[str, Any]:
    best = read_model_file(run / "best.safetensors")
    state = load_file(run / "last.safetensors")
    return {"best": best.weights, "state": state, "calibration": best.calibration, "metrics": best.metrics}


def assert_same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for part in ("best", "state"):
        assert got[part].keys() == wanted[part].keys()
        for name, array in wanted[part].items():
            assert got[part][name].tobytes() == array.tobytes(), f"{part}: {name} differs"
    assert got["calibration"] == wanted["calibration"]
    assert got["metrics"]["top1"] == wanted["metrics"]["top1"]


def kill_and_resume(words: dict[str, Any], faults: list[tuple[str, int]]) -> Path:
    """Runs with one fault after another, then to the end; returns the run's folder."""
    run = Path(words["project"]) / words.get("task", "classify") / "train"
    for fault, number in faults:
        assert finish(start(words, fault, number), words) == -signal.SIGKILL, f"{fault} {number} did not happen"
        whole_files(run)
        words = {**words, "resume": True}
    assert finish(start(words), words) == 0
    return run


# Within the first epoch, between two epochs, in the last; then inside saving: while a file is being written,
# after it is written but before it has its name, and right after it has it.
@pytest.mark.parametrize(
    "faults",
    [
        [("step", 2), ("step", 3), ("step", 3)],
        [("fsync", 2), ("fsync", 5), ("fsync", 9)],
        [("before rename", 3), ("after rename", 4), ("before rename", 6)],
    ],
    ids=["in a step", "in writing", "in renaming"],
)
def test_killed_runs_end_as_if_nothing_had_happened(
    undisturbed: dict[str, Any], pictures: Path, tmp_path: Path, faults: list[tuple[str, int]]
) -> None:
    run = kill_and_resume(resume_words(pictures, tmp_path), faults)
    assert_same(result_of(run), undisturbed)
    assert not list(run.glob("*.tmp")), "what a killed run left half written is not cleared away"


def test_killed_fine_tuning_too(undisturbed: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    """While embedding, after the last layer was fitted, while all of it trains."""
    (tmp_path / "start").mkdir()
    words = {**resume_words(pictures, tmp_path / "start"), "epochs": 1}
    assert finish(start(words), words) == 0
    file = str(tmp_path / "start" / "classify" / "train" / "best.safetensors")
    words.update(model="mobilenet_v2", width=None, pretrained=file, freeze="1", epochs=2)
    assert finish(start({**words, "name": "whole"}), words) == 0
    words["project"] = str(tmp_path / "killed")
    run = kill_and_resume(words, [("fsync", 1), ("fsync", 4), ("step", 2)])
    assert_same(result_of(run), result_of(tmp_path / "start" / "classify" / "whole"))


def test_kills_at_random_times(undisturbed: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    words = resume_words(pictures, tmp_path)
    run = tmp_path / "classify" / "train"
    delays = random.Random(0)
    for _ in range(3):
        child = start(words)
        time.sleep(delays.uniform(0.3, 2.0))
        child.kill()
        if finish(child, words) == 0:
            break
        whole_files(run)
        words["resume"] = True
    else:
        assert finish(start(words), words) == 0
    assert_same(result_of(run), undisturbed)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_leave(
    undisturbed: dict[str, Any], pictures: Path, tmp_path: Path, number: int, status: int
) -> None:
    words = {**resume_words(pictures, tmp_path), "save_period_seconds": 0.0}
    run = tmp_path / "classify" / "train"
    child = start(words)
    while not (run / "last.safetensors").exists():
        time.sleep(0.02)
        assert child.is_alive()
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(5)
    assert child.exitcode == status, (tmp_path / "log.txt").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert signal.Signals(number).name in log
    assert "--resume" in log
    words["resume"] = True
    assert finish(start(words), words) == 0
    assert_same(result_of(run), undisturbed)


def test_a_finished_run_is_not_resumed(words: dict[str, Any]) -> None:
    words.update(epochs=1, mixup=0.0, cutmix=0.0, randaugment=0)
    train(TrainOptions(**words))
    with pytest.raises(ArgumentError, match="is finished"):
        train(TrainOptions(**words, resume=True))


def test_other_options_and_other_pictures_are_refused(words: dict[str, Any], tmp_path: Path) -> None:
    child = start(words, "step", 4)
    assert finish(child, words) == -signal.SIGKILL
    with pytest.raises(ArgumentError, match=r"--lr0 0.5: the run that is resumed was started with 0.003"):
        train(TrainOptions(**words, lr0=0.5, resume=True))
    last = tmp_path / "runs" / "classify" / "train" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"last.safetensors: is no state"):
        train(TrainOptions(**words, resume=True))
