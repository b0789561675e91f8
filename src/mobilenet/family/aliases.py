"""What a name stands for: the names of this package, and those that people know from elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches

from mobilenet.errors import ArgumentError
from mobilenet.family.dialects import DIALECTS, find_dialect
from mobilenet.family.tables import TABLES


@dataclass(frozen=True)
class Spec:
    """What a name stands for.

    Args:
        name: of the table, as `list_models` gives it.
        width_multiplier: that the name says, or the table's.
        resolution: side of the picture that the name says, or the table's.
        dialect: that the name implies, or the table's.
        width_named: whether the name itself says the width multiplier.
    """

    name: str
    width_multiplier: float
    resolution: int
    dialect: str
    width_named: bool = False


# timm: everything before the width, or the whole name where there is no width -> (table, dialect).
_TIMM = {
    "mobilenetv1": ("mobilenet_v1", "timm"),
    "mobilenetv1_100h": ("mobilenet_v1_convolution_head", "timm"),
    "mobilenetv2": ("mobilenet_v2", "timm"),
    "mobilenetv2_110d": ("mobilenet_v2_110d", "timm"),
    "mobilenetv2_120d": ("mobilenet_v2_120d", "timm"),
    "mobilenetv3_large": ("mobilenet_v3_large", "timm"),
    "mobilenetv3_large_150d": ("mobilenet_v3_large_150d", "timm"),
    "mobilenetv3_rw": ("mobilenet_v3_large_rw", "timm_rw"),
    "mobilenetv3_small": ("mobilenet_v3_small", "timm"),
    "tf_mobilenetv3_large": ("mobilenet_v3_large", "timm_tf"),
    "tf_mobilenetv3_large_minimal": ("mobilenet_v3_large_minimalistic", "timm_tf"),
    "tf_mobilenetv3_small": ("mobilenet_v3_small", "timm_tf"),
    "tf_mobilenetv3_small_minimal": ("mobilenet_v3_small_minimalistic", "timm_tf"),
    "mobilenetv4_conv_small": ("mobilenet_v4_conv_small", "timm"),
    "mobilenetv4_conv_medium": ("mobilenet_v4_conv_medium", "timm"),
    "mobilenetv4_conv_large": ("mobilenet_v4_conv_large", "timm"),
    "mobilenetv4_conv_aa_medium": ("mobilenet_v4_conv_aa_medium", "timm"),
    "mobilenetv4_conv_aa_large": ("mobilenet_v4_conv_aa_large", "timm"),
    "mobilenetv4_conv_blur_medium": ("mobilenet_v4_conv_blur_medium", "timm"),
    "mobilenetv4_hybrid_medium": ("mobilenet_v4_hybrid_medium", "timm"),
    "mobilenetv4_hybrid_large": ("mobilenet_v4_hybrid_large", "timm"),
}
# timm builds these narrow ones for pictures of another size than the wide ones.
_TIMM_RESOLUTIONS = {"mobilenetv4_hybrid_medium_075": 224, "mobilenetv4_hybrid_large_075": 256}
_KERAS = {
    "MobileNet": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3Large": "mobilenet_v3_large",
    "MobileNetV3Small": "mobilenet_v3_small",
}
_HUBS = {"google": "slim"}  # Hugging Face's google/mobilenet_v2_1.0_224
# mobilenet_v2_0.5_160 (TF-slim), mobilenet_v2_050_160 (TensorFlow Hub), mobilenet_v2_0.5.
_SLIM = re.compile(r"(?P<name>.+?)_(?:(?P<width>\d+\.\d+)(?:_(?P<side>\d+))?|(?P<percent>\d{3})_(?P<of>\d+))")
# v3-large-minimalistic_224_1.0_float (TF-slim's page of V3).
_SLIM_V3 = re.compile(
    r"v3-(?P<name>large|small)(?P<form>-minimalistic)?_(?P<side>\d+)_(?P<width>\d+\.\d+)(_(float|uint8))?"
)
_TIMM_WIDTH = re.compile(r"(?P<name>.+)_(?P<percent>\d{3})")


def known_names() -> list[str]:
    """The names of all tables, then those of timm and Keras."""
    return [*TABLES, *_TIMM, *_KERAS]


def resolve(name: str) -> Spec:
    """What a name says about table, width, resolution and dialect.

    Understood are the names of `list_models` (also torchvision's), of timm (`mobilenetv2_050`, with a tag such
    as `.ra_in1k` or not), of TF-slim and TensorFlow Hub (`mobilenet_v2_0.5_160`, `mobilenet_v2_050_160`,
    `v3-large_224_1.0`) and of Keras (`MobileNetV2`); a prefix such as `torchvision/` picks the dialect,
    `google/` TF-slim's.

    Raises:
        ArgumentError: an unknown name; the message has the nearest known one.
    """
    prefix, _, rest = name.rpartition("/") if isinstance(name, str) else ("", "", "")
    for reader in (_own_name, _timm_name, _keras_name, _slim_v3_name, _slim_name):
        spec = reader(rest)
        if spec is not None:
            return _in_dialect(spec, _HUBS.get(prefix, prefix)) if prefix else spec
    close = get_close_matches(rest, known_names(), 1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else "mobilenet.list_models() gives all names"
    raise ArgumentError(f"unknown network {name!r}; {hint}")


def _in_dialect(spec: Spec, dialect: str) -> Spec:
    if spec.dialect.startswith(f"{dialect}_"):  # "timm/tf_..." is said of "timm_tf"
        return spec
    find_dialect(dialect, TABLES[spec.name].family)
    return replace(spec, dialect=dialect)


def _own_name(name: str) -> Spec | None:
    return _spec(name) if name in TABLES else None


def _timm_name(name: str) -> Spec | None:
    model, _, tag = name.partition(".")
    side = re.search(r"(?:^|_)r(\d+)(?:_|$)", tag)
    resolution = int(side[1]) if side else _TIMM_RESOLUTIONS.get(model)
    if model in _TIMM:
        table, dialect = _TIMM[model]
        return _spec(table, None, resolution, dialect)
    match = _TIMM_WIDTH.fullmatch(model)
    table, dialect = _TIMM.get(match["name"], ("", "")) if match else ("", "")
    if match is None or not table or TABLES[table].width_multiplier != 1:
        return None
    return _spec(table, int(match["percent"]) / 100, resolution, dialect)


def _keras_name(name: str) -> Spec | None:
    return _spec(_KERAS[name], dialect="keras") if name in _KERAS else None


def _slim_v3_name(name: str) -> Spec | None:
    match = _SLIM_V3.fullmatch(name)
    if match is None:
        return None
    table = f"mobilenet_v3_{match['name']}" + ("_minimalistic" if match["form"] else "")
    return _spec(table, float(match["width"]), int(match["side"]), "slim")


def _slim_name(name: str) -> Spec | None:
    match = _SLIM.fullmatch(name)
    if match is None or match["name"] not in TABLES:
        return None
    table = match["name"]
    width = float(match["width"]) if match["width"] else int(match["percent"]) / 100
    side = match["side"] or match["of"]
    has_slim = "slim" in DIALECTS[TABLES[table].family]
    return _spec(table, width, int(side) if side else None, "slim" if has_slim else None)


def _spec(
    name: str, width_multiplier: float | None = None, resolution: int | None = None, dialect: str | None = None
) -> Spec:
    table = TABLES[name]
    named = width_multiplier is not None or table.width_multiplier != 1
    return Spec(
        name,
        table.width_multiplier if width_multiplier is None else width_multiplier,
        table.resolution if resolution is None else resolution,
        dialect or table.dialect,
        named,
    )
