"""The fitted last layer against scikit-learn; the cache of embeddings; which layers are frozen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

torch = pytest.importorskip("torch")

from mobilenet.errors import ArgumentError  # noqa: E402
from mobilenet.family.names import build  # noqa: E402
from mobilenet.learn import transfer  # noqa: E402
from mobilenet.learn.freezing import block_of_nodes, frozen_nodes  # noqa: E402
from mobilenet.learn.transfer import EmbeddingCache, Embeddings, balanced_weights, fit_head  # noqa: E402
from mobilenet.pictures.folders import Sample  # noqa: E402

ALONE = SimpleNamespace(
    is_main=True, precision="no", device=torch.device("cpu"), processes=1, from_main=lambda value: value
)


def blobs(count: int, seed: int, features: int = 20, classes: int = 4, spread: float = 2.5) -> Embeddings:
    centres = np.random.default_rng(99).normal(0, 1, (classes, features))
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    values = centres[labels] + generator.normal(0, spread, (count, features))
    values = values * np.geomspace(0.01, 100, features) + 5  # scales far apart, as features have
    values[:, 3] = 7.0  # and one that never changes
    return Embeddings(values.astype(np.float32), labels.astype(np.int64))


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_a_fit_is_scikit_learns(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = blobs(300, 1), blobs(200, 2)
    monkeypatch.setattr(transfer, "PENALTIES", (penalty,))
    head = fit_head(train, val, 4)
    varied = [i for i in range(20) if i != 3]
    centre, spread = train.features.mean(0)[varied], train.features.std(0)[varied]
    peer = LogisticRegression(C=1 / (penalty * len(train.labels)), tol=1e-8, max_iter=5000)
    peer.fit((train.features[:, varied].astype(float) - centre) / spread, train.labels)
    wanted = peer.predict_proba((val.features[:, varied].astype(float) - centre) / spread)
    logits = torch.from_numpy(val.features @ head.weight.T + head.bias)
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), wanted, atol=2e-3)
    assert head.score.figure == pytest.approx((wanted.argmax(1) == val.labels).mean())


def test_the_penalty_is_chosen_on_the_validation_pictures() -> None:
    train, val = blobs(60, 1, features=200, spread=6), blobs(400, 2, features=200, spread=6)
    chosen = fit_head(train, val, 4)
    losses = []
    for penalty in transfer.PENALTIES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transfer, "PENALTIES", (penalty,))
            losses.append(fit_head(train, val, 4).score.figure)
    assert chosen.score.figure == pytest.approx(max(losses), abs=0.01)
    assert chosen.penalty > min(transfer.PENALTIES), "few noisy samples need a strong penalty"


def test_class_weights_help_the_rare_class() -> None:
    train, val = blobs(400, 1, spread=4), blobs(2000, 2, spread=4)
    rare = np.flatnonzero(train.labels == 0)[5:]
    few = Embeddings(np.delete(train.features, rare, 0), np.delete(train.labels, rare))
    recalls = []
    for weights in (None, balanced_weights(few.labels.tolist(), 4)):
        head = fit_head(few, val, 4, weights)
        answers = (val.features @ head.weight.T + head.bias).argmax(1)
        recalls.append((answers[val.labels == 0] == 0).mean())
    assert recalls[1] > recalls[0] + 0.1


def test_balanced_weights_have_mean_one_over_the_samples() -> None:
    labels = [0] * 10 + [1] * 30
    weights = balanced_weights(labels, 2)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(3)


def picture_files(folder: Path, count: int = 3) -> list[Sample]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        path.write_bytes(b"x")
    return [Sample(path, 0) for path in paths]


def test_the_cache_gives_back_what_was_put_and_knows_other_pictures(tmp_path: Path) -> None:
    samples = picture_files(tmp_path)
    cache = EmbeddingCache(tmp_path / "cache", "model", ALONE)
    features = np.random.default_rng(0).normal(0, 1, (3, 5)).astype(np.float32)
    assert cache.get(samples, 5) is None
    cache.put(samples, features)
    np.testing.assert_array_equal(cache.get(samples, 5), features)
    assert cache.get(samples[:2], 5) is None
    assert cache.get(samples[::-1], 5) is None
    assert EmbeddingCache(tmp_path / "cache", "other", ALONE).get(samples, 5) is None
    rougher = SimpleNamespace(**{**vars(ALONE), "precision": "bf16"})
    assert EmbeddingCache(tmp_path / "cache", "model", rougher).get(samples, 5) is None
    samples[0].path.write_bytes(b"changed")
    assert cache.get(samples, 5) is None


def test_a_damaged_cache_file_is_no_answer(tmp_path: Path) -> None:
    samples = picture_files(tmp_path)
    cache = EmbeddingCache(tmp_path / "cache", "model", ALONE)
    cache.put(samples, np.ones((3, 5), np.float32))
    (file,) = (tmp_path / "cache").iterdir()
    for damage in (file.read_bytes()[:-8], b"", b"\xff" * 40):
        file.write_bytes(damage)
        assert cache.get(samples, 5) is None
    assert cache.get(samples, 6) is None


def test_blocks_are_frozen_from_the_stem_on() -> None:
    graph = build("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3)
    frozen = frozen_nodes(graph, "classifier", "2")
    assert {name for name in frozen if name.startswith("stem.")}
    assert {name.split(".")[1] for name in frozen if name.startswith("blocks.")} == {"0", "1"}
    assert not frozen_nodes(graph, "classifier", "0")
    everything = frozen_nodes(graph, "classifier", "features")
    assert {node.name for node in graph.nodes} - everything == {"classifier"}
    with pytest.raises(ArgumentError, match=r"--freeze 99: this network has \d+ blocks"):
        frozen_nodes(graph, "classifier", "99")


def test_imported_networks_have_blocks_too(shared: Path) -> None:
    from mobilenet.files.tflite import read_tflite

    file = shared / "weights" / "coral" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    graph: Any = read_tflite(file, to_float=True).graph
    blocks = block_of_nodes(graph)
    assert max(blocks.values()) == 16  # the paper's table has 17 bottlenecks
    adds = [node for node in graph.nodes if node.operator.kind == "add"]
    for add in adds:  # a residual belongs to the block that it closes
        assert blocks[add.name] == blocks[add.inputs[1]] or blocks[add.name] == blocks[add.inputs[0]]
    assert sum(block == -1 for block in blocks.values()) == 1  # the stem
