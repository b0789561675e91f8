"""What the documents name exists: paths, links, commands, options, make targets, functions, figures."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import typer

from mobilenet.cli import app

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").glob("*.md"))]
ENGINE = PROJECT / "docs" / "engine.md"
# Documents name a file from the project's root or from the folder that they are about.
ROOTS = ("", "docs", "native", "native/src", "native/src/isa", "native/fuzz", "src/mobilenet", "src/mobilenet/run")
SUFFIXES = "cc|h|py|pyi|md|mjs|txt|toml|dict|svg"
MADE = ("build/", "runs/", "photos/", "checks/", "http")  # by commands, or examples

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="an installed package has no documents")


@cache
def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def code(document: Path) -> list[str]:
    """What stands between backticks in the running text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text(document), flags=re.DOTALL))


def commands(document: Path) -> list[str]:
    """The lines of shell blocks and the commands in the running text, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text(document), flags=re.DOTALL)
    lines = chain(*(block.splitlines() for block in blocks), code(document))
    return [part.strip() for line in lines for part in line.partition(" #")[0].split("&&")]


def exists(path: str) -> bool:
    return any(any((PROJECT / root).glob(path.rstrip("/"))) for root in ROOTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(document)):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        found = document.parent / path if path else document
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)$", text(found), flags=re.MULTILINE) if anchor else ()
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, (
            target
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(document):
    pattern = re.compile(rf"[\w./*-]+(?:/|\.(?:{SUFFIXES}|\*)|\*\.(?:{SUFFIXES}))")
    for word in code(document):
        if pattern.fullmatch(word) and not word.startswith(MADE) and "NAME" not in word:
            assert exists(word), word


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_verbs_and_options_exist(document):
    verbs = typer.main.get_command(app).commands
    for command in commands(document):
        found = re.match(r"(?:\w+=\S+ |perf record )*mobilenet(?: ([a-z]+))( .*)?$", command)
        if not found:
            continue
        assert found[1] in verbs, command
        known = set(chain(*(parameter.opts for parameter in verbs[found[1]].params)))
        for option in re.findall(r"(?<!\S)(-{1,2}[a-z][a-z-]*)", found[2] or ""):
            assert option in known, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_and_build_options_exist(document):
    declared = text(PROJECT / "CMakeLists.txt")
    for command in commands(document):
        if found := re.match(r"make(?: -C (\S+))?((?: [a-z]+)*)$", command):
            makefile = text(PROJECT / (found[1] or ".") / "Makefile")
            for target in found[2].split():
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), command
        for option in re.findall(r"-D(MOBILENET_\w+)=", command):
            assert re.search(rf"\b{option}\b", declared), command
        if found := re.match(r"python (\S+\.py)", command):
            assert exists(found[1]), command


@cache
def sources() -> str:
    files = chain(*((PROJECT / folder).rglob("*") for folder in ("native", "src", "tests")))
    kept = (
        path for path in files if path.suffix in (".cc", ".h", ".py", ".txt", ".mjs") or path.name == "Makefile"
    )
    return "\n".join(path.stem + "\n" + path.read_text(encoding="utf-8") for path in kept)


def test_functions_and_types_of_the_engine_exist():
    names = {name for word in code(ENGINE) for name in re.findall(r"\b[A-Za-z]+_\w+|\b[A-Z][a-z]+[A-Z]\w+", word)}
    assert len(names) > 40
    absent = sorted(name for name in names if not re.search(rf"\b{name}", sources()))
    assert absent == []


def table_of_sets() -> dict[str, tuple[str, str]]:
    """Name -> tiles of floats and of integers, in the document's order."""
    section = text(ENGINE).partition("## Instruction sets")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \| ([^|]*) \|", section, flags=re.MULTILINE)
    return {name: (floats, integers) for name, floats, integers in rows}


def test_instruction_sets_are_those_of_the_engine():
    table = text(PROJECT / "native/src/kernels.cc").partition("SETS[]")[2].partition("};")[0]
    names = re.findall(r'\{"(\w+)",', table)
    assert sorted(table_of_sets()) == sorted([*names, "generic"])


def test_tiles_are_those_of_the_plan():
    pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")
    from mobilenet.files.model_file import encode
    from mobilenet.quantise.random import random_quantised_model
    from mobilenet.run.engine import Engine, isas

    pair = [
        encode(model) for model in random_quantised_model("mobilenet_v1", width_multiplier=0.25, resolution=32)
    ]
    for isa in isas()[:-1]:
        for data, documented in zip(pair, table_of_sets()[isa], strict=True):
            steps = Engine(data, isa=isa, threads=1).plan()["steps"]
            tiles = {step["tile"] for step in steps if step["kernel"].startswith("dense")}
            assert tiles == {documented.replace("×", "x")}, isa


def test_the_picture_is_drawn_by_its_program_and_shows_what_is_planned():
    program = PROJECT / "docs" / "pictures" / "make_engine.py"
    spec = importlib.util.spec_from_file_location("make_engine", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert text(module.TARGET) == module.picture()

    pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")
    import mobilenet
    from mobilenet.files.model_file import encode
    from mobilenet.run.engine import Engine

    plan = Engine(encode(mobilenet.create("mobilenet_v2")), threads=1).plan()
    (block,) = (step for step in plan["steps"] if step["name"] == "blocks.2.add")
    assert (block["kernel"], block["tile"]) == ("bands_conv_depthwise_pointwise_f32", "1 row")
    assert (block["output_shape"], block["bytes"]) == ([56, 56, 24], 401_408)
    assert 132_480 <= block["scratch_bytes"] < 145_000  # ring and band, and what little is beside them
    assert f"{plan['peak_activation_bytes']:,} bytes" in text(ENGINE)
