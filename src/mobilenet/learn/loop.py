"""The loop that trains: epochs of steps, an evaluation after each, the best weights kept, the state saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilenet.errors import TrainingError
from mobilenet.graph.graph import Weights
from mobilenet.learn import checkpoint
from mobilenet.learn.average import WeightAverage
from mobilenet.learn.data import Batch
from mobilenet.learn.interrupt import Stopped, StopSignals
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.progress import Advance, Reporter
from mobilenet.learn.run_folder import RunFolder
from mobilenet.learn.schedule import make_optimizer, make_schedule
from mobilenet.learn.student import Student
from mobilenet.learn.task import Score, Task
from mobilenet.run.torch_module import GraphModule

SaveBest = Callable[[Weights, dict[str, Any]], None]
"""Writes the best model so far: its weights, and how good they are on the validation pictures."""


@dataclass
class Position:
    """Where a run is. Together with the tensors this is all that a resumed run needs to know.

    Attributes:
        epoch, step: the next step to do, counted from 0.
        loss_sum, images: over the steps of this epoch that are done.
        updates: how often the running average was updated.
        history: a row for each finished epoch; see `run_folder.columns`.
        best: epoch (from 1, 0 for a fitted last layer), "weights" ("raw", "average" or "head"), the task's figure
            and loss of the best weights; empty before there are any.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    updates: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Trains a module in place.

    Args:
        module: with its weights and frozen nodes, on any device.
        task: whose batches, losses and scores they are.
        options: filled.
        machine, run, reporter, signals: where it runs, where it writes, who is told, who may stop it.
        save_best: called in the main process whenever an epoch is the best so far.
        identity: what must be the same for a state to be resumed; saved with the state.
    """

    def __init__(
        self,
        module: GraphModule,
        task: Task,
        options: TrainOptions,
        *,
        machine: Machine,
        run: RunFolder,
        reporter: Reporter,
        signals: StopSignals,
        save_best: SaveBest,
        identity: dict[str, Any] | None = None,
    ) -> None:
        self.module = module.to(machine.device)
        self.student = Student(self.module, task.beside(module.graph)).to(machine.device)
        self.task, self.data, self.options = task, task.batches(), options
        self.machine, self.run, self.reporter, self.signals = machine, run, reporter, signals
        self.save_best = save_best
        self.identity = identity or {}
        shorten_memory(module, self.data.steps)
        self.position = Position()
        self.names = {parameter: name for name, parameter in module.named_parameters()}
        self.names |= {parameter: f"{own}.{name}" for own, name, parameter in self.student.own_parameters()}
        self.average = WeightAverage(self.module, options.ema) if options.ema else None
        self.schedule = make_schedule(options, self.data.steps)
        self.optimizer = make_optimizer(module.named_parameters(), module.graph, options)
        self.student.join(self.optimizer, options)
        self._prepared, self._stepper = machine.accelerator.prepare(self.student, self.optimizer)
        self._last_save = time.monotonic()

    @property
    def epochs(self) -> int:
        """How many epochs there are at most."""
        assert self.options.epochs is not None
        return self.options.epochs

    # -- the state -----------------------------------------------------------------------------------------

    def save(self, **more: Any) -> None:
        """Saves everything that `load` needs.

        Raises:
            TrainingError: the weights are no numbers any more, or the disk is full; the last state is intact.
        """
        self._last_save = time.monotonic()
        if not self.machine.is_main:
            return
        state = self.module.state_dict()
        if not all(bool(torch.isfinite(value).all()) for value in state.values()):
            raise TrainingError(self._divergence("a weight"))
        tensors = {f"model/{name}": value for name, value in state.items()}
        if self.average is not None:
            averages = self.average.module.state_dict()
            tensors |= {f"average/{name}": value for name, value in averages.items()}
        tensors |= {f"{own}/{name}": value for own, name, value in self.student.own_parameters()}
        quantities = checkpoint.optimizer_tensors(self.optimizer, self.names)
        tensors |= {f"optimizer/{name}": value for name, value in quantities.items()}
        scaler = self.machine.accelerator.scaler
        values = {
            "options": asdict(self.options),
            "identity": self.identity,
            "position": asdict(self.position),
            "scaler": scaler.state_dict() if scaler is not None else None,
            **more,
        }
        with checkpoint.explained("the state of the run", self.run.last):
            checkpoint.save_state(self.run.last, tensors, values)

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continues where `save` was called; raises `TrainingError` if the state is another network's."""
        checkpoint.copy_into(self.module, tensors, "model/")
        self.student.load(tensors)
        self.position = Position(**values["position"])
        if self.average is not None:
            checkpoint.copy_into(self.average.module, tensors, "average/")
            self.average.updates = self.position.updates
        own = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")}
        checkpoint.load_optimizer_tensors(self.optimizer, self.names, own)
        if values["scaler"] is not None and self.machine.accelerator.scaler is not None:
            self.machine.accelerator.scaler.load_state_dict(values["scaler"])

    # -- the loop ------------------------------------------------------------------------------------------

    def train(self) -> None:
        """All epochs that are left.

        Raises:
            Stopped: a signal came; the state is saved.
            TrainingError: the loss or a weight is no number any more, or the disk is full.
        """
        try:
            while self.position.epoch < self.epochs and not self._out_of_patience():
                self._train_epoch()
        except Stopped:
            self.save()
            raise

    def _out_of_patience(self) -> bool:
        waited = self.position.epoch - int(self.position.best.get("epoch", self.position.epoch))
        return 0 < self.options.patience <= waited

    def _train_epoch(self) -> None:
        start, first = time.monotonic(), self.position.images
        self.module.train()
        epoch, total = self.position.epoch, len(self.data.samples)
        sizes = self.data.batch_sizes(epoch)
        with self.reporter.task(f"epoch {epoch + 1}/{self.epochs}", total, self.position.images) as advance:
            for batch in self.data.epoch(epoch, self.position.step):
                self._step(batch, sizes[self.position.step], advance)
        seconds = time.monotonic() - start
        self._finish_epoch((self.position.images - first) / max(seconds, 1e-9), start)

    def _step(self, batch: Batch, size: int, advance: Advance) -> None:
        """One step of all processes together, `size` samples, and a safe point after it."""
        self.schedule.apply(self.optimizer, self._steps_done())
        # Dropout and stochastic depth: the same draws whether or not the run was interrupted before this step.
        torch.manual_seed(_seed_of_step(self.options.seed, self._steps_done(), self.machine.process))
        loss = self._loss(batch, size)
        self.machine.accelerator.backward(loss * self.machine.processes)  # whose gradients are then averaged
        self._stepper.step()
        self._stepper.zero_grad()
        if self.average is not None:
            self.average.update(self.module)
            self.position.updates = self.average.updates
        self.position.step += 1
        self.position.images += size
        self._agree(loss.detach() * size)
        advance(size, loss=self.position.loss_sum / self.position.images)
        self._save_now_and_then()

    def _steps_done(self) -> int:
        return self.position.epoch * self.data.steps + self.position.step

    def _loss(self, batch: Batch, size: int) -> Tensor:
        """This process's part of the mean loss over the samples of all processes."""
        images = batch.images.to(self.machine.device)
        return self.task.losses(self._prepared(images), batch, images).sum() / size

    def _agree(self, loss: Tensor) -> None:
        """Adds up the processes' losses and stops them all if one was told to, at the same step."""
        figures = torch.tensor([float(loss), float(self.signals.signal)], dtype=torch.float64)
        total, stop = self.machine.sums(figures).tolist()
        if total != total or total in (float("inf"), float("-inf")):
            raise TrainingError(self._divergence(f"the loss of epoch {self.position.epoch + 1}"))
        self.position.loss_sum += total
        if stop:
            raise Stopped

    def _divergence(self, what: str) -> str:
        state = f"the last good state is {self.run.last}" if self.run.last.exists() else "no state was saved yet"
        return (
            f"{what} is not a finite number: training diverged ({state}). Try a lower --lr0 (it was "
            f"{self.options.lr0:g}), a longer --warmup-epochs, or --amp none"
        )

    def _save_now_and_then(self) -> None:
        period = self.options.save_period_seconds
        if period and time.monotonic() - self._last_save >= period:
            self.save()

    def _finish_epoch(self, images_per_second: float, start: float) -> None:
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        row: dict[str, Any] = {"epoch": self.position.epoch + 1, "phase": "all", "lr": lr}
        row["train_loss"] = self.position.loss_sum / max(1, self.position.images)
        row |= self._evaluate()
        row |= {"images_per_second": round(images_per_second, 1), "seconds": round(time.monotonic() - start, 2)}
        self.position.history.append(row)
        self.position.epoch += 1
        self.position.step = self.position.images = 0
        self.position.loss_sum = 0.0
        self.save()
        if self.machine.is_main:
            with checkpoint.explained("results.csv", self.run.last):
                self.run.write_history(self.position.history, self.task.figure)
        self.reporter.epoch(row, self.epochs, self.task.figure)

    def _evaluate(self) -> dict[str, Any]:
        """Scores the weights and their average on the validation pictures; keeps what is the best so far."""
        raw, name = self._score(self.module), f"val_{self.task.figure.key}"
        self._offer(raw, self.module, "raw")
        figures = {"val_loss": raw.loss, name: raw.figure}
        if self.average is not None:
            averaged = self._score(self.average.module)
            self._offer(averaged, self.average.module, "average")
            figures |= {"val_loss_ema": averaged.loss, f"{name}_ema": averaged.figure}
        return figures

    def _score(self, module: GraphModule) -> Score:
        result = self.task.score(module)
        if result.loss != result.loss:
            raise TrainingError(self._divergence("the validation loss"))
        return result

    def _offer(self, result: Score, module: GraphModule, which: str) -> None:
        """Keeps these weights if they are the best so far."""
        best, name = self.position.best, self.task.figure.key
        if not result.beats(Score(best[name], best["loss"]) if best else None):
            return
        epoch = self.position.epoch + 1
        self.position.best = {"epoch": epoch, "weights": which, name: result.figure, "loss": result.loss}
        if self.machine.is_main:
            with checkpoint.explained("the best model", self.run.last):
                self.save_best(module.to_weights(), self.position.best)


def shorten_memory(module: GraphModule, steps_of_epoch: int) -> None:
    """Lets running statistics follow within a quarter of an epoch, or 10 steps.

    The papers' momentum remembers 100 to 1000 steps, which suits epochs of ten thousand; after an epoch of 50
    the statistics would still be those of the random start, and the network would be judged with them.
    """
    for norm in module.batch_norms().values():
        norm.momentum = max(norm.momentum, min(0.1, 4 / steps_of_epoch))


def _seed_of_step(seed: int, step: int, process: int) -> int:
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0] >> 1)
