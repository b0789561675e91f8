"""How published weights and their download look on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from mobilenet.files.download import Progress

COLUMNS = ("name", "top-1 %", "parameters", "MB", "side", "licence", "cached")


def print_listing(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The rows of `files.pull.listing` as a table; the source is the first part of a name."""
    table = Table(*COLUMNS, box=None, header_style="bold")
    for column in table.columns[1:5]:
        column.justify = "right"
    for row in rows:
        top1 = "-" if row["top1"] is None else f"{row['top1']:.1f}"
        table.add_row(
            escape(row["name"]),
            top1,
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            str(row["resolution"]),
            row["licence"] or "unknown",
            "yes" if row["cached"] else "",
        )
    console.print(table)


@contextmanager
def download_bar(console: Console, what: str) -> Iterator[Progress]:
    """A bar of bytes on a terminal, and nothing elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(escape(what), total=None)

        def progress(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield progress
