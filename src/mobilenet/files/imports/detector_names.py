"""What torchvision calls the layers of its SSDLite detectors."""

from __future__ import annotations

from collections.abc import Collection

from mobilenet.family.rows import Table
from mobilenet.files.imports.torch_names import Names, torchvision_v3_names

HEADS = {"scores": "classification_head", "boxes": "regression_head"}


def torchvision_ssdlite_names(table: Table, nodes: Collection[str]) -> Names:
    """torchvision 0.28.0: V3's `features`, cut in two inside the block that takes stride 16 to 32.

    The first half ends with that block's expansion; the second begins with the rest of it, numbered on.
    """
    strides = [table.stem.stride] + [row.stride for row in table.unrolled()]
    cut = max(number for number, stride in enumerate(strides) if stride > 1)  # of `features`, where 0 is the stem
    names = {
        ours: _halved(theirs, cut)
        for ours, theirs in torchvision_v3_names(table, nodes).items()
        if theirs.startswith("features.")
    }
    for number in range(sum(node.startswith("extra.") and node.endswith(".reduce.conv") for node in nodes)):
        for place, part in enumerate(("reduce", "depthwise", "expand")):
            names |= _pair(f"extra.{number}.{part}", f"backbone.extra.{number}.{place}")
    for output, theirs in HEADS.items():
        for number in range(sum(node.endswith(f".{output}.predict") for node in nodes)):
            ours, layers = f"detect.{number}.{output}", f"head.{theirs}.module_list.{number}"
            names |= _pair(f"{ours}.depthwise", f"{layers}.0") | {f"{ours}.predict": f"{layers}.1"}
    return names


def _halved(name: str, cut: int) -> str:
    _, number, *rest = name.split(".")
    if int(number) < cut:
        return f"backbone.features.0.{number}.{'.'.join(rest)}"
    if int(number) > cut:
        return f"backbone.features.1.{int(number) - cut}.{'.'.join(rest)}"
    _, place, *layer = rest  # "block", the layer's place in it
    half = f"0.{cut}" if place == "0" else f"1.0.{place}"
    return f"backbone.features.{half}.{'.'.join(layer)}"


def _pair(ours: str, theirs: str) -> Names:
    return {f"{ours}.conv": f"{theirs}.0", f"{ours}.batch_norm": f"{theirs}.1"}
