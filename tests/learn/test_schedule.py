"""Learning rates over steps and layers."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

from mobilenet.family.initialise import initialise  # noqa: E402
from mobilenet.family.names import build  # noqa: E402
from mobilenet.learn.options import TrainOptions  # noqa: E402
from mobilenet.learn.schedule import Schedule, layer_shares, make_optimizer, make_schedule  # noqa: E402
from mobilenet.run.torch_module import GraphModule  # noqa: E402


def test_rates_rise_in_a_line_and_fall_to_nearly_nothing() -> None:
    schedule = Schedule(warmup_steps=10, total_steps=110)
    shares = [schedule.share(step) for step in range(110)]
    rises = [b - a for a, b in itertools.pairwise(shares[:11])]
    assert max(rises) == pytest.approx(min(rises))
    assert max(shares) == shares[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(shares[10:]))
    assert shares[60] == pytest.approx(0.505)  # half of the way down: the mean of 1 and 0.01
    assert 0.01 <= shares[-1] < 0.012


def test_warm_up_leaves_half_of_a_short_run() -> None:
    schedule = make_schedule(TrainOptions("x", epochs=2, warmup_epochs=5.0).filled(), steps_per_epoch=10)
    assert (schedule.warmup_steps, schedule.total_steps) == (10, 20)


def test_lower_layers_learn_slower() -> None:
    graph = build("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3)
    shares = layer_shares(graph, 0.25)
    listed = list(shares.values())
    assert shares["stem.conv"] == 0.25
    assert shares["classifier"] == 1.0
    ratios = [b / a for a, b in itertools.pairwise(listed)]
    assert max(ratios) == pytest.approx(min(ratios))


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
def test_only_weights_decay_and_every_parameter_is_in_one_group(name: str) -> None:
    graph = build("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3)
    module = GraphModule.from_weights(graph, initialise(graph, 0))
    module.freeze(["stem.conv"])
    options = TrainOptions("x", optimizer=name, weight_decay=0.1, lr0=1.0, layer_rate=0.5).filled()
    optimizer = make_optimizer(module.named_parameters(), graph, options)
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    learning = [p for p in module.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(decays) == len(learning)
    for parameter_name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert decays[parameter] == (0.1 if parameter_name.endswith(".weight") else 0.0), parameter_name


def test_the_schedule_keeps_the_layers_apart() -> None:
    graph = build("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3)
    module = GraphModule(graph)
    optimizer = make_optimizer(
        module.named_parameters(), graph, TrainOptions("x", lr0=2.0, layer_rate=0.5).filled()
    )
    Schedule(warmup_steps=0, total_steps=10).apply(optimizer, 5)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) == pytest.approx(2.0 * 0.505)
    assert min(rates) == pytest.approx(1.0 * 0.505)
