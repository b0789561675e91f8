"""Sources of prediction: files, folders, patterns, standard input."""

from __future__ import annotations

import gc
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilenet.errors import DataError, ImageError
from mobilenet.pictures.decode import decode
from mobilenet.pictures.sources import expand_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "sub/d.gif",
        "sub/c.webp",
        "sub/deep/e.pgm",
        ".git/f.jpg",
    ]
    for name in [*names, "odd[1].jpg", "raw.dat"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def expanded(folder: Path, *sources: str, stdin: str = "") -> list[str]:
    where = [source if source == "-" else str(folder / source) for source in sources]
    found = expand_sources(where, stdin=io.StringIO(stdin))
    return [path.relative_to(folder).as_posix() for path in found]


EVERYTHING = ["a.PNG", "b.jpg", "odd[1].jpg", "sub/c.webp", "sub/d.gif", "sub/deep/e.pgm"]


def test_files_folders_and_their_order(folder: Path) -> None:
    assert expanded(folder, ".") == EVERYTHING
    assert expanded(folder, "sub", "b.jpg", "notes.txt") == [*EVERYTHING[3:], "b.jpg", "notes.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg", "odd[1].jpg"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
        ("*", EVERYTHING),
        ("**", EVERYTHING),
        ("**/*.gif", ["sub/d.gif"]),
        ("*.dat", ["raw.dat"]),
        ("s?b/*", ["sub/c.webp", "sub/d.gif", "sub/deep/e.pgm"]),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    assert expanded(folder, pattern) == expected


def test_a_file_whose_name_looks_like_a_pattern(folder: Path) -> None:
    assert expanded(folder, "odd[1].jpg") == ["odd[1].jpg"]


def test_a_list_on_standard_input(folder: Path) -> None:
    lines = f"{folder}/b.jpg\n\n{folder}/sub\r\n{folder}/missing.jpg\n{folder}/*.jpg"
    assert expanded(folder, "a.PNG", "-", stdin=lines) == [
        "a.PNG",
        "b.jpg",
        *EVERYTHING[3:],
        "missing.jpg",
        "*.jpg",
    ]


def test_what_leads_to_no_picture_is_reported_by_decoding(folder: Path) -> None:
    (folder / "empty").mkdir()
    sources = [str(folder / name) for name in ("missing.jpg", "empty", "*.tiff", "zero\0byte")]
    found = list(expand_sources(sources))
    assert [str(path) for path in found] == sources
    for path in found:
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert str(path) in str(caught.value)


def test_one_bad_source_does_not_hide_the_next(folder: Path) -> None:
    assert expanded(folder, "missing.jpg", "b.jpg") == ["missing.jpg", "b.jpg"]


def test_standard_input_is_read_only_as_needed(folder: Path) -> None:
    def lines() -> Iterator[str]:
        yield f"{folder}/b.jpg\n"
        raise AssertionError("read too far")

    class Stream(io.StringIO):
        def __iter__(self) -> Iterator[str]:  # type: ignore[override]
            return lines()

    assert next(expand_sources(["-"], stdin=Stream())) == folder / "b.jpg"


def test_standard_input_that_is_no_text() -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9.jpg\n"), encoding="utf-8")
    with pytest.raises(DataError, match="standard input"):
        list(expand_sources(["-"], stdin=stdin))


def test_memory_is_flat(folder: Path) -> None:
    class Endless(io.StringIO):
        def __iter__(self) -> Iterator[str]:  # type: ignore[override]
            return (f"{folder}/{index}.jpg\n" for index in itertools.count())

    paths = expand_sources(["-"], stdin=Endless())
    for _ in range(20_000):
        next(paths)
    kept = [each for each in gc.get_objects() if type(each) is type(folder) and each.parent == folder]
    assert len(kept) < 100
