"""What torch projects call the layers of a network: timm, torchvision, d-li14, Hugging Face transformers.

Each function takes a table and the names of the nodes that were built from it, and gives node -> layer of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mobilenet.family.rows import (
    AttentionRow,
    ConvRow,
    FusedRow,
    HiddenRow,
    InvertedResidualRow,
    Row,
    SeparableRow,
    Table,
    UniversalRow,
)

Names = dict[str, str]


def timm_names(table: Table, nodes: Collection[str]) -> Names:
    """timm 1.0.31: blocks are numbered by stage and place, and a block's convolutions by their role."""
    names = {"stem.conv": "conv_stem", "stem.batch_norm": "bn1", "classifier": "classifier"}
    last = 0
    for number, (row, (stage, place)) in enumerate(zip(table.unrolled(), _stages(table), strict=True)):
        expands = f"blocks.{number}.expand.conv" in nodes
        for ours, theirs in _timm_block(row, expands).items():
            names[f"blocks.{number}.{ours}"] = f"blocks.{stage}.{place}.{theirs}"
        last = stage
    return _only(names | _timm_head(table, last + 1), nodes)


def _stages(table: Table) -> Iterator[tuple[int, int]]:
    """(stage, place) of each block: a stage begins at a stride; but for V1 and V4 also where the width changes,
    and in MobileNet-EdgeTPU at a block without a residual.
    """
    by_width = table.family not in ("v1", "v4")
    stage, place, width = -1, 0, 0
    for row in table.unrolled():
        alone = table.family == "edgetpu" and not getattr(row, "residual", True)
        if stage < 0 or row.stride > 1 or alone or (by_width and row.out != width):
            stage, place = stage + 1, -1
        place, width = place + 1, row.out
        yield stage, place


_GATES = {"squeeze_excite.reduce": "se.conv_reduce", "squeeze_excite.expand": "se.conv_expand"}


def _timm_block(row: Row, expands: bool) -> Names:
    if isinstance(row, InvertedResidualRow) and expands:
        return _numbered("expand", "conv_pw", "depthwise", "conv_dw", "project", "conv_pwl") | _GATES
    if isinstance(row, InvertedResidualRow):
        return _numbered("depthwise", "conv_dw", "project", "conv_pw") | _GATES
    if isinstance(row, SeparableRow):
        return _numbered("depthwise", "conv_dw", "pointwise", "conv_pw")
    if isinstance(row, FusedRow):
        return _numbered("expand", "conv_exp", "project", "conv_pwl")
    if isinstance(row, UniversalRow):
        return _UNIVERSAL
    return _ATTENTION if isinstance(row, AttentionRow) else {"conv": "conv", "batch_norm": "bn1"}


def _numbered(*pairs: str) -> Names:
    """Our part, their convolution, and so on: the batch norms are bn1, bn2, ... in that order."""
    names: Names = {}
    for number, (ours, theirs) in enumerate(zip(pairs[::2], pairs[1::2], strict=True), 1):
        names |= {f"{ours}.conv": theirs, f"{ours}.batch_norm": f"bn{number}"}
    return names


_UNIVERSAL = {
    f"{ours}.{layer}": f"{theirs}.{name}"
    for ours, theirs in (
        ("depthwise_start", "dw_start"),
        ("expand", "pw_exp"),
        ("depthwise", "dw_mid"),
        ("project", "pw_proj"),
    )
    for layer, name in (("conv", "conv"), ("batch_norm", "bn"))
} | {"layer_scale": "layer_scale"}
_ATTENTION = {
    "batch_norm": "norm",
    "query.conv": "attn.query.proj",
    "key.depthwise.conv": "attn.key.down_conv",
    "key.depthwise.batch_norm": "attn.key.norm",
    "key.conv": "attn.key.proj",
    "value.depthwise.conv": "attn.value.down_conv",
    "value.depthwise.batch_norm": "attn.value.norm",
    "value.conv": "attn.value.proj",
    "project.conv": "attn.output.proj",
    "layer_scale": "layer_scale",
}


def _timm_head(table: Table, stage: int) -> Names:
    """V3's and V4's convolution before the mean is one more stage; what follows the mean is the head."""
    if not any(isinstance(row, HiddenRow) for row in table.head):
        return {"head.conv": "conv_head", "head.batch_norm": "bn2"}
    names = {"head.hidden.dense": "conv_head", "head.hidden.batch_norm": "norm_head"}
    for place, row in enumerate(row for row in table.head if isinstance(row, ConvRow)):
        ours = f"head.{row.name}" if row.name else "head"
        names |= {
            f"{ours}.conv": f"blocks.{stage}.{place}.conv",
            f"{ours}.batch_norm": f"blocks.{stage}.{place}.bn1",
        }
    return names


def torchvision_v2_names(table: Table, nodes: Collection[str]) -> Names:
    """torchvision 0.28.0: features.N.conv holds pairs of convolution and norm, but for the last one."""
    names = {"stem.conv": "features.0.0", "stem.batch_norm": "features.0.1", "classifier": "classifier.1"}
    blocks = len(list(table.unrolled()))
    for number in range(blocks):
        paired = [part for part in ("expand", "depthwise") if f"blocks.{number}.{part}.conv" in nodes]
        theirs = f"features.{number + 1}.conv"
        for place, part in enumerate(paired):
            names |= _pair(f"blocks.{number}.{part}", f"{theirs}.{place}.0", f"{theirs}.{place}.1")
        last = len(paired)
        names |= _pair(f"blocks.{number}.project", f"{theirs}.{last}", f"{theirs}.{last + 1}")
    return names | _pair("head", f"features.{blocks + 1}.0", f"features.{blocks + 1}.1")


def torchvision_v3_names(table: Table, nodes: Collection[str]) -> Names:
    """torchvision 0.28.0: features.N.block holds expand, depthwise, squeeze-excite and project, if there."""
    names = _pair("stem", "features.0.0", "features.0.1")
    blocks = len(list(table.unrolled()))
    for number in range(blocks):
        ours, place = f"blocks.{number}", 0
        for part in ("expand", "depthwise", "squeeze_excite", "project"):
            theirs = f"features.{number + 1}.block.{place}"
            if f"{ours}.{part}.conv" in nodes:
                names |= _pair(f"{ours}.{part}", f"{theirs}.0", f"{theirs}.1")
            elif f"{ours}.{part}.reduce" in nodes:
                names |= {f"{ours}.{part}.reduce": f"{theirs}.fc1", f"{ours}.{part}.expand": f"{theirs}.fc2"}
            else:
                continue
            place += 1
    names |= _pair("head", f"features.{blocks + 1}.0", f"features.{blocks + 1}.1")
    return names | {"head.hidden.dense": "classifier.0", "classifier": "classifier.3"}


def torchvision_lraspp_names(table: Table, nodes: Collection[str]) -> Names:
    """torchvision 0.28.0: `backbone` is V3's `features`, without that word."""
    return (
        _backbone(table, nodes)
        | _pair("segment.reduce", "classifier.cbr.0", "classifier.cbr.1")
        | {
            "segment.gate.conv": "classifier.scale.1",
            "segment.low_classifier": "classifier.low_classifier",
            "segment.high_classifier": "classifier.high_classifier",
        }
    )


def torchvision_deeplab_names(table: Table, nodes: Collection[str]) -> Names:
    """torchvision 0.28.0: the pyramid's branches are numbered, its mean is the last; then a list of layers."""
    names = _backbone(table, nodes) | {"segment.classifier": "classifier.4"}
    for branch in range(4):
        theirs = f"classifier.0.convs.{branch}"
        names |= _pair(f"segment.pyramid.{branch}", f"{theirs}.0", f"{theirs}.1")
    names |= _pair("segment.pool", "classifier.0.convs.4.1", "classifier.0.convs.4.2")
    names |= _pair("segment.project", "classifier.0.project.0", "classifier.0.project.1")
    names |= _pair("segment.refine", "classifier.1", "classifier.2")
    names |= _pair("segment.auxiliary", "aux_classifier.0", "aux_classifier.1")
    return names | {"segment.auxiliary.classifier": "aux_classifier.4"}


def _backbone(table: Table, nodes: Collection[str]) -> Names:
    named = torchvision_v3_names(table, nodes).items()
    return {
        ours: theirs.replace("features.", "backbone.", 1)
        for ours, theirs in named
        if theirs.startswith("features.")
    }


def d_li14_v2_names(table: Table, nodes: Collection[str]) -> Names:
    """d-li14/mobilenetv2.pytorch: features.N.conv is one list with activations in between."""
    return _d_li14(table, nodes, {"classifier": "classifier"}, gap=0)


def d_li14_v3_names(table: Table, nodes: Collection[str]) -> Names:
    """d-li14/mobilenetv3.pytorch: as V2, with a place for squeeze-excite that may be empty."""
    return _d_li14(table, nodes, {"head.hidden.dense": "classifier.0", "classifier": "classifier.3"}, gap=1)


def _d_li14(table: Table, nodes: Collection[str], head: Names, gap: int) -> Names:
    names = _pair("stem", "features.0.0", "features.0.1") | _pair("head", "conv.0", "conv.1") | head
    for number, _ in enumerate(table.unrolled()):
        ours, theirs = f"blocks.{number}", f"features.{number + 1}.conv"
        expands = f"{ours}.expand.conv" in nodes
        # with expansion: 0, 1, activation, 3, 4, [squeeze-excite,] activation, then the projection
        depthwise, gate = (3, 5) if expands else (0, 3)
        project = depthwise + 3 + gap
        if expands:
            names |= _pair(f"{ours}.expand", f"{theirs}.0", f"{theirs}.1")
        names |= _pair(f"{ours}.depthwise", f"{theirs}.{depthwise}", f"{theirs}.{depthwise + 1}")
        names |= _pair(f"{ours}.project", f"{theirs}.{project}", f"{theirs}.{project + 1}")
        for part, place in (("reduce", 0), ("expand", 2)):
            names[f"{ours}.squeeze_excite.{part}"] = f"{theirs}.{gate}.fc.{place}"
    return _only(names, nodes)


def transformers_v1_names(table: Table, nodes: Collection[str]) -> Names:  # noqa: ARG001
    """transformers' MobileNetV1: depthwise and pointwise layers in one list; without "mobilenet_v1."."""
    names = _layer("stem", "conv_stem") | {"classifier": "classifier"}
    for number, _ in enumerate(table.unrolled()):
        names |= _layer(f"blocks.{number}.depthwise", f"layer.{2 * number}")
        names |= _layer(f"blocks.{number}.pointwise", f"layer.{2 * number + 1}")
    return names


def transformers_v2_names(table: Table, nodes: Collection[str]) -> Names:
    """transformers' MobileNetV2: the first block belongs to the stem; without "mobilenet_v2."."""
    names = _layer("stem", "conv_stem.first_conv") | _layer("head", "conv_1x1") | {"classifier": "classifier"}
    for number, _ in enumerate(table.unrolled()):
        theirs = f"layer.{number - 1}" if number else "conv_stem"
        for ours, name in (("expand", "expand_1x1"), ("depthwise", "conv_3x3"), ("project", "reduce_1x1")):
            names |= _layer(f"blocks.{number}.{ours}", f"{theirs}.{name}")
    return _only(names, nodes)


def _layer(ours: str, theirs: str) -> Names:
    return _pair(ours, f"{theirs}.convolution", f"{theirs}.normalization")


def _pair(ours: str, convolution: str, norm: str) -> Names:
    return {f"{ours}.conv": convolution, f"{ours}.batch_norm": norm}


def _only(names: Names, nodes: Collection[str]) -> Names:
    return {ours: theirs for ours, theirs in names.items() if ours in nodes}
