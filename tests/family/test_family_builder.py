"""Graphs are what the papers say: shapes for any options, names, padding, dilation, attention, antialiasing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet.errors import ArgumentError
from mobilenet.family.blocks import Place, add_block
from mobilenet.family.builder import Options, build_graph
from mobilenet.family.dialects import DIALECTS, Dialect, Rounding
from mobilenet.family.draft import Draft
from mobilenet.family.initialise import initialise
from mobilenet.family.names import build, list_models
from mobilenet.family.rows import AttentionRow, ConvRow, InvertedResidualRow, SeparableRow, Table, UniversalRow
from mobilenet.family.tables import TABLES
from mobilenet.graph.graph import Graph, TensorType
from mobilenet.graph.ops import Add, BatchNorm, Conv, Dense, DepthwiseConv, Mul
from mobilenet.run import reference


def answer(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """The outputs for one picture of noise, with weights that depend on the tensors' names only."""
    weights = initialise(graph, seed)
    image = np.random.default_rng(0).normal(size=(1, *graph.types["image"].shape)).astype(np.float32)
    return reference.run(graph, weights, image)


sizes = st.tuples(st.integers(32, 300), st.integers(32, 300))


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list_models()),
    width=st.floats(0.05, 2.5),
    size=sizes,
    stride=st.sampled_from([8, 16, 32]),
    classes=st.integers(1, 2000),
    channels=st.integers(1, 8),
    data=st.data(),
)
def test_any_option_builds(
    name: str,
    width: float,
    size: tuple[int, int],
    stride: int,
    classes: int,
    channels: int,
    data: st.DataObject,
) -> None:
    table = TABLES[name]
    options = {"resolution": size, "channels": channels, "output_stride": stride, "classes": classes}
    options["dialect"] = data.draw(st.sampled_from(list(DIALECTS[table.family])))
    if table.width_multiplier == 1:
        options["width_multiplier"] = width
    graph = build(name, **options)
    assert graph.types["image"].shape == (*size, channels)
    outputs = {key: graph.types[value].shape for key, value in graph.outputs.items()}
    if table.classifier:
        assert outputs["logits"] == (classes,)
        assert graph.node("classifier").inputs == (graph.outputs["embedding"],)
    assert set(outputs) == ({"logits", "embedding"} if table.classifier else {"embedding"})
    assert len(outputs["embedding"]) == 1
    features = build(name, **options, features_only=True)
    for key, value in features.outputs.items():
        reached = int(key.removeprefix("features_"))
        assert reached <= stride
        expected = tuple(ceil(side / reached) for side in size)
        # An average pool of 2 drops a last odd row, and so does Keras V1's padding.
        drops = table.antialias == "average" or (table.family, options["dialect"]) == ("v1", "keras")
        slack = 1 if drops else 0
        assert all(
            0 <= want - got <= slack for want, got in zip(expected, features.types[value].shape, strict=False)
        )


@pytest.mark.parametrize("name", list_models())
def test_names_are_no_prefixes_of_each_other(name: str) -> None:
    """A node "a" beside a node "a.b" would be a module and its parent at once."""
    for graph in (build(name), build(name, features_only=True)):
        names = {node.name for node in graph.nodes}
        parents = {".".join(n.split(".")[:depth]) for n in names for depth in range(1, n.count(".") + 1)}
        assert not names & parents
        assert all(
            part.replace("_", "").isalnum() and part == part.lower() for n in names for part in n.split(".")
        )


def test_names_of_a_block_stay() -> None:
    graph = build("mobilenet_v3_large")
    assert [n.name.removeprefix("blocks.4.") for n in graph.nodes if n.name.startswith("blocks.4.")] == [
        "expand.conv",
        "expand.batch_norm",
        "depthwise.conv",
        "depthwise.batch_norm",
        "squeeze_excite.mean",
        "squeeze_excite.reduce",
        "squeeze_excite.expand",
        "squeeze_excite.multiply",
        "project.conv",
        "project.batch_norm",
        "add",
    ]
    assert [n.name for n in graph.nodes][-5:] == [
        "head.conv",
        "head.batch_norm",
        "head.mean",
        "head.hidden.dense",
        "classifier",
    ]
    assert graph.outputs == {"logits": "classifier", "embedding": "head.hidden.dense"}


def test_activations_stand_where_the_paper_has_them() -> None:
    graph = build("mobilenet_v3_large")
    activations = {n.name: getattr(n.operator, "activation", "none") for n in graph.nodes}
    assert activations["stem.batch_norm"] == "hard_swish" and activations["stem.conv"] == "none"
    assert activations["blocks.3.expand.batch_norm"] == activations["blocks.3.depthwise.batch_norm"] == "relu"
    assert activations["blocks.3.squeeze_excite.reduce"] == "relu"
    assert activations["blocks.3.squeeze_excite.expand"] == "hard_sigmoid"
    assert activations["blocks.3.project.batch_norm"] == activations["classifier"] == "none"
    assert activations["head.hidden.dense"] == "hard_swish"
    slim = build("mobilenet_v3_large", dialect="slim")
    assert slim.node("blocks.3.squeeze_excite.expand").operator.activation == "hard_sigmoid_slim"


def test_d_li14_squeezes_before_the_activation_where_a_block_expands() -> None:
    graph = build("mobilenet_v3_small", dialect="d_li14")
    late = {n: graph.node(f"blocks.{n}.squeeze_excite.multiply").operator.activation for n in (0, 3)}
    early = {n: graph.node(f"blocks.{n}.depthwise.batch_norm").operator.activation for n in (0, 3)}
    assert late == {0: "none", 3: "hard_swish"} and early == {0: "relu", 3: "none"}


def test_timms_rw_form_differs_as_documented() -> None:
    graph = build("mobilenetv3_rw")
    assert not any(n.name == "blocks.0.add" for n in graph.nodes)
    assert graph.node("head.hidden.dense").operator.bias is False
    assert graph.types["blocks.3.squeeze_excite.reduce"].shape == (1, 1, 18)  # 72 / 4, not rounded to 24
    assert graph.node("stem.batch_norm").operator.epsilon == 1e-3


@pytest.mark.parametrize(
    ("name", "dialect", "epsilon", "momentum"),
    [
        ("mobilenet_v1", "slim", 1e-3, 0.0003),
        ("mobilenet_v1", "keras", 1e-3, 0.01),
        ("mobilenet_v1", "timm", 1e-5, 0.1),
        ("mobilenet_v2", "torchvision", 1e-5, 0.1),
        ("mobilenet_v2", "keras", 1e-3, 0.001),
        ("mobilenet_v2", "d_li14", 1e-5, 0.1),
        ("mobilenet_v3_large", "torchvision", 1e-3, 0.01),
        ("mobilenet_v3_large", "timm", 1e-5, 0.1),
        ("mobilenet_v3_large", "timm_tf", 1e-3, 0.1),
        ("mobilenet_v3_large", "paper", 1e-3, 0.01),
        ("mobilenet_v4_conv_small", "timm", 1e-5, 0.1),
        ("mobilenet_v4_conv_small", "paper", 1e-3, 0.01),
    ],
)
def test_batch_norm_of_each_project(name: str, dialect: str, epsilon: float, momentum: float) -> None:
    """implementation_differences.md, section 1."""
    graph = build(name, dialect=dialect)
    norms = {(n.operator.epsilon, n.operator.momentum) for n in graph.nodes if isinstance(n.operator, BatchNorm)}
    assert len(norms) == 1
    assert norms.pop() == pytest.approx((epsilon, momentum))


def test_padding_of_each_project() -> None:
    """Section 2: SAME puts the odd row below and on the right; torch samples one pixel earlier."""
    pads = {}
    for dialect in ("paper", "torchvision", "keras", "timm_tf"):
        graph = build("mobilenet_v3_large", dialect=dialect)
        first, fifth = (
            graph.node("blocks.1.depthwise.conv").operator,
            graph.node("blocks.3.depthwise.conv").operator,
        )
        pads[dialect] = (first.padding, first.same, fifth.padding)
    same = ((0, 1, 0, 1), True, (1, 2, 1, 2))
    assert pads == {"paper": same, "timm_tf": same, "keras": same, "torchvision": ((1,) * 4, False, (2,) * 4)}


def test_keras_v1_pads_below_and_right_whatever_the_size() -> None:
    """With 300 pixels, a stride of 2 meets an odd size (75): there SAME would be (1, 1)."""
    graphs = {d: build("mobilenet_v1", resolution=300, dialect=d) for d in ("keras", "slim")}
    assert graphs["keras"].types["blocks.2.pointwise.conv"].shape[:2] == (75, 75)
    assert graphs["keras"].node("blocks.3.depthwise.conv").operator.padding == (0, 1, 0, 1)
    assert graphs["slim"].node("blocks.3.depthwise.conv").operator.padding == (1, 1, 1, 1)
    assert graphs["keras"].node("stem.conv").operator.padding == graphs["slim"].node("stem.conv").operator.padding


@pytest.mark.parametrize(("channels", "expected"), [(18.0, 24), (11.2, 16), (10.0, 16), (30.0, 32), (3.0, 8)])
def test_rounding_never_loses_a_tenth(channels: float, expected: int) -> None:
    """Section 3's own examples: 24 * 0.75, 32 * 0.35, 40 * 0.25."""
    assert Rounding()(channels) == expected


def test_rounding_of_keras_cuts_first() -> None:
    """Section 3: the same at published multipliers, different at 0.28 and others."""
    keras, slim = DIALECTS["v2"]["keras"].rounding, DIALECTS["v2"]["slim"].rounding
    assert [keras(16, w) for w in (1.4, 0.75)] == [slim(16, w) for w in (1.4, 0.75)]
    differing = [
        w
        for w in (0.28, 0.56, 0.84, 1.12)
        if any(keras(c, w) != slim(c, w) for c in (16, 24, 32, 64, 96, 160, 320))
    ]
    assert differing == [0.28, 0.56, 0.84, 1.12]


@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_gives_the_same_values_on_a_finer_grid(stride: int) -> None:
    """DeepLab's rule: every `32 / stride`-th value of the dilated network is the undilated network's."""
    names = {"resolution": 64, "dialect": "torchvision", "features_only": True, "width_multiplier": 0.35}
    coarse = answer(build("mobilenet_v2", **names))["features_32"]
    fine = answer(build("mobilenet_v2", **names, output_stride=stride))[f"features_{stride}"]
    step = 32 // stride
    assert fine.shape[1:3] == (64 // stride, 64 // stride)
    np.testing.assert_allclose(fine[:, ::step, ::step], coarse, rtol=1e-4, atol=1e-4)


def test_torchvision_dilates_the_layer_that_had_the_stride() -> None:
    """torchvision's mobilenet_v3_large(dilated=True): all three blocks of the last stage have dilation 2."""
    dilations = {}
    for dialect in ("torchvision", "timm"):
        graph = build("mobilenet_v3_large", dialect=dialect, output_stride=16)
        operators = [graph.node(f"blocks.{n}.depthwise.conv").operator for n in (11, 12, 13, 14)]
        assert all(o.stride == (1, 1) for o in operators)
        dilations[dialect] = [o.dilation[0] for o in operators]
    assert dilations == {"torchvision": [1, 2, 2, 2], "timm": [1, 1, 2, 2]}


def test_dilation_and_stochastic_depth_change_no_weight() -> None:
    plain = build("mobilenet_v4_hybrid_medium", resolution=64).parameters()
    assert build("mobilenet_v4_hybrid_medium", resolution=64, output_stride=8).parameters() == plain
    assert build("mobilenet_v4_hybrid_medium", resolution=64, drop_path=0.3, dropout=0.5).parameters() == plain


def test_stochastic_depth_grows_linearly() -> None:
    graph = build("mobilenet_v2", drop_path=0.16, dropout=0.3)
    rates = {n.name: n.operator.drop_path for n in graph.nodes if isinstance(n.operator, Add)}
    assert rates["blocks.2.add"] == pytest.approx(0.02) and rates["blocks.15.add"] == pytest.approx(0.15)
    assert graph.node("classifier").operator.dropout == 0.3


def draft_of(shape: tuple[int, int, int], dialect: Dialect | None = None) -> Draft:
    return Draft(shape, dialect or Dialect(), 1.0)


def graph_of(draft: Draft, shape: tuple[int, int, int]) -> Graph:
    return Graph({"image": TensorType(shape)}, tuple(draft.nodes), {"out": draft.value})


@pytest.mark.parametrize("key_stride", [1, 2])
def test_attention_is_torchs(key_stride: int) -> None:
    """Multi-query attention against scaled_dot_product_attention with one key and value for all heads."""
    torch = pytest.importorskip("torch")
    shape, heads, dim = (6, 4, 10), 3, 5
    draft = draft_of(shape)
    add_block(draft, AttentionRow(heads=heads, key_dim=dim, key_stride=key_stride), Place("blocks.0", 10))
    graph = graph_of(draft, shape)
    generator = np.random.default_rng(1)
    weights = {k: generator.uniform(0.5, 1.5, p.shape).astype(np.float32) for k, p in graph.parameters().items()}
    image = generator.normal(size=(1, *shape)).astype(np.float32)
    tap = {"q": "query.conv", "k": "key.conv", "v": "value.conv"}
    tapped = Graph(graph.inputs, graph.nodes, {**graph.outputs, **{k: f"blocks.0.{n}" for k, n in tap.items()}})
    found = reference.run(tapped, weights, image)
    query = torch.tensor(found["q"]).reshape(1, 24, heads, dim).transpose(1, 2)
    key, value = (torch.tensor(found[k]).reshape(1, 1, -1, dim).expand(1, heads, -1, dim) for k in "kv")
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(24, -1)
    project = torch.tensor(weights["blocks.0.project.conv.weight"]).reshape(10, heads * dim)
    scale = weights["blocks.0.layer_scale.weight"]
    expected = image.reshape(24, 10) + (mixed @ project.T).numpy() * scale
    np.testing.assert_allclose(found["out"].reshape(24, 10), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [8, 9])
def test_blur_is_the_one_two_one_filter(side: int) -> None:
    """timm's BlurPool: zero padding, the filter 1 2 1 in both directions over 16, stride 2."""
    torch = pytest.importorskip("torch")
    shape = (side, side, 4)
    draft = draft_of(shape, DIALECTS["v4"]["timm"])
    draft.antialias = "blur"
    draft.depthwise("blur", 3, stride=2)
    draft.nodes = [n for n in draft.nodes if not isinstance(n.operator, DepthwiseConv | BatchNorm)]
    draft.nodes[0] = replace(draft.nodes[0], inputs=("image",))
    graph = graph_of(draft, shape)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    taps = torch.tensor([1.0, 2.0, 1.0])
    kernel = (taps[:, None] * taps[None] / 16).expand(4, 1, 3, 3)
    expected = torch.nn.functional.conv2d(torch.tensor(image).permute(0, 3, 1, 2), kernel, None, 2, 1, 1, 4)
    found = reference.run(graph, {}, image)["out"]
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-5, atol=1e-6)


def test_a_new_variant_is_rows_only() -> None:
    table = Table(
        family="v2",
        source="here",
        stem=ConvRow(out=8, stride=2, scale="stem"),
        blocks=(
            SeparableRow(out=16),
            InvertedResidualRow(out=24, expansion=3, stride=2, repeats=2, squeeze_excite=True),
            UniversalRow(out=32, expanded=64, start=5, stride=2),
        ),
    )
    graph = build_graph(table, DIALECTS["v2"]["paper"], Options(1.0, (32, 48), classes=3))
    assert graph.types["blocks.3.project.conv"].shape == (4, 6, 32)
    assert graph.node("blocks.3.depthwise_start.conv").operator.stride == (2, 2)
    assert {type(n.operator) for n in graph.nodes} >= {Conv, DepthwiseConv, BatchNorm, Add, Mul, Dense}
    assert answer(graph)["logits"].shape == (1, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvRow(out=8, activation="rleu"), "unknown activation 'rleu'"),
        (lambda: ConvRow(out=-8), "ConvRow: out -8"),
        (lambda: ConvRow(out=8, kernel=3.0), "ConvRow: kernel 3.0"),
        (lambda: ConvRow(out=8, stride=0), "must be at least 1"),
        (lambda: ConvRow(out=8, scale="wide"), "unknown scale 'wide'"),
        (lambda: InvertedResidualRow(out=8), "either expansion or expanded"),
        (lambda: InvertedResidualRow(out=8, expansion=6, expanded=48), "either expansion or expanded"),
        (lambda: InvertedResidualRow(out=8, expansion=6, residual=1), "residual 1"),
        (lambda: replace(TABLES["mobilenet_v1"], antialias="blurry"), "unknown antialias 'blurry'"),
    ],
)
def test_a_typo_in_a_row_is_an_error(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
    with pytest.raises(TypeError):
        ConvRow(out=8, kernels=3)  # type: ignore[call-arg]
