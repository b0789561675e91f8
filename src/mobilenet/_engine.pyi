"""The compiled module (native/python/binding.cc); `mobilenet.run.engine` is what to use."""

from typing import Any

from numpy.typing import NDArray
from typing_extensions import Buffer

BAD_FILE: int
UNSUPPORTED: int
BAD_ARGUMENT: int
NO_MEMORY: int

class Failure(RuntimeError):  # noqa: N818 - args are (code, text)
    args: tuple[int, str]

def isas() -> str: ...
def peak(precision: str) -> float: ...
def quantise(
    numbers: NDArray[Any], scale: float, zero_point: int, output: NDArray[Any], isa: str | None = None
) -> None: ...
def preprocess(
    resize: int,
    interpolation: int,
    channels: int,
    fill: int,
    crop_fraction: float,
    pixels: Buffer,
    table: Buffer | None,
    output: Buffer,
    isa: str | None = None,
) -> None: ...

class Engine:
    def __init__(
        self, data: Buffer, precision: int, threads: int, isa: str | None, memory_limit: int, mac_limit: int
    ) -> None: ...
    def inputs(self, height: int, width: int) -> list[tuple[str, str, tuple[int, ...], float, int]]: ...
    def outputs(self, height: int, width: int) -> list[tuple[str, str, tuple[int, ...], float, int]]: ...
    def run(self, height: int, width: int, inputs: list[Any], outputs: list[Any]) -> None: ...
    def plan(self, height: int, width: int, rounds: int) -> str: ...
