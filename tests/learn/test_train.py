"""Whole runs: what they leave behind, and what they say when something is wrong."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch")

from safetensors.numpy import load_file

import mobilenet
from conftest import write_pictures
from mobilenet.errors import ArgumentError, DataError, TrainingError
from mobilenet.files.model_file import read_model_file, write_model_file
from mobilenet.graph.fold import fold
from mobilenet.learn import classify
from mobilenet.learn import data as learn_data
from mobilenet.learn.checkpoint import load_state
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.run_folder import new_run
from mobilenet.learn.task import Score
from mobilenet.learn.train import TrainResult, train

EASY = {
    "dropout": None, "drop_path": 0.0, "randaugment": 0, "mixup": 0.0, "cutmix": 0.0, "epochs": 8, "lr0": 0.01,
    "model": "mobilenet_v3_small", "width": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[dict[str, Any]]]:
    """A run that learns the three colours, and the events of it."""
    events: list[dict[str, Any]] = []
    project = tmp_path_factory.mktemp("finished")
    words = {"data": str(pictures), "resolution": 32, "batch": 8, "threads": 1, "workers": 1, **EASY}
    result = train(TrainOptions(**words, project=str(project), amp="none"), on_progress=events.append)
    return result, events


def test_it_learns_and_leaves_the_files_that_are_promised(finished: Any) -> None:
    result, _ = finished
    assert result.metrics["top1"] >= 0.8
    names = {path.name for path in result.folder.iterdir()}
    assert names == {
        "best.safetensors", "last.safetensors", "args.yaml", "results.csv", "curves.png", "confusion_matrix.png",
        "predictions.png",
    }  # fmt: skip
    assert result.folder.parts[-2:] == ("classify", "train")
    rows = (result.folder / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 8
    assert rows[0].startswith("epoch,phase,train_loss,val_loss,val_top1")
    arguments = yaml.safe_load((result.folder / "args.yaml").read_text())
    assert TrainOptions(**arguments) == TrainOptions(**arguments).filled()


def test_the_best_epoch_is_kept(finished: Any) -> None:
    result, _ = finished
    best = read_model_file(result.path).provenance["best"]
    reached = [(row["val_top1"], -row["val_loss"]) for row in result.history]
    reached += [(row["val_top1_ema"], -row["val_loss_ema"]) for row in result.history]
    assert (best["top1"], -best["loss"]) == max(reached)
    state = load_file(result.folder / "last.safetensors")
    if best["epoch"] == 8:
        part = {"raw": "model/", "average": "average/"}[best["weights"]]
        for name, array in read_model_file(result.path).weights.items():
            np.testing.assert_array_equal(state[part + name], array)


def test_the_model_answers_as_it_was_measured(finished: Any, pictures: Path) -> None:
    """Without torch's help: the reference, through the public names."""
    result, _ = finished
    model = mobilenet.load(result.path)
    again = model.evaluate(pictures)
    assert again["top1"] == result.metrics["top1"] == model.metrics["top1"]
    assert again["ece"] == pytest.approx(result.metrics["ece"], abs=1e-4)
    assert model.metrics["split"] == "test"
    assert model.names == ("blue", "green", "red")
    assert model.calibration["temperature"] > 0
    assert model.checks
    folded, _ = fold(model.graph, model.weights)
    assert len(folded.nodes) < len(model.graph.nodes), "batch norms stay in the file, to be trained further"


def test_events_are_told(finished: Any) -> None:
    _, events = finished
    kinds = [event["event"] for event in events]
    assert kinds.count("epoch") == 8
    assert json.dumps(events)
    steps = [e for e in events if e["event"] == "progress" and e["task"] == "epoch 8/8"]
    assert [e["done"] for e in steps] == [8, 16, 24]
    assert steps[-1]["total"] == 24


def test_a_second_run_gets_a_folder_of_its_own(words: dict[str, Any]) -> None:
    words.update(epochs=1)
    first, second = (train(TrainOptions(**words)) for _ in range(2))
    assert first.folder.name == "train"
    assert second.folder.name == "train2"
    for name, array in read_model_file(first.path).weights.items():
        np.testing.assert_array_equal(read_model_file(second.path).weights[name], array, err_msg=name)
    names = [new_run(words["project"], "classify", name).path.name for name in (None, "mine", "mine", "mine")]
    assert names == ["train3", "mine", "mine2", "mine3"]


def pretrained(finished: Any) -> dict[str, Any]:
    result, _ = finished
    words = {"width": None, "dropout": None, "drop_path": 0.0, "randaugment": 0, "mixup": 0.0, "cutmix": 0.0}
    return {**words, "model": "mobilenet_v2", "pretrained": str(result.path)}


def test_only_the_last_layer_learns_with_frozen_features(finished: Any, words: dict[str, Any]) -> None:
    words.update(pretrained(finished), freeze="features")
    result = train(TrainOptions(**words))
    start, end = read_model_file(finished[0].path).weights, read_model_file(result.path).weights
    for name, array in start.items():
        assert np.array_equal(array, end[name]) != name.startswith("classifier."), name
    (row,) = result.history
    assert row["phase"] == "head"
    assert row["val_top1"] > 0.6
    embeddings = list((Path(words["project"]) / ".embeddings").iterdir())
    assert len(embeddings) == 2
    times = [path.stat().st_mtime_ns for path in embeddings]
    again = train(TrainOptions(**words))
    assert [path.stat().st_mtime_ns for path in embeddings] == times, "embedded once only"
    for name, array in read_model_file(again.path).weights.items():
        np.testing.assert_array_equal(array, end[name])


def test_fine_tuning_starts_from_the_fitted_layer_and_leaves_frozen_blocks_alone(
    finished: Any, words: dict[str, Any]
) -> None:
    words.update(pretrained(finished), freeze="2", epochs=1, lr0=0.01, ema=0.0, resolution=None)
    result = train(TrainOptions(**words))
    assert [row["phase"] for row in result.history] == ["head", "all"]
    start = read_model_file(finished[0].path).weights
    end = load_file(result.folder / "last.safetensors")
    for name, array in start.items():
        frozen = name.startswith(("stem.", "blocks.0.", "blocks.1."))
        assert np.array_equal(array, end[f"model/{name}"]) == frozen, name


def test_another_resolution_for_a_pretrained_network(finished: Any, words: dict[str, Any]) -> None:
    words.update(pretrained(finished), freeze="features", resolution=48)
    model = mobilenet.load(train(TrainOptions(**words)).path)
    assert model.input.shape == (48, 48, 3)
    assert (model.preprocessing.height, model.preprocessing.width) == (48, 48)


def test_patience_ends_a_run_that_gets_no_better(words: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    words.update(epochs=9, patience=2, ema=0.0)
    scores = iter([(0.5, 1.0), (0.6, 1.0), (0.6, 1.0), (0.6, 1.0), (0.6, 0.9)])
    monkeypatch.setattr(classify, "score", lambda *_: Score(*next(scores)))
    result = train(TrainOptions(**words))
    assert len(result.history) == 4
    assert read_model_file(result.path).provenance["best"]["epoch"] == 2


def test_divergence_says_what_to_try_and_keeps_the_last_good_state(words: dict[str, Any]) -> None:
    words.update(optimizer="sgd", lr0=1e30, warmup_epochs=0.0, epochs=3)
    with pytest.raises(TrainingError, match=r"not a finite number.*lower --lr0 \(it was 1e\+30\)"):
        train(TrainOptions(**words))
    last = Path(words["project"]) / "classify" / "train" / "last.safetensors"
    tensors, values = load_state(last)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in tensors.values())
    assert values["position"]["step"] == 0


def test_a_batch_of_one_is_refused_before_anything_is_written(words: dict[str, Any]) -> None:
    words["batch"] = 1
    with pytest.raises(TrainingError, match=r"a batch of one picture cannot train batch norm 'stem.*--batch 2"):
        train(TrainOptions(**words))
    assert not Path(words["project"]).exists()


def test_a_folded_network_learns_from_a_batch_of_one(finished: Any, words: dict[str, Any], tmp_path: Path) -> None:
    from dataclasses import replace

    contents = read_model_file(finished[0].path)
    graph, weights = fold(contents.graph, contents.weights)
    write_model_file(replace(contents, graph=graph, weights=weights), tmp_path / "folded.safetensors")
    words.update(pretrained(finished), pretrained=str(tmp_path / "folded.safetensors"), batch=1, epochs=1)
    assert train(TrainOptions(**words)).metrics["top1"] > 0.5


def test_pictures_that_cannot_be_used(words: dict[str, Any], tmp_path: Path) -> None:
    def error_of(change: Any, **more: Any) -> str:
        root = write_pictures(tmp_path / str(len(list(tmp_path.iterdir()))), {"train": 3, "val": 1})
        change(root)
        with pytest.raises(DataError) as caught:
            train(TrainOptions(**{**words, "data": str(root), **more}))
        return str(caught.value)

    def empty_class(root: Path) -> None:
        for path in (root / "train" / "red").iterdir():
            path.unlink()

    def one_class(root: Path) -> None:
        for split in ("train", "val"):
            for name in ("red", "green"):
                (root / split / name).rename(root.parent / f"{root.name}-{split}-{name}")

    def broken(root: Path) -> None:
        (root / "train" / "red" / "001.png").write_bytes(b"not a picture")

    assert "'red' has no pictures" in error_of(empty_class)
    assert "one class only, 'blue'" in error_of(one_class)
    assert "001.png" in error_of(broken)
    assert not Path(words["project"]).exists(), "nothing is written before the pictures are known to be good"
    with pytest.raises(DataError, match="there is no such folder"):
        train(TrainOptions(**{**words, "data": str(tmp_path / "nowhere")}))


def test_bad_pictures_can_be_skipped(
    words: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "some", {"train": 4, "val": 2})
    (root / "train" / "red" / "001.png").write_bytes(b"not a picture")
    words.update(data=str(root), on_bad_picture="skip", epochs=1)
    result = train(TrainOptions(**words))
    assert "001.png" in capsys.readouterr().out
    assert result.metrics["split"] == "val"


def test_unknown_models_files_and_devices(words: dict[str, Any]) -> None:
    for change, message in (
        ({"model": "mobilnet_v2"}, "mobilenet_v2"),
        ({"pretrained": "nowhere.safetensors", "width": None}, "nowhere.safetensors: cannot be read"),
        ({"device": "cuda"}, "--device cuda: this machine"),
        ({"amp": "fp16"}, "--amp fp16: the CPU"),
    ):
        with pytest.raises(ArgumentError, match=message):
            train(TrainOptions(**{**words, **change}))


class FullDisk:
    """From some time on, nothing can be written any more."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        fsync = os.fsync

        def failing(handle: int) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        patch.setattr(os, "fsync", failing)


def test_a_full_disk_keeps_the_last_good_state(words: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)

    def listen(event: dict[str, Any]) -> None:
        disk.full = event["event"] == "epoch" or disk.full

    with pytest.raises(TrainingError, match=r"could not be saved: the disk is full.*intact.*--resume"):
        train(TrainOptions(**words), on_progress=listen)
    run = Path(words["project"]) / "classify" / "train"
    _, values = load_state(run / "last.safetensors")
    assert values["position"]["epoch"] == 1
    read_model_file(run / "best.safetensors")
    assert not list(run.glob(".*.tmp"))
    disk.full = False
    result = train(TrainOptions(**words, resume=True))
    assert len(result.history) == 3


def test_a_signal_handler_is_given_back(words: dict[str, Any]) -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(TrainingError):
        train(TrainOptions(**{**words, "batch": 1}))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_picture_that_vanishes_while_training_is_named(
    words: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilenet.errors import ImageError

    def vanished(path: Path, *_: Any) -> Any:
        raise ImageError(f"{path}: no such file")

    monkeypatch.setattr(learn_data, "training_picture", vanished)
    with pytest.raises(ImageError, match=r"\d+.png: no such file"):
        train(TrainOptions(**words))
