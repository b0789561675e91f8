"""Verification of a model on folders of identities and lists of pairs, as a user does it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mobilenet
from mobilenet.cli import app
from mobilenet.errors import ArgumentError, DataError
from mobilenet.model import Model
from mobilenet.tasks.verify_data import draw_pairs, read_identities, read_pairs
from mobilenet.tasks.verify_run import calibrate_verification, evaluate_verification

NAMES = ("ada", "bob", "cyd", "dan", "eve", "flo")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Identities of a colour each, four pictures; `other` has four others; a model that was never trained."""
    folder = tmp_path_factory.mktemp("verify")
    generator = np.random.default_rng(0)
    for root, names in (("faces", NAMES), ("other", ("gus", "hal", "ida", "jon", "kim"))):
        for name in names:
            (folder / root / name).mkdir(parents=True)
            colour = generator.integers(0, 200, 3)
            for number in range(1, 5):
                pixels = (colour + generator.integers(0, 56, (40, 40, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / root / name / f"{name}_{number:04d}.png")
    mobilenet.create("mobilenet_v1", width_multiplier=0.25, resolution=32, classes=2).save(
        folder / "m.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def model(home: Path) -> Model:
    return mobilenet.load(home / "m.safetensors", threads=1)


def test_drawn_pairs_are_right_and_the_same_every_time(home: Path) -> None:
    identities = read_identities(home / "faces")
    pairs = draw_pairs(identities, limit=0, seed=3)
    assert sum(pair.same for pair in pairs) == 6 * 6
    assert len(pairs) == 24 * 23 / 2
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)
    assert all(pair.same == (pair.first.parent == pair.second.parent) for pair in pairs)
    some = draw_pairs(identities, limit=20, seed=3)
    assert some == draw_pairs(identities, limit=20, seed=3)
    assert some != draw_pairs(identities, limit=20, seed=4)
    assert [sum(pair.same for pair in some), len(some)] == [20, 40]
    assert {sum(pair.fold == fold and pair.same for pair in some) for fold in range(10)} == {2}
    assert set(some) - {pair._replace(fold=one.fold) for pair in pairs for one in some} == set()


def test_an_identity_of_one_picture_is_left_out_and_named(tmp_path: Path, home: Path, model: Model) -> None:
    for name in NAMES:
        (tmp_path / name).symlink_to(home / "faces" / name)
    (tmp_path / "lone").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "lone" / "1.png")
    found = evaluate_verification(model, tmp_path)
    assert found["single"] == ["lone"]
    assert found["same_pairs"] == 36
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="void"):
        evaluate_verification(model, tmp_path)


def test_too_little_to_draw_pairs_from(tmp_path: Path, model: Model) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_identities(tmp_path / "nowhere")
    with pytest.raises(DataError, match="0 identities"):
        read_identities(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (20, 20)).save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match="folds need"):
        evaluate_verification(model, tmp_path)


def test_a_calibrated_threshold_is_kept_in_the_file_and_used(tmp_path: Path, home: Path, model: Model) -> None:
    made = calibrate_verification(model, home / "other", test=home / "faces", far=0.05)
    made.save(tmp_path / "c.safetensors")
    loaded = mobilenet.load(tmp_path / "c.safetensors", threads=1)
    assert loaded.calibration["verify_far"] == 0.05
    found = evaluate_verification(loaded, home / "faces")["at_threshold"]
    assert found["threshold"] == loaded.calibration["verify_threshold"]
    assert found["balanced_accuracy"] == pytest.approx((found["tar"] + 1 - found["far"]) / 2)
    itself = evaluate_verification(made, home / "other", draw=0)["at_threshold"]
    assert itself["far"] <= 0.05


def test_a_threshold_is_not_judged_on_what_set_it(tmp_path: Path, home: Path, model: Model) -> None:
    with pytest.raises(DataError, match="ada: calibrates and is tested too"):
        calibrate_verification(model, home / "faces", test=home / "faces")
    (tmp_path / "pairs.txt").write_text("eve 1 2\nada 1 2\n")
    with pytest.raises(DataError, match="ada: calibrates and is tested too"):
        calibrate_verification(model, home / "faces", test=home / "faces", pairs=tmp_path / "pairs.txt")
    with pytest.raises(ArgumentError, match="cannot be seen"):
        calibrate_verification(model, home / "other", far=1e-4)


def test_lfw_pairs_and_csv_pairs_are_the_same_pairs(tmp_path: Path, home: Path, model: Model) -> None:
    same = [(name, 1, name, other) for name in NAMES for other in (2, 3, 4)]
    different = [(one, 1, two, 2) for one in NAMES for two in NAMES if one < two] + [("ada", 3, "bob", 4)] * 3
    lines, rows = ["2\t9"], ["path,path,same"]
    for fold in range(2):
        for a, i, b, j in same[fold * 9 : fold * 9 + 9] + different[fold * 9 : fold * 9 + 9]:
            lines.append(f"{a}\t{i}\t{j}" if a == b else f"{a}\t{i}\t{b}\t{j}")
            rows.append(f"{a}/{a}_{i:04d}.png,{b}/{b}_{j:04d}.png,{int(a == b)}")
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    listed, table = (read_pairs(tmp_path / name, home / "faces") for name in ("pairs.txt", "pairs.csv"))
    assert [pair[:3] for pair in listed] == [pair[:3] for pair in table]
    assert [pair.fold for pair in listed] == [0] * 18 + [1] * 18
    assert {pair.fold for pair in table} == set(range(10))
    figures = [
        evaluate_verification(model, home / "faces", pairs=tmp_path / f"pairs.{end}") for end in ("txt", "csv")
    ]
    assert figures[0]["auc"] == figures[1]["auc"]
    assert (figures[0]["folds"], figures[1]["folds"]) == (2, 10)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "ada 1 2\nada 1 9\n", "line 2: there is no picture"),
        ("p.txt", "1 2\nada 1 2\n", "promises 1 x 2 x 2 pairs, but there are 1"),
        ("p.txt", "ada one two\n", "line 1: expected NAME"),
        ("p.txt", "../faces/ada 1 2\n", "line 1"),
        ("p.txt", "", "lists no pairs"),
        ("p.csv", "ada/ada_0001.png,ada/ada_0002.png,maybe\n", "line 1: expected path,path,same"),
        ("p.csv", "ada/ada_0001.png,gone.png,1\n", "line 1: there is no file"),
        ("p.csv", "ada/ada_0001.png,1\n", "line 1"),
    ],
)
def test_a_bad_list_of_pairs_is_named_by_line(
    tmp_path: Path, home: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / name, home / "faces")


def test_bad_pictures_stop_or_are_counted_and_named(tmp_path: Path, home: Path, model: Model) -> None:
    for name in NAMES:
        (tmp_path / name).symlink_to(home / "faces" / name)
    (tmp_path / "zoe").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "zoe" / "1.png")
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "zoe" / "2.png")
    (tmp_path / "zoe" / "3.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match="3.png"):
        evaluate_verification(model, tmp_path)
    found = evaluate_verification(model, tmp_path, on_bad_picture="skip")
    assert len(found["skipped"]) == 1
    assert "3.png" in found["skipped"][0]
    assert found["same_pairs"] == 37


def test_the_verb_prints_json_draws_and_stores(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    words = ["evaluate", str(home / "m.safetensors"), str(home / "faces"), "--task", "verify", "--json"]
    words += ["--calibrate", str(home / "other"), "--far", "0.1", "--plot", str(tmp_path / "roc.png")]
    words += ["-o", str(tmp_path / "c.safetensors")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert {"accuracy", "auc", "eer", "tar_at_far", "rank1", "at_threshold"} <= figures.keys()
    assert Image.open(tmp_path / "roc.png").size[0] > 300
    assert mobilenet.load(tmp_path / "c.safetensors").calibration["verify_far"] == 0.1
    for wrong, message in ((["--plot", "x.png"], "--plot"), (["--task", "verify", "--report", "r"], "--report")):
        with pytest.raises(ArgumentError, match=message):
            CliRunner().invoke(app, [*words[:3], *wrong], catch_exceptions=False)
    done = CliRunner().invoke(app, [*words[:3], "--task", "sing"])
    assert isinstance(done.exception, ArgumentError)


def test_real_faces_of_people_the_model_never_saw(shared: Path) -> None:
    model = mobilenet.load(
        shared / "weights/coral/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite", threads=1
    )
    made = {}
    root = shared / "data/orl_faces"
    subset = {f"s{number}": tuple(sorted((root / f"s{number}").glob("[1-4].pgm"))) for number in range(31, 37)}
    made["pictures"] = [path for paths in subset.values() for path in paths]
    vectors = {path: model.embed(path) for path in made["pictures"]}
    from mobilenet.tasks.verify import area_under, cosine_similarities, roc
    from mobilenet.tasks.verify_data import Identities

    pairs = draw_pairs(Identities(root, subset, ()), limit=0, seed=0)
    cosines = cosine_similarities(*(np.stack([vectors[pair[side]] for pair in pairs]) for side in (0, 1)))
    # features of photographs of things know faces a little: far better than chance, far from a face network
    assert area_under(roc(cosines, np.array([pair.same for pair in pairs]))) > 0.85
