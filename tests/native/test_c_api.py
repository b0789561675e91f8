"""The C interface as a C program sees it, and the command that sits on it; both are built by CMake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mobilenet
from mobilenet.files.model_file import encode
from mobilenet.run import reference

PROJECT = Path(__file__).resolve().parents[2]

C_PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include "mobilenet.h"

static int expect(const char *what, int code, int wanted, const char *error, const char *part) {
  if (code == wanted && strstr(error, part)) return 0;
  printf("%s: code %d, wanted %d: %s\n", what, code, wanted, error);
  return 1;
}

int main(int count, char **words) {
  static char bytes[1 << 24];
  char error[200], tiny[4], *json = NULL;
  mobilenet_model *model = NULL;
  mobilenet_tensor tensor;
  mobilenet_options options = {0};
  FILE *file = fopen(words[count - 1], "rb");
  size_t size = fread(bytes, 1, sizeof bytes, file);
  int wrong = 0;
  fclose(file);
#define LOAD mobilenet_load(bytes, size, &options, &model, error, sizeof error)
  wrong += expect("size", LOAD, MOBILENET_BAD_ARGUMENT, error, "sizeof(mobilenet_options)");
  options.size = sizeof options;
  options.precision = 7;
  wrong += expect("precision", LOAD, MOBILENET_BAD_ARGUMENT, error, "precision 7");
  options.precision = MOBILENET_FP32;
  options.threads = -1;
  wrong += expect("threads", LOAD, MOBILENET_BAD_ARGUMENT, error, "-1 threads");
  options.threads = 2;
  options.isa = "z80";
  wrong += expect("isa", LOAD, MOBILENET_BAD_ARGUMENT, error, "z80");
  options.isa = NULL;
  options.memory_limit = 1000;
  wrong += expect("memory", LOAD, MOBILENET_NO_MEMORY, error, "");
  options.memory_limit = 0;
  options.mac_limit = 1;
  wrong += LOAD == MOBILENET_OK;
  options.mac_limit = 0;
  wrong += expect("bytes", mobilenet_load(NULL, 3, &options, &model, error, sizeof error), MOBILENET_BAD_ARGUMENT,
                  error, "bytes is NULL");
  wrong += expect("cut", mobilenet_load(bytes, size - 1, &options, &model, error, sizeof error),
                  MOBILENET_BAD_FILE, error, "");
  wrong += model != NULL;
  mobilenet_load(bytes, 5, NULL, &model, tiny, sizeof tiny);
  wrong += strlen(tiny) != sizeof tiny - 1;
  wrong += mobilenet_load(bytes, 5, NULL, &model, NULL, 0) != MOBILENET_BAD_FILE;
  wrong += expect("load", LOAD, MOBILENET_OK, error, "");
  wrong += mobilenet_input_count(model) != 1 || mobilenet_output_count(model) != 2;
  wrong += mobilenet_input(model, 0, 0, 0, &tensor, error, sizeof error) != MOBILENET_OK;
  wrong += tensor.rank != 3 || tensor.shape[0] != 64 || tensor.dtype != MOBILENET_FLOAT32;
  wrong += mobilenet_input(model, 0, 96, 80, &tensor, error, sizeof error) != MOBILENET_OK;
  wrong += tensor.shape[0] != 96 || tensor.shape[1] != 80 || strcmp(tensor.name, "image") != 0;
  wrong += expect("index", mobilenet_output(model, 2, 0, 0, &tensor, error, sizeof error), MOBILENET_BAD_ARGUMENT,
                  error, "no output 2");
  wrong += expect("side", mobilenet_output(model, 0, 5, 0, &tensor, error, sizeof error), MOBILENET_BAD_ARGUMENT,
                  error, "5 x 0");
  wrong += expect("batch", mobilenet_run(model, 0, 0, -1, NULL, NULL, error, sizeof error), MOBILENET_BAD_ARGUMENT,
                  error, "batch");
  wrong += expect("inputs", mobilenet_run(model, 0, 0, 1, NULL, NULL, error, sizeof error),
                  MOBILENET_BAD_ARGUMENT, error, "inputs is NULL");
  wrong += mobilenet_run(model, 0, 0, 0, NULL, NULL, error, sizeof error) != MOBILENET_OK;
  wrong += mobilenet_plan(model, 0, 0, &json, error, sizeof error) != MOBILENET_OK || json[0] != '{';
  mobilenet_release(json);
  mobilenet_release(NULL);
  mobilenet_free(model);
  mobilenet_free(NULL);
  return wrong;
}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of library and command by CMake; skips where there is no CMake or compiler."""
    cmake = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")
    ninja = shutil.which("ninja", path=str(Path(sys.executable).parent)) or shutil.which("ninja")
    if not cmake or not ninja or not shutil.which("c++"):
        pytest.skip("cmake, ninja or a C++ compiler is missing")
    folder = PROJECT / "build" / "tests"  # kept, so that it is compiled once
    words = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    words += ["-DMOBILENET_TOOLS=ON", "-DMOBILENET_TESTS=ON"]
    for command in ([cmake, "-S", PROJECT, "-B", folder, *words], [cmake, "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "native"


@pytest.fixture(scope="module")
def model() -> mobilenet.Model:
    return mobilenet.create("mobilenet_v2", width_multiplier=0.35, resolution=64, classes=7, seed=1)


@pytest.fixture(scope="module")
def file(model: mobilenet.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("c_api") / "m.safetensors"
    path.write_bytes(encode(model))
    return path


def command(build: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [build / "mobilenet-engine", *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )


def test_c_sees_codes_and_texts(build: Path, file: Path, tmp_path: Path) -> None:
    source = tmp_path / "main.c"
    source.write_text(C_PROGRAM)
    include = f"-I{PROJECT / 'native' / 'include'}"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["cc", *strict, include, "-c", source, "-o", tmp_path / "main.o"], check=True)
    library = build / "libmobilenet.a"
    subprocess.run(["c++", tmp_path / "main.o", library, "-pthread", "-o", tmp_path / "main"], check=True)
    done = subprocess.run([tmp_path / "main", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_runs_what_python_runs(
    build: Path, file: Path, model: mobilenet.Model, tmp_path: Path
) -> None:
    batch = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
    batch.tofile(tmp_path / "in")
    done = command(build, "run", file, "--batch", 2, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "out", np.float32)
    expected = reference.run(model.graph, model.weights, batch)
    logits = expected["logits"].ravel()
    assert np.abs(found[: logits.size] - logits).max() <= 1e-4 * np.abs(logits).max()
    assert found.size == sum(array.size for array in expected.values())


def test_the_command_describes_and_times(build: Path, file: Path) -> None:
    assert command(build, "isas").stdout.strip().split(",")[-1] == "generic"
    info = command(build, "info", file, "--size", "96x80").stdout.splitlines()
    assert info == [
        "input image: float32 (96, 80, 3)", "output logits: float32 (7)", "output embedding: float32 (1280)"
    ]  # fmt: skip
    assert json.loads(command(build, "plan", file, "--threads", 1).stdout)["steps"]
    assert command(build, "time", file, "--rounds", 3).stdout.startswith("min_ms ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "missing.safetensors"], "missing.safetensors: cannot be read"),
        (["run", "FILE", "--isa", "z80"], "z80"),
        (["run", "FILE", "--size", "96"], "HEIGHTxWIDTH"),
        (["run", "FILE", "--batch", "0"], "--batch"),
        (["run", "FILE", "--colour", "red"], "unknown option --colour"),
        (["run", "FILE", "--input", "FILE"], "the inputs take 49152"),
        (["run", __file__], "test_c_api.py: is no model file"),
    ],
)
def test_the_command_says_what_is_wrong(build: Path, file: Path, words: list[str], message: str) -> None:
    done = command(build, *[file if word == "FILE" else word for word in words])
    assert done.returncode == 1
    assert message in done.stderr
    assert command(build).returncode == 2


def test_native_tests_pass(build: Path) -> None:
    ctest = shutil.which("ctest", path=str(Path(sys.executable).parent)) or shutil.which("ctest")
    assert ctest
    done = subprocess.run(
        [ctest, "--test-dir", build.parent, "--output-on-failure"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "No tests were found" not in done.stdout + done.stderr
