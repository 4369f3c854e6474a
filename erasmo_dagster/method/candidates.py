"""What is told of each way to segment a table: the candidates of `clustering.method: auto`, and how to read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import Floats, gower_distances, gower_silhouette
from erasmo_dagster.method.measures import explain, separation
from erasmo_dagster.method.peers import ROW_TEXTS

Labels = npt.NDArray[np.int64]
T = TypeVar("T")

_DIGITS = 9  # of bits: one partition in another order of segments adds up to others beyond
HOW_TO_READ = (
    "Bits saved: how much shorter the segments make the description of a row's columns; more is better, below 0 they "
    "cost more than they tell. The candidate that saves the most is taken, or the first of all where none saves any "
    "beyond doubt.",
    "Separation: share of what tells rows apart, column by column, that lies between the segments, 0 to 1.",
    "Gower silhouette: how much nearer rows lie to their own segment than to the next by the table's own columns, -1 "
    "to 1.",
    "Tree accuracy: share of the rows whose segment a few questions about the columns tell, 0 to 1.",
    "Stability: how far the same method finds the same segments on resampled rows; 1 is always, 0 is chance. "
    "That of the candidate taken is of more rows and resamples than the others'.",
)


@dataclass(frozen=True)
class Candidate:
    """One way to segment the table: ``bits_saved`` a row of those compared, ``smallest`` the smallest segment's share.

    ``refused`` says why it could not be drawn, or may not win; empty where it may. ``doubtful`` are bits that are not
    above 0 by more than sampling rows may do. The others are figures of the same
    rows, None where they are not defined or were not asked for: ``separation``, ``gower_silhouette`` and
    ``tree_accuracy`` as in :mod:`~erasmo_dagster.method.measures`, ``stability`` the mean agreement with clusterings of
    resampled rows.
    """

    name: str
    bits_saved: float | None
    smallest: float
    seconds: float
    refused: str = ""
    doubtful: bool = False
    separation: float | None = None
    gower_silhouette: float | None = None
    tree_accuracy: float | None = None
    stability: float | None = None

    @property
    def reads_rows(self) -> bool:
        """Whether whole rows were read as text for it, by the encoder or by the sentence encoder."""
        return "vectors" in self.name or self.name == ROW_TEXTS

    @property
    def rounded_bits(self) -> float:
        """Bits saved for comparing, equal for equal partitions; minus infinity where there are none."""
        return -math.inf if self.bits_saved is None else round(self.bits_saved, _DIGITS)


def leaderboard_rows(candidates: Sequence[Candidate], chosen: str) -> list[dict[str, Any]]:
    """A row for each candidate in their order, best first: ``candidate``, ``chosen``, ``rank`` from 1, and its figures.

    ``rank`` is None for those that could not be drawn, or may not win.
    """
    return [
        {
            "candidate": candidate.name,
            "chosen": candidate.name == chosen,
            "rank": None if candidate.refused else rank,
            "bits_saved": candidate.bits_saved,
            "separation": candidate.separation,
            "gower_silhouette": candidate.gower_silhouette,
            "tree_accuracy": candidate.tree_accuracy,
            "stability": candidate.stability,
            "smallest": candidate.smallest,
            "seconds": candidate.seconds,
            "refused": candidate.refused,
        }
        for rank, candidate in enumerate(candidates, start=1)
    ]


def language_model_says(candidates: Sequence[Candidate]) -> str:
    """One sentence on whether reading whole rows as text adds anything to what the columns say.

    By the candidates that may win; where none with such vectors may, or none without, by those that may not.
    """
    told = [c for c in candidates if c.bits_saved is not None]
    best = []
    for reads_rows in (True, False):
        group = [c for c in told if c.reads_rows == reads_rows]
        if not group:
            return ""
        best.append(max(c.rounded_bits for c in [c for c in group if not c.refused] or group))
    gain = best[0] - best[1]
    reading = "Reading whole rows as text, as language models do, adds"
    if gain > 0:
        return f"{reading} {gain:.2g} bits a row to what the columns alone tell."
    less = f"{-gain:.2g} bits a row less" if gain else "as many bits"
    return f"{reading} nothing to what the columns alone tell ({less})."


@dataclass(frozen=True, eq=False)
class Measured:
    """The figures of partitions of the rows of ``frame`` by its ``columns``; what a figure is of is made once."""

    frame: pl.DataFrame
    columns: Sequence[ColumnPlan]
    seed: int
    _known: dict[bytes, dict[str, float | None]] = field(default_factory=dict)

    @cached_property
    def _apart(self) -> Floats | None:
        return gower_distances(self.frame, [column for column in self.columns if column.kind != "nested"])

    def told(self, candidate: Candidate, labels: Labels) -> Candidate:
        """The candidate with its :meth:`figures`."""
        found = self.figures(labels)
        return replace(
            candidate,
            separation=found["separation"],
            gower_silhouette=found["gower_silhouette"],
            tree_accuracy=found["tree_accuracy"],
        )

    def figures(self, labels: Labels) -> dict[str, float | None]:
        """``separation``, ``gower_silhouette`` and ``tree_accuracy`` of ``labels`` int[n]; None where not defined."""
        own = labels.tobytes()
        if own not in self._known:
            self._known[own] = {
                "separation": figure_of(lambda: self._separation(labels)),
                "gower_silhouette": figure_of(lambda: self._silhouette(labels)),
                "tree_accuracy": figure_of(lambda: self._accuracy(labels)),
            }
        return self._known[own]

    def _separation(self, labels: Labels) -> float | None:
        # No p-value is shown, and permutations are what takes the time.
        found = separation(self.frame, self.columns, labels, seed=self.seed, permutations=1)
        return None if found is None else found.share

    def _silhouette(self, labels: Labels) -> float | None:
        return None if self._apart is None else gower_silhouette(self._apart, labels)

    def _accuracy(self, labels: Labels) -> float | None:
        found = explain(self.frame, self.columns, labels, seed=self.seed)
        return None if found is None else found.accuracy


def attempted(compute: Callable[[], T | None]) -> T | None:
    """What ``compute`` gives, or None where it fails: what is shown beside the bits decides nothing."""
    try:
        return compute()
    except (Exception, pl.exceptions.PanicException) as error:  # a panic inside polars is no Exception
        told = f": {error}" if isinstance(error, ErasmoError) else ""  # others quote values of the table
        progress.note(f"A figure is left out: {type(error).__name__}{told}"[:300])
        return None


def figure_of(compute: Callable[[], float | None]) -> float | None:
    """A figure, or None where it fails or is not finite."""
    value = attempted(compute)
    return value if value is not None and math.isfinite(value) else None
