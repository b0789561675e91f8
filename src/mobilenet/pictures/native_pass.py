"""The native picture pass (native/src/picture.cc), for `Preprocessing` and nobody else.

It computes what `Preprocessing.reference_geometry` and the look-up of values or quanta after it compute, bit for
bit, without an intermediate picture. Where the compiled engine is missing, Pillow and numpy do the same work more
slowly; that is said once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import ArgumentError, OutOfMemoryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The numbers of native/include/mobilenet.h.
_RESIZE_RULES = {"crop": 0, "stretch": 1, "pad": 2}
_INTERPOLATIONS = {"nearest": 0, "box": 1, "bilinear": 2, "bicubic": 3, "lanczos": 4}
_CHANNELS = {"RGB": 0, "BGR": 1, "L": 2}


@cache
def engine() -> ModuleType | None:
    """The compiled module, or nothing, after a warning, where it is missing."""
    try:
        from mobilenet import _engine
    except ImportError as error:
        warnings.warn(
            f"the compiled engine cannot be imported ({error}): Pillow resizes pictures instead, with the same "
            "result but several times slower; pip install . in the project's folder builds it",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return _engine


@contextmanager
def our_errors(native: ModuleType) -> Iterator[None]:
    """Raises `OutOfMemoryError` or `ArgumentError` where a call of the compiled module fails."""
    try:
        yield
    except native.Failure as failure:
        code, text = failure.args
        raise (OutOfMemoryError if code == native.NO_MEMORY else ArgumentError)(text) from None


def run(
    native: ModuleType,
    fields: tuple[str, str, str, int, float],
    picture: NDArray[np.uint8],
    output: NDArray[Any],
    table: NDArray[Any] | None,
) -> None:
    """Fill `output` from a decoded picture.

    Args:
        native: what `engine` returned.
        fields: resize, interpolation, channels, fill and crop_fraction of a `Preprocessing`.
        picture: uint8 [H, W, 3] RGB, or [H, W, 4], of which the fourth byte is not used.
        output: [height, width, C], contiguous, of `table`'s dtype; uint8 where there is none.
        table: [C, 256], what each level of each channel becomes; none: the levels themselves.

    Raises:
        ArgumentError: `MOBILENET_ISA` names an instruction set that this processor or build does not have.
        OutOfMemoryError: there is not enough memory.
    """
    resize, interpolation, channels, fill, crop_fraction = fields
    with our_errors(native):
        native.preprocess(
            _RESIZE_RULES[resize],
            _INTERPOLATIONS[interpolation],
            _CHANNELS[channels],
            fill,
            crop_fraction,
            np.ascontiguousarray(picture),
            table,
            output,
            os.environ.get("MOBILENET_ISA") or None,
        )
