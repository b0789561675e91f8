"""From samples to batches: a fixed order for each epoch, pictures kept in memory, loading in the background.

What a batch holds depends on the seed, the epoch and the step only: not on the number of threads or processes,
nor on whether a picture was still in memory.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mobilenet.errors import TrainingError
from mobilenet.pictures.augment import Augmentation, augmented, cropped, draw, in_channel_order, mixed
from mobilenet.pictures.decode import decode_image
from mobilenet.pictures.folders import Sample
from mobilenet.pictures.preprocess import Preprocessing

Pixels = NDArray[np.uint8]
Result = TypeVar("Result")
PREFETCH = 2  # batches that wait, for each thread


@dataclass(frozen=True)
class Batch:
    """images float32 (B, height, width, C); targets as the task's loss takes them.

    Of labelled pictures: float32 (B, classes), each row adds up to 1.
    """

    images: Tensor
    targets: Any


@dataclass(frozen=True)
class Mixing:
    """Label smoothing and the mixing of pairs; see `TrainOptions`."""

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def pairs(self) -> bool:
        """Whether neighbours in a batch belong together."""
        return self.mixup > 0 or self.cutmix > 0


def steps_of_epoch(samples: int, batch: int) -> int:
    """How many batches an epoch has: no sample is left out, and none is alone unless `batch` is 1."""
    steps = ceil(samples / batch)
    return steps - 1 if batch > 1 and steps > 1 and samples // steps < 2 else steps


def batches_of_epoch(samples: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """A random order of all samples, cut into batches whose sizes differ by at most one."""
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order, steps_of_epoch(samples, batch))


def share_of_process(count: int, process: int, processes: int, pairs: bool = False) -> slice:
    """The part of `count` samples in a row that a process has; with `pairs`, neighbours stay together."""
    unit = 2 if pairs else 1
    units = ceil(count / unit)
    start, end = (units * i // processes * unit for i in (process, process + 1))
    return slice(start, min(end, count))


class PictureCache:
    """Pictures as uint8 arrays, kept as long as the memory that was granted for them lasts.

    What it returns for a path is the same whether it was kept or not. Safe to use from several threads.
    """

    def __init__(self, load: Callable[[Path], Pixels], budget_bytes: float) -> None:
        self._load = load
        self._free = budget_bytes
        self._kept: dict[Path, Pixels] = {}
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> Pixels:
        """The picture at this path; raises `ImageError` if it cannot be read."""
        kept = self._kept.get(path)
        return kept if kept is not None else self._keep(path, self._load(path))

    def _keep(self, path: Path, picture: Pixels) -> Pixels:
        with self._lock:
            if path not in self._kept and picture.nbytes <= self._free:
                self._free -= picture.nbytes
                self._kept[path] = picture
        return picture


def training_picture(path: Path, preprocessing: Preprocessing, crop_area: float) -> Pixels:
    """A decoded picture, uint8 [H, W, 3], no larger than the smallest crop needs to be sharp.

    Raises:
        ImageError: the picture cannot be read.
    """
    image = decode_image(path)
    needed = max(preprocessing.height, preprocessing.width) / sqrt(crop_area)
    scale = needed / min(image.size)
    if scale < 0.75:  # a smaller gain is not worth another resampling
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BOX)
    return np.array(image)


class TrainingBatches(ABC):
    """The batches of an epoch, from any step on. What a batch holds, a subclass says: `load`.

    Args:
        samples: all of the training split.
        batch: samples a step, over all processes.
        seed: of order and augmentation.
        process, processes: which part of each batch is loaded here.
        workers: threads that load; 0 loads when a batch is asked for.
        pairs: whether neighbours in a batch belong together.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        *,
        batch: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
        workers: int = 2,
        pairs: bool = False,
    ) -> None:
        self.samples = samples
        self.batch, self.seed = batch, seed
        self.process, self.processes = process, processes
        self.workers, self.pairs = workers, pairs
        self.steps = steps_of_epoch(len(samples), batch)
        self._check_shares()

    def _check_shares(self) -> None:
        smallest = len(self.samples) // self.steps
        shares = [share_of_process(smallest, p, self.processes, self.pairs) for p in range(self.processes)]
        if any(share.start >= share.stop for share in shares):
            raise TrainingError(
                f"a batch of {smallest} cannot be shared by {self.processes} processes: "
                "raise --batch, or start fewer"
            )

    def batch_sizes(self, epoch: int) -> list[int]:
        """Samples in each step of an epoch, over all processes."""
        return [len(part) for part in batches_of_epoch(len(self.samples), self.batch, self.seed, epoch)]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This process's part of the batches from `first_step` on; raises `ImageError` if a picture is bad."""
        parts = batches_of_epoch(len(self.samples), self.batch, self.seed, epoch)[first_step:]
        return in_background([partial(self.load, self._own(part), epoch) for part in parts], self.workers)

    def _own(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        return part[share_of_process(len(part), self.process, self.processes, self.pairs)]

    @abstractmethod
    def load(self, numbers: NDArray[np.int64], epoch: int) -> Batch:
        """The samples of these numbers as they look in this epoch."""


class TrainingData(TrainingBatches):
    """Labelled pictures.

    Args:
        samples: all of the training split.
        classes: how many classes there are.
        preprocessing: of the network.
        augmentation, mixing: what is changed at random.
        budget_bytes: memory for decoded pictures.
        **how: see `TrainingBatches`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: int,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        mixing: Mixing,
        *,
        budget_bytes: float = 0,
        **how: Any,
    ) -> None:
        super().__init__(samples, pairs=mixing.pairs, **how)
        self.classes = classes
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.mixing = mixing
        self.cache = PictureCache(
            lambda path: training_picture(path, preprocessing, augmentation.crop_area), budget_bytes
        )

    def load(self, numbers: NDArray[np.int64], epoch: int) -> Batch:
        """The samples of these numbers as they look in this epoch."""
        draws = [draw(self.augmentation, self.seed, epoch, int(number)) for number in numbers]
        chosen = [self.samples[number] for number in numbers]
        pictures = np.stack(
            [
                cropped(self.cache(sample.path), drawn, self.preprocessing)
                for sample, drawn in zip(chosen, draws, strict=True)
            ]
        )
        pixels = in_channel_order(augmented(pictures, draws), self.preprocessing)
        images = aligned(self.preprocessing.normalise(pixels))
        targets = self._targets([sample.label for sample in chosen])
        if self.mixing.pairs:
            listed = [int(number) for number in numbers]
            mix = {"mixup": self.mixing.mixup, "cutmix": self.mixing.cutmix}
            images, targets = mixed(images, targets, listed, self.seed, epoch, **mix)
        return Batch(images, targets)

    def _targets(self, labels: list[int]) -> Tensor:
        """One-hot rows, smoothed (Szegedy et al. 2016)."""
        smoothing = self.mixing.label_smoothing
        targets = torch.full((len(labels), self.classes), smoothing / self.classes)
        targets[torch.arange(len(labels)), torch.tensor(labels)] += 1 - smoothing
        return targets


def aligned(values: NDArray[Any]) -> Tensor:
    """A tensor in memory of torch's own: the same alignment, so the same rounding, in every process."""
    return torch.empty(values.shape, dtype=torch.float32).copy_(torch.from_numpy(np.ascontiguousarray(values)))


def in_background(tasks: Sequence[Callable[[], Result]], workers: int) -> Iterator[Result]:
    """The tasks' results in order; up to `workers` threads are at work on the next ones."""
    if workers == 0:
        for task in tasks:
            yield task()
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
    waiting: list[Future[Result]] = []
    remaining = iter(tasks)
    try:
        for task in remaining:
            waiting.append(pool.submit(task))
            if len(waiting) >= PREFETCH * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class EvaluationData:
    """Samples exactly as prediction sees them, in order, in batches.

    Args:
        samples: of any split.
        preprocessing: of the network.
        batch: pictures at once.
        workers: threads that load.
        budget_bytes: memory for resized pictures, so that the next evaluation need not decode.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        *,
        batch: int,
        workers: int = 2,
        budget_bytes: float = 0,
    ) -> None:
        self.samples = samples
        self.preprocessing = preprocessing
        self.batch, self.workers = batch, workers
        self.cache = PictureCache(preprocessing.pixels, budget_bytes)
        self.labels = np.array([sample.label for sample in samples], dtype=np.int64)

    def part(self, part: slice) -> EvaluationData:
        """Some of the samples, with the same cache."""
        fewer = copy.copy(self)
        fewer.samples, fewer.labels = self.samples[part], self.labels[part]
        return fewer

    def batches(self, part: slice | None = None) -> Iterator[Tensor]:
        """float32 (B, height, width, C) of the samples in `part`, in order."""
        chosen = self.samples[part or slice(None)]
        groups = [chosen[i : i + self.batch] for i in range(0, len(chosen), self.batch)]
        return in_background([partial(self._load, group) for group in groups], self.workers)

    def _load(self, group: Sequence[Sample]) -> Tensor:
        pixels = np.stack([self.cache(sample.path) for sample in group])
        return aligned(self.preprocessing.normalise(pixels))
