"""A classifier as one .c file and its header: a program that needs the engine's library and nothing else.

The .c file holds the model file's bytes, the labels, what each level of a pixel becomes, and a `main` that names
what is on a picture in the PPM format. The code around these is `c_program.txt`.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np

from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.exports.describe import label_lines
from mobilenet.exports.prepare import Options
from mobilenet.exports.prove import Cases, Proof, compare
from mobilenet.files.atomic import write_atomically
from mobilenet.files.contents import ModelContents
from mobilenet.files.model_file import encode
from mobilenet.graph.graph import Weights
from mobilenet.run.quanta import dequantise_array

SCORES = ("probabilities", "logits")
WORDS_A_LINE = 5  # of 8 bytes


def write_c(contents: ModelContents, path: Path, tested: Cases) -> tuple[int, Proof]:
    """Writes NAME.c and NAME.h; the .c file last, so that it is there only if both are.

    Args:
        contents: a classifier with preprocessing, and its main output alone.
        path: of the .c file.
        tested: what the engine is tried on: it is what runs the program's network.

    Returns:
        the size of both files in bytes, and how the engine's answers compare with the reference's.

    Raises:
        ArgumentError: the model does not classify pictures, or the path does not end in .c.
        ModelFileError: the engine's answers are not the reference's.
        OSError: a file cannot be written.
    """
    if path.suffix != ".c":
        raise ArgumentError(f"{path}: the name of a C file ends in .c")
    program, header, data = c_program(contents, path.stem)
    proof = compare(_by_engine(data, tested), tested, "the engine")
    write_atomically(path.with_suffix(".h"), header.encode())
    write_atomically(path, program.encode())
    return len(program) + len(header), proof


def c_program(contents: ModelContents, name: str) -> tuple[str, str, bytes]:
    """The .c file, the header, and the model file that is inside; `name` is that of both files.

    Raises:
        ArgumentError: the model does not classify pictures.
    """
    output = next((name for name in SCORES if name in contents.graph.outputs), None)
    if output is None or contents.preprocessing is None or contents.task != "classify":
        raise ArgumentError(f"a C program classifies pictures; this model's task is '{contents.task}'")
    data = encode(contents)
    values = _values(contents, output, name, data)
    program, _, header = _template().partition("=== header ===\n")
    return _filled(program, values), _filled(header, values), data


def _template() -> str:
    return files("mobilenet.exports").joinpath("c_program.txt").read_text("utf-8")


def _filled(template: str, values: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], template)


def _values(contents: ModelContents, output: str, name: str, data: bytes) -> dict[str, str]:
    rule = contents.preprocessing
    assert rule is not None
    classes = contents.graph.types[contents.graph.outputs[output]].shape[-1]
    labels = label_lines(contents.labels) if contents.labels else [f"class {n}" for n in range(classes)]
    table, entry = _table(contents)
    identifier = re.sub(r"\W", "_", f"m{name}" if name[:1].isdigit() else name, flags=re.ASCII)
    padded = data + bytes(-len(data) % 8)
    return {
        "name": identifier,
        "NAME": identifier.upper(),
        "file": name,
        "classes": str(classes),
        "labels": ",\n".join(f"    {_c_text(label)}" for label in labels),
        "height": str(rule.height),
        "width": str(rule.width),
        "resize": rule.resize.upper(),
        "interpolation": rule.interpolation.upper(),
        "channels": rule.channels,
        "fill": str(rule.fill),
        "crop_fraction": repr(float(rule.crop_fraction)),
        "count": str(len(rule.mean)),
        "entry": entry,
        "table": table,
        "is_logits": str(int(output == "logits")),
        "temperature": repr(float(contents.calibration.get("temperature", 1.0))),
        "size": str(len(data)),
        "data": _lines([f"0x{word:x}" for word in np.frombuffer(padded, "<u8").tolist()], WORDS_A_LINE),
    }


def _table(contents: ModelContents) -> tuple[str, str]:
    """What each level of each channel becomes: quanta, or floats (in hexadecimal: exact); and their type in C."""
    rule, (kind,) = contents.preprocessing, contents.graph.inputs.values()
    assert rule is not None
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(len(rule.mean), 1)
    if kind.quantisation is None:
        values = rule.normalise(levels).T.ravel().tolist()
        return _lines([f"{float(value).hex()}f" for value in values], 6), "float"
    dtype = "int8" if kind.dtype == "int8" else "uint8"
    scale, zero_point = kind.quantisation.scale, kind.quantisation.zero_point
    quanta = rule.quantised(levels, scale, zero_point, dtype)  # type: ignore[arg-type]
    return _lines([str(value) for value in quanta.T.ravel().tolist()], 20), f"{dtype}_t"


def _lines(words: list[str], each: int) -> str:
    return ",\n".join("    " + ", ".join(words[place : place + each]) for place in range(0, len(words), each))


def _c_text(text: str) -> str:
    """A string literal: everything but plain letters as octal, which cannot run into what follows."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(plain)}"'


def _by_engine(data: bytes, tested: Cases) -> Weights:
    """The engine's answers in real numbers; what it cannot run is no program."""
    from mobilenet.run.engine import Engine

    engine = Engine(data, threads=1)
    kinds, found = engine.outputs(), engine.run(np.ascontiguousarray(tested.inputs))
    if found.keys() != tested.expected.keys():
        raise ModelFileError(f"not written: the engine gives the outputs {', '.join(found)}")
    return {name: dequantise_array(a, kinds[name]) if kinds[name].integer else a for name, a in found.items()}


def check_options(options: Options) -> None:
    """Raises `ArgumentError` for what a program has no use for."""
    if options.batch != 1 or options.picture_input:
        raise ArgumentError("--batch and --picture-input are for onnx and tflite; a C program takes one picture")
