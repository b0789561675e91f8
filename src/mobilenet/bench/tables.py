"""What was measured, and what the engine plans to do, as tables on a terminal or in Markdown."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet.errors import ArgumentError
from mobilenet.files.atomic import write_atomically
from mobilenet.report.profile import in_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from mobilenet.bench.compare import Row

COLUMNS = ("runtime", "version", "min ms", "median ms", "ratio", "of ceiling", "peak memory")
PLAN_WIDTH = 120  # of a plan that goes to a file or pipe, where nothing else says how wide a line may be


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cells(row: Row) -> list[str]:
    """The words of a row that was timed, in the order of `COLUMNS`."""
    assert row.min_ms is not None and row.median_ms is not None and row.ratio_to_mobilenet is not None
    share = "-" if row.ceiling_share is None else f"{row.ceiling_share:.0%}"
    memory = "-" if row.peak_activation_bytes is None else in_bytes(row.peak_activation_bytes)
    times = (f"{row.min_ms:.3f}", f"{row.median_ms:.3f}", f"{row.ratio_to_mobilenet:.2f}")
    return [row.runtime, row.version, *times, share, memory]


def print_rows(rows: Sequence[Row], title: str, console: Console) -> None:
    """Prints what `compare` gave; reasons stand below the table."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
    for row in rows:
        if not row.reason:
            table.add_row(*map(escape, cells(row)))
    console.print(table)
    for row in rows:
        if row.reason:
            name = " ".join(filter(None, (row.runtime, row.version, row.precision)))
            console.print(f"{escape(name)}: not timed: {escape(row.reason)}", highlight=False)


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    words = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(word.replace("|", "\\|") for word in line) + " |\n" for line in words)


def print_plan(plan: Mapping[str, Any], title: str, console: Console) -> None:
    """Prints the steps of an engine's plan, then its totals."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("step", overflow="fold")
    table.add_column("kernel", overflow="fold")
    table.add_column("tile", overflow="fold")
    for column in ("output", "nodes", "MACs", "bytes", "µs", "of ceiling"):
        table.add_column(column, justify="right", no_wrap=True)
    steps = plan.get("steps", [])
    peak = plan.get("peak_operations_per_second")
    for step in steps:
        shape = "×".join(map(str, step.get("output_shape", ())))
        counts = (f"{step.get('macs', 0):,}", in_bytes(step.get("bytes", 0)), *_speed(step, peak))
        words = (step.get("name", ""), step.get("kernel", ""), step.get("tile", ""), shape)
        table.add_row(*map(escape, map(str, words)), str(len(step.get("nodes", ()))), *counts)
    if not console.is_terminal:
        console.width = max(console.width, PLAN_WIDTH)
    console.print(table)
    for label, value in _totals(plan):
        console.print(f"{label:<24}{escape(value)}", highlight=False)


def _speed(step: Mapping[str, Any], peak: float | None) -> tuple[str, str]:
    """A step's time, and the share of the processor's peak that it reaches where it multiplies."""
    ms, macs = step.get("ms", 0.0), step.get("macs", 0)
    share = f"{2 * macs / (ms * 1e-3) / peak:.0%}" if ms and macs and peak else "-"
    return f"{ms * 1e3:.1f}" if ms else "-", share


def _totals(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [(name.replace("isa", "instruction set"), str(plan[name])) for name in ("isa", "precision", "threads")]
    lines.append(("steps", str(len(plan.get("steps", [])))))
    lines.append(("multiply-accumulates", f"{plan.get('macs', 0):,}"))
    lines.append(("time of all steps, ms", f"{sum(step.get('ms', 0.0) for step in plan.get('steps', [])):.3f}"))
    lines.append(("peak of activations", in_bytes(plan.get("peak_activation_bytes", 0))))
    lines.append(("arena", in_bytes(plan.get("arena_bytes", 0))))
    lines.append(("of the threads", in_bytes(plan.get("scratch_bytes", 0)) or "0 B"))
    lines.append(("weights", in_bytes(plan.get("weight_bytes", 0))))
    return lines


def with_section(text: str, name: str, content: str) -> str:
    """A document with `content` between the comments `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

    What was between them goes; a document without them gets them at its end.

    Raises:
        ArgumentError: one comment without the other, in the wrong order, or twice.
    """
    first, last = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    section = f"{first}\n{content.strip()}\n{last}"
    if first not in text and last not in text:
        return f"{text.rstrip()}\n\n{section}\n" if text.strip() else f"{section}\n"
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise ArgumentError(f"the document needs one '{first}' and after it one '{last}'")
    return text[: text.index(first)] + section + text[text.index(last) + len(last) :]


def update_section(path: Path, name: str, content: str) -> None:
    """Writes `content` into a section of a file (see `with_section`), which is made if it does not exist."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    write_atomically(path, with_section(text, name, content).encode())
