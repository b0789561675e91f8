"""The fuzzers of native/fuzz for a limited time, from the seeds that native/fuzz/write_seeds.py writes: no finds.

`MOBILENET_FUZZ_SECONDS` is how long in all, shared by the instruction sets that are here; default 20.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from native_build import COMPILERS, PROJECT, build, compiler_with, run

pytestmark = pytest.mark.slow
SECONDS = int(os.environ.get("MOBILENET_FUZZ_SECONDS", "20"))
SANITIZE = "address,undefined"


@pytest.fixture(scope="module")
def fuzzers(pytestconfig):
    pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")
    clangs = tuple(name for name in COMPILERS if "clang" in name)
    compiler = compiler_with(f"-fsanitize=fuzzer,{SANITIZE}", clangs)
    if compiler is None:
        pytest.skip("no clang here has -fsanitize=fuzzer")
    folder = pytestconfig.cache.mkdir("native-fuzz")
    return build(folder, ["fuzz_load"], compiler=compiler, sanitize=SANITIZE, fuzz=True)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    subprocess.run([sys.executable, PROJECT / "native/fuzz/write_seeds.py", folder], check=True)
    return folder


def isas():
    try:
        from mobilenet.run.engine import isas as names
    except ImportError:
        return ("generic",)
    return names()


@pytest.mark.parametrize("isa", isas())
def test_no_finds(fuzzers, seeds, tmp_path, isa):
    seconds = max(2, SECONDS // len(isas()))
    (tmp_path / "corpus").mkdir()
    said = run(
        fuzzers / "fuzz_load",
        f"-dict={PROJECT / 'native/fuzz/model.dict'}",
        f"-max_total_time={seconds}",
        f"-artifact_prefix={tmp_path}/",
        "-print_final_stats=1",
        tmp_path / "corpus",
        seeds,
        timeout=seconds + 120,
        env={"MOBILENET_ISA": isa},
    )
    assert "stat::number_of_executed_units" in said
