"""The HTML report: complete in itself, hostile texts stay texts, and its figures are the metrics'."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError
from mobilenet.report.html import Mistake, evaluation_report, wilson_interval
from mobilenet.report.page import thumbnail_jpeg
from mobilenet.tasks.metrics import classification_metrics, reliability_bins, softmax

VOID = {"meta", "img", "br"}
HOSTILE = [
    "<script>alert(1)</script>",
    '" onload="alert(2)" x=\'',
    "</title></style></script><h1>",
    "Ärzte & Söhne",
    "日本 🙂",
    "--> <![CDATA[",
]


class Page(HTMLParser):
    """The elements, texts and attributes of a page; fails on a closing tag that closes nothing."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> str:
        return "".join(data for name, data in self.texts if name == tag)


def photograph(height: int = 300, width: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def report(classes: list[str], images: int = 120, **changes: object) -> str:
    random = np.random.default_rng(3)
    targets = random.integers(0, len(classes), images)
    logits = random.normal(size=(images, len(classes)))
    logits[np.arange(images), targets] += 2.0
    probabilities = softmax(logits)
    thumbnail = thumbnail_jpeg(photograph(30, 40))
    arguments: dict[str, object] = {
        "title": f"A model on {classes[0]}",
        "model_info": {"File <b>": f"runs/{classes[-1]}"},
        "classes": classes,
        "reliability": {f"Before {classes[0]}": reliability_bins(probabilities, targets)},
        "mistakes": [
            Mistake(f"test/{name}/\udcff.jpg", name, classes[0], 0.5 + 0.01 * number, thumbnail)
            for number, name in enumerate(classes[1:5])
        ],
        **changes,
    }
    metrics = arguments.pop("metrics", classification_metrics(probabilities, targets, classes))
    return evaluation_report(metrics, **arguments)  # type: ignore[arg-type]


def test_hostile_texts_stay_texts() -> None:
    page = Page(report(HOSTILE))
    assert len(page.named("script")) == 1
    assert len(page.named("h1")) == 1
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert page.text("h1") == f"A model on {HOSTILE[0]}"
    assert page.text("title").startswith(f"A model on {HOSTILE[0]}")
    cells = [attributes["data-value"] for attributes in page.named("td") if attributes.get("class") == "text"]
    assert cells[: len(HOSTILE)] == HOSTILE


def test_the_file_needs_nothing_else() -> None:
    text = report(HOSTILE)
    page = Page(text)
    assert not page.named("link")
    assert not page.named("iframe")
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in page.named("img"))
    assert not [key for _, attributes in page.elements for key in attributes if key in ("href", "srcset")]
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")
    text.encode("utf-8")  # no lone surrogate of a file name is left


def test_the_content_security_policy_allows_its_own_script_only() -> None:
    page = Page(report(["a", "b"]))
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(page.text("script").encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_figures_are_the_metrics() -> None:
    targets, answers = [0] * 8 + [1] * 2, [0] * 7 + [1] + [1, 0]
    probabilities = np.where(np.eye(2)[answers] > 0, 0.9, 0.1)
    metrics = classification_metrics(probabilities, targets, ["cat", "dog"]) | {"latency_ms": 12.34}
    text = report(["cat", "dog"], metrics=metrics)
    page = Page(text)
    words = " ".join(data for tag, data in page.texts if tag in ("li", "b", "span"))
    assert "8 of 10 pictures are named rightly" in words
    assert "80.0%" in words
    assert "12.3 ms" in words
    assert "between 49.0% and 94.3%" in words
    matrix = re.findall(r'<td class="(right|wrong)[^>]*>(\d+)<', text)
    assert matrix == [("right", "7"), ("wrong", "1"), ("wrong", "1"), ("right", "1")]
    shares = [a["data-value"] for a in page.named("td") if "data-value" in a]
    assert shares[:5] == ["cat", "8", "0.875000", "0.875000", "0.875000"]
    assert shares[5:10] == ["dog", "2", "0.500000", "0.500000", "0.500000"]


def test_many_classes_show_the_most_confused_pairs_in_place_of_the_matrix() -> None:
    few, many = report([f"c{n}" for n in range(30)], 900), report([f"c{n}" for n in range(31)], 900)
    assert 'class="matrix"' in few
    assert 'class="matrix"' not in many
    counts = re.findall(r'<td data-value="(\d+)">', many.split("too large to read")[1])
    times = [int(count) for count in counts]
    assert len(times) == 40
    assert times == sorted(times, reverse=True)


def test_the_pairs_are_those_of_the_confusion_matrix() -> None:
    confusion = np.diag([5] * 40)
    confusion[3, 7], confusion[8, 2] = 4, 9
    per_class = {f"c{n}": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "images": 5} for n in range(40)}
    metrics = {"top1": 0.9, "top5": 1.0, "images": 213, "per_class": per_class, "ece": 0.1}
    metrics["confusion"] = confusion.tolist()
    text = report(list(per_class), metrics=metrics)
    table = re.findall(r'data-value="([^"]*)"', text.split("too large to read")[1])
    assert table[:8] == ["c8", "c2", "9", f"{9 / 14:.6f}", "c3", "c7", "4", f"{4 / 9:.6f}"]
    assert "<b>c8</b> taken for <b>c2</b>, 9 times" in text


def test_mistakes_come_surest_first_with_their_pictures() -> None:
    page = Page(report(["a", "b", "c", "d", "e"]))
    images = page.named("img")
    assert [image["alt"] for image in images] == [f"{name}, taken for a" for name in "edcb"]
    picture = base64.b64decode(images[0]["src"].split(",", 1)[1])
    assert Image.open(io.BytesIO(picture)).format == "JPEG"


def test_a_perfect_model_has_no_mistakes() -> None:
    metrics = classification_metrics(np.eye(3), [0, 1, 2], ["a", "b", "c"])
    text = report(["a", "b", "c"], metrics=metrics, mistakes=[], reliability=None)
    assert "There are none." in text
    assert "No picture was named wrongly." in text
    assert "<svg" not in text
    Page(text)


def test_the_reliability_diagram_draws_each_bin_to_scale() -> None:
    bins = [(0.0, 0.5, 0.4, 0.1, 30), (0.5, 1.0, 0.6, 0.9, 10), (0.9, 1.0, 0.0, 0.0, 0)]
    page = Page(report(["a", "b"], reliability={"After": bins}))
    sides = {
        kind: [float(a["height"]) for a in page.named("rect") if a["class"] == kind]
        for kind in ("accuracy", "over", "under", "count")
    }
    assert sides["accuracy"] == pytest.approx([30.0, 180.0])  # of 300
    assert sides["over"] == pytest.approx([90.0])
    assert sides["under"] == pytest.approx([90.0])
    assert sides["count"][1] / sides["count"][0] == pytest.approx(1 / 3, rel=0.01)
    assert page.text("figcaption").startswith("After: calibration error 30.0%")


def test_wilson_interval_against_its_published_form() -> None:
    proportion = pytest.importorskip("scipy.stats")
    for right, total in [(0, 10), (8, 10), (183, 186), (5, 5)]:
        expected = proportion.binomtest(right, total).proportion_ci(method="wilson")
        assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_metrics_that_do_not_fit_are_refused() -> None:
    metrics = classification_metrics([[0.9, 0.1]], [0], ["a", "b"])
    with pytest.raises(ArgumentError, match="lacks ece"):
        report(["a", "b"], metrics={key: value for key, value in metrics.items() if key != "ece"})
    with pytest.raises(ArgumentError, match=r"\(2, 2\) for 3 classes"):
        report(["a", "b", "c"], metrics=metrics)
    with pytest.raises(ArgumentError, match="lacks the class 'z'"):
        report(["a", "z"], metrics=metrics)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((300, 400), 160, (160, 120)),
        ((400, 300), 160, (120, 160)),
        ((8, 8), 160, (160, 160)),
        ((100, 70), 160, (70, 100)),
        ((1, 5000), 160, (160, 1)),
        ((5000, 1), 160, (1, 160)),
        ((1, 1), 10, (10, 10)),
    ],
)
def test_thumbnails_keep_the_aspect_ratio(shape: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(thumbnail_jpeg(photograph(*shape), size)))
    assert image.size == expected
    assert image.mode == "RGB"


def test_a_thumbnail_looks_like_its_picture() -> None:
    pixels = np.zeros((200, 200, 3), dtype=np.uint8)
    pixels[:, 100:] = (200, 30, 60)
    small = np.asarray(Image.open(io.BytesIO(thumbnail_jpeg(pixels, 50)))).astype(int)
    assert np.abs(small[:, :20]).max() < 12
    assert np.abs(small[:, 30:] - (200, 30, 60)).max() < 12


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_a_thumbnail_of_something_else_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match="uint8"):
        thumbnail_jpeg(image)
    with pytest.raises(ArgumentError, match="side is 0"):
        thumbnail_jpeg(photograph(), 0)
