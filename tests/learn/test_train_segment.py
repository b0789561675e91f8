"""Segmenters that are trained: what a run leaves behind, where it starts, and what it says of bad data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image
from segment_pictures import CLASSES, DISCS, quick, write_discs

import mobilenet
from mobilenet.errors import ArgumentError, DataError, GraphError
from mobilenet.files.model_file import read_model_file
from mobilenet.learn import segment, segment_start
from mobilenet.learn.options import TrainOptions
from mobilenet.learn.segment_data import MaskData, MaskEvaluation, loaded_pair
from mobilenet.learn.segment_measure import score_segmenter
from mobilenet.learn.task import Score
from mobilenet.learn.train import TrainResult, train
from mobilenet.pictures.augment_masks import MaskAugmentation
from mobilenet.pictures.masks import read_masks
from mobilenet.pictures.palette import save_class_map
from mobilenet.pictures.preprocess import PRESETS
from mobilenet.run.torch_module import GraphModule


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs") / "data", {"train": 24, "val": 6, "test": 5})


@pytest.fixture(scope="module")
def finished(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that learns the discs."""
    words = quick(discs, tmp_path_factory.mktemp("runs"), epochs=10, batch=4, lr0=0.01, head="lraspp")
    return train(TrainOptions(**words, class_weights="auto"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier with random weights, folded as files for use are."""
    path = tmp_path_factory.mktemp("classifier") / "classifier.safetensors"
    mobilenet.create("mobilenet_v2", width_multiplier=0.25, resolution=96, classes=7, seed=3).save(path)
    return str(path)


def pretrained(data: Path, project: Path, file: str, **more: Any) -> TrainOptions:
    return TrainOptions(**quick(data, project, pretrained=file, **{"width": None, **more}))


def test_it_learns_and_leaves_the_files_that_are_promised(finished: TrainResult) -> None:
    assert finished.metrics["miou"] >= 0.5, "two discs in three pixels of four: all background gives 0.27"
    assert finished.metrics["split"] == "test"
    assert set(finished.metrics["per_class"]) == set(CLASSES)
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        "best.safetensors", "last.safetensors", "args.yaml", "results.csv", "curves.png", "confusion_matrix.png",
        "overlays.png",
    }  # fmt: skip
    assert finished.folder.parts[-2:] == ("segment", "train")
    assert (finished.folder / "results.csv").read_text().startswith("epoch,phase,train_loss,val_loss,val_miou,")


def test_the_best_epoch_is_kept(finished: TrainResult) -> None:
    best = read_model_file(finished.path).provenance["best"]
    reached = [(row["val_miou"], -row["val_loss"]) for row in finished.history]
    reached += [(row["val_miou_ema"], -row["val_loss_ema"]) for row in finished.history]
    assert (best["miou"], -best["loss"]) == max(reached)


def test_the_model_answers_as_it_was_measured(finished: TrainResult, discs: Path) -> None:
    """Without torch's help, through the public names."""
    model = mobilenet.load(finished.path)
    again = model.evaluate(discs)
    for figure in ("miou", "pixel_accuracy", "boundary_f"):
        assert again[figure] == pytest.approx(finished.metrics[figure], abs=0.005)
        assert model.metrics[figure] == finished.metrics[figure]
    assert (model.task, model.names) == ("segment", CLASSES)
    assert model.metrics["val"]["images"] == 6
    result = model.predict(sorted((discs / "images").glob("test*"))[0])
    assert result.masks.shape == np.asarray(Image.open(result.path)).shape[:2]
    assert model.checks


@pytest.mark.parametrize("head", segment_start.SEGMENTERS)
@pytest.mark.parametrize("output_stride", [None, 8, 32])
def test_a_classifiers_trunk_gets_any_head(
    classifier: str, discs: Path, tmp_path: Path, head: str, output_stride: int | None
) -> None:
    options = pretrained(discs, tmp_path, classifier, head=head, output_stride=output_stride)
    start = segment_start.make_segmenter(options, CLASSES)
    graph = start.contents.graph
    assert graph.types[graph.outputs["logits"]].shape == (64, 64, 3)
    assert (start.contents.task, start.contents.labels) == ("segment", CLASSES)
    assert start.preprocessing.resize == "stretch", "every pixel of a picture is seen"
    trained, weights = read_model_file(Path(classifier)).weights, start.contents.weights
    assert any(name.startswith("blocks.16.") for name in weights)
    for name, array in weights.items():
        if name.rpartition(".")[0] not in start.new:
            np.testing.assert_array_equal(array, trained[name], err_msg=name)
    strides = {64 // graph.types[node.name].shape[0] for node in graph.nodes if node.name.startswith("blocks.16.")}
    assert strides == {output_stride or 16}
    assert not any("classifier" in name and array.any() for name, array in weights.items()), "even answers"


def test_a_classifier_learns_to_segment(classifier: str, discs: Path, tmp_path: Path) -> None:
    start = read_model_file(Path(classifier)).weights
    options = pretrained(discs, tmp_path, classifier, freeze="2", epochs=2, ema=0.0, head="lraspp")
    result = train(options)
    end = read_model_file(result.path).weights
    kept = [name for name in end if name in start]
    assert len(kept) > 50
    for name in kept:
        frozen = name.startswith(("stem.", "blocks.0.", "blocks.1."))
        assert np.array_equal(start[name], end[name]) == frozen, name
    assert result.history[-1]["val_loss"] < 1.0986, "no better than even answers"


def test_a_segmenter_keeps_its_last_layers_for_the_same_classes_only(
    finished: TrainResult, discs: Path, tmp_path: Path
) -> None:
    options = pretrained(discs, tmp_path, str(finished.path), resolution=96)
    trained = read_model_file(finished.path)
    same = segment_start.make_segmenter(options, CLASSES)
    assert same.new == frozenset()
    assert same.contents.graph.types["segment.resize"].shape == (96, 96, 3)
    for name, array in same.contents.weights.items():
        np.testing.assert_array_equal(array, trained.weights[name])
    other = segment_start.make_segmenter(options, ("background", "disc"))
    assert other.new == {"segment.high_classifier", "segment.low_classifier"}
    for name in other.new:
        assert other.contents.weights[f"{name}.weight"].shape[0] == 2
        assert not other.contents.weights[f"{name}.weight"].any()
    with pytest.raises(ArgumentError, match="has a head and an output stride of its own"):
        segment_start.make_segmenter(pretrained(discs, tmp_path, str(finished.path), head="lraspp"), CLASSES)


def test_the_official_segmenter_gets_new_last_layers(discs: Path, tmp_path: Path) -> None:
    file = Path(__file__).parents[3] / "shared" / "weights" / "coral" / "deeplabv3_mnv2_pascal_quant.tflite"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    options = pretrained(discs, tmp_path, str(file), resolution=None)
    contents = segment_start.make_segmenter(options, CLASSES).contents
    assert contents.graph.types[contents.graph.outputs["logits"]].shape[-1] == 3
    module = GraphModule.from_weights(contents.graph, contents.weights).eval()
    import torch

    with torch.no_grad():
        logits = module(torch.zeros(1, *next(iter(contents.graph.inputs.values())).shape))["logits"]
    assert not logits.any(), "every class is as likely until it has learnt"


def test_what_a_segmenter_cannot_be_told(classifier: str, discs: Path, tmp_path: Path) -> None:
    def refusal(**words: Any) -> str:
        with pytest.raises(ArgumentError) as caught:
            train(TrainOptions(**quick(discs, tmp_path, **words)))
        assert not list(tmp_path.iterdir()), "nothing is written before it is clear that it can work"
        return str(caught.value)

    assert "is for no segmenter; accepted: lraspp" in refusal(head="ssdlite")
    assert "is no segmenter" in refusal(model="ssdlite_mobilenet_v2")
    assert "says head 'lraspp'" in refusal(model="lraspp_mobilenet_v2", head="deeplabv3")
    assert "a segmenter is not sliced" in refusal(pretrained=classifier)
    assert "a segmenter's head is no single layer" in refusal(pretrained=classifier, width=None, freeze="features")
    assert "--mixup is for --task classify; the task is segment" in refusal(mixup=0.2)
    assert "--region is 'lovas'; accepted: none, dice, lovasz" in refusal(region="lovas")
    with pytest.raises(ArgumentError, match="--region is for --task segment; the task is classify"):
        TrainOptions(data="somewhere", region="dice")
    face = tmp_path / "face.safetensors"
    mobilenet.create("mobilefacenet", resolution=112).save(face)
    with pytest.raises(GraphError, match=r"face.safetensors: cannot be fine-tuned: .*stride 32"):
        train(pretrained(discs, tmp_path / "runs", str(face), resolution=112))


def test_patience_counts_epochs_without_a_better_figure(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([(0.5, 1.0), (0.6, 1.0), (0.6, 1.0), (0.6, 1.0), (0.6, 0.9)])
    monkeypatch.setattr(segment, "score_segmenter", lambda *_: Score(*next(scores)))
    result = train(TrainOptions(**quick(discs, tmp_path, epochs=9, patience=2, ema=0.0, width=0.1)))
    assert len(result.history) == 4


# -- data ----------------------------------------------------------------------------------------------------


def batches(folder: Any, **how: Any) -> MaskData:
    words = {"batch": 5, "seed": 1, "budget_bytes": 1e9, **how}
    preprocessing = segment_start.whole_picture(PRESETS["tf"](48, 64))
    return MaskData(folder.splits["train"], 3, preprocessing, MaskAugmentation((0.6, 1.6), 0.5, 0.2), **words)


def test_what_a_batch_holds_depends_on_seed_epoch_and_step_alone(discs: Path) -> None:
    folder = read_masks(discs)
    plain = list(batches(folder, workers=0).epoch(3))
    for other in (batches(folder, workers=3), batches(folder, workers=1, budget_bytes=0)):
        later = list(other.epoch(3, first_step=2))
        for wanted, got in zip(plain[2:], later, strict=True):
            assert wanted.images.equal(got.images)
            assert wanted.targets.equal(got.targets)
    assert not plain[0].images.equal(next(iter(batches(folder).epoch(4))).images)
    parts = [list(batches(folder, process=p, processes=2).epoch(3)) for p in (0, 1)]
    assert plain[1].targets[:2].equal(parts[0][1].targets)
    assert plain[1].targets[2:].equal(parts[1][1].targets)


def test_pictures_and_masks_are_changed_together(discs: Path) -> None:
    """Whatever the crop, scale and mirror: pixels of a class still have the class's colour."""
    for batch in batches(read_masks(discs)).epoch(0):
        pixels = batch.images.numpy() * 127.5 + 127.5
        targets = batch.targets.numpy()
        assert targets.shape == pixels.shape[:3] == (len(pixels), 48, 64)
        for number, colour in DISCS.items():
            found = pixels[targets == number]
            if len(found) > 50:
                assert np.abs(np.median(found, axis=0) - colour).max() < 45, "colours change by a fifth at most"
        assert set(np.unique(targets)) <= {0, 1, 2, 255}


def test_large_pictures_are_kept_small(discs: Path) -> None:
    sample = read_masks(discs).splits["train"][0]
    whole, reduced = (loaded_pair(sample, 3, (side, side)) for side in (500, 20))
    assert whole.shape[2] == reduced.shape[2] == 4
    assert min(reduced.shape[:2]) >= 20
    assert reduced.size < whole.size / 4
    assert set(np.unique(reduced[..., 3])) <= set(np.unique(whole[..., 3]))


def test_the_figure_of_an_epoch_is_that_of_the_answers(discs: Path, finished: TrainResult) -> None:
    """mIoU of all pictures together, counted another way; pixels without a class do not count."""
    from mobilenet.learn.machine import Machine
    from mobilenet.learn.progress import Reporter
    from mobilenet.learn.segmentation_loss import SegmentationLoss
    from mobilenet.learn.task import Setting

    contents = read_model_file(finished.path)
    module = GraphModule.from_weights(contents.graph, contents.weights).train()
    assert contents.preprocessing is not None
    options = TrainOptions(**quick(discs, Path("nowhere"))).filled()
    setting = Setting(options, Machine(options), Reporter(quiet=True), lambda: None)
    data = MaskEvaluation(read_masks(discs).splits["val"], 3, contents.preprocessing, batch=4, workers=1)
    score = score_segmenter(module, data, SegmentationLoss(), setting)
    assert module.training
    truth = np.concatenate([masks.numpy() for _, masks in data.batches()])
    found = np.concatenate([module.eval()(images)["logits"].argmax(-1).numpy() for images, _ in data.batches()])
    known = truth != 255
    assert not known.all()
    iou = []
    for number in range(3):
        ours, theirs = (found == number) & known, truth == number
        iou.append((ours & theirs).sum() / (ours | theirs).sum())
    assert score.figure == pytest.approx(np.mean(iou), abs=1e-6)


def test_bad_data_are_found_before_training_and_named(tmp_path: Path) -> None:
    def error_of(change: Any, **more: Any) -> str:
        root = write_discs(tmp_path / str(len(list(tmp_path.iterdir()))), {"train": 4, "val": 2})
        change(root)
        with pytest.raises(DataError) as caught:
            train(TrainOptions(**quick(root, tmp_path / "runs", **more)))
        assert not (tmp_path / "runs").exists()
        return str(caught.value)

    def another_size(root: Path) -> None:
        save_class_map(np.zeros((30, 40), np.uint8), root / "masks" / "train01.png")

    def unknown_class(root: Path) -> None:
        path = root / "masks" / "val01.png"
        mask = np.array(Image.open(path))
        mask[5, 7] = 9
        save_class_map(mask, path)

    def alone(missing: str, *kept: str) -> Any:
        def change(root: Path) -> None:
            (root / missing / "train02.png").unlink()
            for path in root.glob("t*.txt"):
                path.unlink() if path.name not in kept else None

        return change

    def all_masks(value: int) -> Any:
        def change(root: Path) -> None:
            for path in (root / "masks").iterdir():
                save_class_map(np.full_like(np.array(Image.open(path)), value), path)

        return change

    assert "train01.png: has 40 x 30 pixels, but its picture has" in error_of(another_size)
    assert "val01.png: pixel (7, 5) is 9, but there are 3 classes" in error_of(unknown_class)
    assert "train.txt, line 3: 'train02' is no picture with a mask" in error_of(alone("masks", "train.txt"))
    assert "has no mask" in error_of(alone("masks"))
    assert "has no picture" in error_of(alone("images"))
    assert "val01.png: is not a picture" in error_of(
        lambda root: (root / "images" / "val01.png").write_bytes(b"x")
    )
    assert "no pixel of the training pictures has a class" in error_of(all_masks(255))
    assert "has one class, 'all'" in error_of(
        lambda root: [all_masks(0)(root), (root / "labels.txt").write_text("all\n")]
    )
    assert "there is no split 'val'" in error_of(lambda root: (root / "val.txt").write_text(""))
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "masks").mkdir()
    with pytest.raises(DataError, match="has no picture with a mask"):
        train(TrainOptions(**quick(tmp_path / "empty", tmp_path / "runs")))
    with pytest.raises(DataError, match="is neither a folder with images/ and masks/"):
        train(TrainOptions(**quick(tmp_path / "nowhere", tmp_path / "runs")))


def test_bad_data_can_be_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_discs(tmp_path / "data", {"train": 9, "val": 3})
    save_class_map(np.zeros((30, 40), np.uint8), root / "masks" / "train01.png")
    (root / "masks" / "train02.png").unlink()
    (root / "train.txt").write_text("".join(f"train{n:02}\n" for n in range(9) if n != 2))
    words = quick(root, tmp_path / "runs", on_bad_picture="skip", epochs=1, width=0.1)
    result = train(TrainOptions(**words))
    said = capsys.readouterr().out
    assert "train01.png" in said
    assert "train02.png" in said
    assert result.metrics["split"] == "val"
    assert result.metrics["images"] == 3
