"""One training run from its options to its files: task, start, loop, outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from signal import Signals
from typing import Any

from mobilenet.errors import TrainingError
from mobilenet.graph.graph import Weights
from mobilenet.learn import checkpoint
from mobilenet.learn.freezing import frozen_nodes
from mobilenet.learn.interrupt import Stopped, StopSignals
from mobilenet.learn.loop import Position, Trainer
from mobilenet.learn.machine import Machine
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.outcome import best_module, write_best, write_outcome, write_pictures
from mobilenet.learn.prepare import check_batch
from mobilenet.learn.progress import Listener, Reporter
from mobilenet.learn.resume import State, find_run, resumed_options
from mobilenet.learn.run_folder import RunFolder, new_run
from mobilenet.learn.task import Setting, Task, task_of
from mobilenet.learn.train import TrainResult
from mobilenet.run.torch_module import GraphModule


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
        self.run, state = find_run(options, options.task) if options.resume else (None, None)
        self.state: State | None = state
        self.options = resumed_options(options, state[1]) if state else options.filled()
        self.machine = Machine(self.options)
        self.reporter = Reporter(quiet=not self.machine.is_main, listener=listener)

    def train(self) -> TrainResult:
        """The whole run; what cannot work is found before a folder is made."""
        setting = Setting(self.options, self.machine, self.reporter, self._check)
        task = task_of(self.options.task).prepared(setting)
        frozen = frozen_nodes(task.start.contents.graph, task.start.new, self.options.freeze)
        if self.options.freeze != "features":
            check_batch(task.start, frozen, self.options.batch, task.samples)
        self._check_identity(task)
        self._open_run()
        if task.teacher is not None:
            self.reporter.say(task.teacher.describe())
        position = Position() if self.state else self._fitted(task)
        trainer = None
        if self.options.freeze != "features":
            trainer = self._trainer(task, frozen, position)
            trainer.train()
            position = trainer.position
        return self._finish(task, position.history, trainer)

    @property
    def run_folder(self) -> RunFolder:
        """The run's folder, once there is one."""
        assert self.run is not None
        return self.run

    def _check(self) -> None:
        """A safe point where nothing needs saving; several processes can only stop together, between steps."""
        if self.machine.processes == 1:
            self.signals.check()

    # -- before the loop -----------------------------------------------------------------------------------

    def _check_identity(self, task: Task) -> None:
        self.identity = task.identity()
        if task.teacher is not None:
            self.identity["teacher"] = task.teacher.fingerprint
        if self.state and self.state[1]["identity"] != self.identity:
            raise TrainingError(
                f"{self.run_folder.path}: the pictures, the pretrained file or the teacher changed since this run "
                "was started; put them back, or start another run"
            )

    def _open_run(self) -> None:
        """The folder of the run; the main process makes it."""
        if self.run is None:
            made = self.machine.text_from_main(
                lambda: str(new_run(self.options.project, self.options.task, self.options.name).path)
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

    def _fitted(self, task: Task) -> Position:
        """The start made better without the loop, if the task can; it is the best model so far."""
        fitted, figure = task.fit(), task.figure
        if fitted is None:
            return Position()
        score = fitted.score
        self.reporter.say(f"{fitted.text}: val {figure.name} {score.figure:.4f}")
        row = {"epoch": 0, "phase": "head", "val_loss": score.loss, f"val_{figure.key}": score.figure}
        best = {"epoch": 0, "weights": "head", figure.key: score.figure, "loss": score.loss}
        if self.machine.is_main:
            with checkpoint.explained("the best model", self.run_folder.last):
                self._write_best(task, task.start.contents.weights, best)
        return Position(history=[row], best=best)

    def _write_best(self, task: Task, weights: Weights, best: Mapping[str, Any]) -> None:
        write_best(self.run_folder, task.start.contents, self.options, weights, best, task.figure)

    # -- the loop and the outcome --------------------------------------------------------------------------

    def _trainer(self, task: Task, frozen: set[str], position: Position) -> Trainer:
        contents = task.start.contents
        module = GraphModule.from_weights(contents.graph, contents.weights)
        module.freeze(frozen)
        trainer = Trainer(
            module,
            task,
            self.options,
            machine=self.machine,
            run=self.run_folder,
            reporter=self.reporter,
            signals=self.signals,
            save_best=lambda weights, best: self._write_best(task, weights, best),
            identity=self.identity,
        )
        if self.state is not None:
            trainer.load(*self.state)
        else:
            trainer.position = position
            trainer.save()
        return trainer

    def _finish(self, task: Task, history: list[dict[str, Any]], trainer: Trainer | None) -> TrainResult:
        run = self.run_folder
        outcome = task.measure(best_module(run, task.start.contents.graph, self.machine))
        if self.machine.is_main:
            with checkpoint.explained("the outcome", run.last):
                write_outcome(run, outcome, self.options.data)
                run.write_history(history, task.figure)
                write_pictures(run, outcome, history, task.figure)
            self._mark_finished(trainer)
        self.machine.wait()
        metrics = {"data": self.options.data, **outcome.metrics}
        figure = f"{task.figure.name} {metrics[task.figure.key]:.4f}"
        self.reporter.say(f"{run.best}: {metrics['split']} {figure} on {metrics['images']} pictures")
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
