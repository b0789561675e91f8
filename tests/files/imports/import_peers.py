"""Checkpoints for the tests of imports: the peers' own, and look-alikes that need no peer."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenet.files.imports.sources import Candidate, Ends, candidates
from mobilenet.graph.graph import Weights

PROJECT = Path(__file__).resolve().parents[3]
SHARED = PROJECT.parent / "shared"


@cache
def parity() -> Any:
    """The program `bench/import_parity.py` as a module; skips where torch is missing."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'mobilenet[train]'")
    spec = importlib.util.spec_from_file_location("import_parity", PROJECT / "bench" / "import_parity.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def peer(project: str, name: str) -> Any:
    """One of the peers that the program compares with, by its name; skips where its project is missing."""
    module = {"keras": "keras", "timm": "timm", "torchvision": "torchvision"}[project]
    program = parity()
    program.declare_torchvision_operators()
    pytest.importorskip(module, reason=f"{module} is not installed", exc_type=ImportError)
    if project == "keras":
        pytest.importorskip("h5py", reason="h5py is not installed: pip install 'mobilenet[import]'")
    return next(found for found in program.PROJECTS[project]() if found.name.partition(" (")[0] == name)


def candidate(project: str, name: str, layout: str = "torch") -> Candidate:
    """A network that is recognised."""
    return next(c for c in candidates(layout) if (c.project, c.name) == (project, name))


def look_alike(
    project: str, name: str, width: float = 1.0, ends: Ends | None = None, layout: str = "torch"
) -> Weights:
    """A checkpoint with a project's names and shapes and random values: name -> float32 array."""
    found = candidate(project, name, layout)
    generator = np.random.default_rng(0)
    tensors = {}
    for ours, tensor in found.wanted(found.graph(width, ends or Ends())).items():
        values = generator.standard_normal(tensor.shapes[0]).astype(np.float32) * np.float32(0.1)
        tensors[tensor.name] = np.abs(values) + np.float32(0.5) if ours.endswith("variance") else values
    return tensors


def save(tensors: Weights, path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Writes a .safetensors file."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata)
    return path
