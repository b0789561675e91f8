"""The engine on 64-bit ARM, built with a cross compiler and run under qemu, against the reference.

Skipped where there is no aarch64-linux-gnu-g++, cmake or qemu-aarch64. The build is kept in build/tests, so that
only what has changed is compiled again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cross_cases import MEMBERS, assert_answers, extreme_case
from hypothesis import HealthCheck, given, settings
from test_isas import member, small_cases

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "build" / "tests" / "aarch64"
NEEDED = ("aarch64-linux-gnu-g++", "cmake", "qemu-aarch64")
ISAS = ["neon", "neondot"]
SECONDS = 600
MISSING = [name for name in NEEDED if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} is not installed: no ARM build")
RUN_SETTINGS = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def succeed(words, **options):
    done = subprocess.run(words, capture_output=True, timeout=SECONDS, check=False, **options)
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(map(str, words))}:\n{text[-4000:]}"
    return text


@pytest.fixture(scope="session")
def command():
    """The engine's command for ARM."""
    options = ["-DMOBILENET_TOOLS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={PROJECT / 'native' / 'cmake' / 'aarch64.cmake'}"
    succeed(["cmake", "-S", PROJECT, "-B", BUILD, toolchain, *options])
    text = succeed(["cmake", "--build", BUILD, "--target", "mobilenet-engine", "--parallel", str(os.cpu_count())])
    assert "warning" not in text, text
    return BUILD / "native" / "mobilenet-engine"


def emulated(command, *words, cpu="max"):
    root = ["-L", "/usr/aarch64-linux-gnu"]
    return subprocess.run(
        ["qemu-aarch64", *root, "-cpu", cpu, command, *words], capture_output=True, timeout=SECONDS, check=False
    )


def answer(command, folder, case, isa, threads=1):
    """The raw outputs of a case."""
    paths = {name: folder / name for name in ("model", "input", "output")}
    paths["model"].write_bytes(case.data)
    paths["input"].write_bytes(case.batch.tobytes())
    words = ["run", paths["model"], "--isa", isa, "--threads", threads, "--batch", len(case.batch)]
    words += ["--input", paths["input"], "--output", paths["output"]]
    done = emulated(command, *map(str, words))
    assert done.returncode == 0, done.stderr.decode()
    return paths["output"].read_bytes()


def test_the_best_that_the_processor_has(command):
    """A processor without dot products is never given a kernel that has them."""
    assert emulated(command, "isas", cpu="max").stdout.decode().split()[0].startswith("neondot")
    old = emulated(command, "isas", cpu="cortex-a53").stdout.decode()
    assert "neon" in old and "neondot" not in old


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
@pytest.mark.parametrize(("name", "width", "resolution"), MEMBERS)
def test_family(command, tmp_path, name, width, resolution, integer, isa):
    case = member(name, width, resolution, integer)
    found = answer(command, tmp_path, case, isa)
    assert_answers(found, case, isa)
    assert answer(command, tmp_path, case, isa, threads=3) == found


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("depthwise", [False, True], ids=["conv", "depthwise"])
def test_the_largest_products(command, tmp_path, depthwise, isa):
    case = extreme_case(depthwise)
    assert_answers(answer(command, tmp_path, case, isa), case, isa)


@RUN_SETTINGS
@given(case=small_cases(integer=True))
def test_small_integer_graphs(command, tmp_path, case):
    for isa in ISAS:
        assert_answers(answer(command, tmp_path, case, isa), case, isa)


@RUN_SETTINGS
@given(case=small_cases(integer=False))
def test_small_float_graphs(command, tmp_path, case):
    assert_answers(answer(command, tmp_path, case, "neon"), case, "neon")
