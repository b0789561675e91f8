"""Every head that a member of the family can have in place of its classifier, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from mobilenet.errors import ArgumentError
from mobilenet.family import detectors, segmenters
from mobilenet.family.trunk import Head

if TYPE_CHECKING:
    from mobilenet.family.decoding import Decoding
    from mobilenet.graph.graph import Graph, Weights

HEADS: dict[str, type[Head]] = {**segmenters.HEADS, **detectors.HEADS}


def split_head(name: str) -> tuple[str | None, str]:
    """The head that a name begins with, and the rest: "lraspp_mobilenet_v3_large" is lraspp on that network.

    Detectors that are known by a name of their own, such as "ssdlite320_mobilenet_v3_large", are in
    `detectors.NAMED`.
    """
    if isinstance(name, str) and name in detectors.NAMED:
        return detectors.NAMED[name]
    for head in HEADS:
        if isinstance(name, str) and name.startswith(f"{head}_"):
            return head, name.removeprefix(f"{head}_")
    return None, name


def detector(name: str, options: Mapping[str, Any]) -> detectors.Detector:
    """A detector's head with its own options; errors as `make_head`, and for heads that find no boxes."""
    head = make_head(name, options)
    if not isinstance(head, detectors.Detector):
        raise ArgumentError(f"head '{name}' is for {head.task}: it finds no boxes")
    return head


def start_detector(
    name: str, options: Mapping[str, Any], graph: Graph, weights: Weights
) -> tuple[Weights, Decoding]:
    """Initial weights with the biases that a detector's head starts with, and how its outputs are read."""
    head = detector(name, options)
    return detectors.with_first_biases(head, graph, weights), head.decoding(graph)


def make_head(name: str, options: Mapping[str, Any]) -> Head:
    """A head with its own options.

    Raises:
        ArgumentError: an unknown head, an option that it does not have, or a value that it does not accept.
    """
    if not isinstance(name, str) or name not in HEADS:
        close = get_close_matches(str(name), HEADS, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(HEADS)}"
        raise ArgumentError(f"unknown head {name!r}; {hint}")
    known = [item.name for item in fields(HEADS[name])]
    for option in options:
        if option not in known:
            raise ArgumentError(f"head '{name}' has no option '{option}'; it has {', '.join(known) or 'none'}")
    return HEADS[name](**options)
