"""What is checked before a run writes anything: pictures, batch, and that a resumed run is the same run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mobilenet.errors import DataError, TrainingError
from mobilenet.graph.ops import BatchNorm
from mobilenet.learn.start import Start, fingerprint
from mobilenet.learn.task import Setting
from mobilenet.pictures.folders import PictureFolder, handle_bad_pictures, read_dataset, without_bad_pictures


def checked_folder(setting: Setting) -> PictureFolder:
    """The labelled pictures without bad ones, the same in every process.

    The split of data that are not split yet does not depend on --seed: `mobilenet evaluate` must find the
    pictures that were held out.

    Raises:
        DataError: the pictures cannot be used as they are.
    """
    folder = read_dataset(setting.options.data)
    for split in ("train", "val"):
        if split not in folder.splits:
            raise DataError(f"{folder.root}: there is no split '{split}', which training needs")
    return without_bad(folder, setting)


def without_bad(folder: PictureFolder, setting: Setting) -> PictureFolder:
    """The data set without its bad pictures, which are named, or an error if these are to stop the run.

    The main process opens the pictures; what it finds holds in every process.

    Raises:
        DataError: there are bad pictures and they are not to be skipped, or a class has no others.
    """

    def bad_pictures() -> str:
        return json.dumps(_bad_pictures(folder, setting))

    bad = json.loads(setting.machine.text_from_main(bad_pictures))
    for path, reason in bad:
        setting.reporter.say(f"skipped: {path}: {reason}")
    return without_bad_pictures(folder, [(Path(path), reason) for path, reason in bad])


def _bad_pictures(folder: PictureFolder, setting: Setting) -> list[tuple[str, str]]:
    before = 0
    with setting.reporter.task("checking the pictures", sum(map(len, folder.splits.values()))) as advance:

        def progress(done: int, _total: int) -> None:
            nonlocal before
            setting.check()
            advance(done - before)
            before = done

        threads = max(1, setting.options.workers)
        _, bad = handle_bad_pictures(folder, setting.options.on_bad_picture, threads=threads, progress=progress)
    return [(str(path), reason) for path, reason in bad]


def check_batch(start: Start, frozen: set[str], batch: int, samples: int) -> None:
    """Raises `TrainingError` if a batch norm that learns would see one picture at a time."""
    learning = [
        node.name
        for node in start.contents.graph.nodes
        if isinstance(node.operator, BatchNorm) and node.name not in frozen
    ]
    if learning and min(batch, samples) < 2:
        raise TrainingError(
            f"a batch of one picture cannot train batch norm '{learning[0]}', which needs statistics over "
            "several: use --batch 2 or more"
        )


def identity_of(folder: PictureFolder, start: Start) -> dict[str, Any]:
    """What makes a run the same run: its samples, classes, and what it starts from."""
    digest = hashlib.sha256()
    for split, samples in sorted(folder.splits.items()):
        for sample in samples:
            path = sample.path.relative_to(folder.root) if sample.path.is_relative_to(folder.root) else sample.path
            digest.update(f"{split}\0{path}\0{sample.label}\0".encode("utf-8", "surrogateescape"))
    return {"samples": digest.hexdigest(), "classes": list(folder.classes), "start": fingerprint(start.contents)}
