"""The table of published weights, and the way from a name to a model file, by a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

import mobilenet
from mobilenet.cli import app
from mobilenet.errors import ArgumentError, DownloadError, ModelFileError
from mobilenet.family.names import build, resolve
from mobilenet.files import pull as pulling
from mobilenet.files.download import Patience
from mobilenet.files.imports.bundle import Hints
from mobilenet.files.imports.recognise import recognise
from mobilenet.files.imports.sources import Ends, candidates
from mobilenet.files.model_file import read_model_file
from mobilenet.files.published import PIXELS, Published, find_published, published

QUICK = Patience(timeout=0.5, tries=2, pause=0.01)
NAME = "timm/mobilenetv3_small_050.test"


def checkpoint(classes: int = 1000) -> bytes:
    """A .safetensors file with the tensors of timm's mobilenetv3_small_050, random."""
    candidate = next(c for c in candidates("torch") if c.name == "mobilenetv3_small")
    generator = np.random.default_rng(0)
    graph = candidate.graph(0.5, Ends(classes=classes))
    tensors = {}
    for ours, wanted in candidate.wanted(graph).items():
        values = generator.normal(0, 0.1, wanted.shapes[0]).astype(np.float32)
        tensors[wanted.name] = np.abs(values) + 0.5 if ours.endswith(("variance", "gamma")) else values
    return save(tensors)


FILE = checkpoint()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body: bytes = self.server.content  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.asked, running.content = [], FILE  # type: ignore[attr-defined]
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def row(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A row whose address is the server's, and a cache of its own."""
    monkeypatch.setenv("MOBILENET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MOBILENET_OFFLINE", raising=False)
    made = replace(
        published()["timm/mobilenetv3_small_050.lamb_in1k"],
        name=NAME,
        url=f"http://127.0.0.1:{server.server_port}/w.safetensors",
        checksum="sha256:" + hashlib.sha256(FILE).hexdigest()[:8],
    )
    rows = {**published(), NAME: made}
    monkeypatch.setattr("mobilenet.files.published.published", lambda: rows)
    monkeypatch.setattr(pulling, "published", lambda: rows)
    return made


def given(row: Published, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Published:
    changed = replace(row, **changes)
    monkeypatch.setattr("mobilenet.files.published.published", lambda: {**published(), NAME: changed})
    return changed


def test_the_table_is_sound() -> None:
    rows = published()
    assert len(rows) > 100
    assert len({row.url for row in rows.values()}) == len({row.file_name for row in rows.values()}) == len(rows)
    for name, row in rows.items():
        assert row.name == name and row.url.startswith("https://"), name
        assert row.pixels in PIXELS and 0.8 < row.crop_fraction <= 1, name
        assert row.top1 is None or 30 < row.top1 < 90, name
        assert row.classes in (1000, 11221, 11821), name
        assert not row.checksum or row.checksum.partition(":")[0] in ("sha256", "md5"), name
        spec = resolve(row.network)
        assert spec.width_named != (row.width_multiplier is not None) or not spec.width_named, name


def test_every_row_is_a_network_of_the_family() -> None:
    for row in pulling.listing():
        assert row["parameters"] > 100_000 and row["megabytes"] * 1e6 >= row["parameters"] * 4, row["name"]


def test_the_importers_recognise_every_row() -> None:
    """By the names and shapes that such a file has; the row's name settles what tensors leave open."""
    for row in published().values():
        spec = resolve(row.network)
        layout = "keras" if row.source == "keras" else "torch"
        candidate = next(c for c in candidates(layout) if (c.table, c.dialect) == (spec.name, spec.dialect))
        width = row.width_multiplier or spec.width_multiplier
        graph = candidate.graph(width, Ends(classes=row.classes))
        shapes = {wanted.name: wanted.shapes[0] for wanted in candidate.wanted(graph).values()}
        match = recognise(shapes, layout, Hints(), pulling._said_name(row))
        assert (match.candidate.table, match.candidate.dialect) == (spec.name, spec.dialect), row.name
        assert match.candidate.graph(match.width_multiplier, match.ends) == graph, row.name


def test_the_table_agrees_with_the_reference(shared: Path) -> None:
    facts = json.loads((shared / "reference" / "weight_sources.json").read_text("utf-8"))
    rows = {row.url: row for row in published().values()}
    for fact in facts["torchvision"]:
        if fact["url"] in rows:
            row = rows[fact["url"]]
            assert row.checksum == f"sha256:{fact['sha256_prefix8']}"
            assert row.top1 == fact["metrics"]["ImageNet-1K"]["acc@1"]
            listed = next(r for r in pulling.listing() if r["name"] == row.name)
            assert listed["parameters"] == fact["num_params"]
    for fact in facts["keras_v3"]:
        assert rows[fact["url"]].checksum == f"md5:{fact['md5']}"
    for name, fact in facts["timm"]["models"].items():
        row = published()[f"timm/{name}"]
        assert (row.classes, row.resolution) == (fact["num_classes"], fact["input_size"][1])
        assert (row.crop_fraction, row.interpolation) == (fact["crop_pct"], fact["interpolation"])
        assert PIXELS[row.pixels][0] == pytest.approx([255 * v for v in fact["mean"]])
        assert PIXELS[row.pixels][1] == pytest.approx([255 * v for v in fact["std"]])


def test_a_name_becomes_a_model_file(row: Published, server: ThreadingHTTPServer) -> None:
    path = pulling.pull(NAME)
    assert path == Path(os.environ["MOBILENET_HOME"]) / "models" / "timm--mobilenetv3_small_050.test.safetensors"
    contents = read_model_file(path)
    assert contents.licence == "Apache-2.0"
    assert contents.metrics["top1"] == pytest.approx(0.57918)
    assert contents.provenance["published"] == NAME and contents.provenance["url"] == row.url
    rule = contents.preprocessing
    assert rule is not None
    assert (rule.height, rule.crop_fraction, rule.interpolation) == (224, 0.875, "bicubic")
    assert contents.checks, "the file can prove itself in other runtimes"
    assert pulling.pull(NAME) == path
    assert server.asked == ["/w.safetensors"]  # type: ignore[attr-defined]
    assert not list((path.parents[1] / "downloads").glob("*.safetensors")), "the download is not kept twice"


def test_several_at_once_fetch_it_once(row: Published, server: ThreadingHTTPServer) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(pulling.pull(NAME))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [pulling.cached_path(row)] * 3
    assert server.asked == ["/w.safetensors"]  # type: ignore[attr-defined]
    read_model_file(found[0])


def test_load_and_info_take_the_name(row: Published, tmp_path: Path) -> None:
    model = mobilenet.load("mobilenetv3_small_050.test")
    assert model.graph.types[model.graph.outputs["logits"]].shape == (1000,)
    np.testing.assert_array_equal(
        model.weights["stem.conv.weight"], mobilenet.load(pulling.pull(NAME)).weights["stem.conv.weight"]
    )
    told = CliRunner().invoke(app, ["info", NAME, "--json"])
    assert json.loads(told.stdout)["bytes"] == pulling.pull(NAME).stat().st_size


def test_a_path_comes_before_a_name(row: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(ModelFileError):
        mobilenet.load(NAME)
    assert pulling.find_weights(NAME, "--pretrained") == Path(NAME)


@pytest.mark.parametrize("by", ["option", "environment"])
def test_offline_says_what_to_do(
    row: Published, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("MOBILENET_OFFLINE", "1")
    with pytest.raises(DownloadError) as caught:
        pulling.pull(NAME, offline=by == "option")
    place = Path(os.environ["MOBILENET_HOME"]) / "downloads" / row.file_name
    assert row.url in str(caught.value) and str(place) in str(caught.value)
    assert server.asked == []  # type: ignore[attr-defined]
    place.parent.mkdir(parents=True)
    place.write_bytes(FILE)  # and doing so helps
    assert pulling.pull(NAME, offline=by == "option").is_file()


def test_without_a_network_it_says_what_to_do(row: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = given(row, monkeypatch, url="http://127.0.0.1:1/w.safetensors")
    with pytest.raises(
        DownloadError, match=r"cannot be reached.*fetch http://127.0.0.1:1/w.*put it at .*downloads"
    ):
        pulling.pull(NAME, patience=QUICK)
    assert not pulling.cached_path(closed).exists()


def test_another_file_at_the_address_is_not_taken(row: Published, server: ThreadingHTTPServer) -> None:
    server.content = checkpoint(classes=7)  # type: ignore[attr-defined]
    with pytest.raises(DownloadError, match="not the file that was published"):
        pulling.pull(NAME, patience=QUICK)
    assert not pulling.cached_path(row).exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (checkpoint(classes=7), "has 7 classes, not 1000"),
        (b"<html>", "of no kind"),
        (FILE[:-100], "damaged|truncated"),
    ],
    ids=["classes", "page", "truncated"],
)
def test_where_no_checksum_is_published_the_importer_checks(
    row: Published, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, content: bytes, match: str
) -> None:
    given(row, monkeypatch, checksum="")
    server.content = content  # type: ignore[attr-defined]
    with pytest.raises(ModelFileError, match=match):
        pulling.pull(NAME, patience=QUICK)
    assert not pulling.cached_path(row).exists()
    server.content = FILE  # type: ignore[attr-defined]
    assert pulling.pull(NAME, patience=QUICK).is_file(), "what was wrong is not kept"


def test_an_unknown_name_names_those_that_are_near() -> None:
    with pytest.raises(ArgumentError, match=r"did you mean timm/mobilenetv2_100\.ra_in1k"):
        pulling.pull("timm/mobilenetv2_100.ra_in1")
    with pytest.raises(ArgumentError, match="list --pretrained"):
        pulling.pull("")


def test_short_names_are_understood_where_one_row_has_them() -> None:
    found = find_published("mobilenetv2_100.ra_in1k")
    assert found is not None and found.name == "timm/mobilenetv2_100.ra_in1k"
    assert find_published("mobilenet_v2_1.0_224") is None, "both Keras and d-li14 have it"


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOBILENET_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert pulling.cache_folder() == tmp_path / "mobilenet"
    monkeypatch.setenv("MOBILENET_HOME", str(tmp_path / "own"))
    assert pulling.cache_folder() == tmp_path / "own"
    assert pulling.cache_folder("given") == Path("given")


def test_a_cache_that_cannot_be_written_is_said(row: Published, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="file"):
        pulling.pull(NAME, cache=tmp_path / "file" / "cache")


def test_the_listing_is_complete(row: Published) -> None:
    listed = {values["name"]: values for values in pulling.listing()}
    assert listed[NAME]["cached"] is False
    pulling.pull(NAME)
    values = next(v for v in pulling.listing() if v["name"] == NAME)
    assert values["cached"] is True
    size = pulling.cached_path(row).stat().st_size
    assert values["megabytes"] == pytest.approx(size / 1e6, rel=0.05)
    assert values["parameters"] == sum(
        int(np.prod(p.shape)) for p in build("timm/mobilenetv3_small_050").parameters().values() if p.trainable
    )
