"""A model: what a model file holds, and the verbs that answer with it."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cached_property, lru_cache, partial
from itertools import chain, islice
from operator import is_
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard, cast, overload
from warnings import warn

import numpy as np
from PIL import Image

from mobilenet.errors import ArgumentError, ImageError, MissingExtraError, MobilenetError, ModelFileError
from mobilenet.files.contents import Check, ModelContents
from mobilenet.files.model_file import decode, decode_around_graph, encode, read_bytes, write_model_file
from mobilenet.pictures.decode import decode_image
from mobilenet.run.quanta import dequantise_array
from mobilenet.tasks.classify import ClassificationResult, Probabilities, scores_to_probabilities

if TYPE_CHECKING:
    from mobilenet.graph.graph import Graph, TensorType, Weights
    from mobilenet.live.stream import Stream
    from mobilenet.pictures.decode import Picture
    from mobilenet.pictures.preprocess import Preprocessing
    from mobilenet.run.engine import Engine, Tensor

MAX_CHECK_ELEMENTS = 2**14  # of one output that is kept in the file as a check: a class map is too much
TFLITE_MAGIC = b"TFL3"
TOLERANCES = {"fp32": 1e-4, "bf16": 0.1}  # of the largest absolute value of an output
# Tasks whose answers are about places in the picture: (module, function) from model and answer to a result.
PLACED = {
    "detect": ("mobilenet.tasks.detect", "detection_of"),
    "segment": ("mobilenet.tasks.segment", "segmentation_of"),
}
# Tasks that are measured in a way of their own: (module, function) from model and data to figures.
EVALUATIONS = {
    "detect": ("mobilenet.tasks.detect_evaluate", "evaluate_detector"),
    "segment": ("mobilenet.tasks.segment_evaluate", "evaluate_segmenter"),
}

_preparing = Lock()  # so that two threads do not prepare the same engine


class Answer(NamedTuple):
    """Raw outputs for one picture: name -> real values without the batch, or why the picture is bad."""

    path: str | None
    outputs: Weights
    speed: dict[str, float]
    error: ImageError | None = None
    size: tuple[int, int] | None = None  # (height, width) of the upright picture, where the task needs it


class _Prepared(NamedTuple):
    """A picture as the network takes it, or why it is bad; how long that took; its size where it is needed."""

    path: str | None
    item: np.ndarray | ImageError
    milliseconds: float = 0.0
    size: tuple[int, int] | None = None


class _File:
    """The model file that a model comes from; its graph and weights are read when they are first asked for."""

    def __init__(self, data: bytes, name: str, outputs: Iterable[str]) -> None:
        self.data, self.name, self.outputs = data, name, tuple(outputs)

    @cached_property
    def contents(self) -> ModelContents:
        return decode(self.data, self.name)

    def holds(self, weights: Weights) -> bool:
        """Whether these are still the very arrays that were read."""
        read = self.contents.weights
        return weights.keys() == read.keys() and all(map(is_, weights.values(), read.values()))


class Model(ModelContents):
    """A network with everything that is needed to answer with it; treat its fields as read-only.

    Make one by `mobilenet.create`, `mobilenet.load` or `mobilenet.train`. Several threads may use one model. It
    can be pickled and copied; the copy prepares its own engine.

    Attributes:
        precision: of float layers, "fp32" or "bf16".
        threads: how many threads it uses; None: `MOBILENET_THREADS`, else the processors of this process.
    """

    precision: str = "fp32"
    threads: int | None = None
    _file: _File | None = None
    _graph: Graph | None = None
    _weights: Weights | None = None

    @classmethod
    def of(cls, contents: ModelContents) -> Model:
        """A model of these contents (shared, not copied)."""
        return cls(**{f.name: getattr(contents, f.name) for f in fields(ModelContents)})

    @classmethod
    def of_file(cls, data: bytes, name: str, *, precision: str, threads: int | None) -> Model:
        """A model of the bytes of a model file; errors as `mobilenet.load`.

        The engine reads the bytes first, and checks all that it reads; the graph is then not read a second time
        until somebody asks for it. What the engine refuses is for `decode` to judge: it may be a model that only
        other places can run.
        """
        try:
            from mobilenet.run.engine import Engine, thread_count

            engine = Engine(data, precision=precision, threads=threads)
        except MobilenetError:
            return cls.of(decode(data, name))
        inputs, outputs = (
            {key: kind.shape for key, kind in kinds.items()} for kinds in (engine.inputs(), engine.outputs())
        )
        values = decode_around_graph(data, name, inputs, outputs)
        model = cls.__new__(cls)
        vars(model).update(values, _file=_File(data, name, outputs))
        vars(model).update(_engines={(precision, thread_count(threads)): engine})
        return model

    @property
    def graph(self) -> Graph:
        """The network; that of a file is read when it is first asked for."""
        if self._graph is None:
            assert self._file is not None
            self._graph = self._file.contents.graph
        return self._graph

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self._replace(graph, self.weights if self._file else self._weights)

    @property
    def weights(self) -> Weights:
        """Its parameters, "<node>.<parameter>" -> array; those of a file are read when first asked for."""
        if self._weights is None:
            assert self._file is not None
            self._weights = dict(self._file.contents.weights)
        return self._weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self._replace(self.graph if self._file else self._graph, weights)

    def _replace(self, graph: Graph | None, weights: Weights | None) -> None:
        """From now on these count, not the file; engines that were prepared are of another network."""
        self._graph, self._weights, self._file = graph, weights, None
        vars(self).pop("_engines", None)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("_engines", "_file")}
        return {**kept, "_graph": self.graph, "_weights": self.weights}

    def engine(self, threads: int | None = None) -> Engine:
        """The network, prepared for this processor when it is first asked for.

        Args:
            threads: how many share the work of one call; default: the model's own number.

        Raises:
            EngineMissingError: the compiled engine is not installed.
            UnsupportedOperatorError: the engine has no kernel for an operator, or for this precision.
            ArgumentError: the precision or number of threads is not one that is accepted.
        """
        from mobilenet.run.engine import Engine, thread_count

        key = self.precision, thread_count(self.threads if threads is None else threads)
        with _preparing:
            if self._file and self._weights is not None and not self._file.holds(self._weights):
                self._replace(self.graph, self._weights)
            engines: dict[tuple[str, int], Engine] = vars(self).setdefault("_engines", {})
            if key not in engines:
                engines[key] = Engine(self._bytes(), precision=key[0], threads=key[1])
            return engines[key]

    def _thread_count(self) -> int:
        from mobilenet.run.engine import thread_count

        return thread_count(self.threads)

    def _bytes(self) -> bytes:
        """A model file of the graph and weights as they are now."""
        if self._file:
            return self._file.data
        return encode(ModelContents(self.graph, self.weights, None, task="features"))

    @property
    def input(self) -> TensorType:
        """Shape (height, width, channels), dtype and quantisation of the network's input."""
        return next(iter(self.graph.inputs.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each class: the labels, or the numbers "0", "1", ... if the model has none.

        ImageNet has two cranes: a label that was there before gets its class number, "crane (518)".
        """
        if self.labels:
            return _distinct(tuple(self.labels))
        if self.decoding is not None:
            return _numbers(self.decoding.classes(self.graph.types[self.graph.outputs["scores"]].shape[-1]))
        return _numbers(self.graph.types[self.graph.outputs[_scores(self.graph.outputs)]].shape[-1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model file (docs/format.md) atomically; what was at `path` survives a failure.

        Raises:
            ModelFileError: the parts of the model do not fit together.
            OSError: the folder is missing or not writable, or the disk is full.
        """
        checks = self.checks or make_checks(self)
        write_model_file(replace(self, checks=checks), path)

    def run(self, batch: np.ndarray) -> Weights:
        """Runs the network on an already preprocessed batch.

        Args:
            batch: (N, height, width, channels). float32 for a float network. A quantised network takes its own
                integers and gives integers, or takes float32 and gives float32.

        Returns:
            output name -> array (N, ...).

        Raises:
            ArgumentError: the shape or dtype is not the network's.
        """
        return self._run(self.engine(), batch)

    def _run(self, engine: Engine, batch: np.ndarray) -> Weights:
        ((name, kind),) = engine.inputs().items()
        if batch.shape[1:] != kind.shape:
            expected = ", ".join(map(str, ("N", *kind.shape)))
            raise ArgumentError(f"input '{name}' has shape {batch.shape}; the model needs ({expected})")
        if not kind.integer or batch.dtype != np.float32:
            return engine.run(batch)
        from mobilenet.run.engine import quantise

        return _real(engine, engine.run(quantise(batch, kind)))

    @overload
    def predict(self, pictures: Picture, *, batch: int = 1) -> Any: ...
    @overload
    def predict(self, pictures: Iterable[Picture], *, batch: int = 1) -> Iterator[Any]: ...
    def predict(self, pictures: Picture | Iterable[Picture], *, batch: int = 1) -> Any:
        """What is in a picture, or in each of many (then a generator).

        Paths are read ahead by a few, by as many threads as the model has; of anything else, the generator takes
        one batch at a time.

        Args:
            pictures: a path, bytes, PIL image or uint8 array (height, width, 3); or an iterable of these.
            batch: how many pictures run at once.

        Returns:
            A `ClassificationResult`; of a detector a `tasks.detect.DetectionResult`, of a segmenter a
            `tasks.segment.SegmentationResult`.

        Raises:
            ImageError: a picture cannot be read.
            ArgumentError: the model answers with something else.
        """
        self._need("classify", *PLACED)
        if is_picture(pictures):
            return next(self._results([pictures], 1))
        return self._results(cast("Iterable[Picture]", pictures), batch)

    def stream(self, source: str | int | os.PathLike[str], **options: Any) -> Stream:
        """Answers about the frames of a film, camera (0) or network stream, as they come, by several threads.

        A file's every frame is answered, of what is live the newest: see `mobilenet.live.stream.open_stream`.
        """
        from mobilenet.live.stream import open_stream

        return open_stream(self, source, **options)

    @overload
    def embed(self, pictures: Picture, *, batch: int = 1) -> np.ndarray: ...  # type: ignore[overload-overlap]
    @overload
    def embed(self, pictures: Iterable[Picture], *, batch: int = 1) -> Iterator[np.ndarray]: ...
    def embed(self, pictures: Picture | Iterable[Picture], *, batch: int = 1) -> np.ndarray | Iterator[np.ndarray]:
        """The features of a picture, float32 (D), or of each of many (then a generator).

        A classifier's embedding is what its last layer reads.

        Raises:
            ImageError: a picture cannot be read.
            ArgumentError: the model has no output "embedding".
        """
        outputs = self._file.outputs if self._file else self.graph.outputs
        if "embedding" not in outputs:
            raise ArgumentError(f"this model has no output 'embedding'; it has {', '.join(outputs)}")
        if is_picture(pictures):
            return next(self._embeddings([pictures], 1))
        return self._embeddings(cast("Iterable[Picture]", pictures), batch)

    def evaluate(self, data: str | os.PathLike[str], *, split: str = "test", **options: Any) -> dict[str, Any]:
        """Accuracy and calibration on labelled pictures: see `mobilenet.tasks.evaluate.evaluate`.

        A detector's COCO figures: see `mobilenet.tasks.detect_evaluate.evaluate_detector`; a
        segmenter's agreement with masks: see `mobilenet.tasks.segment_evaluate.evaluate_segmenter`.
        """
        module, function = EVALUATIONS.get(self.task, ("mobilenet.tasks.evaluate", "evaluate"))
        figures: dict[str, Any] = getattr(importlib.import_module(module), function)(
            self, data, split=split, **options
        )
        return figures

    def teach(
        self, name: str, pictures: Iterable[Picture], *, keep: bool = True, threshold: float | None = None
    ) -> Model:
        """A classifier that knows one class more, by a handful of pictures: see `mobilenet.tasks.teach.teach`."""
        from mobilenet.tasks.teach import teach

        return teach(self, name, pictures, keep=keep, threshold=threshold)

    def answers(self, pictures: Iterable[Picture], *, batch: int = 1) -> Iterator[Answer]:
        """Real-valued outputs for each picture, in order; a bad picture gives an answer with its `error`.

        Several paths are answered at once, each by one thread; a single picture has all threads for itself. The
        outputs are the same either way.
        """
        if batch < 1:
            raise ArgumentError(f"batch is {batch}: at least 1 is needed")
        rest = iter(pictures)
        groups = iter(lambda: list(islice(rest, batch)), [])
        first = next(groups, [])
        second = next(groups, []) if _are_paths(first) else []  # a path costs nothing to hold
        if second and (workers := self._thread_count()) > 1:
            from mobilenet.parallel import in_order

            answered = partial(self._answered, self.engine(1))
            waiting = chain([first, second], groups)
            for answers in in_order(answered, waiting, workers=workers, ahead=_are_paths):
                yield from answers
        else:
            for group in chain(filter(None, [first, second]), groups):
                yield from self._answered(self.engine(), group)

    def probabilities(self, outputs: Mapping[str, np.ndarray], *, calibrated: bool = True) -> np.ndarray:
        """float32 (N, classes) from the outputs of `run`, real values (N, classes)."""
        temperature = self.calibration.get("temperature", 1.0) if calibrated else 1.0
        name = _scores(outputs)
        return scores_to_probabilities(outputs[name], logits=name == "logits", temperature=temperature)

    def verify(self, tolerance: float | None = None) -> None:
        """Runs the checks that the file carries; raises `ModelFileError` if an output is not the expected one.

        Float outputs may differ by `tolerance` of the largest absolute value (default: 1e-4, or 0.1 where the
        model computes in bf16); integers not at all.
        """
        if tolerance is None:
            tolerance = TOLERANCES[self.precision]
        for number, check in enumerate(self.checks):
            outputs = {name: array[0] for name, array in self.run(self._tiny_input(check.picture)).items()}
            for name, expected in check.outputs.items():
                found = outputs[name]
                scale = 0.0 if expected.dtype != np.float32 else tolerance * float(np.abs(expected).max())
                difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
                if difference > scale:
                    raise ModelFileError(
                        f"check {number}: output '{name}' is {difference:.3g} off (at most {scale:.3g})"
                    )

    def _need(self, *tasks: str) -> None:
        if self.task not in tasks:
            wanted = " or ".join(f"'{task}'" for task in tasks)
            raise ArgumentError(f"this model's task is '{self.task}', not {wanted}: use model.run or model.embed")

    def _results(self, pictures: Iterable[Picture], batch: int) -> Iterator[Any]:
        for answer in self.answers(pictures, batch=batch):
            if answer.error:
                raise answer.error
            yield self.result(answer)

    def result(self, answer: Answer) -> Any:
        """What an answer says: a `ClassificationResult`, or the result of a task of `PLACED`."""
        if self.task in PLACED:
            module, function = PLACED[self.task]
            return getattr(importlib.import_module(module), function)(self, answer)
        start = time.perf_counter()
        name = _scores(answer.outputs)
        scores = self.probabilities({name: answer.outputs[name][None]})[0]
        names = self.names if self.labels else _numbers(len(scores))
        speed = {**answer.speed, "postprocess": (time.perf_counter() - start) * 1e3}
        return ClassificationResult(answer.path, Probabilities(scores), names, speed)

    def _embeddings(self, pictures: Iterable[Picture], batch: int) -> Iterator[np.ndarray]:
        for answer in self.answers(pictures, batch=batch):
            if answer.error:
                raise answer.error
            yield answer.outputs["embedding"].reshape(-1)

    def _preprocessed(self, picture: Picture, kind: Tensor) -> _Prepared:
        start = time.perf_counter()
        path = os.fspath(picture) if isinstance(picture, str | os.PathLike) else None
        size = None
        try:
            if self.task in PLACED:  # places refer to the picture as it is, not as it may be decoded to be faster
                picture = decode_image(picture)
                size = picture.height, picture.width
            return _Prepared(path, self._input_of(picture, kind), (time.perf_counter() - start) * 1e3, size)
        except ImageError as error:
            return _Prepared(path, error)

    def _input_of(self, picture: Picture, kind: Tensor) -> np.ndarray:
        """A picture, decoded, resized and in the dtype of the input: (height, width, channels)."""
        if not kind.integer:
            return self._picture_rule(picture)
        return self._picture_rule.quanta(picture, kind.scale, kind.zero_point, _integer(kind.dtype))

    @property
    def _picture_rule(self) -> Preprocessing:
        if self.preprocessing is None:
            raise ArgumentError(f"this model takes arrays of {self.input.shape}, not pictures: use model.run")
        return self.preprocessing

    def to_input(self, pixels: np.ndarray) -> np.ndarray:
        """Resized and cropped uint8 pixels (..., height, width, channels) in the dtype of the input."""
        quantisation = self.input.quantisation
        if quantisation is None:
            return self._picture_rule.normalise(pixels)
        return self._picture_rule.quantised(
            pixels, quantisation.scale, quantisation.zero_point, _integer(self.input.dtype)
        )

    def _answered(self, engine: Engine, group: list[Picture]) -> list[Answer]:
        (kind,) = engine.inputs().values()
        waiting = [self._preprocessed(picture, kind) for picture in group]
        good = [prepared.item for prepared in waiting if isinstance(prepared.item, np.ndarray)]
        start = time.perf_counter()
        outputs = _real(engine, self._run(engine, np.stack(good))) if good else {}
        spent = (time.perf_counter() - start) * 1e3 / max(len(good), 1)
        answers: list[Answer] = []
        row = 0
        for path, item, preprocess, size in waiting:
            if isinstance(item, ImageError):
                answers.append(Answer(path, {}, {}, item))
                continue
            speed = {"preprocess": preprocess, "inference": spent}
            found = {name: array[row] for name, array in outputs.items()}
            answers.append(Answer(path, found, speed, size=size))
            row += 1
        return answers

    def _tiny_input(self, picture: np.ndarray) -> np.ndarray:
        return self.to_input(self._picture_rule.geometry(picture))[None]


def _real(engine: Engine, outputs: Weights) -> Weights:
    """Quantised outputs as real values; the others as they are."""
    kinds = engine.outputs()
    return {
        name: dequantise_array(array, kinds[name]) if kinds[name].integer and array.dtype != np.float32 else array
        for name, array in outputs.items()
    }


def _integer(dtype: str) -> Literal["int8", "uint8"]:
    return "int8" if dtype == "int8" else "uint8"


def _scores(outputs: Iterable[str]) -> str:
    """Which output says what the classes' scores are; a softmax inside the network has the last word."""
    return "probabilities" if "probabilities" in outputs else "logits"


@lru_cache(maxsize=16)
def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


@lru_cache(maxsize=16)
def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    first = {label: number for number, label in reversed(list(enumerate(labels)))}
    return tuple(label if first[label] == n else f"{label} ({n})" for n, label in enumerate(labels))


def _are_paths(pictures: list[Picture]) -> bool:
    return all(isinstance(picture, str | os.PathLike) for picture in pictures)


def is_picture(value: Any) -> TypeGuard[Picture]:
    """Whether a value is one picture, not many."""
    one = isinstance(value, str | bytes | os.PathLike | Image.Image)
    return one or (isinstance(value, np.ndarray) and value.ndim <= 3)


def make_checks(model: Model, count: int = 2) -> tuple[Check, ...]:
    """Tiny pictures of coarse noise with the reference's outputs for them (none if it takes no pictures)."""
    if model.preprocessing is None:
        return ()
    from mobilenet.run import reference

    generator = np.random.default_rng(0)
    checks = []
    for _ in range(count):
        coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = coarse.repeat(4, axis=0).repeat(4, axis=1)
        outputs = reference.run(model.graph, model.weights, model._tiny_input(picture))
        kept = {name: array[0] for name, array in outputs.items() if array[0].size <= MAX_CHECK_ELEMENTS}
        checks.append(Check(picture, kept))
    return tuple(checks)


def load(path: str | os.PathLike[str], *, precision: str = "fp32", threads: int | None = None) -> Model:
    """Reads a model file, a `.tflite` file, or another project's checkpoint (docs/importing.md), by its bytes.

    Args:
        path: the file, or a folder with a checkpoint and its config.json; or, where there is no such file, a
            name of `mobilenet list --pretrained`: published weights are fetched once, into the cache.
        precision: of float layers, "fp32" or "bf16"; integer layers are exact in either.
        threads: how many threads it uses; default: `MOBILENET_THREADS`, else the processors of this process.

    Raises:
        ModelFileError: missing, damaged, hostile, or of a kind that is not read; the message names the file.
        UnsupportedOperatorError: a `.tflite` or ONNX file holds operators that no MobileNet needs; they are named.
        MissingExtraError: the package that reads a checkpoint is not installed.
        ArgumentError: an unknown precision, or a number of threads that is not 1 to 256.
        DownloadError: published weights could not be fetched.
    """
    _check_options(precision, threads)
    path = path if os.path.lexists(path) else _published(path)
    data = b"" if os.path.isdir(path) else read_bytes(path)  # noqa: PTH112 - pathlib is slow to import
    if data[4:8] == TFLITE_MAGIC:
        from mobilenet.files.tflite import read_tflite

        model = Model.of(read_tflite(path))
    elif not data or _is_foreign(data):
        from mobilenet.files.imports.read import read_import

        model = Model.of(read_import(path))
        if "ambiguous" in model.provenance:
            warn(f"{os.fspath(path)}: {model.provenance['ambiguous']}", stacklevel=2)
    else:
        model = Model.of_file(data, os.fspath(path), precision=precision, threads=threads)
    model.precision, model.threads = precision, threads
    return model


def _published(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The model file of published weights of this name; what is no such name as it is."""
    from mobilenet.files.published import find_published

    if not isinstance(path, str) or find_published(path) is None:
        return path
    from mobilenet.files.pull import pull

    return pull(path)


def _is_foreign(data: bytes) -> bool:
    """Whether these are bytes that another project's reader knows; for a model file nothing is imported."""
    size = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and b'"mobilenet"' in data[8 : 8 + size]:
        return False
    from mobilenet.files.imports.kinds import kind_of

    return bool(kind_of(data))


def _check_options(precision: str, threads: int | None) -> None:
    if precision not in TOLERANCES:
        raise ArgumentError(f"precision is one of {', '.join(TOLERANCES)}, not {precision!r}")
    if threads is not None:
        from mobilenet.run.engine import thread_count

        thread_count(threads)


def create(
    name: str,
    *,
    width_multiplier: float | None = None,
    resolution: int | tuple[int, int] | None = None,
    classes: int | None = None,
    channels: int = 3,
    dialect: str | None = None,
    seed: int = 0,
    head: str | None = None,
    **options: Any,
) -> Model:
    """A new, untrained member of the family.

    Args:
        name: `mobilenet.list_models()` names them; names of timm, Keras and TensorFlow are understood.
        width_multiplier: any number above 0; default 1, or what the name says.
        resolution: side of the picture, or (height, width), at least 32; default: the paper's.
        classes: number of outputs; default: 1000, or 21 for a segmenter.
        channels: of the picture; predicting from pictures needs 1 or 3.
        dialect: whose details to follow: paper, torchvision, timm, keras, slim, ...
        seed: of the initial weights.
        head: in place of the classifier: lraspp, deeplabv3, ...: see `mobilenet.family.heads`. The name may say
            it, too: "lraspp_mobilenet_v3_large".
        **options: output_stride, dropout, drop_path, features_only, head_options: see
            `mobilenet.family.names.build`.

    Raises:
        ArgumentError: an unknown name or an impossible value.
    """
    from mobilenet.family.detectors import NAMED
    from mobilenet.family.heads import HEADS, start_detector
    from mobilenet.family.initialise import initialise
    from mobilenet.family.names import build, preprocessing_preset, resolve_head
    from mobilenet.pictures.preprocess import PRESETS

    graph = build(
        name,
        width_multiplier=width_multiplier,
        resolution=resolution,
        classes=classes,
        channels=channels,
        dialect=dialect,
        head=head,
        **options,
    )
    height, width, _ = next(iter(graph.inputs.values())).shape
    chosen, spec = resolve_head(name, head)
    preset = PRESETS["tf" if name in NAMED else preprocessing_preset(dialect or spec.dialect)]
    preprocessing = _for_channels(preset(height, width), channels)
    task = "classify" if "logits" in graph.outputs else "embed" if "embedding" in graph.outputs else "features"
    if chosen is not None and not options.get("features_only"):
        task = HEADS[chosen].task
        preprocessing = preprocessing and replace(preprocessing, resize="stretch", crop_fraction=1.0)
    weights, decoding = initialise(graph, seed), None
    if task == "detect" and chosen is not None:
        weights, decoding = start_detector(chosen, options.get("head_options") or {}, graph, weights)
    provenance = {"model": name, "seed": seed}
    return Model(graph, weights, preprocessing, task=task, provenance=provenance, decoding=decoding)


def _for_channels(preprocessing: Preprocessing, channels: int) -> Preprocessing | None:
    """The same rule for grey pictures (1 channel); none for what is no picture."""
    if channels == 1:
        mean, std = (float(np.mean(values)) for values in (preprocessing.mean, preprocessing.std))
        return replace(preprocessing, channels="L", mean=(mean,), std=(std,))
    return preprocessing if channels == 3 else None


def train(data: str | os.PathLike[str], **words: Any) -> Model:
    """Trains a classifier on labelled pictures and returns the best epoch's model.

    Args:
        data: a folder or CSV file, as for `mobilenet train`.
        **words: the options of `mobilenet train` in Python spelling (`lr0=`, `freeze="features"`, ...).

    Raises:
        ArgumentError: an unknown option or value.
        DataError: the pictures cannot be used as they are.
        TrainingError: training diverged or could not go on.
        MissingExtraError: torch is not installed.
    """
    from difflib import get_close_matches

    from mobilenet.learn.options import TrainOptions

    known = [f.name for f in fields(TrainOptions)]
    for word in words:
        if word not in known:
            close = get_close_matches(word, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            raise ArgumentError(f"train has no option '{word}'; {hint}")
    options = TrainOptions(data=os.fspath(data), **words)
    try:
        from mobilenet.learn.train import train as run_training
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"training (no module named {error.name!r})", "train") from error
    return load(run_training(options).path)
