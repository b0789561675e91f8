"""The package is light: importing it costs little, and using a model needs no torch."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mobilenet
from mobilenet import _engine

HEAVY = ("torch", "matplotlib", "sklearn", "kornia", "accelerate", "scipy", "yaml")


def closure(name: str, seen: set[str]) -> set[str]:
    """A distribution and all that it needs, as installed here (without extras)."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return seen
    try:
        found = metadata.distribution(key)
    except metadata.PackageNotFoundError:  # a dependency of another platform or Python
        return seen
    seen.add(key)
    for requirement in found.requires or []:
        if "extra ==" not in requirement:
            closure(re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0], seen)
    return seen


@pytest.fixture(scope="module")
def use_tier(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A Python that sees the package and what `pip install mobilenet` brings, and nothing else."""
    folder = tmp_path_factory.mktemp("use_tier")
    (folder / "mobilenet").mkdir()
    for part in (*Path(mobilenet.__file__).parent.iterdir(), Path(_engine.__file__)):
        if not (folder / "mobilenet" / part.name).exists():
            (folder / "mobilenet" / part.name).symlink_to(part)
    site = Path(sysconfig.get_paths()["purelib"])
    for name in closure("mobilenet", set()) - {"mobilenet"}:
        for file in metadata.distribution(name).files or []:
            top = file.parts[0]
            if top != ".." and (site / top).exists() and not (folder / top).exists():
                (folder / top).symlink_to(site / top)
    return [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n"]


def python(command: list[str], code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command[:-1], command[-1] + code, *words], capture_output=True, text=True, check=False, timeout=300
    )


def test_importing_brings_nothing_heavy() -> None:
    code = "import sys, mobilenet; print([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY, "numpy", "PIL"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in mobilenet.__all__:
        assert getattr(mobilenet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'predictt'"):
        _ = mobilenet.predictt  # type: ignore[attr-defined]


def test_the_use_tier_has_no_torch(use_tier: list[str]) -> None:
    for name in HEAVY:
        assert python(use_tier, f"import {name}").returncode != 0, f"{name} came along"


def test_everything_but_training_works_without_torch(use_tier: list[str], tmp_path: Path) -> None:
    model = mobilenet.create("mobilenet_v3_small", width_multiplier=0.35, resolution=32, classes=2)
    model.labels = ("dark", "light")
    model.save(tmp_path / "m.safetensors")
    for split in ("train", "test"):
        for label, grey in (("dark", 30), ("light", 220)):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            pixels = np.full((40, 40, 3), grey, np.uint8)
            for name in ("a.png", "b.png"):
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / name)
    cli = "from mobilenet.cli import main; main()"
    picture = str(tmp_path / "data" / "test" / "dark" / "a.png")
    path, data = str(tmp_path / "m.safetensors"), str(tmp_path / "data")
    for words in (
        ("predict", path, picture),
        ("evaluate", path, data, "--report", str(tmp_path / "r.html")),
        ("info", path),
        ("profile", "mobilenet_v2"),
        ("profile", "mobilenet_v2", "--grid"),
        ("list",),
        ("--help",),
        ("train", "--help"),
    ):
        done = python(use_tier, cli, *words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    done = python(use_tier, cli, "train", data)
    assert done.returncode == 1
    assert "pip install 'mobilenet[train]'" in done.stderr
    embed = f"import mobilenet; print(mobilenet.load({path!r}).embed({picture!r}).shape)"
    assert python(use_tier, embed).stdout.startswith("(")


def test_official_files_work_without_torch(use_tier: list[str], shared: Path) -> None:
    file = shared / "weights" / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    picture = sorted((shared / "data" / "photos").glob("*.jpg"))[0]
    done = python(use_tier, "from mobilenet.cli import main; main()", "predict", str(file), str(picture))
    assert done.returncode == 0, done.stderr
