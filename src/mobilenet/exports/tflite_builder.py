"""Tensors, constants and operators of a .tflite file, collected in order and packed into bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenet.graph.graph import Quantisation

IDENTIFIER = b"TFL3"
VERSION = 3
INT8_VERSIONS = {  # of an operator, from which on it takes int8; what is not here has no other form for it
    "ADD": 2, "AVERAGE_POOL_2D": 2, "BATCH_MATMUL": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2, "FULLY_CONNECTED": 4, "GELU": 2, "L2_NORMALIZATION": 2, "LOGISTIC": 2, "MAX_POOL_2D": 2,
    "MEAN": 2, "MUL": 2, "PAD": 2, "PADV2": 2, "RELU": 2, "RELU6": 2, "RESIZE_BILINEAR": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2, "SOFTMAX": 2, "TRANSPOSE": 2,
}  # fmt: skip
DTYPES = {"float32": "FLOAT32", "int8": "INT8", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}


@dataclass(frozen=True)
class Scales:
    """Of a quantised tensor: float32 scales and zero points, one or one for each place along `axis`."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    @staticmethod
    def of(quantisation: Quantisation) -> Scales:
        """The same scale and zero point everywhere."""
        return Scales(np.array([quantisation.scale], np.float32), np.array([quantisation.zero_point], np.int64))


@dataclass
class TfliteBuilder:
    """One subgraph under construction; a tensor is referred to by its number."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: dict[tuple[str, int], int] = field(default_factory=dict)

    def value(self, name: str, shape: Sequence[int], dtype: str, scales: Scales | None = None) -> int:
        """A tensor that is computed, its shape with the batch; a size of -1 is open, and 1 until it is set."""
        return self._tensor(name, shape, dtype, scales, 0)

    def constant(self, name: str, array: np.ndarray, scales: Scales | None = None) -> int:
        """A tensor whose values the file holds."""
        buffer = self._buffer(np.ascontiguousarray(array).tobytes())
        return self._tensor(name, array.shape, str(array.dtype), scales, buffer)

    def dtype(self, tensor: int) -> int:
        """The schema's number of a tensor's dtype."""
        return int(self.tensors[tensor].type)

    def emit(self, kind: str, inputs: Sequence[int], output: int, options: Any = None, **fields: Any) -> int:
        """Adds an operator with options of this class (of the schema, without its T); returns its output."""
        operator = schema.OperatorT()
        int8 = any(self.dtype(i) == schema.TensorType.INT8 for i in (*inputs, output) if i >= 0)
        operator.opcodeIndex = self._code(kind, INT8_VERSIONS.get(kind, 1) if int8 else 1)
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(operator.builtinOptions, name), f"{options} has no field {name}"
                setattr(operator.builtinOptions, name, value)
        self.operators.append(operator)
        return output

    def emit_custom(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: bytes) -> None:
        """Adds an operator that the runtime knows by its name, with options in a format of its own."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(kind, 1)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        operator.customOptions = np.frombuffer(options, np.uint8)
        self.operators.append(operator)

    def pack(self, inputs: Mapping[str, int], outputs: Mapping[str, int], metadata: Mapping[str, bytes]) -> bytes:
        """The file, with its ends by their names and what is said beside the network."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs, graph.name = list(inputs.values()), list(outputs.values()), "main"
        model = schema.ModelT()
        model.version, model.description = VERSION, "mobilenet"
        model.subgraphs, model.buffers = [graph], self.buffers
        model.operatorCodes = [_operator_code(*code) for code in self.codes]
        model.signatureDefs = [_signature(inputs, outputs)]
        model.metadata = [self._metadata(name, content) for name, content in metadata.items()]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _metadata(self, name: str, content: bytes) -> Any:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._buffer(content)
        return entry

    def _buffer(self, content: bytes) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _tensor(self, name: str, shape: Sequence[int], dtype: str, scales: Scales | None, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, [abs(size) for size in shape], buffer
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        tensor.type = getattr(schema.TensorType, DTYPES[dtype])
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scales.scale, np.float32)
            tensor.quantization.zeroPoint = np.asarray(scales.zero_point, np.int64)
            tensor.quantization.quantizedDimension = scales.axis
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _code(self, kind: str, version: int) -> int:
        return self.codes.setdefault((kind, version), len(self.codes))


def _operator_code(kind: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind, schema.BuiltinOperator.CUSTOM)
    if code.builtinCode == schema.BuiltinOperator.CUSTOM:
        code.customCode = kind
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = version
    return code


def _signature(inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    """The names of the ends, as `Interpreter.get_signature_runner` wants them."""
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = _tensor_maps(inputs), _tensor_maps(outputs)
    return signature


def _tensor_maps(ends: Mapping[str, int]) -> list[Any]:
    maps = []
    for name, tensor in ends.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor
        maps.append(entry)
    return maps
