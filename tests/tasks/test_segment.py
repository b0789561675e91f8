"""A segmenter's answer: the picture's own size, its geometry undone; shares, JSON, pictures; the official file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mobilenet
from mobilenet.errors import ArgumentError, ImageError
from mobilenet.files.tflite import read_tflite
from mobilenet.graph.graph import Graph, Node, TensorType
from mobilenet.graph.ops import Conv
from mobilenet.pictures.palette import voc_palette
from mobilenet.pictures.preprocess import Preprocessing
from mobilenet.pictures.run_lengths import from_coco
from mobilenet.tasks.class_map import class_map
from mobilenet.tasks.segment import SegmentationResult

NAMES = ("dark", "bright")


def painter(height: int = 32, width: int = 48, **rule: object) -> mobilenet.Model:
    """A segmenter that knows a pixel's class by its brightness: "bright" from 128 on."""
    graph = Graph(
        {"image": TensorType((height, width, 3))},
        (Node("classifier", Conv(out_channels=2, bias=True), ("image",)),),
        {"logits": "classifier"},
    )
    weights = {
        "classifier.weight": np.stack([np.full((1, 1, 3), -1 / 3), np.full((1, 1, 3), 1 / 3)]).astype(np.float32),
        "classifier.bias": np.zeros(2, np.float32),
    }
    preprocessing = Preprocessing(height, width, **{"resize": "stretch", "crop_fraction": 1.0, **rule})
    return mobilenet.Model(graph, weights, preprocessing, labels=NAMES, task="segment")


def half_bright(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(64, 96), (100, 40), (30, 90), (7, 5), (33, 47)])
def test_masks_have_the_pictures_size_and_its_border(resize: str, size: tuple[int, int]) -> None:
    image = half_bright(*size)
    result = painter(resize=resize).predict(image)
    assert result.masks.shape == size
    assert result.masks.dtype == np.uint8
    expected = (image[..., 0] >= 128).astype(np.uint8)
    near = np.abs(np.arange(size[1]) - size[1] // 2 + 0.5) <= max(2, size[1] / 24)
    seen = result.masks != 255
    assert seen.all() if resize != "crop" else seen.any()
    assert (result.masks == expected)[seen & ~near].all()


def test_what_the_crop_cuts_off_is_not_seen() -> None:
    result = painter(resize="crop", crop_fraction=0.5).predict(half_bright(64, 96))
    seen = result.masks != 255
    assert seen[16:48, 24:72].all()
    assert not seen[:15].any() and not seen[:, :23].any() and not seen[:, 73:].any()
    assert sum(result.shares.values()) == pytest.approx(1)


def test_padding_has_no_say() -> None:
    """The grey border of a tall picture is bright, the picture dark up to its very edge."""
    result = painter(32, 32, resize="pad", fill=255).predict(np.zeros((90, 30, 3), np.uint8))
    assert (result.masks == 0).all()


def brute_force(logits: np.ndarray, rule: Preprocessing, size: tuple[int, int]) -> np.ndarray:
    """Every pixel by itself, in float64, from the definition."""
    window, part = rule.placement(size[1], size[0])
    scale = logits.shape[1] / rule.width, logits.shape[0] / rule.height
    found = np.full(size, 255, np.int64)
    for y in range(size[0]):
        for x in range(size[1]):
            place = []
            for centre, axis, count in ((x + 0.5, 0, logits.shape[1]), (y + 0.5, 1, logits.shape[0])):
                low, high = part[axis] * scale[axis], part[axis + 2] * scale[axis]
                share = (centre - window[axis]) / (window[axis + 2] - window[axis])
                first = min(int(np.ceil(low - 1e-6)), count - 1)
                last = max(min(int(np.floor(high + 1e-6)), count) - 1, first)
                place.append(min(max(low + share * (high - low) - 0.5, first), last))
            left, top = int(place[0]), int(place[1])
            right, bottom = min(left + 1, logits.shape[1] - 1), min(top + 1, logits.shape[0] - 1)
            across, down = place[0] - left, place[1] - top
            upper = logits[top, left] * (1 - across) + logits[top, right] * across
            lower = logits[bottom, left] * (1 - across) + logits[bottom, right] * across
            found[y, x] = int((upper * (1 - down) + lower * down).argmax())
    return found


@settings(max_examples=40, deadline=None)
@given(
    maps=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["stretch", "pad"]),
    seed=st.integers(0, 1000),
)
def test_every_pixel_is_interpolated(maps: tuple[int, int], size: tuple[int, int], resize: str, seed: int) -> None:
    """The short cut where all neighbours agree changes nothing."""
    logits = np.random.default_rng(seed).normal(size=(*maps, 4)).astype(np.float32)
    rule = Preprocessing(24, 16, resize=resize, crop_fraction=1.0)
    found, expected = class_map(logits, rule, size), brute_force(logits.astype(np.float64), rule, size)
    assert (found != expected).mean() <= 0.01  # rounding may decide where two scores are as good as equal


def test_the_first_of_equal_scores_wins_and_too_many_classes_are_refused() -> None:
    rule = Preprocessing(4, 4)
    assert (class_map(np.zeros((4, 4, 3), np.float32), rule, (9, 9)) == 0).all()
    with pytest.raises(ArgumentError, match="256 classes"):
        class_map(np.zeros((4, 4, 256), np.float32), rule, (9, 9))


def result() -> SegmentationResult:
    masks = np.zeros((4, 6), np.uint8)
    masks[1:3, 2:] = 1
    masks[0, 0] = 255
    return SegmentationResult("a.png", masks, ("background", "cat", "dog"), {"inference": 1.23456})


def test_shares_and_masks_of_classes() -> None:
    found = result()
    assert found.shares == {"background": 15 / 23, "cat": 8 / 23, "dog": 0.0}
    assert found.present == [0, 1]
    assert found.mask("cat").sum() == found.mask(1).sum() == 8
    assert not found.mask("dog").any()
    assert str(found) == "a.png: background 65.2%, cat 34.8%"
    for name in ("cow", 3, -1):
        with pytest.raises(ArgumentError, match="no class"):
            found.mask(name)


def test_json_with_and_without_masks() -> None:
    plain = json.loads(result().to_json())
    assert plain["size"] == [4, 6]
    assert plain["segments"][1] == {"label": "cat", "index": 1, "pixels": 8, "share": 0.347826}
    with_masks = json.loads(result().to_json(runs=True))
    mask = from_coco(with_masks["segments"][1]["segmentation"], "x")
    assert (mask == result().mask("cat")).all()


def test_a_saved_mask_keeps_its_numbers_and_has_colours(tmp_path: Path) -> None:
    path = result().save(tmp_path / "m.png")
    with Image.open(path) as image:
        assert image.mode == "P"
        assert (np.asarray(image) == result().masks).all()
        assert (np.asarray(image.convert("RGB"))[1, 3] == (128, 0, 0)).all()
    with pytest.raises(ArgumentError, match=r"saved as \.png"):
        result().save(tmp_path / "m.jpg")


def test_vocs_colours() -> None:
    palette = voc_palette().tolist()
    assert palette[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[15] == [192, 128, 128] and palette[255] == [224, 224, 192]
    assert len({tuple(colour) for colour in palette}) == 256


def test_a_plot_tints_the_picture_and_not_its_background() -> None:
    image = np.full((4, 6, 3), 200, np.uint8)
    drawn = np.asarray(result().plot(image))
    assert drawn.ndim == 3 and drawn.shape[0] > 100
    flat = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert (200, 200, 200) in flat
    assert (160, 90, 90) in flat  # 200 * 0.45 + (128, 0, 0) * 0.55
    with pytest.raises(ArgumentError, match="do not fit a picture"):
        result().plot(np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(ArgumentError, match="no path"):
        SegmentationResult(None, np.zeros((2, 2), np.uint8), ("a",)).plot()


@pytest.mark.parametrize(
    ("masks", "names", "message"),
    [
        (np.zeros((2, 2), np.int64), ("a",), "uint8"),
        (np.zeros((2, 2, 1), np.uint8), ("a",), r"\[H, W\]"),
        (np.ones((2, 2), np.uint8), ("a",), "class 1, but there are 1 names"),
        (np.zeros((2, 2), np.uint8), (), "0 classes"),
    ],
)
def test_impossible_results_are_refused(masks: np.ndarray, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SegmentationResult(None, masks, names)


def test_several_pictures_and_bad_ones(tmp_path: Path) -> None:
    paths = [tmp_path / f"{side}.png" for side in (40, 50, 60)]
    for path, side in zip(paths, (40, 50, 60), strict=True):
        Image.fromarray(half_bright(side, side + 1)).save(path)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    model = painter()
    assert [r.masks.shape for r in model.predict(paths, batch=2)] == [(40, 41), (50, 51), (60, 61)]
    with pytest.raises(ImageError, match=r"bad\.png"):
        model.predict(tmp_path / "bad.png")


def test_a_picture_that_is_turned_by_its_exif_data_gives_an_upright_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(half_bright(40, 60)).save(tmp_path / "t.jpg", exif=exif, quality=95)
    found = painter().predict(tmp_path / "t.jpg")
    assert found.masks.shape == (60, 40)
    assert (found.masks[:25] == 0).all() and (found.masks[35:] == 1).all()


def official(shared: Path) -> mobilenet.Model:
    weights = shared / "weights" / "coral"
    labels = weights / "pascal_voc_segmentation_labels.txt"
    return mobilenet.Model.of(read_tflite(weights / "deeplabv3_mnv2_pascal_quant.tflite", labels=labels))


def litert(shared: Path, pixels: np.ndarray) -> np.ndarray:
    """LiteRT's own class map of the official file."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    path = shared / "weights" / "coral" / "deeplabv3_mnv2_pascal_quant.tflite"
    net = interpreter.Interpreter(str(path), num_threads=1)
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], pixels[None])
    net.invoke()
    return net.get_tensor(net.get_output_details()[0]["index"])[0]


def test_the_official_deeplab_segments_as_litert_does(shared: Path) -> None:
    picture = shared / "data" / "photos" / "bird_segmentation.bmp"
    model = official(shared)
    found = model.predict(picture)
    expected = litert(shared, model.preprocessing.pixels(picture))
    assert expected.shape == found.masks.shape == (513, 513)
    bird = model.names.index("bird")
    ours, theirs = found.mask("bird"), expected == bird
    assert theirs.mean() > 0.1
    assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.9
    assert (found.masks == expected).mean() >= 0.99
    truth = np.asarray(Image.open(shared / "data" / "photos" / "bird_segmentation_mask.bmp"))
    assert (ours & (truth == bird)).sum() / (ours | (truth == bird)).sum() >= 0.9


def test_the_official_deeplab_at_another_size_than_its_own(shared: Path) -> None:
    """A picture of half the size and another shape: the mask is that of the whole, cut out."""
    model = official(shared)
    with Image.open(shared / "data" / "photos" / "bird_segmentation.bmp") as image:
        wide = image.convert("RGB").resize((342, 342)).crop((0, 40, 342, 300))
    found = model.predict(wide)
    assert found.masks.shape == (260, 342)
    truth = Image.open(shared / "data" / "photos" / "bird_segmentation_mask.bmp")
    expected = np.asarray(truth.resize((342, 342), Image.Resampling.NEAREST).crop((0, 40, 342, 300))) == 3
    ours = found.mask("bird")
    assert (ours & expected).sum() / (ours | expected).sum() >= 0.85
