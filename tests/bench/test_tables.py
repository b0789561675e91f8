"""Tables and the sections of a document that benches rewrite."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from mobilenet.bench.compare import Row
from mobilenet.bench.tables import markdown, print_plan, print_rows, processor, update_section, with_section
from mobilenet.errors import ArgumentError

FIRST, LAST = "<!-- bench:speed -->", "<!-- /bench:speed -->"


def printed(width: int = 100) -> Console:
    return Console(width=width, record=True, soft_wrap=True, file=Path("/dev/null").open("w", encoding="utf-8"))


def test_a_section_is_replaced_and_nothing_else() -> None:
    text = f"# Results\n\n{FIRST}\nold\n{LAST}\n\nafter\n"
    assert with_section(text, "speed", "new\n\n") == f"# Results\n\n{FIRST}\nnew\n{LAST}\n\nafter\n"


def test_a_section_that_is_missing_goes_to_the_end_and_is_found_again() -> None:
    once = with_section("# Results\n", "speed", "first")
    assert once == f"# Results\n\n{FIRST}\nfirst\n{LAST}\n"
    assert with_section(once, "speed", "second") == once.replace("first", "second")
    both = with_section(once, "size", "third")
    assert both.startswith(once) and "<!-- bench:size -->\nthird\n" in both


def test_replacement_text_is_taken_literally() -> None:
    text = f"{FIRST}\n{LAST}\n"
    assert with_section(text, "speed", r"\1 \g<0> \\") == f"{FIRST}\n\\1 \\g<0> \\\\\n{LAST}\n"


@pytest.mark.parametrize("text", [FIRST, LAST, f"{LAST}\n{FIRST}", f"{FIRST}{LAST}{FIRST}{LAST}"])
def test_half_a_section_is_an_error(text: str) -> None:
    with pytest.raises(ArgumentError, match="bench:speed"):
        with_section(text, "speed", "new")


def test_a_file_is_made_or_updated(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    update_section(path, "speed", "one")
    update_section(path, "speed", "two")
    assert path.read_text(encoding="utf-8") == f"{FIRST}\ntwo\n{LAST}\n"


def test_a_markdown_table_escapes_bars() -> None:
    assert markdown(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n"


def test_rows_are_printed_with_their_numbers_and_reasons() -> None:
    rows = [
        Row("mobilenet", "1.2", "fp32", 1, 2.0, 2.5, 1.0, 0.914, 1_460_000),
        Row("openvino", "2026.4.1", "fp32", 1, 3.0, 3.5, 1.5),
        Row("ncnn", "", "fp32", 1, reason="not installed: pip install 'mobilenet[bench]'"),
    ]
    console = printed(80)
    print_rows(rows, "title [x]", console)
    lines = console.export_text().splitlines()
    ours = next(line for line in lines if line.lstrip().startswith("mobilenet"))
    assert ours.split() == ["mobilenet", "1.2", "2.000", "2.500", "1.00", "91%", "1.46", "MB"]
    assert any(line.split() == ["openvino", "2026.4.1", "3.000", "3.500", "1.50", "-", "-"] for line in lines)
    assert "ncnn fp32: not timed: not installed: pip install 'mobilenet[bench]'" in lines
    assert lines[0].startswith("title [x]")


def test_a_plan_is_printed_step_by_step() -> None:
    step = {
        "name": "stem",
        "kernel": "stem_f32",
        "nodes": ["stem.conv", "stem.activation"],
        "tile": "14x32",
        "macs": 750_000,
        "bytes": 2000,
        "output_shape": [112, 112, 32],
        "ms": 0.02,
    }
    plan = {
        "isa": "avx512",
        "precision": "fp32",
        "threads": 2,
        "peak_operations_per_second": 1e11,
        "peak_activation_bytes": 1_460_000,
        "arena_bytes": 1_200_000,
        "scratch_bytes": 3000,
        "weight_bytes": 14_000_000,
        "macs": 1_000_000,
        "steps": [step, {**step, "name": "head", "macs": 250_000}],
    }
    console = printed(120)
    print_plan(plan, "network", console)
    text = console.export_text()
    line = next(line for line in text.splitlines() if "stem_f32" in line and "stem " in line)
    assert line.split() == ["stem", "stem_f32", "14x32", "112×112×32", "2", "750,000", "2.0", "kB", "20.0", "75%"]
    for words in (
        ["peak", "of", "activations", "1.46", "MB"],
        ["weights", "14.00", "MB"],
        ["instruction", "set", "avx512"],
    ):
        assert any(line.split() == words for line in text.splitlines())


def test_the_processor_has_a_name() -> None:
    assert processor().strip()
