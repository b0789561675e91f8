"""The networks that are recognised: a table in somebody's dialect, with that project's names for the layers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

from mobilenet.family.aliases import known_names, resolve
from mobilenet.family.builder import Options, build_graph
from mobilenet.family.dialects import Dialect, find_dialect
from mobilenet.family.heads import HEADS, make_head
from mobilenet.family.rows import ConvRow, Table
from mobilenet.family.tables import TABLES
from mobilenet.files.imports import keras_names, torch_names
from mobilenet.files.imports.convert import Wanted, wanted_tensors
from mobilenet.files.imports.detector_names import torchvision_ssdlite_names
from mobilenet.graph.edit import pruned
from mobilenet.graph.graph import Graph

# timm's has an activation where TF-slim's first block ends in a projection without one.
_EDGETPU = TABLES["mobilenet_edgetpu"]
TIMM_EDGETPU = replace(_EDGETPU, blocks=(ConvRow(out=16, kernel=1), *_EDGETPU.blocks[1:]))

Naming = Callable[[Table, Collection[str]], dict[str, str]]


class Ends(NamedTuple):
    """What a checkpoint's first and last tensors say: channels of the picture, classes, where the network ends."""

    channels: int = 3
    classes: int = 1000
    output: str = "logits"  # or the node whose value is the embedding, where the layers after it are missing


@dataclass(frozen=True)
class Candidate:
    """One network that a checkpoint may hold.

    Args:
        project: whose names these are.
        name: of the network, as that project says it, without the width.
        table: name of our table.
        dialect: name of the dialect.
        layout: of the tensors, "torch" or "keras".
        naming: node -> layer of theirs.
        head: that it has in place of a classifier (`family.heads.HEADS`), and that head's options.
    """

    project: str
    name: str
    table: str
    dialect: str
    layout: str
    naming: Naming
    head: str | None = None
    head_options: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def task(self) -> str:
        """What its head is for, or "classify"."""
        return "classify" if self.head is None else HEADS[self.head].task

    @property
    def rows(self) -> Table:
        """The network at width 1."""
        return TIMM_EDGETPU if self._is_timm_edgetpu else TABLES[self.table]

    @cached_property
    def rules(self) -> Dialect:
        """The project's rules; timm's MobileNet-EdgeTPU follows those of its V2."""
        return find_dialect(self.dialect, "v2" if self._is_timm_edgetpu else self.rows.family)

    @property
    def _is_timm_edgetpu(self) -> bool:
        return (self.table, self.dialect) == ("mobilenet_edgetpu", "timm")

    def graph(
        self,
        width_multiplier: float,
        ends: Ends = Ends(),  # noqa: B008 - immutable
        size: tuple[int, int] = (64, 64),
        rules: Dialect | None = None,
    ) -> Graph:
        """The network as our graph; raises `GraphError` for impossible widths."""
        options = Options(
            width_multiplier=width_multiplier,
            size=size,
            classes=ends.classes,
            channels=ends.channels,
            dropout=self.rows.dropout,
            output_stride=32 if self.head is None else HEADS[self.head].output_stride,
            head=None if self.head is None else make_head(self.head, dict(self.head_options)),
        )
        graph = build_graph(self.rows, rules or self.rules, options)
        return graph if ends.output == "logits" else pruned(graph, {"embedding": ends.output})

    def wanted(self, graph: Graph) -> dict[str, Wanted]:
        """Parameter of `graph` -> the tensor that a checkpoint must hold for it."""
        names = self.naming(self.rows, [node.name for node in graph.nodes])
        return wanted_tensors(graph, names, self.layout)

    def with_rules(self, **changes: object) -> Dialect:
        """The dialect with other values, which a configuration says."""
        return replace(self.rules, **changes)  # type: ignore[arg-type]


@cache
def candidates(layout: str) -> tuple[Candidate, ...]:
    """All networks whose checkpoints have this layout; of those with the same tensors the usual one is first."""
    if layout == "keras":
        named = (keras_names.keras_v1_names, keras_names.keras_v2_names, keras_names.keras_v3_names)
        ordered = (keras_names.keras_ordered_names,) * 3
        return tuple(_keras(named) + _keras(ordered))
    return tuple(_timm() + _other_torch())


def _timm() -> list[Candidate]:
    specs = [(name, resolve(name)) for name in known_names() if name not in TABLES]
    found = [
        Candidate("timm", name, spec.name, spec.dialect, "torch", torch_names.timm_names)
        for name, spec in specs
        if spec.dialect.startswith("timm")
    ]
    edgetpu = Candidate("timm", "mobilenet_edgetpu", "mobilenet_edgetpu", "timm", "torch", torch_names.timm_names)
    return [*found, edgetpu]


def _other_torch() -> list[Candidate]:
    v3 = ("mobilenet_v3_large", "mobilenet_v3_small")
    reduced = tuple(f"{name}_reduced_tail" for name in v3)
    rows: list[tuple[str, tuple[str, ...], str, Naming]] = [
        ("torchvision", ("mobilenet_v2",), "torchvision", torch_names.torchvision_v2_names),
        ("torchvision", v3 + reduced, "torchvision", torch_names.torchvision_v3_names),
        ("d-li14", ("mobilenet_v2",), "d_li14", torch_names.d_li14_v2_names),
        ("d-li14", v3, "d_li14", torch_names.d_li14_v3_names),
        ("transformers", ("mobilenet_v1",), "slim", torch_names.transformers_v1_names),
        ("transformers", ("mobilenet_v2",), "slim", torch_names.transformers_v2_names),
    ]
    plain = [
        Candidate(project, table, table, dialect, "torch", naming)
        for project, tables, dialect, naming in rows
        for table in tables
    ]
    segmenters = [segmenter for table in v3 for segmenter in _torchvision_segmenters(table)]
    return plain + segmenters + [_torchvision_detector(table) for table in reduced + v3]


def _torchvision_detector(table: str) -> Candidate:
    """Trained from scratch it stands on a reduced tail; on a classifier's weights, on the whole one."""
    name, naming = f"ssdlite320_{table}", torchvision_ssdlite_names
    return Candidate("torchvision", name, table, "torchvision", "torch", naming, "ssdlite")


def _torchvision_segmenters(table: str) -> list[Candidate]:
    lraspp, deeplab = torch_names.torchvision_lraspp_names, torch_names.torchvision_deeplab_names
    rows: list[tuple[str, Naming, tuple[tuple[str, Any], ...]]] = [
        ("lraspp", lraspp, ()),
        ("deeplabv3", deeplab, (("auxiliary", True),)),
        ("deeplabv3", deeplab, ()),
    ]
    return [
        Candidate("torchvision", f"{head}_{table}", table, "torchvision", "torch", naming, head, options)
        for head, naming, options in rows
    ]


def _keras(namings: tuple[Naming, Naming, Naming]) -> list[Candidate]:
    v3 = [f"mobilenet_v3_{size}{form}" for size in ("large", "small") for form in ("", "_minimalistic")]
    tables = [("mobilenet_v1", namings[0]), ("mobilenet_v2", namings[1]), *((name, namings[2]) for name in v3)]
    return [Candidate("Keras", table, table, "keras", "keras", naming) for table, naming in tables]


def outer_layers(graph: Graph) -> list[str]:
    """The layers of the head that a checkpoint without its top may lack, the last one first."""
    names = {node.name for node in graph.nodes}
    return [name for name in ("classifier", "head.hidden.batch_norm", "head.hidden.dense") if name in names]
