"""The report of a segmenter: its figures are the meter's, its pictures the worst, hostile texts stay texts."""

from __future__ import annotations

import base64
import io
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_html import HOSTILE, Page

from mobilenet.pictures.palette import voc_palette
from mobilenet.report.segmentation_page import segmentation_report
from mobilenet.tasks.segment_report import WorstMasks
from mobilenet.tasks.segmentation_metrics import SegmentationMeter

NAMES = ("background", "cat", "dog")


def page_of(meter: SegmentationMeter, names: tuple[str, ...], **more: Any) -> tuple[str, dict[str, Any]]:
    metrics = meter.results(names) | {"latency_ms": 12.34, "data": "d", "split": "test", "skipped": 0}
    facts = {"title": f"A model on {names[0]}", "model_info": {"Model": names[-1]}}
    return segmentation_report(metrics, **(facts | more)), metrics


def halves(left: int, right: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    values = np.full(size, left, np.uint8)
    values[:, size[1] // 2 :] = right
    return values


def saved(path: Path, size: tuple[int, int] = (40, 60)) -> Path:
    Image.new("RGB", (size[1], size[0]), (200, 200, 200)).save(path)
    return path


def test_the_figures_are_the_metrics() -> None:
    meter = SegmentationMeter(3)
    meter.add(halves(0, 2), halves(0, 1))
    meter.add(halves(0, 1), halves(0, 1))
    text, metrics = page_of(meter, NAMES)
    page = Page(text)
    shown = [data for tag, data in page.texts if tag in ("b", "span")]
    tiles = (("miou", "Mean IoU"), ("pixel_accuracy", "Pixel accuracy"), ("boundary_f", "Boundary F"))
    for figure, name in tiles:
        assert shown[shown.index(name) - 1] == f"{metrics[figure]:.1%}"
    assert (metrics["miou"], metrics["pixel_accuracy"]) == (0.5, 0.75)
    cells = [cell["data-value"] for cell in page.named("td") if "data-value" in cell]
    row = metrics["per_class"]["cat"]
    shares = [f"{row[figure]:.6f}" for figure in ("iou", "accuracy", "precision", "boundary_f")]
    assert cells[6:12] == ["cat", "2400", *shares]
    assert cells[12:15] == ["dog", "0", "0.000000"] and cells[15] == "-1", "no pixel is a dog: it has no recall"
    assert "<b>cat</b> taken for <b>dog</b>, 1,200 pixels, 50.0% of that class" in text
    assert "1 of 3 classes have no pixel here" in text


def test_the_matrix_shows_shares_and_what_was_not_seen() -> None:
    meter = SegmentationMeter(2, boundaries=False)
    meter.add(halves(0, 255), halves(0, 1))
    text, _ = page_of(meter, ("a", "b"))
    assert re.findall(r'<td class="(right|wrong|none)[^>]*>([^<]*)<', text) == [
        ("right", "100%"), ("none", "0"), ("none", "0"), ("none", "0"), ("none", "0"), ("wrong", "100%"),
    ]  # fmt: skip
    assert "<b>b</b> taken for <b>not seen</b>" in text
    assert "Boundary F</span>" not in text
    meter = SegmentationMeter(2, boundaries=False)
    meter.add(halves(0, 1), halves(0, 1))
    text, _ = page_of(meter, ("a", "b"))
    assert "not seen" not in text and "No pixel was named wrongly." in text and "There are none" in text
    Page(text)


def test_the_worst_pictures_are_kept_whatever_their_order(tmp_path: Path) -> None:
    size, worst = (40, 60), WorstMasks(most=3)
    ious = [0.9, 0.2, None, 0.5, 1.0, 0.2, 0.7, 0.1]
    for number, iou in enumerate(ious):
        worst.add(saved(tmp_path / f"{number}.png"), iou, np.zeros(size, np.uint8), np.ones(size, np.uint8))
    kept = worst.failures([])
    assert [(Path(one.path).name, one.iou) for one in kept] == [("7.png", 0.1), ("1.png", 0.2), ("5.png", 0.2)]
    for order in (ious, sorted(ious, key=lambda iou: iou or 0), sorted(ious, key=lambda iou: -(iou or 0))):
        again = WorstMasks(most=3)
        for iou in order:
            again.add(tmp_path / "1.png", iou, np.zeros(size, np.uint8), np.ones(size, np.uint8))
        assert [one.iou for one in again.failures([])] == [0.1, 0.2, 0.2]


@pytest.mark.parametrize("size", [(40, 60), (400, 600), (1000, 30), (240, 240), (481, 480)])
def test_picture_truth_and_answer_are_beside_each_other(tmp_path: Path, size: tuple[int, int]) -> None:
    worst = WorstMasks(most=1)
    worst.add(saved(tmp_path / "a.png", size), 0.3, halves(0, 1, size), halves(2, 255, size))
    (failure,) = worst.failures([0])
    assert failure.classes == (0, 1, 2, 255)
    drawn = np.asarray(Image.open(io.BytesIO(failure.drawn_jpeg))).astype(int)
    width = (drawn.shape[1] - 12) // 3
    assert max(drawn.shape[0], width) == 240
    assert width / drawn.shape[0] == pytest.approx(size[1] / size[0], abs=0.02)
    if width < 20:
        return
    row, quarter = drawn[drawn.shape[0] // 2], width // 4
    colours = {number: 200 * 0.45 + voc_palette()[number].astype(int) * 0.55 for number in (1, 2)}
    for place, expected in (
        (quarter, 200), (3 * quarter, 200),  # the picture
        (width + 6 + quarter, 200), (width + 6 + 3 * quarter, colours[1]),  # the truth: class 0 is plain
        (2 * width + 12 + quarter, colours[2]),  # the answer
    ):  # fmt: skip
        np.testing.assert_allclose(row[place], expected, atol=12)


def test_what_is_kept_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    worst, large = WorstMasks(most=4), np.zeros((900, 1200), np.uint8)
    tracemalloc.start()
    try:
        for number in range(60):  # each is worse than those before
            worst.add(tmp_path / "a", 0.9 - number / 100, large.copy(), large.copy())
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * 2 * 240 * 180 + 100_000


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    names = tuple(HOSTILE)
    meter, worst = SegmentationMeter(len(names), boundaries=False), WorstMasks()
    path = saved(tmp_path / "<img src=x onerror=alert(1)>'\".png")
    truth, found = halves(0, 1), halves(2, 5)
    worst.add(path, meter.add(found, truth), truth, found)
    text, _ = page_of(meter, names, failures=worst.failures([]))
    page = Page(text)
    assert len(page.named("script")) == 1
    assert len(page.named("h1")) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    listed = [cell["data-value"] for cell in page.named("td") if cell.get("class") == "text"]
    assert tuple(listed[: len(names)]) == names
    texts = [data for _, data in page.texts]
    assert str(path) in texts
    legend = text.split('class="legend">')[1].split("</p>")[0]
    assert legend.count("<span class=") == 8, "a swatch and an entry of each class that is shown"
    assert "http" not in text.replace("http-equiv", "")
    assert len(base64.b64decode(page.named("img")[0]["src"].split(",", 1)[1])) < 50_000
