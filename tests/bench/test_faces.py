"""Whom bench/faces.py trains and tests on, and what it prints; nothing is trained here."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from test_scripts import script

from mobilenet.learn.options import TrainOptions


def test_nobody_is_in_two_splits(tmp_path: Path) -> None:
    bench = script("faces")
    faces = tmp_path / "faces"
    for person in range(1, 41):
        (faces / f"s{person}").mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    bench.lay_out(faces, root)
    people = {split.name: {link.resolve().name for link in split.iterdir()} for split in root.iterdir()}
    assert {split: len(found) for split, found in people.items()} == {"train": 25, "val": 5, "test": 10}
    assert people["test"] == {f"s{person}" for person in range(31, 41)}
    assert len(set.union(*people.values())) == 40
    (faces / "s7").rmdir()
    (tmp_path / "again").mkdir()
    with pytest.raises(SystemExit, match="s7: there is no such folder"):
        bench.lay_out(faces, tmp_path / "again")


def test_every_row_is_a_command_that_is_accepted(tmp_path: Path) -> None:
    bench = script("faces")
    words = argparse.Namespace(weights=Path("w.tflite"), threads=1, output=tmp_path)
    for key in bench.ROWS:
        line = bench.command(key, 3, tmp_path, words)
        assert line[:3] == ["mobilenet", "train", str(tmp_path)]
        given = dict(zip(line[3::2], line[4::2], strict=True))
        kinds = {"--seed": int, "--threads": int, "--epochs": int, "--resolution": int, "--ema": float}
        options = {name[2:]: kinds.get(name, str)(value) for name, value in given.items()}
        assert TrainOptions("d", **options).filled().task == "embed"
        assert (options["seed"], options["name"]) == (3, f"{key}-3")


def test_the_table_has_a_line_for_each_run() -> None:
    bench = script("faces")
    figures = dict.fromkeys(bench.COLUMNS, 0.5)
    row = {
        "name": "net",
        "seed": 1,
        "macs": 78_100_000,
        "seconds": 61.2,
        "command": "mobilenet train FACES --seed 1",
    }
    lines = bench.table([{**row, **figures}, {**row, **figures, "seed": 2}]).splitlines()
    assert lines[2] == f"| net | 1 | 78.1M |{' 0.5000 |' * 6} 61 |"
    assert lines[3].startswith("| net | 2 |")
    assert lines[-1] == "`mobilenet train FACES`"
    assert len(lines) == 6
