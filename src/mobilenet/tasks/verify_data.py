"""Pictures of identities in folders, and pairs of them: given in a file, or drawn."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobilenet.errors import ArgumentError, DataError
from mobilenet.pictures.walk import is_file, is_folder, is_picture_name, list_folder, walk_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDS = 10
SAME_WORDS = {"1": True, "true": True, "same": True, "yes": True}
SAME_WORDS |= {"0": False, "false": False, "different": False, "no": False}
_HEADERS = (["path", "path", "same"], ["path1", "path2", "same"])


@dataclass(frozen=True)
class Identities:
    """Folders of pictures: `pictures` by identity (two or more each), and the names of those with only one."""

    root: Path
    pictures: dict[str, tuple[Path, ...]]
    single: tuple[str, ...]

    @property
    def flat(self) -> list[tuple[Path, int]]:
        """Every picture with its identity's number, in the order of `pictures`."""
        return [(path, number) for number, paths in enumerate(self.pictures.values()) for path in paths]


class Pair(NamedTuple):
    """Two pictures, whether they show the same identity, and the fold that the pair is in."""

    first: Path
    second: Path
    same: bool
    fold: int


def read_identities(root: str | Path) -> Identities:
    """Finds `ROOT/<identity>/**` pictures. Identities of one picture are left out and named, for no pair has them.

    Raises:
        DataError: the root is missing, an identity has no picture, or fewer than two have two pictures.
    """
    root = Path(root)
    if not is_folder(root):
        raise DataError(f"{root}: there is no such folder; identities are ROOT/<identity>/*.jpg")
    pictures, single = {}, []
    for folder in filter(is_folder, list_folder(root)):
        found = tuple(path for path in walk_files(folder) if is_picture_name(path))
        if not found:
            raise DataError(f"{folder}: the identity has no pictures; add some or remove the folder")
        if len(found) == 1:
            single.append(folder.name)
        else:
            pictures[folder.name] = found
    if len(pictures) < 2:
        what = f" ({len(single)} have only one)" if single else ""
        raise DataError(f"{root}: has {len(pictures)} identities of two or more pictures{what}; two are needed")
    return Identities(root, pictures, tuple(single))


def check_disjoint(calibration: Identities, tested: Iterable[Path]) -> None:
    """Raises `DataError` naming a folder of pictures that a threshold would be both set and judged on."""
    known = {folder.resolve() for folder in tested}
    for name in calibration.pictures:
        if (calibration.root / name).resolve() in known:
            raise DataError(f"{calibration.root / name}: calibrates and is tested too; use other identities")


def draw_pairs(identities: Identities, *, limit: int, seed: int) -> list[Pair]:
    """Pairs of both kinds, at most `limit` of each (0: every pair there is), put into ten folds by chance.

    Each kind is drawn without replacement, evenly over all its pairs, and the folds hold equally many of each kind
    (to within one), so that the same pairs come out on every machine.

    Raises:
        ArgumentError: `limit` is negative.
        DataError: there are fewer than ten pairs of a kind.
    """
    if limit < 0:
        raise ArgumentError(f"the number of pairs is {limit}: 0 (all) or more is needed")
    flat = identities.flat
    generator = np.random.default_rng(seed)
    pairs = []
    for same in (True, False):
        chosen = _sample(_every_pair(identities) if same else _Others(flat), limit, generator)
        if len(chosen) < FOLDS:
            kind = "the same identity" if same else "different identities"
            raise DataError(f"{identities.root}: has {len(chosen)} pairs of {kind}; {FOLDS} folds need {FOLDS}")
        folds = generator.permutation(np.arange(len(chosen)) % FOLDS)
        pairs += [
            Pair(first, second, same, int(fold)) for (first, second), fold in zip(chosen, folds, strict=True)
        ]
    return pairs


def _every_pair(identities: Identities) -> list[tuple[Path, Path]]:
    return [pair for paths in identities.pictures.values() for pair in combinations(paths, 2)]


class _Others:
    """All pairs of different identities by number, without making them: there may be billions."""

    def __init__(self, flat: list[tuple[Path, int]]) -> None:
        self.paths = [path for path, _ in flat]
        numbers = np.array([number for _, number in flat])
        # a picture's partners: all that come after the last one of its identity
        self.first_partner = np.searchsorted(numbers, numbers, side="right")
        self.ends = np.cumsum(len(flat) - self.first_partner)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, number: int) -> tuple[Path, Path]:
        row = int(np.searchsorted(self.ends, number, side="right"))
        before = int(self.ends[row - 1]) if row else 0
        return self.paths[row], self.paths[int(self.first_partner[row]) + number - before]


def _sample(
    every: list[tuple[Path, Path]] | _Others, limit: int, generator: np.random.Generator
) -> list[tuple[Path, Path]]:
    if not limit or limit >= len(every):
        return [every[number] for number in range(len(every))]
    return [every[int(number)] for number in np.sort(generator.choice(len(every), limit, replace=False))]


def read_pairs(path: str | Path, root: str | Path) -> list[Pair]:
    """Pairs from a file: LFW's pairs.txt, or a CSV file of path,path,same (`.csv`).

    Paths are relative to `root`. In pairs.txt, "NAME 1 2" and "NAME 1 OTHER 4" mean the pictures NAME/NAME_0001.*,
    or else NAME/1.*; its first line, "10 300", says how many folds there are, and how many pairs of each kind in
    each. Without it, and in CSV files, ten folds are made in the file's order, with equal shares of both kinds.

    Raises:
        DataError: the file cannot be read, or a line is not valid or names a picture that is not there; the
            message gives file and line.
    """
    path, root = Path(path), Path(root)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise DataError(f"{path}: cannot be read: {reason}") from error
    folds = None
    if path.suffix.lower() == ".csv":
        found = list(_csv_pairs(path, text, root))
    else:
        folds, found = _lfw_pairs(path, text.splitlines(), root)
    if not found:
        raise DataError(f"{path}: lists no pairs")
    return [Pair(*pair, fold) for pair, fold in zip(found, folds or _spread(found), strict=True)]


def _spread(found: list[tuple[Path, Path, bool]]) -> list[int]:
    """A fold for each pair, in the order of the file: the first tenth of either kind is fold 0, and so on."""
    totals = {kind: sum(same == kind for *_, same in found) for kind in (True, False)}
    seen = {True: 0, False: 0}
    folds = []
    for *_, same in found:
        folds.append(seen[same] * FOLDS // totals[same])
        seen[same] += 1
    return folds


def _csv_pairs(path: Path, text: str, root: Path) -> Iterator[tuple[Path, Path, bool]]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        for line, row in enumerate(reader, 1):
            cells = [cell.strip() for cell in row]
            where = f"{path}, line {line}"
            if not any(cells) or (line == 1 and [cell.lower() for cell in cells] in _HEADERS):
                continue
            if len(cells) != 3 or cells[2].lower() not in SAME_WORDS:
                raise DataError(f"{where}: expected path,path,same, where same is 1 or 0, not {','.join(row)!r}")
            first, second = (_existing(where, root / cell) for cell in cells[:2])
            yield first, second, SAME_WORDS[cells[2].lower()]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV: {error}") from error


def _lfw_pairs(path: Path, lines: list[str], root: Path) -> tuple[list[int] | None, list[tuple[Path, Path, bool]]]:
    found, sizes = [], None
    for number, line in enumerate(lines, 1):
        where, words = f"{path}, line {number}", re.split(r"\t+", line.strip()) if "\t" in line else line.split()
        if number == 1 and len(words) <= 2 and all(word.isdecimal() for word in words) and words:
            sizes = [int(word) for word in words]
        elif words:
            found.append(_lfw_pair(where, words, root))
    if sizes is None:
        return None, found
    folds, each = (sizes[0], sizes[1]) if len(sizes) == 2 else (1, sizes[0])
    if folds * each * 2 != len(found):
        raise DataError(f"{path}: line 1 promises {folds} x 2 x {each} pairs, but there are {len(found)}")
    return (None if folds == 1 else [place // (2 * each) for place in range(len(found))]), found


def _lfw_pair(where: str, words: list[str], root: Path) -> tuple[Path, Path, bool]:
    if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal():
        name, one, two = words
        return _numbered(where, root, name, int(one)), _numbered(where, root, name, int(two)), True
    if len(words) == 4 and words[1].isdecimal() and words[3].isdecimal():
        first, one, second, two = words
        return _numbered(where, root, first, int(one)), _numbered(where, root, second, int(two)), first == second
    raise DataError(f"{where}: expected NAME NUMBER NUMBER or NAME NUMBER NAME NUMBER, not {' '.join(words)!r}")


def _numbered(where: str, root: Path, name: str, number: int) -> Path:
    folder = root / name
    stems = (f"{name}_{number:04d}", str(number), f"{number:04d}")
    if Path(name).name == name and is_folder(folder):
        for stem in stems:
            for path in list_folder(folder):
                if path.stem == stem and is_picture_name(path):
                    return path
    raise DataError(f"{where}: there is no picture {folder / stems[0]}.* and no {folder / stems[1]}.*")


def _existing(where: str, path: Path) -> Path:
    if not is_file(path):
        raise DataError(f"{where}: there is no file {str(path)!r}")
    return path
