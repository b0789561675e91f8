"""Results of a classifier: order, text, JSON, pictures, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError, ImageError
from mobilenet.tasks.classify import ClassificationResult, Probabilities, scores_to_probabilities

NAMES = ("dress", "hat", "pants", "shirt", "shoes", "skirt")
SPEED = {"preprocess": 1.23456, "inference": 10.0, "postprocess": 0.1}


def result(path: str | None = "photos/a.jpg", names: tuple[str, ...] = NAMES) -> ClassificationResult:
    probabilities = np.array([0.1, 0.3, 0.05, 0.3, 0.2, 0.05], dtype=np.float32)
    return ClassificationResult(path, Probabilities(probabilities[: len(names)]), names, SPEED)


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    return pixels


def test_probabilities_in_order_with_the_lower_class_first_among_equals() -> None:
    probs = result().probs
    assert probs.top1 == 1
    assert probs.top5 == [1, 3, 4, 0, 2]
    assert probs.top1conf == pytest.approx(0.3)
    assert probs.top5conf == pytest.approx([0.3, 0.3, 0.2, 0.1, 0.05])
    assert probs.top(100) == [1, 3, 4, 0, 2, 5]
    assert probs.data.dtype == np.float32


def test_fewer_than_five_classes() -> None:
    probs = Probabilities(np.array([0.2, 0.8]))
    assert probs.top5 == [1, 0]
    assert len(probs.top5conf) == 2


def test_probabilities_keep_no_hold_on_the_callers_array() -> None:
    mine = np.array([0.2, 0.8], dtype=np.float32)
    probs = Probabilities(mine)
    mine[0] = 1.0
    assert probs.top1 == 1
    with pytest.raises(ValueError, match="read-only"):
        probs.data[0] = 1.0


@pytest.mark.parametrize("data", [[], [[0.5, 0.5]], [0.5, float("nan")]])
def test_probabilities_of_a_wrong_kind_are_refused(data: list[float]) -> None:
    with pytest.raises(ArgumentError, match="finite numbers"):
        Probabilities(np.array(data, dtype=np.float32))


def test_as_many_names_as_probabilities() -> None:
    with pytest.raises(ArgumentError, match="1 names for 2 probabilities"):
        ClassificationResult(None, Probabilities(np.array([0.5, 0.5])), ("a",), {})


def test_json() -> None:
    values = json.loads(result().to_json(top=2))
    assert values == {
        "path": "photos/a.jpg",
        "label": "hat",
        "confidence": 0.3,
        "top": [
            {"label": "hat", "confidence": 0.3, "index": 1},
            {"label": "shirt", "confidence": 0.3, "index": 3},
        ],
        "speed": {"preprocess": 1.235, "inference": 10.0, "postprocess": 0.1},
    }
    assert result().to_dict() == json.loads(result().to_json())
    assert len(result().to_dict()["top"]) == 5


def test_json_is_one_line_that_any_terminal_carries() -> None:
    names = ('quote " and \n break', "日本", "émoji 🙂")
    text = result(path="bytes \udcff.jpg", names=names).to_json()
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["path"] == "bytes \udcff.jpg"
    assert {entry["label"] for entry in json.loads(text)["top"]} == set(names)


def test_text_is_short_and_says_what_it_is() -> None:
    assert str(result()) == "photos/a.jpg: hat 30.0%, shirt 30.0%, shoes 20.0%"
    assert str(result(path=None)) == "hat 30.0%, shirt 30.0%, shoes 20.0%"
    assert repr(result()) == (
        "ClassificationResult(path='photos/a.jpg', label='hat', confidence=0.3000, classes=6)"
    )


def test_zero_answers_is_refused() -> None:
    with pytest.raises(ArgumentError, match="top is 0"):
        result().to_json(top=0)


def test_plot_shows_the_picture_and_more_for_more_classes() -> None:
    one, five = result().plot(picture(), top=1), result().plot(picture(), top=5)
    assert one.mode == five.mode == "RGB"
    red = np.all(np.asarray(five) == (255, 0, 0), axis=2)
    rows, columns = np.nonzero(red)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert red[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert (height, width) == (300, 450)  # 60 x 90, whole factor 5, so that 480 is not passed
    assert five.height >= one.height


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (8, 8), (2000, 1500)])
def test_plot_of_any_size_stays_small(shape: tuple[int, int]) -> None:
    drawn = result().plot(picture(*shape))
    assert max(drawn.size) < 1100


@pytest.mark.parametrize(
    "name", ["", " ", "a" * 5000, "two\nlines", "日本語", "עברית", "🙂", "<script>", "a\x00b", "$x_{"]
)
def test_plot_of_any_name(name: str) -> None:
    result(names=(name, "b")).plot(picture())


def test_a_line_break_in_a_name_moves_nothing() -> None:
    broken, whole = (result(names=(name, "b")).plot(picture()) for name in ("two\nlines", "two lines"))
    assert np.array_equal(np.asarray(broken), np.asarray(whole))


def test_bars_follow_the_probabilities() -> None:
    def blue(values: list[float]) -> int:
        drawn = ClassificationResult(None, Probabilities(np.array(values)), ("a", "b"), {}).plot(picture(), top=1)
        return int(np.all(np.asarray(drawn) == (37, 99, 235), axis=2).sum())

    assert blue([0.9, 0.1]) / blue([0.6, 0.4]) == pytest.approx(1.5, rel=0.05)


def test_save_reads_the_results_own_path(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(picture()).save(source)
    target = result(path=str(source)).save(tmp_path / "out.png")
    with Image.open(target) as written:
        assert written.format == "PNG"
    with pytest.raises(ArgumentError, match=r"out\.txt"):
        result(path=str(source)).save(tmp_path / "out.txt")


def test_plot_without_a_picture_says_so() -> None:
    with pytest.raises(ArgumentError, match=r"plot\(picture\)"):
        result(path=None).plot()
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        result(path="nowhere.jpg").plot()


def test_logits_become_probabilities() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    ours = scores_to_probabilities(logits, logits=True, temperature=1.7)
    np.testing.assert_allclose(ours, torch.softmax(torch.from_numpy(logits) / 1.7, 1).numpy(), rtol=1e-5)


def test_temperature_of_probabilities_is_that_of_their_lost_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(6, 7)) * 3
    first = scores_to_probabilities(logits, logits=True)
    np.testing.assert_allclose(
        scores_to_probabilities(first, logits=False, temperature=2.5),
        scores_to_probabilities(logits, logits=True, temperature=2.5),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(scores_to_probabilities(first, logits=False), first)


def test_zeros_of_a_quantised_softmax_survive_a_temperature() -> None:
    ours = scores_to_probabilities([[1.0, 0.0, 0.0]], logits=False, temperature=2.0)
    assert np.isfinite(ours).all()
    assert ours[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("scores", [[0.5, 0.5], [[-0.1, 1.1]], [[float("nan"), 1.0]], np.zeros((0, 2))])
def test_what_is_no_probability_is_refused(scores: object) -> None:
    with pytest.raises(ArgumentError, match="outputs"):
        scores_to_probabilities(scores, logits=False)  # type: ignore[arg-type]


def test_a_result_and_a_report_need_neither_torch_nor_plotting() -> None:
    blocked = "torch", "matplotlib", "sklearn", "scipy", "kornia"
    code = (
        f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
        "import numpy as np, mobilenet.report.html, mobilenet.report.plots, mobilenet.tasks.metrics\n"
        "from mobilenet.tasks.classify import *\n"
        "r = ClassificationResult(None, Probabilities(np.array([.2, .8])), ('a', 'b'), {})\n"
        "print(r.plot(np.zeros((9, 9, 3), np.uint8)).mode, r.to_json(1))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("RGB {")
