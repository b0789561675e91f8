"""What one task is to training: its data, its network, its loss, and how good a network is at it.

`session.Session` runs a task, `loop.Trainer` asks it for batches, losses and scores. A task is one subclass of
`Task` in a file of its own, and a row of `TASKS`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from mobilenet.graph.graph import Graph
from mobilenet.learn.data import Batch, TrainingBatches
from mobilenet.learn.distil import Teacher
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.progress import Figure, Reporter
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.start import Start
from mobilenet.pictures.augment import Augmentation
from mobilenet.run.torch_module import GraphModule

if TYPE_CHECKING:
    from mobilenet.files.contents import ModelContents

TASKS = {
    "classify": ("mobilenet.learn.classify", "Classify"),
    "detect": ("mobilenet.learn.detect", "Detect"),
    "embed": ("mobilenet.learn.embed", "Embed"),
    "segment": ("mobilenet.learn.segment", "Segment"),
}

TRAIN_SHARE, VAL_SHARE = 0.8, 0.2  # of the memory for pictures


@dataclass(frozen=True)
class Score:
    """How good a network is: the task's figure, of which more is better, and the mean loss."""

    figure: float
    loss: float

    def beats(self, other: Score | None) -> bool:
        """A higher figure, or the same with a lower loss."""
        return other is None or (self.figure, -self.loss) > (other.figure, -other.loss)


@dataclass(frozen=True)
class Fitted:
    """What `Task.fit` reached before the loop, and what it did."""

    score: Score
    text: str


@dataclass
class Setting:
    """What a task may use of a run: its options, machine and reporter, and `check`, a safe point to stop at."""

    options: TrainOptions
    machine: Machine
    reporter: Reporter
    check: Callable[[], None]

    def training(self) -> dict[str, Any]:
        """How the training split is loaded: see `data.TrainingBatches`, and memory for its pictures."""
        options, machine = self.options, self.machine
        return {
            "batch": options.batch,
            "seed": options.seed,
            "process": machine.process,
            "processes": machine.processes,
            "workers": options.workers,
            "budget_bytes": TRAIN_SHARE * self._cache_bytes(),
        }

    def evaluation(self, *, kept: bool = False) -> dict[str, Any]:
        """How pictures are loaded as prediction sees them; `kept`: in memory, for the next time."""
        budget = VAL_SHARE * self._cache_bytes() if kept else 0.0
        return {"batch": self.options.batch, "workers": self.options.workers, "budget_bytes": budget}

    def augmentation(self) -> Augmentation:
        """How training pictures without boxes or masks are changed."""
        options = self.options
        assert options.crop_area is not None
        return Augmentation(
            options.crop_area, options.flip, options.colour, options.randaugment, options.flip_vertical
        )

    def _cache_bytes(self) -> float:
        return self.options.cache_gigabytes * 2**30 / self.machine.processes


class Task(ABC):
    """One task of one run. It is made when the data are read and the network is there; nothing is written yet.

    Attributes:
        name: of the folder of its runs; also the `task` of the models that it trains.
        figure: what the best network is chosen by.
        setting: what it may use of the run.
        start: the network to train; `fit` may make it a better one.
        teacher: whose answers are learnt too.
    """

    name: ClassVar[str]
    figure: ClassVar[Figure]

    def __init__(self, setting: Setting, start: Start) -> None:
        self.setting, self.start = setting, start
        self.teacher: Teacher | None = None

    @classmethod
    @abstractmethod
    def prepared(cls, setting: Setting) -> Task:
        """The task with its data read and its start made.

        Raises:
            DataError, ArgumentError, ModelFileError, GraphError: the data or the network cannot be used.
        """

    @property
    @abstractmethod
    def samples(self) -> int:
        """How many samples the training split has."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed, beside the teacher, as JSON can hold it."""

    def fit(self) -> Fitted | None:
        """Makes `start` better without the loop, where the task has a way."""
        return None

    def beside(self, graph: Graph) -> dict[str, nn.Module]:
        """What is learnt beside a network of this graph, and not kept: see `student.Student`."""
        return {} if self.teacher is None else self.teacher.beside(graph)

    @abstractmethod
    def batches(self) -> TrainingBatches:
        """Of the training split."""

    @abstractmethod
    def losses(self, outputs: dict[str, Tensor], batch: Batch, images: Tensor) -> Tensor:
        """The loss of each sample of this process's part of a batch, (B), given the network's outputs for it."""

    @abstractmethod
    def score(self, module: GraphModule) -> Score:
        """How good it is on the validation pictures; the same in every process."""

    @abstractmethod
    def measure(self, module: GraphModule) -> Outcome:
        """The best network on validation and test pictures, in float32, as the model will be used."""


class Outcome(ABC):
    """What is known of the best network when training is over.

    Attributes:
        kept_of_val: names of the figures on val that a model judged by test keeps, too.
        splits: split -> "images" and the task's figures, for val and, if the data have one, test.
    """

    kept_of_val: ClassVar[tuple[str, ...]]
    splits: dict[str, dict[str, Any]]

    @property
    def split(self) -> str:
        """Where the model is judged: test if there is one."""
        return "test" if "test" in self.splits else "val"

    @property
    def metrics(self) -> dict[str, Any]:
        """All figures of that split, and its name as "split"."""
        return {"split": self.split, **self.splits[self.split]}

    def kept_metrics(self) -> dict[str, Any]:
        """What a model file keeps of them: nothing that grows with the square of the classes, and some of val."""
        kept = {name: value for name, value in self.metrics.items() if name != "confusion"}
        if self.split != "val":
            kept["val"] = {name: self.splits["val"][name] for name in self.kept_of_val}
        return kept

    @abstractmethod
    def finished(self, contents: ModelContents) -> ModelContents:
        """The model with its calibration and its figures."""

    @abstractmethod
    def write_pictures(self, run: RunFolder) -> None:
        """Plots for people, into the run's folder."""


def task_of(name: str) -> type[Task]:
    """The class of a task of `TASKS`."""
    module, symbol = TASKS[name]
    found: type[Task] = getattr(importlib.import_module(module), symbol)
    return found
