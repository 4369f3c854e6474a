"""What every clustering algorithm gives, and what each is asked before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.segment_model import SoftRule

Points = npt.NDArray[np.float32]
MAX_ITER = 300


class StructureError(ErasmoError):
    """The rows do not fall into as many segments by this method; another number may do."""


@dataclass(frozen=True, eq=False)
class Cut:
    """``labels`` int[n], a segment for each row, numbered as it comes; -1 is noise.

    ``confidence`` float[n] where the method has one of its own. Methods whose segments have memberships give ``soft``:
    centres float32[k, p] and the rule that says each row's. ``bits_saved`` is how many bits a row the segments save in
    describing the rows, where the method is a model of them. ``references`` float32[r, p] and their segments int[r], if
    any, are what rows have gone by: each is in the segment of the nearest.
    """

    labels: npt.NDArray[np.integer]
    confidence: npt.NDArray[np.floating] | None = None
    soft: tuple[Points, SoftRule] | None = None
    notes: tuple[str, ...] = ()
    bits_saved: float | None = None
    references: tuple[Points, npt.NDArray[np.integer]] | None = None


@dataclass(frozen=True)
class Partitioner:
    """``cut(k)`` finds k segments (of itself how many, where ``k`` is 0); ``notes`` say what the user should know.

    ``by`` says what new rows are placed by: the nearest centre, the nearest row of the training, or the soft rule.
    """

    cut: Callable[[int], Cut]
    by: Literal["centers", "rows", "memberships"]
    notes: tuple[str, ...] = ()
