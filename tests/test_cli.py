"""The command as a user meets it: exit status, what is printed where, and errors in one line."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilenet


def run(*words: object, stdin: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mobilenet", *map(str, words)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=300, cwd=folder, env=environment
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two classes and labelled pictures."""
    folder = tmp_path_factory.mktemp("home")
    model = mobilenet.create("mobilenet_v3_small", width_multiplier=0.35, resolution=32, classes=2)
    model.labels = ("dark [night]", "light")
    model.save(folder / "m.safetensors")
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, low in (("dark [night]", 0), ("light", 150)):
            (folder / "data" / split / label).mkdir(parents=True)
            for number in range(3):
                pixels = generator.integers(low, low + 100, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "data" / split / label / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    "verb", ["train", "evaluate", "predict", "import", "info", "profile", "list", "index", "search", "teach"]
)
def test_every_verb_explains_itself(verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_no_verb_and_a_wrong_verb() -> None:
    assert "predict" in run().stdout
    done = run("predikt")
    assert done.returncode == 2
    assert "predikt" in done.stderr
    assert run("--version").stdout.strip() == f"mobilenet {mobilenet.__version__}"


def test_predict_prints_a_line_a_picture(home: Path) -> None:
    done = run("predict", "m.safetensors", "data/test", "--top", "1", folder=home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(os.path.join("data", "test", "dark [night]", "0.png") + ": ")  # noqa: PTH118


def test_predict_as_json_lines(home: Path) -> None:
    done = run("predict", "m.safetensors", "data/test/light/*.png", "--json", folder=home)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3
    assert rows[0]["label"] == rows[0]["top"][0]["label"]
    assert sum(entry["confidence"] for entry in rows[0]["top"]) == pytest.approx(1, abs=1e-4)


def test_predict_as_csv_from_standard_input(home: Path) -> None:
    pictures = "data/test/light/0.png\ndata/test/light/1.png\n"
    done = run("predict", "m.safetensors", "-", "--csv", folder=home, stdin=pictures)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert {row["label"] for row in rows} == {"dark [night]", "light"}


def test_min_confidence_names_nothing_it_is_not_sure_of(home: Path) -> None:
    words = ("predict", "m.safetensors", "data/test/light/0.png", "--min-confidence", "1")
    assert "no class reaches 100%" in run(*words, folder=home).stdout
    assert json.loads(run(*words, "--json", folder=home).stdout)["label"] is None


def test_a_bad_picture_is_one_line_and_the_rest_go_on(home: Path) -> None:
    (home / "bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    good = "data/test/light/0.png"
    done = run("predict", "m.safetensors", good, "bad.jpg", "missing.png", good, folder=home)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    errors = done.stderr.splitlines()
    assert len(errors) == 2
    assert "bad.jpg" in errors[0]
    assert "missing.png" in errors[1]


def test_evaluate_as_json_and_in_words(home: Path) -> None:
    done = run("evaluate", "m.safetensors", "data", "--json", "--report", "r.html", folder=home)
    figures = json.loads(done.stdout)
    assert {"top1", "top5", "images", "per_class", "ece", "latency_ms"} <= figures.keys()
    assert figures["images"] == 6
    assert "<html" in (home / "r.html").read_text(encoding="utf-8")
    words = run("evaluate", "m.safetensors", "data", "--split", "train", folder=home)
    assert "dark [night]" in words.stdout
    assert "top-1" in words.stdout


def test_info_in_words_and_as_json(home: Path) -> None:
    figures = json.loads(run("info", "m.safetensors", "--json", folder=home).stdout)
    assert figures["labels"] == ["dark [night]", "light"]
    assert figures["input"]["shape"] == [32, 32, 3]
    assert figures["bytes"] == (home / "m.safetensors").stat().st_size
    words = run("info", "m.safetensors", folder=home).stdout
    assert "dark [night]" in words
    assert "bilinear" in words


def test_profile_has_the_promised_keys() -> None:
    figures = json.loads(run("profile", "mobilenet_v2", "--width", "0.5", "--json").stdout)
    keys = {"name", "params", "macs", "peak_activation_bytes", "peak_activation_bytes_banded", "layers"}
    assert keys <= figures.keys()
    assert figures["params"] == 1968680  # timm, torchvision and Keras agree
    assert figures["macs"] == 97131840
    assert figures["peak_activation_bytes_banded"] < figures["peak_activation_bytes"]


def test_profile_of_a_model_file_and_as_a_picture(home: Path) -> None:
    assert "classifier" in run("profile", "m.safetensors", folder=home).stdout
    done = run("profile", "mobilenet_v2", "--plot", "out.png", "--grid", folder=home)
    assert done.returncode == 0, done.stderr
    assert Image.open(home / "out.png").size[0] > 300


def test_list_takes_a_pattern() -> None:
    names = run("list", "*v3*").stdout.split()
    assert "mobilenet_v3_large" in names
    assert all("v3" in name for name in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "missing.safetensors", "x.png"), "missing.safetensors"),
        (("predict", "data", "x.png"), "data"),
        (("predict", "m.safetensors", "x.png", "--json", "--csv"), "--json and --csv"),
        (("evaluate", "m.safetensors", "nowhere"), "nowhere"),
        (("evaluate", "m.safetensors", "data", "--split", "holdout"), "holdout"),
        (("evaluate", "m.safetensors", "data", "--report", "no/folder/r.html"), "no/folder/r.html"),
        (("info", "data/test/light/0.png"), "0.png"),
        (("import", "m.safetensors", "-o", "n.safetensors"), "m.safetensors"),
        (("profile", "mobilnet_v2"), "mobilenet_v2"),
        (("profile", "mobilenet_v2", "--width", "-1"), "width"),
        (("train", "nowhere"), "nowhere"),
        (("train", "data", "--epochs", "-3"), "epochs"),
        (("train", "data", "--optimizer", "magic"), "adamw"),
    ],
)
def test_errors_are_one_line_that_names_the_culprit(home: Path, words: tuple[str, ...], message: str) -> None:
    done = run(*words, folder=home)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_error(home: Path) -> None:
    command = f"{sys.executable} -m mobilenet predict m.safetensors data data data data | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=home, capture_output=True, text=True, check=False, timeout=120
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
