"""Making an index of a folder of pictures, and bringing it up to date: only what is new or changed is embedded."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilenet.errors import ArgumentError, IndexFileError, MissingExtraError
from mobilenet.files.locks import locked
from mobilenet.files.model_file import write_model_file
from mobilenet.search import neighbours, records
from mobilenet.search.folder import Changes, compare, digest, picture_path
from mobilenet.search.index import LOG, MODEL
from mobilenet.search.log import REBUILD, Contents, LogFile, Writer, salvage
from mobilenet.search.model import dimension, embedder, fingerprint
from mobilenet.search.nearest import EXACT_BELOW, unit
from mobilenet.search.records import BadEntry, Entry, Header, State

if TYPE_CHECKING:
    from mobilenet.model import Answer, Model

LOCK = "lock"
SYNC_SECONDS = 2.0  # of work that a kill may cost
REMOVED_SHARE = 0.5  # with more removed records than that the log is written anew
OURS = {LOG, MODEL, LOCK, f"{LOG}.new", neighbours.GRAPH, neighbours.STATE}

Progress = Callable[[int, int], None]


@dataclass
class Outcome:
    """What a run did, in numbers of pictures.

    Attributes:
        pictures: in the index now.
        added, changed, removed, unchanged: since the last run.
        embedded: that had to be: not those with bytes that the index knew already, under whatever name.
        bad: files that are no pictures, each with the reason; they are looked at again when they change.
        resumed: whether the last run had not come to its end.
        approximate: whether search uses a graph.
        note: what else should be known, or "".
    """

    pictures: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    embedded: int = 0
    bad: list[str] = field(default_factory=list)
    resumed: bool = False
    approximate: bool = False
    note: str = ""


def update_index(
    model: Model,
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    rebuild: bool = False,
    on_progress: Progress | None = None,
) -> Outcome:
    """Makes the index at `path` of the pictures in `folder`, at any depth, or brings it up to date.

    A picture is embedded if it is new or its size or time of change is another, and no record has its bytes.
    Killed at any moment, the next run goes on where the last one was a few seconds before.

    Args:
        model: any model with an output "embedding".
        folder: the pictures.
        path: the index, a folder of its own; it may not exist yet.
        rebuild: write the index anew. Vectors of what is whole in the old one, and of the same model, are kept.
        on_progress: is called with (pictures done, pictures that are new or look changed).

    Raises:
        DataError: the folder is missing or has no pictures; the index is left as it is.
        IndexFileError: the index is damaged, of another model or of another folder, or in use.
        ArgumentError: the model has no embedding, or `path` is something else than an index.
        OSError: the disk is full, or the like; what was written before is kept.
    """
    root, target = Path(folder), Path(path)
    made = embedder(model)
    header = Header(uuid.uuid4().hex, fingerprint(made), dimension(made), str(root.resolve()))
    _check_target(target)
    if not (target / LOG).exists():
        compare(root, Contents())  # before anything is written
        target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(target / LOCK, wait=False))
        except BlockingIOError as error:
            raise IndexFileError(f"{target}: another process is writing this index; wait for it") from error
        begun = _begin(target, header, made, rebuild)
        return _update(made, root, target, begun, on_progress)


@dataclass
class _Begun:
    """A log that is ready to be added to."""

    log: LogFile
    contents: Contents
    resumed: bool


def _check_target(target: Path) -> None:
    if target.is_dir():
        strangers = [path.name for path in target.iterdir() if path.name not in OURS and path.name[:1] != "."]
        if strangers:
            raise ArgumentError(f"{target}: is a folder with other things in it ({strangers[0]}), not an index")
    elif target.exists():
        raise ArgumentError(f"{target}: is a file; an index is a folder of its own")


def _begin(target: Path, header: Header, made: Model, rebuild: bool) -> _Begun:
    log_path = target / LOG
    if rebuild or not log_path.exists():
        kept = _kept(log_path, header)
        neighbours.drop(target)
        write_model_file(made, target / MODEL)
        _write_log(target, header, kept)
    log = LogFile(log_path)
    _check_same(log, header, target)
    contents = log.read()
    return _Begun(
        log, contents, resumed=bool(contents.torn) or not (contents.done or rebuild or _is_new(contents))
    )


def _is_new(contents: Contents) -> bool:
    return not contents.pictures and not contents.bad


def _kept(log_path: Path, header: Header) -> Contents:
    """What can be used again of an old log, if there is one and it is of the same model."""
    if not log_path.exists():
        return Contents()
    found = salvage(log_path)
    old = found.header
    return found if old and old[1:3] == header[1:3] else Contents()


def _check_same(log: LogFile, header: Header, target: Path) -> None:
    if log.header[1:3] != header[1:3]:
        raise IndexFileError(
            f"{target}: was made by another model; index into another folder, or add --rebuild to replace it"
        )
    if log.header.root != header.root:
        raise IndexFileError(
            f"{target}: is of the pictures in {log.header.root}, not of those in {header.root}; "
            "index into another folder, or, if they have moved, add --rebuild: no picture is embedded twice"
        )


def _write_log(target: Path, header: Header, contents: Contents) -> None:
    """A log of these entries in place of whatever was there."""
    fresh = target / f"{LOG}.new"
    fresh.unlink(missing_ok=True)
    try:
        with Writer(fresh) as writer:
            writer.append(records.HEADER, records.pack_header(header))
            for entry in contents.pictures.values():
                writer.append(records.PICTURE, records.pack_entry(entry))
            for bad in contents.bad.values():
                writer.append(records.BAD, records.pack_bad(bad))
        fresh.replace(target / LOG)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _update(made: Model, root: Path, target: Path, begun: _Begun, on_progress: Progress | None) -> Outcome:
    changes = compare(root, begun.contents)
    outcome = Outcome(unchanged=changes.unchanged, removed=len(changes.removed), resumed=begun.resumed)
    touched = bool(changes.removed or changes.suspects) or not begun.contents.done or begun.contents.torn
    if touched:
        with Writer(target / LOG, begun.contents.end) as writer:
            for offset in changes.removed:
                writer.append(records.REMOVED, records.pack_number(offset))
            _Embedding(made, root, begun, writer, outcome).run(changes, on_progress)
            writer.append(records.DONE, records.pack_number(0))
    log = LogFile(target / LOG)
    contents = log.read()
    if _worth_compacting(log, contents):
        _write_log(target, log.header._replace(log=uuid.uuid4().hex), contents)
        with Writer(target / LOG, LogFile(target / LOG).read().end) as writer:
            writer.append(records.DONE, records.pack_number(0))
        log = LogFile(target / LOG)
        contents = log.read()
    outcome.pictures = len(contents.pictures)
    outcome.bad = [f"{picture_path(root, bad.state.name)}: {bad.reason}" for bad in contents.bad.values()]
    _update_graph(target, log, contents, outcome)
    return outcome


def _worth_compacting(log: LogFile, contents: Contents) -> bool:
    size = records.FRAME.size + 2 * log.header.dimension + 100
    needed = (len(contents.pictures) + len(contents.bad)) * size
    return len(log.data) > 2**20 and needed < (1.0 - REMOVED_SHARE) * len(log.data)


def _update_graph(target: Path, log: LogFile, contents: Contents, outcome: Outcome) -> None:
    if len(contents.pictures) < EXACT_BELOW:
        neighbours.drop(target)
        return
    try:
        neighbours.update(target, log, contents)
        outcome.approximate = True
    except MissingExtraError as error:
        neighbours.drop(target)
        outcome.note = f"searches will compare every picture: {error}"


class _Embedding:
    """Looks at the pictures that are new or look changed, and writes what it finds to the log."""

    def __init__(self, made: Model, root: Path, begun: _Begun, writer: Writer, outcome: Outcome) -> None:
        self.made, self.root, self.writer, self.outcome = made, root, writer, outcome
        self.known = begun.contents
        # vectors by the bytes of their pictures: a moved or copied file needs no second look
        self.by_digest = {entry.digest: offset for offset, entry in self.known.pictures.items()}
        self.synced = time.monotonic()

    def run(self, changes: Changes, on_progress: Progress | None) -> None:
        """All suspects: those whose bytes are known at once, then the others in the order of the folder."""
        total, done, waiting = len(changes.suspects), 0, []
        for state, offset in changes.suspects:
            found = digest(picture_path(self.root, state.name))
            if found in self.by_digest and found is not None:
                vector = self.known.pictures[self.by_digest[found]].vector
                self._write(offset, records.PICTURE, Entry(state, found, vector))
                done += 1
            else:
                waiting.append((state, offset, found))
        if on_progress:
            on_progress(done, total)
        answers = self._answers(waiting)
        for number, ((state, offset, found), answer) in enumerate(zip(waiting, answers, strict=True), done + 1):
            self._take(state, offset, found, answer)
            if on_progress:
                on_progress(number, total)

    def _answers(self, waiting: list[tuple[State, int | None, bytes | None]]) -> Iterator[Answer]:
        return self.made.answers(picture_path(self.root, state.name) for state, _, _ in waiting)

    def _take(self, state: State, offset: int | None, found: bytes | None, answer: Answer) -> None:
        path = str(picture_path(self.root, state.name))
        if answer.error is not None or found is None:
            reason = str(answer.error or "cannot be read").removeprefix(f"{path}: ")
            self._write(offset, records.BAD, BadEntry(state, reason))
            return
        vector = answer.outputs["embedding"].reshape(-1)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0.0:
            self._write(offset, records.BAD, BadEntry(state, "its embedding is zero or not finite"))
            return
        self.outcome.embedded += 1
        self._write(offset, records.PICTURE, Entry(state, found, unit(vector).astype(np.float16)))

    def _write(self, offset: int | None, kind: int, entry: Entry | BadEntry) -> None:
        """The record, after the removal of the one that it replaces."""
        if offset is None:
            self.outcome.added += kind == records.PICTURE
        else:
            self.outcome.changed += 1
            self.writer.append(records.REMOVED, records.pack_number(offset))
        payload = records.pack_entry(entry) if isinstance(entry, Entry) else records.pack_bad(entry)
        self.writer.append(kind, payload)
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self.writer.sync()
            self.synced = time.monotonic()


__all__ = ["REBUILD", "Outcome", "update_index"]
