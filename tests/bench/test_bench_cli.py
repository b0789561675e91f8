"""The verbs `bench` and `plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mobilenet.cli import app
from mobilenet.errors import MobilenetError
from mobilenet.quantise.random import random_quantised_model

KEYS = {"runtime", "precision", "threads", "min_ms", "median_ms", "ratio_to_mobilenet"}


def command(*words: str) -> str:
    """What the command prints; its own errors are raised."""
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A float and an integer model file."""
    folder = tmp_path_factory.mktemp("models")
    models = random_quantised_model("mobilenet_v2", resolution=64, width_multiplier=0.35, pictures=1)
    paths = {"fp32": folder / "float.safetensors", "int8": folder / "int8.safetensors"}
    for path, model in zip(paths.values(), models, strict=True):
        model.save(path)
    return {name: str(path) for name, path in paths.items()}


def bench(*words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(command("bench", *words, "--rounds", "1", "--json"))
    assert all(row.keys() >= KEYS for row in rows)
    return rows


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_is_timed_in_its_own_precision(files: dict[str, str], precision: str) -> None:
    (row,) = bench(files[precision], "--vs", "")
    assert (row["runtime"], row["precision"], row["threads"]) == ("mobilenet", precision, 1)
    assert 0 < row["min_ms"] <= row["median_ms"] and row["ratio_to_mobilenet"] == 1
    assert row["peak_activation_bytes"] > 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_name_is_timed_beside_a_peer(precision: str) -> None:
    pytest.importorskip("onnxruntime", reason="needs mobilenet[bench]")
    pytest.importorskip("onnx", reason="needs mobilenet[bench]")
    rows = bench("mobilenet_v2", "--resolution", "64", "--precision", precision, "--vs", "onnxruntime")
    assert [row["runtime"] for row in rows] == ["mobilenet", "onnxruntime"]
    assert rows[1]["reason"] == "" and rows[1]["version"]
    assert rows[1]["ratio_to_mobilenet"] == pytest.approx(rows[1]["min_ms"] / rows[0]["min_ms"])


def test_a_peer_without_the_precision_is_listed() -> None:
    words = ("mobilenet_v1", "--width", "0.25", "--resolution", "64", "--precision", "int8", "--vs", "torch")
    rows = bench(*words)
    assert rows[1]["runtime"] == "torch" and rows[1]["min_ms"] is None and rows[1]["reason"]


def test_standard_output_is_json_alone_whatever_peers_print(files: dict[str, str]) -> None:
    pytest.importorskip("MNN", reason="needs mobilenet[bench]")
    words = ["bench", files["fp32"], "--vs", "mnn,litert", "--rounds", "1", "--json"]
    done = subprocess.run([sys.executable, "-m", "mobilenet", *words], capture_output=True, text=True, check=True)
    assert [row["runtime"] for row in json.loads(done.stdout)] == ["mobilenet", "mnn", "litert"]


def test_the_table_names_runtimes_and_threads(files: dict[str, str]) -> None:
    text = command("bench", files["fp32"], "--vs", "", "--rounds", "1")
    assert "float.safetensors, 1×64×64×3, fp32, 1 thread" in text and "mobilenet" in text


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_plan_has_all_nodes_and_the_networks_arithmetic(files: dict[str, str], precision: str) -> None:
    plan = json.loads(command("plan", files[precision], "--threads", "1", "--json"))
    assert plan["threads"] == 1 and plan["arena_bytes"] > 0
    assert plan["macs"] == sum(step["macs"] for step in plan["steps"]) > 1_000_000
    assert plan["steps"] and all(step["kernel"] for step in plan["steps"])


def test_a_plan_follows_the_resolution(files: dict[str, str]) -> None:
    small, large = (
        json.loads(command("plan", files["fp32"], "--resolution", side, "--json")) for side in ("64", "128")
    )
    assert 3 * small["macs"] < large["macs"] < 4.1 * small["macs"]


def test_a_float_file_can_be_planned_in_integers(files: dict[str, str]) -> None:
    text = command("plan", files["fp32"], "--precision", "int8")
    assert "multiply-accumulates" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bench", "mobilenet_v9"), "mobilenet_v9"),
        (("bench", "mobilenet_v1", "--precision", "fp8"), "accepted are fp32, bf16, int8"),
        (("bench", "mobilenet_v1", "--vs", "tensorrt"), "unknown runtime 'tensorrt'"),
        (("bench", "mobilenet_v1", "--threads", "0", "--vs", ""), "threads is 0"),
        (("bench", "mobilenet_v1", "--rounds", "0", "--vs", ""), "at least 1"),
        (("plan", "mobilenet_v1", "--precision", "fp8"), "accepted are fp32, bf16, int8"),
        (("plan", "no_such_network"), "no_such_network"),
    ],
)
def test_impossible_words_are_named(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(MobilenetError, match=message):
        command(*words)


def test_a_missing_peer_leaves_the_command_alone(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilenet.bench.runtimes import Runtime

    monkeypatch.setattr(Runtime, "installed", property(lambda self: self.name == "mobilenet"))
    rows = bench(files["fp32"])
    assert all("pip install 'mobilenet[" in row["reason"] for row in rows[1:]) and len(rows) == 7


def test_the_model_file_is_not_changed(files: dict[str, str]) -> None:
    before = Path(files["fp32"]).read_bytes()
    bench(files["fp32"], "--vs", "", "--resolution", "96")
    assert Path(files["fp32"]).read_bytes() == before
