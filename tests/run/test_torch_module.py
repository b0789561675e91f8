"""The torch module against the reference, operator by operator and net by net, and against plain torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mobilenet.errors import ArgumentError, GraphError, TrainingError, UnsupportedOperatorError
from mobilenet.graph import ops
from mobilenet.graph.graph import Graph, Node, Quantisation, TensorType, Weights
from mobilenet.run import reference

torch = pytest.importorskip("torch")

from mobilenet.run.torch_depthwise import depthwise_conv  # noqa: E402
from mobilenet.run.torch_module import GraphModule  # noqa: E402


def random_weights(graph: Graph, seed: int = 0) -> Weights:
    """Weights that hide nothing: no zeros, no ones, variances well above zero."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, parameter in graph.parameters().items():
        values = generator.normal(0, 1, parameter.shape) / max(1, np.prod(parameter.shape[1:])) ** 0.5
        if name.endswith(".variance"):
            values = generator.uniform(0.5, 2, parameter.shape)
        if name.endswith(".gamma"):
            values = generator.uniform(0.5, 1.5, parameter.shape)
        weights[name] = values.astype(np.float32)
    return weights


def single(operator: ops.Operator, *shapes: tuple[int, ...], dtype: str = "float32") -> Graph:
    inputs = {f"in{i}": TensorType(shape) for i, shape in enumerate(shapes)}
    return Graph(inputs, (Node("node", operator, tuple(inputs), dtype),), {"out": "node"})


def batch_of(graph: Graph, count: int = 2, seed: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {n: generator.normal(0, 2, (count, *t.shape)).astype(np.float32) for n, t in graph.inputs.items()}


def run_torch(module: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = module({name: torch.from_numpy(array) for name, array in batch.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def assert_agrees(graph: Graph, weights: Weights, batch: dict[str, np.ndarray]) -> None:
    got = run_torch(GraphModule.from_weights(graph, weights).eval(), batch)
    wanted = reference.run(graph, weights, batch)
    for name, array in wanted.items():
        assert got[name].shape == array.shape, name
        if array.dtype == np.int64:
            np.testing.assert_array_equal(got[name], array)
        else:
            assert np.abs(got[name] - array).max() <= 1e-5 * max(np.abs(array).max(), 1e-3), name


SHAPE = (7, 9, 4)
ROW = (6,)
MATRIX = (5, 6)
OPERATORS = [
    (ops.Conv(kernel=(3, 3), out_channels=5, padding=(1, 1, 1, 1), bias=True), SHAPE),
    (ops.Conv(kernel=(3, 2), stride=(2, 1), out_channels=5, padding=(0, 1, 2, 0)), SHAPE),
    (ops.Conv(kernel=(3, 3), dilation=(2, 2), out_channels=3, padding=(2, 2, 1, 2)), SHAPE),
    (ops.Conv(kernel=(1, 1), stride=(2, 2), out_channels=6), SHAPE),
    (ops.DepthwiseConv(kernel=(3, 3), padding=(1, 1, 1, 1), bias=True), SHAPE),
    (ops.DepthwiseConv(kernel=(5, 3), stride=(2, 2), multiplier=3, padding=(1, 2, 0, 1)), SHAPE),
    (ops.DepthwiseConv(kernel=(3, 3), dilation=(2, 1), padding=(2, 2, 1, 1)), SHAPE),
    *[(ops.Conv(out_channels=3, bias=True, activation=name), SHAPE) for name in ops.ACTIVATIONS],
    *[(ops.Activation(activation=name), SHAPE) for name in ops.ACTIVATIONS],
    *[(ops.Activation(activation="prelu"), shape) for shape in (ROW, MATRIX)],
    (ops.Dense(out_features=3), ROW),
    (ops.Dense(out_features=3, bias=False, activation="relu", dropout=0.5), MATRIX),
    (ops.Dense(out_features=3, activation="prelu"), SHAPE),
    (ops.BatchNorm(epsilon=1e-3, activation="relu6"), SHAPE),
    (ops.BatchNorm(activation="hard_swish"), ROW),
    (ops.BatchNorm(activation="prelu"), MATRIX),
    (ops.Mean(), SHAPE),
    (ops.Mean(keep_axes=True), SHAPE),
    (ops.AveragePool(kernel=(2, 3), stride=(2, 2)), SHAPE),
    (ops.AveragePool(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 0, 2)), SHAPE),
    (ops.MaxPool(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 2, 0)), SHAPE),
    (ops.MaxPool(kernel=(2, 2), stride=(1, 2), activation="relu"), SHAPE),
    (ops.Pad(padding=(1, 0, 2, 3)), SHAPE),
    (ops.Resize(size=(13, 5)), SHAPE),
    (ops.Resize(size=(13, 20), align_corners=True, half_pixel_centers=False), SHAPE),
    (ops.Resize(size=(3, 20), half_pixel_centers=False), SHAPE),
    (ops.Resize(size=(13, 5), method="nearest"), SHAPE),
    (ops.Resize(size=(14, 30), method="nearest", half_pixel_centers=False), SHAPE),
    (ops.Resize(size=(13, 4), method="nearest", align_corners=True, half_pixel_centers=False), SHAPE),
    (ops.Resize(size=(1, 1)), SHAPE),
    (ops.Reshape(shape=(-1, 4)), SHAPE),
    (ops.Reshape(shape=(3, -1, 2)), SHAPE),
    (ops.Reshape(shape=(2, 3, 1)), ROW),
    (ops.Transpose(axes=(2, 0, 1)), SHAPE),
    (ops.Transpose(axes=(1, 0)), MATRIX),
    (ops.Softmax(beta=0.3), SHAPE),
    (ops.Softmax(), ROW),
    (ops.L2Normalise(), SHAPE),
    (ops.L2Normalise(epsilon=100.0), ROW),
    (ops.Mul(constant=True), SHAPE),
    (ops.Mul(constant=True, activation="relu"), ROW),
]
PAIRS = [
    (ops.Add(activation="relu", drop_path=0.5), SHAPE, SHAPE),
    (ops.Mul(), SHAPE, (1, 1, 4)),
    (ops.Mul(), SHAPE, SHAPE),
    (ops.Mul(activation="sigmoid"), SHAPE, (7, 1, 1)),
    (ops.Concat(), SHAPE, (7, 9, 2)),
    (ops.Concat(), ROW, (3,)),
    (ops.Resize(), SHAPE, (3, 4, 1)),
    (ops.MatMul(), MATRIX, (6, 3)),
    (ops.MatMul(transpose_second=True), MATRIX, (3, 6)),
]


@pytest.mark.parametrize(("operator", "shapes"), [(o, s) for o, *s in [*OPERATORS, *PAIRS]], ids=str)
def test_operator_agrees_with_reference(operator: ops.Operator, shapes: list[tuple[int, ...]]) -> None:
    graph = single(operator, *shapes)
    assert_agrees(graph, random_weights(graph), batch_of(graph))


def test_every_float_operator_is_compared() -> None:
    compared = {type(operator) for operator, *_ in [*OPERATORS, *PAIRS]}
    assert compared == set(ops.OPERATORS.values()) - {ops.Quantise, ops.Dequantise, ops.ArgMax}


@pytest.mark.parametrize("shape", [SHAPE, ROW, MATRIX])
def test_argmax_takes_the_lowest_of_equals(shape: tuple[int, ...]) -> None:
    graph = single(ops.ArgMax(), shape, dtype="int64")
    batch = {"in0": np.random.default_rng(0).integers(0, 3, (2, *shape)).astype(np.float32)}
    np.testing.assert_array_equal(
        run_torch(GraphModule(graph), batch)["out"], reference.run(graph, {}, batch)["out"]
    )


def test_an_activation_leaves_its_input_to_others() -> None:
    nodes = (
        Node("conv", ops.Conv(out_channels=3), ("image",)),
        Node("act", ops.Activation(activation="relu"), ("conv",)),
        Node("sum", ops.Add(), ("conv", "act")),
    )
    graph = Graph({"image": TensorType(SHAPE)}, nodes, {"conv": "conv", "sum": "sum"})
    assert_agrees(graph, random_weights(graph), batch_of(graph))


def family_names() -> list[str]:
    try:
        from mobilenet.family.names import list_models
    except ImportError:
        return []
    return list_models()


@pytest.mark.parametrize("name", family_names())
def test_family_member_agrees_with_reference(name: str) -> None:
    from mobilenet.family.names import build

    graph = build(name, resolution=64, classes=7, dropout=0.2)
    batch = {
        n: np.random.default_rng(3).uniform(-1, 1, (1, *t.shape)).astype(np.float32)
        for n, t in graph.inputs.items()
    }
    weights = random_weights(graph)
    assert_agrees(graph, weights, batch)


def small_net(**add: float) -> Graph:
    nodes = (
        Node(
            "stem.conv", ops.Conv(kernel=(3, 3), stride=(2, 2), padding=(0, 1, 0, 1), out_channels=8), ("image",)
        ),
        Node("stem.batch_norm", ops.BatchNorm(activation="relu6"), ("stem.conv",)),
        Node(
            "blocks.0.depthwise.conv", ops.DepthwiseConv(kernel=(3, 3), padding=(1, 1, 1, 1)), ("stem.batch_norm",)
        ),
        Node(
            "blocks.0.depthwise.batch_norm",
            ops.BatchNorm(momentum=0.3, epsilon=1e-3),
            ("blocks.0.depthwise.conv",),
        ),
        Node("blocks.0.add", ops.Add(**add), ("stem.batch_norm", "blocks.0.depthwise.batch_norm")),
        Node("mean", ops.Mean(), ("blocks.0.add",)),
        Node("type", ops.Dense(out_features=3), ("mean",)),  # a name that nn.Module has too
        Node("type.weight", ops.BatchNorm(), ("type",)),  # and one that looks like another's parameter
    )
    return Graph({"image": TensorType((12, 10, 3))}, nodes, {"logits": "type.weight", "embedding": "mean"})


def test_state_dict_is_the_graphs_own() -> None:
    graph = small_net()
    module = GraphModule(graph)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert shapes == {name: parameter.shape for name, parameter in graph.parameters().items()}
    learnt = {name for name, parameter in graph.parameters().items() if parameter.trainable}
    assert {name for name, _ in module.named_parameters()} == learnt


def test_weights_come_back_as_they_went_in() -> None:
    graph = small_net()
    weights = random_weights(graph)
    module = GraphModule.from_weights(graph, weights)
    kept = {name: array.copy() for name, array in weights.items()}
    with torch.no_grad():
        for value in module.state_dict().values():
            value.add_(1)
    back = module.to_weights()
    for name, array in kept.items():
        np.testing.assert_array_equal(weights[name], array)
        np.testing.assert_array_equal(back[name], array + np.float32(1))
        assert back[name].dtype == np.float32


def plain_torch_net() -> Any:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, 2, bias=False)
            self.stem_norm = torch.nn.BatchNorm2d(8)
            self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
            self.depthwise_norm = torch.nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)
            self.dense = torch.nn.Linear(8, 3)
            self.last_norm = torch.nn.BatchNorm1d(3)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (0, 1, 0, 1))
            x = torch.nn.functional.relu6(self.stem_norm(self.stem(x)))
            x = x + self.depthwise_norm(self.depthwise(x))
            return self.last_norm(self.dense(x.mean((2, 3))))

    return Plain()


def copied_into_plain(weights: Weights) -> Any:
    plain = plain_torch_net()
    places = {"stem.batch_norm": plain.stem_norm, "blocks.0.depthwise.batch_norm": plain.depthwise_norm}
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    with torch.no_grad():
        plain.stem.weight.copy_(tensors["stem.conv.weight"].permute(0, 3, 1, 2))
        plain.depthwise.weight.copy_(tensors["blocks.0.depthwise.conv.weight"].permute(2, 0, 1)[:, None])
        plain.dense.weight.copy_(tensors["type.weight"])
        plain.dense.bias.copy_(tensors["type.bias"])
        for node, norm in {**places, "type.weight": plain.last_norm}.items():
            norm.weight.copy_(tensors[f"{node}.gamma"])
            norm.bias.copy_(tensors[f"{node}.beta"])
            norm.running_mean.copy_(tensors[f"{node}.mean"])
            norm.running_var.copy_(tensors[f"{node}.variance"])
    return plain


def test_training_steps_equal_plain_torch() -> None:
    graph = small_net()
    weights = random_weights(graph)
    ours, plain = GraphModule.from_weights(graph, weights).train(), copied_into_plain(weights).train()
    generator = torch.Generator().manual_seed(0)
    optimisers = [torch.optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (ours, plain)]
    for _ in range(3):
        batch = torch.randn(6, 12, 10, 3, generator=generator)
        targets = torch.randint(0, 3, (6,), generator=generator)
        for optimiser, logits in zip(optimisers, (ours(batch)["logits"], plain(batch)), strict=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, targets).backward()
            optimiser.step()
    back = ours.to_weights()
    got, wanted = back["stem.conv.weight"], plain.stem.weight.detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(back["type.weight"], plain.dense.weight.detach().numpy(), rtol=1e-4, atol=1e-6)
    statistics = plain.depthwise_norm.running_var.numpy()
    np.testing.assert_allclose(back["blocks.0.depthwise.batch_norm.variance"], statistics, rtol=1e-5)


def test_frozen_nodes_do_not_change_in_training() -> None:
    graph = small_net()
    weights = random_weights(graph)
    module = GraphModule.from_weights(graph, weights)
    frozen = {"stem.conv", "stem.batch_norm"}
    module.freeze(frozen)
    module.train()
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
    module(torch.randn(4, 12, 10, 3))["logits"].square().sum().backward()
    optimiser.step()
    for name, array in module.to_weights().items():
        same = np.array_equal(array, weights[name])
        assert same == (name.rsplit(".", 1)[0] in frozen), name
    module.freeze([])
    assert all(p.requires_grad for p in module.parameters())
    with pytest.raises(GraphError, match="no node 'nowhere'"):
        module.freeze(["nowhere"])


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    graph = single(ops.Add(drop_path=0.25), (2, 2, 3), (2, 2, 3))
    module = GraphModule(graph).train()
    torch.manual_seed(0)
    zeros, ones = torch.zeros(4000, 2, 2, 3), torch.ones(4000, 2, 2, 3)
    out = module({"in0": zeros, "in1": ones})["out"]
    per_sample = out.reshape(4000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    assert set(per_sample[:, 0].unique().tolist()) == {0.0, float(np.float32(1 / 0.75))}
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)


def test_dropout_is_for_training_only() -> None:
    graph = single(ops.Dense(out_features=2, dropout=0.5), (50,))
    module = GraphModule.from_weights(graph, random_weights(graph))
    batch = {"in0": torch.randn(3, 50)}
    torch.manual_seed(0)
    assert not torch.equal(module.train()(batch)["out"], module(batch)["out"])
    assert torch.equal(module.eval()(batch)["out"], module(batch)["out"])


def test_bfloat16_autocast_gives_float32_outputs_near_the_truth() -> None:
    graph = small_net()
    module = GraphModule.from_weights(graph, random_weights(graph)).eval()
    batch = torch.randn(2, 12, 10, 3)
    with torch.no_grad():
        exact = module(batch)["embedding"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = module(batch)["embedding"]
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().max() < 0.03 * exact.abs().max()


def test_inside_pictures_are_channels_last() -> None:
    seen: list[bool] = []
    graph = small_net()
    module = GraphModule.from_weights(graph, random_weights(graph)).train()
    module._layers["blocks.0.add"].register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    module(torch.randn(4, 12, 10, 3))
    assert seen == [True]


def test_a_copy_is_independent() -> None:
    module = GraphModule.from_weights(small_net(), random_weights(small_net()))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        next(iter(twin.parameters())).zero_()
    batch = torch.randn(2, 12, 10, 3)
    assert not torch.equal(module.eval()(batch)["logits"], twin.eval()(batch)["logits"])


def test_one_value_per_channel_cannot_be_normalised() -> None:
    module = GraphModule(small_net()).train()
    with pytest.raises(TrainingError, match=r"node 'type.weight'.*larger batch"):
        module(torch.randn(1, 12, 10, 3))
    module.eval()(torch.randn(1, 12, 10, 3))


def test_wrong_inputs_are_named() -> None:
    module = GraphModule(small_net())
    with pytest.raises(ArgumentError, match=r"input 'image' is \(batch, \(12, 10, 3\)\)"):
        module(torch.randn(1, 3, 12, 10))
    with pytest.raises(ArgumentError, match="picture"):
        module({"picture": torch.randn(1, 12, 10, 3)})


def test_quantised_graphs_are_refused_by_name() -> None:
    quanta = Quantisation(0.1, 3)
    nodes = (Node("stem", ops.Conv(out_channels=2), ("image",), "uint8", quanta),)
    graph = Graph({"image": TensorType((4, 4, 3), "uint8", quanta)}, nodes, {"out": "stem"})
    with pytest.raises(UnsupportedOperatorError, match=r"'image' is uint8.*torch.*reference"):
        GraphModule(graph)
    with pytest.raises(UnsupportedOperatorError, match=r"'quantise'.*torch|torch.*'quantise'|uint8"):
        GraphModule(single_quantise())


def single_quantise() -> Graph:
    node = Node("node", ops.Quantise(), ("in0",), "uint8", Quantisation(0.1))
    return Graph({"in0": TensorType(ROW)}, (node,), {"out": "node"})


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    square=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.bfloat16]),
)
def test_depthwise_gradients_are_torchs(
    size: Any, kernel: Any, stride: Any, padding: Any, square: bool, dtype: Any
) -> None:
    if square:
        kernel = (5, 5)
    assume(all(n + 2 * p >= k for n, k, p in zip(size, kernel, padding, strict=True)))
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 4, *size, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(4, 1, *kernel, generator=generator).to(dtype), torch.randn(4).to(dtype)
    ours = [tensor.clone().requires_grad_() for tensor in (value, weight, bias)]
    peer = [tensor.double().requires_grad_() for tensor in (value, weight, bias)]
    got = depthwise_conv(*ours, stride, padding, (1, 1))
    wanted = torch.nn.functional.conv2d(*peer, stride, padding, 1, 4)
    upstream = torch.randn(wanted.shape, generator=generator).to(dtype)
    got.backward(upstream)
    wanted.backward(upstream.double())
    tolerance = 1e-12 if dtype == torch.float64 else 0.02
    for mine, theirs in zip([got, *(t.grad for t in ours)], [wanted, *(t.grad for t in peer)], strict=True):
        difference = (mine.detach().double() - theirs.detach()).abs().max()
        assert difference <= tolerance * max(float(theirs.detach().abs().max()), 1.0)
