"""One training run from its options to its files: data, start, last layer, loop, outcome."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import torch

from mobilenet.errors import TrainingError
from mobilenet.graph.graph import Weights
from mobilenet.learn import checkpoint
from mobilenet.learn.data import EvaluationData, Mixing, TrainingData
from mobilenet.learn.freezing import frozen_nodes
from mobilenet.learn.interrupt import Stopped, StopSignals
from mobilenet.learn.loop import Position, Trainer
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.outcome import best_module, measure, write_best, write_measured, write_pictures
from mobilenet.learn.prepare import check_batch, checked_folder, identity_of
from mobilenet.learn.progress import Listener, Reporter
from mobilenet.learn.resume import State, find_run, resumed_options
from mobilenet.learn.run_folder import RunFolder, new_run
from mobilenet.learn.start import Start, fingerprint, make_start
from mobilenet.learn.train import TrainResult
from mobilenet.learn.transfer import EmbeddingCache, Head, balanced_weights, embed, fit_head
from mobilenet.pictures.augment import Augmentation
from mobilenet.pictures.folders import PictureFolder
from mobilenet.run.torch_module import GraphModule

TASK = "classify"
TRAIN_SHARE, VAL_SHARE = 0.8, 0.2  # of the memory for pictures


def run_session(options: TrainOptions, listener: Listener | None) -> TrainResult:
    """See `mobilenet.learn.train.train`."""
    with StopSignals("left at once, as nothing could be saved in time") as signals:
        session = Session(options, listener, signals)
        try:
            return session.train()
        except Stopped:
            session.say_farewell()
            raise SystemExit(128 + signals.signal) from None
        finally:
            session.reporter.close()


class Session:
    """A run, and what its parts share: options, machine, reporter, signals, folder."""

    def __init__(self, options: TrainOptions, listener: Listener | None, signals: StopSignals) -> None:
        self.signals = signals
        self.run, state = find_run(options, TASK) if options.resume else (None, None)
        self.state: State | None = state
        self.options = resumed_options(options, state[1]) if state else options.filled()
        self.machine = Machine(self.options)
        self.reporter = Reporter(quiet=not self.machine.is_main, listener=listener)

    def train(self) -> TrainResult:
        """The whole run; what cannot work is found before a folder is made."""
        folder = checked_folder(self.options, self.machine, self.reporter, self.signals.check)
        start = make_start(self.options, folder.classes)
        frozen = frozen_nodes(start.contents.graph, start.classifier, self.options.freeze)
        if self.options.freeze != "features":
            check_batch(start, frozen, self.options.batch, len(folder.splits["train"]))
        self._check_identity(folder, start)
        self._open_run()
        val = self._evaluation_data(folder, "val", start, VAL_SHARE)
        position = Position()
        if self.options.pretrained and self.state is None:
            start, position = self._fit_last_layer(folder, start, val)
        history = position.history
        trainer = None
        if self.options.freeze != "features":
            trainer = self._trainer(folder, start, frozen, val, position)
            trainer.train()
            history = trainer.position.history
        return self._finish(folder, start, val, history, trainer)

    @property
    def run_folder(self) -> RunFolder:
        """The run's folder, once there is one."""
        assert self.run is not None
        return self.run

    # -- before training -----------------------------------------------------------------------------------

    def _check_identity(self, folder: PictureFolder, start: Start) -> None:
        self.identity = identity_of(folder, start)
        if self.state and self.state[1]["identity"] != self.identity:
            raise TrainingError(
                f"{self.run_folder.path}: the pictures or the pretrained file changed since this run was started; "
                "put them back, or start another run"
            )

    def _open_run(self) -> None:
        """The folder of the run; the main process makes it."""
        if self.run is None:
            made = self.machine.text_from_main(
                lambda: str(new_run(self.options.project, TASK, self.options.name).path)
            )
            self.run = RunFolder(Path(made))
        if self.machine.is_main:
            with checkpoint.explained("args.yaml", self.run.last):
                self.run.clear_leftovers()
                self.run.write_arguments(self.options)
        self.signals.farewell = f"left at once; the last state that was saved is {self.run.last}"
        self.reporter.open(self.run.path)
        if self.options.resume and self.state is None:
            self.reporter.say("there is no saved state to go on with; starting from the beginning")
        verb = "going on with" if self.state else "run"
        self.reporter.say(f"{verb} {self.run.path} on {self.machine.describe()}")

    def _evaluation_data(self, folder: PictureFolder, split: str, start: Start, share: float) -> EvaluationData:
        return EvaluationData(
            folder.splits[split],
            start.preprocessing,
            batch=self.options.batch,
            workers=self.options.workers,
            budget_bytes=share * self._budget_bytes(),
        )

    def _budget_bytes(self) -> float:
        return self.options.cache_gigabytes * 2**30 / self.machine.processes

    def _class_weights(self, folder: PictureFolder) -> np.ndarray | None:
        if self.options.class_weights == "none":
            return None
        return balanced_weights([sample.label for sample in folder.splits["train"]], len(folder.classes))

    # -- the last layer ------------------------------------------------------------------------------------

    def _fit_last_layer(self, folder: PictureFolder, start: Start, val: EvaluationData) -> tuple[Start, Position]:
        """The start with a last layer that fits the features as they are."""
        head = self._fitted_head(folder, start, val)
        weights = with_head(start, head)
        self.reporter.say(f"last layer fitted to fixed features: val top-1 {head.score.top1:.4f}")
        row = {"epoch": 0, "phase": "head", "val_loss": head.score.loss, "val_top1": head.score.top1}
        best = {"epoch": 0, "weights": "head", "top1": head.score.top1, "loss": head.score.loss}
        start = replace(start, contents=replace(start.contents, weights=weights))
        if self.machine.is_main:
            with checkpoint.explained("the best model", self.run_folder.last):
                write_best(self.run_folder, start.contents, self.options, weights, best)
        return start, Position(history=[row], best=best)

    def _fitted_head(self, folder: PictureFolder, start: Start, val: EvaluationData) -> Head:
        module = (
            GraphModule.from_weights(start.contents.graph, start.contents.weights).to(self.machine.device).eval()
        )
        place = Path(self.options.project) / ".embeddings"
        cache = EmbeddingCache(place, fingerprint(start.contents, features_only=True), self.machine)
        train = self._evaluation_data(folder, "train", start, 0)
        total = len(train.samples) + len(val.samples)
        with self.reporter.task("embedding", total) as advance:
            splits = [
                embed(module, data, cache, self.machine, advance=advance, check=self._check)
                for data in (train, val)
            ]
        head = fit_head(splits[0], splits[1], len(folder.classes), self._class_weights(folder))
        return Head(
            self.machine.from_main(torch.from_numpy(head.weight).to(self.machine.device)).cpu().numpy(),
            self.machine.from_main(torch.from_numpy(head.bias).to(self.machine.device)).cpu().numpy(),
            head.penalty,
            head.score,
        )

    def _check(self) -> None:
        """A safe point where nothing needs saving; several processes can only stop together, between steps."""
        if self.machine.processes == 1:
            self.signals.check()

    # -- the loop and the outcome --------------------------------------------------------------------------

    def _trainer(
        self, folder: PictureFolder, start: Start, frozen: set[str], val: EvaluationData, position: Position
    ) -> Trainer:
        module = GraphModule.from_weights(start.contents.graph, start.contents.weights)
        module.freeze(frozen)
        weights = self._class_weights(folder)
        trainer = Trainer(
            module,
            self._training_data(folder, start),
            val,
            self.options,
            machine=self.machine,
            run=self.run_folder,
            reporter=self.reporter,
            signals=self.signals,
            save_best=lambda best, figures: write_best(
                self.run_folder, start.contents, self.options, best, figures
            ),
            class_weights=torch.from_numpy(weights) if weights is not None else None,
            identity=self.identity,
        )
        if self.state is not None:
            trainer.load(*self.state)
        else:
            trainer.position = position
            trainer.save()
        return trainer

    def _training_data(self, folder: PictureFolder, start: Start) -> TrainingData:
        options = self.options
        assert options.crop_area is not None
        return TrainingData(
            folder.splits["train"],
            len(folder.classes),
            start.preprocessing,
            Augmentation(options.crop_area, options.flip, options.colour, options.randaugment),
            Mixing(options.label_smoothing, options.mixup, options.cutmix),
            batch=options.batch,
            seed=options.seed,
            process=self.machine.process,
            processes=self.machine.processes,
            workers=options.workers,
            budget_bytes=TRAIN_SHARE * self._budget_bytes(),
        )

    def _finish(
        self,
        folder: PictureFolder,
        start: Start,
        val: EvaluationData,
        history: list[dict[str, Any]],
        trainer: Trainer | None,
    ) -> TrainResult:
        run = self.run_folder
        module = best_module(run, start.contents.graph, self.machine)
        measured = measure(module, folder, val, self.machine, self.reporter, self._check)
        if self.machine.is_main:
            with checkpoint.explained("the outcome", run.last):
                write_measured(run, measured, self.options.data)
                run.write_history(history)
                write_pictures(run, folder, measured, history)
            self._mark_finished(trainer)
        self.machine.wait()
        metrics = {"data": self.options.data, "split": measured.split, **measured.metrics[measured.split]}
        self.reporter.say(
            f"{run.best}: {measured.split} top-1 {metrics['top1']:.4f} on {metrics['images']} pictures"
        )
        return TrainResult(run.best, run.path, metrics, history)

    def _mark_finished(self, trainer: Trainer | None) -> None:
        """--resume must not go on with a run that is finished."""
        if trainer is not None:
            trainer.save(finished=True)
            return
        values = {"options": asdict(self.options), "identity": self.identity, "finished": True}
        with checkpoint.explained("the state of the run", self.run_folder.last):
            checkpoint.save_state(self.run_folder.last, {}, values)

    def say_farewell(self) -> None:
        """After a signal."""
        name = Signals(self.signals.signal).name
        if self.run is not None and self.run.last.exists():
            text = f"the state is saved in {self.run.last}; go on with --resume --name {self.run.path.name}"
        else:
            text = "no step was done, so there is nothing to resume"
        self.reporter.say(f"stopped by {name}: {text}")


def with_head(start: Start, head: Head) -> Weights:
    """The start's weights with a fitted last layer."""
    graph, name = start.contents.graph, start.classifier
    shape = graph.parameters()[f"{name}.weight"].shape
    own = {f"{name}.weight": head.weight.reshape(shape), f"{name}.bias": head.bias}
    return {**start.contents.weights, **own}
