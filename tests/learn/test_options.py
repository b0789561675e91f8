"""Options: defaults that depend on each other, and errors that name the option and what is accepted."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from mobilenet.errors import ArgumentError
from mobilenet.learn.options import CHECKS, TrainOptions


def test_every_option_has_a_help_text() -> None:
    for field in dataclasses.fields(TrainOptions):
        assert len(field.metadata["help"]) > 10, field.name


def test_every_option_but_switches_is_checked() -> None:
    assert {f.name for f in dataclasses.fields(TrainOptions)} - set(CHECKS) == {"resume"}


def test_defaults_are_accepted_and_filling_leaves_no_default_open() -> None:
    for options in (TrainOptions("x"), TrainOptions("x", pretrained="y")):
        filled = options.filled()
        for name in ("epochs", "lr0", "weight_decay", "warmup_epochs", "layer_rate", "crop_area"):
            assert getattr(filled, name) is not None
        assert filled.filled() == filled


def test_what_was_given_stays_when_filled() -> None:
    filled = TrainOptions("x", epochs=3, lr0=0.5, optimizer="sgd").filled()
    assert (filled.epochs, filled.lr0) == (3, 0.5)


def test_learning_rates_fit_optimizer_and_start() -> None:
    rates = {name: TrainOptions("x", optimizer=name).filled().lr0 for name in ("adamw", "sgd", "rmsprop")}
    assert len(set(rates.values())) == 3
    tuned = TrainOptions("x", pretrained="y").filled()
    assert tuned.lr0 is not None
    assert rates["adamw"] is not None
    assert tuned.lr0 < rates["adamw"]
    sliced = TrainOptions("x", pretrained="y", width=0.5).filled()
    assert sliced.lr0 is not None
    assert tuned.lr0 < sliced.lr0 < rates["adamw"]


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("epochs", 0, "a whole number from 1"),
        ("distill", "", "a text"),
        ("distill_weight", 1.5, "a number from 0 to 1"),
        ("distill_temperature", 0.0, "a number from 0.1 to 100"),
        ("distill_features", -1.0, "a number from 0"),
        ("epochs", 2.5, "a whole number from 1"),
        ("batch", True, "a whole number from 1"),
        ("lr0", 0, "a number above 0"),
        ("lr0", float("nan"), "a number above 0"),
        ("resolution", 31, "from 32 to 4096"),
        ("optimizer", "adam", "adamw, sgd, rmsprop"),
        ("amp", "fp8", "auto, bf16, fp16, none"),
        ("label_smoothing", 1.0, "below 1"),
        ("mixup", -0.1, "from 0"),
        ("ema", 1.0, "below 1"),
        ("freeze", "-1", "a whole number of blocks, or features"),
        ("freeze", "head", "a whole number of blocks, or features"),
        ("class_weights", "balanced", "none, auto"),
        ("on_bad_picture", "ignore", "skip, stop"),
        ("device", "gpu", "auto, cpu, cuda, cuda:N or mps"),
        ("seed", -1, "from 0"),
        ("name", "a/b", "without slashes"),
        ("name", "..", "without slashes"),
        ("width", -1.0, "above 0"),
        ("randaugment", 11, "from 0 to 10"),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(name: str, value: Any, accepted: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        TrainOptions("x", **{name: value})
    assert f"--{name.replace('_', '-')} is {value!r}" in str(caught.value)
    assert accepted in str(caught.value)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ArgumentError, match="--freeze features needs --pretrained"):
        TrainOptions("x", freeze="features")
    with pytest.raises(ArgumentError, match="--model mobilenet_v1 and --pretrained exclude each other"):
        TrainOptions("x", pretrained="y", model="mobilenet_v1")
    with pytest.raises(ArgumentError, match="--distill and --freeze features exclude each other"):
        TrainOptions("x", pretrained="y", freeze="features", distill="z")


def test_changes_of_a_resumed_run_are_found() -> None:
    saved = TrainOptions("x", lr0=0.1, epochs=5)
    assert TrainOptions("x", resume=True, workers=7, device="cpu").changed_from(saved) == []
    assert TrainOptions("x", lr0=0.2, epochs=5).changed_from(saved) == ["lr0"]
    assert TrainOptions("elsewhere").changed_from(saved) == ["data"]


def test_options_need_no_torch() -> None:
    code = "import sys, mobilenet.learn.options, mobilenet.learn.train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_detectors_have_defaults_and_options_of_their_own() -> None:
    tuned = TrainOptions("x", task="detect", pretrained="y").filled()
    scratch = TrainOptions("x", task="detect").filled()
    assert tuned.epochs is not None and scratch.epochs is not None and tuned.epochs < scratch.epochs
    assert tuned.layer_rate is not None and tuned.layer_rate < 1 == scratch.layer_rate
    for name, value in (("head", "yolo"), ("mosaic", 0.5)):
        TrainOptions("x", task="detect", **{name: value})
        with pytest.raises(ArgumentError, match=f"--{name} is for --task detect.*the task is classify"):
            TrainOptions("x", **{name: value})
