"""Which run `--resume` goes on with, and what about it may change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from mobilenet.errors import ArgumentError
from mobilenet.learn import checkpoint
from mobilenet.learn.options import FREE_ON_RESUME, TrainOptions
from mobilenet.learn.run_folder import RunFolder, latest_run

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and values that `checkpoint.save_state` wrote."""


def find_run(options: TrainOptions, task: str) -> tuple[RunFolder | None, State | None]:
    """The run to resume, and its state unless it was stopped before it saved one.

    Raises:
        ArgumentError: it is finished.
        TrainingError: its state is damaged.
    """
    run = latest_run(options.project, task, options.name)
    if run is None or not run.last.exists():
        return run, None
    state = checkpoint.load_state(run.last)
    if state[1].get("finished"):
        raise ArgumentError(f"--resume: {run.path} is finished; leave out --resume to start another run")
    return run, state


def resumed_options(given: TrainOptions, values: dict[str, Any]) -> TrainOptions:
    """The options of the run that is resumed; only where and how fast it runs may change.

    Raises:
        ArgumentError: another option was given than the run was started with.
    """
    saved = TrainOptions(**values["options"])
    for name in given.changed_from(saved):
        raise ArgumentError(
            f"--{name.replace('_', '-')} {getattr(given, name)}: the run that is resumed was started with "
            f"{getattr(saved, name)}, which cannot change"
        )
    return replace(saved, **{name: getattr(given, name) for name in FREE_ON_RESUME})
