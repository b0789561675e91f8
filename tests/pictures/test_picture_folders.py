"""Data sets: layouts, splits, lists, bad pictures and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError, DataError
from mobilenet.pictures.folders import (
    PictureFolder,
    Sample,
    find_bad_pictures,
    handle_bad_pictures,
    read_dataset,
    without_bad_pictures,
)
from mobilenet.pictures.sources import expand_sources


def add(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def add_classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        add(root / name, *[f"{index}.jpg" for index in range(count)])
    return root


def names_of(data: PictureFolder, split: str) -> dict[str, set[str]]:
    """Class name -> paths below the root."""
    found: dict[str, set[str]] = {name: set() for name in data.classes}
    for sample in data.splits[split]:
        found[data.classes[sample.label]].add(sample.path.relative_to(data.root).as_posix())
    return found


# --- folders that are split already ---------------------------------------------------------------------------


@pytest.mark.parametrize("val", ["val", "validation", "valid", "Val"])
def test_split_folders(val: str, tmp_path: Path) -> None:
    for split, count in (("train", 3), (val, 2), ("test", 1)):
        add_classes(tmp_path / split, {"cat": count, "dog": count + 1})
    data = read_dataset(str(tmp_path))
    assert data.classes == ("cat", "dog")
    assert list(data.splits) == ["train", "val", "test"]
    assert [data.counts(split) for split in data.splits] == [
        {"cat": 3, "dog": 4},
        {"cat": 2, "dog": 3},
        {"cat": 1, "dog": 2},
    ]
    assert names_of(data, "val")["cat"] == {f"{val}/cat/0.jpg", f"{val}/cat/1.jpg"}
    with pytest.raises(ArgumentError, match="'holdout'.*train, val, test"):
        data.counts("holdout")


def test_real_split_folders(shared: Path) -> None:
    data = read_dataset(shared / "data" / "clothing")
    assert len(data.classes) == 10
    assert sum(len(samples) for samples in data.splits.values()) == 3781
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        for label, samples in names_of(data, split).items():
            on_disk = sorted((shared / "data" / "clothing" / name / label).glob("*.jpg"))
            assert len(samples) == len(on_disk) == data.counts(split)[label]
    assert find_bad_pictures(data.splits["test"][:60]) == []


def test_without_val_a_part_of_train_becomes_val(tmp_path: Path) -> None:
    add_classes(tmp_path / "train", {"cat": 20, "dog": 40})
    add_classes(tmp_path / "test", {"cat": 2, "dog": 2})
    data = read_dataset(tmp_path, val_fraction=0.25)
    assert data.counts("train") == {"cat": 15, "dog": 30}
    assert data.counts("val") == {"cat": 5, "dog": 10}
    assert data.counts("test") == {"cat": 2, "dog": 2}
    assert all(path.startswith("train/") for path in names_of(data, "val")["cat"])
    assert "val" not in read_dataset(tmp_path, val_fraction=0).splits


def test_without_test_there_is_no_test(tmp_path: Path) -> None:
    add_classes(tmp_path / "train", {"cat": 5, "dog": 5})
    add_classes(tmp_path / "val", {"cat": 5, "dog": 5})
    assert list(read_dataset(tmp_path).splits) == ["train", "val"]


def test_a_folder_for_evaluation_only(tmp_path: Path) -> None:
    add_classes(tmp_path / "test", {"dog": 2, "cat": 1})
    data = read_dataset(tmp_path, classes=["zebra", "dog", "cat"])
    assert list(data.splits) == ["test"]
    assert data.classes == ("zebra", "dog", "cat")
    assert data.counts("test") == {"zebra": 0, "dog": 2, "cat": 1}
    assert {sample.label for sample in data.splits["test"] if sample.path.parent.name == "cat"} == {2}


def test_a_class_in_some_splits_only_is_named(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        add_classes(tmp_path / split, {"cat": 3, "dog": 3})
    add_classes(tmp_path / "val", {"newt": 3})
    with pytest.raises(DataError, match="'newt' is in val but not in train, test"):
        read_dataset(tmp_path)
    shutil.rmtree(tmp_path / "val" / "newt")
    shutil.rmtree(tmp_path / "test" / "dog")
    with pytest.raises(DataError, match="'dog' is in train, val but not in test"):
        read_dataset(tmp_path)


def test_a_folder_beside_the_splits(tmp_path: Path) -> None:
    add_classes(tmp_path / "train", {"cat": 9, "dog": 9})
    add(tmp_path / "notes", "readme.txt")
    assert read_dataset(tmp_path).counts("train") == {"cat": 8, "dog": 8}
    add(tmp_path / "birds", "1.jpg")
    with pytest.raises(DataError, match="birds.*beside"):
        read_dataset(tmp_path)


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    for split in ("train", "val", "validation"):
        add_classes(tmp_path / split, {"cat": 1, "dog": 1})
    with pytest.raises(DataError, match=r"two folders for the split val"):
        read_dataset(tmp_path)


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    add_classes(tmp_path, {"test": 5, "exam": 5})
    assert read_dataset(tmp_path).classes == ("exam", "test")


# --- folders that are split here ------------------------------------------------------------------------------


def test_the_split_is_stratified_and_complete(tmp_path: Path) -> None:
    counts = {"ant": 100, "bee": 40, "cow": 7, "doe": 3}
    data = read_dataset(add_classes(tmp_path, counts))
    by_split = {split: names_of(data, split) for split in ("train", "val", "test")}
    for name, count in counts.items():
        parts = [by_split[split][name] for split in by_split]
        assert all(parts), "every split has pictures of every class"
        assert sum(map(len, parts)) == len(set().union(*parts)) == count
    assert data.counts("val") == data.counts("test") == {"ant": 15, "bee": 6, "cow": 1, "doe": 1}


def test_the_split_is_the_same_everywhere(tmp_path: Path) -> None:
    """Written down once: a machine, a Python or an order of creation that changes it fails here."""
    data = read_dataset(add_classes(tmp_path / "a", {"cat": 12, "dog": 12}), seed=7)
    assert names_of(data, "test")["cat"] == {"cat/3.jpg", "cat/6.jpg"}
    for name in ("dog", "cat"):
        for index in reversed(range(12)):
            add(tmp_path / "b" / name, f"{index}.jpg")
    again = read_dataset(tmp_path / "b", seed=7)
    for split in data.splits:
        assert names_of(again, split) == names_of(data, split)
        assert [s.path.relative_to(again.root) for s in again.splits[split]] == [
            s.path.relative_to(data.root) for s in data.splits[split]
        ]


def test_the_split_does_not_depend_on_the_hash_seed_or_locale(tmp_path: Path) -> None:
    add_classes(tmp_path, {"é": 12, "Z": 12, "a": 12})
    code = (
        "import sys; from mobilenet.pictures.folders import read_dataset; d = read_dataset(sys.argv[1])\n"
        "print([(s, [str(p.path) for p in d.splits[s]]) for s in d.splits])"
    )
    outputs = set()
    for seed, locale in (("1", "C.UTF-8"), ("2", "POSIX")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONUTF8": "1"}
        command = [sys.executable, "-c", code, str(tmp_path)]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(outputs) == 1


def test_another_seed_gives_another_split(tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 50, "dog": 50})
    splits = [names_of(read_dataset(tmp_path, seed=seed), "test") for seed in (0, 1)]
    assert splits[0] != splits[1]


def test_a_class_does_not_move_when_another_grows(tmp_path: Path) -> None:
    before = names_of(read_dataset(add_classes(tmp_path, {"cat": 30, "dog": 30})), "test")
    after = names_of(read_dataset(add_classes(tmp_path, {"dog": 60})), "test")
    assert before["cat"] == after["cat"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_that_is_too_small_to_split_is_named(count: int, tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 10, "dodo": count})
    with pytest.raises(DataError, match=f"'dodo' has {count} picture"):
        read_dataset(tmp_path)
    if count == 2:
        assert list(read_dataset(tmp_path, test_fraction=0).splits) == ["train", "val"]


def test_train_keeps_a_picture_whatever_the_fractions(tmp_path: Path) -> None:
    data = read_dataset(add_classes(tmp_path, {"cat": 3, "dog": 4}), val_fraction=0.5, test_fraction=0.49)
    assert [data.counts(split)["cat"] for split in data.splits] == [1, 1, 1]
    assert min(data.counts("train").values()) >= 1


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1), (1.0, 0.0)])
def test_fractions(fractions: tuple[float, float], tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 10, "dog": 10})
    with pytest.raises(ArgumentError, match="fraction"):
        read_dataset(tmp_path, val_fraction=fractions[0], test_fraction=fractions[1])


# --- what is looked at ----------------------------------------------------------------------------------------


def test_dots_are_skipped_and_other_files_counted(tmp_path: Path) -> None:
    add(tmp_path / "cat", "1.JPG", "2.jpeg", "deep/er/3.Png", "notes.txt", "Thumbs.db", ".4.jpg", ".cache/5.jpg")
    add(tmp_path / "dog", "1.webp", "2.bmp", "3.gif", "4.pgm", "5.ppm")
    add(tmp_path / ".git", "6.jpg")
    add(tmp_path, "labels.csv", ".DS_Store")
    data = read_dataset(tmp_path)
    assert data.classes == ("cat", "dog")
    found = {sample.path.name for split in data.splits.values() for sample in split}
    assert sorted(found) == sorted(["1.JPG", "2.jpeg", "3.Png", "1.webp", "2.bmp", "3.gif", "4.pgm", "5.ppm"])
    assert data.ignored == 3


def test_loops_of_links_end(tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "dog" / "self").symlink_to(tmp_path / "dog" / "self")
    (tmp_path / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    data = read_dataset(tmp_path)
    everything = [sample.path for split in data.splits.values() for sample in split]
    assert len(everything) == len(set(everything))
    assert tmp_path / "dog" / "gone.jpg" in everything


def test_names_travel_as_the_same_unicode(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    add_classes(tmp_path, {decomposed: 3, "bar": 3})
    assert read_dataset(tmp_path).classes == ("bar", composed)
    assert read_dataset(tmp_path, classes=["x", composed, "bar"]).counts("test")[composed] == 1
    assert read_dataset(tmp_path, classes=["x", decomposed, "bar"]).counts("test")[decomposed] == 1
    add_classes(tmp_path, {composed: 3})
    with pytest.raises(DataError, match="same Unicode text"):
        read_dataset(tmp_path)


# --- what is refused ------------------------------------------------------------------------------------------


def test_roots_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such"):
        read_dataset(tmp_path / "nowhere")
    add(tmp_path, "list.txt")
    with pytest.raises(DataError, match=r"list\.txt: is neither"):
        read_dataset(tmp_path / "list.txt")
    with pytest.raises(DataError, match="no folders"):
        read_dataset(tmp_path)
    add(tmp_path / "train")
    with pytest.raises(DataError, match="train: has no folders"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("prefix", ["", "train"])
def test_an_empty_class_is_named(prefix: str, tmp_path: Path) -> None:
    add_classes(tmp_path / prefix, {"cat": 5, "dog": 5})
    add(tmp_path / prefix / "newt", "notes.txt")
    with pytest.raises(DataError, match="'newt' has no pictures"):
        read_dataset(tmp_path)


def test_one_class_only(tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 5})
    with pytest.raises(DataError, match="one class only, 'cat'"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, allow_single_class=True).classes == ("cat",)
    assert read_dataset(tmp_path, classes=["dog", "cat"]).counts("train") == {"dog": 0, "cat": 3}


def test_classes_that_the_model_does_not_know(tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 5, "crane": 5})
    with pytest.raises(DataError, match="'crane' is none of the model's classes \\(dog, cat\\)"):
        read_dataset(tmp_path, classes=["dog", "cat"])
    with pytest.raises(DataError, match="'crane' could be any of 2"):
        read_dataset(tmp_path, classes=["crane", "cat", "crane"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    add_classes(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "dog").chmod(0)
    try:
        with pytest.raises(DataError, match=r"dog: cannot be listed"):
            read_dataset(tmp_path)
        assert tmp_path / "dog" in set(expand_sources([str(tmp_path)]))
    finally:
        (tmp_path / "dog").chmod(0o755)


# --- lists ----------------------------------------------------------------------------------------------------


def write_list(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding=encoding, newline="")
    return path


@pytest.mark.parametrize("header", ["", "path,label\n", "Path, Label\r\n", "\ufeffpath,label\n"])
def test_a_list_is_split_here(header: str, tmp_path: Path) -> None:
    add(tmp_path / "pictures", *[f"{index}, comma.jpg" for index in range(40)])
    rows = "".join(f'"pictures/{index}, comma.jpg",{"odd" if index % 2 else "even"}\n\n' for index in range(40))
    data = read_dataset(write_list(tmp_path, header + rows))
    assert data.classes == ("even", "odd")
    assert [data.counts(split) for split in data.splits] == [
        {"even": 14, "odd": 14},
        {"even": 3, "odd": 3},
        {"even": 3, "odd": 3},
    ]
    for sample in data.splits["train"]:
        assert sample.path.is_file()
        assert data.classes[sample.label] == ("odd" if int(sample.path.name.split(",")[0]) % 2 else "even")


def test_a_list_with_splits(tmp_path: Path) -> None:
    elsewhere = add(tmp_path / "elsewhere", "1.jpg")
    add(tmp_path / "lists", "a.jpg", "b.jpg", "c.jpg")
    rows = [
        "path,label,split",
        f"{elsewhere / '1.jpg'},cat,train",
        "a.jpg,dog,Train",
        "b.jpg,cat,VALID",
        "c.jpg,dog,val",
    ]
    data = read_dataset(write_list(tmp_path / "lists", "\n".join(rows)))
    assert data.counts("train") == data.counts("val") == {"cat": 1, "dog": 1}
    assert data.splits["train"][0] == Sample(elsewhere / "1.jpg", 0)
    with pytest.raises(DataError, match="'dog' is in train but not in val"):
        read_dataset(write_list(tmp_path / "lists", "\n".join(rows[:-1])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pictures"),
        ("path,label\n", "lists no pictures"),
        ("a.jpg,cat\nb.jpg\n", "line 2: has 1 cells"),
        ("a.jpg;cat\n", "line 1: has 1 cells.*commas"),
        ("a.jpg,cat,train\nb.jpg,dog\n", "line 2: has 2 cells, expected path,label,split"),
        ("a.jpg,cat,train,x\n", "line 1: has 4 cells"),
        ("path,label\n\na.jpg,cat\nnowhere.jpg,dog\n", r"line 4: there is no file .*nowhere\.jpg"),
        ("filename,category\na.jpg,cat\n", "line 1: there is no file.*header"),
        ("a.jpg,\n", "line 1: the label is empty"),
        (",cat\n", "line 1: the path is empty"),
        ("a.jpg,cat\nb.jpg,dog\na.jpg,dog\n", r"line 3: 'a\.jpg' is listed in line 1"),
        ("a.jpg,cat,holdout\n", "line 1: the split 'holdout' is not one of train, val"),
        ('a.jpg,"cat\n', "line 1: is not CSV"),
        ("a.jpg,cat\nb\0.jpg,dog\n", "line 2"),
        (".,cat\n", "line 1: there is no file"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    add(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(write_list(tmp_path, text))
    assert "list.csv" in str(caught.value)


def test_a_list_in_another_encoding(tmp_path: Path) -> None:
    add(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"list\.csv.*UTF-8"):
        read_dataset(write_list(tmp_path, "a.jpg,caf\xe9\n", encoding="latin-1"))


def test_a_list_that_is_very_long_in_one_cell(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list\.csv, line 1"):
        read_dataset(write_list(tmp_path, "x" * 200_000 + ",cat\n"))


# --- bad pictures ---------------------------------------------------------------------------------------------


@pytest.fixture
def with_bad(tmp_path: Path) -> PictureFolder:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for index in range(20):
            path = add(tmp_path / name) / f"{index:02}.png"
            Image.fromarray(random.integers(0, 256, (9, 9, 3)).astype(np.uint8)).save(path)
    (tmp_path / "cat" / "03.png").write_bytes(b"")
    (tmp_path / "cat" / "11.png").write_bytes((tmp_path / "cat" / "12.png").read_bytes()[:-40])
    (tmp_path / "dog" / "05.png").write_text("<html>404</html>")
    return read_dataset(tmp_path)


@pytest.mark.parametrize("threads", [1, 4])
def test_bad_pictures_are_found_in_order_with_reasons(with_bad: PictureFolder, threads: int) -> None:
    samples = sorted((s for split in with_bad.splits.values() for s in split), key=lambda sample: sample.path)
    seen: list[tuple[int, int]] = []
    bad = find_bad_pictures(samples, threads=threads, progress=lambda done, total: seen.append((done, total)))
    assert [path.relative_to(with_bad.root).as_posix() for path, _ in bad] == [
        "cat/03.png",
        "cat/11.png",
        "dog/05.png",
    ]
    for (path, reason), word in zip(bad, ("empty", "truncated", "not a picture"), strict=True):
        assert word in reason
        assert path.name not in reason
    assert seen[-1] == (40, 40)


def test_skip_leaves_them_out(with_bad: PictureFolder) -> None:
    good, bad = handle_bad_pictures(with_bad, "skip")
    assert len(bad) == 3
    total = {name: sum(good.counts(split)[name] for split in good.splits) for name in good.classes}
    assert total == {"cat": 18, "dog": 19}
    assert handle_bad_pictures(good, "stop") == (good, [])


def test_stop_lists_them(with_bad: PictureFolder) -> None:
    with pytest.raises(DataError, match="3 of 40 pictures cannot be read") as caught:
        handle_bad_pictures(with_bad, "stop")
    for name in ("cat/03.png: ", "cat/11.png: ", "dog/05.png: "):
        assert name in str(caught.value)


def test_stop_lists_ten_of_many(tmp_path: Path) -> None:
    data = read_dataset(add_classes(tmp_path, {"cat": 12, "dog": 4}))
    with pytest.raises(DataError, match="and 6 more") as caught:
        handle_bad_pictures(data, "stop")
    assert str(caught.value).count(".jpg") == 10


def test_skipping_every_picture_of_a_class_is_an_error(with_bad: PictureFolder) -> None:
    bad = [(sample.path, "") for sample in with_bad.splits["val"] if with_bad.classes[sample.label] == "dog"]
    with pytest.raises(DataError, match="every picture of class 'dog' in val is bad"):
        without_bad_pictures(with_bad, bad)


def test_arguments_about_bad_pictures(with_bad: PictureFolder) -> None:
    with pytest.raises(ArgumentError, match="'ignore'"):
        handle_bad_pictures(with_bad, "ignore")
    with pytest.raises(ArgumentError, match="threads"):
        find_bad_pictures([], threads=0)
    assert find_bad_pictures([]) == []


def test_a_link_that_leads_nowhere_is_a_bad_picture(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    assert find_bad_pictures([Sample(tmp_path / "gone.jpg", 0)]) == [(tmp_path / "gone.jpg", "no such file")]
