"""ncnn and MNN, whose own converters turn a file into theirs: programs that run beside this one.

MNN's converter is called through its compiled module: the command `mnnconvert` that comes with it also installs a
package into whichever Python is first on the path, and reports to its makers.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from mobilenet.bench.network import Network
from mobilenet.bench.runtimes import Prepared, Setting, Unavailable

CONVERSION_SECONDS = 120
CALL_MNN_CONVERTER = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
CALL_PNNX = "import pnnx; pnnx.pnnx()"


def prepare_ncnn(network: Network, setting: Setting) -> Prepared:
    """ncnn with the float32 weights that pnnx writes; bf16 is its storage of activations and weights."""
    import ncnn

    if network.batch_size > 1:
        raise Unavailable("runs one picture at a time")
    source = setting.folder / "network.onnx"
    source.write_bytes(network.onnx)
    _convert(CALL_PNNX, [source.name, "fp16=0"], setting.folder, setting.folder / "network.ncnn.param")
    net = ncnn.Net()
    net.opt.num_threads = setting.threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = setting.precision == "bf16"
    if net.load_param(str(setting.folder / "network.ncnn.param")):
        raise Unavailable("cannot read the network that pnnx wrote: it has a layer that ncnn does not")
    if net.load_model(str(setting.folder / "network.ncnn.bin")):
        raise Unavailable("cannot read the weights that pnnx wrote")
    picture = network.batch_nchw[0]

    def run() -> np.ndarray:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(picture))
            failed, output = extractor.extract("out0")
            if failed:
                raise Unavailable(f"stopped with the code {failed}")
            return np.array(output)[None]

    return Prepared(run)


def prepare_mnn(network: Network, setting: Setting) -> Prepared:
    """MNN from the ONNX file, or for int8 from the integer .tflite file (it cannot read a quantised ONNX file)."""
    import MNN

    int8 = setting.precision == "int8"
    source, target = setting.folder / "network", setting.folder / "network.mnn"
    source.write_bytes(network.tflite_int8 if int8 else network.onnx)
    words = ["-f", "TFLITE" if int8 else "ONNX", "--modelFile", source.name, "--MNNModel", target.name]
    _convert(CALL_MNN_CONVERTER, [*words, "--bizCode", "mobilenet"], setting.folder, target)
    interpreter = MNN.Interpreter(str(target))
    session = interpreter.createSession({"backend": "CPU", "numThread": setting.threads, "precision": "high"})
    batch = network.batch if int8 else network.batch_nchw
    layout = MNN.Tensor_DimensionType_Tensorflow if int8 else MNN.Tensor_DimensionType_Caffe
    given = interpreter.getSessionInput(session)
    staged = MNN.Tensor(batch.shape, MNN.Halide_Type_Float, np.array(batch), layout)
    shape = network.main_shape

    def run() -> np.ndarray:
        given.copyFrom(staged)
        interpreter.runSession(session)
        output = interpreter.getSessionOutput(session)
        result = MNN.Tensor(output.getShape(), MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe)
        output.copyToHostTensor(result)
        return np.array(result.getNumpyData()).reshape(-1, *shape)

    return Prepared(run)


def _convert(program: str, words: list[str], folder: Path, target: Path) -> None:
    """Runs a converter in a folder; raises `Unavailable` with its last line if it wrote nothing."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CONVERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its converter did not end within {CONVERSION_SECONDS} s") from None
    if done.returncode or not target.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"its converter failed: {lines[-1][:160] if lines else f'status {done.returncode}'}")
