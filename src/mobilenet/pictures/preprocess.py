"""From a picture to a network's input: one rule that travels in the model file.

Training, evaluation, prediction, the engine, the exports and the browser all follow this file, so it says
exactly what is computed. Three steps: geometry (uint8 to uint8), then values (a table look-up), then, for a
quantised network, quanta (another table look-up).

**Geometry.** With a source of W × H pixels and a target of w × h, the source window (left, top, right,
bottom) is computed in float64 and rounded to float32:

- `crop`: window sides (H*w/h, H) if W*h > H*w, else (W, W*h/w), both times `crop_fraction`, centred;
- `stretch`: window sides (W, H) times `crop_fraction`, centred;
- `pad`: the whole picture, for a target of (w, max(1, H*w/W)) if W*h >= H*w, else (max(1, W*h/H), h), rounded
  half up; it is centred (odd rests: the larger border is right and below), the borders filled with `fill`.

The window is resampled once along each axis: all source rows to w columns, rounded to uint8, then those to h
rows; the other axis first only where w * H is more than 50,000,000 (very tall pictures). That is Pillow's
`Image.resize(size, filter, box=window)` up to version 12, in one call for each axis because the order of a
single call depends on its version. For output x of an axis with window (start, end), in float64:

    scale = float32(end - start) / size    stretch = max(scale, 1)           support = radius * stretch
    centre = start + (x + 0.5) * scale
    first = max(0, int(centre - support + 0.5))
    last  = min(source size, int(centre + support + 0.5))
    weight[i] = filter((i - centre + 0.5) * (1 / stretch)), i = first .. last - 1, divided by their sum
    fixed[i]  = weight[i] * 2**22 rounded half away from zero
    out[x] = clamp((2**21 + sum(fixed[i] * in[i])) >> 22, 0, 255)

with `box` (radius 0.5; 1 for -0.5 < t <= 0.5), `bilinear` (1; 1 - |t|), `bicubic` (2; Keys, a = -0.5) and
`lanczos` (3; sinc(t) * sinc(t / 3)). An axis whose window is the whole source and whose size does not change
is not resampled. `nearest` takes pixel floor(start + scale / 2) for x = 0, adding scale for each further x.

**Values.** (pixel - mean) / std, each operation in float32. **Quanta.** See `Preprocessing.quantised`.

**Reduced decoding.** With `reduced_decoding`, a JPEG file of upright size W × H whose window (before centring) has
the sides a × b, for a target of w × h (`pad`: of the picture inside the borders), is decoded at the scale 1/n by
libjpeg's smaller inverse transforms (Pillow's draft mode), n the largest of 8, 4, 2 with a >= 2 * n * w and
b >= 2 * n * h; if there is none, as it is. The decoded picture, ceil(W / n) × ceil(H / n) pixels, then takes the
place of the source in all of the above. Pictures of other kinds, and those that come decoded, are not changed.

`Preprocessing.reference_geometry` is the geometry in Pillow; `native/src/picture.cc` computes it, and the values
or quanta, in one pass, bit for bit, and is what runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.pictures import native_pass
from mobilenet.pictures.decode import MAX_PIXELS, Picture, decode_image, is_decoded, pixel_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]

RESIZE_RULES = ("crop", "stretch", "pad")
CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
MAX_SIZE = 16384
MAX_LEVEL = 1e6  # of mean and std: far above any pixel value, far below float32 overflow

# How far from a tie a float32 scale can push it: 256 quanta * 2**-24, and some room.
_TIE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the input of a network; the module's text gives the arithmetic.

    Args:
        height, width: size of the input in pixels, 1 to 16384.
        resize: "crop" keeps the aspect ratio and cuts, "stretch" changes it, "pad" keeps it and adds borders.
        crop_fraction: the part of each side of the window that is kept, up to 1; "pad" ignores it.
        interpolation: "bilinear", "bicubic", "lanczos", "box" or "nearest"; all but the last are antialiased.
        channels: "RGB", "BGR" or "L" (luma of ITU-R BT.601: (19595 R + 38470 G + 7471 B + 32768) >> 16, taken
            after resizing).
        mean, std: one number a channel, in pixel values 0 to 255 and in the order of `channels`.
        fill: grey level 0 to 255 of the borders that "pad" adds.
        reduced_decoding: whether JPEG files that are much larger than needed may be decoded at a half, a quarter
            or an eighth of their size: faster, and other pixels than a full decoding gives.

    Raises:
        ArgumentError: a field is not valid; the message names it and says what is accepted.
    """

    height: int
    width: int
    resize: str = "crop"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    channels: str = "RGB"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)
    fill: int = 127
    reduced_decoding: bool = False

    def __post_init__(self) -> None:
        checked = {
            "height": _integer("height", self.height, 1, MAX_SIZE),
            "width": _integer("width", self.width, 1, MAX_SIZE),
            "resize": _choice("resize", self.resize, RESIZE_RULES),
            "crop_fraction": _number("crop_fraction", self.crop_fraction, 1e-6, 1),
            "interpolation": _choice("interpolation", self.interpolation, tuple(INTERPOLATIONS)),
            "channels": _choice("channels", self.channels, tuple(CHANNELS)),
            "fill": _integer("fill", self.fill, 0, 255),
            "reduced_decoding": _truth("reduced_decoding", self.reduced_decoding),
        }
        checked["mean"] = _numbers("mean", self.mean, CHANNELS[self.channels], -MAX_LEVEL, MAX_LEVEL)
        checked["std"] = _numbers("std", self.std, CHANNELS[self.channels], 1e-6, MAX_LEVEL)
        for name, value in checked.items():  # lists and numpy scalars become what JSON and hash() can take
            object.__setattr__(self, name, value)

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        """Decode, resize and normalise one picture: float32 [height, width, C].

        Raises:
            ImageError: the picture cannot be read.
        """
        return self._passed(self._decoded(picture), self._value_tables)

    def pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """Decode and resize one picture: uint8 [height, width, C], what `normalise` and `quantised` take.

        Raises:
            ImageError: the picture cannot be read.
        """
        return self._passed(self._decoded(picture), None)

    def quanta(
        self, picture: Picture, scale: float, zero_point: int, dtype: Literal["int8", "uint8"]
    ) -> NDArray[np.int8] | NDArray[np.uint8]:
        """Decode, resize and quantise one picture: [height, width, C] of `dtype`, as `quantised(pixels(...))`.

        Raises:
            ImageError: the picture cannot be read.
            ArgumentError: as `quantised`.
        """
        table = _quantum_tables(self, scale, zero_point, dtype)
        return self._passed(self._decoded(picture), table)

    def geometry(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a decoded RGB picture, uint8 [H, W, 3], and order its channels: uint8 [height, width, C].

        Raises:
            ArgumentError: `image` has another dtype or shape.
        """
        return self._passed(_checked_picture(image), None)

    def reference_geometry(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Compute `geometry` by Pillow: the definition, which the native pass is tested against.

        Raises:
            ArgumentError: as `geometry`.
        """
        return self._geometry(Image.fromarray(np.ascontiguousarray(_checked_picture(image))))

    def decoding_scale(self, width: int, height: int) -> int:
        """The n of the scale 1/n at which a JPEG of this upright size is decoded: 1, 2, 4 or 8."""
        if not self.reduced_decoding:
            return 1
        (across, down), (target_width, target_height) = self._sides_and_target(width, height)
        fitting = [n for n in (8, 4, 2) if across >= 2 * n * target_width and down >= 2 * n * target_height]
        return fitting[0] if fitting else 1

    def placement(self, width: int, height: int) -> tuple[Box, Box]:
        """Where a picture of this upright size goes: a window of it, and the part of the input that it fills.

        Returns:
            Two times (left, top, right, bottom) in pixels, of the picture and of the input. What is outside of the
            first is not seen ("crop"), what is outside of the second is border ("pad").
        """
        if self.resize != "pad":
            window = _centred_window((width, height), self._sides(width, height), self.crop_fraction)
            return window, (0.0, 0.0, float(self.width), float(self.height))
        across, down = self._fitted_size(width, height)
        left, top = (self.width - across) // 2, (self.height - down) // 2
        return (0.0, 0.0, float(width), float(height)), (left, top, left + across, top + down)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map pixels, uint8 [..., C], to (pixel - mean) / std, float32 [..., C], by one table a channel.

        Raises:
            ArgumentError: `pixels` is not uint8 or its last axis is not the channels.
        """
        return _look_up(self._value_tables, self._checked(pixels))

    def quantised(
        self, pixels: NDArray[np.uint8], scale: float, zero_point: int, dtype: Literal["int8", "uint8"]
    ) -> NDArray[np.int8] | NDArray[np.uint8]:
        """Map pixels, uint8 [..., C], to the quanta of a quantised input, [..., C] of `dtype`.

        The quantum is round(value / scale) + zero_point, saturated, with value as `normalise` gives it. Ties
        go to even, except that the pixel's own quantum (p for uint8, p - 128 for int8) is taken where it is
        one of the two: networks of scale 1/127.5 and zero point 127 have a tie at every pixel, and their
        authors feed them the pixels themselves.

        Raises:
            ArgumentError: as `normalise`, or `scale`, `zero_point` or `dtype` is not valid.
        """
        return _look_up(_quantum_tables(self, scale, zero_point, dtype), self._checked(pixels))

    def describe(self) -> str:
        """Say in one sentence what is done to a picture."""
        rule = {
            "crop": f"centre crop of {100 * self.crop_fraction:g}% in the aspect ratio of the input, resized",
            "stretch": f"centre {100 * self.crop_fraction:g}% of each side, stretched",
            "pad": f"whole picture, scaled to fit and padded with grey {self.fill}",
        }[self.resize]
        values = f"(pixel - mean {_listed(self.mean)}) / std {_listed(self.std)}"
        low, high = self._value_tables.min(), self._value_tables.max()
        reduced = ", JPEGs decoded at up to an eighth of their size" if self.reduced_decoding else ""
        return (
            f"{rule} to {self.width} × {self.height} (width × height, {self.interpolation}), "
            f"{self.channels}, {values}: {low:.4g} to {high:.4g}{reduced}"
        )

    def with_size(self, height: int, width: int) -> Preprocessing:
        """Return the same rule for another input size.

        Raises:
            ArgumentError: a size is not 1 to 16384.
        """
        return dataclasses.replace(self, height=height, width=width)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; `from_dict` reads them back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if not self.reduced_decoding:  # as in files from before there was this field
            del fields["reduced_decoding"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_dict` wrote.

        Raises:
            ModelFileError: a field is unknown, missing, of the wrong type or out of range; it is named.
        """
        if not isinstance(fields, Mapping):
            raise ModelFileError(f"preprocessing is a table of fields, not {type(fields).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(str(name) for name in fields if name not in known)
        missing = [name for name in known if name not in fields and name != "reduced_decoding"]
        if unknown:
            raise ModelFileError(f"preprocessing has the unknown field {unknown[0]!r}; known: {', '.join(known)}")
        if missing:
            raise ModelFileError(f"preprocessing lacks the field {missing[0]!r}")
        try:
            return cls(**fields)
        except ArgumentError as error:
            raise ModelFileError(f"preprocessing: {error}") from error

    @cached_property
    def _value_tables(self) -> NDArray[np.float32]:  # [C, 256]
        mean = np.array(self.mean, dtype=np.float32)[:, np.newaxis]
        std = np.array(self.std, dtype=np.float32)[:, np.newaxis]
        return (np.arange(256, dtype=np.float32) - mean) / std

    def _checked(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        channels = CHANNELS[self.channels]
        if pixels.dtype != np.uint8 or pixels.ndim < 1 or pixels.shape[-1] != channels:
            raise ArgumentError(
                f"pixels are uint8 [..., {channels}] ({self.channels}), not {pixels.dtype} {list(pixels.shape)}"
            )
        return pixels

    def _decoded(self, picture: Picture) -> Image.Image | NDArray[np.uint8]:
        if is_decoded(picture):
            return picture
        return decode_image(picture, scale=self.decoding_scale if self.reduced_decoding else None)

    def _passed(self, image: Image.Image | NDArray[np.uint8], table: NDArray[Any] | None) -> NDArray[Any]:
        """A decoded picture to the levels, or to what `table`, [C, 256], says: the native pass."""
        native = native_pass.engine()
        if native is None:
            pixels = self._geometry(image if isinstance(image, Image.Image) else Image.fromarray(image))
            return pixels if table is None else _look_up(table, pixels)
        view = image if isinstance(image, np.ndarray) else pixel_view(image)
        dtype = np.uint8 if table is None else table.dtype
        output = np.empty((self.height, self.width, CHANNELS[self.channels]), dtype=dtype)
        fields = (self.resize, self.interpolation, self.channels, self.fill, self.crop_fraction)
        native_pass.run(native, fields, view, output, table)
        return output

    def _geometry(self, image: Image.Image) -> NDArray[np.uint8]:
        resized = self._padded(image) if self.resize == "pad" else self._cropped(image)
        if self.channels == "L":
            return np.array(resized.convert("L"))[:, :, np.newaxis]
        pixels = np.array(resized)
        return pixels if self.channels == "RGB" else np.ascontiguousarray(pixels[:, :, ::-1])

    def _cropped(self, image: Image.Image) -> Image.Image:
        window = _centred_window(image.size, self._sides(*image.size), self.crop_fraction)
        return _resampled(image, (self.width, self.height), window, INTERPOLATIONS[self.interpolation])

    def _sides_and_target(self, width: int, height: int) -> tuple[tuple[float, float], tuple[int, int]]:
        """Sides of the source window, and the size that it is resampled to."""
        if self.resize == "pad":
            return (width, height), self._fitted_size(width, height)
        across, down = self._sides(width, height)
        return (across * self.crop_fraction, down * self.crop_fraction), (self.width, self.height)

    def _sides(self, width: int, height: int) -> tuple[float, float]:
        """Sides of the source window before `crop_fraction`."""
        if self.resize == "stretch":
            return float(width), float(height)
        if width * self.height > height * self.width:
            return height * self.width / self.height, float(height)
        return float(width), width * self.height / self.width

    def _padded(self, image: Image.Image) -> Image.Image:
        width, height = self._fitted_size(*image.size)
        canvas = Image.new("RGB", (self.width, self.height), (self.fill, self.fill, self.fill))
        window = (0.0, 0.0, float(image.width), float(image.height))
        fitted = _resampled(image, (width, height), window, INTERPOLATIONS[self.interpolation])
        canvas.paste(fitted, ((self.width - width) // 2, (self.height - height) // 2))
        return canvas

    def _fitted_size(self, width: int, height: int) -> tuple[int, int]:
        if width * self.height >= height * self.width:
            return self.width, max(1, (2 * height * self.width + width) // (2 * width))
        return max(1, (2 * width * self.height + height) // (2 * height)), self.height


_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # 255 * (0.485, 0.456, 0.406)
_IMAGENET_STD = (58.395, 57.12, 57.375)  # 255 * (0.229, 0.224, 0.225)
_ZEROS = (0.0, 0.0, 0.0)

PRESETS: dict[str, Callable[[int, int], Preprocessing]] = {
    "tf": Preprocessing,
    "imagenet": partial(Preprocessing, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    "timm": partial(Preprocessing, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, interpolation="bicubic"),
    "unit": partial(Preprocessing, mean=_ZEROS, std=(255.0, 255.0, 255.0)),
    "raw": partial(Preprocessing, mean=_ZEROS, std=(1.0, 1.0, 1.0)),
}
"""Well-known rules by name, each called with (height, width); all crop the centre 87.5%.

tf: -1 to 1 (Keras, TFLite, slim). imagenet: ImageNet mean and std, bilinear (torchvision). timm: the same,
bicubic. unit: 0 to 1. raw: 0 to 255.
"""


def _centred_window(source: tuple[int, int], sides: tuple[float, float], fraction: float) -> Box:
    (width, height), (window_width, window_height) = source, (sides[0] * fraction, sides[1] * fraction)
    left, top = (width - window_width) / 2, (height - window_height) / 2
    # Rounding may not push the window out of the picture: Pillow refuses such a box.
    return left, top, min(left + window_width, width), min(top + window_height, height)


def _resampled(image: Image.Image, size: tuple[int, int], window: Box, method: Image.Resampling) -> Image.Image:
    """Resample axis by axis; see the module's text for the order."""
    (width, height), (left, top, right, bottom) = size, window
    if width * image.height > MAX_PIXELS:
        rows = image.resize((image.width, height), method, box=(0, top, image.width, bottom))
        return rows.resize((width, height), method, box=(left, 0, right, height))
    columns = image.resize((width, image.height), method, box=(left, 0, right, image.height))
    return columns.resize((width, height), method, box=(0, top, width, bottom))


def _look_up(tables: NDArray[Any], pixels: NDArray[np.uint8]) -> NDArray[Any]:
    if (tables == tables[0]).all():  # one table for all channels: one pass
        return np.asarray(tables[0][pixels])
    values = np.empty(pixels.shape, dtype=tables.dtype)
    for channel, table in enumerate(tables):
        values[..., channel] = table[pixels[..., channel]]
    return values


def _quantum_tables(rule: Preprocessing, scale: float, zero_point: int, dtype: str) -> NDArray[Any]:
    """What `Preprocessing.quantised` makes of each level of each channel: [C, 256] of `dtype`."""
    lowest = -128 if _choice("dtype", dtype, ("int8", "uint8")) == "int8" else 0
    zero_point = _integer("zero_point", zero_point, lowest, lowest + 255)
    return _kept_tables(rule, _number("scale", scale, 1e-30, 1e30), zero_point, lowest)


@lru_cache(maxsize=64)
def _kept_tables(rule: Preprocessing, scale: float, zero_point: int, lowest: int) -> NDArray[Any]:
    quanta = rule._value_tables.astype(np.float64) / scale
    own = np.arange(256) + lowest - zero_point
    nearest = np.where(np.abs(quanta - own) <= 0.5 + _TIE_TOLERANCE, own, np.rint(quanta)) + zero_point
    tables: NDArray[Any] = np.clip(nearest, lowest, lowest + 255).astype(np.int8 if lowest else np.uint8)
    tables.setflags(write=False)  # shared by all calls
    return tables


def _checked_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ArgumentError(f"a decoded picture is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    return image


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} is true or false, not {value!r}")
    return bool(value)


def _integer(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise ArgumentError(f"{name} is a whole number from {low} to {high}, not {value!r}")
    return int(value)


def _number(name: str, value: object, low: float, high: float) -> float:
    number = int | float | np.integer | np.floating
    if not isinstance(value, number) or isinstance(value, bool) or not low <= value <= high:
        raise ArgumentError(f"{name} is a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def _choice(name: str, value: object, accepted: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in accepted:
        raise ArgumentError(f"{name} is one of {', '.join(accepted)}, not {value!r}")
    return value


def _numbers(name: str, values: object, count: int, low: float, high: float) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ArgumentError(f"{name} is {count} numbers, one for each of the channels, not {values!r}")
    return tuple(_number(name, value, low, high) for value in values)


def _listed(values: tuple[float, ...]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return ", ".join(f"{value:g}" for value in distinct)
