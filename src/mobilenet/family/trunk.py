"""What a head stands on: the values of a network at each stride, and what every head is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mobilenet.family.draft import Draft
    from mobilenet.family.rows import Table


@dataclass(frozen=True)
class Trunk:
    """The stem and blocks of a network as names of values.

    Args:
        first: stride -> what the first block that reaches it gives.
        last: stride -> what the last block at it gives.
        nominal: channels of the last block at width 1.
        wide: what the first block of stride 32 expands to, still at stride 16; None: by the names of the family.
        features: what the classifier would take the mean of; None: the convolutions of the table's head make it.
    """

    first: dict[int, str]
    last: dict[int, str]
    nominal: int
    wide: str | None = None
    features: str | None = None

    def up_to(self, output_stride: int) -> Trunk:
        """What it is once the strides beyond this one are dilation: the deepest values are at this stride."""
        first = {stride: name for stride, name in self.first.items() if stride <= output_stride}
        last = {stride: name for stride, name in self.last.items() if stride < output_stride}
        last[output_stride] = self.last[max(self.last)]
        return replace(self, first=first, last=last)


@dataclass(frozen=True)
class Head:
    """Base of heads other than the classifier. Its fields are its options; it is checked when it is made.

    A subclass says which `task` its outputs are for (`files.contents.TASKS`), and the side of the picture, the
    output stride and the number of classes that it is built for if nothing else is asked for.
    """

    task: ClassVar[str] = "features"
    resolution: ClassVar[int] = 512
    output_stride: ClassVar[int] = 32
    classes: ClassVar[int] = 1000

    def add(self, draft: Draft, table: Table, trunk: Trunk, classes: int) -> dict[str, str]:
        """Adds its layers to the trunk; returns output -> node."""
        raise NotImplementedError
