"""The same network for other people's runtimes, with its labels and its preprocessing: docs/exporting.md."""

from __future__ import annotations

from mobilenet.exports.export import TARGETS, Exported, export
from mobilenet.exports.prepare import Options

__all__ = ["TARGETS", "Exported", "Options", "export"]
