"""What a training run is told: every option with its default, its meaning and its check. No torch here.

The command line and `mobilenet.train` are made from the fields of `TrainOptions`, so the annotations are real
types and not texts (no `from __future__ import annotations` in this file).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from mobilenet.errors import ArgumentError

TASKS = ("classify", "detect", "embed", "segment")
OPTIMIZERS = ("adamw", "sgd", "rmsprop")
PRECISIONS = ("auto", "bf16", "fp16", "none")
BAD_PICTURE_MODES = ("skip", "stop")
CLASS_WEIGHTS = ("none", "auto")
# The papers' 0.5 and 0.35 are for thousands of identities.
MARGINS = {"arcface": 0.2, "cosface": 0.15, "triplet": 0.3}

REGIONS = ("none", "dice", "lovasz")
OUTPUT_STRIDES = (8, 16, 32)

# What `None` means. Fine-tuning: pictures like those that the network knows, few epochs, low rates. From
# scratch: more epochs and higher rates.
FINE_TUNING: dict[str, Any] = {
    "epochs": 8,
    "lr0": {"adamw": 3e-4, "sgd": 0.01, "rmsprop": 1e-4},
    "weight_decay": 0.01,
    "warmup_epochs": 1.0,
    "layer_rate": 0.5,
    "crop_area": 0.35,
}
# A sliced network has lost more, in its first layers as well.
SLICED: dict[str, Any] = {
    **FINE_TUNING,
    "lr0": {"adamw": 1e-3, "sgd": 0.03, "rmsprop": 3e-4},
    "layer_rate": 1.0,
}
FROM_SCRATCH: dict[str, Any] = {
    "epochs": 60,
    "lr0": {"adamw": 3e-3, "sgd": 0.1, "rmsprop": 1e-3},
    "weight_decay": 0.02,
    "warmup_epochs": 3.0,
    "layer_rate": 1.0,
    "crop_area": 0.5,
}


# Pictures of identities are cut to their subject: small parts of a face are not to be told apart.
EMBEDDING: dict[str, Any] = {"crop_area": 0.75}
# Few identities teach little that holds for others: features move with care, the first layers hardly.
EMBEDDING_TUNED: dict[str, Any] = {
    **EMBEDDING,
    "lr0": {"adamw": 1e-4, "sgd": 3e-3, "rmsprop": 3e-5},
    "layer_rate": 0.2,
}

# A detector's head is new and large, and the network below moves with it.
DETECTING: dict[str, Any] = {
    "epochs": 60,
    "lr0": {"adamw": 2e-3, "sgd": 0.03, "rmsprop": 6e-4},
    "weight_decay": 0.02,
    "warmup_epochs": 1.0,
    "layer_rate": 0.3,
    "crop_area": 0.5,
}
DETECTING_FROM_SCRATCH: dict[str, Any] = {"epochs": 200}


# A new head learns with the network below it, from few pictures with many pixels each.
SEGMENTING: dict[str, Any] = {
    "epochs": 40,
    "lr0": {"adamw": 2e-3, "sgd": 0.1, "rmsprop": 1e-3},
    "layer_rate": 0.3,
    "crop_area": 0.5,
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainOptions:
    """The words of `mobilenet train`; `None` is a default that depends on other options (see `filled`).

    Raises:
        ArgumentError: an option has a value that is not accepted; the message names it and says what is.
    """

    data: str = field(
        metadata={
            "help": "ROOT/{train,val,test}/CLASS/*, ROOT/CLASS/*, or a CSV file of path,label. "
            "detect: Pascal VOC, COCO or YOLO. segment: images/ and masks/, or COCO."
        }
    )
    task: str = _option("classify", "What is learnt: classify, detect, embed or segment.")
    model: str = _option("mobilenet_v2", "Network to train from scratch (see `mobilenet list`).")
    width: float | None = _option(
        None, "Width multiplier of the network. Default: its own. With --pretrained: sliced to this width."
    )
    resolution: int | None = _option(None, "Side of the input in pixels. Default: the network's own.")
    dialect: str | None = _option(None, "Whose details the network follows: paper, torchvision, timm, keras, ...")
    pretrained: str | None = _option(
        None, "Start from these weights instead: a file, or a name of `mobilenet list --pretrained`."
    )
    head: str | None = _option(
        None,
        "detect: ssdlite, ssd or yolo; segment: lraspp, deeplabv3 or deeplabv3plus. Default: the model's own, or "
        "yolo or deeplabv3plus.",
    )
    freeze: str = _option("0", "Do not train the first N blocks, or any layer but the last ('features').")
    epochs: int | None = _option(None, "Passes over the pictures. Default: 8 with --pretrained, else 60.")
    batch: int = _option(32, "Pictures a step, over all processes together.")
    lr0: float | None = _option(None, "Highest learning rate. Default: by optimizer, lower with --pretrained.")
    optimizer: str = _option("adamw", "adamw, sgd or rmsprop.")
    weight_decay: float | None = _option(
        None, "Decay of convolution and dense weights. Default: 0.01 with --pretrained, else 0.02."
    )
    warmup_epochs: float | None = _option(
        None, "Epochs in which the learning rate rises; then it falls as a cosine."
    )
    layer_rate: float | None = _option(
        None, "Learning rate of the first layer as a share of the last's. Default: 0.5 or 1."
    )
    distill: str | None = _option(None, "Learn from this model's answers too: a file or name, as --pretrained.")
    distill_weight: float = _option(0.5, "Share of the teacher's answers in the loss; the rest are the labels.")
    distill_temperature: float = _option(2.0, "Softens the answers of both, so that small ones count too.")
    distill_features: float = _option(0.5, "Weight of the teacher's embedding in the loss; 0 is off.")
    label_smoothing: float = _option(0.1, "Share of each target that is spread over all classes.")
    mixup: float = _option(0.0, "Alpha of mixup; 0 is off.")
    cutmix: float = _option(0.0, "Alpha of CutMix; 0 is off.")
    randaugment: int = _option(0, "Magnitude of RandAugment, 1 to 10, two operations a picture; 0 is off.")
    crop_area: float | None = _option(
        None, "Smallest share of a picture that a random crop keeps. Default: 0.35 or 0.5."
    )
    mosaic: float = _option(0.0, "detect: share of pictures that are put together from four.")
    flip: float = _option(0.5, "Share of pictures that are mirrored; 0 where left and right matter (text).")
    flip_vertical: float = _option(0.0, "Share of pictures turned upside down: of cells, from above, of things.")
    colour: float = _option(0.2, "How far brightness, contrast and saturation change; 0 is off.")
    dropout: float | None = _option(None, "Dropout before the last layer. Default: the network's own.")
    drop_path: float = _option(0.0, "Stochastic depth: share of samples for which the last block is left out.")
    ema: float = _option(0.9998, "Decay of the running average of the weights; 0 is off.")
    class_weights: str = _option("none", "none, or auto: rare classes count as much as frequent ones.")
    patience: int = _option(0, "Stop after so many epochs without a better one; 0 is never.")
    amp: str = _option("auto", "Mixed precision: auto (if the device has it), bf16, fp16, none.")
    device: str = _option("auto", "auto, cpu, cuda or mps.")
    workers: int = _option(2, "Threads that load pictures.")
    threads: int = _option(0, "Threads that compute, on the CPU; 0 is torch's own choice.")
    cache_gigabytes: float = _option(2.0, "Memory for decoded pictures; what does not fit is decoded every epoch.")
    seed: int = _option(0, "Of the weights and the augmentation; the split of the data does not depend on it.")
    resume: bool = _option(False, "Go on with the run of this name, or with the newest.")
    project: str = _option("runs", "Folder of the runs.")
    name: str | None = _option(None, "Name of the run; a number is added if it is taken. Default: train.")
    on_bad_picture: str = _option("stop", "skip or stop.")
    embedding: int | None = _option(
        None, "embed: numbers of an embedding. Default: the network's own, or 128 in place of a classifier."
    )
    loss: str = _option("arcface", "embed: arcface, cosface or triplet.")
    margin: float | None = _option(None, "embed: of the loss. Default: arcface 0.2, cosface 0.15, triplet 0.3.")
    scale: float = _option(16.0, "embed: what arcface and cosface multiply cosines by.")
    pictures_per_identity: int = _option(4, "embed: pictures of one identity in a batch of the triplet loss.")
    far: float | None = _option(
        None, "embed: false acceptance rate of the model's threshold. Default: best balanced accuracy."
    )
    output_stride: int | None = _option(
        None, "segment: 8 (finer, slower), 16 or 32, of the features below a new head. Default: 16."
    )
    region: str = _option("none", "segment: a second term of the loss, dice or lovasz, or none.")
    save_period_seconds: float = _option(300.0, "How often the state is saved within an epoch; 0 is never.")

    def __post_init__(self) -> None:
        for name, (holds, accepted) in CHECKS.items():
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise ArgumentError(f"--{name.replace('_', '-')} is {value!r}; accepted: {accepted}")
        if self.pretrained is None and self.freeze != "0":
            raise ArgumentError(f"--freeze {self.freeze} needs --pretrained: random layers would stay random")
        if self.pretrained is not None:
            self._check_network_is_not_given_twice()
        self._check_the_task_has_its_options()
        if self.distill is not None and self.freeze == "features":
            raise ArgumentError("--distill and --freeze features exclude each other: that only fits a layer")

    def _check_network_is_not_given_twice(self) -> None:
        for name in ("model", "dialect"):
            value = getattr(self, name)
            if value != _default(name):
                raise ArgumentError(
                    f"--{name} {value} and --pretrained exclude each other: the file says what it is"
                )

    def _check_the_task_has_its_options(self) -> None:
        for name in dict.fromkeys(name for names in OPTIONS_OF_TASKS.values() for name in names):
            tasks = [task for task, names in OPTIONS_OF_TASKS.items() if name in names]
            if getattr(self, name) != _default(name) and self.task not in tasks:
                option, accepted = name.replace("_", "-"), " or ".join(tasks)
                raise ArgumentError(f"--{option} is for --task {accepted}; the task is {self.task}")

    @property
    def fine_tuning(self) -> bool:
        """Whether the network starts from trained weights."""
        return self.pretrained is not None

    def filled(self) -> "TrainOptions":
        """These options with each `None` replaced where the default depends on other options."""
        defaults = FINE_TUNING if self.fine_tuning else FROM_SCRATCH
        if self.fine_tuning and self.width is not None:
            defaults = SLICED
        if self.task == "embed":
            tuned = self.fine_tuning and self.width is None
            defaults = {**defaults, **(EMBEDDING_TUNED if tuned else EMBEDDING)}
        if self.fine_tuning and self.task == "segment":
            defaults = {**defaults, **SEGMENTING}
        if self.task == "detect":
            defaults = DETECTING if self.fine_tuning else {**FROM_SCRATCH, **DETECTING_FROM_SCRATCH}
        chosen = {name: defaults[name] for name in defaults if getattr(self, name) is None}
        if "lr0" in chosen:
            chosen["lr0"] = chosen["lr0"][self.optimizer]
        return dataclasses.replace(self, **chosen)

    def changed_from(self, other: "TrainOptions") -> list[str]:
        """The options that were given (differ from their default) and differ from those of another run."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in FREE_ON_RESUME]
        return [n for n in names if getattr(self, n) not in (_default(n), getattr(other, n))]


# These say where and how fast, not what: a resumed run may change them.
FREE_ON_RESUME = (
    "device",
    "workers",
    "threads",
    "cache_gigabytes",
    "resume",
    "project",
    "name",
    "save_period_seconds",
)


# These say something to one task only.
OPTIONS_OF_TASKS = {
    "classify": ("label_smoothing", "mixup", "cutmix", "class_weights"),
    "detect": ("head", "mosaic"),
    "embed": ("embedding", "loss", "margin", "scale", "pictures_per_identity", "far"),
    "segment": ("head", "output_stride", "region", "class_weights"),
}


def _default(name: str) -> Any:
    return next(f.default for f in dataclasses.fields(TrainOptions) if f.name == name)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= low, f"a whole number from {low}"


def _above(low: float) -> tuple[Callable[[Any], bool], str]:
    return lambda v: _number(v) and v > low, f"a number above {low:g}"


def _at_least(low: float) -> tuple[Callable[[Any], bool], str]:
    return lambda v: _number(v) and v >= low, f"a number from {low:g}"


def _within(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return lambda v: _number(v) and low <= v <= high, f"a number from {low:g} to {high:g}"


def _below(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return lambda v: _number(v) and low <= v < high, f"a number from {low:g} and below {high:g}"


def _one_of(names: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v in names, ", ".join(names)


def _text() -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, str) and bool(v) and "\0" not in v, "a text"


def _is_freeze(value: Any) -> bool:
    return isinstance(value, str) and (value == "features" or (value.isascii() and value.isdecimal()))


def _is_device(value: Any) -> bool:
    return isinstance(value, str) and (value in ("auto", "cpu", "cuda", "mps") or value.startswith("cuda:"))


def _is_run_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "data": _text(),
    "task": _one_of(TASKS),
    "model": _text(),
    "width": _above(0),
    "resolution": (lambda v: isinstance(v, int) and 32 <= v <= 4096, "a whole number from 32 to 4096"),
    "dialect": _text(),
    "pretrained": _text(),
    "head": _text(),
    "freeze": (_is_freeze, "a whole number of blocks, or features"),
    "epochs": _whole(1),
    "batch": _whole(1),
    "lr0": _above(0),
    "optimizer": _one_of(OPTIMIZERS),
    "weight_decay": _at_least(0),
    "warmup_epochs": _at_least(0),
    "layer_rate": (lambda v: _number(v) and 0 < v <= 1, "a number above 0, at most 1"),
    "distill": _text(),
    "distill_weight": _within(0, 1),
    "distill_temperature": _within(0.1, 100),
    "distill_features": _at_least(0),
    "label_smoothing": _below(0, 1),
    "mixup": _at_least(0),
    "cutmix": _at_least(0),
    "randaugment": (lambda v: isinstance(v, int) and 0 <= v <= 10, "a whole number from 0 to 10"),
    "crop_area": (lambda v: _number(v) and 0 < v <= 1, "a number above 0, at most 1"),
    "mosaic": _within(0, 1),
    "flip": _within(0, 1),
    "flip_vertical": _within(0, 1),
    "colour": _below(0, 1),
    "dropout": _below(0, 1),
    "drop_path": _below(0, 1),
    "ema": _below(0, 1),
    "class_weights": _one_of(CLASS_WEIGHTS),
    "patience": _whole(0),
    "amp": _one_of(PRECISIONS),
    "device": (_is_device, "auto, cpu, cuda, cuda:N or mps"),
    "workers": _whole(0),
    "threads": _whole(0),
    "cache_gigabytes": _at_least(0),
    "seed": (lambda v: isinstance(v, int) and 0 <= v < 2**63, "a whole number from 0, below 2^63"),
    "project": _text(),
    "name": (_is_run_name, "a text without slashes"),
    "on_bad_picture": _one_of(BAD_PICTURE_MODES),
    "embedding": (lambda v: isinstance(v, int) and 2 <= v <= 4096, "a whole number from 2 to 4096"),
    "loss": _one_of(tuple(MARGINS)),
    "margin": (lambda v: _number(v) and 0 <= v <= 2, "a number from 0 to 2"),
    "scale": _above(0),
    "pictures_per_identity": _whole(2),
    "far": (lambda v: _number(v) and 0 < v < 1, "a number above 0 and below 1"),
    "output_stride": (lambda v: v in OUTPUT_STRIDES, ", ".join(map(str, OUTPUT_STRIDES))),
    "region": _one_of(REGIONS),
    "save_period_seconds": _at_least(0),
}
