"""What the scripts in bench/ conclude from what they measured; nothing is timed here."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from mobilenet.bench.compare import Row

BENCH = Path(__file__).resolve().parents[2] / "bench"


def script(name: str) -> ModuleType:
    """A script as a module."""
    specification = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def rows(*measured: tuple[str, str, float]) -> list[Row]:
    return [Row(name, "1.0", precision, 1, ms, ms, ms / measured[0][2]) for name, precision, ms in measured]


def test_a_cell_names_the_fastest_peer_of_the_same_precision() -> None:
    cell = script("engine").cell
    found = rows(("mobilenet", "int8", 2.0), ("litert", "int8", 3.2), ("openvino", "int8", 3.0))
    assert cell("mobilenet_v2", "int8-1", found) == "**1.50** (of 1.5): 2.000 / 3.000 openvino"
    found = rows(("mobilenet", "int8", 2.0), ("openvino", "int8", 2.99))
    assert cell("mobilenet_v2", "int8-1", found) == "1.50 (of 1.5): 2.000 / 2.990 openvino"
    assert cell("another", "int8-1", found) == "1.50: 2.000 / 2.990 openvino"


def test_v3_in_int8_is_compared_with_floats_too() -> None:
    found = rows(("mobilenet", "int8", 1.0), ("openvino", "int8", 2.5), ("ort", "fp32", 1.7), ("ort", "int8", 3.0))
    expected = "**2.50** (of 2.2): 1.000 / 2.500 openvino; 1.70 (of 1.8) over ort fp32"
    assert script("engine").cell("mobilenet_v3_large", "int8-1", found) == expected


def test_a_cell_without_peers_says_so() -> None:
    found = [*rows(("mobilenet", "bf16", 1.0)), Row("openvino", "", "bf16", 1, reason="not installed")]
    assert script("engine").cell("mobilenet_v1", "bf16-1", found) == "no peer (ours 1.000)"


def test_a_row_that_was_not_timed_keeps_its_reason() -> None:
    line = script("engine").detail(Row("ncnn", "1.0", "int8", 2, reason="has no int8 here"))
    assert line[0] == "ncnn 1.0" and line[-1] == "has no int8 here"


def test_only_a_point_above_the_straight_line_is_a_cliff() -> None:
    scaling = script("scaling")
    times = {100: 1.1, 200: 2.1, 300: 3.1, 400: 4.1, 500: 5.1}
    points = [scaling.Point("resolution", m, "fp32", 1, m * 10**6, ms) for m, ms in times.items()]
    assert max(map(abs, scaling.over_trend(points))) < 1e-9
    steep = [*points[:3], scaling.Point("resolution", 400, "fp32", 1, 400 * 10**6, 8.2), points[4]]
    over = scaling.over_trend(steep)
    assert over.index(max(over)) == 3 and over[3] > scaling.CLIFF
    words = argparse.Namespace(name="net", precisions=["fp32"], axes=["resolution"], rounds=1, plot=None)
    text = scaling.report(words, steep)
    assert "fp32 resolution 400 (+" in text and text.count("cliff") == 1
    assert "trend: none." in scaling.report(words, points)


def test_a_batch_is_counted_by_its_pictures() -> None:
    point = script("scaling").Point("batch", 4, "fp32", 4, 10**6, 8.0)
    assert (point.per_second, point.cost) == (500.0, 4)


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs mobilenet[bench]")
    scaling = script("scaling")
    points = [scaling.Point(axis, v, "fp32", 1, v * 10**6, v) for axis in ("width", "batch") for v in (1, 2, 4, 9)]
    scaling.draw(points, tmp_path / "plot.png", "net")
    assert min(Image.open(tmp_path / "plot.png").size) > 200


def test_start_up_programs_print_their_memory(tmp_path: Path) -> None:
    startup = script("startup")
    picture = startup.made_picture(tmp_path / "picture.jpg")
    assert Image.open(picture).size == (500, 375)
    program = startup.PROGRAMS[startup.BASE][1].format(picture=str(picture)) + startup.TELL_MEMORY
    spent = startup.measure({"base": program}, 2)["base"]
    assert len(spent.milliseconds) == 2 and min(spent.milliseconds) > 0
    assert all(5 < megabytes < 500 for megabytes in spent.megabytes)


def test_a_start_up_program_that_fails_stops_the_bench() -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        script("startup").measure({"broken": "raise ValueError('no such thing')"}, 1)


def test_pictures_of_a_folder_are_spread_over_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs mobilenet[bench]")
    for level in range(10):
        Image.new("RGB", (40, 30), (level * 20,) * 3).save(tmp_path / f"{level}.png")
    found = script("file_to_label").photographs(tmp_path, 5)
    assert [image.getpixel((0, 0))[0] for image in found] == [0, 40, 80, 120, 160]
    with pytest.raises(SystemExit, match="no pictures"):
        script("file_to_label").photographs(tmp_path / "none", 5)
