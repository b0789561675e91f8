"""Classifiers as C programs: compiled, linked with the engine's library, and asked beside the model itself."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet.errors import ArgumentError
from mobilenet.exports import Options, export
from mobilenet.model import Model

PROJECT = Path(__file__).resolve().parents[2]
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1")
ODD_LABELS = ('quote " and \\ slash', "what??/", "ünïcode 🦉", "7th", "", *(f"kind {n}" for n in range(5, 100)))


@pytest.fixture(scope="module")
def library() -> Path:
    """The engine's static library, as installing the package leaves it in the build folder."""
    found = sorted(PROJECT.glob("build/cp*/native/libmobilenet.a"))
    if not found or not (shutil.which("cc") and shutil.which("c++")):
        pytest.skip("needs a C and a C++ compiler, and the static library that `make engine` builds")
    return found[0]


def build(source: Path, library: Path, *flags: str) -> Path:
    program, include = source.with_suffix(""), PROJECT / "native" / "include"
    steps = (
        ["cc", *STRICT, *flags, "-c", source.name, "-I", str(include)],
        ["c++", f"{source.stem}.o", str(library), "-lpthread", "-lm", "-o", str(program)],
    )
    for step in steps:
        done = subprocess.run(step, cwd=source.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return program


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_program_says_what_the_model_says(
    models: dict[str, Model], precision: str, tmp_path: Path, library: Path
) -> None:
    model = Model.of(replace(models[precision], labels=ODD_LABELS))
    done = export(model, tmp_path / "4-owls.c", to="c")
    assert done.size == sum((tmp_path / f"4-owls.{suffix}").stat().st_size for suffix in "ch")
    program = build(tmp_path / "4-owls.c", library)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.ppm")
    said = subprocess.run([program, tmp_path / "picture.ppm"], capture_output=True, text=True)
    assert said.returncode == 0 and said.stderr == ""
    probabilities = model.predict(pixels).probs.data
    lines = [line.split(" ", 1) for line in said.stdout.splitlines()]
    assert len(lines) == 5
    for (share, label), index in zip(lines, np.argsort(-probabilities, kind="stable")[:5], strict=True):
        assert float(share) == pytest.approx(probabilities[index], abs=2e-6)
        assert label == (ODD_LABELS[index] or "class 4")


def test_bad_pictures_end_the_program_with_an_error(
    models: dict[str, Model], tmp_path: Path, library: Path
) -> None:
    export(models["int8"], tmp_path / "owls.c", to="c")
    program = build(tmp_path / "owls.c", library, "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    for content in (
        *(b"", b"P6", b"P5 1 1 255\n\0", b"P6 2 2 255\nshort", b"P6 0 4 255\n", b"P6 -1 4 255\n"),
        *(b"P6 1 1 65535\n\0\0\0\0\0\0", b"P6 999999999 999999999 255\n", b"P6 # never ends"),
    ):
        (tmp_path / "bad.ppm").write_bytes(content)
        done = subprocess.run([program, tmp_path / "bad.ppm"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "") and "usage" in done.stderr, content
    (tmp_path / "good.ppm").write_bytes(b"P6\n# a remark\n1 1\n255\n\1\2\3")
    assert subprocess.run([program, tmp_path / "good.ppm"], capture_output=True).returncode == 0


def test_without_main_it_is_a_part_of_another_program(
    models: dict[str, Model], tmp_path: Path, library: Path
) -> None:
    export(models["int8"], tmp_path / "owls.c", to="c")
    caller = """
    #include "owls.h"
    #include <stdio.h>
    int main(void) {
      static uint8_t pixels[8 * 8 * 3];
      float scores[OWLS_CLASSES], sum = 0;
      char error[200];
      mobilenet_model *model;
      if (owls_load(&model, 1, error, sizeof error) != 0) return 1;
      if (owls_classify(model, pixels, 8, 8, scores, error, sizeof error) != 0) return 2;
      for (int i = 0; i < OWLS_CLASSES; ++i) sum += scores[i];
      printf("%.4f %s", sum, owls_labels[7]);
      mobilenet_free(model);
      return 0;
    }
    """
    (tmp_path / "caller.c").write_text(caller)
    command = [
        "cc",
        *STRICT,
        "-DOWLS_NO_MAIN",
        "-c",
        "owls.c",
        "caller.c",
        "-I",
        str(PROJECT / "native" / "include"),
    ]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    link = ["c++", "owls.o", "caller.o", str(library), "-lpthread", "-lm", "-o", "caller"]
    assert subprocess.run(link, cwd=tmp_path, capture_output=True).returncode == 0
    assert subprocess.run([tmp_path / "caller"], capture_output=True, text=True).stdout == "1.0000 kind 7"


def test_what_is_no_program_is_refused(models: dict[str, Model], tmp_path: Path) -> None:
    for model, name, options, why in (
        (mobilenet.create("mobilefacenet"), "m.c", Options(), "this model's task is 'embed'"),
        (models["fp32"], "m.cc", Options(), "ends in .c"),
        (models["fp32"], "m.c", Options(batch=None), "takes one picture"),
        (mobilenet.create("mobilenet_v2", channels=5, resolution=32), "m.c", Options(), "classifies pictures"),
    ):
        with pytest.raises(ArgumentError, match=why):
            export(model, tmp_path / name, to="c", options=options)
    assert not list(tmp_path.iterdir())
