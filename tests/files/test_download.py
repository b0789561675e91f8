"""Downloads from a server on this machine that behaves well, badly, or stops in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenet.errors import DownloadError
from mobilenet.files.download import Patience, fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(timeout=0.5, tries=3, pause=0.01)


@dataclass
class Behaviour:
    """What the server does next, and what it was asked."""

    content: bytes = CONTENT
    tag: str | None = '"one"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    stalls: int = 0  # answers that stop half-way and keep silent
    statuses: list[int] = field(default_factory=list)  # of the next answers
    length: bool = True
    pace: float = 0.0  # seconds between pieces
    redirect: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)  # Range and If-Range


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        does: Behaviour = self.server.behaviour  # type: ignore[attr-defined]
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", does.redirect)
            self.end_headers()
            return
        wanted, condition = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        does.asked.append((wanted, condition))
        if does.statuses and (status := does.statuses.pop(0)) != 200:
            self.send_error(status)
            return
        start = 0
        if wanted and does.ranges and condition in ("", does.tag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(does.content):
                self.send_error(416)
                return
        self._send(does, start)

    def _send(self, does: Behaviour, start: int) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(does.content) - 1}/{len(does.content)}")
        if does.length:
            self.send_header("Content-Length", str(len(does.content) - start))
        if does.tag:
            self.send_header("ETag", does.tag)
        self.end_headers()
        body = does.content[start:]
        if does.cuts:
            body = body[: does.cuts.pop(0)]
        if does.stalls:
            does.stalls -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(1.5)
            return
        for i in range(0, len(body), 20_000):
            self.wfile.write(body[i : i + 20_000])
            time.sleep(does.pace)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is part of the tests."""


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    """The address of a file, and how it is served."""
    running = Server(("127.0.0.1", 0), Handler)
    behaviour = Behaviour()
    running.behaviour = behaviour  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/weights.bin", behaviour
    running.shutdown()
    running.server_close()


def test_a_file_arrives_whole_and_progress_is_told(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, _ = server
    told: list[tuple[int, int | None]] = []
    fetch(url, tmp_path / "deep" / "w.bin", checksum=SHA, on_progress=lambda *now: told.append(now))
    assert (tmp_path / "deep" / "w.bin").read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT)) and told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    assert not list(tmp_path.glob("deep/*.part*"))


def test_what_is_there_is_not_fetched_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    (tmp_path / "w.bin").write_bytes(CONTENT)
    fetch(url, tmp_path / "w.bin", checksum=SHA[: 7 + 8])  # the prefix that torch hub puts into names
    assert does.asked == []


def test_a_file_of_another_checksum_is_replaced(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, _ = server
    (tmp_path / "w.bin").write_bytes(b"old")
    fetch(url, tmp_path / "w.bin", checksum=SHA)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_connections_that_break_off_are_gone_on_with(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.cuts = [100_000, 70_000]
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert does.asked == [("", ""), ("bytes=100000-", '"one"'), ("bytes=170000-", '"one"')]


def test_each_piece_that_arrives_gives_new_patience(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.cuts = [30_000] * 8
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(does.asked) == 9 > QUICK.tries


def test_a_server_that_falls_silent_is_asked_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.stalls = 1
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert does.asked[1] == ("bytes=150000-", '"one"')


def test_a_server_that_refuses_ranges_sends_it_all_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.ranges, does.cuts = False, [100_000]
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_begins_anew(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    (tmp_path / "w.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "w.bin.part.json").write_text(json.dumps({"url": url, "validator": '"older"'}))
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert does.asked == [("bytes=1000-", '"older"')]


@pytest.mark.parametrize("notes", ["", "no json", '{"url": "http://another", "validator": "v"}', "[1]"])
def test_a_wrong_beginning_is_found_by_the_checksum(
    server: tuple[str, Behaviour], tmp_path: Path, notes: str
) -> None:
    url, does = server
    does.tag = None  # nothing by which a server could tell
    (tmp_path / "w.bin.part").write_bytes(b"x" * 1000)
    (tmp_path / "w.bin.part.json").write_text(notes)
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_begins_anew(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    (tmp_path / "w.bin.part").write_bytes(CONTENT + b"more")
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert [asked for asked, _ in does.asked] == [f"bytes={len(CONTENT) + 4}-", ""]


def test_wrong_bytes_are_named_and_not_kept(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.content = b"<html>sign in first</html>"
    with pytest.raises(DownloadError, match=r"not the file that was published: its sha256 is [0-9a-f]{64}, not"):
        fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["w.bin.lock"]


def test_an_md5_is_checked_too(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    right = "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    fetch(url, tmp_path / "w.bin", checksum=right)
    does.content = CONTENT[:-1] + b"?"
    with pytest.raises(DownloadError, match="its md5 is"):
        fetch(url, tmp_path / "other.bin", checksum=right, patience=QUICK)


@pytest.mark.parametrize("status", [404, 403, 401, 410])
def test_a_final_refusal_is_not_repeated(server: tuple[str, Behaviour], tmp_path: Path, status: int) -> None:
    url, does = server
    does.statuses = [status] * 9
    with pytest.raises(DownloadError, match=f"the server answers {status}"):
        fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert len(does.asked) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_refusal_is_repeated(server: tuple[str, Behaviour], tmp_path: Path, status: int) -> None:
    url, does = server
    does.statuses = [status, status]
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    does.statuses = [status] * 9
    with pytest.raises(DownloadError, match=rf"{status} .*\(after 3 tries\)"):
        fetch(url, tmp_path / "other.bin", checksum=SHA, patience=QUICK)


def test_nobody_there_is_said(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    url, _ = server
    closed = url.replace(url.split(":")[2].split("/")[0], "1")  # port 1: nobody listens
    with pytest.raises(DownloadError, match="127.0.0.1:1 cannot be reached: .*refused.*after 3 tries"):
        fetch(closed, tmp_path / "w.bin", checksum=SHA, patience=QUICK)


def test_redirects_are_followed(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.redirect = url
    fetch(url.replace("weights.bin", "elsewhere"), tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["file:///etc/passwd", "http://127.0.0.1:1/"])
def test_redirects_to_nowhere_are_errors(server: tuple[str, Behaviour], tmp_path: Path, to: str) -> None:
    url, does = server
    does.redirect = to
    with pytest.raises(DownloadError):
        fetch(url.replace("weights.bin", "elsewhere"), tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert not (tmp_path / "w.bin").exists()


def test_protected_addresses_do_not_lead_to_open_ones() -> None:
    from urllib.request import Request

    from mobilenet.files.download import _SafeRedirects

    asked = Request("https://example.org/w")
    with pytest.raises(DownloadError, match="not protected"):
        _SafeRedirects().redirect_request(asked, None, 302, "Found", {}, "http://example.org/w")
    assert _SafeRedirects().redirect_request(asked, None, 302, "Found", {}, "https://example.com/w") is not None


@pytest.mark.parametrize("length", [True, False])
def test_a_file_above_the_bound_is_not_kept(server: tuple[str, Behaviour], tmp_path: Path, length: bool) -> None:
    url, does = server
    does.length = length
    few = Patience(timeout=0.5, tries=2, pause=0.01, max_bytes=100_000)
    with pytest.raises(DownloadError, match="at most 100,000 are fetched"):
        fetch(url, tmp_path / "w.bin", checksum=SHA, patience=few)
    assert not (tmp_path / "w.bin.part").exists()


def test_a_length_that_is_not_told_is_no_harm(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.length = False
    told: list[tuple[int, int | None]] = []
    fetch(url, tmp_path / "w.bin", checksum=SHA, on_progress=lambda *now: told.append(now))
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), None)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/w", "weights.bin"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="only http and https"):
        fetch(url, tmp_path / "w.bin")


@pytest.mark.parametrize("checksum", ["sha256:abc", "crc:0011223344", "sha256:ABCDEF0123456789", "0123456789"])
def test_a_checksum_that_checks_nothing_is_refused(
    server: tuple[str, Behaviour], tmp_path: Path, checksum: str
) -> None:
    with pytest.raises(DownloadError, match="checksum"):
        fetch(server[0], tmp_path / "w.bin", checksum=checksum, patience=QUICK)
    assert not (tmp_path / "w.bin").exists()


def test_a_folder_that_cannot_be_written_is_said(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="file"):
        fetch(server[0], tmp_path / "file" / "w.bin", checksum=SHA)


FETCH = """
import sys
from pathlib import Path
from mobilenet.files.download import Patience, fetch
fetch(sys.argv[1], Path(sys.argv[2]), checksum=sys.argv[3], patience=Patience(timeout=5, tries=3, pause=0.01))
"""


def start(url: str, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FETCH, url, str(target), SHA], env={**os.environ})


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_download_is_gone_on_with(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.pace = 0.1
    part = tmp_path / "w.bin.part"
    child = start(url, tmp_path / "w.bin")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= 40_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    held = part.stat().st_size
    assert 0 < held < len(CONTENT) and not (tmp_path / "w.bin").exists()
    does.pace = 0
    fetch(url, tmp_path / "w.bin", checksum=SHA, patience=QUICK)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert does.asked[-1] == (f"bytes={held}-", '"one"')


def test_two_processes_fetch_it_once(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.pace = 0.02
    children = [start(url, tmp_path / "w.bin") for _ in range(2)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(does.asked) == 1


def test_two_threads_fetch_it_once(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.pace = 0.01
    threads = [threading.Thread(target=fetch, args=(url, tmp_path / "w.bin")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (tmp_path / "w.bin").read_bytes() == CONTENT
    assert len(does.asked) == 1
