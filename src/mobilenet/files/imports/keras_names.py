"""What Keras calls the layers of a network, in small letters with underscores (see `plain_keras_name`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from mobilenet.family.rows import Table
from mobilenet.files.imports.torch_names import Names


def plain_keras_name(name: str) -> str:
    """One spelling for the names of all releases: "expanded_conv_1/expand/BatchNorm" was once what is now
    "expanded_conv_1_expand_bn", and "Conv_1" of V3 what is now "conv_1".
    """
    return name.replace("/", "_").lower().replace("batchnorm", "bn")


def keras_v1_names(table: Table, nodes: Collection[str]) -> Names:  # noqa: ARG001
    """keras.applications.MobileNet: conv_dw_1 and conv_pw_1 to conv_dw_13 and conv_pw_13."""
    names = {"stem.conv": "conv1", "stem.batch_norm": "conv1_bn", "classifier": "conv_preds"}
    for number, _ in enumerate(table.unrolled()):
        for ours, theirs in (("depthwise", f"conv_dw_{number + 1}"), ("pointwise", f"conv_pw_{number + 1}")):
            names |= _pair(f"blocks.{number}.{ours}", theirs)
    return names


def keras_v2_names(table: Table, nodes: Collection[str]) -> Names:
    """keras.applications.MobileNetV2: expanded_conv, then block_1 to block_16."""
    names = {"stem.conv": "conv1", "stem.batch_norm": "bn_conv1", "classifier": "predictions"}
    for number, _ in enumerate(table.unrolled()):
        theirs = f"block_{number}" if number else "expanded_conv"
        for part in ("expand", "depthwise", "project"):
            names |= _pair(f"blocks.{number}.{part}", f"{theirs}_{part}")
    return _only(names | _pair("head", "conv_1"), nodes)


def keras_v3_names(table: Table, nodes: Collection[str]) -> Names:
    """keras.applications.MobileNetV3Large and Small, minimalistic or not: expanded_conv, expanded_conv_1, ..."""
    names = _pair("stem", "conv") | _pair("head", "conv_1")
    names |= {"head.hidden.dense": "conv_2", "classifier": "logits"}
    for number, _ in enumerate(table.unrolled()):
        ours, theirs = f"blocks.{number}", f"expanded_conv_{number}" if number else "expanded_conv"
        for part in ("expand", "depthwise", "project"):
            names |= _pair(f"{ours}.{part}", f"{theirs}_{part}")
        names[f"{ours}.squeeze_excite.reduce"] = f"{theirs}_squeeze_excite_conv"
        names[f"{ours}.squeeze_excite.expand"] = f"{theirs}_squeeze_excite_conv_1"
    return _only(names, nodes)


def keras_ordered_names(table: Table, nodes: Collection[str]) -> Names:
    """The first releases of Keras 3 number the layers of a weights file by class instead of naming them."""
    count: Counter[str] = Counter()
    names = {}
    for node in nodes:
        kind = _keras_class(table, node)
        if kind:
            names[node] = f"{kind}_{count[kind]}" if count[kind] else kind
            count[kind] += 1
    return names


def _keras_class(table: Table, node: str) -> str:
    part = node.rpartition(".")[2]
    if part == "conv":
        return "depthwise_conv2d" if ".depthwise." in node else "conv2d"
    if part == "classifier":
        return "dense" if table.family == "v2" else "conv2d"
    return {"batch_norm": "batch_normalization", "reduce": "conv2d", "expand": "conv2d", "dense": "conv2d"}.get(
        part, ""
    )


def _pair(ours: str, theirs: str) -> Names:
    return {f"{ours}.conv": theirs, f"{ours}.batch_norm": f"{theirs}_bn"}


def _only(names: Names, nodes: Collection[str]) -> Names:
    return {ours: theirs for ours, theirs in names.items() if ours in nodes}
