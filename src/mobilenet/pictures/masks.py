"""Data sets of pictures with a mask each. A mask says for every pixel which class it is of; 255 means none.

Read are

- `ROOT/images/` and `ROOT/masks/`, paired by the files' names without their endings, at any depth (the folders
  below must be the same); split by `ROOT/{train,val,test}.txt` (a name a line), by the folders
  `images/{train,val,test}/`, or here, seeded and the same on every machine;
- `ROOT/{train,val,test}/images/` and `.../masks/`;
- COCO's JSON files: see `masks_coco`.

Classes are named by `labels.txt`, `classes.txt` or `labelmap.txt` in ROOT. Without one they are Pascal VOC's 21
where the masks carry VOC's palette, else the numbers from 0 to the highest that any mask has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mobilenet.errors import ArgumentError, DataError, ImageError
from mobilenet.pictures.mask_file import LABEL_FILES, ClassList, is_voc_palette, read_class_list, read_class_map
from mobilenet.pictures.mask_set import Bad, MaskFile, MaskFolder, MaskSample, listed
from mobilenet.pictures.palette import IGNORED
from mobilenet.pictures.picture_list import SPLIT_NAMES
from mobilenet.pictures.split import NamedPicture, check_fractions, split_pictures
from mobilenet.pictures.walk import is_file, is_folder, is_picture_name, list_folder, walk_files

SPLITS = ("train", "val", "test")
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_masks(
    root: str | Path,
    *,
    classes: Sequence[str] | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    on_missing: str = "stop",
) -> MaskFolder:
    """Finds pictures and their masks. No picture is opened, and a mask only where the classes are not named.

    Args:
        root: a folder, or a JSON file of COCO's form.
        classes: names in the order of the masks' values, in place of those of a file.
        val_fraction, test_fraction, seed: as in `folders.read_dataset`.
        on_missing: "stop", or "skip": what has no other half is left out and listed in `skipped`.

    Raises:
        ArgumentError: an impossible fraction or `on_missing`.
        DataError: another layout, no picture, two files of one name, or one half of a pair is missing.
    """
    root = Path(root)
    if on_missing not in ("stop", "skip"):
        raise ArgumentError(f"on_missing is stop or skip, not {on_missing!r}")
    fractions = {"val": val_fraction, "test": test_fraction}
    check_fractions(fractions)
    if is_file(root) and root.suffix.lower() == ".json":
        from mobilenet.pictures.masks_coco import read_coco_masks

        found = read_coco_masks(root, classes)
    elif is_folder(root):
        found = _read_folder(root, classes)
    else:
        raise DataError(f"{root}: is neither a folder with images/ and masks/ nor a .json file of COCO's form")
    if found.skipped and on_missing == "stop":
        raise DataError(listed(root, "pictures or masks have no other half; on_bad_picture=skip", found.skipped))
    if not any(found.splits.values()):
        raise DataError(f"{root}: has no picture with a mask")
    return replace(found, splits=_complete(root, found.splits, fractions, seed))


def _read_folder(root: Path, classes: Sequence[str] | None) -> MaskFolder:
    naming = next((root / name for name in LABEL_FILES if is_file(root / name)), None)
    known = read_class_list(naming) if naming else None
    found: dict[str, list[tuple[str, MaskSample]]] = {}
    skipped: list[Bad] = []
    for split, base in _places(root):
        pairs, alone = _paired(base / "images", base / "masks", known)
        found.setdefault(split, []).extend(pairs)
        skipped += alone
    if list(found) == [""]:
        found = _by_lists(root, found[""]) or _by_folders(found[""])
    splits = {split: tuple(sample for _, sample in found[split]) for split in ("", *SPLITS) if split in found}
    if classes is None:
        classes = known.names if known else _numbered(splits)
    return MaskFolder(root, ClassList(tuple(classes)).names, splits, tuple(skipped))


def _places(root: Path) -> list[tuple[str, Path]]:
    """(split, folder with images/ and masks/); the split "" where it is not known yet."""
    if is_folder(root / "images") and is_folder(root / "masks"):
        return [("", root)]
    places = [
        (SPLIT_NAMES[path.name.lower()], path)
        for path in list_folder(root)
        if path.name.lower() in SPLIT_NAMES and is_folder(path / "images") and is_folder(path / "masks")
    ]
    if not places:
        raise DataError(f"{root}: has no folders images/ and masks/, nor train/images/ and train/masks/")
    return places


def _paired(images: Path, masks: Path, known: ClassList | None) -> tuple[list[tuple[str, MaskSample]], list[Bad]]:
    """(name below the folder without its ending, sample) of each pair, and the files without another half."""
    of_images, of_masks = _by_name(images), _by_name(masks)
    colours = known.colours if known else ()
    pairs = [
        (name, MaskSample(path, MaskFile(of_masks[name], colours)))
        for name, path in of_images.items()
        if name in of_masks
    ]
    alone = [(path, f"has no mask {masks / name}.png") for name, path in of_images.items() if name not in of_masks]
    alone += [(path, f"has no picture in {images}") for name, path in of_masks.items() if name not in of_images]
    return pairs, alone


def _by_name(folder: Path) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in walk_files(folder):
        if not is_picture_name(path):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in named:
            raise DataError(f"{path}: has the name of {named[name].name} but for its ending; rename one")
        named[name] = path
    return named


def _by_lists(root: Path, pairs: list[tuple[str, MaskSample]]) -> dict[str, list[tuple[str, MaskSample]]]:
    """As the files train.txt, val.txt and test.txt say; empty if there are none."""
    by_name = dict(pairs)
    splits: dict[str, list[tuple[str, MaskSample]]] = {}
    first: dict[str, Path] = {}
    for split in SPLITS:
        path = root / f"{split}.txt"
        if not is_file(path):
            continue
        splits[split] = []
        for number, line in enumerate(_lines(path), 1):
            if not (name := line.strip()):
                continue
            key = name if name in by_name else Path(name).with_suffix("").as_posix()
            if key not in by_name:
                raise DataError(f"{path}, line {number}: {name!r} is no picture with a mask in {root}")
            if key in first:
                raise DataError(f"{path}, line {number}: {name!r} is in {first[key].name} already")
            first[key] = path
            splits[split].append((key, by_name[key]))
    return splits


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _by_folders(pairs: list[tuple[str, MaskSample]]) -> dict[str, list[tuple[str, MaskSample]]]:
    """By the first folder below images/, if all lie in one of a split's name; else all as not split yet."""
    splits: dict[str, list[tuple[str, MaskSample]]] = {}
    for name, sample in pairs:
        top = name.partition("/")[0].lower() if "/" in name else ""
        if top not in SPLIT_NAMES:
            return {"": pairs}
        splits.setdefault(SPLIT_NAMES[top], []).append((name, sample))
    return splits


def _numbered(splits: Mapping[str, Iterable[MaskSample]]) -> tuple[str, ...]:
    """The classes of masks that nobody names; bad masks are for `check_masks` to find."""
    highest, voc = 0, True
    for samples in splits.values():
        for sample in samples:
            assert isinstance(sample.mask, MaskFile)
            try:
                classes = read_class_map(sample.mask.path)
                voc = voc and is_voc_palette(sample.mask.path)
            except (ImageError, DataError):
                continue
            known = classes[classes != IGNORED]
            highest = max(highest, int(known.max())) if known.size else highest
    if voc and highest < len(VOC_CLASSES):
        return VOC_CLASSES
    return tuple(str(number) for number in range(highest + 1))


def _complete(
    root: Path, splits: dict[str, tuple[MaskSample, ...]], fractions: Mapping[str, float], seed: int
) -> dict[str, tuple[MaskSample, ...]]:
    """Splits what is not split yet, and a val off train where there is none."""
    divide = partial(_divided, root, seed=seed)
    if "" in splits:
        return divide(splits[""], fractions)
    if "train" in splits and "val" not in splits and fractions["val"]:
        parts = divide(splits["train"], {"val": fractions["val"]})
        return {name: {**splits, **parts}[name] for name in SPLITS if name in parts or name in splits}
    return splits


def _divided(
    root: Path, samples: Sequence[MaskSample], fractions: Mapping[str, float], *, seed: int
) -> dict[str, tuple[MaskSample, ...]]:
    by_path = {sample.path: sample for sample in samples}
    named = [NamedPicture(path, "all", _key(path, root)) for path in by_path]
    parts = split_pictures(named, fractions, seed)
    return {split: tuple(by_path[picture.path] for picture in part) for split, part in parts.items()}


def _key(path: Path, root: Path) -> str:
    base = root if is_folder(root) else root.parent
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
