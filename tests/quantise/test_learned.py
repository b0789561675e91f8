"""Quantisation-aware training: what is imitated is what the integers do, and training makes it better."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harmed import CLASSES, QUICK, harmed_model

import mobilenet
from mobilenet.errors import ArgumentError, BudgetError, MissingExtraError, TrainingError
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import (
    Activation,
    Add,
    AveragePool,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    MaxPool,
    Mean,
    Mul,
    Pad,
    Resize,
)
from mobilenet.quantise.budget import Prepared
from mobilenet.quantise.lower import lower
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.outcome import quantise_within
from mobilenet.quantise.random import random_batch, random_model
from mobilenet.quantise.ranges import Range, measure_ranges
from mobilenet.run import reference

torch = pytest.importorskip("torch", reason="the train extra is not installed")
from mobilenet.quantise.learned import LearnedIntegers  # noqa: E402 - after the skip
from mobilenet.quantise.retrain import LOST, Lesson, loss_of, rate_for, retrain, scoring  # noqa: E402
from mobilenet.run.torch_fake import requantise, scale_of, weight_steps  # noqa: E402


def prepared_model(name: str, **options: Any) -> tuple[Prepared, np.ndarray]:
    """A network with random weights and narrowed ranges, so that something is clipped, and four pictures."""
    model = random_model(name, **options)
    graph, weights = lower(model.graph, model.weights)
    batch = random_batch(model, count=4)
    return Prepared(graph, weights, narrowed(measure_ranges(graph, weights, [batch])), "min-max"), batch


def narrowed(ranges: dict[str, Range]) -> dict[str, Range]:
    return {name: Range(0.9 * low, 0.8 * high) for name, (low, high) in ranges.items()}


def moved(module: LearnedIntegers, by: float = 0.05) -> None:
    """All that learns, elsewhere: as after training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += noise * (by if "log_" in name else 1.0)


def compare(module: LearnedIntegers, batch: np.ndarray) -> dict[str, np.ndarray]:
    """How many quanta each output is from the reference's integers of what the module exports."""
    graph, tensors = module.prepared().integers()
    kind = next(iter(graph.inputs.values()))
    from mobilenet.run.quanta import quantise_array

    assert kind.quantisation is not None
    integers = reference.run(graph, tensors, quantise_array(batch, kind.quantisation, kind.dtype))
    with torch.no_grad():
        found = module.eval()(torch.from_numpy(batch))
    apart = {}
    for name, value in found.items():
        own = graph.types[graph.outputs[name]].quantisation
        assert own is not None
        steps = value.numpy() / np.float32(own.scale) + own.zero_point
        apart[name] = np.abs(steps - integers[name])
    return apart


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "mobilenet_v3_small",
        "mobilenet_v4_conv_small",
        "mobilefacenet_s",
    ],
)
@pytest.mark.parametrize("trained", [False, True])
def test_the_exported_integers_are_those_that_were_imitated(name: str, trained: bool) -> None:
    prepared, batch = prepared_model(name, resolution=64)
    module = LearnedIntegers(prepared)
    if trained:
        moved(module)
    for output, apart in compare(module, batch).items():
        # Sums beyond 2^24 may round otherwise in float32 and float64; nothing else may differ.
        assert apart.max() <= 1.01, output
        assert (apart > 0.01).mean() < 0.01, output


def test_attention_is_imitated_too() -> None:
    """Softmax and matmul: torch's exponential is not the table's, so a few may differ by a little more."""
    prepared, batch = prepared_model("mobilenet_v4_hybrid_medium", resolution=32, width_multiplier=0.5)
    module = LearnedIntegers(prepared)
    moved(module, 0.01)
    for apart in compare(module, batch).values():
        assert np.median(apart) <= 1.01


def zoo() -> tuple[Graph, dict[str, np.ndarray]]:
    """Operators that few members of the family have, and a concat and a sum of differently scaled values."""
    around = (1, 1, 1, 1)
    nodes = (
        Node("stem", Conv((3, 3), padding=around, out_channels=6, bias=True, activation="relu6"), ("image",)),
        Node("pad", Pad((1, 0, 1, 0)), ("stem",)),
        Node("depth", DepthwiseConv((3, 3), (2, 2), padding=around, bias=True), ("pad",)),
        Node("curve", Activation("gelu"), ("depth",)),
        Node("biggest", MaxPool((2, 2), padding=(0, 1, 0, 1)), ("depth",)),
        Node("mixed", AveragePool((3, 3), padding=around, activation="relu"), ("curve",)),
        Node("side", Concat(), ("biggest", "mixed", "depth")),
        Node("point", Conv(out_channels=6), ("side",)),
        Node("sum", Add(activation="relu"), ("point", "biggest")),
        Node("gate_mean", Mean(keep_axes=True), ("sum",)),
        Node("gate", Conv(out_channels=6, bias=True), ("gate_mean",)),
        Node("gate_curve", Activation("hard_sigmoid"), ("gate",)),
        Node("gated", Mul(), ("sum", "gate_curve")),
        Node("larger", Resize((9, 9)), ("gated",)),
        Node("twice", Resize((18, 18), method="nearest"), ("larger",)),
        Node("mean", Mean(), ("twice",)),
        Node("logits", Dense(5), ("mean",)),
    )
    graph = Graph({"image": TensorType((8, 8, 3))}, nodes, {"logits": "logits", "map": "gated", "mean": "mean"})
    generator = np.random.default_rng(2)
    weights = {
        name: generator.standard_normal(parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters().items()
    }
    return graph, weights


@pytest.mark.parametrize("trained", [False, True])
def test_every_operator_is_imitated_exactly(trained: bool) -> None:
    graph, weights = lower(*zoo())
    batch = np.random.default_rng(0).standard_normal((6, 8, 8, 3)).astype(np.float32)
    prepared = Prepared(graph, weights, narrowed(measure_ranges(graph, weights, [batch])), "min-max")
    module = LearnedIntegers(prepared)
    if trained:
        moved(module)
    for output, apart in compare(module, batch).items():
        assert apart.max() <= 1.01, output
        assert (apart > 0.01).mean() <= 0.1, output  # interpolation is counted in floats


def test_a_trained_net_says_the_same_of_real_pictures_in_both_forms(shared: Path) -> None:
    """Real pictures, real weights: an ImageNet V1, all that learns moved at random."""
    model = mobilenet.load(shared / "weights" / "coral" / "mobilenet_v1_0.25_128_quant.tflite")
    from mobilenet.files.dequantise import to_float

    floats = to_float(model)
    pictures = sorted((shared / "data" / "clothing" / "test").rglob("*.jpg"))[::40]
    assert floats.preprocessing is not None
    batch = np.concatenate([floats.preprocessing(path)[None] for path in pictures])
    graph, weights = lower(floats.graph, floats.weights)
    module = LearnedIntegers(Prepared(graph, weights, measure_ranges(graph, weights, [batch]), "min-max"))
    moved(module, 0.02)
    apart = compare(module, batch)
    assert max(values.max() for values in apart.values()) <= 1.01
    prepared = module.prepared()
    quantised, tensors = prepared.integers()
    kind = next(iter(quantised.inputs.values()))
    from mobilenet.run.quanta import quantise_array

    assert kind.quantisation is not None
    answers = reference.run(quantised, tensors, quantise_array(batch, kind.quantisation, kind.dtype))
    with torch.no_grad():
        imitated = module(torch.from_numpy(batch))
    name = "logits" if "logits" in imitated else next(iter(imitated))
    assert (imitated[name].numpy().argmax(-1) == answers[name].argmax(-1)).all()


def test_gradients_of_rounding_are_those_of_the_ends_and_of_the_step() -> None:
    low, high = (torch.tensor(end, dtype=torch.float64, requires_grad=True) for end in (-1.0, 4.1))
    value = torch.tensor([-9.0, 9.0, 9.0, 1.003], requires_grad=True)
    scale = scale_of(low, high)
    (requantise(value, 1 / scale.scale, scale.bounds) * scale.scale).sum().backward()
    assert value.grad is not None and value.grad.tolist() == [0, 0, 0, 1]
    # Two are clipped above and one below; the last one's rounding error moves the step, (high - low) / 255.
    step = 5.1 / 255
    rest = (round(1.003 / step) - 1.003 / step) / 255
    assert float(high.grad) == pytest.approx(2 + rest, abs=1e-3)  # type: ignore[arg-type]
    assert float(low.grad) == pytest.approx(1 - rest, abs=1e-3)  # type: ignore[arg-type]


def test_weights_learn_their_scale() -> None:
    weight = torch.tensor([[0.3, -5.0], [0.2, 0.1]], requires_grad=True)
    scale = torch.tensor([[0.01], [0.01]], requires_grad=True)
    steps = weight_steps(weight, scale)
    assert steps.tolist() == [[30, -127], [20, 10]]
    (steps * scale).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[pytest.approx(1), 0], [1, 1]]
    assert scale.grad is not None
    assert scale.grad[0].item() == pytest.approx(-127, abs=1e-3)  # what is clipped wants a larger scale
    assert scale.grad[1].item() == pytest.approx(0, abs=1e-3)


def test_only_what_is_not_read_again_goes_without_rounding_in_training() -> None:
    prepared, batch = prepared_model("mobilenet_v3_small", resolution=64, classes=5)
    module = LearnedIntegers(prepared)
    assert module.only_outputs == {prepared.graph.outputs["logits"]}
    with torch.no_grad():
        raw = module.train()(torch.from_numpy(batch))["logits"]
        module.widen([torch.from_numpy(batch)])
        rounded = module.eval()(torch.from_numpy(batch))["logits"]
    span = module.prepared().ranges[prepared.graph.outputs["logits"]]
    assert span.high == pytest.approx(max(float(raw.max()), 0))
    assert (raw - rounded).abs().max() <= (span.high - span.low) / 255 * 0.51 + 1e-3
    assert not torch.equal(raw, rounded)


def lesson(folder: Path, epochs: int = 2, labels: bool = False, seed: int = 0) -> Lesson:
    pictures = sorted((folder / "classes").rglob("*.png"))
    known = [CLASSES.index(path.parent.name) for path in pictures] if labels else None
    rule = harmed_model().preprocessing
    assert rule is not None
    return Lesson(pictures, known, len(CLASSES) if labels else 1, "logits", rule, epochs, seed, 1)


def coarse_model() -> Prepared:
    """Every range six times as wide as it should be: five bits of eight are left, or fewer."""
    model = harmed_model(constant=1.0)
    graph, weights = lower(model.graph, model.weights)
    batch = random_batch(model, count=8)
    wide = {
        name: Range(40 * low, 40 * high) for name, (low, high) in measure_ranges(graph, weights, [batch]).items()
    }
    assert model.preprocessing is not None
    return Prepared(graph, weights, wide | {"image": Range(-1.0, 1.0)}, "min-max")


def distance(prepared: Prepared, folder: Path) -> float:
    """From the float network's scores on all pictures."""
    model = harmed_model(constant=1.0)
    assert model.preprocessing is not None
    paths = sorted((folder / "flat").glob("*.png"))[::4]
    batch = torch.from_numpy(np.concatenate([model.preprocessing(path)[None] for path in paths]))
    wanted = torch.from_numpy(reference.run(model.graph, model.weights, batch.numpy())["logits"])
    with torch.no_grad():
        found = LearnedIntegers(prepared).eval()(batch)["logits"]
    return float(loss_of(found, wanted, None, "logits"))


@pytest.mark.parametrize("labels", [False, True])
def test_training_brings_the_scores_nearer(photos: Path, labels: bool) -> None:
    start = coarse_model()
    seen: list[tuple[str, int, int]] = []
    weights = {name: array.copy() for name, array in start.weights.items()}
    learnt = retrain(start, start.weights, lesson(photos, 6, labels), lambda *words: seen.append(words))
    if not labels:  # labels are random here, so with them the scores move elsewhere
        assert distance(learnt, photos) < 0.6 * distance(start, photos)
    assert learnt.trained and "trained with rounding" in learnt.describe()
    assert seen[0] == ("training with rounding", 0, 72) and seen[-1] == ("training with rounding", 72, 72)
    assert all(np.array_equal(start.weights[name], array) for name, array in weights.items())


def test_a_network_that_lost_little_is_moved_little(photos: Path) -> None:
    assert rate_for(10.0) == rate_for(LOST) == 1
    assert 0 < rate_for(0.001) < 0.1 < rate_for(0.05) < 1
    assert rate_for(-1e-9) == 0  # a difference of sums may be
    start = coarse_model()
    quick, gentle = (
        retrain(start, start.weights, replace(lesson(photos, 1), rate=rate), lambda *_: None)
        for rate in (1.0, 0.01)
    )
    moves = [
        sum(float(np.abs(one.weights[name] - array).sum()) for name, array in start.weights.items())
        for one in (quick, gentle)
    ]
    assert 0 < moves[1] < 0.05 * moves[0]


def test_the_same_seed_learns_the_same(photos: Path) -> None:
    first, again, other = (
        retrain(coarse_model(), coarse_model().weights, lesson(photos, 1, seed=seed), lambda *_: None)
        for seed in (0, 0, 1)
    )
    assert first.ranges == again.ranges
    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert any(not np.array_equal(first.weights[name], other.weights[name]) for name in first.weights)


def test_training_that_diverges_is_an_error(photos: Path) -> None:
    start = coarse_model()
    bad = {name: np.full_like(array, np.nan) for name, array in start.weights.items()}
    with pytest.raises(TrainingError, match="diverged"):
        retrain(start, bad, lesson(photos, 1), lambda *_: None)


def test_classes_learn_by_their_scores() -> None:
    from mobilenet.graph.ops import ArgMax

    model = harmed_model()
    nodes = (*model.graph.nodes, Node("named", ArgMax(), ("logits",), "int64"))
    graph = Graph(model.graph.inputs, nodes, {"classes": "named"})
    prepared = Prepared(graph, model.weights, {}, "min-max")
    assert scoring(prepared).graph.outputs == {"classes": "logits"}
    assert scoring(replace(prepared, graph=model.graph)).graph is model.graph


def test_losses() -> None:
    wanted = torch.tensor([[2.0, 0.0, -1.0]])
    target = torch.tensor([[0.0, 0.0, 1.0]])
    assert float(loss_of(wanted + 3, wanted, None, "logits")) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(-wanted, wanted, None, "logits")) > 0.5
    assert float(loss_of(wanted, wanted, target, "logits")) > float(loss_of(-wanted, -wanted, target, "logits"))
    assert float(loss_of(wanted.softmax(1), wanted.softmax(1), None, "probabilities")) == pytest.approx(
        0, abs=1e-6
    )
    assert float(loss_of(torch.zeros(1, 3), wanted, None, "embedding")) == pytest.approx(1.07, abs=0.01)


def test_a_broken_budget_is_mended_by_training(photos: Path) -> None:
    # Ranges that clip a tenth of the numbers at either end.
    options = replace(QUICK, method="percentile", percentile=90, pictures=60, max_float=0, max_drop=0.2)
    model = harmed_model(constant=1.0)
    with pytest.raises(BudgetError, match="train with --qat-epochs"):
        quantise_within(model, photos / "flat", options)
    told: list[str] = []
    learning = replace(options, qat_epochs=20)
    outcome = quantise_within(model, photos / "flat", learning, on_progress=lambda what, *_: told.append(what))
    assert outcome.prepared.trained and outcome.drop <= 0.2
    assert "training with rounding" in told
    assert "trained with rounding" in outcome.model.provenance["quantised"]


def test_no_training_where_the_budget_holds(photos: Path) -> None:
    told: list[str] = []
    options = replace(QUICK, qat_epochs=5)
    outcome = quantise_within(
        harmed_model(constant=1.0), photos / "flat", options, on_progress=lambda what, *_: told.append(what)
    )
    assert not outcome.prepared.trained and "training with rounding" not in told


def test_what_is_missing_is_said_at_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r"quantisation-aware training .*'torch'.*mobilenet\[train\]"):
        quantise_within(harmed_model(), photos / "missing", replace(QUICK, qat_epochs=1))
    with pytest.raises(ArgumentError, match="qat_epochs is -1"):
        QuantiseOptions(qat_epochs=-1)


def test_quantising_without_training_needs_no_torch() -> None:
    program = "import sys, mobilenet.quantise.outcome, mobilenet.quantise.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_stopped_while_it_trains_nothing_is_written(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "m.safetensors"
    harmed_model().save(source)
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "from mobilenet.quantise import retrain\n"
        "learn = retrain._learn\n"
        "def noisy(*words):\n"
        "    print('learning', flush=True)\n"
        "    learn(*words)\n"
        "retrain._learn = noisy\n"
        "from mobilenet.cli import main\n"
        "main()\n"
    )
    words = ["quantise", str(source), "--data", str(photos / "flat"), "--max-drop", "0.05", "--max-float", "0"]
    words += ["--pictures", "12", "--method", "min-max", "--no-equalise", "--qat-epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "learning" in line:
            break
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
