"""`mobilenet pull` and `mobilenet list --pretrained` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mobilenet.cli import app
from mobilenet.errors import DownloadError

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILENET_HOME", str(tmp_path))


def test_list_names_published_weights() -> None:
    done = RUNNER.invoke(app, ["list", "--pretrained", "torchvision/*"])
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if "mobilenet_v2.in1k_v1" in line)
    assert "71.9" in line and "3,504,872" in line and "BSD-3-Clause" in line and "yes" not in line
    assert "timm/" not in done.stdout


def test_list_says_what_is_cached(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "torchvision--mobilenet_v2.in1k_v1.safetensors").write_bytes(b"")
    rows = json.loads(RUNNER.invoke(app, ["list", "--pretrained", "--json", "torchvision/*"]).stdout)
    assert [row["name"] for row in rows if row["cached"]] == ["torchvision/mobilenet_v2.in1k_v1"]


def test_list_without_it_names_the_family() -> None:
    assert "mobilenet_v2" in RUNNER.invoke(app, ["list"]).stdout.splitlines()
    assert "mobilenet_v2" in json.loads(RUNNER.invoke(app, ["list", "--json"]).stdout)


def test_pull_offline_is_an_error_that_helps(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["pull", "torchvision/mobilenet_v2.in1k_v1", "--offline"])
    assert isinstance(done.exception, DownloadError)
    assert str(tmp_path / "downloads") in str(done.exception)


def test_pull_prints_where_the_model_is(tmp_path: Path) -> None:
    model = tmp_path / "other" / "models" / "torchvision--mobilenet_v2.in1k_v1.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"")
    words = ["pull", "torchvision/mobilenet_v2.in1k_v1", "--cache", str(tmp_path / "other")]
    done = RUNNER.invoke(app, words)
    assert done.exit_code == 0 and done.stdout.strip() == str(model)
