"""How much shorter segments make a table's description: one figure for any partition, whatever drew it.

The rows are described by a mixture's own model of mixed columns (:mod:`erasmo_dagster.method.tables.mixture`), texts by
the components of TF-IDF, which take no part in any clustering. A partition says of every row which segment it is in
(that costs bits as well), and its columns are then described within the segment; the saving against one segment for all
rows, less the cost of the parameters, is what the segments tell about the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import text_weights
from erasmo_dagster.method.profiling.prepare import words_of
from erasmo_dagster.method.tables.mixture import Density, Rows
from erasmo_dagster.method.tables.parts import Floats
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.method.threads import one_thread

_TEXT_COMPONENTS = 64  # of TF-IDF, before the space's own


class Saved(NamedTuple):
    """Bits a row that a partition saves, and their standard error over the rows."""

    bits: float
    error: float


class Referee:
    """The rows of ``frame`` as described without segments; ``bits`` of partitions compare with each other."""

    def __init__(self, frame: pl.DataFrame, columns: Sequence[ColumnPlan], *, seed: int) -> None:
        with one_thread():
            space, points = TableSpace.fit(frame, columns, lambda texts: by_words(texts, seed), seed=seed)
        self._rows = Rows(space.layout, points)
        self._alone = self._lengths(np.zeros(len(points), dtype=np.int64))

    def bits_saved(self, labels: npt.NDArray[np.integer]) -> float:
        """Bits a row that ``labels`` int[n] save; below 0 where they cost more than they tell. Noise is a segment.

        Raises ValueError where there is not one label a row.
        """
        return self.saved(labels).bits

    def saved(self, labels: npt.NDArray[np.integer]) -> Saved:
        """The same with its standard error over the rows."""
        if len(labels) != len(self._rows):
            raise ValueError(f"got {len(labels)} labels for {len(self._rows)} rows")
        _, codes = np.unique(labels, return_inverse=True)
        saved = self._alone - self._lengths(codes)
        return Saved(float(saved.mean()), float(saved.std() / np.sqrt(len(saved))))

    def _lengths(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Bits of each row float64[n] under the better of both structures of the numbers, parameters shared out."""
        rows = np.arange(len(codes))
        weights = np.zeros((len(codes), int(codes.max()) + 1))
        weights[rows, codes] = 1
        lengths = []
        with one_thread():  # several threads add up in another order
            for tied in (False, True) if self._rows.layout.numbers > 1 else (False,):
                density = Density.fit(self._rows, weights, tied=tied)
                cost = 0.5 * density.parameters * float(np.log(len(codes)))
                lengths.append(cost / len(codes) - density.log_joint(self._rows)[rows, codes])
        return min(lengths, key=lambda length: float(length.sum())) / float(np.log(2))


def by_words(texts: Sequence[str], seed: int) -> Floats:
    """At most 64 components of the TF-IDF of distinct texts, float32[n, d]: an encoder without a model."""
    from scipy.sparse.linalg import svds

    weights = text_weights(words_of(pl.Series(texts, dtype=pl.String)), least=2 if len(texts) > 50 else 1)
    count = min(_TEXT_COMPONENTS, *(side - 1 for side in weights.shape))
    if count < 1:
        return np.zeros((len(texts), 1), dtype=np.float32)
    left, values, _ = svds(weights.astype(np.float64), k=count, random_state=np.random.default_rng(seed))
    return np.asarray(left * values, dtype=np.float32)
