"""Quantising within a budget: which pictures, which layers, what is written, and what is said when it fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from harmed import CLASSES, QUICK, harmed_model

import mobilenet
from mobilenet.errors import ArgumentError, BudgetError, DataError, ImageError, ModelFileError
from mobilenet.model import Model
from mobilenet.quantise.layers import layers
from mobilenet.quantise.lower import lower
from mobilenet.quantise.measure import Measure
from mobilenet.quantise.options import QuantiseOptions
from mobilenet.quantise.outcome import Outcome, quantise_within
from mobilenet.quantise.pictures import draw_pictures
from mobilenet.quantise.random import random_model
from mobilenet.quantise.report import quantisation_report, write_outcome
from mobilenet.quantise.search import within


@pytest.fixture(scope="module")
def mixed(photos: Path) -> Outcome:
    """The harmed model with two layers in float."""
    options = replace(QUICK, max_float=0.5)
    return quantise_within(harmed_model(), photos / "flat", options)


def test_all_integers_where_nothing_is_harmed(photos: Path) -> None:
    outcome = quantise_within(harmed_model(constant=1.0), photos / "flat", QUICK)
    assert outcome.found.kept == ()
    assert outcome.drop <= 0.05
    assert outcome.measure == "agreement"
    assert outcome.float_score == 1
    assert outcome.sensitivities == ()
    assert {outcome.model.graph.types[name].dtype for name in "abc"} == {"uint8"}


def test_the_layers_that_do_the_harm_stay_in_float(mixed: Outcome, tmp_path: Path) -> None:
    assert {layer.name for layer in mixed.found.kept} == {"b", "c"}
    assert mixed.drop <= 0.05
    types = mixed.model.graph.types
    assert (types["a"].dtype, types["b"].dtype, types["curve"].dtype) == ("uint8", "float32", "float32")
    assert types["logits"].dtype == "uint8"
    mixed.model.save(tmp_path / "mixed.safetensors")  # and it is a model like any other
    loaded = mobilenet.load(tmp_path / "mixed.safetensors")
    loaded.verify()
    assert loaded.provenance["quantisation"]["in_float"] == ["b", "c"]
    assert "2 layers in float" in str(mixed)


def test_sensitivities_point_at_the_culprits(mixed: Outcome) -> None:
    noise = {entry.layer.name: entry.noise for entry in mixed.sensitivities}
    assert noise.keys() == {"a", "b", "c", "mean", "logits"}
    assert min(noise["b"], noise["c"]) > 10 * max(noise["a"], noise["mean"], noise["logits"])


def test_a_broken_budget_says_by_how_much_and_whose_fault_it_is(photos: Path) -> None:
    with pytest.raises(BudgetError, match=r"falls by 0\.\d+ .*falls short by 0\.\d+.*to blame: '[bc]'"):
        quantise_within(harmed_model(), photos / "flat", replace(QUICK, max_float=0))
    outcome = quantise_within(harmed_model(), photos / "flat", replace(QUICK, max_float=0, max_drop=1))
    assert outcome.drop > 0.2


def test_a_wide_budget_keeps_nothing_in_float(photos: Path) -> None:
    outcome = quantise_within(harmed_model(), photos / "flat", replace(QUICK, max_drop=1), with_sensitivities=True)
    assert outcome.found.kept == ()
    assert len(outcome.sensitivities) == 5


def test_auto_takes_the_least_noise_and_tries_everything(photos: Path) -> None:
    options = QuantiseOptions(pictures=12, max_drop=0.05)
    outcome = quantise_within(harmed_model(constant=1.0), photos / "flat", options)
    assert len(outcome.trials) == 5 * 2 + 3 * 2 + 3  # methods; compensated of each kind; corrected
    best = min(outcome.trials, key=lambda trial: trial.noise)
    assert best.how == outcome.prepared.describe()
    options = replace(options, equalise=True, compensate=True, correct_bias=True)
    forced = quantise_within(harmed_model(constant=1.0), photos / "flat", options)
    assert len(forced.trials) == 5 + 3 + 3
    assert forced.prepared.equalised and forced.prepared.compensated and forced.prepared.corrected


def test_labels_make_top1_the_measure(photos: Path) -> None:
    model = harmed_model(constant=1.0)
    outcome = quantise_within(model, photos / "classes", QUICK)
    assert outcome.measure == "top-1"
    truth = [CLASSES.index(path.parent.name) for path in outcome.drawn.held_out]
    assert outcome.drawn.labels == tuple(truth)
    for own, expected in ((model, outcome.float_score), (outcome.model, outcome.score)):
        named = [result.probs.top1 for result in own.predict(outcome.drawn.held_out)]
        assert np.mean(np.equal(named, truth)) == pytest.approx(expected)


@pytest.mark.parametrize("folder", ["classes", "flat"])
def test_pictures_are_drawn_with_a_seed_and_held_out_ones_are_others(photos: Path, folder: str) -> None:
    model = harmed_model()
    first, again, other = (
        draw_pictures(model, model.names, photos / folder, replace(QUICK, seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.calibration != other.calibration
    assert len(first.calibration) == len(first.trial) == 12
    held_out = set(first.held_out)
    assert len(held_out) == len(first.held_out) >= 20
    assert not held_out & {*first.calibration, *first.trial}
    assert not set(first.calibration) & set(first.trial)


def test_other_classes_than_the_models_are_no_labels(photos: Path) -> None:
    model = harmed_model()
    drawn = draw_pictures(model, ("p", "q", "r"), photos / "classes", QUICK)
    assert drawn.labels is None
    assert "class 'x'" in drawn.note
    assert draw_pictures(replace(model, labels=()), (), photos / "classes", QUICK).labels is None


def test_test_pictures_are_left_alone(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 10), ("test", 10)):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / split / name / f"{number}.png").touch()
    drawn = draw_pictures(harmed_model(), CLASSES, tmp_path, QUICK)
    assert {path.parts[-3] for path in (*drawn.calibration, *drawn.trial)} == {"train"}
    assert {path.parts[-3] for path in drawn.held_out} == {"val"}


def test_an_embedder_is_measured_by_its_embedding(photos: Path) -> None:
    model = random_model("mobilefacenet_s", resolution=48)
    outcome = quantise_within(model, photos / "flat", replace(QUICK, pictures=4))
    assert outcome.measure == "cosine similarity"
    assert 0 <= outcome.drop <= 0.05


def test_measures() -> None:
    logits = np.array([[3, 1, 0], [0, 2, 1], [0, 1, 5], [1, 0, 0]], np.float32)
    moved = logits + 7  # a softmax does not see that
    wrong = logits[:, ::-1]
    labelled = Measure("top-1", "logits", logits, np.array([0, 1, 0, 0]))
    assert (labelled.float_score, labelled.score(wrong), labelled.drop(moved)) == (0.75, 0.5, 0)
    assert labelled.noise(moved) == pytest.approx(0, abs=1e-12)
    assert labelled.noise(wrong) > 0.5
    alone = Measure("agreement", "logits", logits)
    assert (alone.float_score, alone.score(wrong)) == (1, 0.25)
    pixels = Measure("agreement", "classes", np.zeros((1, 2, 2), np.int64))
    assert pixels.score(np.array([[[0, 0], [0, 1]]])) == 0.75
    assert Measure("cosine similarity", "embedding", logits).score(2 * logits) == pytest.approx(1)


def test_as_many_wrong_as_the_budget_allows_keep_it() -> None:
    assert 1 - 0.99 > 0.01 and within(1 - 0.99, 0.01)
    assert not within(0.0101, 0.01)


def test_layers_hold_every_integer_node_once() -> None:
    for name in ("mobilenet_v3_large", "mobilenet_v4_hybrid_medium", "mobilefacenet"):
        graph, _ = lower(*(lambda model: (model.graph, model.weights))(random_model(name, resolution=64)))
        nodes = [node for layer in layers(graph) for node in layer.nodes]
        assert len(nodes) == len(set(nodes))
        macs = sum(
            node.operator.macs(graph.input_shapes(node), graph.types[node.name].shape) for node in graph.nodes
        )
        assert sum(layer.macs for layer in layers(graph)) == macs


class Tags(HTMLParser):
    """Checks that tags close in order, and gathers what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_one_page_with_every_layer(mixed: Outcome) -> None:
    page = quantisation_report(mixed, 1000, 400)
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.loads == []
    assert "harmed &lt;&amp;&gt;" in page and "harmed <&>" not in page
    for layer in ("a", "b", "c", "mean", "logits"):
        assert f'data-value="{layer}"' in page
    assert f"{mixed.score:.1%}" in page and "In float, because the budget would break otherwise: b, c." in page


def test_what_cannot_be_quantised(photos: Path, mixed: Outcome, tmp_path: Path) -> None:
    flat = photos / "flat"
    with pytest.raises(ArgumentError, match="quantised already"):
        quantise_within(mixed.model, flat, QUICK)
    broken = harmed_model()
    broken.weights = {**broken.weights, "b.bias": np.full(8, np.nan, np.float32)}
    with pytest.raises(ModelFileError, match=r"'b\.bias' holds NaN"):
        quantise_within(broken, flat, QUICK)
    with pytest.raises(ArgumentError, match="takes arrays"):
        quantise_within(Model.of(replace(harmed_model(), preprocessing=None)), flat, QUICK)
    with pytest.raises(DataError, match="no such folder"):
        quantise_within(harmed_model(), tmp_path / "missing", QUICK)
    with pytest.raises(DataError, match="no pictures"):
        quantise_within(harmed_model(), tmp_path, QUICK)
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"\d\.png"):
        quantise_within(harmed_model(), tmp_path, QUICK)
    with pytest.raises(DataError, match="a drop of 0.01 needs at least 4 and 100"):
        quantise_within(harmed_model(), tmp_path, replace(QUICK, max_drop=0.01))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "median"}, "entropy, auto"),
        ({"percentile": 20.0}, "percentile is 20"),
        ({"max_drop": -0.1}, "max_drop"),
        ({"max_drop": float("nan")}, "max_drop"),
        ({"max_float": 2.0}, "max_float"),
        ({"pictures": 0}, "pictures is 0"),
        ({"held_out": 0}, "held_out is 0"),
    ],
    ids=str,
)
def test_options_out_of_range(words: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        QuantiseOptions(**words)  # type: ignore[arg-type]


def test_a_budget_of_few_pictures_is_refused(photos: Path) -> None:
    with pytest.raises(ArgumentError, match="at least 20 pictures, not on 5"):
        quantise_within(harmed_model(), photos / "flat", replace(QUICK, held_out=5))


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "mobilenet", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)


def test_the_command_writes_both_files_or_none(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "m.safetensors"
    harmed_model().save(source)
    words = ("quantize", source, "--data", photos / "flat", "--method", "min-max", "--max-drop", 0.05)
    words += ("--pictures", 12, "--no-equalise", "--no-correct-bias")
    report = tmp_path / "r.html"
    failed = command(*words, "--max-float", 0, "--report", report)
    assert failed.returncode == 1
    assert "falls short" in failed.stderr and "Traceback" not in failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    done = command(*words, "--max-float", 0.5, "--report", report)
    assert done.returncode == 0, done.stderr
    assert "note: no labels used" in done.stderr
    assert report.read_text().startswith("<!DOCTYPE html>")
    mobilenet.load(tmp_path / "m-int8.safetensors").verify()


def test_the_float_model_is_not_overwritten(mixed: Outcome, tmp_path: Path) -> None:
    source = tmp_path / "m.safetensors"
    harmed_model().save(source)
    before = source.read_bytes()
    with pytest.raises(ArgumentError, match="is the float model itself"):
        write_outcome(mixed, source, tmp_path / "." / "m.safetensors")
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v4_conv_small"],
)
def test_a_file_is_little_more_than_its_parameters(name: str, tmp_path: Path) -> None:
    """In their integer form: int8 weights, a scale and an int32 bias for each output channel."""
    from mobilenet.quantise.random import random_quantised_model

    _, quantised = random_quantised_model(name, pictures=1, resolution=64, classes=10)
    quantised.save(tmp_path / "q.safetensors")
    parameters = sum(array.nbytes for array in quantised.weights.values())
    assert (tmp_path / "q.safetensors").stat().st_size <= 1.05 * parameters
