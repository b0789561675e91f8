"""A segmenter measured on pictures with masks, and the verbs that answer with it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_segment import half_bright, painter

import mobilenet
from mobilenet.errors import ArgumentError, DataError
from mobilenet.report.predictions import picture_saver


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six pictures whose right half is bright; in the masks of two of them, two columns less are."""
    for number in range(6):
        image = half_bright(32 + number, 48)
        mask = (image[..., 0] >= 128).astype(np.uint8)
        if number < 2:
            mask[:, 24:26] = 0
        mask[0] = 255
        for folder, values in (("images", image), ("masks", mask)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / "data" / folder / f"p{number}.png")
    (tmp_path / "data" / "labels.txt").write_text("dark\nbright\n")
    painter().save(tmp_path / "m.safetensors")
    return tmp_path / "data"


def test_figures_are_those_of_all_pixels(data: Path) -> None:
    figures = painter().evaluate(data, split="all", batch=2)
    counts = [31 + number for number in range(6)]  # rows that have a class
    wrong, total = 2 * sum(counts[:2]), 48 * sum(counts)
    assert figures["pixel_accuracy"] == pytest.approx(1 - wrong / total, abs=2e-3)
    bright = 24 * sum(counts)
    assert figures["per_class"]["bright"]["iou"] == pytest.approx(1 - wrong / bright, abs=4e-3)
    assert (figures["images"], figures["skipped"], figures["split"]) == (6, 0, "all")
    assert figures["latency_ms"] > 0
    assert "boundary_f" in figures


def test_bad_pictures_stop_or_are_counted(data: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(data / "masks" / "p3.png")
    (data / "masks" / "p5.png").unlink()
    with pytest.raises(DataError, match=r"p5\.png: has no mask"):
        painter().evaluate(data, split="all")
    figures = painter().evaluate(data, split="all", on_bad_picture="skip")
    assert (figures["images"], figures["skipped"]) == (4, 2)


def test_what_does_not_fit_is_refused(data: Path) -> None:
    (data / "labels.txt").write_text("sky\nsea\n")
    assert painter().evaluate(data, split="all")["images"] == 6, "the model's own names count"
    with pytest.raises(DataError, match="no split 'validation'"):
        painter().evaluate(data, split="validation")
    with pytest.raises(ArgumentError, match=r"no/r\.html: cannot be written: there is no folder no"):
        painter().evaluate(data, split="all", report="no/r.html", on_progress=lambda *_: pytest.fail("measured"))
    with pytest.raises(ArgumentError, match="stop or skip"):
        painter().evaluate(data, split="all", on_bad_picture="go")


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "mobilenet", *words], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def test_predict_prints_shares_and_saves_pictures(data: Path) -> None:
    home = data.parent
    words = ("predict", "m.safetensors", "data/images/p0.png", "data/images/p1.png")
    lines = run(*words, "--save", "out", folder=home).stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines] == ["dark 50.0%, bright 50.0%"] * 2
    assert sorted(path.name for path in (home / "out").iterdir()) == [
        "p0-mask.png",
        "p0.png",
        "p1-mask.png",
        "p1.png",
    ]
    with Image.open(home / "out" / "p0-mask.png") as mask:
        assert mask.mode == "P" and np.unique(mask).tolist() == [0, 1]
    values = json.loads(run(*words, "--json", folder=home).stdout.splitlines()[0])
    assert values["segments"][0]["segmentation"]["size"] == [32, 48]
    rows = list(csv.DictReader(io.StringIO(run(*words, "--csv", folder=home).stdout)))
    assert [row["label"] for row in rows] == ["dark", "bright"] * 2


def test_predict_saves_pictures_of_classes_too(data: Path) -> None:
    home = data.parent
    model = mobilenet.create("mobilenet_v2", width_multiplier=0.1, classes=2, resolution=32)
    model.save(home / "c.safetensors")
    run("predict", "c.safetensors", "data/images/p0.png", "data/masks/p0.png", "--save", "out", folder=home)
    assert sorted(path.name for path in (home / "out").iterdir()) == ["p0-2.png", "p0.png"]


def test_no_saved_picture_is_written_over(tmp_path: Path) -> None:
    save = picture_saver(str(tmp_path / "out"))
    paths = [tmp_path / name for name in ("a/x.png", "b/x.png", "x-2.png", "x-mask.png", "x.jpg")]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(half_bright(20 + number, 30)).save(path)
        save(painter().predict(path))
    heights = [Image.open(path).height for path in sorted((tmp_path / "out").glob("*-mask.png"))]
    assert sorted(heights) == [20, 21, 22, 23, 24]
    assert len(list((tmp_path / "out").iterdir())) == 10
    with pytest.raises(ArgumentError, match="is a file, not a folder"):
        picture_saver(str(paths[0]))


def test_evaluate_in_words_and_as_json(data: Path) -> None:
    words = ("evaluate", "m.safetensors", "data", "--split", "all")
    text = run(*words, folder=data.parent).stdout
    assert "mIoU" in text and "boundary F" in text and "bright" in text
    assert json.loads(run(*words, "--json", folder=data.parent).stdout)["images"] == 6


def test_a_report_shows_the_pictures_that_went_wrong(data: Path) -> None:
    words = ("evaluate", "m.safetensors", "data", "--split", "all", "--report", "r.html")
    assert "report: r.html" in run(*words, folder=data.parent).stdout.splitlines()
    text = (data.parent / "r.html").read_text("utf-8")
    figures = painter().evaluate(data, split="all")
    assert f"<b>{figures['miou']:.1%}</b><span>Mean IoU</span>" in text
    assert set(re.findall(r"(p\d)\.png</span>", text)[:2]) == {"p0", "p1"}
    assert json.loads(run(*words, "--json", folder=data.parent).stdout)["images"] == 6
