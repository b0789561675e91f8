"""Fetching a file from its published address, so that it is there whole or not at all.

What has arrived is kept beside the target as "<name>.part" and gone on with (HTTP Range), in this process or the
next one. A lock file lets one process fetch while others wait. Nothing is taken for the file before its checksum
is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mobilenet.errors import DownloadError
from mobilenet.files.locks import locked

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and how many there will be, if that is known."""

CHUNK = 2**16
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another try may help
CHECKS = {"sha256": hashlib.sha256, "md5": lambda: hashlib.md5(usedforsecurity=False)}
LEAST_PREFIX = 8  # hexadecimal digits, as torch hub puts into file names


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Args:
        timeout: seconds without a byte after which a connection is given up.
        tries: failures in a row, with nothing new arriving, after which the download is given up.
        most_tries: failures altogether.
        pause: seconds before the second try; each further pause is twice as long.
        longest_pause: in seconds.
        max_bytes: size above which nothing is fetched.
    """

    timeout: float = 20.0
    tries: int = 5
    most_tries: int = 100
    pause: float = 1.0
    longest_pause: float = 30.0
    max_bytes: int = 2**30


class _PassingError(Exception):
    """Something that another try may cure; `pause` is what the server asks for, in seconds."""

    def __init__(self, text: str, pause: float = 0.0) -> None:
        super().__init__(text)
        self.pause = pause


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str = "",
    on_progress: Progress = lambda _done, _total: None,
    patience: Patience = Patience(),
) -> None:
    """Puts the file at `url` to `target`, unless it is there already with the right checksum.

    Args:
        url: http or https. A redirect from https to http is not followed.
        target: its folder is made if it is missing.
        checksum: "sha256:" or "md5:" with hexadecimal digits, of sha256 at least the first 8; empty if none is
            published.
        on_progress: see `Progress`.
        patience: see `Patience`.

    Raises:
        DownloadError: the address cannot be reached or has no such file, the file is too large or is not the one
        that
            was published, or the disk is full. What has arrived is kept unless it is wrong.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: only http and https addresses are fetched")
    if checksum:
        _digits(checksum)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock")):
            if not is_right(target, checksum):
                _Download(url, target, checksum, on_progress, patience).run()
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"{error.filename or target}: {error.strerror or error}") from error


def is_right(path: Path, checksum: str) -> bool:
    """Whether a file is there with this checksum (any content will do for an empty one)."""
    return path.is_file() and (not checksum or digest(path, checksum).startswith(_digits(checksum)))


def digest(path: Path, checksum: str) -> str:
    """The digest of a file, of the kind that the checksum is, in hexadecimal digits."""
    made = CHECKS[checksum.partition(":")[0]]()
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            made.update(chunk)
    return made.hexdigest()


def _digits(checksum: str) -> str:
    kind, _, digits = checksum.partition(":")
    if kind not in CHECKS or len(digits) < LEAST_PREFIX or set(digits) - set("0123456789abcdef"):
        raise DownloadError(f"checksum {checksum!r} is none of {', '.join(CHECKS)}: with lower-case digits")
    return digits


class _Download:
    """One file on its way."""

    def __init__(self, url: str, target: Path, checksum: str, progress: Progress, patience: Patience) -> None:
        self.url, self.target, self.checksum, self.progress = url, target, checksum, progress
        self.patience = patience
        self.part = target.with_name(f"{target.name}.part")
        self.notes = target.with_name(f"{target.name}.part.json")

    def run(self) -> None:
        begun = self._held() > 0
        self._until_whole()
        if begun and not self._is_right():  # what was there before may have been another file's beginning
            self._forget()
            self._until_whole()
        if not self._is_right():
            found = digest(self.part, self.checksum)
            self._forget()
            raise DownloadError(
                f"{self.url}: is not the file that was published: its {self.checksum.partition(':')[0]} is "
                f"{found}, not {_digits(self.checksum)}...; nothing was kept"
            )
        self.part.replace(self.target)
        self.notes.unlink(missing_ok=True)

    def _is_right(self) -> bool:
        return is_right(self.part, self.checksum)

    def _held(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _until_whole(self) -> None:
        """Tries until all has arrived; pauses grow while nothing new does."""
        patience, in_vain = self.patience, 0
        for attempt in range(1, patience.most_tries + 1):
            before = self._held()
            try:
                self._try_once()
                return
            except _PassingError as problem:
                in_vain = 1 if self._held() > before else in_vain + 1
                if in_vain >= patience.tries or attempt == patience.most_tries:
                    raise DownloadError(f"{self.url}: {problem} (after {attempt} tries)") from problem
                pause = patience.pause * 2 ** (in_vain - 1)
                time.sleep(min(max(pause, problem.pause), patience.longest_pause))

    def _try_once(self) -> None:
        """One connection: goes on where the part ends if the server can, else from the start."""
        held = self._held()
        request = urllib.request.Request(
            self.url, headers={"User-Agent": "mobilenet", "Accept-Encoding": "identity"}
        )
        if held:
            request.add_header("Range", f"bytes={held}-")
            if validator := self._known_validator():
                request.add_header("If-Range", validator)
        try:
            with _opener().open(request, timeout=self.patience.timeout) as response:
                self._receive(response, held)
        except urllib.error.HTTPError as error:
            self._refused(error, held)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise _PassingError(f"{urlsplit(self.url).netloc} cannot be reached: {reason}") from error

    def _refused(self, error: urllib.error.HTTPError, held: int) -> None:
        with error:
            if error.code == 416 and held:  # what is there is no beginning of what they have
                self._forget()
                raise _PassingError("the server has less than what had arrived") from error
            text = f"the server answers {error.code} {error.reason}"
            if error.code in PASSING:
                raise _PassingError(text, _seconds(error.headers.get("Retry-After"))) from error
            raise DownloadError(f"{self.url}: {text}") from error

    def _receive(self, response: Any, held: int) -> None:
        goes_on = response.status == 206
        if goes_on and _start_of(response) != held:
            self._forget()
            raise _PassingError("the server sent another part than it was asked for")
        start = held if goes_on else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        self._check_size(total or start)
        self._note_validator(response)
        with self.part.open("ab" if goes_on else "wb") as stream:
            done = self._copy(response, stream, start, total)
        if total is not None and done < total:
            raise _PassingError(f"the connection ended after {done:,} of {total:,} bytes")

    def _copy(self, response: Any, stream: IO[bytes], done: int, total: int | None) -> int:
        self.progress(done, total)
        while chunk := response.read1(CHUNK):
            done += len(chunk)
            self._check_size(done)
            stream.write(chunk)
            self.progress(done, total)
        stream.flush()
        os.fsync(stream.fileno())
        return done

    def _check_size(self, size: int) -> None:
        if size > self.patience.max_bytes:
            self._forget()
            raise DownloadError(
                f"{self.url}: has {size:,} bytes or more; at most {self.patience.max_bytes:,} are fetched"
            )

    def _known_validator(self) -> str:
        """What the server called the file whose part is held."""
        with contextlib.suppress(OSError, ValueError):
            notes = json.loads(self.notes.read_text("utf-8"))
            if isinstance(notes, dict) and notes.get("url") == self.url:
                return str(notes.get("validator") or "")
        return ""

    def _note_validator(self, response: Any) -> None:
        tag = response.headers.get("ETag") or ""
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified") or ""
        self.notes.write_text(json.dumps({"url": self.url, "validator": validator}), "utf-8")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as usual, but not from https to what anybody on the way can change."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise DownloadError(f"{req.full_url}: leads to {newurl}, which is not protected; not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SafeRedirects)


def _start_of(response: Any) -> int:
    """Where the part begins that a server sends: "bytes 100-199/200"."""
    said = response.headers.get("Content-Range", "")
    start = said.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdecimal() else -1


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdecimal() else 0.0
