"""What config.json and preprocessor_config.json beside a checkpoint say (timm's and transformers' keys)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilenet.errors import ModelFileError
from mobilenet.files.imports.bundle import Hints

MAX_BYTES = 2**24
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
_PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers of its filters
_CROPS = {"center": "crop", "squash": "stretch", "border": "pad"}
_TRANSFORMERS = {"mobilenet_v1": "mobilenet_v1", "mobilenet_v2": "mobilenet_v2"}


def read_hints(folder: Path) -> Hints:
    """What the configuration in a folder says; no hints if there is none.

    Raises:
        ModelFileError: a file is no JSON object, or a value in it is not of its kind; both are named.
    """
    config, preprocessor = (_read(folder / name) for name in (CONFIG, PREPROCESSOR))
    if config is None and preprocessor is None:
        return Hints()
    said = _Said(config or {}, CONFIG)
    if said.text("model_type") in _TRANSFORMERS and said.text("architecture") is None:
        return _transformers(said, _Said(preprocessor or {}, PREPROCESSOR))
    return _timm(said)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(f"{path.name} is larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path.name} holds no JSON object")
    return content


class _Said:
    """An untrusted JSON object whose values are asked for by their kind."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def _get(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise ModelFileError(f"{self.where}: '{key}' is {value!r:.60}, not {what}")
        return value

    def text(self, key: str) -> str | None:
        value: str | None = self._get(key, str, "a text")
        return value

    def number(self, key: str) -> float | None:
        value = self._get(key, (int, float), "a number")
        return None if value is None else float(value)

    def truth(self, key: str) -> bool | None:
        value: bool | None = self._get(key, bool, "true or false")
        return value

    def whole(self, key: str) -> int | None:
        value: int | None = self._get(key, int, "a whole number")
        return value

    def inner(self, key: str) -> _Said:
        return _Said(self._get(key, dict, "an object") or {}, f"{self.where}, {key}")

    def numbers(self, key: str, least: int = 1) -> tuple[float, ...] | None:
        values = self._get(key, list, "a list of numbers")
        if values is None:
            return None
        if len(values) < least or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            raise ModelFileError(f"{self.where}: '{key}' is {values!r:.60}, not a list of numbers")
        return tuple(map(float, values))

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list, "a list of texts") or []
        return tuple(str(value) for value in values)


def _timm(config: _Said) -> Hints:
    """timm's config.json: `architecture`, and `pretrained_cfg` with what pictures go through."""
    cfg = config.inner("pretrained_cfg")
    size = cfg.numbers("input_size", 3)
    return Hints(
        architecture=config.text("architecture") or cfg.text("architecture"),
        size=(int(size[1]), int(size[2])) if size else None,
        classes=config.whole("num_classes"),
        labels=_timm_labels(config),
        preprocessing=_timm_preprocessing(cfg),
        licence=cfg.text("license") or "",
    )


def _timm_labels(config: _Said) -> tuple[str, ...]:
    names = config.texts("label_names") or config.inner("pretrained_cfg").texts("label_names")
    described = config.inner("label_descriptions").values
    return tuple(str(described.get(name, name)) for name in names)


def _timm_preprocessing(cfg: _Said) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    if (mode := cfg.text("crop_mode")) is not None:
        rule["resize"] = _known(_CROPS, mode, cfg, "crop_mode")
    if (fraction := cfg.number("crop_pct")) is not None:
        rule["crop_fraction"] = min(fraction, 1.0)
    if (interpolation := cfg.text("interpolation")) is not None and interpolation != "random":
        rule["interpolation"] = interpolation
    for key in ("mean", "std"):
        if (values := cfg.numbers(key)) is not None:
            rule[key] = tuple(round(255 * value, 6) for value in values)
    return rule


def _transformers(config: _Said, preprocessor: _Said) -> Hints:
    """transformers' MobileNetV1Config and MobileNetV2Config, and their image processor."""
    side = config.whole("image_size")
    crop = preprocessor.inner("crop_size")
    size = (side, side) if side else None
    if crop.values:
        size = (crop.whole("height") or 224, crop.whole("width") or 224)
    labels = config.inner("id2label").values
    return Hints(
        architecture=_TRANSFORMERS[str(config.text("model_type"))],
        epsilon=config.number("layer_norm_eps"),
        padding="symmetric" if config.truth("tf_padding") is False else None,
        size=size,
        labels=_in_order(labels, config),
        preprocessing=_processor(preprocessor, size),
        licence=config.text("license") or "",
    )


def _in_order(labels: Mapping[str, Any], config: _Said) -> tuple[str, ...]:
    """id2label, whose keys are numbers as texts; transformers' placeholders LABEL_0, ... are no labels."""
    numbers = [str(number) for number in range(len(labels))]
    if set(numbers) != set(labels):
        raise ModelFileError(f"{config.where}: 'id2label' does not number its {len(labels)} labels from 0")
    named = tuple(str(labels[number]) for number in numbers)
    return () if all(name == f"LABEL_{n}" for n, name in enumerate(named)) else named


def _processor(said: _Said, size: tuple[int, int] | None) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    shortest = said.inner("size").whole("shortest_edge")
    if said.truth("do_center_crop") is False:
        rule |= {"resize": "stretch", "crop_fraction": 1.0}
    elif shortest and size:
        rule["crop_fraction"] = min(size[0] / shortest, 1.0)
    if (resample := said.whole("resample")) is not None:
        rule["interpolation"] = _known(_PIL, resample, said, "resample")
    factor = said.number("rescale_factor") or 1 / 255
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if (values := said.numbers(theirs)) is not None:
            rule[ours] = tuple(round(value / factor, 6) for value in values)
    return rule


def _known(accepted: Mapping[Any, str], value: Any, said: _Said, key: str) -> str:
    if value not in accepted:
        raise ModelFileError(f"{said.where}: '{key}' is {value!r}; accepted are {', '.join(map(str, accepted))}")
    return accepted[value]
