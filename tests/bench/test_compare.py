"""Rows of a comparison: with runtimes made for the test, and with real peers where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilenet.bench import compare as module
from mobilenet.bench.compare import Row, activation_bytes, best_peer, compare
from mobilenet.bench.network import Network, find_network
from mobilenet.bench.runtimes import PEERS, RUNTIMES, Prepared, Runtime, Setting, Unavailable, find_runtimes
from mobilenet.errors import ArgumentError, MobilenetError
from mobilenet.run.reference import run

Prepare = Callable[[Network, Setting], Prepared]


@pytest.fixture(scope="module")
def network() -> Network:
    return find_network("mobilenet_v1", resolution=32, width=0.25)


@pytest.fixture(scope="module")
def larger() -> Network:
    """Large enough that rounding averages out: a network of few pixels is far off in bf16 and int8."""
    return find_network("mobilenet_v2", resolution=96)


def right(network: Network, setting: Setting) -> Prepared:
    answer = next(iter(run(*network.float_graph, network.batch).values()))
    return Prepared(lambda: answer, {"peak_activation_bytes": 1024})


def runtime(
    name: str, prepare: Prepare, *, module: str = "numpy", precisions: tuple[str, ...] = ("fp32",)
) -> Runtime:
    return Runtime(name, "numpy", module, "bench", precisions, prepare)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Stands in for the engine, with the reference's answer."""
    stand_in = runtime("mobilenet", right, precisions=("fp32", "bf16", "int8"))
    monkeypatch.setattr(module, "OURS", stand_in)
    return stand_in


def test_our_row_comes_first_and_its_ratio_is_one(network: Network, ours: Runtime) -> None:
    rows = compare(network, "fp32", peers=[runtime("peer", right)], rounds=1)
    assert [row.runtime for row in rows] == ["mobilenet", "peer"]
    assert rows[0].ratio_to_mobilenet == 1.0
    for row in rows:
        assert row.reason == "" and row.error == 0
        assert row.min_ms is not None and row.median_ms is not None and 0 < row.min_ms <= row.median_ms
        assert row.ratio_to_mobilenet == row.min_ms / (rows[0].min_ms or 0)
        assert row.peak_activation_bytes == 1024


def test_a_peer_that_cannot_is_listed_with_its_reason(network: Network, ours: Runtime) -> None:
    def unavailable(network: Network, setting: Setting) -> Prepared:
        raise Unavailable("has no such thing")

    def broken(network: Network, setting: Setting) -> Prepared:
        raise RuntimeError("first line\n  second line  \n")

    def silent(network: Network, setting: Setting) -> Prepared:
        raise ValueError

    def wrong(network: Network, setting: Setting) -> Prepared:
        answer = -right(network, setting).run()
        return Prepared(lambda: answer)

    def not_a_number(network: Network, setting: Setting) -> Prepared:
        answer = right(network, setting).run() * np.float32("nan")
        return Prepared(lambda: answer)

    peers = {
        "unavailable": runtime("unavailable", unavailable),
        "broken": runtime("broken", broken),
        "silent": runtime("silent", silent),
        "wrong": runtime("wrong", wrong),
        "not_a_number": runtime("not_a_number", not_a_number),
        "absent": runtime("absent", right, module="no_module_of_this_name"),
        "other_precision": runtime("other_precision", right, precisions=("bf16",)),
    }
    rows = {row.runtime: row for row in compare(network, "fp32", peers=peers.values(), rounds=1)}
    assert rows.keys() == {"mobilenet", *peers}
    assert rows["unavailable"].reason == "has no such thing"
    assert rows["broken"].reason == "RuntimeError: second line"
    assert rows["silent"].reason == "ValueError"
    assert rows["wrong"].reason == "gives another answer (2 off)"
    assert "another answer" in rows["not_a_number"].reason and rows["not_a_number"].error is None
    assert "pip install 'mobilenet[bench]'" in rows["absent"].reason
    assert rows["other_precision"].reason == "has no fp32 here"
    for name in peers:
        assert rows[name].min_ms is None and rows[name].ratio_to_mobilenet is None


def test_our_own_failure_is_an_error_not_a_row(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: Network, setting: Setting) -> Prepared:
        raise MobilenetError("no kernel")

    def wrong(network: Network, setting: Setting) -> Prepared:
        return Prepared(lambda: np.zeros(1000, np.float32))

    for prepare, message in ((broken, "no kernel"), (wrong, "1 off the reference")):
        monkeypatch.setattr(module, "OURS", runtime("mobilenet", prepare))
        with pytest.raises(MobilenetError, match=message):
            compare(network, "fp32", rounds=1)


def test_peers_can_be_timed_in_several_precisions(network: Network, ours: Runtime) -> None:
    peer = runtime("peer", right, precisions=("fp32", "int8"))
    rows = compare(network, "int8", peers=[peer], peer_precisions=("int8", "fp32"), rounds=1)
    assert [(row.runtime, row.precision) for row in rows] == [
        ("mobilenet", "int8"),
        ("peer", "int8"),
        ("peer", "fp32"),
    ]


def test_the_best_peer_is_the_fastest_that_was_timed() -> None:
    rows = [
        Row("mobilenet", "", "fp32", 1, min_ms=1.0),
        Row("slow", "", "fp32", 1, min_ms=3.0),
        Row("fast", "", "fp32", 1, min_ms=2.0),
        Row("missing", "", "fp32", 1, reason="not installed"),
    ]
    best = best_peer(rows)
    assert best is not None and best.runtime == "fast"
    assert best_peer(rows[:1]) is None


def test_memory_is_the_peak_that_the_plan_states() -> None:
    assert activation_bytes({"peak_activation_bytes": 15, "arena_bytes": 10, "scratch_bytes": 3}) == 15
    assert activation_bytes({}) == 0


@pytest.mark.parametrize("precision", ["fp16", "", "INT8"])
def test_an_unknown_precision_is_named(network: Network, precision: str) -> None:
    with pytest.raises(ArgumentError, match="accepted are fp32, bf16, int8"):
        compare(network, precision, rounds=1)


def test_names_of_peers() -> None:
    assert [peer.name for peer in find_runtimes(None)] == list(PEERS)
    assert [peer.name for peer in find_runtimes(" openvino,litert,openvino ")] == ["openvino", "litert"]
    assert find_runtimes("") == []
    with pytest.raises(ArgumentError, match="unknown runtime 'onxruntime'; known are onnxruntime"):
        find_runtimes("onxruntime")


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, precision) for name in PEERS for precision in RUNTIMES[name].precisions],
)
def test_every_installed_peer_gives_the_networks_answer(
    name: str, precision: str, larger: Network, ours: Runtime
) -> None:
    if not RUNTIMES[name].installed:
        pytest.skip(f"{name} is not installed")
    (_, row) = compare(larger, precision, peers=[RUNTIMES[name]], rounds=1)
    if precision == "bf16" and "no bf16" in row.reason:
        pytest.skip(f"{name} {row.reason}")
    assert row.reason == "" and row.version
    assert row.error is not None and row.error < {"fp32": 1e-4, "bf16": 0.1, "int8": 0.4}[precision]


@pytest.mark.parametrize("name", [name for name in PEERS if name != "ncnn"])
def test_a_batch_of_two_gives_two_answers(name: str, ours: Runtime) -> None:
    if not RUNTIMES[name].installed:
        pytest.skip(f"{name} is not installed")
    pair = find_network("mobilenet_v3_small", resolution=32, width=0.35, batch_size=2)
    (_, row) = compare(pair, "fp32", peers=[RUNTIMES[name]], rounds=1)
    assert row.reason == "" and row.error is not None and row.error < 1e-4


def test_a_converter_that_fails_or_hangs_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilenet.bench import converted

    with pytest.raises(Unavailable, match="its converter failed: ValueError: no such layer"):
        converted._convert("raise ValueError('no such layer')", [], tmp_path, tmp_path / "out")
    with pytest.raises(Unavailable, match="its converter failed"):
        converted._convert("pass", [], tmp_path, tmp_path / "never written")
    monkeypatch.setattr(converted, "CONVERSION_SECONDS", 0.1)
    with pytest.raises(Unavailable, match="did not end within"):
        converted._convert("import time; time.sleep(60)", [], tmp_path, tmp_path / "out")
