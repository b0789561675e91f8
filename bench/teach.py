"""Top-1 of classes that were taught by a few pictures each, without training.

    python bench/teach.py DATA MODEL [--pictures 1,3,5,10,20] [--seeds 5]

DATA is ROOT/{train,test}/<class>/*; pictures are drawn from train, another draw for each seed, and top-1 is of all
of test. Three ways: the taught classes alone, without asking for "none of these"; with it; and beside the classes
that MODEL was trained on, which are then wrong answers. The last column is how long one `model.teach` of so many
pictures takes, from files to a model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mobilenet
from mobilenet.model import Model
from mobilenet.pictures.folders import Sample, read_dataset
from mobilenet.tasks.taught import NONE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--pictures", default="5")
    parser.add_argument("--seeds", type=int, default=5)
    words = parser.parse_args()

    folder = read_dataset(words.data, val_fraction=0.0)
    model = mobilenet.load(words.model)
    test = folder.splits["test"]
    embedded = _outputs(model, test)
    truth = np.array([folder.classes[sample.label] for sample in test])
    print(f"{len(test)} pictures of {len(folder.classes)} classes, {words.seeds} seeds: mean ± deviation")
    print('| pictures a class | top-1 | with "none of these" | beside own classes | threshold | ms a lesson |')
    print("| --- | --- | --- | --- | --- | --- |")
    for count in map(int, words.pictures.split(",")):
        rows = [_measure(model, folder.splits["train"], folder.classes, count, seed, embedded, truth)
                for seed in range(words.seeds)]  # fmt: skip
        columns = np.array(rows).T
        shares = (f"{column.mean():.3f} ± {column.std():.3f}" for column in columns[:3])
        print(f"| {count} | {' | '.join(shares)} | {columns[3].mean():.3f} | {np.median(columns[4]):.0f} |")


def _outputs(model: Model, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    answers = list(model.answers(sample.path for sample in samples))
    return {name: np.stack([answer.outputs[name].reshape(-1) for answer in answers])
            for name in ("embedding", "logits")}  # fmt: skip


def _measure(
    model: Model,
    train: Sequence[Sample],
    classes: Sequence[str],
    count: int,
    seed: int,
    embedded: dict[str, np.ndarray],
    truth: np.ndarray,
) -> tuple[float, float, float, float, float]:
    generator = np.random.default_rng(seed)
    alone = beside = model
    times = []
    for label, name in enumerate(classes):
        paths = [sample.path for sample in train if sample.label == label]
        chosen = [paths[n] for n in generator.choice(len(paths), count, replace=False)]
        start = time.perf_counter()
        alone = alone.teach(name, chosen, keep=False)
        times.append((time.perf_counter() - start) * 1e3)
        beside = beside.teach(name, chosen)
    names = np.array(alone.labels)
    logits = _head(alone, embedded)
    forced = names[1:][logits[:, 1:].argmax(axis=1)]
    assert alone.labels[0] == NONE
    free = names[logits.argmax(axis=1)]
    both = np.array(beside.labels)[_head(beside, embedded).argmax(axis=1)]
    scores = [float(np.mean(answer == truth)) for answer in (forced, free, both)]
    return scores[0], scores[1], scores[2], alone.provenance["taught"]["threshold"], float(np.median(times))


def _head(model: Model, embedded: dict[str, np.ndarray]) -> np.ndarray:
    """The logits of a taught model from what the network below its head answers: pictures are read only once.

    (That the engine gives the same for the whole graph is a matter of tests/tasks/test_teach.py.)
    """
    weight, bias = model.weights["taught.prototypes.weight"], model.weights["taught.prototypes.bias"]
    vectors = embedded["embedding"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    taught = unit @ weight.T + bias
    return np.concatenate([embedded["logits"], taught], axis=1) if model.provenance["taught"]["kept"] else taught


if __name__ == "__main__":
    main()
