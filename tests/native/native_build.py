"""Builds the tests and fuzzers of native/ with CMake, into a folder that pytest keeps: the next time only what has
changed is compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
COMPILERS = ("clang++", "clang++-19", "clang++-18", "clang++-17", "clang++-16", "clang++-15", "clang++-14", "g++")
# An environment in which a sanitizer's finding ends the program.
STRICT = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


@cache
def compiler_with(flags, names=COMPILERS):
    """The first compiler that links and starts a program with these flags, or None."""
    for name in filter(shutil.which, names):
        program = "int main() { return 0; }"
        if "fuzzer" in flags:
            program = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }'
        compiled = [name, "-x", "c++", "-", flags, "-o", os.devnull]
        if subprocess.run(compiled, input=program, text=True, capture_output=True).returncode == 0:
            return name
    return None


def build(folder, targets, *, compiler, sanitize="", fuzz=False, flags=""):
    """Compiles `targets` with little optimisation and returns where the programs are; skips without CMake."""
    if not shutil.which("cmake"):
        pytest.skip("cmake is not installed: native tests are not built")
    if sanitize.startswith("address") and "clang" in compiler:  # checks as calls: a third of the time to compile
        flags += " -mllvm -asan-instrumentation-with-call-threshold=0 -Wno-unused-command-line-argument"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    configure = ["cmake", "-S", PROJECT, "-B", folder, *generator, f"-DCMAKE_CXX_COMPILER={compiler}",
                 "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1 {flags}", "-DMOBILENET_TESTS=ON",
                 f"-DMOBILENET_SANITIZE={sanitize}", f"-DMOBILENET_FUZZ={'ON' if fuzz else 'OFF'}"]  # fmt: skip
    jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for command in (configure, ["cmake", "--build", folder, "--parallel", str(jobs), "--target", *targets]):
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-6000:]
    return Path(folder) / "native"


def run(program, *words, timeout=600, env=None):
    """Runs a native test; its last output is the message if it fails."""
    done = subprocess.run(
        [program, *map(str, words)],
        env={**os.environ, **STRICT, **(env or {})},
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{Path(program).name} ends with {done.returncode}:\n{done.stdout[:6000]}"
    return done.stdout
