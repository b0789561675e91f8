"""Every error that mobilenet raises on purpose, in one hierarchy.

A message says what was wrong, where (file, node, row, key) and what to do about it. Anything else that
escapes is a bug.
"""

from __future__ import annotations


class MobilenetError(Exception):
    """Base of all errors of this package; `except mobilenet.MobilenetError` catches them all."""


class ArgumentError(MobilenetError, ValueError):
    """A name, option or value that a caller passed is not one that is accepted."""


class GraphError(MobilenetError, ValueError):
    """A graph is not valid; the message names the node."""


class UnsupportedOperatorError(GraphError):
    """A place (reference, torch, a file format) does not have an operator; the message names both."""


class ModelFileError(MobilenetError, ValueError):
    """A model file is damaged, hostile or of a kind that is not read; the message names the file."""


class ImageError(MobilenetError, ValueError):
    """A picture cannot be read; the message names the file."""


class FilmError(MobilenetError, OSError):
    """A film cannot be written; the message names the file."""


class DataError(MobilenetError, ValueError):
    """A folder, list or CSV of pictures cannot be used; the message names the path, row or class."""


class IndexFileError(MobilenetError, ValueError):
    """A search index is damaged, in use or made by another model; the message says where and what to do."""


class TrainingError(MobilenetError, RuntimeError):
    """Training cannot start or go on; the message says what to try."""


class BudgetError(MobilenetError, RuntimeError):
    """A quantised model is worse than its budget allows; the message says by how much, and which layers do it."""


class OutOfMemoryError(MobilenetError, MemoryError):
    """A model needs more memory than there is, or than its limit allows."""


class EngineMissingError(MobilenetError, ImportError):
    """The compiled engine is not installed, or not for this Python; the message says how to build it."""


class MissingExtraError(MobilenetError, ImportError):
    """Something needs an optional dependency; the message gives the pip command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install 'mobilenet[{extra}]'")


class DownloadError(MobilenetError, OSError):
    """Published weights could not be fetched; the message says why, and how to get them by hand."""
