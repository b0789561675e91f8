"""The report of a detector: its figures are the metrics', its pictures the worst, hostile texts stay texts."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_html import HOSTILE, Page

import mobilenet
from mobilenet.pictures.boxes import BoxedPicture
from mobilenet.report.draw_boxes import COLOURS
from mobilenet.report.draw_matched import FALSE, FOUND, MISSED, draw_matched
from mobilenet.report.svg import LEFT, SIDE, TOP, curves_svg
from mobilenet.tasks.detect import Boxes
from mobilenet.tasks.detect_confidence import at_confidence, match
from mobilenet.tasks.detect_report import WORST_PICTURES, detector_page, shown_boxes
from mobilenet.tasks.detection_metrics import detection_metrics, object_sizes

SIZE = (120, 160)
CONFIDENCE = 0.3


def square(place: int) -> list[float]:
    """One of twelve squares that do not touch."""
    column, row = place % 4, place // 4
    return [column * 40.0 + 5, row * 40.0 + 5, column * 40.0 + 35, row * 40.0 + 35]


def picture(path: Path, objects: dict[int, int], ignored: tuple[int, ...] = ()) -> BoxedPicture:
    """A grey picture with an object of a class in each of these places."""
    Image.new("RGB", (SIZE[1], SIZE[0]), (128, 128, 128)).save(path)
    boxes = np.array([square(place) for place in objects], np.float32).reshape(-1, 4)
    flags = np.array([place in ignored for place in objects], bool)
    return BoxedPicture(path, SIZE, boxes, np.array(list(objects.values()), np.int64), flags)


def answer(found: list[tuple[int, int, float]]) -> Boxes:
    """Boxes of (place, class, confidence)."""
    boxes = np.array([square(place) for place, _, _ in found], np.float32).reshape(-1, 4)
    conf = np.array([share for _, _, share in found], np.float32)
    return Boxes(boxes, conf, np.array([number for _, number, _ in found], np.int64), SIZE)


@pytest.fixture(scope="module")
def model() -> mobilenet.Model:
    made = mobilenet.create("mobilenet_v1", head="ssd", classes=3, resolution=64, width_multiplier=0.25)
    return mobilenet.Model.of(made)


def written(
    model: mobilenet.Model, pictures: list[BoxedPicture], found: list[Boxes], names: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """The page of these answers, and the metrics that it shows."""
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed")
    measured = detection_metrics(pictures, found, names)
    metrics = measured.to_dict() | {
        "confidence": at_confidence(pictures, found, CONFIDENCE)._asdict(),
        "latency_ms": 12.34,
        "data": f"data {names[0]}",
        "split": "test",
        "skipped": 0,
    }
    return detector_page(model, metrics, measured, pictures, found), metrics


def images(page: Page) -> list[np.ndarray]:
    sources = [image["src"].split(",", 1)[1] for image in page.named("img")]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[list[BoxedPicture], list[Boxes]]:
    """Pictures in which all is right; one is missed; two are missed and one false; a class is wrong."""
    pictures = [
        picture(tmp_path / "right.png", {0: 0, 5: 1}),
        picture(tmp_path / "missed.png", {0: 0, 1: 0}),
        picture(tmp_path / "worst.png", {0: 0, 1: 1, 2: 1}),
        picture(tmp_path / "wrong.png", {3: 1, 7: 1, 8: 0}, ignored=(8,)),
    ]
    found = [
        answer([(0, 0, 0.9), (5, 1, 0.8)]),
        answer([(0, 0, 0.7)]),
        answer([(11, 0, 0.95), (0, 0, 0.6)]),
        answer([(3, 1, 0.9), (8, 0, 0.85), (7, 0, 0.5), (9, 1, 0.1)]),
    ]
    return pictures, found


def test_the_figures_are_the_metrics(
    model: mobilenet.Model, mixed: tuple[list[BoxedPicture], list[Boxes]]
) -> None:
    text, metrics = written(model, *mixed, ("cat", "dog"))
    page = Page(text)
    shown = [data for tag, data in page.texts if tag in ("b", "span")]
    for figure, name in (("ap", "AP, IoU 0.50 to 0.95"), ("ap50", "AP50"), ("ap75", "AP75")):
        assert shown[shown.index(name) - 1] == f"{metrics[figure]:.1%}"
    assert shown[shown.index("Recall at 30% confidence") - 1] == "55.6%"
    assert shown[shown.index("Precision at 30% confidence") - 1] == "71.4%"
    assert shown[shown.index("Per picture") - 1] == "12.3 ms"
    cells = [cell["data-value"] for cell in page.named("td")]
    for place, (name, recall, precision) in enumerate((("cat", 3 / 4, 3 / 5), ("dog", 2 / 5, 1.0))):
        row = metrics["per_class"][name]
        shares = [f"{share:.6f}" for share in (row["ap"], row["ap50"], recall, precision)]
        assert cells[place * 6 : place * 6 + 6] == [name, str(row["objects"]), *shares]
    assert cells[12:] == ["small", "9", f"{metrics['ap_small']:.6f}", "medium", "0", "-1", "large", "0", "-1"]
    assert "5 of 9 objects are found, and 5 of 7 boxes are right" in text
    assert "1 of 4 pictures have neither" in text
    assert "The hardest class is <b>dog</b>" in text


def test_what_is_shown_is_what_the_threshold_is_worth(mixed: tuple[list[BoxedPicture], list[Boxes]]) -> None:
    for confidence in (0.05, 0.3, 0.7, 0.99):
        shown, at = shown_boxes(*mixed, 2, confidence), at_confidence(*mixed, confidence)
        right, false = sum(shown.right), sum(shown.false)
        assert right / 9 == pytest.approx(at.recall)
        assert right / max(right + false, 1) == pytest.approx(at.precision)


def test_the_worst_pictures_come_first(
    model: mobilenet.Model, mixed: tuple[list[BoxedPicture], list[Boxes]]
) -> None:
    text, _ = written(model, *mixed, ("cat", "dog"))
    page = Page(text)
    paths = [Path(data).name for tag, data in page.texts if tag == "span" and data.endswith(".png")]
    assert paths == ["worst.png", "wrong.png", "missed.png"]
    assert [image["alt"] for image in page.named("img")] == [
        "2 missed, 1 false, the surest 95%; 1 found",
        "1 missed, 1 false, the surest 50%; 1 found",
        "1 missed, 0 false; 1 found",
    ]


def test_found_missed_and_false_boxes_are_told_apart(mixed: tuple[list[BoxedPicture], list[Boxes]]) -> None:
    truth, boxes = mixed[0][2], mixed[1][2]
    image = np.full((*SIZE, 3), 128, np.uint8)
    drawn = np.asarray(draw_matched(image, truth, boxes, match(truth, boxes), ("cat", "dog"), 480))
    assert drawn.shape == (360, 480, 3)
    for place, kind in ((0, FOUND), (1, MISSED), (2, MISSED), (11, FALSE)):
        left, _, _, bottom = (round(3 * side) for side in square(place))
        assert tuple(drawn[bottom - 10, left]) == COLOURS[kind], place
    left, _, _, bottom = (round(3 * side) for side in square(5))
    assert tuple(drawn[bottom - 10, left]) == (128, 128, 128)


def test_ignored_objects_and_boxes_on_them_are_not_drawn(mixed: tuple[list[BoxedPicture], list[Boxes]]) -> None:
    truth, boxes = mixed[0][3], mixed[1][3]
    image = np.full((*SIZE, 3), 128, np.uint8)
    drawn = np.asarray(draw_matched(image, truth, boxes, match(truth, boxes), ("cat", "dog"), 160))
    left, top, right, bottom = (round(side) for side in square(8))
    assert (drawn[top : bottom + 1, left : right + 1] == 128).all()


def test_only_some_of_many_bad_pictures_are_shown(model: mobilenet.Model, tmp_path: Path) -> None:
    pictures = [picture(tmp_path / f"{n:02}.png", dict.fromkeys(range(1 + n % 6), 0)) for n in range(30)]
    found = [answer([]) for _ in pictures]
    shown = shown_boxes(pictures, found, 1, CONFIDENCE)
    assert shown.worst == (5, 11, 17, 23, 29, 4, 10, 16, 22, 28, 3, 9)
    text, _ = written(model, pictures, found, ("thing",))
    assert len(Page(text).named("img")) == WORST_PICTURES == 12
    assert "12 of 30 with mistakes" in text


def test_an_answer_without_boxes(model: mobilenet.Model, tmp_path: Path) -> None:
    text, _ = written(model, [picture(tmp_path / "a.png", {0: 1})], [answer([])], ("cat", "dog"))
    page = Page(text)
    assert "it finds nothing" in text
    cells = [cell["data-value"] for cell in page.named("td")]
    assert cells[:6] == ["cat", "0", "-1", "-1", "-1", "-1"], "a class that is not there has no figures"
    assert cells[6:12] == ["dog", "1", "0.000000", "0.000000", "0.000000", "-1"]
    assert [image["alt"] for image in page.named("img")] == ["1 missed, 0 false; 0 found"]


def test_a_perfect_detector_has_no_worst_pictures(model: mobilenet.Model, tmp_path: Path) -> None:
    text, _ = written(model, [picture(tmp_path / "a.png", {0: 1})], [answer([(0, 1, 0.9)])], ("cat", "dog"))
    assert "There are none" in text
    assert not Page(text).named("img")


def test_hostile_texts_stay_texts(model: mobilenet.Model, tmp_path: Path) -> None:
    names = (*HOSTILE, "long " * 400)
    path = tmp_path / "<img src=x onerror=alert(1)>'\".png"
    objects = {place: place for place in range(len(names))}
    text, _ = written(model, [picture(path, objects)], [answer([(11, 2, 0.9), (1, 1, 0.8)])], names)
    page = Page(text)
    assert len(page.named("script")) == 1
    assert len(page.named("h1")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text("h1").endswith(f"on data {HOSTILE[0]} (test)")
    listed = [cell["data-value"] for cell in page.named("td") if cell.get("class") == "text"]
    assert tuple(listed[: len(names)]) == names
    assert str(path) in [data for _, data in page.texts]
    assert "http" not in text.replace("http-equiv", "")
    assert images(page)[0].shape == (360, 480, 3)


def test_curves_are_drawn_to_scale_and_of_ten_classes_at_most(model: mobilenet.Model, tmp_path: Path) -> None:
    lines = curves_svg([("a", (1, 2, 3), [1.0, 0.5, 0.0])], "d")
    middle = f"{LEFT + SIDE / 2:.1f},{TOP + SIDE / 2:.1f}"
    assert f'points="{LEFT:.1f},{TOP:.1f} {middle} {LEFT + SIDE:.1f},{TOP + SIDE:.1f}"' in lines
    names = tuple(f"c{n}" for n in range(12))
    pictures = [picture(tmp_path / "a.png", {n: n for n in range(12)}), picture(tmp_path / "b.png", {0: 11})]
    text, _ = written(model, pictures, [answer([(0, 0, 0.9)]), answer([])], names)
    page = Page(text)
    assert len(page.named("polyline")) == 10
    assert page.text("title").endswith("".join(["c11", *names[:9]]))
    assert "The 10 of 12 classes with most objects." in text


def test_sizes_are_those_of_coco(tmp_path: Path) -> None:
    sides = [(31.9, 32.0), (32.0, 32.0), (96.0, 95.9), (96.0, 96.0), (200.0, 200.0)]
    boxes = np.array([[0, 0, *side] for side in sides], np.float32)
    flags = np.array([False, False, False, False, True])
    one = BoxedPicture(tmp_path, (300, 300), boxes, np.zeros(5, np.int64), flags)
    assert object_sizes([one]) == {"small": 1, "medium": 2, "large": 1}
    assert object_sizes([]) == {"small": 0, "medium": 0, "large": 0}
