"""Training detectors: whole runs on tiny pictures of coloured rectangles, and what is said of bad data."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip(
    "faster_coco_eval", reason="faster-coco-eval is not installed: pip install 'mobilenet[detect]'"
)

from PIL import Image
from test_resume import finish, kill_and_resume, result_of, start

import mobilenet
from conftest import COLOURS, write_pictures
from mobilenet.errors import ArgumentError, DataError, GraphError
from mobilenet.files.model_file import read_model_file
from mobilenet.learn.detect_data import BoxBatches
from mobilenet.learn.detect_start import make_detector
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.train import TrainResult, train
from mobilenet.pictures.augment_boxes import BoxAugmentation
from mobilenet.pictures.boxes import read_boxes

NAMES = ("blue", "green", "red")
SIDES = (96, 80)  # width and height of a picture


def write_rectangles(root: Path, counts: dict[str, int], seed: int = 0, names: tuple[str, ...] = NAMES) -> Path:
    """A COCO folder a split: noisy grey pictures with one to three rectangles, whose class is their colour."""
    generator = np.random.default_rng(seed)
    for split, count in counts.items():
        folder = root / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for number in range(count):
            pixels = generator.normal(128, 20, (SIDES[1], SIDES[0], 3))
            for _ in range(int(generator.integers(1, 4))):
                label = int(generator.integers(len(names)))
                width, height = (int(side) for side in generator.integers(24, 40, 2))
                left, top = (
                    int(generator.integers(0, s - own)) for s, own in zip(SIDES, (width, height), strict=True)
                )
                pixels[top : top + height, left : left + width] = COLOURS[names[label]]
                box = [left, top, width, height]
                notes.append({"id": len(notes), "image_id": number, "category_id": label, "bbox": box})
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": SIDES[1], "width": SIDES[0]})
        categories = [{"id": n, "name": name} for n, name in enumerate(names)]
        write_notes(folder, {"images": images, "annotations": notes, "categories": categories})
    return root


def write_notes(folder: Path, notes: dict[str, Any]) -> None:
    (folder / "notes.json").write_text(json.dumps(notes))


def changed_notes(root: Path, split: str, change: Any) -> None:
    notes = json.loads((root / split / "notes.json").read_text())
    change(notes)
    write_notes(root / split, notes)


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rectangles(tmp_path_factory.mktemp("rectangles"), {"train": 40, "val": 12, "test": 12})


def detect_words(data: Path, project: Path) -> dict[str, Any]:
    return {
        "data": str(data), "task": "detect", "model": "mobilenet_v2", "width": 0.1, "head": "yolo",
        "resolution": 64, "epochs": 2, "batch": 8, "warmup_epochs": 0.5, "lr0": 0.01, "drop_path": 0.1,
        "mosaic": 0.3, "amp": "none", "device": "cpu", "threads": 1, "workers": 1, "project": str(project),
    }  # fmt: skip


@pytest.fixture
def words(rectangles: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a small, fast run that uses everything random that there is."""
    return detect_words(rectangles, tmp_path / "runs")


@pytest.fixture(scope="module")
def finished(rectangles: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that learns what the three colours look like and where they are."""
    words = detect_words(rectangles, tmp_path_factory.mktemp("finished"))
    words.update(model="mobilenet_v1", epochs=20, width=0.25, batch=4, ema=0.97, crop_area=0.5)
    words.update(drop_path=0.0, mosaic=0.0, flip=0.0, colour=0.0)
    return train(TrainOptions(**words))


def test_it_learns_and_leaves_the_files_that_are_promised(finished: TrainResult) -> None:
    assert max(row["val_ap50"] for row in finished.history) > 0.3, "guessing gives less than 0.05"
    assert finished.metrics["ap50"] > 0.1 and finished.metrics["split"] == "test"
    assert finished.folder.parts[-2:] == ("detect", "train")
    assert {path.name for path in finished.folder.iterdir()} == {
        "best.safetensors", "last.safetensors", "args.yaml", "results.csv", "curves.png", "precision_recall.png",
        "predictions.png",
    }  # fmt: skip
    best = read_model_file(finished.path).provenance["best"]
    reached = [(row["val_ap50"], -row["val_loss"]) for row in finished.history]
    reached += [(row["val_ap50_ema"], -row["val_loss_ema"]) for row in finished.history]
    assert (best["ap50"], -best["loss"]) == max(reached)


def test_the_model_answers_as_it_was_measured(finished: TrainResult, rectangles: Path) -> None:
    """Without torch's help, through the public names; what is shown is surer than what is counted."""
    model = mobilenet.load(finished.path)
    again = model.evaluate(rectangles)
    for key in ("ap", "ap50", "ap75", "images", "objects"):
        assert again[key] == pytest.approx(finished.metrics[key], abs=0.02), key
    assert model.metrics["val"]["images"] == 12 and set(model.metrics["per_class"]) == set(NAMES)
    assert model.names == NAMES and model.task == "detect" and model.checks
    assert model.decoding is not None and 0.05 <= model.decoding.score_threshold <= 0.95
    assert again["confidence"]["confidence"] == model.decoding.score_threshold
    result = model.predict(rectangles / "test" / "0.png")
    assert len(result.boxes) and result.boxes.conf.min() > model.decoding.score_threshold


def test_killed_runs_end_as_if_nothing_had_happened(rectangles: Path, tmp_path: Path) -> None:
    words = {**detect_words(rectangles, tmp_path / "whole"), "amp": "bf16", "save_period_seconds": 0.05}
    assert finish(start(words), words) == 0
    whole = result_of(tmp_path / "whole" / "detect" / "train")
    words["project"] = str(tmp_path / "killed")
    got = result_of(kill_and_resume(words, [("step", 2), ("fsync", 3), ("before rename", 3)]))
    for part in ("best", "state"):
        for name, array in whole[part].items():
            assert got[part][name].tobytes() == array.tobytes(), f"{part}: {name} differs"
    assert got["metrics"] == whole["metrics"]


def test_other_boxes_are_another_run(rectangles: Path, tmp_path: Path) -> None:
    root = write_rectangles(tmp_path / "data", {"train": 8, "val": 2})
    words = detect_words(root, tmp_path / "runs")
    assert finish(start(words, "step", 2), words) == -signal.SIGKILL
    changed_notes(root, "train", lambda notes: notes["annotations"][0]["bbox"].__setitem__(2, 20))
    with pytest.raises(mobilenet.errors.TrainingError, match="changed since this run"):
        train(TrainOptions(**{**words, "resume": True}))


# -- what it starts from -------------------------------------------------------------------------------------


def options(words: dict[str, Any], **more: Any) -> TrainOptions:
    network = {"model": "mobilenet_v2", "width": None} if "pretrained" in more else {}
    return TrainOptions(**{**words, **network, **more}).filled()


def test_a_detector_keeps_all_but_its_class_layers(finished: TrainResult, words: dict[str, Any]) -> None:
    given = read_model_file(finished.path)
    same = make_detector(options(words, pretrained=str(finished.path), head=None, resolution=None), NAMES)
    assert not same.new and same.contents.graph == given.graph
    made = make_detector(options(words, pretrained=str(finished.path), head=None, resolution=96), ("a", "b"))
    assert made.contents.decoding is not None and made.contents.decoding.maps == ((12, 12), (6, 6), (3, 3))
    for name, array in made.contents.weights.items():
        kept = name in given.weights and np.array_equal(array, given.weights[name])
        assert kept != (name.rpartition(".")[0] in made.new), name
    assert made.new == {f"detect.{number}.scores.predict" for number in range(3)}
    made.contents.validate()


@pytest.mark.parametrize("head", ["yolo", "ssd", "ssdlite"])
def test_a_classifier_gets_a_head_and_keeps_its_trunk(pictures: Path, tmp_path: Path, head: str) -> None:
    model = mobilenet.create("mobilenet_v3_small", width_multiplier=0.25, classes=3, resolution=64)
    model.save(tmp_path / "classifier.safetensors")
    given = read_model_file(tmp_path / "classifier.safetensors").weights
    words = detect_words(pictures, tmp_path)
    made = make_detector(options(words, pretrained=str(tmp_path / "classifier.safetensors"), head=head), NAMES)
    made.contents.validate()
    assert made.contents.graph.types[made.contents.graph.outputs["scores"]].shape[1] == 3 + (head != "yolo")
    kept = [name for name in made.contents.weights if name.rpartition(".")[0] not in made.new]
    assert len(kept) > 50 and all(np.array_equal(given[name], made.contents.weights[name]) for name in kept)
    assert made.preprocessing.resize == "stretch" and made.contents.labels == NAMES


def test_a_quantised_classifier_is_a_start_too(shared: Path, words: dict[str, Any]) -> None:
    file = shared / "weights" / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    made = make_detector(options(words, pretrained=str(file), resolution=128), NAMES)
    made.contents.validate()
    assert len(made.contents.weights) > len(made.new) > 0


def test_what_a_start_cannot_be(finished: TrainResult, words: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is a detector and has a head"):
        make_detector(options(words, pretrained=str(finished.path), head="ssd"), NAMES)
    with pytest.raises(ArgumentError, match="finds no boxes"):
        make_detector(options(words, head="lraspp"), NAMES)
    with pytest.raises(ArgumentError, match="unknown head 'yolov9'"):
        make_detector(options(words, head="yolov9"), NAMES)
    mobilenet.create("mobilefacenet").save(tmp_path / "face.safetensors")
    with pytest.raises(GraphError, match=r"face.safetensors: cannot be made a detector: .*stride 32"):
        make_detector(options(words, pretrained=str(tmp_path / "face.safetensors")), NAMES)


def test_options_of_other_tasks_are_refused(words: dict[str, Any]) -> None:
    for more, text in (
        ({"randaugment": 3}, "--randaugment is not for --task detect"),
        ({"dropout": 0.2}, "--dropout is not for --task detect"),
        ({"mixup": 0.2}, "--mixup is for --task classify"),
    ):
        with pytest.raises(ArgumentError, match=text):
            train(TrainOptions(**{**words, **more}))
    assert not Path(words["project"]).exists()


# -- data ----------------------------------------------------------------------------------------------------


def test_batches_depend_on_nothing_but_seed_epoch_and_step(rectangles: Path) -> None:
    pictures = read_boxes(rectangles).splits["train"]
    rule = mobilenet.create("mobilenet_v2", head="yolo", classes=3, resolution=64).preprocessing
    assert rule is not None

    def batches(workers: int, budget: float, first: int = 0) -> list[Any]:
        how = {"batch": 8, "seed": 3, "workers": workers, "budget_bytes": budget}
        data = BoxBatches(pictures, rule, BoxAugmentation(mosaic=0.5), **how)  # type: ignore[arg-type]
        return list(data.epoch(1, first))

    plain = batches(0, 0)
    for other, skipped in ((batches(3, 1e9), 0), (batches(2, 2e4, 2), 2)):
        for left, right in zip(plain[skipped:], other, strict=True):
            assert left.images.equal(right.images)
            for a, b in zip(left.targets, right.targets, strict=True):
                assert a.boxes.equal(b.boxes) and a.labels.equal(b.labels)


def test_large_pictures_are_kept_small_with_their_boxes_in_place(tmp_path: Path) -> None:
    pixels = np.zeros((600, 900, 3), np.uint8)
    pixels[300:450, 600:750] = 255
    (tmp_path / "train").mkdir()
    Image.fromarray(pixels).save(tmp_path / "train" / "0.png")
    write_notes(
        tmp_path / "train",
        {
            "images": [{"id": 0, "file_name": "0.png", "height": 600, "width": 900}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [600, 300, 150, 150]}],
            "categories": [{"id": 0, "name": "white"}],
        },
    )
    picture = next(iter(next(iter(read_boxes(tmp_path, val_fraction=0.0).splits.values()))))
    rule = mobilenet.create("mobilenet_v2", head="yolo", classes=1, resolution=64).preprocessing
    assert rule is not None
    changes = BoxAugmentation(crop_area=0.5, colour=0.0)
    (batch,) = BoxBatches([picture], rule, changes, batch=1, seed=0, workers=0).epoch(0)
    left, top, right, bottom = batch.targets[0].boxes[0].round().int().tolist()
    inside = batch.images[0, top + 2 : bottom - 2, left + 2 : right - 2]
    assert float(inside.min()) > 0.8, "the box is where the white square is"
    outside = batch.images[0].clone()
    outside[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = -1
    assert float(outside.max()) < -0.8


def test_data_that_cannot_be_used(words: dict[str, Any], tmp_path: Path) -> None:
    def error_of(change: Any, **more: Any) -> str:
        root = write_rectangles(tmp_path / str(len(list(tmp_path.iterdir()))), {"train": 8, "val": 3})
        change(root)
        with pytest.raises(DataError) as caught:
            train(TrainOptions(**{**words, "data": str(root), **more}))
        return str(caught.value)

    def flat(root: Path) -> None:
        changed_notes(root, "train", lambda notes: notes["annotations"][2]["bbox"].__setitem__(3, 0))

    def only_reds_in_val(root: Path) -> None:
        changed_notes(root, "train", lambda n: [a.update(category_id=0) for a in n["annotations"]])
        changed_notes(root, "val", lambda n: [a.update(category_id=2) for a in n["annotations"]])

    def no_boxes(root: Path) -> None:
        for split in ("train", "val"):
            changed_notes(root, split, lambda notes: notes["annotations"].clear())

    assert "has no area" in error_of(flat) and "notes.json" in error_of(flat)
    assert "class 'red' has no box in train" in error_of(only_reds_in_val)
    assert "box" in error_of(no_boxes)
    torn = error_of(lambda root: os.truncate(root / "train" / "1.png", 2000))
    assert "1.png" in torn
    assert not Path(words["project"]).exists(), "all of it is found before anything is written"
    root = write_rectangles(tmp_path / "skipped", {"train": 8, "val": 3})
    flat(root)
    os.truncate(root / "train" / "1.png", 2000)
    events: list[dict[str, Any]] = []
    train(
        TrainOptions(**{**words, "data": str(root), "on_bad_picture": "skip", "epochs": 1}),
        on_progress=events.append,
    )
    said = "\n".join(event["text"] for event in events if event["event"] == "message")
    assert "has no area" in said and "1.png" in said


def test_a_folder_of_classes_is_no_data_of_boxes(pictures: Path, words: dict[str, Any], tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "classes", {"train": 2, "val": 1})
    with pytest.raises(DataError):
        train(TrainOptions(**{**words, "data": str(root)}))
