"""Segmentation losses against torch's own and against their definitions; weights of classes."""

from __future__ import annotations

import numpy as np
import pytest

from mobilenet.errors import ArgumentError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'mobilenet[train]'")

from mobilenet.learn.segmentation_loss import (  # noqa: E402
    SegmentationLoss,
    class_weights,
    cross_entropy,
    dice_loss,
    lovasz_loss,
)


def batch(classes: int = 4, ignored: float = 0.2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, classes, generator=generator, requires_grad=True)
    target = torch.randint(0, classes, (2, 5, 7), generator=generator)
    target[torch.rand(2, 5, 7, generator=generator) < ignored] = 255
    return logits, target


def perfect(target, classes: int, strength: float = 30.0):
    known = torch.where(target == 255, 0, target)
    return torch.nn.functional.one_hot(known, classes).float() * strength


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs_with_ignore_index(smoothing: float, weighted: bool) -> None:
    logits, target = batch()
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0]) if weighted else None
    expected = torch.nn.functional.cross_entropy(
        logits.permute(0, 3, 1, 2), target, weight=weights, ignore_index=255, label_smoothing=smoothing
    )
    torch.testing.assert_close(cross_entropy(logits, target, weights, smoothing), expected)


@pytest.mark.parametrize("term", [cross_entropy, dice_loss, lovasz_loss])
def test_pixels_without_a_class_never_count(term) -> None:
    logits, target = batch()
    changed = logits.detach().clone()
    changed[target == 255] = 100 * torch.randn(int((target == 255).sum()), 4)
    torch.testing.assert_close(term(logits, target), term(changed, target))
    loss = term(logits, target)
    loss.backward()
    assert (logits.grad[target == 255] == 0).all()
    assert logits.grad[target != 255].abs().sum() > 0


@pytest.mark.parametrize("term", [cross_entropy, dice_loss, lovasz_loss])
def test_a_batch_without_any_class_is_nothing_to_learn_from(term) -> None:
    logits, target = batch(ignored=2.0)
    loss = term(logits, target)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("term", [cross_entropy, dice_loss, lovasz_loss])
def test_right_answers_cost_nothing_and_wrong_ones_more(term) -> None:
    _, target = batch()
    right = term(perfect(target, 4), target).item()
    wrong = term(perfect((target + 1) % 4, 4), target).item()
    assert right == pytest.approx(0, abs=0.02)
    assert wrong > 0.9


def test_dice_is_its_definition() -> None:
    logits, target = batch(3)
    shares = logits.softmax(-1).detach().numpy().astype(np.float64)[target.numpy() != 255]
    truth = target.numpy()[target.numpy() != 255]
    dice = []
    for number in np.unique(truth):
        t, p = truth == number, shares[:, number]
        dice.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    assert dice_loss(logits, target).item() == pytest.approx(1 - np.mean(dice), rel=1e-5)


def test_lovasz_of_hard_answers_is_one_minus_iou() -> None:
    """On scores of 0 and 1 the extension is the Jaccard loss itself (Berman et al., proposition 1)."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, 3, (1, 20, 20), generator=generator)
    found = torch.where(torch.rand(1, 20, 20, generator=generator) < 0.7, target, (target + 1) % 3)
    losses = []
    for number in range(3):
        both = ((found == number) & (target == number)).sum().item()
        either = ((found == number) | (target == number)).sum().item()
        losses.append(1 - both / either)
    assert lovasz_loss(perfect(found, 3, 200.0), target).item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_an_absent_class_does_not_count_for_regions() -> None:
    logits, target = batch(3)
    target[target == 2] = 0
    more = torch.cat([logits, torch.full((2, 5, 7, 1), -100.0)], -1)
    torch.testing.assert_close(dice_loss(more, target), dice_loss(logits, target))
    torch.testing.assert_close(lovasz_loss(more, target), lovasz_loss(logits, target))


def test_the_whole_loss_adds_its_terms() -> None:
    logits, target = batch()
    second = torch.randn_like(logits)
    plain = SegmentationLoss()({"logits": logits}, target)
    torch.testing.assert_close(plain, cross_entropy(logits, target))
    loss = SegmentationLoss(region="lovasz", region_weight=0.5, auxiliary_weight=0.3, class_weights=(1, 2, 3, 4))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = (
        cross_entropy(logits, target, weights)
        + 0.3 * cross_entropy(second, target, weights)
        + 0.5 * lovasz_loss(logits, target)
    )
    torch.testing.assert_close(loss({"logits": logits, "auxiliary_logits": second}, target), expected)


@pytest.mark.parametrize("region", ["none", "dice", "lovasz"])
def test_a_segmenter_learns_with_each_loss(region: str) -> None:
    from mobilenet.family.initialise import initialise
    from mobilenet.family.names import build
    from mobilenet.run.torch_module import GraphModule

    torch.manual_seed(0)
    options = {"classes": 2, "resolution": 32, "width_multiplier": 0.1, "head_options": {"auxiliary": True}}
    graph = build("lraspp_mobilenet_v3_small", **options)
    net = GraphModule.from_weights(graph, initialise(graph)).train()
    pictures = torch.zeros(4, 32, 32, 3)
    target = torch.zeros(4, 32, 32, dtype=torch.uint8)
    for number, side in enumerate((8, 12, 16, 20)):
        pictures[number, :side, 16:] = 1.0
        target[number, :side, 16:] = 1
    loss = SegmentationLoss(region=region)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    values = []
    for _ in range(25):
        optimiser.zero_grad()
        value = loss(net(pictures), target)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize(
    "words",
    [{"region": "iou"}, {"region_weight": -1.0}, {"label_smoothing": 1.0}, {"class_weights": (1.0, float("nan"))}],
)
def test_impossible_losses_are_refused(words: dict) -> None:
    with pytest.raises(ArgumentError):
        SegmentationLoss(**words)


def test_shapes_that_do_not_fit_are_refused() -> None:
    logits, target = batch()
    with pytest.raises(ArgumentError, match=r"\(B, H, W, classes\)"):
        cross_entropy(logits, target[:, :3])


def test_rare_classes_weigh_more() -> None:
    pixels = np.array([900, 90, 10, 0])
    flat, half, whole = (np.array(class_weights(pixels, power)) for power in (0.0, 0.5, 1.0))
    assert flat[:3].tolist() == [1, 1, 1] and flat[3] == half[3] == whole[3] == 0
    assert half[0] < half[1] < half[2]
    np.testing.assert_allclose(whole[:3] * pixels[:3], (whole * pixels)[0])
    for weights in (flat, half, whole):
        assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1)
    for wrong in (np.zeros(3), np.array([1, -1])):
        with pytest.raises(ArgumentError, match="counts from 0"):
            class_weights(wrong)
    with pytest.raises(ArgumentError, match="power"):
        class_weights(pixels, 2)
