"""MobileNets from a folder of pictures to answers: create, train, load, predict.

Names are imported when they are first used, so that `import mobilenet` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mobilenet.errors import (
    ArgumentError,
    BudgetError,
    DataError,
    DownloadError,
    EngineMissingError,
    FilmError,
    GraphError,
    ImageError,
    IndexFileError,
    MissingExtraError,
    MobilenetError,
    ModelFileError,
    OutOfMemoryError,
    TrainingError,
    UnsupportedOperatorError,
)

if TYPE_CHECKING:
    from mobilenet.family.names import list_models
    from mobilenet.model import Model, create, load, train
    from mobilenet.pictures.preprocess import Preprocessing
    from mobilenet.search.index import open_index
    from mobilenet.tasks.classify import ClassificationResult as Result

__version__ = "0.1.0"

_HOMES = {
    "Model": ("mobilenet.model", "Model"),
    "Preprocessing": ("mobilenet.pictures.preprocess", "Preprocessing"),
    "Result": ("mobilenet.tasks.classify", "ClassificationResult"),
    "create": ("mobilenet.model", "create"),
    "list_models": ("mobilenet.family.names", "list_models"),
    "load": ("mobilenet.model", "load"),
    "open_index": ("mobilenet.search.index", "open_index"),
    "train": ("mobilenet.model", "train"),
}

__all__ = [
    "ArgumentError",
    "BudgetError",
    "DataError",
    "DownloadError",
    "EngineMissingError",
    "FilmError",
    "GraphError",
    "ImageError",
    "IndexFileError",
    "MissingExtraError",
    "MobilenetError",
    "Model",
    "ModelFileError",
    "OutOfMemoryError",
    "Preprocessing",
    "Result",
    "TrainingError",
    "UnsupportedOperatorError",
    "__version__",
    "create",
    "list_models",
    "load",
    "open_index",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mobilenet' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
