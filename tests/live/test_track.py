"""Ids on synthetic motion whose truth is known: crossing, occlusion, entering, leaving, noise, dropped frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mobilenet.errors import ArgumentError
from mobilenet.live.motion import POSITION, START_POSITION, START_VELOCITY, VELOCITY, Motion, measured
from mobilenet.live.track import Tracker, overlaps

Object = Callable[[int], tuple[float, float] | None]  # frame -> centre, or nothing where it is not to be seen
SIDE = 40.0


def moving(start: tuple[float, float], velocity: tuple[float, float], seen: Callable[[int], bool]) -> Object:
    def at(number: int) -> tuple[float, float] | None:
        if not seen(number):
            return None
        return start[0] + number * velocity[0], start[1] + number * velocity[1]

    return at


def always(number: int) -> bool:
    return True


def followed(
    objects: list[Object], frames: range, tracker: Tracker | None = None, noise: float = 0.0, score: float = 0.9
) -> list[dict[int, int]]:
    """For each frame: object -> its id. The order of the boxes is another in every frame."""
    tracker, generator = tracker or Tracker(), np.random.default_rng(0)
    found = []
    for number in frames:
        places = {which: place for which, at in enumerate(objects) if (place := at(number)) is not None}
        order = generator.permutation(list(places)) if places else []
        boxes = np.array(
            [[x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2] for x, y in (places[w] for w in order)]
        ).reshape(-1, 4)
        boxes += generator.normal(0, noise, boxes.shape)
        sure, one_class = np.full(len(order), score, np.float32), np.zeros(len(order), np.int64)
        ids = tracker.update(boxes.astype(np.float32), sure, one_class, number)
        found.append(dict(zip((int(w) for w in order), ids.tolist(), strict=True)))
    return found


def ids_of(found: list[dict[int, int]], which: int) -> set[int]:
    """All ids that an object ever had, but for none."""
    return {frame[which] for frame in found if which in frame} - {-1}


def test_one_object_has_one_id_from_the_first_frame_on() -> None:
    found = followed([moving((50, 50), (3, 2), always)], range(100), noise=1.5)
    assert [frame[0] for frame in found] == [0] * 100


@pytest.mark.parametrize("speed", [2.0, 4.0, 8.0])
def test_objects_that_cross_keep_their_ids(speed: float) -> None:
    """One goes right, one goes left, on nearly the same height."""
    frames = int(400 / speed)
    there = moving((0, 100), (speed, 0), always)
    back = moving((400, 110), (-speed, 0), always)
    found = followed([there, back], range(frames), noise=1.0)
    assert len(ids_of(found, 0)) == len(ids_of(found, 1)) == 1
    assert ids_of(found, 0) != ids_of(found, 1)


def test_an_object_that_is_hidden_while_another_passes_keeps_its_id() -> None:
    """Suppression leaves one box of two that lie over each other: the one behind is not seen for 10 frames."""
    front = moving((0, 100), (4, 0), always)
    behind = moving((400, 100), (-4, 0), lambda number: not 45 <= number < 55)
    found = followed([front, behind], range(100), noise=0.5)
    assert len(ids_of(found, 0)) == len(ids_of(found, 1)) == 1
    assert ids_of(found, 0) != ids_of(found, 1)


def test_an_object_behind_a_wall_comes_out_as_itself() -> None:
    hidden = moving((0, 100), (3, 1), lambda number: not 30 <= number < 50)
    assert ids_of(followed([hidden], range(80), noise=0.5), 0) == {0}


def test_an_object_that_is_away_for_longer_than_patience_is_a_new_one() -> None:
    hidden = moving((100, 100), (0, 0), lambda number: not 20 <= number < 40)
    assert ids_of(followed([hidden], range(60), Tracker(patience=10)), 0) == {0, 1}
    assert ids_of(followed([hidden], range(60), Tracker(patience=20)), 0) == {0}


def test_who_enters_gets_a_new_id_once_confirmed_and_who_left_gives_none_back() -> None:
    leaving = moving((100, 100), (2, 0), lambda number: number < 30)
    entering = moving((300, 300), (-2, 0), lambda number: number >= 50)
    found = followed([leaving, entering], range(100))
    assert ids_of(found, 0) == {0}
    assert [found[number][1] for number in (50, 51, 52, 53)] == [-1, -1, 1, 1]
    assert ids_of(found, 1) == {1}


def test_what_flickers_once_takes_no_id() -> None:
    flicker = moving((300, 300), (0, 0), lambda number: number % 5 == 2)
    steady = moving((100, 100), (1, 0), always)
    found = followed([flicker, steady], range(50))
    assert ids_of(found, 0) == set()
    assert ids_of(found, 1) == {0}


def test_many_objects_with_noise_and_misses() -> None:
    """20 objects, each unseen in a tenth of the frames by chance: no id is exchanged, each has one."""
    generator = np.random.default_rng(3)
    misses = generator.random((20, 150)) < 0.1
    misses[:, 0] = False
    objects = [
        moving(
            (60.0 + 120 * (n % 5), 60.0 + 120 * (n // 5)),
            (float(generator.uniform(-0.25, 0.25)), float(generator.uniform(-0.25, 0.25))),
            lambda number, n=n: not misses[n, number],
        )
        for n in range(20)
    ]
    found = followed(objects, range(150), noise=1.5)
    assert [len(ids_of(found, n)) for n in range(20)] == [1] * 20
    assert len(set.union(*(ids_of(found, n) for n in range(20)))) == 20


def test_frames_that_were_dropped_count_for_the_motion() -> None:
    """At 15 pixels a frame, every fourth frame: 60 pixels, more than the box is wide."""
    fast = moving((0, 100), (15, 0), always)
    tracker = Tracker()
    followed([fast], range(8), tracker)
    assert ids_of(followed([fast], range(8, 60, 4), tracker), 0) == {0}


def test_classes_are_followed_apart() -> None:
    tracker = Tracker(confirm=1)
    boxes = np.array([[0, 0, 40, 40], [0, 0, 40, 40]], np.float32)
    scores, classes = np.array([0.9, 0.9], np.float32), np.array([1, 2])
    first = tracker.update(boxes, scores, classes)
    again = tracker.update(boxes[::-1], scores, classes[::-1])
    assert first.tolist() == [0, 1] and again.tolist() == [1, 0]


def test_unsure_boxes_continue_tracks_but_begin_none() -> None:
    tracker, box, one = Tracker(), np.array([[0, 0, 40, 40]], np.float32), np.zeros(1, np.int64)
    assert tracker.update(box, np.array([0.2], np.float32), one).tolist() == [-1]
    assert [tracker.update(box, np.array([0.9], np.float32), one).tolist() for _ in range(3)] == [[-1], [-1], [0]]
    assert tracker.update(box, np.array([0.2], np.float32), one).tolist() == [0]
    assert tracker.update(box, np.array([0.05], np.float32), one).tolist() == [-1]


def test_frames_without_boxes_and_boxes_without_area() -> None:
    tracker = Tracker()
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert tracker.update(*nothing).shape == (0,)
    flat = np.array([[5, 5, 5, 5], [0, 0, 0, 40]], np.float32)
    for _ in range(5):
        assert tracker.update(flat, np.full(2, 0.9, np.float32), np.zeros(2, np.int64)).shape == (2,)
    assert tracker.update(*nothing).dtype == np.int64


def test_frames_come_in_order() -> None:
    tracker = Tracker()
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    tracker.update(*nothing, 5)
    with pytest.raises(ArgumentError, match="frame 5 comes after frame 5"):
        tracker.update(*nothing, 5)


@pytest.mark.parametrize(
    "words", [{"sure": 2.0}, {"unsure": 0.5}, {"overlap": 0.0}, {"confirm": 0}, {"patience": -1}]
)
def test_impossible_settings_are_named(words: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(words))):
        Tracker(**words)


def test_the_four_small_filters_are_the_filter_of_eight() -> None:
    """Against the textbook's matrices."""
    generator = np.random.default_rng(0)
    box = np.array([[100.0, 80.0, 30.0, 60.0]])
    motion = Motion.of(box)
    height = 60.0
    state = np.concatenate([box[0], np.zeros(4)])
    covariance = np.diag([(START_POSITION * height) ** 2] * 4 + [(START_VELOCITY * height) ** 2] * 4)
    seen = np.eye(4, 8)
    for _ in range(20):
        steps = int(generator.integers(1, 4))
        height = state[3]
        move = np.eye(8) + steps * np.eye(8, k=4)
        added = np.diag([(POSITION * height) ** 2] * 4 + [(VELOCITY * height) ** 2] * 4)
        state, covariance = move @ state, move @ covariance @ move.T + steps * added
        measurement = box[0] + generator.normal(0, 3, 4)
        noise = np.eye(4) * (POSITION * state[3]) ** 2
        gain = covariance @ seen.T @ np.linalg.inv(seen @ covariance @ seen.T + noise)
        state = state + gain @ (measurement - seen @ state)
        covariance = (np.eye(8) - gain @ seen) @ covariance
        motion.predict(steps)
        motion.correct(np.array([0]), measurement[None])
        np.testing.assert_allclose(np.concatenate([motion.p[0], motion.v[0]]), state, rtol=1e-9)
    np.testing.assert_allclose(motion.a[0], covariance.diagonal()[:4], rtol=1e-9)


def test_overlaps_and_measures() -> None:
    one = np.array([[0.0, 0, 10, 10], [3, 3, 3, 3]])
    other = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(overlaps(one, other), [[1, 1 / 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(measured(np.array([[0, 2, 10, 8]], np.float32)), [[5, 5, 10, 6]])
