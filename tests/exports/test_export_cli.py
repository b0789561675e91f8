"""`mobilenet export` as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilenet.model import Model

pytest.importorskip("onnx", reason="needs mobilenet[export]")
pytest.importorskip("ai_edge_litert", reason="needs mobilenet[export]")


def run(*words: object, folder: Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "mobilenet", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        preexec_fn=limited if limit else None,
    )


@pytest.fixture(scope="module")
def home(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    models["int8"].save(folder / "small.safetensors")
    return folder


def test_a_file_beside_the_model_and_what_was_checked(home: Path) -> None:
    done = run(
        "export", "small.safetensors", "--to", "tflite", "--picture-input", "--batch", "dynamic", folder=home
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small.tflite: 0.") and "checked with LiteRT" in done.stdout
    assert "on 10 pictures: at most" in done.stdout
    assert "kind 7" in run("info", "small.tflite", folder=home).stdout


def test_errors_are_one_line(home: Path) -> None:
    for words, said in (
        (["--to", "coreml"], "a model is exported to onnx, tflite, c, hub, not to 'coreml'"),
        (["--to", "onnx", "--batch", "some"], "batch is 'dynamic' or a whole number"),
        (["--to", "onnx", "-o", "absent/m.onnx"], "there is no folder 'absent'"),
        (["--to", "hub"], "the model is of integers, which timm does not have"),
    ):
        done = run("export", "small.safetensors", *words, folder=home)
        assert done.returncode == 1 and done.stdout == ""
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (home / "small-hub").exists() and not (home / "small.onnx").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_file_that_the_disk_cannot_hold_is_an_error_and_leaves_nothing(home: Path) -> None:
    before = set(home.iterdir())
    done = run("export", "small.safetensors", "--to", "onnx", folder=home, limit=100_000)
    assert done.returncode == 1 and "File too large" in done.stderr
    assert set(home.iterdir()) == before


def test_a_detectors_boxes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs mobilenet[export] and onnxruntime")
    import mobilenet

    model = mobilenet.create("mobilenet_v3_small", head="ssdlite", classes=4, resolution=64, width_multiplier=0.35)
    model.save(tmp_path / "d.safetensors")
    done = run("export", "d.safetensors", "--to", "onnx", "--nms", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "as decoded from these" in done.stdout
    done = run("export", "d.safetensors", "--to", "hub", "--nms", folder=tmp_path)
    assert done.returncode == 1 and "files for onnx and tflite, not hub" in done.stderr
