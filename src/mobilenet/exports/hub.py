"""A model as a folder for the Hugging Face hub, which timm and, through timm, transformers load.

README.md is a model card; config.json and model.safetensors are as timm writes them, preprocessor_config.json as
transformers does for timm's models.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mobilenet.errors import ArgumentError
from mobilenet.exports.hub_card import model_card
from mobilenet.exports.hub_names import timm_architecture, timm_tensors
from mobilenet.exports.hub_proof import prove_with_timm
from mobilenet.exports.prepare import Options, source_of
from mobilenet.exports.prove import Proof
from mobilenet.files.atomic import write_atomically
from mobilenet.files.contents import ModelContents
from mobilenet.pictures.preprocess import Preprocessing

CROP_MODES = {"crop": "center", "stretch": "squash", "pad": "border"}
RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4}  # Pillow's numbers


def write_hub(contents: ModelContents, folder: Path, options: Options) -> tuple[int, Proof]:
    """Writes the folder; it appears whole and checked, or not at all.

    Args:
        contents: a float classifier whose batch norms are not folded, of an architecture that timm has.
        folder: is made; it may be there if it is empty.
        options: precision and resolution; a folder for timm has no batch and no picture input.

    Returns:
        its size in bytes, and how timm's logits compare with the model's.

    Raises:
        ArgumentError: timm does not have the architecture, the options do not fit, or the folder is not empty.
        ModelFileError: a weight is NaN, or timm's logits are not the model's.
        OSError: the folder cannot be written.
    """
    if options.batch != 1 or options.picture_input:
        raise ArgumentError("--batch and --picture-input are for onnx and tflite; a folder for timm has neither")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"{folder}: is there and not empty; give the name of a new folder")
    if not folder.parent.is_dir():
        raise ArgumentError(f"{folder}: there is no folder '{folder.parent}': make it first")
    source = source_of(contents, options)
    architecture, candidate, graph = timm_architecture(source)
    tensors = timm_tensors(source, candidate, graph)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        files = _files(source, architecture)
        for name, text in files.items():
            write_atomically(temporary / name, text.encode())
        write_atomically(temporary / "model.safetensors", _safetensors(tensors))
        proof = prove_with_timm(temporary, source)
        temporary.chmod(0o755)
        size = sum(path.stat().st_size for path in temporary.iterdir())
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return size, proof


def _safetensors(tensors: dict[str, Any]) -> bytes:
    from safetensors.numpy import save

    return save(tensors, {"format": "pt"})  # what timm's reader asks for


def _files(source: ModelContents, architecture: str) -> dict[str, str]:
    config = timm_config(source, architecture)
    return {
        "README.md": model_card(source, architecture),
        "config.json": _json(config),
        "preprocessor_config.json": _json(_processor(source, config)),
    }


def timm_config(source: ModelContents, architecture: str) -> dict[str, Any]:
    """What timm reads as config.json; without preprocessing it says only the size."""
    ((height, width, channels),) = (kind.shape for kind in source.graph.inputs.values())
    classes = source.graph.types[source.graph.outputs["logits"]].shape[-1]
    pretrained: dict[str, Any] = {
        "tag": "mobilenet",
        "custom_load": False,
        "input_size": [channels, height, width],
        "fixed_input_size": False,
        "num_classes": classes,
        "pool_size": None,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    }
    if source.preprocessing is not None:
        pretrained |= _pictures(source.preprocessing)
    if source.licence:
        pretrained["license"] = source.licence
    config: dict[str, Any] = {"architecture": architecture, "num_classes": classes}
    if channels != 3:
        config["model_args"] = {"in_chans": channels}
    if source.labels:
        config["label_names"] = list(source.labels)
    return config | {"pretrained_cfg": pretrained}


def _pictures(rule: Preprocessing) -> dict[str, Any]:
    if rule.channels == "BGR":
        raise ArgumentError("the model takes pictures in the order BGR, which timm cannot say")
    return {
        "interpolation": rule.interpolation,
        "crop_pct": rule.crop_fraction if rule.resize != "pad" else 1.0,
        "crop_mode": CROP_MODES[rule.resize],
        "mean": [value / 255 for value in rule.mean],
        "std": [value / 255 for value in rule.std],
    }


def _processor(source: ModelContents, config: dict[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json: what transformers needs for timm's models, and plain keys for other readers."""
    processor = {
        "image_processor_type": "TimmWrapperImageProcessor",
        "architecture": config["architecture"],
        "pretrained_cfg": config["pretrained_cfg"],
    }
    rule = source.preprocessing
    if rule is None:
        return processor
    return processor | {
        "do_resize": True,
        "size": {"shortest_edge": round(min(rule.height, rule.width) / rule.crop_fraction)},
        "do_center_crop": rule.resize == "crop",
        "crop_size": {"height": rule.height, "width": rule.width},
        "resample": RESAMPLING[rule.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in rule.mean],
        "image_std": [value / 255 for value in rule.std],
    }


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
