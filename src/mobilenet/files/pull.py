"""From the name of published weights to a model file in the cache."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mobilenet.errors import ArgumentError, DownloadError, ModelFileError
from mobilenet.files.contents import ModelContents
from mobilenet.files.download import Patience, Progress, fetch, is_right
from mobilenet.files.locks import locked
from mobilenet.files.published import PIXELS, Published, find_published, known, nearest, published

PATIENCE = Patience()
DATA = "ImageNet-1k, validation"


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Where fetched models are kept: what is given, MOBILENET_HOME, or "mobilenet" in the user's cache folder."""
    if given:
        return Path(given)
    home = os.environ.get("MOBILENET_HOME")
    if home:
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobilenet"


def is_offline() -> bool:
    """Whether MOBILENET_OFFLINE forbids the network."""
    return os.environ.get("MOBILENET_OFFLINE", "").lower() not in ("", "0", "false", "no")


def cached_path(row: Published, cache: str | os.PathLike[str] | None = None) -> Path:
    """Where the model file of these weights is once they are fetched."""
    return cache_folder(cache) / "models" / f"{row.name.replace('/', '--')}.safetensors"


def pull(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    offline: bool = False,
    on_progress: Progress = lambda _done, _total: None,
    patience: Patience = PATIENCE,
) -> Path:
    """The model file of published weights; it is fetched, checked and imported if it is not in the cache yet.

    Args:
        name: as `mobilenet list --pretrained` gives it.
        cache: a folder instead of `cache_folder()`.
        offline: use no network; so does MOBILENET_OFFLINE=1.
        on_progress: called with bytes done and bytes in all (or None).
        patience: how long to try.

    Raises:
        ArgumentError: no weights are called so.
        DownloadError: they are not in the cache and cannot be fetched; the message says how to do it by hand.
        ModelFileError, MissingExtraError: what was fetched cannot be read.
    """
    row = known(name)
    target = cached_path(row, cache)
    if target.is_file():
        return target
    file = cache_folder(cache) / "downloads" / row.file_name
    with locked(_target_lock(target)):  # others wait, and find it there
        if not target.is_file():
            _get(row, file, offline or is_offline(), on_progress, patience)
            _convert(row, file, target)
    file.unlink(missing_ok=True)
    return target


def _target_lock(target: Path) -> Path:
    """The lock of a model file; makes the folder.

    Raises:
        DownloadError: the folder cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{target.parent}: cannot be made: {error.strerror or error}") from error
    return target.with_name(f".{target.name}.lock")


def _get(row: Published, file: Path, offline: bool, on_progress: Progress, patience: Patience) -> None:
    by_hand = f"fetch {row.url} on a machine with a network, put it at {file}, and repeat the command"
    if offline:
        if not is_right(file, row.checksum):
            raise DownloadError(f"{row.name} is not in the cache, and the network is not to be used: {by_hand}")
        return
    if not row.checksum and file.is_file():
        return
    try:
        fetch(row.url, file, checksum=row.checksum, on_progress=on_progress, patience=patience)
    except DownloadError as error:
        raise DownloadError(f"{row.name}: {error}. Or {by_hand}") from error


def _convert(row: Published, file: Path, target: Path) -> None:
    from mobilenet.model import Model

    try:
        contents = imported(row, file)
    except ModelFileError as error:
        file.unlink(missing_ok=True)
        raise ModelFileError(f"{row.name}: {row.url} holds something else than expected: {error}") from error
    try:
        Model.of(contents).save(target)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written: {error.strerror or error}") from error


def imported(row: Published, file: Path) -> ModelContents:
    """A fetched file as a model, with what its publisher says about it.

    Raises:
        ModelFileError: it is another network than the row says.
        MissingExtraError: the package that reads such files is not installed.
    """
    from mobilenet.files.imports.read import read_import

    contents = read_import(file, resolution=row.resolution, name=_said_name(row))
    classes = contents.graph.types[contents.graph.outputs["logits"]].shape[-1]
    if classes != row.classes:
        raise ModelFileError(f"{file}: has {classes} classes, not {row.classes}")
    assert contents.preprocessing is not None
    mean, std = PIXELS[row.pixels]
    rule = replace(
        contents.preprocessing,
        crop_fraction=row.crop_fraction,
        interpolation=row.interpolation,
        mean=mean,
        std=std,
    )
    provenance: dict[str, Any] = {**contents.provenance, "published": row.name, "url": row.url}
    provenance.pop("assumed", None)
    metrics = {"data": DATA, "split": "val", "top1": row.top1 / 100, "measured_by": row.source} if row.top1 else {}
    return replace(
        contents,
        preprocessing=rule,
        licence=contents.licence or row.licence,
        provenance=provenance,
        metrics=metrics,
    )


def _said_name(row: Published) -> str | None:
    """The name by which networks with the same tensors are told apart, which only timm's need."""
    return row.network if row.source == "timm" else None


def find_weights(source: str, where: str) -> Path:
    """The file or folder that somebody means by a path or by the name of published weights.

    Args:
        source: the path or the name; a path that exists comes first.
        where: what was given, for messages.

    Raises:
        ArgumentError: it is neither.
        DownloadError: as `pull`.
    """
    if "\0" not in source and Path(source).exists():
        return Path(source)
    if find_published(source) is not None:
        return pull(source)
    raise ArgumentError(f"{where}: cannot be read: there is no such file, and no such name; {nearest(source)}")


def listing(cache: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """The rows of `mobilenet list --pretrained`.

    Each has name, source, licence, top1 (per cent or None), parameters (learnt numbers), megabytes (of the model
    file, 10^6 bytes), resolution, cached (whether it is there) and url.
    """
    rows = []
    for row in published().values():
        parameters, numbers = _sizes(row.network, row.width_multiplier, row.classes)
        rows.append(
            {
                "name": row.name,
                "source": row.source,
                "licence": row.licence,
                "top1": row.top1,
                "parameters": parameters,
                "megabytes": round(numbers * 4 / 1e6, 1),
                "resolution": row.resolution,
                "cached": cached_path(row, cache).is_file(),
                "url": row.url,
            }
        )
    return rows


@cache
def _sizes(network: str, width: float | None, classes: int) -> tuple[int, int]:
    """Learnt numbers, and all numbers with the batch norms' statistics."""
    from math import prod

    from mobilenet.family.names import build
    from mobilenet.graph.graph import trainable_parameters

    graph = build(network, width_multiplier=width, classes=classes)
    return trainable_parameters(graph), sum(prod(p.shape) for p in graph.parameters().values())
