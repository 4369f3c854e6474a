"""Which dimensions of a table's points are numbers, which are a category's values, and which a text's components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Dimensions in this order: ``numbers`` of them, one a number; ``categories`` and ``dense``, a width a block.

    What a row lacks is 0 in all dimensions of its number or block, and nothing that is there is.
    """

    numbers: int
    categories: tuple[int, ...]
    dense: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of dimensions."""
        return self.numbers + sum(self.categories) + sum(self.dense)

    @property
    def category_spans(self) -> tuple[slice, ...]:
        """The dimensions of each category."""
        return _spans(self.numbers, self.categories)

    @property
    def dense_spans(self) -> tuple[slice, ...]:
        """The dimensions of each dense block."""
        return _spans(self.numbers + sum(self.categories), self.dense)

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        object.__setattr__(self, "dense", tuple(self.dense))


def _spans(start: int, widths: tuple[int, ...]) -> tuple[slice, ...]:
    spans = []
    for width in widths:
        spans.append(slice(start, start + width))
        start += width
    return tuple(spans)
