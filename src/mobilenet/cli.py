"""The command `mobilenet`: each verb hands its words to a function and prints what comes back."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mobilenet
from mobilenet.errors import ArgumentError, MissingExtraError, MobilenetError
from mobilenet.learn.options import TrainOptions
from mobilenet.report.progress import PictureBar
from mobilenet.search import commands as search_commands

if TYPE_CHECKING:
    from mobilenet.model import Model
    from mobilenet.tasks.classify import ClassificationResult

app = typer.Typer(
    name="mobilenet",
    help="Small vision models from a folder of pictures to answers, without a GPU.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

MATRIX_CLASSES = 100  # above, JSON leaves the confusion matrix out: a million numbers for 1,000 classes

ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or an official .tflite file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Precision = Annotated[str, typer.Option(help="Of float layers: fp32, or bf16.")]
Threads = Annotated[int | None, typer.Option(help="Default: the processors that may be used.")]


def main() -> None:
    """Runs the command; an error of ours is one line and exit status 1."""
    try:
        app()
    except MobilenetError as error:
        fail(str(error))
    except BrokenPipeError:  # the reader of a pipe has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}")


def fail(message: str) -> None:
    """Prints an error and ends the process with status 1."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    sys.exit(1)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"mobilenet {mobilenet.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Small vision models from a folder of pictures to answers, without a GPU."""


def train(**words: Any) -> None:
    """Train a network on pictures: to classify them, or what --task says.

    DATA is ROOT/{train,val,test}/CLASS/*, or ROOT/CLASS/* (then it is split), or a CSV file of path,label. To
    segment: ROOT/images and ROOT/masks; to detect: a data set with boxes.
    """
    try:
        from mobilenet.learn.train import train as run_training
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"training (no module named {error.name!r})", "train") from error
    run_training(TrainOptions(**words))


def _train_signature() -> inspect.Signature:
    """The words of `TrainOptions` as typer wants to see them, so that they are written down once."""
    parameters = []
    for option in dataclasses.fields(TrainOptions):
        help_text = option.metadata.get("help", "")
        needed = option.default is dataclasses.MISSING
        word: Any = (
            typer.Argument(metavar=option.name.upper(), help=help_text) if needed else typer.Option(help=help_text)
        )
        parameters.append(
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if needed else option.default,
                annotation=Annotated[option.type, word],
            )
        )
    return inspect.Signature(parameters)


@app.command()
def evaluate(
    model: ModelPath,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder or CSV file of labelled pictures.")],
    split: Annotated[str, typer.Option(help="train, val, test, or all.")] = "test",
    batch: Annotated[int, typer.Option(help="How many pictures run at once.")] = 1,
    on_bad_picture: Annotated[str, typer.Option(help="stop, or skip.")] = "stop",
    report: Annotated[str | None, typer.Option(help="Write a self-contained HTML report here.")] = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    task: Annotated[
        str | None, typer.Option(help="verify: do two pictures show the same one? Default: the model's own task.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(help="verify: pairs.txt of LFW, or a CSV of path,path,same. Default: drawn.")
    ] = None,
    draw: Annotated[int, typer.Option(help="verify: how many pairs of each kind to draw; 0 is all.")] = 3000,
    seed: Annotated[int, typer.Option(help="verify: which pairs are drawn.")] = 0,
    calibrate: Annotated[
        str | None, typer.Option(help="verify: other identities; sets the model's threshold by them.")
    ] = None,
    far: Annotated[float, typer.Option(help="verify: the false acceptance rate of that threshold.")] = 1e-3,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="verify: where the calibrated model goes. Default: MODEL.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help="verify: draw the ROC curve here (.png).")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled pictures: accuracy, calibration, mistakes.

    With `--task verify`, DATA is folders of identities, and embeddings are measured on pairs of pictures.
    """
    own = {"--pairs": pairs, "--calibrate": calibrate, "--output": output, "--plot": plot}
    if search_commands.is_verification(task, own, {"--report": report}):
        search_commands.verify(
            model, data, pairs=pairs, draw=draw, seed=seed, calibrate=calibrate, far=far, output=output, plot=plot,
            on_bad_picture=on_bad_picture, threads=threads, precision=precision, as_json=as_json,
        )  # fmt: skip
        return
    with _progress("evaluating") as advance:
        metrics = mobilenet.load(model, precision=precision, threads=threads).evaluate(
            data, split=split, batch=batch, on_bad_picture=on_bad_picture, report=report, on_progress=advance
        )
    if as_json:
        many = len(metrics["per_class"]) > MATRIX_CLASSES
        _print_json({key: value for key, value in metrics.items() if not (many and key == "confusion")})
    elif "ap50" in metrics:
        from mobilenet.report.boxes import print_detection

        print_detection(metrics, out)
    elif "miou" in metrics:
        from mobilenet.report.segments import print_segmentation

        print_segmentation(metrics, out)
    else:
        _print_metrics(metrics)
    if report and not as_json:
        out.print(f"report: {escape(report)}")


def _print_metrics(metrics: dict[str, Any]) -> None:
    table = Table("class", "pictures", "precision", "recall", "F1", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figures in metrics["per_class"].items():
        shares = (f"{figures[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(escape(name), str(figures["images"]), *shares)
    out.print(table)
    before, after = metrics["ece_uncalibrated"], metrics["ece"]
    scaled = f" (before temperature scaling {before:.4f})" if before != after else ""
    images, split, latency = metrics["images"], metrics["split"], metrics["latency_ms"]
    out.print(f"top-1 {metrics['top1']:.4f}   top-5 {metrics['top5']:.4f}   {images} pictures ({split})")
    out.print(f"calibration error {after:.4f}{scaled}   {latency:.1f} ms a picture, from file to answer")
    if metrics["skipped"]:
        out.print(f"{metrics['skipped']} bad pictures were skipped")


@app.command()
def predict(
    model: ModelPath,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Pictures, folders, globs, - for a list on standard input; or a film, camera (0) or stream.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="path,rank,label,confidence.")] = False,
    save: Annotated[
        str | None,
        typer.Option(metavar="DIR|FILM", help="Write a picture of each answer here, and masks; or a film (.mp4)."),
    ] = None,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Name no class below this.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="How many pictures run at once.")] = 1,
    live: Annotated[
        bool | None,
        typer.Option("--live/--keep-all", help="Drop frames rather than lag. Default: for cameras and streams."),
    ] = None,
    every: Annotated[int | None, typer.Option(help="Films: answer each n-th frame.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Films: end after so many answers.")] = None,
    fps: Annotated[float | None, typer.Option(help="Take pictures as a film of this rate.")] = None,
    track: Annotated[
        bool | None, typer.Option("--track/--no-track", help="Films: give boxes ids. Default: yes.")
    ] = None,
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Say what is in pictures, or in each frame of a film, camera or stream.

    A picture that cannot be read is one line on standard error; the others go on, and the exit status is 1.
    """
    from mobilenet.live.choose import is_moving
    from mobilenet.model import PLACED
    from mobilenet.pictures.sources import expand_sources
    from mobilenet.report.predictions import picture_saver, placed_writer

    if as_json and as_csv:
        raise ArgumentError("--json and --csv exclude each other")
    words = {"--live": live, "--every": every, "--max-frames": max_frames, "--fps": fps, "--track": track}
    moving = is_moving(sources, words)
    if moving and as_csv:
        raise ArgumentError("answers about films have no --csv; there is --json")
    loaded = mobilenet.load(model, precision=precision, threads=threads)
    loaded._need("classify", *PLACED)
    if moving:
        from mobilenet.live.command import predict_stream

        status = predict_stream(
            loaded, sources, live=live, every=every, max_frames=max_frames, fps=fps, track=track, save=save,
            as_json=as_json, least=min_confidence, top=top,
        )  # fmt: skip
        raise typer.Exit(status)
    if loaded.task in PLACED:
        write = placed_writer(sys.stdout, as_json=as_json, as_csv=as_csv)
    else:
        write = _csv_writer(top) if as_csv else _json_writer(top) if as_json else _text_writer(top)
    saved = picture_saver(save) if save is not None else None
    bad = 0
    for answer in loaded.answers(expand_sources(sources, stdin=sys.stdin), batch=batch):
        if answer.error:
            bad += 1
            err.print(f"[bold red]error:[/] {escape(str(answer.error))}", highlight=False)
        else:
            result = loaded.result(answer)
            write(result, min_confidence)
            if saved is not None:
                saved(result)
    if bad:
        raise typer.Exit(1)


def _named(result: ClassificationResult, top: int, least: float) -> list[tuple[str, float]]:
    data = result.probs.data
    return [(result.names[i], float(data[i])) for i in result.probs.top(top) if data[i] >= least]


def _text_writer(top: int) -> Any:
    def write(result: ClassificationResult, least: float) -> None:
        named = _named(result, top, least)
        text = ", ".join(f"{name} {share:.1%}" for name, share in named) or f"no class reaches {least:.0%}"
        sys.stdout.write(f"{result.path}: {text}\n")

    return write


def _json_writer(top: int) -> Any:
    def write(result: ClassificationResult, least: float) -> None:
        values = result.to_dict(top)
        values["top"] = [entry for entry in values["top"] if entry["confidence"] >= least]
        if not values["top"]:
            values["label"] = None
        sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")

    return write


def _csv_writer(top: int) -> Any:
    rows = csv.writer(sys.stdout)
    rows.writerow(["path", "rank", "label", "confidence"])

    def write(result: ClassificationResult, least: float) -> None:
        for rank, (name, share) in enumerate(_named(result, top, least), 1):
            rows.writerow([result.path, rank, name, f"{share:.6f}"])

    return write


@app.command(name="import")
def import_(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER", help="A .tflite, .safetensors, .pth, .bin, .h5, .keras or .onnx file; a folder."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The model file to write.")],
    labels: Annotated[str | None, typer.Option(help="A text file with one label a line.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the picture in pixels.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Which network it is, where several have these tensors.")
    ] = None,
    to_float: Annotated[bool, typer.Option("--float", help="Dequantise a .tflite file, to fine-tune it.")] = False,
) -> None:
    """Turn somebody else's file into a model file."""
    from mobilenet.files.imports.read import read_any
    from mobilenet.model import Model

    contents = read_any(file, labels=labels, resolution=resolution, name=name, to_float=to_float)
    model = Model.of(contents)
    model.save(output)
    out.print(f"{escape(output)}: {_summary(model)}")
    for key, what in (("ambiguous", ""), ("assumed", "taken as usual, for the file does not say it: ")):
        if key in model.provenance:
            err.print(f"note: {what}{escape(model.provenance[key])}", highlight=False)


@app.command()
def quantise(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file of floats.")],
    data: Annotated[
        str, typer.Option(help="Pictures like those that the model will see: a folder, or a data set with labels.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Default: beside the model, NAME-int8.safetensors.")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="How much worse it may become, 0 to 1.")] = 0.01,
    method: Annotated[
        str, typer.Option(help="min-max, moving-average, percentile, mse, entropy, or auto.")
    ] = "auto",
    percentile: Annotated[float, typer.Option(help="Of the method of that name.")] = 99.99,
    pictures: Annotated[int, typer.Option(help="How many pictures to calibrate on, at most.")] = 64,
    held_out: Annotated[int, typer.Option(help="How many others to measure on, at most.")] = 500,
    equalise: Annotated[
        bool | None, typer.Option("--equalise/--no-equalise", help="Cross-layer equalisation. Default: tried.")
    ] = None,
    correct_bias: Annotated[
        bool | None, typer.Option("--correct-bias/--no-correct-bias", help="Default: tried.")
    ] = None,
    compensate: Annotated[
        bool | None,
        typer.Option("--compensate/--no-compensate", help="Weights make up for rounding. Default: tried."),
    ] = None,
    max_float: Annotated[
        float, typer.Option(help="Share of the work that may stay in float to keep the accuracy.")
    ] = 0.25,
    qat_epochs: Annotated[
        int, typer.Option(help="Train with rounding for so many epochs if the budget breaks without; 0 is never.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Which pictures are drawn.")] = 0,
    report: Annotated[str | None, typer.Option(help="Write a self-contained HTML report here.")] = None,
    threads: Threads = None,
) -> None:
    """Turn a float model into a small, fast one of 8-bit integers, and keep its accuracy.

    It is measured on pictures that it is not calibrated on. If it becomes worse than allowed, the most sensitive
    layers stay in float; if that does not do, it is trained with rounding for `--qat-epochs`; if that does not do
    either, nothing is written.
    """
    from mobilenet.quantise.options import QuantiseOptions
    from mobilenet.quantise.outcome import quantise_within
    from mobilenet.quantise.report import write_outcome

    options = QuantiseOptions(
        method,
        percentile,
        max_drop,
        pictures,
        held_out,
        equalise,
        correct_bias,
        compensate,
        max_float,
        seed,
        qat_epochs,
    )
    target = output or str(Path(model).with_suffix("")) + "-int8.safetensors"
    loaded = mobilenet.load(model, threads=threads)
    with _progress("quantising") as advance:
        outcome = quantise_within(
            loaded,
            data,
            options,
            with_sensitivities=report is not None,
            on_progress=lambda _, done, total: advance(done, total),
        )
    before, after = write_outcome(outcome, model, target, report)
    out.print(f"{escape(target)}: {_summary(outcome.model)}")
    out.print(f"{after / 1e6:.2f} MB, was {before / 1e6:.2f} MB; {escape(str(outcome))}")
    if outcome.drawn.labels is None:
        err.print(f"note: {escape(outcome.drawn.note)}", highlight=False)
    if report:
        out.print(f"report: {escape(report)}")


app.command(name="quantize", hidden=True)(quantise)  # the American spelling


@app.command()
def export(
    model: ModelPath,
    to: Annotated[str, typer.Option(help="onnx, tflite, c (a program), or hub (a folder for timm).")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Default: beside the model, under its name.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or int8; default: the model's own.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the picture in pixels.")] = None,
    batch: Annotated[str, typer.Option(help="How many pictures run at once: a number, or dynamic.")] = "1",
    picture_input: Annotated[
        bool, typer.Option("--picture-input", help="Take uint8 pixels, and normalise them inside.")
    ] = False,
    nms: Annotated[
        bool, typer.Option("--nms", help="A detector's file gives boxes, not raw outputs (onnx, tflite).")
    ] = False,
) -> None:
    """Write a model for another runtime, and check there that it gives the same answers.

    The file carries labels and preprocessing. If the answers differ, nothing is written.
    """
    from mobilenet.exports.export import default_path
    from mobilenet.exports.export import export as run_export
    from mobilenet.exports.prepare import Options, parse_batch

    options = Options(precision, resolution, parse_batch(batch), picture_input, nms)
    target = output or default_path(model, to)
    done = run_export(mobilenet.load(model), target, to=to, options=options)
    out.print(f"{escape(str(done.path))}: {done.size / 1e6:.2f} MB; {done.proof}", highlight=False)


def _summary(model: Model) -> str:
    size = "x".join(map(str, model.input.shape))
    nodes, parameters = len(model.graph.nodes), _parameters(model)
    return f"{model.task}, {size} {model.input.dtype}, {nodes} nodes, {parameters:,} parameters"


def _parameters(model: Model) -> int:
    return sum(array.size for array in model.weights.values())


@app.command()
def info(model: ModelPath, as_json: AsJson = False) -> None:
    """Show what is inside a model file."""
    from mobilenet.files.pull import find_weights

    loaded = mobilenet.load(model)
    values = _info(loaded, find_weights(model, model).stat().st_size)
    if as_json:
        _print_json(values)
        return
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, escape(_in_words(value)))
    out.print(table)


def _info(model: Model, size: int) -> dict[str, Any]:
    return {
        "task": model.task,
        "model": model.provenance.get("model") or model.provenance.get("source", ""),
        "input": {"shape": list(model.input.shape), "dtype": model.input.dtype},
        "outputs": {name: list(model.graph.types[node].shape) for name, node in model.graph.outputs.items()},
        "labels": list(model.labels),
        "preprocessing": model.preprocessing.describe() if model.preprocessing else "none: takes arrays",
        "parameters": _parameters(model),
        "bytes": size,
        "calibration": model.calibration,
        "metrics": model.metrics,
        "licence": model.licence,
        "provenance": model.provenance,
        "checks": len(model.checks),
    }


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        shown = "; ".join(map(str, value[:12]))
        return f"{len(value)}: {shown}{'; ...' if len(value) > 12 else ''}" if value else "none"
    if isinstance(value, dict):
        simple = {k: v for k, v in value.items() if not isinstance(v, dict) and not _long(v)}
        return "\n".join(f"{k}: {v}" for k, v in simple.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value) or "unknown"


def _long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 8


@app.command()
def profile(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A family member's name, or a model file.")],
    width: Annotated[float | None, typer.Option(help="Width multiplier.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the picture in pixels.")] = None,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 1000,
    dialect: Annotated[
        str | None, typer.Option(help="Whose details: paper, torchvision, timm, keras, ...")
    ] = None,
    as_json: AsJson = False,
    grid: Annotated[bool, typer.Option("--grid", help="The width x resolution table.")] = False,
    plot: Annotated[str | None, typer.Option(help="Draw the width x resolution trade-off (.png).")] = None,
) -> None:
    """Count parameters, multiply-accumulates and memory, layer by layer."""
    from mobilenet.report import profile as report

    if grid or plot:
        points = report.grid(name, classes=classes, dialect=dialect)
        if plot:
            from mobilenet.report.plots import trade_off

            trade_off(points, Path(plot), x="macs", y="params", title=f"{name}: width and resolution")
        _print_json(points) if as_json else report.print_grid(points, out)
        return
    values = report.profile_to_dict(_graph(name, width, resolution, classes, dialect), name)
    _print_json(values) if as_json else report.print_profile(values, out)


def _graph(name: str, width: float | None, resolution: int | None, classes: int, dialect: str | None) -> Any:
    from mobilenet.family.names import build

    if Path(name).is_file():
        graph = mobilenet.load(name).graph
        return graph.resized(resolution, resolution) if resolution else graph
    return build(name, width_multiplier=width, resolution=resolution, classes=classes, dialect=dialect)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(metavar="MODEL|NAME", help="A model file, or a family member's name.")],
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8; default: the model's own.")] = None,
    threads: Annotated[int, typer.Option(help="Of each runtime, on as many processors.")] = 1,
    vs: Annotated[
        str | None, typer.Option(help="Peers: onnxruntime,openvino,litert,ncnn,mnn,torch; default: all.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the picture in pixels.")] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier of a family member.")] = None,
    batch: Annotated[int, typer.Option(help="How many pictures run at once.")] = 1,
    rounds: Annotated[int, typer.Option(help="Turns of 8 calls that each runtime gets.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Time the engine beside other runtimes, in turns, in one run; each gets the network in its own file."""
    from mobilenet.bench.compare import compare
    from mobilenet.bench.network import find_network
    from mobilenet.bench.plan import usual_precision
    from mobilenet.bench.runtimes import find_runtimes
    from mobilenet.bench.tables import print_rows, processor

    peers = find_runtimes(vs)
    precision = precision or usual_precision(name)
    network = find_network(name, resolution=resolution, width=width, batch_size=batch)
    rows = compare(network, precision, threads=threads, peers=peers, rounds=rounds)
    if as_json:
        _print_json([row.to_dict() for row in rows])
    else:
        size = "×".join(map(str, network.batch.shape))
        threading = f"{threads} thread" + "s" * (threads > 1)
        print_rows(rows, f"{network.name}, {size}, {precision}, {threading}, {processor()}", out)


@app.command()
def plan(
    name: Annotated[str, typer.Argument(metavar="MODEL|NAME", help="A model file, or a family member's name.")],
    resolution: Annotated[int | None, typer.Option(help="Side of the picture in pixels.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8; default: the model's own.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: the processors that may be used.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the engine does with a network: steps, kernels, tiles, memory."""
    from mobilenet.bench.plan import find_plan
    from mobilenet.bench.tables import print_plan

    found = find_plan(name, precision=precision, threads=threads, resolution=resolution)
    _print_json(found) if as_json else print_plan(found, name, out)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `mobilenet list --pretrained` gives it.")],
    cache: Annotated[
        str | None, typer.Option(help="Folder to keep it in. Default: MOBILENET_HOME, or the user's cache.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network, as MOBILENET_OFFLINE=1.")] = False,
) -> None:
    """Fetch published weights into the cache, as a model file, and print where it is."""
    from mobilenet.files.pull import pull as run_pull
    from mobilenet.report.weights import download_bar

    with download_bar(err, name) as progress:
        path = run_pull(name, cache=cache, offline=offline, on_progress=progress)
    out.print(escape(str(path)), highlight=False)


@app.command(name="list")
def list_(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="With * and ?, such as *v3*.")] = "*",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Name the published weights that can be fetched.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Name the members of the family, or published weights."""
    if pretrained:
        _list_pretrained(pattern, as_json)
        return
    names = mobilenet.list_models(pattern)
    if as_json:
        _print_json(names)
    for name in names if not as_json else ():
        sys.stdout.write(name + "\n")


def _list_pretrained(pattern: str, as_json: bool) -> None:
    from fnmatch import fnmatchcase

    from mobilenet.files.pull import listing
    from mobilenet.report.weights import print_listing

    rows = [row for row in listing() if fnmatchcase(row["name"], pattern)]
    _print_json(rows) if as_json else print_listing(rows, out)


def _progress(what: str) -> PictureBar:
    return PictureBar(what, err)


for _verb in (search_commands.index, search_commands.search, search_commands.teach):
    app.command()(_verb)
train.__signature__ = _train_signature()  # type: ignore[attr-defined]
app.command()(train)
