"""Detection's figures against pycocotools, and at the ends of what they can be."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.tasks.detect import Boxes
from mobilenet.tasks.detection_metrics import FIGURES, coco_annotations, coco_results, detection_metrics

pytest.importorskip(
    "faster_coco_eval", reason="faster-coco-eval is not installed: pip install 'mobilenet[detect]'"
)

NAMES = ("a", "b", "c", "unseen")


def scene(seed: int, count: int = 20) -> tuple[list[BoxedPicture], list[Boxes]]:
    """Pictures with small to large objects, some of them ignored, and a detector that is often nearly right."""
    random = np.random.default_rng(seed)
    pictures, found = [], []
    for number in range(count):
        n = int(random.integers(0, 8))
        corner = random.uniform(0, 300, (n, 2))
        boxes = np.concatenate([corner, corner + np.exp(random.uniform(1.5, 5.3, (n, 2)))], 1).astype(np.float32)
        labels = random.integers(0, 3, n)
        ignored = random.random(n) < 0.15
        pictures.append(BoxedPicture(Path(f"{number}.jpg"), (600, 600), boxes, labels, ignored))
        kept = random.random(n) < 0.8
        moved = boxes[kept] + random.normal(0, 4, (int(kept.sum()), 4)) * random.random((int(kept.sum()), 1))
        extra = random.uniform(0, 200, (int(random.integers(0, 5)), 2))
        both = np.concatenate([moved, np.concatenate([extra, extra + 50], 1)])
        both[:, 2:] = np.maximum(both[:, 2:], both[:, :2] + 1)
        classes = np.concatenate([labels[kept], random.integers(0, 3, len(extra))])
        chances = np.round(random.random(len(both)), 2)  # some are equal
        order = np.argsort(-chances, kind="stable")
        found.append(
            Boxes(both[order].astype(np.float32), chances[order].astype(np.float32), classes[order], (600, 600))
        )
    return pictures, found


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pictures, found = scene(seed)
    ours = detection_metrics(pictures, found, NAMES)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = coco_annotations(pictures, NAMES)
        known.createIndex()
        theirs = COCOeval(known, known.loadRes(coco_results(found)), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert 0.05 < ours.figures["ap"] < 0.95
    for name, place in FIGURES.items():
        assert ours.figures[name] == pytest.approx(theirs.stats[place], abs=1e-9), name
    assert np.allclose(ours.precision, theirs.eval["precision"][0, :, :, 0, -1].T)
    for number, name in enumerate(NAMES[:3]):
        values = theirs.eval["precision"][:, :, number, 0, -1]
        assert ours.per_class[name]["ap"] == pytest.approx(values[values > -1].mean())
    assert ours.per_class["unseen"] == {"ap": None, "ap50": None, "objects": 0}


def test_a_perfect_detector_and_one_that_finds_nothing() -> None:
    pictures, _ = scene(5)
    truth = [
        Boxes(p.boxes[~p.ignored], np.ones(int((~p.ignored).sum()), np.float32), p.labels[~p.ignored], p.size)
        for p in pictures
    ]
    assert detection_metrics(pictures, truth, NAMES).figures["ap"] == pytest.approx(1)
    none = [Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (9, 9))] * 20
    assert detection_metrics(pictures, none, NAMES).figures["ap50"] == 0


def test_sizes_without_objects_have_no_figure() -> None:
    boxes = np.array([[0, 0, 200, 200]], np.float32)
    one = BoxedPicture(Path("a.jpg"), (300, 300), boxes, np.array([0]), np.array([False]))
    found = detection_metrics([one], [Boxes(boxes, np.ones(1, np.float32), np.array([0]), (300, 300))], NAMES)
    assert found.figures["ap_small"] is None and found.figures["ap_large"] == pytest.approx(1)
    assert found.to_dict()["objects"] == 1


def test_what_cannot_be_measured_is_said() -> None:
    pictures, found = scene(0)
    with pytest.raises(ArgumentError, match="1 answers do not fit 20"):
        detection_metrics(pictures, found[:1], NAMES)
    with pytest.raises(ArgumentError, match="class 2 has no name"):
        detection_metrics(pictures, found, NAMES[:2])
    empty = BoxedPicture(
        Path("a.jpg"), (9, 9), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    )
    with pytest.raises(ArgumentError, match="no objects"):
        detection_metrics([empty], found[:1], NAMES)
