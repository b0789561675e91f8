"""Plots: that the right things are drawn, that hostile texts and missing figures are survived."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from mobilenet.errors import ArgumentError, MissingExtraError
from mobilenet.report import plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that were saved, so that a test can ask what is on them."""
    saved: list[Figure] = []
    write = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: saved.append(figure) or write(figure, path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield saved


def check_png(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("L"))
    assert pixels.std() > 1.0  # something is drawn


def history() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"epoch": n + 1, "phase": "head" if n < 2 else "all", "train_loss": 2.0 / (n + 1), "lr": 0.01}
        for n in range(5)
    ]
    rows[3]["val_loss"] = 0.7
    return rows


def test_training_curves_hold_the_rows(figures: list[Figure], tmp_path: Path) -> None:
    path = plots.training_curves(history(), tmp_path / "curves.png")
    check_png(path)
    loss, rate = figures[0].axes  # no accuracy and no speed: no panel for them
    assert loss.get_title(loc="left") == "Loss"
    lines = {line.get_label(): line for line in loss.lines}
    np.testing.assert_allclose(lines["training"].get_ydata(), [2.0, 1.0, 2 / 3, 0.5, 0.4])
    assert lines["validation"].get_xydata().tolist() == [[4.0, 0.7]]
    assert rate.get_title(loc="left") == "Learning rate"
    assert [text.get_text().strip() for text in loss.texts] == ["all"]


def test_training_curves_take_the_texts_of_a_csv_file(figures: list[Figure], tmp_path: Path) -> None:
    rows = [
        {"epoch": "1", "val_top1": "0.5", "train_loss": "nan", "val_loss": "", "lr": None},
        {"epoch": "1", "val_top1": "0.75", "train_loss": "inf", "val_loss": "x"},
    ]
    plots.training_curves(rows, tmp_path / "curves.png")
    (axes,) = figures[0].axes
    # the epoch starts again, so rows are counted
    assert axes.lines[0].get_xydata().tolist() == [[1.0, 0.5], [2.0, 0.75]]


@pytest.mark.parametrize("rows", [[], [{}], [{"epoch": 1, "train_loss": float("nan")}]])
def test_no_history_is_refused(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="no figure to plot"):
        plots.training_curves(rows, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_confusion_matrix_writes_its_counts(figures: list[Figure], tmp_path: Path) -> None:
    check_png(plots.confusion_matrix_plot([[8, 2], [0, 0]], ["cat", "dog"], tmp_path / "matrix.png"))
    axes = figures[0].axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "8", (1, 0): "2"}  # x is the answer, y the truth
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0.0, 0.0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]


@pytest.mark.parametrize(("classes", "counts", "names"), [(20, True, True), (21, False, True), (61, False, False)])
def test_a_large_matrix_leaves_out_what_cannot_be_read(
    classes: int, counts: bool, names: bool, figures: list[Figure], tmp_path: Path
) -> None:
    labels = [f"name {n}" for n in range(classes)]
    plots.confusion_matrix_plot(np.eye(classes, dtype=np.int64), labels, tmp_path / "matrix.png")
    axes = figures[0].axes[0]
    assert bool(axes.texts) == counts
    assert any(label.get_text() == "name 0" for label in axes.get_yticklabels()) == names


@pytest.mark.parametrize(("confusion", "classes"), [([[1, 2]], ["a", "b"]), ([[1]], ["a", "b"]), ([], [])])
def test_a_matrix_that_does_not_fit_is_refused(confusion: Any, classes: list[str], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\[C, C\]"):
        plots.confusion_matrix_plot(confusion, classes, tmp_path / "matrix.png")


def pictures(count: int, side: int = 8) -> list[np.ndarray]:
    return [np.full((side, side, 3), 10 * n % 255, dtype=np.uint8) for n in range(count)]


def test_samples_are_green_if_right_and_red_with_the_truth_if_not(figures: list[Figure], tmp_path: Path) -> None:
    path = plots.sample_predictions(
        pictures(3), ["a", "b", "c"], ["a", "x", "c"], [0.9, 0.5, 1.0], tmp_path / "samples.png"
    )
    check_png(path)
    titles = [(axes.get_title(), axes.title.get_color()) for axes in figures[0].axes]
    assert titles == [("a 90%", plots.GREEN), ("x 50%\n(truth: b)", plots.RED), ("c 100%", plots.GREEN)]


def test_samples_stop_at_48(figures: list[Figure], tmp_path: Path) -> None:
    plots.sample_predictions(pictures(60), ["a"] * 60, ["a"] * 60, [0.5] * 60, tmp_path / "samples.png")
    assert len(figures[0].axes) == 48


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"lengths \[1, 2\]"):
        plots.sample_predictions(pictures(2), ["a"], ["a"], [0.5], tmp_path / "samples.png")
    with pytest.raises(ArgumentError, match=r"lengths \[0\]"):
        plots.sample_predictions([], [], [], [], tmp_path / "samples.png")
    with pytest.raises(ArgumentError, match=r"images\[0\] is float64"):
        plots.sample_predictions([np.zeros((4, 4, 3))], ["a"], ["a"], [0.5], tmp_path / "samples.png")


def points(name: str = "mobilenet_v1") -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "width": width,
            "resolution": side,
            "macs": 569e6 * width**2 * (side / 224) ** 2,
            "params": 4.2e6 * width,
            "top1": 0.6 + 0.1 * width,
        }
        for side in (224, 128)
        for width in (1.0, 0.5, 0.25)
    ]


@pytest.mark.parametrize("y", ["params", "top1"])
def test_trade_off_has_a_line_a_width_and_a_marker_a_resolution(
    y: str, figures: list[Figure], tmp_path: Path
) -> None:
    check_png(plots.trade_off(points(), tmp_path / "trade.png", y=y))
    axes = figures[0].axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["width 0.25", "width 0.5", "width 1"]
    low, high = lines["width 0.5"].get_xdata()
    assert (low, high) == (pytest.approx(569e6 / 4 * (128 / 224) ** 2), 569e6 / 4)
    assert len({line.get_marker() for line in axes.lines} - {"None"}) == 2
    assert axes.get_xscale() == "log"
    assert axes.get_yscale() == ("linear" if y == "top1" else "log")
    shown = [text.get_text() for legend in figures[0].legends for text in legend.get_texts()]
    assert shown == [*lines, "128 px", "224 px"]


def test_trade_off_of_two_networks_keeps_their_lines_apart(figures: list[Figure], tmp_path: Path) -> None:
    plots.trade_off(points("thin") + points("shallow"), tmp_path / "trade.png")
    labels = [line.get_label() for line in figures[0].axes[0].lines]
    assert {"thin, width 0.5", "shallow, width 0.5"} <= set(labels)
    assert sum(not label.startswith("_") for label in labels) == 6


@pytest.mark.parametrize("value", [None, 0, -1.0, float("nan"), "many"])
def test_a_point_without_a_figure_is_refused_by_name(value: object, tmp_path: Path) -> None:
    broken = points()
    broken[2]["macs"] = value
    with pytest.raises(ArgumentError, match=r"points\[2\] 'mobilenet_v1': 'macs'"):
        plots.trade_off(broken, tmp_path / "trade.png")
    with pytest.raises(ArgumentError, match="no points"):
        plots.trade_off([], tmp_path / "trade.png")


@pytest.mark.parametrize(
    "name", ["$x_{$", "$a$ $b$", "back\\slash", "a\nb", "", "x" * 3000, "\udcff", "<b>", "50%"]
)
def test_any_name_is_a_text_and_no_formula(name: str, figures: list[Figure], tmp_path: Path) -> None:
    plots.confusion_matrix_plot([[1, 0], [0, 1]], [name, "b"], tmp_path / "matrix.png")
    plots.sample_predictions(pictures(1), ["b"], [name], [0.5], tmp_path / "samples.png")
    plots.trade_off([point | {"name": name} for point in points()], tmp_path / "trade.png", title=name)
    plots.training_curves([{"train_loss": 1, "phase": ""}, {"train_loss": 1, "phase": name}], tmp_path / "c.png")
    assert len(figures) == 4


def test_plots_leave_matplotlibs_global_state_alone() -> None:
    code = (
        "import sys, numpy as np\nfrom mobilenet.report import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plots.confusion_matrix_plot(np.eye(2), ['a', 'b'], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, "/dev/null"], check=True)


def test_without_matplotlib_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mobilenet\[plot\]'"):
        plots.confusion_matrix_plot([[1]], ["a"], tmp_path / "matrix.png")
