"""The folder of a run: where it is, and the files that people read."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mobilenet.errors import TrainingError
from mobilenet.files.atomic import write_atomically
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.progress import Figure

DEFAULT_NAME = "train"


class RunFolder:
    """PROJECT/TASK/NAME and its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"

    def clear_leftovers(self) -> None:
        """Removes what a killed process left half written."""
        for path in self.path.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def write_arguments(self, options: TrainOptions) -> None:
        """args.yaml: every option as it was used."""
        text = yaml.safe_dump(dataclasses.asdict(options), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "args.yaml", text.encode())

    def write_history(self, rows: Sequence[Mapping[str, Any]], figure: Figure) -> None:
        """results.csv: one row for each epoch, with the task's figure."""
        text = io.StringIO()
        table = csv.DictWriter(text, columns(figure), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_atomically(self.path / "results.csv", text.getvalue().encode())


def columns(figure: Figure) -> tuple[str, ...]:
    """Of results.csv, for a task that chooses its best epoch by this figure."""
    scores = ("val_loss", f"val_{figure.key}", "val_loss_ema", f"val_{figure.key}_ema")
    return ("epoch", "phase", "train_loss", *scores, "lr", "images_per_second", "seconds")


def new_run(project: str, task: str, name: str | None) -> RunFolder:
    """Makes PROJECT/TASK/NAME, or NAME2, NAME3, ... if that is taken; what is there is never touched.

    Raises:
        TrainingError: the folder cannot be made.
    """
    wanted = name or DEFAULT_NAME
    parent = Path(project) / task
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = parent / (wanted if number == 1 else f"{wanted}{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return RunFolder(folder)
    except OSError as error:
        raise TrainingError(f"{parent}: no folder for the run can be made here: {error.strerror}") from error


def latest_run(project: str, task: str, name: str | None) -> RunFolder | None:
    """The run to go on with: the one called NAME, or without a name the newest of train, train2, ..."""
    parent = Path(project) / task
    if name is not None:
        return RunFolder(parent / name) if (parent / name).is_dir() else None
    numbers = {}
    for folder in parent.iterdir() if parent.is_dir() else ():
        match = re.fullmatch(rf"{DEFAULT_NAME}(\d*)", folder.name)
        if match and folder.is_dir():
            numbers[int(match[1] or 1)] = folder
    return RunFolder(numbers[max(numbers)]) if numbers else None
