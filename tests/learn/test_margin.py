"""The losses on the sphere, against what the papers' formulas give by hand."""

from __future__ import annotations

import itertools
from math import acos, cos, exp, log, pi

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from mobilenet.learn.margin import COSINES, ClassMatrix, arcface, cosface, hardest_triplets  # noqa: E402


def cosines(rows: int = 6, classes: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(rows, classes, generator=generator, dtype=torch.float64) * 1.9 - 0.95


LABELS = torch.tensor([0, 1, 2, 3, 4, 1])


@pytest.mark.parametrize(
    ("loss", "changed"),
    [
        (arcface, lambda value: cos(acos(value) + 0.3) if acos(value) < pi - 0.3 else None),
        (cosface, lambda value: value - 0.3),
    ],
)
def test_the_right_class_has_a_margin_to_win(loss, changed) -> None:
    given = cosines()
    losses = loss(given, LABELS, margin=0.3, scale=10.0)
    for row, label, got in zip(given.tolist(), LABELS.tolist(), losses.tolist(), strict=True):
        own = changed(row[label])
        if own is None:
            continue
        others = sum(exp(10 * value) for place, value in enumerate(row) if place != label)
        assert got == pytest.approx(log(exp(10 * own) + others) - 10 * own, rel=1e-6)


@pytest.mark.parametrize("loss", [arcface, cosface])
def test_without_a_margin_both_are_cross_entropy(loss) -> None:
    given = cosines()
    wanted = F.cross_entropy(20 * given, LABELS, reduction="none")
    torch.testing.assert_close(loss(given, LABELS, margin=0.0, scale=20.0), wanted)


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.5])
def test_arcface_falls_wherever_the_cosine_rises(margin: float) -> None:
    """Also beyond pi - margin, where the plain formula would reward a wider angle."""
    own = torch.linspace(-1, 1, 401, dtype=torch.float64, requires_grad=True)
    table = torch.stack([own, torch.zeros_like(own)], 1)
    losses = arcface(table, torch.zeros(401, dtype=torch.int64), margin=margin, scale=4.0)
    assert bool((losses.diff() < 0).all())
    losses.sum().backward()
    assert bool(torch.isfinite(own.grad).all())


def by_hand(embeddings: torch.Tensor, labels: list[int], margin: float) -> list[float]:
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    found = []
    for anchor, own in enumerate(labels):
        distances = [(float((unit[anchor] - unit[i]).norm()), labels[i] == own, i) for i in range(len(labels))]
        same = [d for d, is_same, i in distances if is_same and i != anchor]
        other = [d for d, is_same, _ in distances if not is_same]
        found.append(max(0.0, margin + max(same) - min(other)) if same and other else 0.0)
    return found


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2, 3], [0] * 7, list(range(7))])
def test_the_hardest_triplets_of_a_batch(labels: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(7, 5, generator=generator) * 3
    losses = hardest_triplets(embeddings, torch.tensor(labels), margin=0.4)
    assert losses.tolist() == pytest.approx(by_hand(embeddings, labels, 0.4), abs=1e-3)


def test_equal_pictures_have_finite_slopes() -> None:
    embeddings = torch.ones(4, 3, requires_grad=True)
    hardest_triplets(embeddings, torch.tensor([0, 0, 1, 1]), margin=0.3).sum().backward()
    assert bool(torch.isfinite(embeddings.grad).all())


def test_a_step_along_the_slope_parts_identities() -> None:
    for loss in (arcface, cosface):
        matrix = ClassMatrix(3, 8, seed=0)
        embeddings = torch.randn(9, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
        labels = torch.arange(9) % 3
        before = loss(matrix({"embedding": embeddings})[COSINES], labels, margin=0.3, scale=8.0).mean()
        before.backward()
        with torch.no_grad():
            for value in (embeddings, matrix.weight):
                value -= 0.5 * value.grad
        after = loss(matrix({"embedding": embeddings})[COSINES], labels, margin=0.3, scale=8.0).mean()
        assert after.item() < before.item() - 0.01


def test_the_matrix_is_the_same_everywhere_and_depends_on_the_seed() -> None:
    matrices = [ClassMatrix(4, 6, seed).weight for seed in (3, 3, 4)]
    assert torch.equal(matrices[0], matrices[1])
    assert not torch.equal(matrices[0], matrices[2])
    for one, two in itertools.combinations(matrices[0], 2):
        assert abs(float(F.cosine_similarity(one, two, dim=0))) < 0.999


def test_cosines_keep_their_digits_in_mixed_precision() -> None:
    directions = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    matrix = ClassMatrix(5, 16, seed=0, directions=7 * directions)
    embeddings = torch.randn(8, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        got = matrix({"embedding": embeddings})[COSINES]
    wanted = F.cosine_similarity(embeddings.flatten(1)[:, None], directions[None], dim=2)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
