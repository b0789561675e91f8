"""Approximate search beside exact search: time of a query, recall, time and memory of building.

    python bench/search.py --vectors 100000 --dimension 128
    python bench/search.py --vectors 1000000 --dimension 128

The vectors are made up: clusters of about 100 around random directions, as pictures of one article lie together,
with cosines of about 0.67 within a cluster. Queries are drawn from the same clusters and are none of the vectors.
Milliseconds are of processor time, which other programs do not lengthen as they do the clock's.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Iterator

import numpy as np

from mobilenet.search.nearest import CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH, Approximate, exact, unit

BLOCK = 10_000
CLUSTER = 100
SPREAD = 0.7
EXPANSIONS = (64, 128, 256, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()

    centres = np.random.default_rng(words.seed).standard_normal(
        (max(words.vectors // CLUSTER, 1), words.dimension), dtype=np.float32
    )
    queries = draw(centres, words.queries, words.seed + 1)
    index = Approximate(words.dimension)
    best = _Best(words.queries)
    spent = 0.0
    for first, block in blocks(centres, words.vectors, words.seed + 2):
        keys = np.arange(first, first + len(block), dtype=np.int64)
        start = time.process_time()
        index.add(keys, block, threads=words.threads)
        spent += time.process_time() - start
        best.update(queries @ block.T, first)
        if (first + len(block)) % 100_000 == 0:
            print(f"{first + len(block):,} vectors: {spent:.0f} s", file=sys.stderr, flush=True)
    report(words, index, queries, best.keys, spent)


def draw(centres: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Unit vectors, float32 (count, D), around centres that are chosen at random."""
    generator = np.random.default_rng(seed)
    chosen = centres[generator.integers(0, len(centres), count)]
    return unit(chosen + SPREAD * generator.standard_normal(chosen.shape, dtype=np.float32))


def blocks(centres: np.ndarray, count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors, a block at a time, so that a million of them never lie in memory beside the index."""
    for first in range(0, count, BLOCK):
        yield first, draw(centres, min(BLOCK, count - first), seed + first)


class _Best:
    """The ten nearest vectors of each query so far, exactly, in float32."""

    def __init__(self, queries: int) -> None:
        self.keys = np.full((queries, 10), -1, np.int64)
        self.similarities = np.full((queries, 10), -np.inf, np.float32)

    def update(self, similarities: np.ndarray, first: int) -> None:
        rows = np.arange(len(self.keys))[:, None]
        top = np.argpartition(-similarities, min(10, similarities.shape[1] - 1), axis=1)[:, :10]
        every = np.concatenate([self.similarities, similarities[rows, top]], axis=1)
        keys = np.concatenate([self.keys, top + first], axis=1)
        order = np.argsort(-every, axis=1, kind="stable")[:, :10]
        self.similarities, self.keys = every[rows, order], keys[rows, order]


def report(
    words: argparse.Namespace, index: Approximate, queries: np.ndarray, truth: np.ndarray, built: float
) -> None:
    count, dimension = words.vectors, words.dimension
    print(f"\n{datetime.date.today()}: {count:,} vectors of {dimension} numbers, {words.queries:,} queries")
    print(
        f"connectivity {CONNECTIVITY}, expansion {EXPANSION_ADD} to add, {EXPANSION_SEARCH} to search by default"
    )
    print("| expansion | recall@10 | query, ms: median | 99th percentile |\n| --- | --- | --- | --- |")
    for expansion in EXPANSIONS:
        milliseconds, recall = measure(index, queries, truth, expansion)
        times = " | ".join(f"{np.percentile(milliseconds, at):.2f}" for at in (50, 99))
        print(f"| {expansion} | {np.mean(recall):.4f} | {times} |")
    print(f"built in {built:.0f} s of processor time by {words.threads} thread(s); {index.bytes / 1e9:.2f} GB")
    print(f"exact search of {min(count, BLOCK):,}: {exact_time(words):.2f} ms")
    print(f"load of the machine {os.getloadavg()[0]:.1f}")


def measure(
    index: Approximate, queries: np.ndarray, truth: np.ndarray, expansion: int
) -> tuple[list[float], list[float]]:
    """Milliseconds and recall@10 of each query."""
    milliseconds, recall = [], []
    for query, wanted in zip(queries, truth, strict=True):
        start = time.process_time()
        keys, _ = index.search(query, 10, expansion)
        milliseconds.append((time.process_time() - start) * 1e3)
        recall.append(len(set(keys.tolist()) & set(wanted.tolist())) / 10)
    return milliseconds, recall


def exact_time(words: argparse.Namespace) -> float:
    """Median milliseconds of exact search among as many vectors as are searched so."""
    vectors = draw(np.eye(words.dimension, dtype=np.float32), min(words.vectors, BLOCK), 0)
    times = []
    for query in vectors[:100]:
        start = time.process_time()
        exact(vectors, query, 10)
        times.append(time.process_time() - start)
    return float(np.median(times)) * 1e3


if __name__ == "__main__":
    main()
