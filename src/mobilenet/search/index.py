"""An index of pictures, opened to search in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError, IndexFileError
from mobilenet.search import neighbours
from mobilenet.search.log import REBUILD, Contents, LogFile
from mobilenet.search.model import dimension, embedder, fingerprint
from mobilenet.search.nearest import Approximate, exact, unit
from mobilenet.search.records import Entry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.model import Model
    from mobilenet.pictures.decode import Picture

LOG, MODEL = "log", "model.safetensors"
MAX_REMOVED_EXTRA = 1000  # of removed vectors that an unfinished run has left in the graph, looked for in vain


class Match(NamedTuple):
    """A picture that was found.

    Attributes:
        path: its file: the index's folder of pictures, and the picture's name below it.
        similarity: cosine of its embedding and the query's, -1..1.
        name: its name below the folder of pictures, with slashes.
        size: bytes of its file when it was indexed.
        digest: SHA-256 of these bytes, in hexadecimal.
    """

    path: str
    similarity: float
    name: str
    size: int
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """All fields; the similarity rounded to 6 decimals."""
        return {**self._asdict(), "similarity": round(self.similarity, 6)}


class Index:
    """Pictures by their embeddings, as they were when it was opened. Several threads may search in it.

    Make one by `mobilenet.open_index`; `mobilenet index` writes it.

    Attributes:
        path: the index's own folder.
        root: the folder of the pictures.
        approximate: whether usearch's graph answers; otherwise every vector is compared.
        done: whether the last run of `mobilenet index` came to its end; if not, pictures may be missing.
    """

    def __init__(self, path: Path, *, model: Model | None = None, threads: int | None = None) -> None:
        self.path, self._given, self._threads = path, model, threads
        if not path.is_dir():
            raise IndexFileError(f"{path}: there is no index; make one by `mobilenet index MODEL DIR -o {path}`")
        self._log = LogFile(path / LOG)
        self.root = self._log.header.root
        state = neighbours.read_state(path, self._log)
        self._graph: Approximate | None = None
        if state:
            self._graph = Approximate(self.dimension)
            self._graph.view(path / neighbours.GRAPH)
        # without a graph the whole log; with one, what an unfinished run has added since
        self._tail: Contents = self._log.read(state.end if state else 0)
        self._count = (state.vectors if state else 0) + len(self._tail.pictures)
        if state:
            self._count -= len(self._tail.removed)
            self._tail.done = self._tail.done or self._tail.end == state.end
        self.approximate, self.done = self._graph is not None, self._tail.done and not self._tail.torn

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, {len(self):,} pictures of {self.root!r}, dimension {self.dimension})"

    @property
    def dimension(self) -> int:
        """How many numbers an embedding has."""
        return self._log.header.dimension

    @cached_property
    def model(self) -> Model:
        """The model that the pictures were embedded by: the index has a copy.

        Raises:
            IndexFileError: the copy, or the model that was given, is another one.
            ModelFileError: the copy is missing or damaged.
        """
        from mobilenet.model import load

        made = embedder(self._given) if self._given else load(self.path / MODEL, threads=self._threads)
        if fingerprint(made) != self._log.header.fingerprint or dimension(made) != self.dimension:
            what = "the model that was given" if self._given is not None else f"{self.path / MODEL}"
            raise IndexFileError(f"{self.path}: was made by another model than {what}; {REBUILD}")
        return made

    def search(self, picture: Picture, top: int = 10) -> list[Match]:
        """The `top` pictures that are most similar to a picture, the most similar first.

        Args:
            picture: a path, bytes, PIL image or uint8 array (height, width, 3).
            top: how many; fewer are found where there are fewer.

        Raises:
            ImageError: the picture cannot be read.
            IndexFileError: the index is of another model, or damaged.
            ArgumentError: `top` is below 1.
        """
        _check_top(top)
        return self.search_vector(self.model.embed(picture), top)

    def search_vector(self, vector: NDArray[np.float32], top: int = 10) -> list[Match]:
        """As `search`, for an embedding that you have: real (D), of any length but 0."""
        _check_top(top)
        query = np.asarray(vector, np.float32).reshape(-1)
        if query.shape != (self.dimension,) or not np.isfinite(query).all() or not query.any():
            raise ArgumentError(f"a query is {self.dimension} finite numbers, not all 0; this is {query.shape}")
        query = unit(query)
        if self._graph is None:
            return [self._match(*found) for found in self._nearest_in_tail(query, top)]
        extra = min(len(self._tail.removed), MAX_REMOVED_EXTRA)
        keys, similarities = self._graph.search(query, top + extra)
        found = zip(keys.tolist(), similarities.tolist(), strict=True)
        kept = [(key, cosine) for key, cosine in found if key not in self._tail.removed]
        kept += self._nearest_in_tail(query, top)
        return [self._match(*one) for one in sorted(kept, key=lambda one: -one[1])[:top]]

    def __iter__(self) -> Iterator[str]:
        """The names of all pictures, in no certain order."""
        return (entry.state.name for entry in self._log.read().pictures.values())

    @cached_property
    def _rows(self) -> tuple[list[int], NDArray[np.float32]]:
        """Keys, and vectors (N, D), of all that is compared one by one."""
        keys = list(self._tail.pictures)
        vectors = np.empty((len(keys), self.dimension), np.float32)
        for row, key in enumerate(keys):
            vectors[row] = self._tail.pictures[key].vector
        return keys, vectors

    def _nearest_in_tail(self, query: NDArray[np.float32], top: int) -> list[tuple[int, float]]:
        keys, vectors = self._rows
        rows, similarities = exact(vectors, query, top)
        return [(keys[row], float(cosine)) for row, cosine in zip(rows, similarities, strict=True)]

    def _match(self, key: int, similarity: float) -> Match:
        entry = self._tail.pictures.get(key) or self._log.entry(key)
        return _match(self.root, entry, similarity)


def _match(root: str, entry: Entry, similarity: float) -> Match:
    name = entry.state.name
    path = os.path.join(root, *name.split("/"))  # noqa: PTH118 - a name may hold what Path would tidy away
    return Match(path, float(np.clip(similarity, -1.0, 1.0)), name, entry.state.size, entry.digest.hex())


def _check_top(top: int) -> None:
    if top < 1:
        raise ArgumentError(f"top is {top}: at least 1 is needed")


def open_index(path: str | os.PathLike[str], *, model: Model | None = None, threads: int | None = None) -> Index:
    """Opens an index to search in it.

    Args:
        path: what `mobilenet index` wrote.
        model: embeds the queries; default: the copy that the index has.
        threads: of the copy.

    Raises:
        IndexFileError: there is none, or it is damaged; the message says how to rebuild it.
        MissingExtraError: it has a graph of 10,000 pictures or more, and usearch is not installed.
    """
    return Index(Path(path), model=model, threads=threads)
