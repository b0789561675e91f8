"""Identities into splits and batches; pairs and thresholds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from made_identities import write_identities, write_splits  # noqa: E402

from mobilenet.errors import ArgumentError, DataError, TrainingError  # noqa: E402
from mobilenet.learn import embed_pairs  # noqa: E402
from mobilenet.learn.data import Mixing  # noqa: E402
from mobilenet.learn.embed_data import (  # noqa: E402
    BalancedData,
    IdentityData,
    Views,
    read_identity_folder,
    without_single,
)
from mobilenet.learn.embed_pairs import Pairs, balanced_threshold, calibrated, check_far  # noqa: E402
from mobilenet.pictures.augment import Augmentation  # noqa: E402
from mobilenet.pictures.folders import PictureFolder, Sample, handle_bad_pictures  # noqa: E402
from mobilenet.pictures.preprocess import PRESETS  # noqa: E402
from mobilenet.tasks.verify import at_threshold, roc  # noqa: E402


def names(folder: PictureFolder, split: str) -> set[str]:
    return {sample.path.parent.name for sample in folder.splits[split]}


def test_whole_identities_are_split_and_nothing_is_lost(tmp_path: Path) -> None:
    folder, single = read_identity_folder(write_identities(tmp_path, 20, 3))
    assert not single
    parts = [names(folder, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [14, 3, 3]
    assert len(set().union(*parts)) == 20
    assert sum(map(len, folder.splits.values())) == 60
    assert {sample.label for sample in folder.splits["train"]} == set(range(14))
    for samples in folder.splits.values():
        assert all(folder.classes[sample.label] == sample.path.parent.name for sample in samples)
    assert read_identity_folder(tmp_path)[0] == folder


def test_a_split_does_not_depend_on_who_else_is_there(tmp_path: Path) -> None:
    """Another picture of somebody moves nobody."""
    before = read_identity_folder(write_identities(tmp_path, 12, 2))[0]
    (tmp_path / "p03" / "more.pgm").write_bytes((tmp_path / "p03" / "0.pgm").read_bytes())
    after = read_identity_folder(tmp_path)[0]
    assert [names(before, split) for split in before.splits] == [names(after, split) for split in after.splits]


def test_splits_that_are_there_are_kept_and_val_is_made_of_train(tmp_path: Path) -> None:
    folder, _ = read_identity_folder(write_splits(tmp_path))
    assert [len(names(folder, split)) for split in ("train", "val", "test")] == [8, 4, 4]
    (tmp_path / "val").rename(tmp_path / ".away")
    folder, _ = read_identity_folder(tmp_path)
    assert [len(names(folder, split)) for split in ("train", "val", "test")] == [6, 2, 4]
    assert names(folder, "test") == {path.name for path in (tmp_path / "test").iterdir()}


def test_nobody_is_in_two_splits(tmp_path: Path) -> None:
    write_splits(tmp_path)
    write_identities(tmp_path / "val", 1, first=2)
    with pytest.raises(DataError, match=r"val.p02: the identity is in train too"):
        read_identity_folder(tmp_path)
    (tmp_path / "val" / "p02").rename(tmp_path / ".away")
    (tmp_path / "test" / "somebody").symlink_to(tmp_path / "train" / "p00")
    with pytest.raises(DataError, match="(p00|somebody): the identity is in (train|test) too"):
        read_identity_folder(tmp_path)


def test_identities_of_one_picture_are_named(tmp_path: Path) -> None:
    write_splits(tmp_path)
    write_identities(tmp_path / "train", 2, pictures=1, prefix="lonely")
    folder, single = read_identity_folder(tmp_path)
    assert single == {"train": ("lonely00", "lonely01")}
    assert not any("lonely" in name for name in folder.classes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: write_identities(root, 5), "has 5 identities .* 6 are needed"),
        (lambda root: write_identities(root, 6, pictures=1), r"two or more pictures \(6 have only one\)"),
        (lambda root: (write_identities(root, 6) / "empty").mkdir(), "empty: the identity has no pictures"),
        (lambda root: write_identities(write_splits(root) / "extra", 1), "beside the folder train"),
        (lambda root: write_identities(write_splits(root) / "Val", 2, first=30), "two folders for the split val"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        read_identity_folder(tmp_path / "data")


def test_who_has_one_good_picture_left_is_left_out(tmp_path: Path) -> None:
    write_splits(tmp_path, pictures=2)
    (tmp_path / "train" / "p01" / "0.pgm").write_bytes(b"P5 not a picture")
    folder, bad = handle_bad_pictures(read_identity_folder(tmp_path)[0], "skip", threads=1)
    assert len(bad) == 1
    left, single = without_single(folder)
    assert single == ("p01",)
    assert sum(map(len, left.splits.values())) == 30
    assert {sample.label for sample in left.splits["train"]} == set(range(7))
    for samples in left.splits.values():
        assert all(left.classes[sample.label] == sample.path.parent.name for sample in samples)
    for number in (1, 2, 3):
        (tmp_path / "val" / f"p{7 + number:02}" / "0.pgm").write_bytes(b"P5 not a picture")
    folder, _ = handle_bad_pictures(read_identity_folder(tmp_path)[0], "skip", threads=1)
    with pytest.raises(DataError, match="val has fewer than two identities"):
        without_single(folder)


# -- batches -----------------------------------------------------------------------------------------------

COUNTS = (1, 2, 3, 4, 5, 9, 8, 4, 4, 3)


def balanced(root: Path, **changes: object) -> BalancedData:
    samples = [Sample(root / "p00" / "0.pgm", label) for label, count in enumerate(COUNTS) for _ in range(count)]
    how = {"group": 4, "batch": 16, "seed": 5, "workers": 0, **changes}
    return BalancedData(samples, len(COUNTS), PRESETS["tf"](32, 32), Augmentation(), Mixing(), **how)


def test_every_picture_is_in_one_balanced_batch(tmp_path: Path) -> None:
    data = balanced(write_identities(tmp_path, 1))
    for epoch in range(3):
        steps = data._steps_of(epoch)
        assert len(steps) == data.steps
        seen = np.concatenate([group for groups in steps for group in groups])
        assert sorted(seen) == list(range(sum(COUNTS)))
        for groups, size in zip(steps, data.batch_sizes(epoch), strict=True):
            assert sum(map(len, groups)) == size
            labels = [{data.samples[number].label for number in group} for group in groups]
            assert all(len(one) == 1 for one in labels)
            assert len(set.union(*labels)) >= 2, "somebody to be told apart from"
    batches = list(data.epoch(0))
    assert [len(batch.images) for batch in batches] == data.batch_sizes(0)
    assert Counter(torch.cat([batch.targets for batch in batches]).tolist()) == dict(enumerate(COUNTS))
    again = list(data.epoch(0, first_step=2))
    assert torch.equal(again[0].images, batches[2].images) and torch.equal(again[0].targets, batches[2].targets)
    assert any(
        not np.array_equal(*pair) for pair in zip(data.batch_sizes(0), data.batch_sizes(1), strict=True)
    ) or (not torch.equal(batches[0].targets, next(data.epoch(1)).targets))


def test_processes_share_identities_not_pictures(tmp_path: Path) -> None:
    root = write_identities(tmp_path, 1)
    whole = [batch.targets.tolist() for batch in balanced(root).epoch(1)]
    halves = [
        [batch.targets.tolist() for batch in balanced(root, process=process, processes=2).epoch(1)]
        for process in (0, 1)
    ]
    assert [one + two for one, two in zip(*halves, strict=True)] == whole
    with pytest.raises(TrainingError, match="cannot be shared by 3 processes"):
        balanced(root, process=0, processes=3)


def test_views_are_the_pictures_changed_in_other_ways(tmp_path: Path) -> None:
    folder, _ = read_identity_folder(write_identities(tmp_path, 8))
    how = {"batch": 5, "seed": 0, "workers": 0}
    data = IdentityData(folder.splits["train"], 4, PRESETS["tf"](32, 32), Augmentation(), Mixing(), **how)
    views = Views(data, 3)
    count = len(data.samples)
    images = torch.cat(list(views.batches()))
    assert images.shape == (3 * count, 32, 32, 3)
    assert views.labels.tolist() == [sample.label for sample in data.samples] * 3
    assert not torch.equal(images[:count], images[count : 2 * count])
    part = torch.cat(list(views.batches(slice(3, count + 4))))
    assert torch.equal(part, images[3 : count + 4])


# -- pairs -------------------------------------------------------------------------------------------------


def test_few_pictures_give_every_pair() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    pairs = Pairs.of(labels)
    listed = {tuple(sorted(pair)) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert len(listed) == len(pairs.first) == 15
    assert np.count_nonzero(pairs.same) == 4
    assert np.array_equal(labels[pairs.first] == labels[pairs.second], pairs.same)


def test_many_pictures_give_drawn_pairs_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_pairs, "LIMIT", 3000)
    monkeypatch.setattr(embed_pairs, "GRID", 10_000)
    labels = np.repeat(np.arange(40), [150] + [20] * 39)
    pairs = Pairs.of(labels)
    assert np.array_equal(labels[pairs.first] == labels[pairs.second], pairs.same)
    assert np.count_nonzero(pairs.same) == np.count_nonzero(~pairs.same) == 3000
    assert (pairs.first != pairs.second).all()
    assert len(np.unique(labels[pairs.first])) == 40
    again = Pairs.of(labels)
    assert np.array_equal(again.first, pairs.first)
    vectors = np.random.default_rng(0).normal(size=(len(labels), 8)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = np.sum(unit[pairs.first] * unit[pairs.second], 1)
    monkeypatch.setattr(embed_pairs, "CHUNK", 700)
    np.testing.assert_allclose(pairs.similarities(vectors), wanted, atol=1e-6)


def drawn() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    same = generator.random(400) < 0.3
    return np.round(generator.normal(same * 1.0, 1.0), 1) / 5, same


def test_the_balanced_threshold_is_the_best_there_is() -> None:
    scores, same = drawn()
    threshold, value = balanced_threshold(roc(scores, same))
    assert at_threshold(scores, same, threshold)["balanced_accuracy"] == pytest.approx(value)
    every = [at_threshold(scores, same, one)["balanced_accuracy"] for one in np.unique(scores)]
    assert value == pytest.approx(max(every))
    assert calibrated(scores, same, None) == threshold
    assert np.isfinite(balanced_threshold(roc(-scores, same))[0]), "a model worse than chance has one too"


def test_a_threshold_for_a_rate() -> None:
    scores, same = drawn()
    threshold = calibrated(scores, same, 0.05)
    assert 0.02 < at_threshold(scores, same, threshold)["far"] <= 0.05
    pairs = Pairs.of(np.array([0, 0, 1, 1]))
    check_far(pairs, 0.25)
    check_far(pairs, None)
    with pytest.raises(ArgumentError, match=r"--far 0.1 cannot be seen in 4 pairs"):
        check_far(pairs, 0.1)
