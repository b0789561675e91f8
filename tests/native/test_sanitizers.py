"""The native tests in programs that check themselves while they run: every access to memory and every undefined
operation (AddressSanitizer, UndefinedBehaviorSanitizer), every unordered access of two threads (ThreadSanitizer).

With AddressSanitizer the engine also closes its arena but for the buffers that a step names: native/src/poison.h.
"""

from __future__ import annotations

import pytest
from native_build import build, compiler_with, run
from native_models import write_edges, write_members

pytestmark = pytest.mark.slow
MEMORY_TESTS = ("test_file", "test_json", "test_memory", "test_threads", "test_engine")


def program_folder(pytestconfig, sanitize, targets):
    compiler = compiler_with(f"-fsanitize={sanitize}")
    if compiler is None:
        pytest.skip(f"no compiler here has -fsanitize={sanitize}")
    folder = pytestconfig.cache.mkdir(f"native-{sanitize.partition(',')[0]}")
    return build(folder, targets, compiler=compiler, sanitize=sanitize)


@pytest.fixture(scope="module")
def checked(pytestconfig):
    return program_folder(pytestconfig, "address,undefined", MEMORY_TESTS)


@pytest.fixture(scope="module")
def raced(pytestconfig):
    return program_folder(pytestconfig, "thread", ("test_threads",))


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    return write_members(tmp_path_factory.mktemp("members"))


@pytest.mark.parametrize("name", ["test_file", "test_json", "test_memory", "test_threads"])
def test_memory(checked, name):
    run(checked / name)


def test_memory_of_the_family(checked, members):
    run(checked / "test_engine", *members)


def test_memory_of_graphs_at_their_edges(checked, tmp_path):
    run(checked / "test_engine", *write_edges(tmp_path))


def test_threads(raced, members):
    run(raced / "test_threads", *(path for path in members if path.name.startswith("mobilenet_v2")))
