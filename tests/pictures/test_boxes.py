"""Data sets of boxes: the three layouts, what is wrong in them by file and line, and files that mean harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError, DataError
from mobilenet.pictures.boxes import read_boxes, without_ignored

SPLITS = {"train": ("a", "b", "c"), "val": ("d",), "test": ("e",)}


def picture(path: Path, size: tuple[int, int] = (40, 30), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path, exif=exif)
    return path


def voc_text(name: str, *objects: str, size: tuple[int, int] = (40, 30)) -> str:
    sides = f"<size>\n<width>{size[0]}</width>\n<height>{size[1]}</height>\n</size>"
    return "\n".join([f"<annotation>\n<filename>{name}</filename>", sides, *objects, "</annotation>"])


def voc_object(name: str = "cell", box: tuple[Any, ...] = (1, 2, 11, 22), difficult: int = 0) -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>\n<bndbox>{sides}</bndbox></object>"


def voc(root: Path, objects: dict[str, list[str]] | None = None, splits: bool = True) -> Path:
    for split, names in SPLITS.items():
        for name in names:
            picture(root / "JPEGImages" / f"{name}.jpg")
            file = root / "Annotations" / f"{name}.xml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(voc_text(f"C:\\data\\{name}.jpg", *(objects or {}).get(name, [voc_object()])))
        if splits:
            listed = root / "ImageSets" / "Main" / f"{split}.txt"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("".join(f"{name}\n" for name in names))
    return root


def coco_content(names: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.jpg", "width": 40, "height": 30} for n, name in enumerate(names)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 7, "bbox": [1, 2, 10, 20], "iscrowd": 0}
            for n in range(len(names))
        ],
        "categories": [{"id": 3, "name": "all"}, {"id": 7, "name": "cell"}],
    }
    return {**content, **changes}


def coco(root: Path) -> Path:
    for split, names in SPLITS.items():
        for name in names:
            picture(root / f"{split}2017" / f"{name}.jpg")
        file = root / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(coco_content(names)))
    return root


def yolo(root: Path, lines: dict[str, str] | None = None, description: str | None = None) -> Path:
    for split, names in SPLITS.items():
        for name in names:
            picture(root / "images" / split / f"{name}.jpg")
            labels = root / "labels" / split / f"{name}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text((lines or {}).get(name, f"1 {6 / 40} {12 / 30} {10 / 40} {20 / 30}\n"))
    text = "path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: {0: dust, 1: cell}\n"
    (root / "data.yaml").write_text(description or text)
    return root


@pytest.mark.parametrize("maker", [voc, coco, yolo])
def test_all_layouts_say_the_same(tmp_path: Path, maker: Any) -> None:
    if maker is yolo:
        pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'mobilenet[train]'")
    folder = read_boxes(maker(tmp_path))
    assert (folder.layout, folder.classes) == (maker.__name__, ("cell",))
    assert {split: len(found) for split, found in folder.splits.items()} == {"train": 3, "val": 1, "test": 1}
    for found in (one for split in folder.splits.values() for one in split):
        assert found.size == (30, 40) and found.labels.tolist() == [0] and not found.ignored.any()
        assert found.boxes.tolist() == [pytest.approx([1, 2, 11, 22], abs=1e-4)]
    assert folder.counts("train") == {"cell": 3}
    assert folder.unused == (() if maker is voc else ("all",) if maker is coco else ("dust",))


def test_bccd(shared: Path) -> None:
    """Two boxes of the real data set have no area; they are named by file and line."""
    root = shared / "data" / "bccd"
    with pytest.raises(DataError) as raised:
        read_boxes(root)
    text = str(raised.value)
    assert "2 things are wrong" in text
    assert "BloodImage_00343.xml, line 55: the box (181, 329, 181, 329) has no area" in text
    assert "BloodImage_00338.xml, line 163" in text
    folder = read_boxes(root, on_bad_box="skip")
    assert folder.classes == ("Platelets", "RBC", "WBC") and len(folder.skipped) == 2
    assert [len(folder.splits[split]) for split in ("train", "val", "test")] == [205, 87, 72]


def test_what_is_not_split_is_split_here_the_same_every_time(tmp_path: Path) -> None:
    root = voc(tmp_path, splits=False)
    folder, again = read_boxes(root, seed=3), read_boxes(root, seed=3)
    assert list(folder.splits) == ["train", "val", "test"] and sum(map(len, folder.splits.values())) == 5
    assert [[p.path for p in s] for s in folder.splits.values()] == [
        [p.path for p in s] for s in again.splits.values()
    ]


def test_val_is_taken_from_train_and_test_from_nothing(tmp_path: Path) -> None:
    root = voc(tmp_path)
    for name in ("val", "test"):
        (root / "ImageSets" / "Main" / f"{name}.txt").unlink()
    folder = read_boxes(root)
    assert {split: len(found) for split, found in folder.splits.items()} == {"train": 2, "val": 1}


def test_other_homes_of_the_layouts(tmp_path: Path) -> None:
    """A folder a split, with the annotations beside the pictures, as Roboflow writes them."""
    for split, names in {"train": ("a", "b"), "valid": ("c",)}.items():
        for name in names:
            picture(tmp_path / "voc" / split / f"{name}.jpg")
            (tmp_path / "voc" / split / f"{name}.xml").write_text(voc_text(f"{name}.jpg", voc_object()))
            picture(tmp_path / "coco" / split / f"{name}.jpg")
        (tmp_path / "coco" / split / "_annotations.coco.json").write_text(json.dumps(coco_content(names)))
    for layout in ("voc", "coco"):
        folder = read_boxes(tmp_path / layout)
        assert folder.layout == layout and {s: len(p) for s, p in folder.splits.items()} == {"train": 2, "val": 1}


def test_one_json_file_is_split_here(tmp_path: Path) -> None:
    for name in "abcdef":
        picture(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "cells.json").write_text(json.dumps(coco_content(tuple("abcdef"))))
    assert sum(map(len, read_boxes(tmp_path / "cells.json").splits.values())) == 6


def test_crowds_and_difficult_ones_are_marked(tmp_path: Path) -> None:
    root = voc(tmp_path, {"a": [voc_object(difficult=1), voc_object("plate")]})
    found = read_boxes(root).splits["train"][0]
    assert found.ignored.tolist() == [True, False]
    assert without_ignored([found])[0].labels.tolist() == [1]


def test_the_classes_of_a_model(tmp_path: Path) -> None:
    root = voc(tmp_path, {"d": [voc_object("plate")]})
    folder = read_boxes(root, classes=("plate", "none", "cell"))
    assert folder.classes == ("plate", "none", "cell") and folder.counts("train") == {
        "plate": 0,
        "none": 0,
        "cell": 3,
    }
    with pytest.raises(DataError, match=r"d\.xml, line 8: unknown class 'plate'; known are cell"):
        read_boxes(root, classes=("cell",))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (voc_object(box=(5, 5, 5, 20)), "has no area"),
        (voc_object(box=(11, 22, 1, 2)), "has no area"),
        (voc_object(box=(30, 2, 45, 22)), "reaches out of the picture of 40 × 30 pixels"),
        (voc_object(box=(-9, 2, 11, 22)), "reaches out"),
        (voc_object(box=("nan", 2, 11, 22)), "side that is no number"),
        (voc_object(box=("one", 2, 11, 22)), "<xmin> is 'one', not a number"),
        (voc_object(box=("", 2, 11, 22)), "<xmin> is '', not a number"),
        ("<object><name>cell</name></object>", "line 7: the object has no bndbox"),
        (voc_object(""), "line 7: the object has no name"),
        ("<object>", "is not XML: mismatched tag"),
    ],
)
def test_bad_boxes_are_named_by_file_and_line(tmp_path: Path, thing: str, message: str) -> None:
    root = voc(tmp_path, {"a": [thing], "b": [voc_object(), voc_object(box=(39.5, 29.5, 40.9, 31))]})
    with pytest.raises(DataError) as raised:
        read_boxes(root)
    assert message in str(raised.value) and "a.xml, line " in str(raised.value)
    folder = read_boxes(root, on_bad_box="skip")
    assert len(folder.skipped) == 1
    cut = next(found for found in folder.splits["train"] if found.path.stem == "b")
    assert cut.boxes[1].tolist() == [39.5, 29.5, 40, 30]  # a tool's rounding


def test_sizes_and_pictures_are_checked(tmp_path: Path) -> None:
    root = voc(tmp_path)
    picture(root / "JPEGImages" / "a.jpg", (50, 30))
    picture(root / "JPEGImages" / "b.jpg", (40, 30), orientation=6)
    (root / "JPEGImages" / "c.jpg").write_bytes(b"no picture")
    (root / "JPEGImages" / "d.jpg").unlink()
    with pytest.raises(DataError) as raised:
        read_boxes(root)
    text = str(raised.value)
    assert "a.xml: says 40 × 30 pixels, but a.jpg has 50 × 30 pixels" in text
    assert "b.xml: says 40 × 30 pixels, but b.jpg has 30 × 40 pixels" in text
    assert "c.jpg: is not a picture of a kind that is read" in text and "there is no picture 'd.jpg'" in text
    with pytest.raises(DataError, match="train has no picture with a good box"):
        read_boxes(root, on_bad_box="skip")


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd">',
        '<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    ],
)
def test_document_types_are_refused(tmp_path: Path, head: str) -> None:
    root = voc(tmp_path)
    file = root / "Annotations" / "a.xml"
    file.write_text(head + file.read_text())
    with pytest.raises(DataError, match=r"a\.xml, line 1: has a document type or an entity"):
        read_boxes(root)


def test_deep_xml_is_refused(tmp_path: Path) -> None:
    root = voc(tmp_path)
    (root / "Annotations" / "a.xml").write_text("<a>" * 100_000)
    with pytest.raises(DataError, match="nested more than 16 deep"):
        read_boxes(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nnone\n", "train.txt, line 2: there is no annotation"),
        ("a\n\na\n", "train.txt, line 3: 'a' is in line 1 already"),
    ],
)
def test_lists_are_checked(tmp_path: Path, text: str, message: str) -> None:
    root = voc(tmp_path)
    (root / "ImageSets" / "Main" / "train.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_boxes(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "has 4 values"),
        ("0 0.5 0.5 0.1 x", "a value that is no number"),
        ("2 0.5 0.5 0.1 0.1", "unknown class 2; there are 2, 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "unknown class -1"),
        ("1 12 15 10 10", "outside 0 to 1"),
        ("1 0.5 0.5 0 0.1", "has no area"),
        ("1 0.95 0.5 0.2 0.1", "reaches out"),
        ("1 nan 0.5 0.2 0.1", "outside 0 to 1"),
    ],
)
def test_bad_yolo_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'mobilenet[train]'")
    root = yolo(tmp_path, {"a": f"1 0.5 0.5 0.1 0.1\n\n{line}\n"})
    with pytest.raises(DataError) as raised:
        read_boxes(root)
    assert "a.txt, line 3: " in str(raised.value) and message in str(raised.value)


def test_yolo_polygons_and_pictures_without_objects(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'mobilenet[train]'")
    root = yolo(tmp_path, {"a": "1 0.1 0.2 0.5 0.1 0.3 0.6\n", "b": ""})
    (root / "labels" / "train" / "c.txt").unlink()
    first, *others = read_boxes(root).splits["train"]
    assert first.boxes.tolist() == [pytest.approx([4, 3, 20, 18], abs=1e-4)]
    assert [len(other.labels) for other in others] == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "'names' is no list"),
        ("train: images/train\nnames: [a, a]\n", "'names' is no list of different"),
        ("train: images/train\nnames: [a, b]\nnc: 3\n", "'nc' is 3, but 'names' has 2"),
        ("train: images/none\nnames: [a]\n", "'train' names 'images/none', but there is no"),
        ("names: [a]\n", "names no train, val or test"),
        ("train: &a [b]\nval: *a\nnames: [a]\n", "line 2: is not YAML that is read: has an alias"),
        ("train: !!python/object/apply:os.system [ls]\nnames: [a]\n", "is not YAML that is read"),
        ("train: [\n", "is not YAML"),
        ("- a\n", "no data set's description"),
    ],
)
def test_bad_descriptions_are_refused(tmp_path: Path, text: str, message: str) -> None:
    pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'mobilenet[train]'")
    with pytest.raises(DataError, match=message):
        read_boxes(yolo(tmp_path, description=text))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "there is no category 7"),
        (
            {"annotations": [{"id": 5, "image_id": 9, "category_id": 7, "bbox": [1, 1, 2, 2]}]},
            "there is no image 9",
        ),
        ({"annotations": [{"id": 5, "image_id": 0, "category_id": 7, "bbox": [1, 1, 2]}]}, "not 4 numbers"),
        ({"annotations": [{"id": 5, "image_id": 0, "category_id": 7, "bbox": [1, 1, 0, 2]}]}, "(id 5): the box"),
        (
            {"annotations": [{"id": 5, "image_id": [], "category_id": 7, "bbox": [1, 1, 2, 2]}]},
            "there is no image",
        ),
        ({"images": [{"id": 0}]}, "images[0]: id 0 and file_name None"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "categories[1]: id 1"),
        ({"annotations": {}}, "it has no list 'annotations'"),
    ],
)
def test_bad_coco_entries_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "train.json").write_text(json.dumps(coco_content(("a",), **changes)))
    with pytest.raises(DataError) as raised:
        read_boxes(tmp_path)
    assert message in str(raised.value) and "train.json" in str(raised.value)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, '{"images": [3]}'])
def test_foreign_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(DataError, match=r"train\.json"):
        read_boxes(tmp_path)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read_boxes(tmp_path / "none")
    with pytest.raises(DataError, match="is no data set of boxes"):
        read_boxes(tmp_path)
    with pytest.raises(ArgumentError, match="stop or skip"):
        read_boxes(tmp_path, on_bad_box="ignore")
    root = voc(tmp_path)
    (root / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(ArgumentError, match="no split 'val'; it has train, test"):
        read_boxes(root, val_fraction=0).counts("val")
