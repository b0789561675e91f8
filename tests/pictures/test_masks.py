"""Data sets with masks: layouts, splits, classes; whatever does not fit is an error or a named skip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.pictures.mask_file import read_class_list, read_class_map
from mobilenet.pictures.mask_set import check_masks, load
from mobilenet.pictures.masks import VOC_CLASSES, read_masks
from mobilenet.pictures.masks_coco import Region, region_mask
from mobilenet.pictures.palette import palette_image
from mobilenet.pictures.run_lengths import to_coco


def picture(path: Path, height: int = 6, width: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 100, np.uint8)).save(path)


def mask(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = np.zeros((6, 8), np.uint8)
        values[2:4, 2:5] = 1
    Image.fromarray(values).save(path)


def folder(root: Path, count: int = 8, labels: str | None = "background\ncell\n") -> Path:
    for number in range(count):
        picture(root / "images" / f"p{number}.jpg")
        mask(root / "masks" / f"p{number}.png")
    if labels is not None:
        (root / "labels.txt").write_text(labels)
    return root


def test_pairs_are_split_the_same_everywhere(tmp_path: Path) -> None:
    found = read_masks(folder(tmp_path, 20), seed=1)
    assert found.classes == ("background", "cell")
    assert {split: len(samples) for split, samples in found.splits.items()} == {"train": 14, "val": 3, "test": 3}
    again = read_masks(folder(tmp_path, 20), seed=1)
    assert found.splits == again.splits
    assert read_masks(tmp_path, seed=2).splits != found.splits
    image, classes = load(found.samples("train")[0], 2)
    assert image.shape == (6, 8, 3) and classes.sum() == 6
    assert len(found.samples("all")) == 20
    with pytest.raises(DataError, match="no split 'trian'"):
        found.samples("trian")


def test_lists_of_names_split(tmp_path: Path) -> None:
    folder(tmp_path, 4)
    (tmp_path / "train.txt").write_text("p0\np1.jpg\n\n")
    (tmp_path / "test.txt").write_text("p3\n")
    found = read_masks(tmp_path, val_fraction=0)
    assert {split: [s.path.stem for s in samples] for split, samples in found.splits.items()} == {
        "train": ["p0", "p1"],
        "test": ["p3"],
    }
    (tmp_path / "val.txt").write_text("p1\n")
    with pytest.raises(DataError, match=r"val\.txt, line 1: 'p1' is in train\.txt already"):
        read_masks(tmp_path)
    (tmp_path / "val.txt").write_text("p9\n")
    with pytest.raises(DataError, match=r"val\.txt, line 1: 'p9' is no picture with a mask"):
        read_masks(tmp_path)


def test_folders_of_splits_in_both_orders(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        folder(tmp_path / "a" / split, 2, labels=None)
        for number in range(2):
            picture(tmp_path / "b" / "images" / split / f"{number}.png")
            mask(tmp_path / "b" / "masks" / split / f"{number}.png")
    for name in ("a", "b"):
        (tmp_path / name / "classes.txt").write_text("x\ny\n")
        found = read_masks(tmp_path / name)
        assert {split: len(samples) for split, samples in found.splits.items()} == {
            "train": 2,
            "val": 2,
            "test": 2,
        }
        assert found.classes == ("x", "y")


def test_a_val_is_taken_off_train_and_a_test_set_never_made(tmp_path: Path) -> None:
    folder(tmp_path / "train", 10, labels=None)
    found = read_masks(tmp_path, val_fraction=0.2, classes=("a", "b"))
    assert {split: len(samples) for split, samples in found.splits.items()} == {"train": 8, "val": 2}


def test_a_missing_half_is_an_error_or_a_named_skip(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "masks" / "p1.png").unlink()
    (tmp_path / "images" / "p2.jpg").unlink()
    with pytest.raises(
        DataError, match=r"2 pictures or masks.*\n.*p1\.jpg: has no mask.*\n.*p2\.png: has no picture"
    ):
        read_masks(tmp_path)
    found = read_masks(tmp_path, on_missing="skip")
    assert len(found.samples("all")) == 6
    assert [path.name for path, _ in found.skipped] == ["p1.jpg", "p2.png"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "has no folders images/ and masks/"),
        (lambda root: [(root / n).mkdir() for n in ("images", "masks")], "has no picture with a mask"),
        (lambda root: picture(folder(root) / "images" / "p1.png"), "has the name of p1.jpg but for its ending"),
        (lambda root: folder(root, labels="a\na\n"), r"labels\.txt: two classes have the name 'a'"),
        (lambda root: folder(root, labels="\n# none\n"), r"labels\.txt: 0 classes"),
        (lambda root: folder(root, labels="a:1,2,3\nb\n"), "1 of 2 classes have a colour"),
        (lambda root: folder(root, labels="a:1,2,300\n"), "line 1: '1,2,300' is no colour"),
    ],
)
def test_other_layouts_are_errors(prepare: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        read_masks(tmp_path)


def test_no_such_folder_and_no_such_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is neither a folder"):
        read_masks(tmp_path / "none")
    with pytest.raises(ArgumentError, match="on_missing is stop or skip"):
        read_masks(folder(tmp_path), on_missing="go")
    with pytest.raises(ArgumentError, match="leave nothing to train on"):
        read_masks(tmp_path, val_fraction=0.6, test_fraction=0.5)


def test_classes_without_names_are_numbers_or_vocs(tmp_path: Path) -> None:
    folder(tmp_path / "n", 4, labels=None)
    mask(tmp_path / "n" / "masks" / "p3.png", np.where(np.eye(6, 8) > 0, 255, 4).astype(np.uint8))
    assert read_masks(tmp_path / "n").classes == ("0", "1", "2", "3", "4")
    folder(tmp_path / "v", 4, labels=None)
    for number in range(4):
        palette_image(np.full((6, 8), 15, np.uint8)).save(tmp_path / "v" / "masks" / f"p{number}.png")
    assert read_masks(tmp_path / "v").classes == VOC_CLASSES


def bad_sets(root: Path) -> dict[str, str]:
    """Masks that cannot be used, by name, with what is said of each."""
    folder(root, 12)
    mask(root / "masks" / "p1.png", np.zeros((8, 6), np.uint8))
    mask(root / "masks" / "p2.png", np.full((6, 8), 2, np.uint8))
    (root / "masks" / "p3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (root / "images" / "p4.jpg").write_bytes(b"")
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(root / "masks" / "p5.png", format="JPEG")
    mask(root / "masks" / "p6.png", np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8))
    mask(root / "masks" / "p7.png", np.full((6, 8), 700, np.uint16))
    return {
        "p1": r"p1\.png: has 6 x 8 pixels, but its picture has 8 x 6; the picture is turned by its EXIF",
        "p2": r"p2\.png: pixel \(0, 0\) is 2, but there are 2 classes, 0 to 1",
        "p3": r"p3\.png: cannot be decoded",
        "p4": r"p4\.jpg: the file is empty",
        "p5": r"p5\.png: is a JPEG file, which does not keep a mask's values",
        "p6": r"p6\.png: is in colour; save class numbers",
        "p7": r"p7\.png: holds the value 700",
    }


def test_bad_masks_are_named_before_training(tmp_path: Path) -> None:
    bad = bad_sets(tmp_path)
    found = read_masks(tmp_path, val_fraction=0, test_fraction=0)
    for name, message in bad.items():
        sample = next(s for s in found.samples("all") if s.path.stem == name)
        with pytest.raises((DataError, ImageError), match=message):
            load(sample, 2)
    with pytest.raises(DataError, match="7 of 12 pictures or masks cannot be used") as caught:
        check_masks(found)
    assert all(f"{name}." in str(caught.value) for name in bad)
    survey = check_masks(found, on_bad="skip")
    assert len(survey.folder.samples("all")) == 5
    assert {path.stem for path, _ in survey.folder.skipped} == set(bad)
    assert sum(counts.sum() for counts in survey.pixels.values()) == 5 * 48


def test_a_survey_counts_pixels_and_names_absent_classes(tmp_path: Path) -> None:
    folder(tmp_path, 8, labels="background\ncell\nnothing\n")
    values = np.zeros((6, 8), np.uint8)
    values[0] = 255
    mask(tmp_path / "masks" / "p0.png", values)
    calls: list[tuple[int, int]] = []
    survey = check_masks(read_masks(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert sum(survey.pixels.values()).tolist() == [7 * 42 + 40, 7 * 6, 0, 8]
    assert survey.absent("train") == ("nothing",)
    assert calls[-1] == (8, 8)
    with pytest.raises(ArgumentError, match="on_bad is stop or skip"):
        check_masks(survey.folder, on_bad="x")


def test_a_split_of_which_nothing_is_left(tmp_path: Path) -> None:
    folder(tmp_path, 3)
    for split, name in (("train", "p0"), ("val", "p1"), ("test", "p2")):
        (tmp_path / f"{split}.txt").write_text(name)
    mask(tmp_path / "masks" / "p1.png", np.full((6, 8), 9, np.uint8))
    with pytest.raises(DataError, match="no picture of val can be used"):
        check_masks(read_masks(tmp_path), on_bad="skip")


def test_masks_of_0_and_255_are_asked_about(tmp_path: Path) -> None:
    folder(tmp_path, 5)
    for number in range(5):
        mask(tmp_path / "masks" / f"p{number}.png", np.where(np.eye(6, 8) > 0, 255, 0).astype(np.uint8))
    with pytest.raises(DataError, match="hold 0 and 255 alone"):
        check_masks(read_masks(tmp_path))


def test_every_kind_of_file_gives_the_same_classes(tmp_path: Path) -> None:
    values = np.zeros((6, 8), np.uint8)
    values[2:4, 2:5] = 1
    Image.fromarray(values).save(tmp_path / "l.png")
    palette_image(values).save(tmp_path / "p.png")
    palette_image(values).save(tmp_path / "p.gif")
    Image.fromarray(values).save(tmp_path / "l.bmp")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "i.png")
    Image.fromarray(values.astype(bool)).save(tmp_path / "one.png")
    Image.fromarray(values[..., None].repeat(3, 2)).save(tmp_path / "rgb.png")
    for path in sorted(tmp_path.iterdir()):
        assert (read_class_map(path) == values).all(), path.name
    colours = ((0, 0, 0), (200, 10, 30))
    Image.fromarray(np.array(colours, np.uint8)[values]).save(tmp_path / "c.png")
    assert (read_class_map(tmp_path / "c.png", colours) == values).all()
    with pytest.raises(DataError, match=r"pixel \(2, 2\) has the colour 200, 10, 30, which no class has"):
        read_class_map(tmp_path / "c.png", ((0, 0, 0), (1, 2, 3)))


def test_cvats_labelmap(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncell:128,0,0::\n")
    found = read_class_list(tmp_path / "labelmap.txt")
    assert (found.names, found.colours) == (("background", "cell"), ((0, 0, 0), (128, 0, 0)))
    Image.fromarray(np.array([[[0, 0, 0], [128, 0, 0], [224, 224, 192]]], np.uint8)).save(tmp_path / "m.png")
    assert read_class_map(tmp_path / "m.png", found.colours).tolist() == [[0, 1, 255]]


def coco(tmp_path: Path, **changes: Any) -> Path:
    picture(tmp_path / "images" / "a.jpg", 40, 60)
    run = np.zeros((40, 60), bool)
    run[30:, 50:] = True
    ring = np.ones((10, 10), bool)
    ring[3:7, 3:7] = False
    whole = np.zeros((40, 60), bool)
    whole[:10, :10] = ring
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]},
            {"image_id": 7, "category_id": 9, "segmentation": [[15, 15, 20, 15, 20, 20, 15, 20]]},
            {"image_id": 7, "category_id": 9, "segmentation": to_coco(run), "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "segmentation": to_coco(whole)},
        ],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_cocos_polygons_runs_holes_and_crowds(tmp_path: Path) -> None:
    found = read_masks(coco(tmp_path), val_fraction=0, test_fraction=0)
    assert found.classes == ("background", "cat", "dog")
    _, classes = load(found.samples("train")[0], 3)
    expected = np.zeros((40, 60), np.uint8)
    expected[10:30, 10:30] = 1
    expected[15:20, 15:20] = 2  # the smaller one lies on top
    expected[30:, 50:] = 255
    expected[:10, :10] = 1
    expected[3:7, 3:7] = 0
    differing = classes != expected
    assert differing.mean() < 0.04
    assert (classes == expected)[12:28, 12:28].mean() > 0.95
    assert (classes[30:, 50:] == 255).all() and (classes[3:7, 3:7] == 0).all()


def inside(points: list[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd rule."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            crossings += 1
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_polygon_covers_the_pixels_whose_centre_it_holds(seed: int) -> None:
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 9))
    radii = random.uniform(15, 45, 9)
    points = [(50 + r * np.cos(a), 48 + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    found = region_mask(Region(1, (tuple(np.ravel(points).tolist()),)), (100, 110))
    expected = np.array([[inside(points, x + 0.5, y + 0.5) for x in range(110)] for y in range(100)])
    assert (found & expected).sum() / (found | expected).sum() > 0.94


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "no list 'images'"),
        ({"categories": [{"id": 1, "name": ""}]}, "category 0 needs an id"),
        ({"categories": [{"id": 3, "name": "cat"}]}, "annotation 1: the category 9 is not among"),
        ({"images": [{"id": 7, "file_name": "a.jpg"}]}, "image 0: height and width"),
        ({"images": [{"id": "7", "file_name": "a.jpg"}]}, "image 0: needs an id"),
        ({"images": []}, "annotations are of the image 7, which is not there"),
        ({"annotations": [{"image_id": 7, "category_id": 3}]}, "annotation 0: has no segmentation"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "segmentation": [[1, 2, 3]]}]}, "a polygon is"),
        (
            {"annotations": [{"image_id": 7, "category_id": 3, "segmentation": [[1, 2, 3, 4, 5, float("nan")]]}]},
            "a polygon is",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 3, "segmentation": [[1e300] * 6]}]}, "a polygon is"),
        ({"annotations": [3]}, "annotation 0: needs an image_id"),
    ],
)
def test_bad_coco_files_name_the_entry(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_masks(coco(tmp_path, **changes))


def test_coco_pictures_that_are_missing_or_elsewhere(tmp_path: Path) -> None:
    files = ["a.jpg", "none.jpg", "../secret.jpg", "/etc/passwd"]
    images = [{"id": 7 + n, "file_name": file, "height": 40, "width": 60} for n, file in enumerate(files)]
    picture(tmp_path.parent / "secret.jpg", 40, 60)
    path = coco(tmp_path, images=images)
    with pytest.raises(DataError, match="3 pictures or masks have no other half"):
        read_masks(path)
    found = read_masks(path, on_missing="skip", val_fraction=0, test_fraction=0)
    assert len(found.skipped) == 3 and len(found.samples("train")) == 1


def test_coco_says_another_size_than_the_picture_has(tmp_path: Path) -> None:
    path = coco(tmp_path, images=[{"id": 7, "file_name": "a.jpg", "height": 60, "width": 40}])
    found = read_masks(path, val_fraction=0, test_fraction=0)
    with pytest.raises(DataError, match="has 60 x 40 pixels, but the annotations say 40 x 60"):
        load(found.samples("train")[0], 3)


@pytest.mark.parametrize("text", ["", "[1, 2", "[" * 100_000, '{"images": 1}', "nul"])
def test_damaged_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        read_masks(tmp_path / "x.json")
