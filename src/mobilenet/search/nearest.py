"""The nearest of many unit vectors: exact by numpy, or approximate by usearch's graph (HNSW) where there are many.

usearch is imported only here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Int64 = NDArray[np.int64]

EXACT_BELOW = 10_000  # as many vectors of 1,280 numbers are compared in a few milliseconds
CONNECTIVITY = 16  # neighbours of a vector in the graph
EXPANSION_ADD = 64  # how many candidates are kept while a vector is added
EXPANSION_SEARCH = 128  # and while one is looked for; docs/results.md has what that costs and finds
DTYPE = "f16"  # halves the memory of float32; the neighbours stay the same but for ties


def unit(vectors: Float32) -> Float32:
    """The same directions with length 1, float32 (..., D); a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, np.finfo(np.float32).tiny), np.float32)


def exact(vectors: Float32, query: Float32, top: int) -> tuple[Int64, Float32]:
    """Rows of the `top` vectors (N, D) that are nearest to the query (D), best first, and their cosines.

    All are of length 1. Equal ones: the lower row comes first.
    """
    similarities = vectors @ query
    count = min(top, len(similarities))
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    # everything that is as near as the last place, so that ties are broken by the row and not by the partition
    last = np.partition(similarities, len(similarities) - count)[len(similarities) - count]
    rows = np.flatnonzero(similarities >= last)
    order = rows[np.argsort(-similarities[rows], kind="stable")][:count]
    return order.astype(np.int64), similarities[order]


class Approximate:
    """A graph of unit vectors, each under a key (a whole number from 0); wraps `usearch.index.Index`.

    Raises:
        MissingExtraError: usearch is not installed.
    """

    def __init__(self, dimension: int) -> None:
        self._index: Any = _usearch()(
            ndim=dimension,
            metric="ip",  # inner product: of unit vectors, the cosine
            dtype=DTYPE,
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
        )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return int(self._index.memory_usage)

    def add(self, keys: Int64, vectors: Float32, *, threads: int = 0) -> None:
        """Adds vectors, float32 (N, D), under new keys (N); `threads` 0: all processors."""
        if len(keys):
            self._index.add(keys.astype(np.uint64), vectors, threads=threads)

    def remove(self, keys: Int64) -> None:
        """Takes vectors out; keys that are unknown are passed over."""
        if len(keys):
            self._index.remove(keys.astype(np.uint64))

    def search(self, query: Float32, top: int, expansion: int = EXPANSION_SEARCH) -> tuple[Int64, Float32]:
        """Keys of about the `top` nearest to the query (D), best first, and their cosines."""
        self._index.expansion_search = max(expansion, 2 * top)
        found = self._index.search(query, top, threads=1)
        return np.asarray(found.keys).astype(np.int64), 1.0 - np.asarray(found.distances, np.float32)

    def save(self, path: Path) -> None:
        """Writes it to a file; errors as any write."""
        self._index.save(str(path))

    def load(self, path: Path) -> None:
        """Reads what `save` wrote, to add to it. The file must be known to be good: usearch trusts it."""
        self._index.load(str(path))

    def view(self, path: Path) -> None:
        """Uses the file where it lies, mapped into memory; it can then only be searched. Trusts it as `load`."""
        self._index.view(str(path))


def _usearch() -> Any:
    try:
        from usearch.index import Index
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"an index of {EXACT_BELOW:,} pictures or more", "search") from error
    return Index
