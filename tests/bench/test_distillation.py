"""What bench/distillation.py trains and prints; nothing is trained here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from test_scripts import script

from mobilenet.learn.options import TrainOptions


def words(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(output=folder, weights="wide.tflite", width=0.5, epochs=8, resolution=96)


def test_the_rows_differ_in_what_they_are_about(tmp_path: Path) -> None:
    bench = script("distillation")
    options = {row: TrainOptions("d", **bench.options_of(row, 3, words(tmp_path))) for row in bench.ROWS}
    assert [row for row, made in options.items() if made.pretrained] == ["sliced", "teacher", "distilled"]
    assert [row for row, made in options.items() if made.width == 0.5] == ["scratch", "sliced", "distilled"]
    teacher = tmp_path / "classify" / "teacher-3" / "best.safetensors"
    assert {row: made.distill for row, made in options.items() if made.distill} == {"distilled": str(teacher)}


def test_the_table_has_the_rows_that_are_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = script("distillation")
    for row, top1 in (("sliced", 0.75), ("scratch", 0.5)):
        found = {"row": row, "seed": 0, "epochs": 8, "params": 1234, "macs": 17_600_000, "best": {"top1": top1},
                 "test_top1": top1, "seconds": 60.4}  # fmt: skip
        (tmp_path / f"{row}-0.json").write_text(json.dumps(found))
    bench.print_table(words(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "| from scratch | 0 | 8 | 1,234 | 17.6 | 0.5000 | 0.5000 | 60 s |"
    assert lines[-1].startswith("| sliced from the wide network | 0 | 8 |")
