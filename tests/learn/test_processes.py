"""Two processes that train together do what one does alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import learn_child
from safetensors.numpy import load_file

from mobilenet.learn.options import TrainOptions
from mobilenet.learn.train import train

CHILD = Path(__file__).with_name("learn_child.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_together(words: dict[str, Any], processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    launcher += ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, str(CHILD), json.dumps(words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def history(folder: Path) -> list[dict[str, str]]:
    rows = (folder / "results.csv").read_text().splitlines()
    return [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]


def test_two_processes_equal_one(words: dict[str, Any], tmp_path: Path) -> None:
    """A step in float64, where rounding cannot hide an error; then a run with uneven shares of each batch."""
    words.update(dropout=0.0, drop_path=0.0, epochs=2, batch=10, class_weights="auto", optimizer="sgd", lr0=1e-8)
    alone = train(TrainOptions(**words))
    learn_child.write_gradients(str(tmp_path / "alone.npz"))
    frozen = {**words, "model": "mobilenet_v2", "width": None, "pretrained": str(alone.path), "freeze": "features"}
    head = train(TrainOptions(**frozen, name="head"))
    project = {"project": str(tmp_path / "together")}
    more = {"gradients": str(tmp_path / "together.npz"), "then": {**frozen, **project, "name": "head"}}
    together = run_together({**words, **project, **more})
    assert together.returncode == 0, together.stderr[-3000:]
    assert together.stdout.count("epoch 2/2") == 1, "only the main process prints"
    assert_same_gradients(tmp_path / "alone.npz", tmp_path / "together.npz")
    assert_same_run(alone.folder, tmp_path / "together" / "classify" / "train")
    (row,) = history(tmp_path / "together" / "classify" / "head")
    assert float(row["val_loss"]) == pytest.approx(head.history[0]["val_loss"], rel=1e-4)


def assert_same_gradients(one: Path, two: Path) -> None:
    with np.load(one) as wanted, np.load(two) as got:
        assert set(wanted) == set(got)
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-9, atol=1e-12, err_msg=name)


def assert_same_run(one: Path, two: Path) -> None:
    """Within float32 rounding: weights hardly move, as a random network amplifies it; momenta sum up gradients."""
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir() if path.suffix != ".png"}
    for mine, theirs in zip(history(one), history(two), strict=True):
        for column in ("train_loss", "val_loss", "val_loss_ema"):
            assert float(theirs[column]) == pytest.approx(float(mine[column]), rel=1e-4), column
    states = [load_file(run / "last.safetensors") for run in (one, two)]
    momenta = [name for name in states[0] if name.endswith("/momentum_buffer")]
    assert len(momenta) > 100
    mine, theirs = (np.concatenate([state[name].ravel() for name in momenta]) for state in states)
    assert np.linalg.norm(mine - theirs) <= 0.01 * np.linalg.norm(mine)
    statistics = [name for name in states[0] if name.endswith(".variance")]
    for name in statistics:
        np.testing.assert_allclose(states[1][name], states[0][name], rtol=1e-3, err_msg=name)


def test_an_error_in_one_process_ends_all(words: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    words["batch"] = 2
    outcome = run_together(words, processes=3)
    assert outcome.returncode != 0
    assert "a batch of 2 cannot be shared by 3 processes" in outcome.stderr
