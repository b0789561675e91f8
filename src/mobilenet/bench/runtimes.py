"""The runtimes that can be timed: for each, how it is set up to run a network at a precision with some threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import mobilenet
from mobilenet.bench.network import Network
from mobilenet.errors import ArgumentError

Run = Callable[[], np.ndarray]  # runs the network's batch once; gives the output, (N, ...)


class Unavailable(Exception):  # noqa: N818 - no error of a caller's: a line of the table
    """A runtime cannot do what is asked, and why."""


@dataclass(frozen=True)
class Setting:
    """How a network is to run.

    Attributes:
        precision: "fp32", "bf16" or "int8".
        threads: how many the runtime may use.
        folder: for files of its own.
    """

    precision: str
    threads: int
    folder: Path


@dataclass(frozen=True)
class Prepared:
    """A runtime that is ready: what to time, and what its plan says if it has one."""

    run: Run
    plan: dict[str, Any] | None = None


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    Attributes:
        name: in tables and for `--vs`.
        package: on PyPI.
        module: what is imported.
        extra: of mobilenet's, that installs it.
        precisions: those that it has.
        prepare: sets it up; raises `Unavailable`, or whatever it likes, if it cannot.
        order: of the axes of a picture that comes out, "nhwc" or "nchw".
    """

    name: str
    package: str
    module: str
    extra: str
    precisions: tuple[str, ...]
    prepare: Callable[[Network, Setting], Prepared]
    order: str = "nhwc"

    @property
    def version(self) -> str:
        """Of the installed package; empty if there is none."""
        try:
            return mobilenet.__version__ if self.name == "mobilenet" else version(self.package)
        except PackageNotFoundError:
            return ""

    @property
    def installed(self) -> bool:
        """Whether its module can be imported."""
        return importlib.util.find_spec(self.module) is not None


def _mobilenet(network: Network, setting: Setting) -> Prepared:
    from mobilenet.bench.ours import prepare

    return prepare(network, setting)


def _onnxruntime(network: Network, setting: Setting) -> Prepared:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    options.log_severity_level = 3
    model = network.onnx_int8 if setting.precision == "int8" else network.onnx
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: network.batch_nchw}
    return Prepared(lambda: session.run(None, feed)[0])


def _openvino(network: Network, setting: Setting) -> Prepared:
    """Its precision by default is the processor's fastest, so it is always given."""
    import openvino

    core = openvino.Core()
    model = core.read_model(network.onnx_int8 if setting.precision == "int8" else network.onnx)
    settings = {
        "INFERENCE_NUM_THREADS": setting.threads,
        "INFERENCE_PRECISION_HINT": "bf16" if setting.precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if setting.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("has no bf16 on this processor")
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    feed = {0: network.batch_nchw}

    def run() -> np.ndarray:
        request.infer(feed, share_inputs=True, share_outputs=True)
        return np.asarray(request.get_output_tensor(0).data)

    return Prepared(run)


def _litert(network: Network, setting: Setting) -> Prepared:
    from ai_edge_litert.interpreter import Interpreter

    model = network.tflite_int8 if setting.precision == "int8" else network.tflite
    interpreter = Interpreter(model_content=model, num_threads=setting.threads)
    interpreter.allocate_tensors()
    given, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run() -> np.ndarray:
        interpreter.set_tensor(given, network.batch)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output))

    return Prepared(run)


def _ncnn(network: Network, setting: Setting) -> Prepared:
    from mobilenet.bench.converted import prepare_ncnn

    return prepare_ncnn(network, setting)


def _mnn(network: Network, setting: Setting) -> Prepared:
    from mobilenet.bench.converted import prepare_mnn

    return prepare_mnn(network, setting)


def _torch(network: Network, setting: Setting) -> Prepared:
    """Eager; bf16 is autocast, as one would write it."""
    import torch

    from mobilenet.run.torch_module import GraphModule

    torch.set_num_threads(setting.threads)
    module = GraphModule.from_weights(*network.float_graph).eval()
    batch = torch.from_numpy(network.batch)
    output = next(iter(network.contents.graph.outputs))

    def run() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16"):
            result: np.ndarray = module(batch)[output].float().numpy()
        return result

    return Prepared(run)


RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("mobilenet", "mobilenet", "mobilenet", "", ("fp32", "bf16", "int8"), _mobilenet),
        Runtime("onnxruntime", "onnxruntime", "onnxruntime", "bench", ("fp32", "int8"), _onnxruntime, "nchw"),
        Runtime("openvino", "openvino", "openvino", "bench", ("fp32", "bf16", "int8"), _openvino, "nchw"),
        Runtime("litert", "ai-edge-litert", "ai_edge_litert", "bench", ("fp32", "int8"), _litert),
        Runtime("ncnn", "ncnn", "ncnn", "bench", ("fp32", "bf16"), _ncnn, "nchw"),
        Runtime("mnn", "MNN", "MNN", "bench", ("fp32",), _mnn, "nchw"),
        Runtime("torch", "torch", "torch", "train", ("fp32", "bf16"), _torch),
    )
}
PEERS = tuple(name for name in RUNTIMES if name != "mobilenet")


def find_runtimes(names: str | None) -> list[Runtime]:
    """The peers that a list such as "onnxruntime,openvino" names, all if it is None, none if it is empty.

    Raises:
        ArgumentError: an unknown name.
    """
    if names is None:
        return [RUNTIMES[name] for name in PEERS]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in PEERS:
            raise ArgumentError(f"unknown runtime '{name}'; known are {', '.join(PEERS)}")
    return [RUNTIMES[name] for name in dict.fromkeys(wanted)]
