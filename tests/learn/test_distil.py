"""Learning from a teacher: what the loss is, which teachers fit, that runs resume; and sliced starts in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_processes import history, run_together  # noqa: E402

import mobilenet  # noqa: E402
from mobilenet.errors import ArgumentError, TrainingError  # noqa: E402
from mobilenet.family.names import build  # noqa: E402
from mobilenet.files.model_file import read_model_file  # noqa: E402
from mobilenet.graph.fold import fold  # noqa: E402
from mobilenet.graph.graph import Graph  # noqa: E402
from mobilenet.graph.ops import BatchNorm  # noqa: E402
from mobilenet.learn import checkpoint  # noqa: E402
from mobilenet.learn.distil import View, read_teacher, softened_divergence  # noqa: E402
from mobilenet.learn.options import TrainOptions  # noqa: E402
from mobilenet.learn.renew import measured, with_new_statistics  # noqa: E402
from mobilenet.learn.start import make_start  # noqa: E402
from mobilenet.learn.train import train  # noqa: E402
from mobilenet.model import Model  # noqa: E402
from mobilenet.pictures.preprocess import PRESETS, Preprocessing  # noqa: E402
from mobilenet.run import reference  # noqa: E402

CLASSES = ("blue", "green", "red")


def teacher_file(
    path: Path, labels: tuple[str, ...] = CLASSES, width: float = 0.25, side: int = 32, **changes: Any
) -> Path:
    """A model with batch norms that have seen pictures; its answers differ from class to class."""
    model = mobilenet.create("mobilenet_v2", width_multiplier=width, resolution=side, classes=len(labels), seed=4)
    generator = np.random.default_rng(4)
    weights = {
        name: generator.uniform(0.5, 1.5, array.shape).astype(np.float32) if name.endswith(".gamma") else array
        for name, array in model.weights.items()
    }
    weights["classifier.weight"] = generator.normal(0, 0.5, weights["classifier.weight"].shape).astype(np.float32)
    made = Model(model.graph, weights, model.preprocessing, labels=labels, **changes)
    made.save(path)
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return teacher_file(tmp_path / "teacher.safetensors")


def test_the_divergence_is_kl_times_the_square_of_the_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    student, wanted = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = (torch.softmax(values / 3, 1) for values in (wanted, student))
    by_hand = (p * (p / q).log()).sum(1) * 9
    torch.testing.assert_close(softened_divergence(student, wanted, 3.0), by_hand)
    assert softened_divergence(wanted + 5, wanted, 3.0).abs().max() < 1e-12  # a shift of all logits says the same


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (PRESETS["tf"](20, 20), PRESETS["imagenet"](20, 20)),
        (PRESETS["imagenet"](20, 20), Preprocessing(20, 20, channels="BGR", mean=(1, 2, 3), std=(4, 5, 6))),
        (Preprocessing(20, 20, channels="L", mean=(100,), std=(50,)), PRESETS["tf"](20, 20)),
    ],
)
def test_the_teacher_sees_the_students_pictures(student: Preprocessing, teacher: Preprocessing) -> None:
    channels = 1 if student.channels == "L" else 3
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 20, channels), dtype=np.uint8)
    own = torch.from_numpy(student.normalise(pixels))
    rgb = pixels.repeat(3, 3) if channels == 1 else pixels
    wanted = teacher.normalise(rgb[..., ::-1] if teacher.channels == "BGR" else rgb)
    np.testing.assert_allclose(View.between(student, teacher)(own), wanted, atol=1e-5)


def test_a_teacher_of_another_size_sees_them_resized() -> None:
    view = View.between(PRESETS["tf"](16, 16), PRESETS["tf"](32, 24))
    images = torch.linspace(-1, 1, 16).view(1, 16, 1, 1).expand(2, 16, 16, 3)
    seen = view(images)
    assert seen.shape == (2, 32, 24, 3)
    assert seen.mean() == pytest.approx(0, abs=1e-6) and seen[0, 0, 0, 0] < -0.9 < 0.9 < seen[0, -1, 0, 0]


def options(words: dict[str, Any], **more: Any) -> TrainOptions:
    return TrainOptions(**{**words, **more}).filled()


def read(words: dict[str, Any], **more: Any) -> Any:
    chosen = options(words, **more)
    return read_teacher(chosen, make_start(chosen, CLASSES), CLASSES)


def test_classes_are_found_by_their_names(words: dict[str, Any], tmp_path: Path) -> None:
    shuffled = teacher_file(tmp_path / "t.safetensors", ("red", "moon", "blue", "green"))
    teacher = read(words, distill=str(shuffled))
    assert teacher.columns == [2, 3, 0]
    assert teacher.describe() == f"learning answers and features from {shuffled}"


@pytest.mark.parametrize("labels", [("red", "moon", "blue"), ("red", "red", "blue", "green"), ()])
def test_a_teacher_of_other_classes_gives_features(
    words: dict[str, Any], tmp_path: Path, labels: tuple[str, ...]
) -> None:
    path = teacher_file(tmp_path / "t.safetensors", labels or ("a", "b", "c"))
    teacher = read(words, distill=str(path))
    assert teacher.columns is None and teacher.features == 1280
    assert "features from" in teacher.describe() and "not those of the data" in teacher.describe()
    with pytest.raises(ArgumentError, match="neither the classes of the data nor an embedding"):
        read(words, distill=str(path), distill_features=0.0)


def test_a_teacher_that_cannot_be_is_refused(words: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="--distill nowhere.safetensors: cannot be read"):
        read(words, distill="nowhere.safetensors")
    grey = mobilenet.create("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3, channels=1)
    grey.save(tmp_path / "grey.safetensors")
    with pytest.raises(ArgumentError, match="sees grey pictures"):
        read(words, distill=str(tmp_path / "grey.safetensors"))
    with pytest.raises(ArgumentError, match="exclude each other"):
        TrainOptions(data="d", pretrained="p", freeze="features", distill="t")


def test_a_perfect_teacher_pulls_harder_than_none(words: dict[str, Any], teacher: Path) -> None:
    """The student learns what the teacher says, even where the labels say nothing."""
    quiet = {
        **words, "mixup": 0.0, "cutmix": 0.0, "randaugment": 0, "dropout": 0.0, "drop_path": 0.0, "epochs": 6,
        "distill": str(teacher), "distill_weight": 1.0, "distill_features": 0.0, "ema": 0.0, "crop_area": 1.0,
        "flip": 0.0, "colour": 0.0,
    }  # fmt: skip
    losses = [row["train_loss"] for row in train(TrainOptions(**quiet)).history]
    assert losses[-1] < 0.5 * losses[0]


def test_a_distilled_run_keeps_no_map(words: dict[str, Any], teacher: Path) -> None:
    result = train(TrainOptions(**words, distill=str(teacher)))
    best = read_model_file(result.path)
    own = build("mobilenet_v2", width_multiplier=0.1, resolution=32, classes=3)
    assert best.weights.keys() == own.parameters().keys()
    assert best.provenance["options"]["distill"] == str(teacher)


def interrupted_after(words: dict[str, Any], epochs: int) -> None:
    """A run of `words` that is stopped when so many epochs are done, as Ctrl-C stops it."""
    import os
    import signal

    def listener(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        train(TrainOptions(**words), on_progress=listener)


def test_a_distilled_sliced_run_resumes_bit_for_bit(words: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    words = {k: v for k, v in words.items() if k != "model"}
    words |= {"pretrained": str(teacher), "width": 0.1, "distill": str(teacher)}
    whole = train(TrainOptions(**{**words, "project": str(tmp_path / "whole")}))
    interrupted_after(words, 1)
    resumed = train(TrainOptions(**words, resume=True))
    states = [checkpoint.load_state(result.folder / "last.safetensors")[0] for result in (whole, resumed)]
    assert any(name.startswith("distillation/") for name in states[0])
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert resumed.metrics["top1"] == whole.metrics["top1"]


def test_two_processes_slice_and_distil_as_one(words: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    """Losses at a rate of next to nothing: the same start, and the same share of teacher and labels."""
    words = {k: v for k, v in words.items() if k != "model"}
    words |= {"pretrained": str(teacher), "width": 0.1, "distill": str(teacher), "epochs": 1, "batch": 10}
    words |= {"dropout": 0.0, "drop_path": 0.0, "lr0": 1e-8, "optimizer": "sgd"}
    alone = train(TrainOptions(**words))
    together = run_together({**words, "project": str(tmp_path / "together")})
    assert together.returncode == 0, together.stderr[-3000:]
    one, two = (history(folder)[-1] for folder in (alone.folder, tmp_path / "together" / "classify" / "train"))
    assert float(two["train_loss"]) == pytest.approx(float(one["train_loss"]), rel=1e-3)
    assert float(two["val_loss"]) == pytest.approx(float(one["val_loss"]), rel=1e-3)


def test_a_run_does_not_resume_with_another_teacher(words: dict[str, Any], teacher: Path) -> None:
    words = {**words, "distill": str(teacher)}
    interrupted_after(words, 1)
    teacher_file(teacher, width=0.35)
    with pytest.raises(TrainingError, match="the teacher changed"):
        train(TrainOptions(**words, resume=True))


def test_a_sliced_run_has_the_width_that_is_wanted(words: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    words = {k: v for k, v in words.items() if k != "model"}
    result = train(
        TrainOptions(**{**words, "pretrained": str(teacher), "width": 0.1, "epochs": 1, "resolution": 64})
    )
    best = read_model_file(result.path)
    own = build("mobilenet_v2", width_multiplier=0.1, resolution=64, classes=3)
    assert {n: a.shape for n, a in best.weights.items()} == {n: p.shape for n, p in own.parameters().items()}
    assert best.provenance["sliced_to_width"] == 0.1
    assert best.labels == CLASSES


def test_a_wider_one_is_not_to_be_had(words: dict[str, Any], teacher: Path) -> None:
    words = {k: v for k, v in words.items() if k != "model"}
    with pytest.raises(ArgumentError, match=r"--width 0.5: the network is of width 0.25"):
        train(TrainOptions(**{**words, "pretrained": str(teacher), "width": 0.5}))


def test_measured_batch_norms_change_no_answer(teacher: Path) -> None:
    contents = read_model_file(teacher)
    generator = np.random.default_rng(0)
    batch = generator.uniform(-1, 1, (8, 32, 32, 3)).astype(np.float32)
    before = reference.run(contents.graph, contents.weights, batch)
    batches = [torch.from_numpy(batch)]
    weights = measured(contents.graph, contents.weights, lambda: batches, torch.device("cpu"))
    after = reference.run(contents.graph, weights, batch)
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-4 * np.abs(values).max())
    norms = [node.name for node in contents.graph.nodes if isinstance(node.operator, BatchNorm)]
    values = reference.run(
        Graph(contents.graph.inputs, contents.graph.nodes, {"x": contents.graph.node(norms[3]).inputs[0]}),
        weights,
        batch,
    )["x"]
    np.testing.assert_allclose(weights[f"{norms[3]}.mean"], values.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(weights[f"{norms[3]}.variance"], values.var((0, 1, 2)), rtol=1e-2, atol=1e-5)


def test_new_statistics_are_those_of_the_pictures(teacher: Path) -> None:
    contents = read_model_file(teacher)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(8, 32, 32, 3, generator=generator) for _ in range(3)]
    weights = with_new_statistics(contents.graph, contents.weights, lambda: batches, torch.device("cpu"))
    changed = {name for name in weights if not np.array_equal(weights[name], contents.weights[name])}
    assert changed == {name for name in weights if name.endswith((".mean", ".variance"))}
    first = next(node for node in contents.graph.nodes if isinstance(node.operator, BatchNorm)).name
    stem = reference.run(
        Graph(contents.graph.inputs, contents.graph.nodes[:1], {"x": "stem.conv"}),
        {"stem.conv.weight": contents.weights["stem.conv.weight"]},
        torch.cat(batches).numpy(),
    )["x"]
    np.testing.assert_allclose(weights[f"{first}.mean"], stem.mean((0, 1, 2)), atol=1e-4)


def test_a_folded_file_is_sliced_with_batch_norms_put_back(
    words: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    contents = read_model_file(teacher)
    graph, weights = fold(contents.graph, contents.weights)
    Model(graph, weights, contents.preprocessing, labels=CLASSES).save(tmp_path / "folded.safetensors")
    words = {k: v for k, v in words.items() if k != "model"} | {"epochs": 1}
    result = train(TrainOptions(**{**words, "pretrained": str(tmp_path / "folded.safetensors"), "width": 0.1}))
    best = read_model_file(result.path)
    assert any(name.endswith(".norm.gamma") for name in best.weights)
    assert {"classifier.weight", "stem.conv.norm.variance"} <= best.weights.keys()


def test_published_names_and_checkpoints_are_pretrained_weights(
    words: dict[str, Any], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILENET_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    teacher_file(tmp_path / "models" / "torchvision--mobilenet_v2.in1k_v1.safetensors")
    words = {k: v for k, v in words.items() if k not in ("model", "width")}
    start = make_start(options(words, pretrained="torchvision/mobilenet_v2.in1k_v1"), CLASSES)
    np.testing.assert_array_equal(
        start.contents.weights["stem.conv.weight"], read_model_file(teacher).weights["stem.conv.weight"]
    )
    with pytest.raises(ArgumentError, match=r"did you mean torchvision/mobilenet_v2"):
        make_start(options(words, pretrained="torchvision/mobilenet_v2"), CLASSES)
