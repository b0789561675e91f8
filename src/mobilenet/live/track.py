"""Which box of this frame is which of the last: ids for a detector's boxes.

SORT (Bewley et al., arXiv:1602.00763) with the second look of ByteTrack (Zhang et al., arXiv:2110.06864): boxes
are where `motion` expects them; the assignment with the largest sum of overlaps (intersection over union) joins
tracks and boxes of the same class, first the sure boxes, then the unsure with the tracks that are left. A track
begins with a sure box and has an id once it was seen `confirm` times in a row; one that is not seen for `patience`
answers ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobilenet.errors import ArgumentError
from mobilenet.live.assign import best_pairs
from mobilenet.live.motion import Motion, measured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilenet.live.motion import Numbers

NONE = -1  # the id of a box that belongs to no track, or not yet


class Tracker:
    """Follows boxes from frame to frame. One for each film: not for several threads.

    Args:
        sure: boxes of at least this confidence begin tracks, and are joined first.
        unsure: boxes between this and `sure` only continue tracks; those below are not looked at.
        overlap: the least intersection over union of a track's expected place with a sure box; `second_overlap`
            with an unsure one.
        confirm: how many times in a row a track must be seen to get an id; those of the first frame have it
            at once.
        patience: for how many answers a track with an id may be unseen before it ends.

    Raises:
        ArgumentError: a value out of its range.
    """

    def __init__(
        self,
        *,
        sure: float = 0.25,
        unsure: float = 0.1,
        overlap: float = 0.3,
        second_overlap: float = 0.5,
        confirm: int = 3,
        patience: int = 30,
    ) -> None:
        if not 0 <= unsure <= sure <= 1:
            raise ArgumentError(f"unsure is {unsure} and sure is {sure}: 0 <= unsure <= sure <= 1 is needed")
        if not (0 < overlap <= 1 and 0 < second_overlap <= 1):
            raise ArgumentError(f"overlaps are {overlap} and {second_overlap}: above 0, up to 1, is needed")
        if confirm < 1 or patience < 0:
            raise ArgumentError(f"confirm is {confirm} and patience is {patience}: at least 1 and 0 are needed")
        self.sure, self.unsure = sure, unsure
        self.overlap, self.second_overlap = overlap, second_overlap
        self.confirm, self.patience = confirm, patience
        self._motion = Motion.of(np.zeros((0, 4)))
        self._ids, self._classes, self._hits, self._unseen = (np.zeros(0, np.int64) for _ in range(4))
        self._next = 0
        self._number: int | None = None

    def update(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        classes: NDArray[np.int64],
        number: int | None = None,
    ) -> NDArray[np.int64]:
        """The ids of this frame's boxes.

        Args:
            boxes: left, top, right, bottom in pixels: (N, 4).
            scores, classes: of each, (N).
            number: of the frame: frames that were left out count for the motion. Default: one more than the last.

        Returns:
            int64 (N): counted from 0 in the order in which they are given, or -1 for a box without one.

        Raises:
            ArgumentError: the frame is not behind the last one.
        """
        first = self._number is None
        self._motion.predict(self._steps(number))
        given = np.full(len(boxes), NONE, np.int64)  # the track's row for each box
        free = np.ones(len(self._ids), np.bool_)
        sure, unsure = scores >= self.sure, (scores >= self.unsure) & (scores < self.sure)
        for chosen, least in ((sure, self.overlap), (unsure, self.second_overlap)):
            self._join(boxes, classes, chosen, least, free, given)
        self._follow(boxes, given, free)
        self._begin(boxes, classes, sure & (given == NONE), given, at_once=first)
        ids = np.where(given == NONE, NONE, self._ids[given]) if len(self._ids) else given
        self._forget()
        return np.asarray(ids, np.int64)

    def _steps(self, number: int | None) -> int:
        """Frames since the last."""
        last, self._number = self._number, number if number is not None else (self._number or 0) + 1
        if last is not None and self._number <= last:
            raise ArgumentError(f"frame {self._number} comes after frame {last}: frames are tracked in order")
        return 0 if last is None else self._number - last

    def _join(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        least: float,
        free: NDArray[np.bool_],
        given: NDArray[np.int64],
    ) -> None:
        """Pairs free tracks with the chosen boxes; marks the tracks as taken, and enters them in `given`."""
        rows, columns = np.flatnonzero(free), np.flatnonzero(chosen)
        if not (len(rows) and len(columns)):
            return
        weights = overlaps(self._motion.corners[rows], boxes[columns].astype(np.float64))
        weights[(weights < least) | (self._classes[rows][:, None] != classes[columns])] = 0
        for row, column in best_pairs(weights):
            free[rows[row]] = False
            given[columns[column]] = rows[row]

    def _follow(self, boxes: NDArray[np.float32], given: NDArray[np.int64], free: NDArray[np.bool_]) -> None:
        """Tracks that were seen take the boxes' places; the others wait, or end if they never had an id."""
        found = np.flatnonzero(given != NONE)
        rows = given[found]
        self._motion.correct(rows, measured(boxes[found]))
        self._motion.hold_size(np.flatnonzero(free))
        self._hits[rows] += 1
        self._unseen[rows], self._unseen[free] = 0, self._unseen[free] + 1
        self._name(rows[(self._ids[rows] == NONE) & (self._hits[rows] >= self.confirm)])

    def _begin(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        new: NDArray[np.bool_],
        given: NDArray[np.int64],
        *,
        at_once: bool,
    ) -> None:
        count = int(new.sum())
        rows = len(self._ids) + np.arange(count)
        given[new] = rows
        self._motion = self._motion.joined(Motion.of(measured(boxes[new])))
        self._ids = np.concatenate([self._ids, np.full(count, NONE)])
        self._classes = np.concatenate([self._classes, classes[new]])
        self._hits = np.concatenate([self._hits, np.ones(count, np.int64)])
        self._unseen = np.concatenate([self._unseen, np.zeros(count, np.int64)])
        if at_once or self.confirm == 1:
            self._name(rows)

    def _name(self, rows: NDArray[np.int64]) -> None:
        self._ids[rows] = self._next + np.arange(len(rows))
        self._next += len(rows)

    def _forget(self) -> None:
        kept = (self._unseen <= self.patience) & ((self._ids != NONE) | (self._unseen == 0))
        self._motion = self._motion.kept(kept)
        self._ids, self._classes = self._ids[kept], self._classes[kept]
        self._hits, self._unseen = self._hits[kept], self._unseen[kept]


def overlaps(one: Numbers, other: Numbers) -> Numbers:
    """Intersection over union of boxes (A, 4) and (B, 4) of left, top, right, bottom: (A, B)."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    end = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(end - corner, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))
