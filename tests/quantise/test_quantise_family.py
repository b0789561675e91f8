"""Every member of the family in integers: it runs, and what it says is near to what the float network says."""

from __future__ import annotations

import numpy as np
import pytest

import mobilenet
from mobilenet.graph.ops import Activation, BatchNorm, Dequantise, Mul, Quantise
from mobilenet.model import Model
from mobilenet.quantise.random import random_batch, random_model, random_quantised_model


def signal_to_noise(expected: np.ndarray, found: np.ndarray) -> float:
    """In decibels."""
    noise = np.square(expected.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first.ravel().astype(np.float64), second.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def kinds_of_float_nodes(model: Model) -> set[str]:
    return {
        node.operator.activation if isinstance(node.operator, Activation) else node.operator.kind
        for node in model.graph.nodes
        if node.dtype == "float32" and not isinstance(node.operator, Dequantise)
    }


@pytest.mark.parametrize("name", mobilenet.list_models())
def test_every_member_runs_in_integers_and_agrees(name: str) -> None:
    model, quantised = random_quantised_model(name, pictures=1, resolution=64, classes=20)
    quantised.validate()
    assert quantised.input.dtype == "uint8"
    assert quantised.graph.outputs.keys() == model.graph.outputs.keys()
    assert all(quantised.graph.types[node].dtype == "uint8" for node in quantised.graph.outputs.values())
    # prelu has no integer form; nothing else in the family needs floats.
    assert kinds_of_float_nodes(quantised) <= ({"prelu"} if name.startswith("mobilefacenet") else set())
    assert not any(isinstance(node.operator, BatchNorm) for node in quantised.graph.nodes)

    batch = random_batch(model, seed=7)
    expected, found = model.run(batch), quantised.run(batch)
    for output in expected:
        assert cosine(expected[output], found[output]) > 0.75, output  # random nets amplify noise; unrelated is 0


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
@pytest.mark.parametrize("dialect", ["paper", "torchvision", "timm", "keras"])
def test_v3_is_integers_from_the_picture_to_the_scores(name: str, dialect: str) -> None:
    """Squeeze-excite and h-swish included, and nothing turns into floats and back on the way."""
    _, quantised = random_quantised_model(name, pictures=1, resolution=64, classes=5, dialect=dialect)
    assert any(isinstance(node.operator, Mul) for node in quantised.graph.nodes)  # the gates of squeeze-excite
    assert {kind.dtype for kind in quantised.graph.types.values()} == {"uint8"}
    assert not any(isinstance(node.operator, Quantise | Dequantise) for node in quantised.graph.nodes)
    stored = {array.dtype.name for key, array in quantised.weights.items() if not key.endswith("weight_scale")}
    assert stored == {"int8", "int32"}


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        "mobilenet_v3_large_minimalistic",
        "mobilenet_v3_small",
        "mobilenet_v4_conv_small",
        "mobilefacenet",
    ],
)
def test_the_error_is_small_at_a_real_resolution(name: str) -> None:
    model, quantised = random_quantised_model(name, pictures=3, resolution=128, classes=100)
    batch = random_batch(model, seed=7)
    expected, found = model.run(batch), quantised.run(batch)
    assert cosine(expected["embedding"], found["embedding"]) > 0.95


@pytest.mark.parametrize(
    "options",
    [
        {"dialect": "timm"},
        {"dialect": "d_li14"},  # squeeze-excite before the activation: a product that carries hard_swish
        {"dialect": "slim"},
        {"width_multiplier": 0.35, "resolution": (48, 80)},
        {"features_only": True},
        {"output_stride": 8},
        {"channels": 1},
        {"channels": 5},  # no picture: the range of the input is measured
    ],
    ids=str,
)
def test_options_of_a_network(options: dict[str, object]) -> None:
    model, quantised = random_quantised_model("mobilenet_v3_small", **{"resolution": 64, **options})
    batch = random_batch(model, seed=7)
    expected, found = model.run(batch), quantised.run(batch)
    assert expected.keys() == found.keys()
    for output in expected:
        assert cosine(expected[output], found[output]) > 0.7, output


def test_one_layer_after_the_other_is_within_its_own_rounding() -> None:
    """The first stages, before errors add up: what the arithmetic of scales and biases alone can get wrong."""
    model, quantised = random_quantised_model("mobilenet_v2", resolution=96, features_only=True)
    batch = random_batch(model, seed=7)
    expected, found = model.run(batch), quantised.run(batch)
    assert signal_to_noise(expected["features_2"], found["features_2"]) > 20
    assert signal_to_noise(expected["features_4"], found["features_4"]) > 15


def test_other_resolutions_than_the_calibrated_one() -> None:
    _, quantised = random_quantised_model("mobilenet_v2", resolution=96, classes=10)
    graph = quantised.graph.resized(128, 64)
    graph.check_weights(quantised.weights)
    assert graph.types["image"].quantisation == quantised.input.quantisation


def test_the_untouched_initial_weights_of_training_can_be_quantised() -> None:
    """Their values fade by orders of magnitude from layer to layer."""
    from mobilenet.quantise import quantise

    for name in ("mobilenet_v2", "mobilenet_v4_hybrid_medium"):
        model = mobilenet.create(name, resolution=32, classes=5)
        quantised = Model.of(quantise(model, [random_batch(model)]))
        assert np.isfinite(quantised.run(random_batch(model, seed=3))["logits"]).all()


def test_random_models_are_reproducible_and_do_not_fade() -> None:
    first, second = (random_model("mobilenet_v2", resolution=64, classes=10) for _ in range(2))
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert 0.05 < first.run(random_batch(first, seed=5))["embedding"].std() < 20
