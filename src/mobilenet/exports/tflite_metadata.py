"""TFLite Metadata: what a .tflite file's input and outputs mean, and its labels, for the tools that read it.

Source: `metadata_schema.fbs` (1.0) of TensorFlow Lite: a FlatBuffer of its own in the metadata entry
"TFLITE_METADATA", and the files that it names in an uncompressed zip archive behind the model. Numbers of fields
are the schema's.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import flatbuffers
import numpy as np

from mobilenet.exports.describe import label_text, to_json
from mobilenet.files.contents import ModelContents
from mobilenet.files.description import KEY

ENTRY = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION, GROUPS_VERSION = "1.0.0", "1.2.0"  # every parser reads the first; of groups, from the second on
LABEL_FILE = "labels.txt"
FEATURE_PROPERTIES, IMAGE_PROPERTIES, BOX_PROPERTIES, NORMALISATION = 1, 2, 3, 1  # of the schema's unions
COLOUR_SPACES = {"RGB": 1, "BGR": 0, "L": 2}  # the schema has no BGR: unknown
AXIS_LABELS, VALUE_LABELS = 2, 3  # of the schema's kinds of associated files
BOUNDARIES, TOP_FIRST = 1, (1, 0, 3, 2)  # boxes as (top, left, bottom, right), in shares of the sides
# What the tools that read it call the outputs of `exports.tflite_boxes`; they go by name, or by place.
BOX_NAMES = {"boxes": "location", "classes": "category", "scores": "score", "count": "number of detections"}
BOX_GROUP = "detection_result"
DATE = (1980, 1, 1, 0, 0, 0)  # so that the same model gives the same bytes

Fields = dict[int, tuple[str, int]]  # number -> kind and value; an offset is where a child was written


def metadata_entries(contents: ModelContents, outputs: Sequence[str] = ()) -> dict[str, bytes]:
    """The metadata entries of a file with this network; `outputs`: the file's, if they are others than its."""
    names = tuple(outputs or contents.graph.outputs)
    return {ENTRY: _Metadata(contents, names).pack(), KEY: to_json(contents, names).encode()}


def with_label_file(data: bytes, labels: Sequence[str]) -> bytes:
    """The file with its labels packed behind it."""
    if not labels:
        return data
    stream = io.BytesIO(data)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABEL_FILE, DATE), label_text(labels))
    return stream.getvalue()


class _Metadata:
    """The FlatBuffer in the making; children are written before the tables that point to them."""

    def __init__(self, contents: ModelContents, outputs: Sequence[str]) -> None:
        self.contents, self.outputs = contents, outputs
        self.boxes = set(BOX_NAMES) == set(outputs)
        self.builder = flatbuffers.Builder(1024)

    def pack(self) -> bytes:
        contents = self.contents
        inputs = self._offsets([self._input(name) for name in contents.graph.inputs])
        output = self._box_output if self.boxes else self._output
        outputs = self._offsets([output(name) for name in self.outputs])
        main: Fields = {0: ("offset", self._text("main")), 2: ("offset", inputs), 3: ("offset", outputs)}
        if self.boxes:
            main[8] = ("offset", self._offsets([self._group()]))
        subgraph = self._table(main)
        fields: Fields = {
            0: ("offset", self._text(str(contents.provenance.get("model") or "mobilenet"))),
            1: ("offset", self._text(f"a network of the MobileNet family, task: {contents.task}")),
            3: ("offset", self._offsets([subgraph])),
            7: ("offset", self._text(GROUPS_VERSION if self.boxes else PARSER_VERSION)),
        }
        if contents.licence:
            fields[5] = ("offset", self._text(contents.licence))
        self.builder.Finish(self._table(fields), IDENTIFIER)
        return bytes(self.builder.Output())

    def _input(self, name: str) -> int:
        rule = self.contents.preprocessing
        fields: Fields = {0: ("offset", self._text(name))}
        if rule is not None:
            fields[1] = ("offset", self._text(rule.describe()))
            size = self._table({0: ("uint32", rule.width), 1: ("uint32", rule.height)})
            image = self._table({0: ("int8", COLOUR_SPACES[rule.channels]), 1: ("offset", size)})
            fields[3] = ("offset", self._table({0: ("uint8", IMAGE_PROPERTIES), 1: ("offset", image)}))
            values = self._table({0: ("offset", self._floats(rule.mean)), 1: ("offset", self._floats(rule.std))})
            unit = self._table({0: ("uint8", NORMALISATION), 1: ("offset", values)})
            fields[4] = ("offset", self._offsets([unit]))
            extremes = rule.normalise(np.array([[0] * len(rule.mean), [255] * len(rule.mean)], np.uint8))
            fields[5] = ("offset", self._stats(*extremes.tolist()))
        return self._table(fields)

    def _stats(self, lowest: Sequence[float], highest: Sequence[float]) -> int:
        return self._table({0: ("offset", self._floats(highest)), 1: ("offset", self._floats(lowest))})

    def _output(self, name: str) -> int:
        fields: Fields = {0: ("offset", self._text(name))}
        feature = self._table({})
        fields[3] = ("offset", self._table({0: ("uint8", FEATURE_PROPERTIES), 1: ("offset", feature)}))
        if name in ("logits", "probabilities", "classes"):
            fields |= self._labels(AXIS_LABELS)
        return self._table(fields)

    def _labels(self, kind: int) -> Fields:
        if not self.contents.labels:
            return {}
        file = self._table({0: ("offset", self._text(LABEL_FILE)), 2: ("int8", kind)})
        return {6: ("offset", self._offsets([file]))}

    def _box_output(self, name: str) -> int:
        """As object detectors of MediaPipe's and TensorFlow Lite's task libraries have them."""
        fields: Fields = {0: ("offset", self._text(BOX_NAMES[name]))}
        if name == "boxes":
            order = ("offset", self._numbers(TOP_FIRST))
            properties, kind = self._table({0: order, 1: ("int8", BOUNDARIES)}), BOX_PROPERTIES
        else:
            properties, kind = self._table({}), FEATURE_PROPERTIES
        content: Fields = {0: ("uint8", kind), 1: ("offset", properties)}
        if name != "count":  # every row is one box's
            content[2] = ("offset", self._table({0: ("int32", 2), 1: ("int32", 2)}))
        fields[3] = ("offset", self._table(content))
        return self._table(fields | (self._labels(VALUE_LABELS) if name == "classes" else {}))

    def _group(self) -> int:
        names = self._offsets([self._text(BOX_NAMES[name]) for name in self.outputs if name != "count"])
        return self._table({0: ("offset", self._text(BOX_GROUP)), 1: ("offset", names)})

    def _text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def _floats(self, values: Sequence[float]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def _numbers(self, values: Sequence[int]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUint32(value)
        return int(self.builder.EndVector())

    def _offsets(self, tables: Sequence[int]) -> int:
        self.builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self.builder.PrependUOffsetTRelative(table)
        return int(self.builder.EndVector())

    def _table(self, fields: Fields) -> int:
        self.builder.StartObject(max(fields, default=0) + 1)
        for number, (kind, value) in fields.items():
            add = {
                "offset": self.builder.PrependUOffsetTRelativeSlot,
                "uint32": self.builder.PrependUint32Slot,
                "int32": self.builder.PrependInt32Slot,
                "int8": self.builder.PrependInt8Slot,
                "uint8": self.builder.PrependUint8Slot,
            }[kind]
            add(number, value, 0)
        return int(self.builder.EndObject())
