"""`mobilenet import` as a user meets it: one line out, notes and errors apart, nothing written on failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from import_peers import look_alike, save

import mobilenet
from mobilenet.files.imports.sources import Ends


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mobilenet", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, cwd=folder, env=environment
    )


def test_a_checkpoint_becomes_a_model_file(tmp_path: Path) -> None:
    save(look_alike("timm", "mobilenetv3_small", 0.5, Ends(3, 3)), tmp_path / "x.safetensors")
    (tmp_path / "labels.txt").write_text("cat\ndog\nowl\n")
    words = ("import", "x.safetensors", "-o", "m.safetensors", "--labels", "labels.txt", "--resolution", "64")
    done = run(tmp_path, *words, "--name", "mobilenetv3_small_050")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("m.safetensors: classify, 64x64x3 float32, ")
    assert "note: taken as usual, for the file does not say it: the preprocessing of pictures" in done.stderr
    model = mobilenet.load(tmp_path / "m.safetensors")
    assert model.names == ("cat", "dog", "owl")
    model.verify()


def test_a_folder_with_its_configuration(tmp_path: Path) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    save(look_alike("timm", "mobilenetv3_small", 0.75, Ends(3, 3)), home / "model.safetensors")
    cfg = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}
    (home / "config.json").write_text(
        json.dumps({"architecture": "tf_mobilenetv3_small_075", "pretrained_cfg": cfg})
    )
    done = run(tmp_path, "import", "hub", "-o", "m.safetensors")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert mobilenet.load(tmp_path / "m.safetensors").provenance["dialect"] == "timm_tf"


def test_an_error_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    save({"layer1.0.conv1.weight": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    save(look_alike("torchvision", "mobilenet_v2", 0.35, Ends(3, 3)), tmp_path / "y.safetensors")
    cases = [
        (("import", "x.safetensors", "-o", "m.safetensors"), "looks like a ResNet"),
        (("import", "absent.pth", "-o", "m.safetensors"), "absent.pth: cannot be read"),
        (("import", "y.safetensors", "-o", "m.safetensors", "--float"), "only a .tflite file is dequantised"),
        (("import", "y.safetensors", "-o", "m.safetensors", "--name", "mobilenet_v1"), "the given name says"),
        (("import", ".", "-o", "m.safetensors"), "a folder needs one checkpoint"),
    ]
    for words, message in cases:
        done = run(tmp_path, *words)
        assert done.returncode == 1, words
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "m.safetensors").exists()
