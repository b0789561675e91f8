"""From a model and a folder of pictures to a quantised model file, in Python and on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet.errors import ArgumentError, ImageError
from mobilenet.files.tflite import read_tflite
from mobilenet.model import Model
from mobilenet.quantise import calibration_batches, quantise
from mobilenet.quantise.random import random_model


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mobilenet", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float model m.safetensors, pictures in data/{train,test}, one file that is no picture in broken/."""
    folder = tmp_path_factory.mktemp("quantise")
    model = random_model("mobilenet_v3_small", width_multiplier=0.5, resolution=64, classes=3)
    model.labels = ("a", "b", "c")
    model.calibration = {"temperature": 1.5}
    model.metrics = {"top1": 0.9}
    model.save(folder / "m.safetensors")
    generator = np.random.default_rng(0)
    for split, count in (("train", 7), ("test", 2)):
        (folder / "data" / split / "a").mkdir(parents=True)
        for number in range(count):
            coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((90, 70)).save(folder / "data" / split / "a" / f"{number}.png")
    (folder / "broken").mkdir()
    for name in "abcdefgh":
        (folder / "broken" / f"{name}.png").write_bytes(b"no picture")
    (folder / "empty").mkdir()
    return folder


def test_command_writes_a_model_that_keeps_what_belongs_to_it(home: Path) -> None:
    out = home / "q.safetensors"
    words = ("--data", home / "data", "-o", out, "--pictures", 5, "--max-drop", 1, "--method", "min-max")
    done = run("quantise", home / "m.safetensors", *words)
    assert done.returncode == 0, done.stderr
    assert "held-out picture" in done.stdout
    before, after = mobilenet.load(home / "m.safetensors"), mobilenet.load(out)
    assert after.input.dtype == "uint8"
    assert (after.labels, after.preprocessing, after.task) == (before.labels, before.preprocessing, before.task)
    assert after.calibration == {"temperature": 1.5}
    assert after.metrics == {}
    assert "quantised" in after.provenance
    assert out.stat().st_size < 0.5 * (home / "m.safetensors").stat().st_size
    assert after.checks
    after.verify()
    picture = home / "data" / "test" / "a" / "0.png"
    assert after.predict(picture).probs.data == pytest.approx(before.predict(picture).probs.data, abs=0.15)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "missing"], "no such folder"),
        (["--data", "empty"], "no pictures"),
        (["--data", "broken", "--max-drop", "1"], ".png: "),
        (["--data", "data", "--pictures", "0"], "pictures is 0"),
    ],
)
def test_command_says_what_is_wrong_and_writes_nothing(home: Path, words: list[str], message: str) -> None:
    words[1] = str(home / words[1])
    done = run("quantise", home / "m.safetensors", *words, "-o", home / "no.safetensors")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "no.safetensors").exists()


def test_progress_and_bad_pictures(home: Path) -> None:
    model = mobilenet.load(home / "m.safetensors")
    steps: list[tuple[int, int]] = []
    pictures = sorted((home / "data" / "train").rglob("*.png"))[:2]
    batches = list(calibration_batches(model, pictures, on_progress=lambda done, all_: steps.append((done, all_))))
    assert [batch.shape for batch in batches] == [(1, 64, 64, 3)] * 2
    assert steps == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(ImageError, match="a.png"):
        quantise(model, calibration_batches(model, sorted((home / "broken").iterdir())))
    with pytest.raises(ArgumentError, match="takes arrays"):
        list(calibration_batches(random_model("mobilenet_v2", channels=5, resolution=32), pictures))


def test_a_trained_network_keeps_its_answers(shared: Path) -> None:
    """Its own float form, calibrated on other pictures, names what the published integer network names."""
    file = shared / "weights" / "coral" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    published, real = Model.of(read_tflite(file)), Model.of(read_tflite(file, to_float=True))
    chosen = sorted((shared / "data" / "clothing" / "train").rglob("*.jpg"))[::250]
    quantised = Model.of(quantise(real, calibration_batches(real, chosen)))
    photos = [path for path in sorted((shared / "data" / "photos").iterdir()) if path.suffix in (".bmp", ".jpg")]
    assert len(photos) > 10
    named = [np.array([result.probs.top1 for result in model.predict(photos)]) for model in (published, quantised)]
    assert (named[0] == named[1]).mean() >= 0.85
