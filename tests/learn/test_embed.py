"""Runs of --task embed: what they learn, leave behind, resume, and refuse."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from made_identities import write_identities, write_splits  # noqa: E402
from test_processes import history, run_together  # noqa: E402

import mobilenet  # noqa: E402
from mobilenet.errors import ArgumentError, DataError, GraphError, TrainingError  # noqa: E402
from mobilenet.files.model_file import read_model_file  # noqa: E402
from mobilenet.learn import checkpoint  # noqa: E402
from mobilenet.learn.embed_fit import fit_projection, score_of  # noqa: E402
from mobilenet.learn.embed_pairs import Pairs  # noqa: E402
from mobilenet.learn.embed_start import LINEAR, NORM, as_embedder, make_embedder  # noqa: E402
from mobilenet.learn.options import TrainOptions  # noqa: E402
from mobilenet.learn.train import TrainResult, train  # noqa: E402
from mobilenet.learn.transfer import Embeddings  # noqa: E402
from mobilenet.model import Model  # noqa: E402
from mobilenet.run.torch_module import GraphModule  # noqa: E402
from mobilenet.tasks.verify_run import THRESHOLD, THRESHOLD_FAR, evaluate_verification  # noqa: E402


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("identities"), train=16, val=5, test=5)


@pytest.fixture
def face(identities: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a short run."""
    return {
        "task": "embed", "data": str(identities), "model": "mobilefacenet", "width": 0.1, "resolution": 32,
        "epochs": 2, "batch": 16, "warmup_epochs": 0.5, "lr0": 3e-3, "embedding": 16, "amp": "none", "flip": 0.0,
        "device": "cpu", "threads": 1, "workers": 1, "project": str(tmp_path / "runs"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(identities: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    words = {"data": str(identities), "model": "mobilefacenet", "width": 0.25, "resolution": 32, "embedding": 16}
    words |= {
        "epochs": 8,
        "batch": 16,
        "lr0": 1e-3,
        "ema": 0.9,
        "flip": 0.0,
        "crop_area": 0.9,
        "amp": "none",
        "threads": 1,
        "workers": 1,
    }
    return train(TrainOptions(**words, task="embed", project=str(tmp_path_factory.mktemp("finished")), far=0.1))


def classifier(path: Path, **more: Any) -> Path:
    """A classifier with features that differ from picture to picture."""
    made = mobilenet.create("mobilenet_v2", width_multiplier=0.35, resolution=32, classes=5, seed=3, **more)
    generator = np.random.default_rng(3)
    weights = {
        name: generator.uniform(0.5, 1.5, array.shape).astype(np.float32) if name.endswith(".gamma") else array
        for name, array in made.weights.items()
    }
    Model(made.graph, weights, made.preprocessing, labels=tuple("abcde"), licence="CC0-1.0").save(path)
    return path


@pytest.fixture
def pretrained(face: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Options of a run that starts from a classifier."""
    words = {key: value for key, value in face.items() if key not in ("model", "width", "lr0")}
    return {**words, "pretrained": str(classifier(tmp_path / "classifier.safetensors"))}


# -- what a run leaves ---------------------------------------------------------------------------------------


def test_it_tells_apart_whom_it_has_never_seen(finished: TrainResult) -> None:
    assert finished.metrics["split"] == "test"
    assert finished.metrics["images"] == 20 and finished.metrics["identities"] == 5
    assert finished.metrics["pairs"] == 190 and finished.metrics["same_pairs"] == 30
    assert finished.metrics["auc"] > 0.75 and finished.metrics["eer"] < 0.35
    assert finished.metrics["rank1"] > 0.5
    assert finished.metrics["tar_at_far"]["0.001"] is None, "160 pairs cannot show it"
    assert finished.history[-1]["train_loss"] < 0.7 * finished.history[0]["train_loss"]
    best = max(max(row["val_balanced_accuracy"], row["val_balanced_accuracy_ema"]) for row in finished.history)
    assert read_model_file(finished.path).provenance["best"]["balanced_accuracy"] == best


def test_the_files_of_a_run(finished: TrainResult) -> None:
    assert finished.folder.parts[-2:] == ("embed", "train")
    assert {path.name for path in finished.folder.iterdir()} == {
        "best.safetensors", "last.safetensors", "args.yaml", "results.csv", "curves.png", "roc.png",
        "similarities.png",
    }  # fmt: skip
    header = (finished.folder / "results.csv").read_text().splitlines()[0]
    assert header.startswith("epoch,phase,train_loss,val_loss,val_balanced_accuracy")


def test_the_model_embeds_and_has_no_classifier(finished: TrainResult) -> None:
    model = mobilenet.load(finished.path)
    assert model.task == "embed" and list(model.graph.outputs) == ["embedding"] and not model.labels
    assert model.graph.types[model.graph.outputs["embedding"]].shape == (16,)
    assert not any(name.startswith(("classes", "classifier")) for name in model.weights)
    assert model.preprocessing.resize == "stretch" and model.preprocessing.crop_fraction == 1.0
    assert model.calibration[THRESHOLD_FAR] == 0.1 and model.checks
    assert model.metrics["val"].keys() >= {"balanced_accuracy", "auc"}


def test_evaluate_verify_finds_the_same_figures(finished: TrainResult, identities: Path) -> None:
    """By the engine and the reader of the other command."""
    model = mobilenet.load(finished.path)
    again = evaluate_verification(model, identities / "test", draw=0)
    assert again["pairs"] == finished.metrics["pairs"]
    assert again["auc"] == pytest.approx(finished.metrics["auc"], abs=1e-3)
    assert again["at_threshold"]["threshold"] == model.calibration[THRESHOLD] == finished.metrics["threshold"]
    assert again["at_threshold"]["tar"] == pytest.approx(finished.metrics["tar"], abs=0.04)
    assert again["rank1"] == finished.metrics["rank1"]
    on_val = evaluate_verification(model, identities / "val", draw=0)
    assert on_val["at_threshold"]["far"] <= 0.1


@pytest.mark.parametrize(
    ("model", "loss", "more"),
    [
        ("mobilenet_v2", "cosface", {"margin": 0.2, "scale": 16.0}),
        ("mobilenet_v3_small", "triplet", {"pictures_per_identity": 2}),
        ("mobilefacenet_s", "triplet", {"margin": 0.5, "embedding": 20}),
        ("mobilenet_v4_conv_small", "arcface", {}),
    ],
)
def test_members_of_the_family_learn_by_every_loss(
    face: dict[str, Any], model: str, loss: str, more: dict[str, Any]
) -> None:
    result = train(TrainOptions(**{**face, "model": model, "loss": loss, "epochs": 1, **more}))
    made = mobilenet.load(result.path)
    assert made.graph.types[made.graph.outputs["embedding"]].shape == (more.get("embedding", 16),)
    assert np.isfinite(result.history[0]["train_loss"])
    assert {f"{LINEAR}.weight", f"{NORM}.gamma"} <= made.weights.keys()
    assert not any(name.startswith("classifier") for name in made.weights)
    state = checkpoint.load_state(result.folder / "last.safetensors")[0]
    assert ("classes/weight" in state) == (loss != "triplet")


def test_the_length_of_an_embedding(face: dict[str, Any]) -> None:
    def length(**more: Any) -> tuple[int, bool]:
        options = TrainOptions(**{**face, **more}).filled()
        start = as_embedder(make_embedder(options), options)
        graph = start.contents.graph
        return int(np.prod(graph.types[graph.outputs["embedding"]].shape)), bool(start.new)

    assert length(embedding=None) == (128, False), "MobileFaceNet's own"
    assert length(embedding=128) == (128, False)
    assert length(embedding=64) == (64, True)
    assert length(embedding=None, model="mobilenet_v2") == (128, True)
    assert length(embedding=40, model="mobilenet_v1") == (40, True)


def test_a_stopped_run_resumes_bit_for_bit(face: dict[str, Any], tmp_path: Path) -> None:
    whole = train(TrainOptions(**{**face, "project": str(tmp_path / "whole")}))

    def stop_after_one(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(TrainOptions(**face), on_progress=stop_after_one)
    with pytest.raises(ArgumentError, match="--margin 0.1"):
        train(TrainOptions(**face, margin=0.1, resume=True))
    resumed = train(TrainOptions(**face, resume=True))
    states = [checkpoint.load_state(result.folder / "last.safetensors")[0] for result in (whole, resumed)]
    assert "classes/weight" in states[0] and "optimizer/classes.weight/exp_avg" in states[0]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert resumed.metrics == whole.metrics


def test_other_identities_are_another_run(face: dict[str, Any], tmp_path: Path) -> None:
    root = write_splits(tmp_path / "data")
    face["data"] = str(root)

    def stop_after_one(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(TrainOptions(**face), on_progress=stop_after_one)
    (root / "train" / "p00").rename(root / "train" / "renamed")
    with pytest.raises(TrainingError, match="the pictures"):
        train(TrainOptions(**face, resume=True))


def test_two_processes_learn_as_one(face: dict[str, Any], tmp_path: Path) -> None:
    """Losses at a rate of next to nothing: the same classes, directions and shares of a batch."""
    face.update(epochs=1, lr0=1e-8, optimizer="sgd")
    alone = train(TrainOptions(**face))
    together = run_together({**face, "project": str(tmp_path / "together")})
    assert together.returncode == 0, together.stderr[-3000:]
    one, two = (history(folder)[-1] for folder in (alone.folder, tmp_path / "together" / "embed" / "train"))
    assert float(two["train_loss"]) == pytest.approx(float(one["train_loss"]), rel=1e-3)
    assert float(two["val_loss"]) == pytest.approx(float(one["val_loss"]), abs=2e-3)


# -- from somebody's weights ---------------------------------------------------------------------------------


def test_features_of_a_classifier_get_a_fitted_last_layer(pretrained: dict[str, Any]) -> None:
    result = train(TrainOptions(**pretrained, freeze="features"))
    (row,) = result.history
    assert row["phase"] == "head" and row["val_balanced_accuracy"] > 0.6
    made, before = read_model_file(result.path), read_model_file(pretrained["pretrained"])
    assert made.licence == "CC0-1.0" and made.task == "embed" and made.labels == ()
    for name, array in made.weights.items():
        if not name.startswith("embedding."):
            np.testing.assert_array_equal(array, before.weights[name])
    assert result.metrics["auc"] > 0.6
    again = train(TrainOptions(**pretrained, freeze="features"))
    for name, array in made.weights.items():
        np.testing.assert_array_equal(read_model_file(again.path).weights[name], array, err_msg=name)


def test_fine_tuning_starts_from_the_fitted_layer(pretrained: dict[str, Any]) -> None:
    result = train(TrainOptions(**{**pretrained, "epochs": 1, "lr0": 1e-7, "ema": 0.0}))
    head, row = result.history
    assert (head["phase"], row["phase"]) == ("head", "all")
    best, state = read_model_file(result.path), checkpoint.load_state(result.folder / "last.safetensors")[0]
    module = GraphModule(best.graph)
    module.load_state_dict({n.removeprefix("model/"): t for n, t in state.items() if n.startswith("model/")})
    for name, array in module.to_weights().items():  # statistics move at any rate
        if not name.endswith((".mean", ".variance")):
            assert np.allclose(array, best.weights[name], atol=1e-4), name
    free = train(TrainOptions(**{**pretrained, "epochs": 1, "lr0": 1e-7, "ema": 0.0, "freeze": "2"}))
    assert [one["phase"] for one in free.history] == ["head", "all"]


def test_a_sliced_classifier_and_a_teacher(pretrained: dict[str, Any]) -> None:
    words = {**pretrained, "width": 0.1, "epochs": 1, "distill": pretrained["pretrained"]}
    result = train(TrainOptions(**words))
    made = read_model_file(result.path)
    assert made.provenance["sliced_to_width"] == 0.1
    state = checkpoint.load_state(result.folder / "last.safetensors")[0]
    assert {"classes/weight", "distillation/weight"} <= state.keys()
    assert not any(name.startswith(("classes", "distillation")) for name in made.weights)


def test_an_embedder_goes_on_learning(finished: TrainResult, face: dict[str, Any], tmp_path: Path) -> None:
    words = {key: value for key, value in face.items() if key not in ("model", "width", "resolution")}
    words |= {"pretrained": str(finished.path), "epochs": 1, "lr0": 1e-7, "ema": 0.0}
    result = train(TrainOptions(**words))
    assert result.metrics["auc"] == pytest.approx(finished.metrics["auc"], abs=0.05)
    shorter = train(TrainOptions(**{**words, "embedding": 8, "freeze": "features"}))
    graph = mobilenet.load(shorter.path).graph
    assert graph.types[graph.outputs["embedding"]].shape == (8,)
    assert sum(node.name == LINEAR for node in graph.nodes) == 1
    with pytest.raises(ArgumentError, match="cannot be sliced"):
        train(TrainOptions(**words, width=0.5))
    model = mobilenet.create("mobilenet_v2", width_multiplier=0.1, resolution=32, features_only=True)
    model.save(tmp_path / "features.safetensors")
    with pytest.raises(GraphError, match="has neither logits nor an embedding"):
        train(TrainOptions(**{**words, "pretrained": str(tmp_path / "features.safetensors")}))


def test_the_fit_finds_what_tells_apart_beneath_what_does_not() -> None:
    """Identities differ in three directions; pictures of one vary most in another five."""
    generator = np.random.default_rng(0)

    def features(identities: int) -> Embeddings:
        centres = np.repeat(generator.normal(size=(identities, 3)), 8, 0)
        noise = generator.normal(size=(len(centres), 5)) * 1.5
        values = np.concatenate([centres + generator.normal(size=centres.shape) * 0.2, noise], 1) + 4
        return Embeddings(values.astype(np.float32), np.repeat(np.arange(identities), 8))

    train_, val = features(30), features(12)
    pairs = Pairs.of(val.labels)
    plain = score_of(val.features, pairs)
    projection = fit_projection(train_, val, pairs, 8)
    assert projection.score.figure > plain.figure + 0.15
    assert projection.score.figure == pytest.approx(
        score_of(((val.features - projection.centre) @ projection.matrix).astype(np.float32), pairs).figure
    )


# -- what is refused, and bad data -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"loss": "softmax"}, "--loss is 'softmax'; accepted: arcface, cosface, triplet"),
        ({"margin": -0.1}, "--margin"),
        ({"embedding": 1}, "--embedding"),
        ({"scale": 0.0}, "--scale"),
        ({"far": 1.0}, "--far"),
        ({"pictures_per_identity": 1}, "--pictures-per-identity"),
        ({"mixup": 0.2}, "--mixup is for --task classify; the task is embed"),
        ({"class_weights": "auto"}, "--class-weights is for --task classify or segment"),
        ({"task": "classify", "margin": 0.2}, "--margin is for --task embed; the task is classify"),
        ({"task": "classify", "loss": "triplet"}, "--loss is for --task embed"),
    ],
)
def test_options_that_cannot_be(face: dict[str, Any], words: dict[str, Any], message: str) -> None:
    plain = {key: value for key, value in face.items() if key != "embedding"}
    with pytest.raises(ArgumentError, match=message):
        TrainOptions(**{**plain, **words})


def test_nothing_is_written_for_what_cannot_work(face: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"--far 0.0001 cannot be seen in 160 pairs"):
        train(TrainOptions(**face, far=1e-4))
    with pytest.raises(DataError, match="no such folder"):
        train(TrainOptions(**{**face, "data": "nowhere"}))
    assert not Path(face["project"]).exists()


def test_bad_pictures_and_lonely_ones_are_skipped_and_named(face: dict[str, Any], tmp_path: Path) -> None:
    root = write_splits(tmp_path / "data")
    write_identities(root / "train", 2, pictures=1, prefix="lonely")
    (root / "train" / "p00" / "1.pgm").write_bytes(b"P5 48 48 255\n only the beginning")
    face.update(data=str(root), epochs=1)
    with pytest.raises(DataError, match=r"p00/1.pgm"):
        train(TrainOptions(**face))
    said: list[str] = []
    result = train(
        TrainOptions(**face, on_bad_picture="skip"),
        on_progress=lambda event: said.append(event.get("text", "")),
    )
    assert any("skipped" in text and "p00/1.pgm" in text for text in said)
    assert "skipped: 2 identities of one picture in train: lonely00, lonely01" in said
    assert result.metrics["images"] == 16
    assert json.dumps(result.metrics)


def test_faces_of_people_who_were_never_seen(shared: Path, tmp_path: Path) -> None:
    """Real faces and official weights: a fitted last layer, in seconds."""
    numbers = {"train": range(1, 16), "val": range(16, 21), "test": range(21, 31)}
    for split, people in numbers.items():
        for person in people:
            (tmp_path / "faces" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "faces" / split / f"s{person}").symlink_to(shared / "data" / "orl_faces" / f"s{person}")
    weights = shared / "weights" / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    words = {"task": "embed", "data": str(tmp_path / "faces"), "pretrained": str(weights), "freeze": "features"}
    result = train(TrainOptions(**words, project=str(tmp_path / "runs"), threads=1, workers=1, amp="none"))
    assert result.metrics["pairs"] == 4950
    assert result.metrics["balanced_accuracy"] > 0.93
    assert result.metrics["auc"] > 0.99 and result.metrics["rank1"] > 0.9
    model = mobilenet.load(result.path)
    assert model.input.shape == (128, 128, 3)
