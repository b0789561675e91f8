"""What a caller of the Python interface sees."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet.errors import ArgumentError, DataError, ImageError, ModelFileError
from mobilenet.files.model_file import encode


@pytest.fixture(scope="module")
def model() -> mobilenet.Model:
    made = mobilenet.create("mobilenet_v2", width_multiplier=0.35, resolution=64, classes=3, seed=1)
    made.labels = ("cat", "dog", "hen")
    return made


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_is_a_picture_however_it_comes(model: mobilenet.Model, tmp_path: Path) -> None:
    pixels = picture()
    path = tmp_path / "p.png"
    path.write_bytes(png(pixels))
    results = [model.predict(p) for p in (pixels, png(pixels), Image.fromarray(pixels), path, str(path))]
    for result in results:
        assert isinstance(result, mobilenet.Result)
        np.testing.assert_array_equal(result.probs.data, results[0].probs.data)  # type: ignore[union-attr]
    assert results[3].path == str(path)  # type: ignore[union-attr]


def test_many_pictures_are_a_lazy_stream(model: mobilenet.Model) -> None:
    taken = []

    def endless() -> itertools.chain[np.ndarray]:
        for number in itertools.count():
            taken.append(number)
            yield picture(number)

    stream = model.predict(endless(), batch=2)
    first = list(itertools.islice(stream, 3))
    assert len(first) == 3
    assert len(taken) == 4  # two batches of two, no more


def test_a_batch_answers_as_singles_do(model: mobilenet.Model) -> None:
    pictures = [picture(n) for n in range(5)]
    batched = [r.probs.data for r in model.predict(pictures, batch=3)]
    singles = [model.predict(p).probs.data for p in pictures]
    np.testing.assert_allclose(batched, singles, rtol=1e-4, atol=1e-6)


def test_a_result_has_names_and_times(model: mobilenet.Model) -> None:
    result = model.predict(picture())
    assert result.names == ("cat", "dog", "hen")
    assert result.label == result.names[result.probs.top1]
    assert result.probs.data.sum() == pytest.approx(1, abs=1e-5)
    assert set(result.speed) == {"preprocess", "inference", "postprocess"}


def test_embed_is_what_the_classifier_reads(model: mobilenet.Model) -> None:
    vector = model.embed(picture())
    assert vector.shape == (1280,)
    assert len(list(model.embed([picture(), picture(1)]))) == 2
    features = mobilenet.create("mobilenet_v2", resolution=64, features_only=True)
    with pytest.raises(ArgumentError, match="no output 'embedding'"):
        features.embed(picture())
    with pytest.raises(ArgumentError, match="task is 'features', not 'classify'"):
        features.predict(picture())


def test_run_takes_a_batch_and_names_its_outputs(model: mobilenet.Model) -> None:
    outputs = model.run(np.zeros((2, 64, 64, 3), np.float32))
    assert {name: array.shape for name, array in outputs.items()} == {"logits": (2, 3), "embedding": (2, 1280)}
    with pytest.raises(ArgumentError, match="image"):
        model.run(np.zeros((2, 32, 32, 3), np.float32))
    with pytest.raises(ArgumentError, match="float64"):
        model.run(np.zeros((2, 64, 64, 3)))


def test_a_saved_model_answers_the_same_and_proves_it(model: mobilenet.Model, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = mobilenet.load(path)
    np.testing.assert_array_equal(loaded.predict(picture()).probs.data, model.predict(picture()).probs.data)
    assert len(loaded.checks) == 2
    loaded.verify()
    name = next(n for n in loaded.weights if n.endswith("classifier.weight"))
    broken = mobilenet.load(path)
    broken.weights[name] = broken.weights[name] + 1
    with pytest.raises(ModelFileError, match="check 0: output 'logits'"):
        broken.verify()


def test_five_channels_take_arrays_only(tmp_path: Path) -> None:
    made = mobilenet.create("mobilenet_v2", resolution=32, channels=5, classes=2)
    made.save(tmp_path / "m.safetensors")
    loaded = mobilenet.load(tmp_path / "m.safetensors")
    assert loaded.run(np.zeros((1, 32, 32, 5), np.float32))["logits"].shape == (1, 2)
    with pytest.raises(ArgumentError, match="takes arrays of"):
        loaded.predict(picture())


def test_one_channel_sees_grey() -> None:
    made = mobilenet.create("mobilenet_v2", resolution=32, channels=1, classes=2)
    assert made.input.shape == (32, 32, 1)
    colour = np.full((40, 40, 3), (200, 30, 90), np.uint8)  # flat: resizing and luma may change places
    grey = np.asarray(Image.fromarray(colour).convert("L").convert("RGB"))
    np.testing.assert_array_equal(made.predict(colour).probs.data, made.predict(grey).probs.data)


def test_a_bad_picture_is_an_error_that_names_it(model: mobilenet.Model, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        model.predict(tmp_path / "bad.jpg")
    answers = list(model.answers([picture(), tmp_path / "bad.jpg", picture(1)], batch=3))
    assert [answer.error is None for answer in answers] == [True, False, True]


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> np.ndarray:
        made = mobilenet.create("mobilenet_v2", resolution=32, seed=seed)
        return next(a for n, a in made.weights.items() if n.endswith("weight"))

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


def labelled(folder: Path) -> Path:
    for split in ("train", "test"):
        for name in ("cat", "dog", "hen"):
            (folder / split / name).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(picture(number)).save(folder / split / name / f"{number}.png")
    return folder


def test_evaluation_has_the_promised_keys(model: mobilenet.Model, tmp_path: Path) -> None:
    metrics = model.evaluate(labelled(tmp_path / "d"), report=tmp_path / "r.html")
    assert metrics["images"] == 6
    assert {"top1", "top5", "images", "per_class", "ece", "latency_ms"} <= metrics.keys()
    assert set(metrics["per_class"]) == {"cat", "dog", "hen"}
    assert metrics["top1"] == pytest.approx(1 / 3)  # the same two pictures in each class
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script src" not in html
    assert "cat" in html


def test_evaluation_refuses_what_it_cannot_use(model: mobilenet.Model, tmp_path: Path) -> None:
    data = labelled(tmp_path / "d")
    with pytest.raises(DataError, match="no split 'holdout'"):
        model.evaluate(data, split="holdout")
    with pytest.raises(ArgumentError, match="r.html: cannot be written"):
        model.evaluate(data, report=tmp_path / "no" / "r.html", on_progress=lambda *_: pytest.fail("measured"))
    bad = data / "test" / "cat" / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        model.evaluate(data)
    assert model.evaluate(data, on_bad_picture="skip")["skipped"] == 1
    (data / "test" / "owl").mkdir()
    Image.fromarray(picture()).save(data / "test" / "owl" / "0.png")
    with pytest.raises(DataError, match="owl"):
        model.evaluate(data, on_bad_picture="skip")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "mobilenet_v9"}, "mobilenet_v9"),
        ({"name": "mobilenet_v2", "width_multiplier": 0}, "width"),
        ({"name": "mobilenet_v2", "resolution": 16}, "resolution"),
        ({"name": "mobilenet_v2", "classes": 0}, "classes"),
        ({"name": "mobilenet_v2", "dialect": "klingon"}, "dialect"),
    ],
)
def test_impossible_models_are_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        mobilenet.create(**words)  # type: ignore[arg-type]


def test_unknown_training_words_get_a_hint() -> None:
    with pytest.raises(ArgumentError, match="did you mean 'epochs'"):
        mobilenet.train("somewhere", epoch=3)


@pytest.mark.parametrize("data", [b"", b"abc", b"\x80\x04K\x01.", b"TFL3" * 4, bytes(100)])
def test_loading_something_else_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.bin").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"odd\.bin"):
        mobilenet.load(tmp_path / "odd.bin")
    with pytest.raises(ModelFileError, match="missing"):
        mobilenet.load(tmp_path / "missing")
    with pytest.raises(ModelFileError, match=tmp_path.name):
        mobilenet.load(tmp_path)


def test_a_prediction_brings_only_what_it_needs(model: mobilenet.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    Image.fromarray(picture()).save(tmp_path / "p.jpg")
    code = (
        "import sys, mobilenet\n"
        "model = mobilenet.load(sys.argv[1])\n"
        "label = model.predict(sys.argv[2]).label\n"
        "print([name for name in sys.argv[3:] if name in sys.modules], label, len(model.graph.nodes))"
    )
    names = ["mobilenet.graph.ops", "typer", "rich", "safetensors", "concurrent.futures", "multiprocessing"]
    words = [sys.executable, "-c", code, str(tmp_path / "m.safetensors"), str(tmp_path / "p.jpg"), *names]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    expected = model.predict(tmp_path / "p.jpg").label
    assert done.stdout.split() == ["[]", expected, str(len(model.graph.nodes))]


def test_what_is_changed_after_loading_counts(model: mobilenet.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    loaded = mobilenet.load(tmp_path / "m.safetensors")
    before = loaded.predict(picture()).probs.data
    assert loaded.graph == model.graph
    name = next(n for n in loaded.weights if n.endswith("classifier.bias"))
    loaded.weights[name] = loaded.weights[name] + np.array([9, 0, 0], np.float32)
    changed = loaded.predict(picture()).probs.data
    assert changed[0] > before[0]
    loaded.weights = dict(model.weights)
    np.testing.assert_array_equal(loaded.predict(picture()).probs.data, before)
    other = mobilenet.create("mobilenet_v2", width_multiplier=0.35, resolution=64, classes=2)
    loaded.graph, loaded.weights, loaded.labels = other.graph, other.weights, ()
    np.testing.assert_array_equal(loaded.predict(picture()).probs.data, other.predict(picture()).probs.data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("labels", ["cat"]), "1 labels do not name the 3 outputs of 'logits'"),
        (("task", "divine"), "unknown task 'divine'"),
        (("licence", 5), "field 'licence'"),
        (("calibration", {"temperature": "hot"}), "calibration.temperature"),
    ],
)
def test_what_the_engine_does_not_read_is_checked_too(
    model: mobilenet.Model, tmp_path: Path, change: tuple[str, object], message: str
) -> None:
    data = encode(model)
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    description = json.loads(header["__metadata__"]["mobilenet"])
    header["__metadata__"]["mobilenet"] = json.dumps(dict([*description.items(), change]))
    text = json.dumps(header).encode()
    (tmp_path / "odd.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[size:])
    with pytest.raises(ModelFileError, match=rf"odd\.safetensors: .*{message}"):
        mobilenet.load(tmp_path / "odd.safetensors")


def test_an_engine_that_refuses_the_file_does_not_hide_the_graph(
    model: mobilenet.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setenv("MOBILENET_ISA", "z80")
    loaded = mobilenet.load(tmp_path / "m.safetensors")
    assert loaded.graph == model.graph
    with pytest.raises(ArgumentError, match="z80"):
        loaded.run(np.zeros((1, 64, 64, 3), np.float32))
