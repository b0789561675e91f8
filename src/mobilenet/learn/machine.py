"""Where training runs: device, precision and processes, all through accelerate."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch import Tensor

from mobilenet.errors import ArgumentError, MobilenetError, TrainingError
from mobilenet.learn.options import TrainOptions

# mallopt(3): M_MMAP_MAX 0, M_TRIM_THRESHOLD off, M_TOP_PAD 64 MB.
MALLOC_OPTIONS = {-4: 0, -1: -1, -2: 2**26}
PRECISION_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Machine:
    """One process's view: started by hand, or one of several by `accelerate launch` or `torchrun`.

    Attributes:
        accelerator: accelerate's own object.
        device: where tensors live.
        precision: "bf16", "fp16" or "no".
        process, processes: number of this process and how many there are.

    Raises:
        ArgumentError: the device or the precision is not there.
    """

    def __init__(self, options: TrainOptions) -> None:
        if options.threads:
            torch.set_num_threads(options.threads)
        self.device_type = _device_type(options.device)
        self.precision = _precision(options.amp, self.device_type)
        if self.device_type == "cpu":
            keep_freed_memory()
        if ":" in options.device:
            torch.cuda.set_device(options.device)
        # accelerate remembers the device and precision of a process's first run for ever; a second run may differ.
        AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
        self.accelerator = Accelerator(cpu=self.device_type == "cpu", mixed_precision=self.precision)
        self.device: torch.device = self.accelerator.device
        self.process: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.process == 0

    def describe(self) -> str:
        """Device, precision and processes in words."""
        words = [str(self.device), {"no": "float32"}.get(self.precision, self.precision)]
        if self.device.type == "cpu":
            words.append(f"{torch.get_num_threads()} threads")
        if self.processes > 1:
            words.append(f"{self.processes} processes")
        return ", ".join(words)

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, as chosen."""
        dtype = PRECISION_TYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def total(self, value: Tensor) -> Tensor:
        """The sum of every process's `value`, the same in all of them."""
        if self.processes > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def from_main(self, value: Tensor) -> Tensor:
        """The main process's `value`; the others give one of the same shape and dtype."""
        if self.processes > 1:
            dist.broadcast(value, 0)
        return value

    def agreed(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The main process's array; the others give one of the same shape."""
        agreed: NDArray[np.float32] = self.from_main(torch.from_numpy(array.copy()).to(self.device)).cpu().numpy()
        return agreed

    def sums(self, figures: Tensor) -> Tensor:
        """`total` of figures on the CPU; on their GPUs if these are what joins the processes."""
        return self.total(figures.to(self.device)).cpu() if self.processes > 1 else figures

    def text_from_main(self, make: Callable[[], str]) -> str:
        """What `make` returns in the main process, which alone calls it; all raise if it raises."""
        if self.processes == 1:
            return make()
        held = [("", "")]
        failure: MobilenetError | None = None
        if self.is_main:
            try:
                held = [("", make())]
            except MobilenetError as error:
                failure, held = error, [(str(error), "")]
        dist.broadcast_object_list(held, 0)
        if held[0][0]:
            raise failure or TrainingError(held[0][0])
        return held[0][1]

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()


def _device_type(device: str) -> str:
    kind = device.partition(":")[0]
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    if not there:
        raise ArgumentError(f"--device {device}: this machine or this build of torch has none; use cpu or auto")
    return kind


def _precision(amp: str, device: str) -> str:
    if amp == "none":
        return "no"
    if amp == "fp16" and device == "cpu":
        raise ArgumentError("--amp fp16: the CPU computes in bf16 or float32; use --amp bf16, auto or none")
    if amp != "auto":
        return amp
    if device == "cpu":
        return "bf16" if cpu_has_bfloat16() else "no"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "no"


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def keep_freed_memory() -> None:
    """Lets glibc keep the memory of freed tensors for the next ones; does nothing with another C library.

    By default it gives blocks of more than 32 MB back to the system at once. Every step would then touch its
    gigabytes of activations for the first time, and on a CPU those page faults cost more than the arithmetic:
    a depthwise convolution of 32 x 112 x 112 x 32 in float32 took 32 ms with, 9 ms without.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in MALLOC_OPTIONS.items():
        mallopt(parameter, value)
