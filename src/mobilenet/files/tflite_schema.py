"""What is in a .tflite file, as plain values: the numbers of the schema's fields appear here and nowhere else.

Source: `schema.fbs` (version 3) of TensorFlow Lite. Nothing is interpreted yet beyond what can be checked for one
tensor or operator alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet.errors import GraphError, ModelFileError
from mobilenet.files.flatbuffer import Table, check_extent, root_table
from mobilenet.graph.graph import Quantisation, TensorType
from mobilenet.graph.ops import INTEGER_DTYPES, MAX_ELEMENTS

IDENTIFIER = b"TFL3"
VERSION = 3
MAX_RANK = 8
MAX_OPERATORS = 4096  # a few hundred is usual
MAX_OPERANDS = 128  # inputs or outputs of one operator
MAX_METADATA = 64  # entries

TENSOR_TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
CONSTANT_TYPES = ("float32", "float16", "int32", "uint8", "int64", "int8")  # of which values can be read

# Of a value, and what it is in a graph.
VALUE_TYPES = {name: name for name in ("float32", "uint8", "int8", "int64")} | {"int32": "int64"}

# The names of the operators' numbers, so that an error can name what is not supported.
_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR
FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER
BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE
BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM
ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE
TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK
LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL
FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM
BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS
HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE
ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU
"""
OPERATOR_NAMES = tuple(_OPERATORS.split())


@dataclass(frozen=True)
class Tensor:
    """A value or constant of the file.

    Attributes:
        index: its place among the subgraph's tensors.
        shape: with the batch.
        dtype: one of `TENSOR_TYPES`.
        scale, zero_point: float32 and int64, one or one for each place along `axis`; empty if not quantised.
        data: the constant's bytes; empty for a value that is computed.
    """

    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int
    data: NDArray[np.uint8]

    @property
    def constant(self) -> bool:
        """Whether the file holds its values."""
        return len(self.data) > 0

    def values(self) -> NDArray[Any]:
        """The constant as an array, a view of the file; raises `ModelFileError` if its size does not fit."""
        if self.dtype not in CONSTANT_TYPES:
            raise ModelFileError(f"tensor {self.index} holds {self.dtype} values, which are not read")
        dtype = np.dtype(self.dtype).newbyteorder("<")
        if len(self.data) != prod(self.shape) * dtype.itemsize:
            raise ModelFileError(
                f"is damaged: tensor {self.index}, {self.dtype} {list(self.shape)}, has {len(self.data)} bytes"
            )
        return self.data.view(dtype).reshape(self.shape)


@dataclass(frozen=True)
class Call:
    """An operator at work: its place, its name, the tensors that it reads and writes (-1: left out)."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None

    def __str__(self) -> str:
        return f"operator {self.index} ({self.kind})"


@dataclass(frozen=True)
class TfliteModel:
    """The one subgraph of a file, and the bytes of its metadata entries by their names."""

    description: str
    tensors: list[Tensor]
    calls: list[Call]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


def parse_tflite(data: memoryview) -> TfliteModel:
    """Reads the bytes of a .tflite file.

    Raises:
        ModelFileError: anything that is damaged, missing, out of range or of another version.
    """
    root = root_table(data, IDENTIFIER)
    version = root.number(0, "uint32")
    if version != VERSION:
        raise ModelFileError(f"has schema version {version}; {VERSION} is read")
    graphs = root.tables(2, "subgraphs")
    if len(graphs) != 1:
        raise ModelFileError(f"has {len(graphs)} subgraphs; only files with one are read")
    buffers = root.tables(4, "buffers")
    tensors = [_tensor(i, t, buffers, data) for i, t in enumerate(graphs[0].tables(0, "tensors"))]
    kinds = [_kind(code) for code in root.tables(1, "operator codes")]
    operators = graphs[0].tables(3, "operators")
    if len(operators) > MAX_OPERATORS:
        raise ModelFileError(f"has {len(operators)} operators; at most {MAX_OPERATORS} are accepted")
    calls = [_call(i, operator, kinds, len(tensors)) for i, operator in enumerate(operators)]
    inputs, outputs = (_indices(graphs[0], field, "the subgraph", len(tensors)) for field in (1, 2))
    return TfliteModel(root.text(3), tensors, calls, inputs, outputs, _metadata(root, buffers, data))


def _metadata(root: Table, buffers: list[Table], data: memoryview) -> dict[str, NDArray[np.uint8]]:
    entries = root.tables(6, "metadata entries")
    if len(entries) > MAX_METADATA:
        raise ModelFileError(f"has {len(entries)} metadata entries; at most {MAX_METADATA} are accepted")
    found = {}
    for entry in entries:
        buffer = entry.number(1, "uint32")
        if buffer >= len(buffers):
            raise ModelFileError(f"is damaged: a metadata entry is in buffer {buffer} of {len(buffers)}")
        found[entry.text(0)] = _bytes(buffers[buffer], data)
    return found


def _kind(code: Table) -> str:
    """The name of an operator. Files from before 2020 have the number in a field of 8 bits only."""
    number = max(code.number(0, "int8"), code.number(3, "int32"))
    if not 0 <= number < len(OPERATOR_NAMES):
        return f"BUILTIN_{number}"
    name = OPERATOR_NAMES[number]
    return f"CUSTOM ({code.text(1)[:80]})" if name == "CUSTOM" else name


def _tensor(index: int, table: Table, buffers: list[Table], data: memoryview) -> Tensor:
    number = table.number(1, "int8")
    if not 0 <= number < len(TENSOR_TYPES):
        raise ModelFileError(f"tensor {index} has the unknown type {number}")
    if table.table(6) is not None:
        raise ModelFileError(f"tensor {index} is sparse, which is not read")
    buffer = table.number(2, "uint32")
    if buffer >= len(buffers):
        raise ModelFileError(f"is damaged: tensor {index} is in buffer {buffer} of {len(buffers)}")
    scale, zero_point, axis = _quantisation(index, table.table(4))
    shape = _shape(index, table)
    return Tensor(index, shape, TENSOR_TYPES[number], scale, zero_point, axis, _bytes(buffers[buffer], data))


def _shape(index: int, table: Table) -> tuple[int, ...]:
    shape = table.vector(0, "int32")
    if len(shape) > MAX_RANK or (shape < 0).any() or prod(map(int, shape)) > MAX_ELEMENTS:
        raise ModelFileError(f"tensor {index} has the impossible shape {shape[:MAX_RANK].tolist()}")
    return tuple(map(int, shape))


def _quantisation(index: int, table: Table | None) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    if table is None:
        return np.empty(0, np.float32), np.empty(0, np.int64), 0
    scale, zero_point = table.vector(2, "float32"), table.vector(3, "int64")
    if len(zero_point) == 0:
        zero_point = np.zeros(len(scale), np.int64)
    if len(scale) != len(zero_point):
        raise ModelFileError(f"tensor {index} has {len(scale)} scales but {len(zero_point)} zero points")
    return scale, zero_point, table.number(6, "int32")


def _bytes(buffer: Table, data: memoryview) -> NDArray[np.uint8]:
    """A constant lies in the buffer's own vector or, in newer and larger files, at an offset of the file."""
    offset, size = buffer.number(1, "uint64"), buffer.number(2, "uint64")
    if offset <= 1:  # 0 and 1 mean: not used
        return buffer.vector(0, "uint8")
    check_extent(data, offset, size)
    return np.frombuffer(data, np.uint8, size, offset)


def _call(index: int, table: Table, kinds: list[str], tensors: int) -> Call:
    code = table.number(0, "uint32")
    if code >= len(kinds):
        raise ModelFileError(f"is damaged: operator {index} has the code {code} of {len(kinds)}")
    inputs, outputs = (_indices(table, field, f"operator {index}", tensors) for field in (1, 2))
    return Call(index, kinds[code], inputs, outputs, table.table(4))


def _indices(table: Table, field: int, where: str, tensors: int) -> tuple[int, ...]:
    indices = table.vector(field, "int32")
    if len(indices) > MAX_OPERANDS:
        raise ModelFileError(f"{where} has {len(indices)} inputs or outputs; at most {MAX_OPERANDS} are accepted")
    if (indices < -1).any() or (indices >= tensors).any():
        raise ModelFileError(f"is damaged: {where} refers to a tensor that does not exist")
    return tuple(map(int, indices))


def tensor_type(tensor: Tensor) -> TensorType:
    """The type of a value without its batch.

    Raises:
        ModelFileError: a batch that is not 1, a dtype that values cannot have, integers without one scale.
    """
    where = f"tensor {tensor.index}"
    if not tensor.shape or tensor.shape[0] != 1:
        raise ModelFileError(f"{where} has shape {list(tensor.shape)}; only a batch of 1 is read")
    dtype = VALUE_TYPES.get(tensor.dtype)
    if dtype is None:
        raise ModelFileError(f"{where} has dtype {tensor.dtype}; read are {', '.join(VALUE_TYPES)}")
    try:
        quantisation = _single_quantisation(tensor) if dtype in INTEGER_DTYPES else None
        return TensorType(tensor.shape[1:], dtype, quantisation)
    except GraphError as error:
        raise ModelFileError(f"{where}: {error}") from None


def _single_quantisation(tensor: Tensor) -> Quantisation:
    if len(tensor.scale) != 1:
        raise ModelFileError(f"tensor {tensor.index} is {tensor.dtype} with {len(tensor.scale)} scales, not one")
    zero_point, info = int(tensor.zero_point[0]), np.iinfo(tensor.dtype)
    if not info.min <= zero_point <= info.max:
        raise ModelFileError(f"tensor {tensor.index} is {tensor.dtype} with the zero point {zero_point}")
    return Quantisation(float(tensor.scale[0]), zero_point)
