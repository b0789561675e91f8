"""An index of a folder: incremental, resumable, and never silently wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mobilenet
from mobilenet.cli import app
from mobilenet.errors import ArgumentError, DataError, ImageError, IndexFileError
from mobilenet.model import Model
from mobilenet.search import build, neighbours
from mobilenet.search.build import update_index
from mobilenet.search.log import LogFile, Writer
from mobilenet.search.page import write_page, write_sheet
from mobilenet.search.records import PICTURE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    mobilenet.create("mobilenet_v1", width_multiplier=0.25, resolution=32, classes=2).save(
        folder / "m.safetensors"
    )
    return mobilenet.load(folder / "m.safetensors", threads=1)


@pytest.fixture(scope="module")
def other_model() -> Model:
    return mobilenet.create("mobilenet_v1", width_multiplier=0.25, resolution=32, classes=2, seed=1)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Twelve pictures in two folders, and a file that is none."""
    for number in range(12):
        paint(tmp_path / "shop" / ("a" if number % 2 else "b") / f"{number}.png", number)
    (tmp_path / "shop" / "notes.txt").write_text("not a picture")
    return tmp_path / "shop"


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(path)


def names(path: Path) -> set[str]:
    return set(mobilenet.open_index(path))


def test_every_picture_finds_itself_first_and_the_order_is_that_of_the_cosines(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    outcome = update_index(model, shop, target)
    assert (outcome.pictures, outcome.added, outcome.embedded, outcome.bad) == (12, 12, 12, [])
    index = mobilenet.open_index(target)
    assert len(index) == 12
    assert index.done
    assert not index.approximate
    vectors = {path: model.embed(path) for path in shop.rglob("*.png")}
    for path, vector in vectors.items():
        found = index.search(path, top=20)
        assert len(found) == 12
        assert found[0].path == str(path)
        assert found[0].similarity == pytest.approx(1.0, abs=2e-3)
        cosines = {
            str(p): float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector)) for p, v in vectors.items()
        }
        np.testing.assert_allclose(
            [one.similarity for one in found], [cosines[one.path] for one in found], atol=2e-3
        )
        assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
    assert index.search_vector(vectors[path] * 7.0, 1) == index.search(path, 1)


def test_only_what_is_new_or_changed_is_embedded(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    before = (target / "log").read_bytes()
    again = update_index(model, shop, target)
    assert (again.unchanged, again.embedded, again.added) == (12, 0, 0)
    assert (target / "log").read_bytes() == before  # nothing happened, so nothing is written

    paint(shop / "new.png", 99)
    paint(shop / "a" / "1.png", 98)  # changed
    os.utime(shop / "b" / "0.png", ns=(1, 1))  # touched only: its bytes are known
    (shop / "b" / "2.png").rename(shop / "moved.png")
    (shop / "b" / "4.png").unlink()
    third = update_index(model, shop, target)
    assert third.embedded == 2
    assert (third.added, third.changed, third.removed, third.unchanged) == (2, 2, 2, 8)
    assert names(target) == {path.relative_to(shop).as_posix() for path in shop.rglob("*.png")}
    found = mobilenet.open_index(target).search(shop / "a" / "1.png", 1)
    assert found[0].name == "a/1.png"
    assert found[0].similarity == pytest.approx(1.0, abs=2e-3)


def test_bad_pictures_are_named_and_looked_at_again_when_they_change(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    (shop / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (shop / "void.png").write_bytes(b"")
    (shop / "nowhere.png").symlink_to(shop / "gone")
    outcome = update_index(model, shop, target)
    assert outcome.pictures == 12
    assert sorted(Path(reason.split(":")[0]).name for reason in outcome.bad) == [
        "broken.jpg",
        "nowhere.png",
        "void.png",
    ]
    second = update_index(model, shop, target)
    assert (second.unchanged, len(second.bad)) == (15, 3)
    paint(shop / "void.png", 50)
    third = update_index(model, shop, target)
    assert (third.pictures, len(third.bad), third.embedded) == (13, 2, 1)


def test_nothing_to_index_leaves_everything_as_it_is(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    (shop.parent / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(DataError, match=folder):
            update_index(model, shop.parent / folder, target)
        assert not target.exists()
    update_index(model, shop, target)
    shutil.rmtree(shop)
    shop.mkdir()  # a disk that is not mounted
    with pytest.raises(DataError, match="left as it is"):
        update_index(model, shop, target)
    assert len(mobilenet.open_index(target)) == 12


def test_an_index_of_another_model_is_an_error_until_it_is_rebuilt(
    shop: Path, model: Model, other_model: Model
) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    with pytest.raises(IndexFileError, match="another model.*--rebuild"):
        update_index(other_model, shop, target)
    with pytest.raises(IndexFileError, match="another model"):
        mobilenet.open_index(target, model=other_model).search(shop / "a" / "1.png")
    other_model.save(target / "model.safetensors")
    with pytest.raises(IndexFileError, match=r"model\.safetensors"):
        mobilenet.open_index(target).search(shop / "a" / "1.png")
    assert update_index(other_model, shop, target, rebuild=True).embedded == 12
    assert mobilenet.open_index(target).search(shop / "a" / "1.png", 1)[0].name == "a/1.png"


def test_labels_and_taught_classes_do_not_make_another_model(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    taught = model.teach("thing", [shop / "a" / "1.png", shop / "a" / "3.png"])
    assert update_index(taught, shop, target).unchanged == 12


def test_another_folder_is_an_error_and_a_moved_one_costs_nothing(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    moved = shop.rename(shop.parent / "moved")
    with pytest.raises(IndexFileError, match="is of the pictures in"):
        update_index(model, moved, target)
    outcome = update_index(model, moved, target, rebuild=True)
    assert (outcome.pictures, outcome.embedded) == (12, 0)
    assert mobilenet.open_index(target).search(moved / "a" / "1.png", 1)[0].path == str(moved / "a" / "1.png")


def test_a_log_cut_anywhere_is_gone_on_with(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    whole = (target / "log").read_bytes()
    header = LogFile(target / "log").begin
    for size in [*range(header, len(whole), 797), len(whole) - 1]:
        (target / "log").write_bytes(whole[:size])
        index = mobilenet.open_index(target)
        assert not index.done
        outcome = update_index(model, shop, target)
        assert outcome.pictures == 12
        assert outcome.embedded == 12 - len(index)
        assert mobilenet.open_index(target).done
    (target / "log").write_bytes(whole + bytes(5000))  # what a power cut may leave
    assert update_index(model, shop, target).unchanged == 12
    assert len((target / "log").read_bytes()) < len(whole) + 100


def test_a_log_cut_in_its_header_is_damaged(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    whole = (target / "log").read_bytes()
    for size in (0, 3, 8, 20, LogFile(target / "log").begin - 1):
        (target / "log").write_bytes(whole[:size])
        with pytest.raises(IndexFileError, match="--rebuild"):
            mobilenet.open_index(target)
        with pytest.raises(IndexFileError, match="--rebuild"):
            update_index(model, shop, target)
    assert update_index(model, shop, target, rebuild=True).pictures == 12


def test_one_flipped_bit_is_found_wherever_it_is_and_rebuilding_keeps_the_rest(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    whole = (target / "log").read_bytes()
    last = len(whole) - 29  # the record that says that all is done: without it the run is merely unfinished
    for place in range(0, last, 97):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (target / "log").write_bytes(damaged)
        with pytest.raises(IndexFileError, match="--rebuild"):
            mobilenet.open_index(target)
    outcome = update_index(model, shop, target, rebuild=True)
    assert (outcome.pictures, outcome.embedded) == (12, 1)
    assert len(mobilenet.open_index(target)) == 12


def test_random_damage_is_an_error_or_an_unfinished_index_and_never_a_crash(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    whole = (target / "log").read_bytes()
    generator = np.random.default_rng(0)
    expected = names(target)
    for _ in range(30):
        damaged = bytearray(whole)
        start = int(generator.integers(len(whole)))
        length = int(generator.integers(1, 400))
        kind = generator.integers(3)
        if kind == 0:
            damaged[start : start + length] = generator.bytes(length)
        elif kind == 1:
            del damaged[start : start + length]
        else:
            damaged[start:start] = damaged[start : start + length]
        (target / "log").write_bytes(damaged)
        try:
            index = mobilenet.open_index(target)
            assert set(index) <= expected
            assert not index.done or set(index) == expected
        except IndexFileError:
            pass
        assert update_index(model, shop, target, rebuild=True).pictures == 12


def test_a_valid_record_that_makes_no_sense_is_an_error(shop: Path, model: Model) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    end = LogFile(target / "log").read().end
    for kind, payload, message in ((PICTURE, b"x", "too short"), (99, b"", "kind 99"), (4, b"123", "number")):
        with Writer(target / "log", end) as writer:
            writer.append(kind, payload)
        with pytest.raises(IndexFileError, match=message):
            mobilenet.open_index(target)


def test_a_full_disk_keeps_what_is_there(shop: Path, model: Model) -> None:
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX's")
    target = shop.parent / "i"
    update_index(model, shop, target)
    size = (target / "log").stat().st_size
    for number in range(100, 104):
        paint(shop / f"{number}.png", number)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 900, before[1]))
    try:
        with pytest.raises(OSError, match="log") as caught:
            update_index(model, shop, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert (target / "log").stat().st_size == size
    assert len(mobilenet.open_index(target)) == 12
    assert update_index(model, shop, target).pictures == 16


def test_killed_while_indexing_it_goes_on(shop: Path, model: Model) -> None:
    for number in range(100, 400):
        paint(shop / f"{number}.png", number)
    target = shop.parent / "i"
    model.save(shop.parent / "m.safetensors")
    program = (
        "import sys, mobilenet; from mobilenet.search import build; build.SYNC_SECONDS = 0.0; "
        "m = mobilenet.load(sys.argv[1], threads=1); build.update_index(m, sys.argv[2], sys.argv[3])"
    )
    words = [sys.executable, "-c", program, str(shop.parent / "m.safetensors"), str(shop), str(target)]
    child = subprocess.Popen(words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if (target / "log").exists() and (target / "log").stat().st_size > 8000:
            break
        time.sleep(0.002)
    child.kill()
    child.wait()
    index = mobilenet.open_index(target)
    there = len(index)
    assert there > 3
    outcome = update_index(model, shop, target)
    assert outcome.pictures == 312
    assert outcome.embedded == 312 - there
    assert outcome.resumed == (not index.done)


def test_two_writers_at_once_are_one_too_many(shop: Path, model: Model) -> None:
    from mobilenet.files.locks import locked

    target = shop.parent / "i"
    update_index(model, shop, target)
    with locked(target / "lock"), pytest.raises(IndexFileError, match="another process"):
        update_index(model, shop, target)
    update_index(model, shop, target)


def test_what_is_no_index_is_not_written_over(shop: Path, model: Model) -> None:
    with pytest.raises(ArgumentError, match="other things"):
        update_index(model, shop, shop)
    with pytest.raises(ArgumentError, match="is a file"):
        update_index(model, shop, shop / "notes.txt")
    with pytest.raises(IndexFileError, match="there is no index"):
        mobilenet.open_index(shop.parent / "nowhere")


def test_a_bad_query_is_an_error(shop: Path, model: Model) -> None:
    update_index(model, shop, shop.parent / "i")
    index = mobilenet.open_index(shop.parent / "i")
    with pytest.raises(ImageError, match=r"notes\.txt"):
        index.search(shop / "notes.txt")
    with pytest.raises(ArgumentError, match="top"):
        index.search(shop / "a" / "1.png", 0)
    for vector in (np.zeros(index.dimension), np.ones(3), np.full(index.dimension, np.nan)):
        with pytest.raises(ArgumentError, match="query"):
            index.search_vector(vector.astype(np.float32))


def test_a_log_of_mostly_removed_records_is_written_anew(
    shop: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    size = (target / "log").stat().st_size
    monkeypatch.setattr(build, "_worth_compacting", lambda log, contents: True)
    for path in sorted(shop.rglob("*.png"))[:8]:
        path.unlink()
    assert update_index(model, shop, target).pictures == 4
    assert (target / "log").stat().st_size < size / 2
    index = mobilenet.open_index(target)
    assert index.done
    assert set(index) == {path.relative_to(shop).as_posix() for path in shop.rglob("*.png")}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs from the fifth picture on."""
    pytest.importorskip("usearch", reason="usearch is not installed: pip install 'mobilenet[search]'")
    monkeypatch.setattr(build, "EXACT_BELOW", 5)
    yield


def test_a_graph_finds_what_comparing_finds_and_follows_the_folder(shop: Path, model: Model, graphs: None) -> None:
    target = shop.parent / "i"
    assert update_index(model, shop, target).approximate
    index = mobilenet.open_index(target)
    assert index.approximate
    query = shop / "a" / "3.png"
    by_graph = index.search(query, 12)
    neighbours.drop(target)
    one_by_one = mobilenet.open_index(target).search(query, 12)
    assert [one.name for one in by_graph] == [one.name for one in one_by_one]
    update_index(model, shop, target)

    (shop / "a" / "3.png").unlink()
    paint(shop / "new.png", 77)
    outcome = update_index(model, shop, target)
    assert outcome.approximate
    found = mobilenet.open_index(target).search(shop / "new.png", 20)
    assert {one.name for one in found} == {path.relative_to(shop).as_posix() for path in shop.rglob("*.png")}
    assert found[0].name == "new.png"
    assert json.loads((target / "vectors.json").read_text())["removed"] == 1


def test_a_graph_that_is_behind_is_helped_out_by_the_log(shop: Path, model: Model, graphs: None) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    kept = {name: (target / name).read_bytes() for name in ("vectors.json", "vectors.usearch")}
    (shop / "a" / "3.png").unlink()
    paint(shop / "new.png", 77)
    update_index(model, shop, target)
    for name, data in kept.items():  # as if killed before the graph was written
        (target / name).write_bytes(data)
    index = mobilenet.open_index(target)
    assert index.approximate
    assert len(index) == 12
    found = index.search(shop / "new.png", 20)
    assert {one.name for one in found} == {path.relative_to(shop).as_posix() for path in shop.rglob("*.png")}
    assert found[0].name == "new.png"


@pytest.mark.parametrize("name", ["vectors.usearch", "vectors.json"])
def test_a_damaged_graph_is_never_trusted(shop: Path, model: Model, graphs: None, name: str) -> None:
    target = shop.parent / "i"
    update_index(model, shop, target)
    whole = (target / name).read_bytes()
    for damaged in (whole[:-7], b"", whole[:20] + bytes(30) + whole[50:], b"[1]", b"{}"):
        (target / name).write_bytes(damaged)
        index = mobilenet.open_index(target)
        assert not index.approximate
        assert len(index.search(shop / "a" / "1.png", 20)) == 12
    assert update_index(model, shop, target).approximate
    assert mobilenet.open_index(target).approximate


def test_many_pictures_without_usearch_are_said_to_be_compared_one_by_one(
    shop: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "EXACT_BELOW", 5)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    outcome = update_index(model, shop, shop.parent / "i")
    assert "mobilenet[search]" in outcome.note
    assert len(mobilenet.open_index(shop.parent / "i").search(shop / "a" / "1.png", 20)) == 12


def test_the_verbs(shop: Path, model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    (shop / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    words = ["index", str(tmp_path / "m.safetensors"), str(shop), "-o", str(tmp_path / "i")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "12 pictures (12 new" in done.stdout
    assert "broken.jpg" in done.stderr
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["unchanged"] == 13
    query = str(shop / "a" / "1.png")
    page = tmp_path / "out.html"
    done = CliRunner().invoke(app, ["search", str(tmp_path / "i"), query, "--top", "3", "--html", str(page)])
    assert done.stdout.splitlines()[0].split()[1] == query
    assert len(done.stdout.splitlines()) == 3
    assert page.read_text().count("data:image/jpeg;base64") == 4
    found = json.loads(CliRunner().invoke(app, ["search", str(tmp_path / "i"), query, "--json"]).stdout)
    assert len(found["matches"]) == 10
    assert found["matches"][0]["name"] == "a/1.png"
    assert isinstance(CliRunner().invoke(app, ["search", str(tmp_path), query]).exception, IndexFileError)


def test_a_name_that_is_html_stays_text(shop: Path, model: Model, tmp_path: Path) -> None:
    paint(shop / "<b>&.png", 5)
    update_index(model, shop, tmp_path / "i")
    found = mobilenet.open_index(tmp_path / "i").search(shop / "<b>&.png", 2)
    (shop / found[1].name).unlink()
    write_page(str(tmp_path / "o.html"), str(shop / "<b>&.png"), found, "i")
    text = (tmp_path / "o.html").read_text()
    assert "<b>&.png" not in text
    assert "&lt;b&gt;&amp;.png" in text
    assert "cannot be read any more" in text


def test_what_was_found_is_drawn(shop: Path, model: Model, tmp_path: Path) -> None:
    update_index(model, shop, tmp_path / "i")
    target = tmp_path / "o.png"
    words = ["search", str(tmp_path / "i"), str(shop / "a" / "1.png"), "--save", str(target), "--top"]
    widths = []
    for top in ("1", "3", "10"):
        assert CliRunner().invoke(app, [*words, top]).exit_code == 0
        widths.append(pixels(target).shape[1])
    assert widths[0] < widths[1] < widths[2]
    found = mobilenet.open_index(tmp_path / "i").search(shop / "a" / "1.png", 10)
    whole = pixels(target)
    (shop / found[1].name).unlink()
    write_sheet(str(target), str(shop / "a" / "1.png"), found)
    rows, columns = np.nonzero((pixels(target) != whole).any(axis=2))  # one field is grey now
    assert 0 < np.ptp(rows) < 150 and 0 < np.ptp(columns) < 150
    with pytest.raises(ArgumentError, match="nothing was found"):
        write_sheet(str(target), str(shop / "a" / "1.png"), [])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened).astype(int)
