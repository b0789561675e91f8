"""How implementations of one table differ: padding, batch norm, rounding of widths, stem, last layers, gates.

A dialect belongs to a family ("v2") and an implementation ("timm"); `DIALECTS` holds them all. What a table
says at width 1 is the same everywhere: these rules are what weights of one project need to run in another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import inf

from mobilenet.errors import ArgumentError


@dataclass(frozen=True)
class Rounding:
    """How channels times the width multiplier become a whole number.

    The nearest multiple of `divisor`, at least `minimum` (None: the divisor), one step more where that would
    lose over a tenth (TF-slim's `make_divisible`). With `truncate`, the product is cut to an integer first.
    `divisor_at` gives another divisor at some width multipliers.
    """

    divisor: int = 8
    minimum: int | None = None
    truncate: bool = False
    divisor_at: tuple[tuple[float, int], ...] = ()

    def __call__(self, channels: float, width_multiplier: float = 1.0) -> int:
        """Channels for `channels * width_multiplier`."""
        wanted = channels * width_multiplier
        if self.truncate:
            wanted = int(wanted)
        divisor = dict(self.divisor_at).get(width_multiplier, self.divisor)
        rounded = max(self.minimum or divisor, int(wanted + divisor / 2) // divisor * divisor)
        return rounded + divisor if rounded < 0.9 * wanted else rounded


@dataclass(frozen=True)
class Dialect:
    """One implementation's rules for one family.

    Args:
        padding: "same" (TensorFlow), "symmetric" (torch), or "bottom_right": SAME, except that a depthwise
            convolution of stride 2 always pads one row below and one column to the right (Keras V1).
        epsilon: of batch norm; it belongs to the weights.
        momentum: of batch norm, the share of the new batch (1 - TensorFlow's decay).
        rounding: of the width of blocks.
        stem_scales_from: the stem keeps its width at smaller multipliers.
        last_layer: the wide layer at the end ("fixed": as in the table, "widened": grows with multipliers above
            1, "scaled": follows every multiplier).
        expansion: how wide a block's inside gets: "ratio", the table's expansion times the block's actual
            input, or "width", the table's own number times the multiplier.
        last_convolution: the same choice for V3's convolution before the mean.
        squeeze_divisor: squeeze-excite narrows to a quarter, rounded to a multiple of this.
        squeeze_activation: "relu", or "block": that of the block.
        gate: the activation that ends squeeze-excite.
        squeezes_before_activation: whether squeeze-excite stands between batch norm and activation in blocks
            that expand.
        dilates_striding_block: when a stride becomes dilation, whether the convolution that had the stride is
            dilated already (torchvision), or only those after it (DeepLab).
        segmenter_norm: (epsilon, momentum) of batch norm in a segmentation head, where they are not those above.
    """

    padding: str = "same"
    epsilon: float = 1e-3
    momentum: float = 0.01
    rounding: Rounding = Rounding()
    stem_scales_from: float = 0.0
    last_layer: str = "widened"
    expansion: str = "ratio"
    last_convolution: str = "ratio"
    squeeze_divisor: int = 8
    squeeze_activation: str = "relu"
    gate: str = "hard_sigmoid"
    squeezes_before_activation: bool = False
    dilates_striding_block: bool = False
    segmenter_norm: tuple[float, float] | None = None

    def channels(self, channels: int, width_multiplier: float, scale: str) -> int:
        """The width of a layer that has `channels` at width 1; `scale` is the row's (see `rows.SCALES`)."""
        if scale == "fixed" or (scale == "stem" and width_multiplier < self.stem_scales_from):
            return channels
        if scale == "last" and self.last_layer != "scaled":
            width_multiplier = max(width_multiplier, 1.0) if self.last_layer == "widened" else 1.0
        return self.rounding(channels, width_multiplier)

    def squeezed(self, channels: int) -> int:
        """The narrow width of a squeeze-excite on `channels`."""
        return Rounding(self.squeeze_divisor)(channels / 4)


# V3's paper (6.1) trains with a decay of 0.99; where a paper names none, "paper" takes the same, because the
# 0.9997 and 0.997 of TF-slim need tens of thousands of steps.
_TRUNCATED = Rounding(1, minimum=8, truncate=True)
_TORCH = Dialect(padding="symmetric", epsilon=1e-5, momentum=0.1)
_TIMM_V3 = replace(_TORCH, stem_scales_from=0.75, last_layer="fixed", last_convolution="width")
_TORCHVISION_V3 = replace(
    _TORCH,
    epsilon=1e-3,
    momentum=0.01,
    expansion="width",
    last_layer="scaled",
    dilates_striding_block=True,
    segmenter_norm=(1e-5, 0.1),
)
_SLIM_V3 = Dialect(momentum=0.003, last_layer="fixed", last_convolution="width", gate="hard_sigmoid_slim")

DIALECTS: dict[str, dict[str, Dialect]] = {
    "v1": {
        "paper": Dialect(rounding=_TRUNCATED),
        "slim": Dialect(rounding=_TRUNCATED, momentum=0.0003),
        "keras": Dialect(padding="bottom_right", rounding=Rounding(1, minimum=1, truncate=True)),
        "timm": _TORCH,
    },
    "v2": {
        "paper": Dialect(),
        "slim": Dialect(momentum=0.003),
        "keras": Dialect(momentum=0.001, rounding=Rounding(truncate=True)),
        "torchvision": _TORCH,
        "timm": _TORCH,
        "d_li14": replace(_TORCH, rounding=Rounding(divisor_at=((0.1, 4),))),
    },
    "v3": {
        "paper": Dialect(last_layer="fixed"),
        "slim": _SLIM_V3,
        "keras": Dialect(momentum=0.001, stem_scales_from=inf),
        "torchvision": _TORCHVISION_V3,
        "timm": _TIMM_V3,
        "timm_tf": replace(_TIMM_V3, padding="same", epsilon=1e-3),
        "timm_rw": replace(_TIMM_V3, epsilon=1e-3, squeeze_divisor=1, squeeze_activation="block"),
        "d_li14": replace(_TORCH, squeezes_before_activation=True),
    },
    "edgetpu": {"paper": Dialect(), "slim": Dialect(momentum=0.003)},
    "multi": {"paper": Dialect()},
    "v4": {"paper": Dialect(), "timm": replace(_TORCH, stem_scales_from=1.0, last_layer="fixed")},
    "facenet": {"paper": Dialect()},
}

# How pictures reach the network that these projects trained: names of `pictures.preprocess.PRESETS`.
_PREPROCESSING = {
    "paper": "tf",
    "slim": "tf",
    "keras": "tf",
    "torchvision": "imagenet",
    "timm": "timm",
    "timm_tf": "tf",
    "timm_rw": "timm",
    "d_li14": "imagenet",
}


def find_dialect(name: str, family: str) -> Dialect:
    """The rules of implementation `name` for a family; raises `ArgumentError` if it has none."""
    known = DIALECTS[family]
    if not isinstance(name, str) or name not in known:
        close = get_close_matches(str(name), known, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(known)}"
        raise ArgumentError(f"family '{family}' has no dialect '{name}'; {hint}")
    return known[name]


def preprocessing_preset(dialect: str) -> str:
    """The name of the preprocessing that goes with a dialect: "tf", "imagenet" or "timm".

    Raises:
        ArgumentError: an unknown dialect.
    """
    if not isinstance(dialect, str) or dialect not in _PREPROCESSING:
        raise ArgumentError(f"unknown dialect '{dialect}'; known are {', '.join(_PREPROCESSING)}")
    return _PREPROCESSING[dialect]
