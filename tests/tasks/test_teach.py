"""Classes that were taught by a handful of pictures: what they change, what they leave, and what runs them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mobilenet
from mobilenet.cli import app
from mobilenet.errors import ArgumentError, DataError, ImageError, ModelFileError
from mobilenet.model import Model
from mobilenet.run import reference
from mobilenet.tasks.taught import NONE
from mobilenet.tasks.teach import DEFAULT_THRESHOLD

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 220)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three colours, six each, and a classifier of two classes that was never trained."""
    folder = tmp_path_factory.mktemp("teach")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(6):
            pixels = np.clip(np.array(colour) + generator.integers(-60, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    made = mobilenet.create("mobilenet_v3_small", width_multiplier=0.35, resolution=32, classes=2)
    made.labels = ("cat", "dog")
    made.calibration = {"temperature": 1.7, "verify_threshold": 0.4}
    made.metrics = {"top1": 0.5}
    made.save(folder / "m.safetensors")
    return folder


@pytest.fixture
def model(home: Path) -> Model:
    return mobilenet.load(home / "m.safetensors", threads=1)


def some(home: Path, name: str, start: int = 0, stop: int = 4) -> list[Path]:
    return [home / name / f"{number}.png" for number in range(start, stop)]


def lessons(model: Model, home: Path, **words: object) -> Model:
    for name in COLOURS:
        model = model.teach(name, some(home, name), **words)  # type: ignore[arg-type]
    return model


def test_taught_classes_alone_know_new_pictures_of_theirs(model: Model, home: Path, tmp_path: Path) -> None:
    made = lessons(model, home, keep=False, threshold=-1.0)
    assert made.labels == (NONE, "red", "green", "blue")
    made.save(tmp_path / "t.safetensors")
    loaded = mobilenet.load(tmp_path / "t.safetensors", threads=1)
    loaded.verify()
    for name in COLOURS:
        for path in some(home, name, 4, 6):
            assert loaded.predict(path).label == name
    assert model.labels == ("cat", "dog")  # as it was
    assert loaded.metrics == {}
    assert loaded.calibration == {"verify_threshold": 0.4}
    assert loaded.task == "classify"


def test_the_decision_is_that_of_cosines_and_the_threshold(model: Model, home: Path) -> None:
    made = lessons(model, home, keep=False)
    threshold = made.provenance["taught"]["threshold"]
    prototypes = []
    for name in COLOURS:
        vectors = np.stack(list(model.embed(some(home, name))))
        mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
        prototypes.append(mean / np.linalg.norm(mean))
    for name in COLOURS:
        for path in some(home, name, 4, 6):
            vector = model.embed(path)
            cosines = np.stack(prototypes) @ vector / np.linalg.norm(vector)
            expected = made.labels[1 + int(cosines.argmax())] if cosines.max() > threshold else NONE
            assert made.predict(path).label == expected
            outputs = {key: array[None] for key, array in next(iter(made.answers([path]))).outputs.items()}
            np.testing.assert_allclose(outputs["logits"][0, 1:], 30.0 * cosines, atol=1e-3)
            assert outputs["logits"][0, 0] == pytest.approx(30.0 * threshold, abs=1e-3)


def test_a_threshold_that_nothing_reaches_makes_everything_none_of_these(model: Model, home: Path) -> None:
    made = model.teach("red", some(home, "red"), keep=False, threshold=1.0)
    assert made.predict(home / "red" / "5.png").label == NONE
    assert made.teach("blue", some(home, "blue")).provenance["taught"]["threshold"] == 1.0  # stays
    low = made.teach("blue", some(home, "blue"), threshold=-1.0)
    assert low.predict(home / "red" / "5.png").label in COLOURS


def test_own_classes_stay_and_keep_their_logits(model: Model, home: Path) -> None:
    made = lessons(model, home)
    assert made.labels == ("cat", "dog", "red", "green", "blue")
    assert made.calibration["temperature"] == 1.7
    path = home / "red" / "5.png"
    before = next(iter(model.answers([path]))).outputs["logits"].reshape(-1)
    after = next(iter(made.answers([path]))).outputs
    np.testing.assert_allclose(after["logits"][:2], before, atol=1e-5)
    np.testing.assert_allclose(after["embedding"].reshape(-1), model.embed(path), atol=1e-5)
    # what reaches no threshold is of the own classes again
    unreached = model.teach("red", some(home, "red"), threshold=1.0)
    assert unreached.predict(path).label == model.predict(path).label


def test_own_classes_can_be_left_out_later_and_do_not_come_back(model: Model, home: Path) -> None:
    made = model.teach("red", some(home, "red")).teach("blue", some(home, "blue"), keep=False)
    assert made.labels == (NONE, "red", "blue")
    assert made.predict(home / "blue" / "5.png").names == made.labels
    assert made.teach("cat", some(home, "green")).labels == (NONE, "red", "blue", "cat")


def test_more_pictures_later_are_as_good_as_all_at_once(model: Model, home: Path, tmp_path: Path) -> None:
    at_once = model.teach("red", some(home, "red", 0, 6), keep=False)
    first = model.teach("red", some(home, "red", 0, 2), keep=False)
    first.save(tmp_path / "t.safetensors")
    later = mobilenet.load(tmp_path / "t.safetensors", threads=1).teach("red", some(home, "red", 2, 6))
    name = "taught.prototypes.weight"
    np.testing.assert_allclose(later.weights[name], at_once.weights[name], atol=1e-4)
    assert later.labels == (NONE, "red")
    (known,) = later.provenance["taught"]["classes"]
    assert known["pictures"] == 6
    assert len(known["similarities"]) == 6


def test_lessons_do_not_depend_on_their_order(model: Model, home: Path) -> None:
    forth = lessons(model, home, keep=False)
    back = model
    for name in reversed(COLOURS):
        back = back.teach(name, some(home, name), keep=False)
    path = home / "green" / "5.png"
    one, other = forth.predict(path), back.predict(path)
    assert {n: float(p) for n, p in zip(one.names, one.probs.data, strict=True)} == pytest.approx(
        {n: float(p) for n, p in zip(other.names, other.probs.data, strict=True)}, abs=1e-5
    )


def test_one_picture_teaches_with_a_guessed_threshold_and_the_same_twice_is_one(model: Model, home: Path) -> None:
    made = model.teach("red", [home / "red" / "0.png", home / "red" / "0.png"], keep=False)
    taught = made.provenance["taught"]
    assert taught["classes"][0]["pictures"] == 1
    assert taught["threshold"] == DEFAULT_THRESHOLD
    assert made.predict(home / "red" / "0.png").label == "red"


@pytest.mark.parametrize("bad", ["", " red", "red\n", NONE, "cat"])
def test_names_that_cannot_be_given(model: Model, home: Path, bad: str) -> None:
    with pytest.raises(ArgumentError, match="name|none of these"):
        model.teach(bad, some(home, "red"))


def test_an_own_name_is_free_where_the_own_classes_go(model: Model, home: Path) -> None:
    assert model.teach("cat", some(home, "red"), keep=False).labels == (NONE, "cat")


def test_bad_lessons(model: Model, home: Path) -> None:
    with pytest.raises(DataError, match="there are none"):
        model.teach("red", [])
    with pytest.raises(ImageError, match="absent"):
        model.teach("red", [home / "absent.png"])
    with pytest.raises(ArgumentError, match="cosine"):
        model.teach("red", some(home, "red"), threshold=1.5)
    features = mobilenet.create("mobilenet_v1", width_multiplier=0.25, resolution=32, features_only=True)
    with pytest.raises(ArgumentError, match="embedding"):
        features.teach("red", some(home, "red"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("classes",), []),
        (("classes", 0, "pictures"), 0),
        (("classes", 0, "pictures"), True),
        (("classes", 0, "length"), float("nan")),
        (("classes", 0, "length"), 7.0),
        (("classes", 0, "name"), None),
        (("classes", 0, "similarities"), ["x"]),
        (("kept",), "yes"),
        (("kept",), True),
        (("level",), None),
        (("given_threshold",), "0.5"),
        (("classes", 1, "name"), "red"),
    ],
)
def test_a_file_whose_lessons_do_not_fit_is_refused(
    model: Model, home: Path, path: tuple[str | int, ...], value: object
) -> None:
    made = model.teach("red", some(home, "red"), keep=False).teach("blue", some(home, "blue"))
    made.provenance = copy.deepcopy(made.provenance)
    place = made.provenance["taught"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ModelFileError, match="taught classes"):
        made.teach("green", some(home, "green"))
    made.provenance = {}
    with pytest.raises(ModelFileError, match="taught classes"):
        made.teach("green", some(home, "green"))


def test_a_quantised_file_learns_and_the_engine_agrees_with_the_reference(shared: Path, home: Path) -> None:
    official = mobilenet.load(shared / "weights/coral/mobilenet_v1_0.25_128_quant.tflite", threads=1)
    made = official.teach("red", some(home, "red")).teach("blue", some(home, "blue"))
    assert len(made.labels) == 1003
    batch = made._tiny_input(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    expected, found = reference.run(made.graph, made.weights, batch), made.run(batch)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-3)
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    assert made.predict(home / "red" / "5.png").label == "red"
    alone = official.teach("red", some(home, "red"), keep=False)
    assert alone.predict(shared / "data/photos/bird.bmp").label == NONE


def test_onnxruntime_gives_the_same_answers(model: Model, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from mobilenet.exports.export import export

    made = lessons(model, home)
    done = export(made, tmp_path / "t.onnx", to="onnx")  # compares there, and raises if it differs
    assert "blue" in (tmp_path / "t.onnx").read_bytes().decode("latin-1")
    assert done.size > 0


def test_the_verb_writes_in_place_and_says_what_it_guessed(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    target.write_bytes((home / "m.safetensors").read_bytes())
    run = CliRunner().invoke
    done = run(app, ["teach", str(target), "red", str(home / "red" / "0.png"), "--only-taught"])
    assert done.exit_code == 0, done.output
    assert "guess" in done.stderr
    done = run(app, ["teach", str(target), "blue", str(home / "blue"), "-o", str(tmp_path / "n.safetensors")])
    assert done.exit_code == 0, done.output
    assert "blue by 6 pictures; 3 classes" in done.stdout
    assert mobilenet.load(target).labels == (NONE, "red")
    assert mobilenet.load(tmp_path / "n.safetensors").labels == (NONE, "red", "blue")
    (tmp_path / "empty").mkdir()
    assert isinstance(run(app, ["teach", str(target), "x", str(tmp_path / "empty")]).exception, ImageError)


def test_another_projects_file_is_not_written_over(shared: Path, home: Path, tmp_path: Path) -> None:
    source = shared / "weights/coral/mobilenet_v1_0.25_128_quant.tflite"
    (tmp_path / "o.tflite").write_bytes(source.read_bytes())
    done = CliRunner().invoke(app, ["teach", str(tmp_path / "o.tflite"), "red", str(home / "red" / "0.png")])
    assert isinstance(done.exception, ArgumentError)
    assert "-o" in str(done.exception)
    assert (tmp_path / "o.tflite").read_bytes() == source.read_bytes()
