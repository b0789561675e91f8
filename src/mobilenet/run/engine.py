"""The engine: runs a model on the CPU, fast. This is the Python side of native/include/mobilenet.h.

Floats are computed in float32, or in bfloat16 where the caller says so; integers exactly as
`reference_integer.py` defines. The answer does not depend on the number of threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from mobilenet.errors import (
    ArgumentError,
    EngineMissingError,
    MobilenetError,
    ModelFileError,
    OutOfMemoryError,
    UnsupportedOperatorError,
)

try:
    from mobilenet import _engine
except ImportError as error:
    raise EngineMissingError(
        f"the compiled engine cannot be imported ({error}); build it with a C++20 compiler: "
        "pip install . in the project's folder"
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PRECISIONS = {"fp32": 0, "bf16": 1}
MAX_THREADS = 256


class Tensor(NamedTuple):
    """What an input or output is: shape without the batch; scale and zero point mean something for integers."""

    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def integer(self) -> bool:
        """Whether the values are quantised."""
        return self.dtype in ("int8", "uint8")


class Engine:
    """A model ready to run. It may be used by several threads at once, and lets other Python threads run.

    Args:
        data: the bytes of a model file (docs/format.md); they are not needed afterwards.
        precision: of float layers, "fp32" or "bf16"; integer layers are exact in either.
        threads: how many share the work of one call; default: `MOBILENET_THREADS`, else one for each processor
            that this process may use.
        isa: which instruction set's kernels to use, one of `isas()`; default: `MOBILENET_ISA`, else the best.
        memory_limit: bytes of weights and activations; default 4 GiB.
        mac_limit: multiply-accumulates of one picture; default 2^40.

    Raises:
        ModelFileError: the bytes are no valid model.
        UnsupportedOperatorError: an operator, or this precision, has no kernel; the message names both.
        OutOfMemoryError: the model passes the memory limit, or there is not enough memory.
        ArgumentError: an option is not one that is accepted, or this processor lacks the instruction set.
    """

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        isa: str | None = None,
        memory_limit: int = 2**32,
        mac_limit: int = 2**40,
    ) -> None:
        if precision not in PRECISIONS:
            raise ArgumentError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.precision = precision
        self.threads = thread_count(threads)
        limits = _limit("memory_limit", memory_limit), _limit("mac_limit", mac_limit)
        wanted = isa or os.environ.get("MOBILENET_ISA") or None
        try:
            self._native = _engine.Engine(data, PRECISIONS[precision], self.threads, wanted, *limits)
        except _engine.Failure as failure:
            _raise(failure, ModelFileError)
        self._known: dict[tuple[int, int], tuple[dict[str, Tensor], dict[str, Tensor]]] = {}

    def inputs(self, height: int = 0, width: int = 0) -> dict[str, Tensor]:
        """What the inputs are, by name, for pictures of height x width (0, 0: the model's own size).

        Raises:
            ArgumentError: the network cannot work at this size; the message names the node.
        """
        return self._tensors(height, width)[0]

    def outputs(self, height: int = 0, width: int = 0) -> dict[str, Tensor]:
        """What the outputs are; arguments and errors as `inputs`."""
        return self._tensors(height, width)[1]

    def run(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for a batch.

        Args:
            inputs: name -> array (N, ...) of the model's dtype, pictures (N, height, width, channels); or the one
                array of a model with one input. Pictures may have another height and width than the model's own
                where every node can work at that size. A contiguous array is not copied.

        Returns:
            Name of the output -> array (N, ...) in the graph's own dtype: integers stay integers.

        Raises:
            ArgumentError: an input is missing, unknown, or of another shape or dtype.
            OutOfMemoryError: there is not enough memory.
        """
        arrays = self._named(inputs)
        size = self._size(arrays)
        needed, made = self._tensors(*size)
        for name, array in arrays.items():
            _check(name, array, needed[name])
        batches = {name: len(array) for name, array in arrays.items()}
        if len(set(batches.values())) > 1:
            raise ArgumentError(f"the inputs differ in their batch: {batches}")
        count = next(iter(batches.values()))
        outputs = {name: np.empty((count, *kind.shape), kind.dtype) for name, kind in made.items()}
        contiguous = [np.ascontiguousarray(arrays[name]) for name in needed]
        try:
            self._native.run(*size, contiguous, list(outputs.values()))
        except _engine.Failure as failure:
            _raise(failure, ArgumentError)
        return outputs

    def plan(self, height: int = 0, width: int = 0, *, rounds: int = 0) -> dict[str, Any]:
        """How the model runs: instruction set, arena, and each step with its nodes, kernel, tile and MACs.

        With `rounds`, each step also says its "ms": the shortest of so many runs on zeros, on one thread.

        Raises:
            ArgumentError: as `inputs`.
        """
        try:
            plan: dict[str, Any] = json.loads(self._native.plan(height, width, rounds))
        except _engine.Failure as failure:
            _raise(failure, ArgumentError)
        return plan

    def _tensors(self, height: int, width: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        known = self._known.get((height, width))
        if known is None:
            try:
                found = self._native.inputs(height, width), self._native.outputs(height, width)
            except (_engine.Failure, TypeError) as failure:
                _raise(failure, ArgumentError)
            inputs, outputs = ({kind[0]: Tensor(*kind[1:]) for kind in kinds} for kinds in found)
            known = self._known[height, width] = inputs, outputs
        return known

    def _named(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        own = self.inputs()
        if not isinstance(inputs, Mapping):
            if len(own) != 1:
                raise ArgumentError(f"the model has the inputs {', '.join(own)}; give a dictionary of arrays")
            inputs = {next(iter(own)): inputs}
        for name in inputs.keys() - own.keys():
            raise ArgumentError(f"the model has no input '{name}'; it has {', '.join(own)}")
        for name, kind in own.items():
            if name not in inputs:
                raise ArgumentError(f"input '{name}' of shape {_shape(kind)} is missing")
            if not isinstance(inputs[name], np.ndarray):
                raise ArgumentError(f"input '{name}' is a {type(inputs[name]).__name__}; give a numpy array")
        return dict(inputs)

    def _size(self, arrays: dict[str, Array]) -> tuple[int, int]:
        """Height and width of the pictures, or (0, 0) where they are the model's own."""
        own = self.inputs()
        if len(own) != 1:
            return 0, 0
        ((name, kind),) = own.items()
        found = arrays[name].shape
        resized = len(kind.shape) == 3 and len(found) == 4 and found[1:3] != kind.shape[:2]
        return (found[1], found[2]) if resized and found[3] == kind.shape[2] and min(found[1:3]) else (0, 0)


def quantise(numbers: Array, kind: Tensor) -> Array:
    """float32 numbers as the integers of a quantised input: `run.quanta.quantise_array`, bit for bit."""
    output = np.empty(numbers.shape, kind.dtype)
    isa = os.environ.get("MOBILENET_ISA") or None
    try:
        _engine.quantise(np.ascontiguousarray(numbers), kind.scale, kind.zero_point, output, isa)
    except _engine.Failure as failure:
        _raise(failure, ArgumentError)
    return output


def isas() -> tuple[str, ...]:
    """The instruction sets that this build has and this processor can run, best first."""
    return tuple(_engine.isas().split(","))


def thread_count(threads: int | None = None) -> int:
    """How many threads to use: what is given, else `MOBILENET_THREADS`, else the processors of this process.

    Raises:
        ArgumentError: no whole number from 1 to 256.
    """
    where, given = "threads", threads
    if given is None and os.environ.get("MOBILENET_THREADS"):
        where, text = "MOBILENET_THREADS", os.environ["MOBILENET_THREADS"]
        given = int(text) if text.isascii() and text.isdigit() else -1
    if given is None:
        own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        given = min(own, MAX_THREADS)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MAX_THREADS:
        raise ArgumentError(f"{where} must be a whole number from 1 to {MAX_THREADS}")
    return given


def _limit(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**64:
        raise ArgumentError(f"{name} must be a whole number above 0, not {value!r}")
    return value


def _check(name: str, array: Array, kind: Tensor) -> None:
    if array.shape[1:] != kind.shape or array.ndim != len(kind.shape) + 1:
        raise ArgumentError(f"input '{name}' has shape {array.shape}; the model needs {_shape(kind)}")
    if str(array.dtype) != kind.dtype:
        raise ArgumentError(f"input '{name}' has dtype {array.dtype}; the model needs {kind.dtype}")


def _shape(kind: Tensor) -> str:
    return f"({', '.join(map(str, ('N', *kind.shape)))})"


def _raise(failure: Exception, otherwise: type[MobilenetError]) -> NoReturn:
    """Raises ours for the engine's; `otherwise` is what a bad file or graph is where it happened."""
    if not isinstance(failure, _engine.Failure):
        raise ArgumentError(f"a height and a width are whole numbers: {failure}") from None
    code, text = failure.args
    kinds: dict[int, type[MobilenetError]] = {
        _engine.UNSUPPORTED: UnsupportedOperatorError,
        _engine.BAD_ARGUMENT: ArgumentError,
        _engine.NO_MEMORY: OutOfMemoryError,
    }
    raise kinds.get(code, otherwise)(text) from None
