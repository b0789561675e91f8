"""The native tests as a plain build runs them, compiled without a warning by every compiler that is here."""

from __future__ import annotations

import shutil

import pytest
from native_build import build, run
from native_models import write_members

pytestmark = pytest.mark.slow
TESTS = ("test_file", "test_json", "test_memory", "test_threads", "test_engine")
NAMES = [name for name in ("g++", "clang++", "clang++-16") if shutil.which(name)]


@pytest.mark.parametrize(
    "compiler", NAMES or [pytest.param("", marks=pytest.mark.skip("no g++ or clang++ is here"))]
)
def test_all(pytestconfig, tmp_path, compiler):
    folder = pytestconfig.cache.mkdir(f"native-{compiler}")
    programs = build(folder, TESTS, compiler=compiler, flags="-Werror")
    models = write_members(tmp_path)
    for name in TESTS:
        run(programs / name, *(models if name == "test_engine" else ()))
