"""The figures of a detector as a table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TITLES = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"))
SIZES = (("small", "ap_small"), ("medium", "ap_medium"), ("large", "ap_large"))


def print_detection(metrics: dict[str, Any], console: Console) -> None:
    """A line for each class, then those of all: what `tasks.detect_evaluate.evaluate_detector` gives."""
    table = Table("class", "objects", "AP", "AP50", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figures in metrics["per_class"].items():
        table.add_row(escape(name), f"{figures['objects']:,}", _share(figures["ap"]), _share(figures["ap50"]))
    console.print(table)
    overall = "   ".join(f"{title} {_share(metrics[key])}" for title, key in TITLES)
    sizes = "   ".join(f"{title} {_share(metrics[key])}" for title, key in SIZES)
    images, objects, split = metrics["images"], metrics["objects"], metrics["split"]
    console.print(f"{overall}   {objects:,} objects in {images} pictures ({split})", highlight=False)
    console.print(f"AP by size: {sizes}   {metrics['latency_ms']:.1f} ms a picture", highlight=False)
    if metrics["skipped"]:
        console.print(f"{metrics['skipped']} boxes or pictures that cannot be used were skipped")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
