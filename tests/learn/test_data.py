"""What a batch holds must depend on the seed, the epoch and the step, and on nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from mobilenet.errors import ImageError, TrainingError  # noqa: E402
from mobilenet.learn.data import (  # noqa: E402
    EvaluationData,
    Mixing,
    PictureCache,
    TrainingData,
    batches_of_epoch,
    share_of_process,
    steps_of_epoch,
    training_picture,
)
from mobilenet.pictures.augment import Augmentation  # noqa: E402
from mobilenet.pictures.folders import Sample, read_dataset  # noqa: E402
from mobilenet.pictures.preprocess import Preprocessing  # noqa: E402

SMALL = Preprocessing(32, 40)


def make(pictures: Path, **words: Any) -> TrainingData:
    samples = read_dataset(pictures).splits["train"]
    settings = {"batch": 10, "seed": 3, "workers": 2, "budget_bytes": 1e9, "mixing": Mixing(0.1, 0.4, 1.0)} | words
    mixing = settings.pop("mixing")
    augmentation = Augmentation(crop_area=0.3, flip=0.5, colour=0.3, randaugment=5)
    return TrainingData(samples, 3, SMALL, augmentation, mixing, **settings)


def collected(data: TrainingData, epoch: int, first: int = 0) -> list[tuple[Any, Any]]:
    return [(batch.images.numpy(), batch.targets.numpy()) for batch in data.epoch(epoch, first)]


def same(one: list[tuple[Any, Any]], two: list[tuple[Any, Any]]) -> bool:
    pairs = zip(one, two, strict=True)
    return all(np.array_equal(a, c) and np.array_equal(b, d) for (a, b), (c, d) in pairs)


@given(st.integers(1, 500), st.integers(1, 70), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_holds_every_sample_once_in_even_batches(samples: int, batch: int, seed: int, epoch: int) -> None:
    parts = batches_of_epoch(samples, batch, seed, epoch)
    assert sorted(np.concatenate(parts)) == list(range(samples))
    sizes = [len(part) for part in parts]
    assert len(sizes) == steps_of_epoch(samples, batch)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch + 1
    if samples > 1 and batch > 1:
        assert min(sizes) > 1, "a batch norm cannot learn from one sample"


@given(st.integers(0, 100), st.integers(1, 7), st.booleans())
def test_processes_share_a_batch_in_order(count: int, processes: int, pairs: bool) -> None:
    shares = [range(count)[share_of_process(count, p, processes, pairs)] for p in range(processes)]
    assert [i for share in shares for i in share] == list(range(count))
    if pairs:
        assert all(len(share) % 2 == 0 for share in shares if share and share[-1] != count - 1)


def test_order_and_augmentation_change_with_epoch_and_seed(pictures: Path) -> None:
    first = collected(make(pictures), 0)
    assert same(first, collected(make(pictures), 0))
    assert not same(first, collected(make(pictures), 1))
    assert not same(first, collected(make(pictures, seed=4), 0))


@pytest.mark.parametrize("change", [{"workers": 0}, {"workers": 3}, {"budget_bytes": 0}, {"budget_bytes": 5e4}])
def test_threads_and_memory_do_not_change_the_batches(pictures: Path, change: dict[str, Any]) -> None:
    changed = make(pictures, **change)
    for epoch in (0, 1):  # the second may come from memory
        assert same(collected(make(pictures), epoch), collected(changed, epoch))


def test_state_of_the_global_random_numbers_does_not_matter(pictures: Path) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    one = collected(make(pictures), 0)
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(one, collected(make(pictures), 0))


def test_an_epoch_can_start_at_any_step(pictures: Path) -> None:
    assert same(collected(make(pictures), 2)[1:], collected(make(pictures), 2, first=1))


@pytest.mark.parametrize("mixing", [Mixing(0.1), Mixing(0.1, 0.4, 1.0)])
def test_processes_together_load_what_one_loads_alone(pictures: Path, mixing: Mixing) -> None:
    alone = collected(make(pictures, mixing=mixing), 0)
    halves = [collected(make(pictures, mixing=mixing, process=p, processes=2), 0) for p in (0, 1)]
    for step, (images, targets) in enumerate(alone):
        np.testing.assert_allclose(np.concatenate([half[step][0] for half in halves]), images, atol=1 / 127)
        np.testing.assert_array_equal(np.concatenate([half[step][1] for half in halves]), targets)


def test_more_processes_than_samples_in_a_batch(pictures: Path) -> None:
    with pytest.raises(TrainingError, match="a batch of 2 cannot be shared by 3 processes: raise --batch"):
        make(pictures, batch=2, processes=3)


def test_targets_add_up_to_one_and_keep_the_label(pictures: Path) -> None:
    data = make(pictures, mixing=Mixing(label_smoothing=0.3))
    numbers = batches_of_epoch(len(data.samples), 10, 3, 0)[0]
    targets = data.load(numbers, 0).targets.numpy()
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert targets.argmax(1).tolist() == [data.samples[n].label for n in numbers]
    assert targets.max() == pytest.approx(0.7 + 0.1)
    assert targets.min() == pytest.approx(0.1)


def test_without_augmentation_training_sees_the_pixels_of_prediction(pictures: Path) -> None:
    """A picture of the input's own size, not cropped, flipped or coloured: the very tensor of `Preprocessing`."""
    from PIL import Image

    path = pictures.parent / "exact.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    for channels, count in (("RGB", 3), ("BGR", 3), ("L", 1)):
        exact = Preprocessing(
            40, 40, crop_fraction=1.0, channels=channels, mean=(100.0,) * count, std=(50.0,) * count
        )
        plain = Augmentation(crop_area=1.0, flip=0.0, colour=0.0)
        data = TrainingData([Sample(path, 0)] * 2, 3, exact, plain, Mixing(), batch=2, seed=0)
        (batch,) = data.epoch(0)
        np.testing.assert_array_equal(batch.images[0].numpy(), exact(path))


def test_evaluation_is_bit_for_bit_preprocessing(pictures: Path) -> None:
    samples = read_dataset(pictures).splits["val"]
    data = EvaluationData(samples, SMALL, batch=4, workers=2, budget_bytes=1e9)
    for _ in range(2):  # the second time from memory
        rows = np.concatenate([batch.numpy() for batch in data.batches()])
        for row, sample in zip(rows, samples, strict=True):
            np.testing.assert_array_equal(row, SMALL(sample.path))
    assert data.labels.tolist() == [sample.label for sample in samples]
    part = np.concatenate([batch.numpy() for batch in data.batches(slice(2, 7))])
    np.testing.assert_array_equal(part, rows[2:7])


def test_a_cache_keeps_to_its_budget() -> None:
    loads: list[Path] = []

    def load(path: Path) -> Any:
        loads.append(path)
        return np.zeros((10, 10, 3), np.uint8)

    cache = PictureCache(load, 2 * 300)
    names = [Path(name) for name in "abc"]
    for _ in range(2):
        for name in names:
            cache(name)
    assert loads == [*names, Path("c")]


def test_large_pictures_are_kept_no_larger_than_a_crop_needs(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "large.png"
    Image.new("RGB", (800, 400), (9, 8, 7)).save(path)
    kept = training_picture(path, SMALL, crop_area=0.25)
    assert kept.shape == (80, 160, 3)  # the smallest crop, half of the height, still has 40 pixels
    assert (kept == (9, 8, 7)).all()
    assert training_picture(path, SMALL, crop_area=0.02).shape[0] > 200


def test_a_picture_that_vanishes_is_named(pictures: Path, tmp_path: Path) -> None:
    data = EvaluationData([Sample(tmp_path / "gone.png", 0)], SMALL, batch=1)
    with pytest.raises(ImageError, match=r"gone.png"):
        list(data.batches())
