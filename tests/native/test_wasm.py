"""The engine in WebAssembly, built with emscripten and run in node through mobilenet.mjs, against the reference.

Skipped where there is no emcc, make or node; the build with relaxed vectors also where there is no clang++-16 and
wasm-ld-16. Builds are kept in build/tests, so that only what has changed is compiled again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cross_cases import MEMBERS, assert_answers, extreme_case
from hypothesis import HealthCheck, given, settings
from test_isas import Case, member, small_cases

from mobilenet.files.model_file import encode
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.run import reference

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "build" / "tests" / "web"
RUNNER = Path(__file__).resolve().parent / "web_runner.mjs"
MISSING = [name for name in ("emcc", "make", "node") if shutil.which(name) is None]
RELAXED_MISSING = [name for name in ("clang++-16", "wasm-ld-16") if shutil.which(name) is None]
MOST_BYTES = 500_000
SECONDS = 600

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} is not installed: no WebAssembly build"
)
RUN_SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def build(goal):
    words = ["make", "-j", str(os.cpu_count()), "-C", PROJECT / "native" / "web", f"OUT={BUILD}", goal]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "warning:" not in done.stderr, done.stderr
    return BUILD


@pytest.fixture(scope="session")
def module():
    """The folder of mobilenet.mjs and mobilenet.wasm."""
    return build("all")


@pytest.fixture(scope="session")
def relaxed_module():
    if RELAXED_MISSING:
        pytest.skip(f"{', '.join(RELAXED_MISSING)} is not installed: no build with relaxed vectors")
    folder = build("relaxed")
    if not ask(folder, BUILD / "probe.json", {"probe": True, "relaxed": True})["relaxed"]:
        pytest.skip("this node has no relaxed vectors")
    return folder


def ask(folder, path, request):
    """What the runner answers. Old nodes have relaxed vectors behind a flag, new ones do not know the flag."""
    path.write_text(json.dumps(request))
    flags = []
    if request.get("relaxed"):
        known = subprocess.run(["node", "--v8-options"], capture_output=True, text=True, check=True).stdout
        flags = [flag for flag in ["--experimental-wasm-relaxed-simd"] if flag in known]
    words = ["node", *flags, RUNNER, folder, path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answer(folder, place, case, runs=None, **request):
    """The raw outputs of a case, run as a batch unless `runs` says otherwise, and the runner's report."""
    files = {name: str(place / name) for name in ("model", "input", "output")}
    (place / "model").write_bytes(case.data)
    (place / "input").write_bytes(case.batch.tobytes())
    runs = runs or [{"batch": len(case.batch), "elements": case.batch.size}]
    report = ask(folder, place / "request.json", {**files, "runs": runs, **request})
    assert "error" not in report, report
    return (place / "output").read_bytes(), report


@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
@pytest.mark.parametrize(("name", "width", "resolution"), MEMBERS)
def test_family(module, tmp_path, name, width, resolution, integer):
    case = member(name, width, resolution, integer)
    found, report = answer(module, tmp_path, case)
    assert_answers(found, case, "wasm")
    assert report["isas"] == ["wasm", "generic"] and report["plan"]["isa"] == "wasm"
    assert report["after_free"] == "the model was freed"
    singles = [{"elements": case.batch[0].size}] * len(case.batch)
    one_by_one, _ = answer(module, tmp_path, case, singles)
    if len(case.wanted) == 1:  # else outputs alternate
        assert one_by_one == found


@pytest.mark.parametrize("integer", [False, True], ids=["float", "integer"])
def test_relaxed(relaxed_module, tmp_path, integer):
    case = member("mobilenet_v3_large", 0.6, (64, 64), integer)
    found, report = answer(relaxed_module, tmp_path, case, relaxed=True)
    assert_answers(found, case, "wasm_relaxed")
    assert report["isas"][0] == "wasm_relaxed"


@pytest.mark.parametrize("depthwise", [False, True], ids=["conv", "depthwise"])
def test_the_largest_products(module, tmp_path, depthwise):
    case = extreme_case(depthwise)
    assert_answers(answer(module, tmp_path, case)[0], case, "wasm")


@RUN_SETTINGS
@given(case=small_cases(integer=True))
def test_small_integer_graphs(module, tmp_path, case):
    assert_answers(answer(module, tmp_path, case)[0], case, "wasm")


@RUN_SETTINGS
@given(case=small_cases(integer=False))
def test_small_float_graphs(module, tmp_path, case):
    assert_answers(answer(module, tmp_path, case)[0], case, "wasm")


def test_other_resolutions(module, tmp_path):
    model = random_model("mobilenet_v2", width_multiplier=0.35, resolution=64)
    batch = random_batch(model, seed=3)
    larger = np.random.default_rng(4).uniform(-1, 1, (1, 96, 80, 3)).astype(np.float32)
    runs = [{"elements": batch.size}, {"height": 96, "width": 80, "elements": larger.size}] * 2
    both = np.concatenate([batch.ravel(), larger.ravel()] * 2)
    found, report = answer(module, tmp_path, Case(encode(model), both, {}), runs)
    assert report["errors"] == [""] * 4
    graph = model.graph.resized(96, 80)
    wanted = [reference.run(model.graph, model.weights, batch), reference.run(graph, model.weights, larger)]
    size = len(found) // 4
    for i in range(4):
        case = Case(b"", both, wanted[i % 2])
        assert_answers(found[i * size : (i + 1) * size], case, f"run {i}")


def test_inputs_are_checked(module, tmp_path):
    case = member("mobilenet_v1", 0.35, (64, 64), False)
    size = case.batch[0].size
    runs = [{"elements": size - 1}, {"elements": size, "batch": 2}, {"elements": size, "height": -1, "width": 5}]
    _, report = answer(module, tmp_path, case, runs)
    assert f"{size - 1}" in report["errors"][0] and "Float32Array" in report["errors"][0]
    assert f"{2 * size}" in report["errors"][1]
    assert "-1" in report["errors"][2]


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_files(module, tmp_path, damage):
    data = member("mobilenet_v1", 0.35, (64, 64), False).data
    given = {"cut": data[:-7], "noise": b"\x00" * 64 + data[64:], "empty": b""}[damage]
    (tmp_path / "model").write_bytes(given)
    report = ask(module, tmp_path / "request.json", {"model": str(tmp_path / "model"), "runs": []})
    assert report["kind"] == "bad file" and report["error"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"isa": "avx2"}, "wasm"),
        ({"options": {"precision": "fp8"}}, "fp32"),
        ({"options": {"precision": "bf16"}}, "bf16"),
        ({"options": {"thread": 2}}, "thread"),
        ({"options": {"memoryLimit": 1000}}, ""),
    ],
)
def test_options_are_checked(module, tmp_path, options, word):
    (tmp_path / "model").write_bytes(member("mobilenet_v1", 0.35, (64, 64), False).data)
    request = {"model": str(tmp_path / "model"), "runs": [], **options}
    report = ask(module, tmp_path / "request.json", request)
    assert word in report["error"] and report["kind"] in ("bad argument", "unsupported", "no memory")


def test_modules_are_small(module):
    assert (module / "mobilenet.wasm").stat().st_size <= MOST_BYTES


def test_the_relaxed_module_is_small(relaxed_module):
    assert (relaxed_module / "mobilenet-relaxed.wasm").stat().st_size <= MOST_BYTES
