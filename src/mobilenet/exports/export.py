"""A model as another runtime's file, which has given the model's answers before it counts as written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mobilenet.errors import ArgumentError, MissingExtraError, ModelFileError
from mobilenet.exports.describe import label_text, to_json
from mobilenet.exports.ends import float_ends
from mobilenet.exports.prepare import Options, exported, source_of
from mobilenet.exports.prove import Proof, cases, prove
from mobilenet.files.atomic import write_atomically
from mobilenet.files.contents import ModelContents
from mobilenet.files.description import KEY

MAX_ONNX_BYTES = 2**31 - 1  # of one protobuf message


@dataclass(frozen=True)
class Exported:
    """What was written: the file (or folder), its size in bytes, and how it compares with the model."""

    path: Path
    size: int
    proof: Proof


def export(
    contents: ModelContents, path: str | os.PathLike[str], *, to: str, options: Options | None = None
) -> Exported:
    """Writes a model for another runtime. The file appears whole and checked, or not at all.

    Args:
        contents: the model.
        path: the file to write; for "c" that of the program, beside which goes its header; for "hub" a folder,
            which is made.
        to: one of `TARGETS`.
        options: precision, resolution, batch, whether pictures go in and boxes come out; default: as the model is.

    Raises:
        ArgumentError: an unknown target, or options that do not fit the model.
        UnsupportedOperatorError: the target has no form of an operator; the message names both.
        ModelFileError: a weight is NaN, or the runtime's answers are not the model's; nothing is written.
        MissingExtraError: the packages that write the format are not installed.
        OSError: the folder is missing or not writable, or the disk is full; what was at `path` is still there.
    """
    check_target(to)
    options = options or Options()
    _check_nms(contents, to, options)
    target = Path(path)
    if to == "hub":
        from mobilenet.exports.hub import write_hub

        return Exported(target, *write_hub(contents, target, options))
    if target.is_dir():
        raise ArgumentError(f"{target}: is a folder; give the name of the file to write")
    if not target.parent.is_dir():
        raise ArgumentError(f"{target}: there is no folder '{target.parent}': make it first")
    source = source_of(contents, options)
    network = exported(source, options)
    if to == "c":
        from mobilenet.exports.c_program import check_options, write_c

        check_options(options)
        return Exported(target, *write_c(network, target, cases(source, network)))
    try:
        data, proof = _written(source, network, to, options)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"exporting to {to} (no module named {error.name!r})", "export") from error
    write_atomically(target, data)
    return Exported(target, len(data), proof)


def _written(source: ModelContents, network: ModelContents, to: str, options: Options) -> tuple[bytes, Proof]:
    """The file's bytes, and how they compare: with boxes in it, first without them, then they themselves."""
    tested = cases(source, network)
    raw = _WRITERS[to](network, replace(options, nms=False))
    proof = prove(raw, to, tested, batch=options.batch)
    if not options.nms or network.decoding is None:
        return raw, proof
    from mobilenet.exports.prove_boxes import prove_boxes

    data = _WRITERS[to](network, options)
    return data, prove_boxes(data, raw, to, tested, proof, network.decoding, options.batch)


def _check_nms(contents: ModelContents, to: str, options: Options) -> None:
    """Raises `ArgumentError` where boxes are wanted that the model or the target does not have."""
    if not options.nms:
        return
    if to not in _WRITERS:
        raise ArgumentError(f"--nms puts boxes into files for {' and '.join(_WRITERS)}, not {to}")
    if contents.decoding is None:
        raise ArgumentError(f"--nms is for detectors; this model's task is '{contents.task}'")
    if to == "tflite":
        from mobilenet.exports.tflite_boxes import check_decoding

        check_decoding(contents.decoding, options.batch)


def onnx_bytes(contents: ModelContents, options: Options) -> bytes:
    """An ONNX file: outputs are real numbers, a quantised input is uint8."""
    from mobilenet.exports.onnx_boxes import OUTPUTS as BOX_OUTPUTS
    from mobilenet.exports.onnx_writer import to_onnx

    decoding = contents.decoding if options.nms else None
    metadata = {KEY: to_json(contents, BOX_OUTPUTS if decoding else ())}
    if contents.labels:
        metadata["labels"] = label_text(contents.labels)
    model = to_onnx(
        float_ends(contents.graph, inputs=False),
        contents.weights,
        batch=options.batch,
        pictures_nhwc=options.picture_input,
        metadata=metadata,
        decoding=decoding,
    )
    if model.ByteSize() > MAX_ONNX_BYTES:
        raise ModelFileError(f"the model takes {model.ByteSize():,} bytes; one ONNX file holds {MAX_ONNX_BYTES:,}")
    return bytes(model.SerializeToString())


def tflite_bytes(contents: ModelContents, options: Options) -> bytes:
    """A .tflite file: a quantised network takes and gives its integers."""
    from mobilenet.exports.tflite_boxes import OUTPUTS as BOX_OUTPUTS
    from mobilenet.exports.tflite_metadata import metadata_entries, with_label_file
    from mobilenet.exports.tflite_writer import to_tflite

    decoding = contents.decoding if options.nms else None
    data = to_tflite(
        contents.graph,
        contents.weights,
        batch=options.batch,
        float_ends=False,
        pixels=options.picture_input,
        metadata=metadata_entries(contents, BOX_OUTPUTS if decoding else ()),
        decoding=decoding,
    )
    return with_label_file(data, contents.labels)


_WRITERS: dict[str, Callable[[ModelContents, Options], bytes]] = {"onnx": onnx_bytes, "tflite": tflite_bytes}
TARGETS = (*_WRITERS, "c", "hub")
SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "c": ".c"}


def default_path(model: str | os.PathLike[str], to: str) -> Path:
    """Beside the model file, under its name with the target's ending ("-hub" for a folder).

    Raises:
        ArgumentError: an unknown target, or that is the model file itself.
    """
    check_target(to)
    source = Path(model)
    target = source.with_name(f"{source.stem}-hub") if to == "hub" else source.with_suffix(SUFFIXES[to])
    if target == source:
        raise ArgumentError(f"{source}: would be overwritten; say with -o where the new file goes")
    return target


def check_target(to: str) -> None:
    """Raises `ArgumentError` for a target that there is not."""
    if to not in TARGETS:
        raise ArgumentError(f"a model is exported to {', '.join(TARGETS)}, not to {to!r}")
