"""The figures of a segmenter as a table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_segmentation(metrics: dict[str, Any], console: Console) -> None:
    """A line for each class, then those of all: what `tasks.segment_evaluate.evaluate_segmenter` gives."""
    table = Table("class", "pixels", "IoU", "recall", "precision", "boundary F", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figures in metrics["per_class"].items():
        shares = (_share(figures[key]) for key in ("iou", "accuracy", "precision", "boundary_f"))
        table.add_row(escape(name), f"{figures['pixels']:,}", *shares)
    console.print(table)
    overall = " ".join(
        f"{title} {_share(metrics[key])}  "
        for title, key in (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy"), ("boundary F", "boundary_f"))
    )
    images, split, latency = metrics["images"], metrics["split"], metrics["latency_ms"]
    console.print(f"{overall} {images} pictures ({split})", highlight=False)
    console.print(f"{latency:.1f} ms a picture, from file to mask")
    if metrics["skipped"]:
        console.print(f"{metrics['skipped']} pictures or masks that cannot be used were skipped")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
