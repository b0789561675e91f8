"""The small parts of the loop: the average of the weights, statistics, states on the disk, signals, progress."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from mobilenet.errors import TrainingError  # noqa: E402
from mobilenet.family.initialise import initialise  # noqa: E402
from mobilenet.family.names import build  # noqa: E402
from mobilenet.learn.average import WeightAverage  # noqa: E402
from mobilenet.learn.checkpoint import (  # noqa: E402
    explained,
    load_optimizer_tensors,
    load_state,
    optimizer_tensors,
    save_state,
)
from mobilenet.learn.evaluate import score  # noqa: E402
from mobilenet.learn.interrupt import Stopped, StopSignals  # noqa: E402
from mobilenet.learn.loop import shorten_memory  # noqa: E402
from mobilenet.learn.options import TrainOptions  # noqa: E402
from mobilenet.learn.progress import Reporter  # noqa: E402
from mobilenet.learn.schedule import make_optimizer  # noqa: E402
from mobilenet.learn.task import Score  # noqa: E402
from mobilenet.run.torch_module import GraphModule  # noqa: E402
from mobilenet.tasks.metrics import softmax  # noqa: E402


def small_module() -> GraphModule:
    graph = build("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3)
    return GraphModule.from_weights(graph, initialise(graph, 0))


def test_the_average_follows_weights_and_statistics() -> None:
    module = small_module()
    average = WeightAverage(module, decay=0.5)
    names = ("classifier.weight", "stem.batch_norm.variance")
    expected = {name: module.state_dict()[name].clone() for name in names}
    for step in range(12):
        with torch.no_grad():
            for value in module.state_dict().values():
                value.add_(step + 1)
        average.update(module)
        decay = min(0.5, (1 + step) / (10 + step))
        for name in names:
            expected[name] = decay * expected[name] + (1 - decay) * module.state_dict()[name]
    for name in names:
        torch.testing.assert_close(average.module.state_dict()[name], expected[name])
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_statistics_follow_within_a_short_epoch_but_not_faster_than_needed() -> None:
    def momenta(steps: int, module: GraphModule) -> set[float]:
        shorten_memory(module, steps)
        return {norm.momentum for norm in module.batch_norms().values()}

    slow = min(norm.momentum for norm in small_module().batch_norms().values())
    assert slow < 0.05
    assert momenta(20, small_module()) == {0.1}
    assert momenta(80, small_module()) == {0.05}
    assert min(momenta(100_000, small_module())) == slow
    frozen = small_module()
    frozen.freeze(node.name for node in frozen.graph.nodes)
    assert momenta(20, frozen) == set()


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(float("nan"))}
    save_state(tmp_path / "s", tensors, {"epoch": 3, "name": "é"})
    back, values = load_state(tmp_path / "s")
    torch.testing.assert_close(back["a"], tensors["a"])
    assert back["b"].isnan()
    assert values["epoch"] == 3
    assert values["name"] == "é"
    assert b"pickle" not in (tmp_path / "s").read_bytes()


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
def test_an_optimizer_goes_on_as_if_nothing_had_happened(name: str) -> None:
    options = TrainOptions("x", optimizer=name).filled()

    def step(module: GraphModule, optimizer: Any, number: int) -> None:
        torch.manual_seed(number)
        module.train()(torch.randn(4, 32, 32, 3))["logits"].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    one = small_module()
    first = make_optimizer(one.named_parameters(), one.graph, options)
    step(one, first, 0)
    state = optimizer_tensors(first, {p: n for n, p in one.named_parameters()})
    two = GraphModule.from_weights(one.graph, one.to_weights())
    second = make_optimizer(two.named_parameters(), two.graph, options)
    load_optimizer_tensors(second, {p: n for n, p in two.named_parameters()}, state)
    for module, optimizer in ((one, first), (two, second)):
        step(module, optimizer, 1)
        step(module, optimizer, 2)
    for parameter, array in one.to_weights().items():
        np.testing.assert_array_equal(two.to_weights()[parameter], array, err_msg=parameter)


def test_a_state_of_another_network_is_refused() -> None:
    module = small_module()
    optimizer = make_optimizer(module.named_parameters(), module.graph, TrainOptions("x").filled())
    names = {p: n for n, p in module.named_parameters()}
    with pytest.raises(TrainingError, match="'elsewhere.weight/exp_avg', which belongs to no parameter"):
        load_optimizer_tensors(optimizer, names, {"elsewhere.weight/exp_avg": torch.zeros(1)})


@pytest.mark.parametrize("damage", [b"", b"\0" * 7, b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_damaged_states_are_errors_that_name_the_file(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "last.safetensors"
    with pytest.raises(TrainingError, match=r"last.safetensors"):
        load_state(path)
    path.write_bytes(damage)
    with pytest.raises(TrainingError, match=r"last.safetensors"):
        load_state(path)


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    """A real one: /dev/full answers every write with "no space left"."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(TrainingError, match="the plan could not be saved: the disk is full .*no earlier state"),
        explained("the plan", tmp_path / "none"),
    ):
        Path("/dev/full").write_bytes(b"x")


def test_scores_are_those_of_the_probabilities() -> None:
    generator = np.random.default_rng(0)
    logits = (generator.normal(0, 3, (50, 4)) + 100).astype(np.float32)
    labels = generator.integers(0, 4, 50)
    result = score(logits, labels)
    probabilities = softmax(logits.astype(np.float64))
    assert result.loss == pytest.approx(-np.log(probabilities[np.arange(50), labels]).mean(), rel=1e-5)
    assert result.figure == (logits.argmax(1) == labels).mean()
    assert Score(0.5, 1.0).beats(None)
    assert Score(0.5, 0.9).beats(Score(0.5, 1.0))
    assert not Score(0.5, 1.0).beats(Score(0.5, 1.0))
    assert Score(0.6, 9.0).beats(Score(0.5, 1.0))


def stuck(status: Any) -> None:
    """A process that never reaches a safe point, in one call of C code."""
    with StopSignals("farewell", patience=0.3):
        status.set()
        import ctypes

        ctypes.CDLL(None).sleep(60)
        ctypes.CDLL(None).sleep(60)


def test_a_process_that_is_stuck_leaves_all_the_same() -> None:
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    child = context.Process(target=stuck, args=(ready,))
    child.start()
    assert ready.wait(60)
    time.sleep(0.2)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)
    child.join(5)
    assert child.exitcode == 143


def test_a_safe_point_stops_only_after_a_signal() -> None:
    with StopSignals(patience=30) as signals:
        signals.check()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(Stopped):
            signals.check()
    assert signals.signal == signal.SIGINT


def test_progress_in_a_terminal_and_in_a_file() -> None:
    for terminal in (True, False):
        text = io.StringIO()
        events: list[dict[str, Any]] = []
        reporter = Reporter(listener=events.append, console=Console(file=text, force_terminal=terminal, width=100))
        with reporter.task("epoch 1/2", 100, 20) as advance:
            advance(30, loss=1.5)
            advance(50, loss=1.25)
        assert [event["done"] for event in events] == [50, 100]
        assert events[-1]["loss"] == 1.25
        assert ("img/s" in text.getvalue()) == terminal, "a short task is no line in a file"
