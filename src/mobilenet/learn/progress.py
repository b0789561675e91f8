"""What a person sees while training runs: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 30.0  # between two plain lines of one task


@dataclass(frozen=True)
class Figure:
    """What networks of a task are compared by: its name in results.csv and model files, and for people."""

    key: str
    name: str


Event = dict[str, Any]
Listener = Callable[[Event], None]
Advance = Callable[..., None]
"""Called with how many pictures are done more, and numbers to show (loss=0.31)."""


class Reporter:
    """Prints progress and hands every event to a listener.

    Args:
        quiet: print nothing (the other processes of a run).
        listener: called with {"event": "progress" | "epoch" | "message", ...}.
    """

    def __init__(
        self, *, quiet: bool = False, listener: Listener | None = None, console: Console | None = None
    ) -> None:
        self._console = console or Console(quiet=quiet, soft_wrap=True, highlight=False)
        self._listener = listener
        self._board: Any = None

    def open(self, folder: Path) -> None:
        """From now on the epochs' figures go to TensorBoard too, if it is installed."""
        if not self._console.quiet and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder))

    def close(self) -> None:
        """After the last figure."""
        if self._board is not None:
            self._board.close()

    def say(self, text: str) -> None:
        """A line of text."""
        self._console.print(text, markup=False)
        self._tell({"event": "message", "text": text})

    def epoch(self, row: Mapping[str, Any], epochs: int, figure: Figure) -> None:
        """The figures of a finished epoch."""
        self._tell({"event": "epoch", "epochs": epochs, **row})
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, row["epoch"])
        shown = [f"epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.4f}"]
        name = f"val_{figure.key}"
        shown += [f"val loss {row['val_loss']:.4f}", f"val {figure.name} {row[name]:.4f}"]
        if row.get(f"{name}_ema") is not None:
            shown.append(f"averaged {row[f'{name}_ema']:.4f}")
        shown += [f"{row['images_per_second']:.0f} img/s", f"{row['seconds']:.1f} s"]
        self._console.print("  ".join(shown), markup=False)

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Progress of `total` pictures, of which `done` were done before."""
        start = time.monotonic()
        if self._console.is_terminal:
            with self._bar() as bar:
                number = bar.add_task(title, total=total, completed=done, figures="")
                yield self._bar_advance(bar, number, title, total, done, start)
        else:
            yield self._line_advance(title, total, done, start)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )

    def _bar_advance(
        self, bar: Progress, number: Any, title: str, total: int, before: int, start: float
    ) -> Advance:
        done = 0

        def advance(count: int, **figures: float) -> None:
            nonlocal done
            done += count
            shown = [f"{done / max(time.monotonic() - start, 1e-9):.0f} img/s"]
            shown += [f"{name} {value:.3f}" for name, value in figures.items()]
            bar.update(number, advance=count, figures="  ".join(shown))
            self._tell({"event": "progress", "task": title, "done": before + done, "total": total, **figures})

        return advance

    def _line_advance(self, title: str, total: int, before: int, start: float) -> Advance:
        done, last = 0, start

        def advance(count: int, **figures: float) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= LINE_SECONDS:
                last = now
                speed = done / max(now - start, 1e-9)
                left = (total - before - done) / speed
                extra = "".join(f"  {name} {value:.3f}" for name, value in figures.items())
                self._console.print(
                    f"{title}: {before + done}/{total}  {speed:.0f} img/s{extra}  {left:.0f} s left", markup=False
                )
            self._tell({"event": "progress", "task": title, "done": before + done, "total": total, **figures})

        return advance

    def _tell(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)
