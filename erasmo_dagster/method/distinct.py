"""The distinct values of a column: worked on once, and counted without being held."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

Codes = npt.NDArray[np.unsignedinteger]

_LOOKED_AT = 2_000  # values that tell whether a column repeats itself
_HELD = 100_000  # hashes that may come before they are merged with those before them


def coded(values: pl.Series) -> tuple[pl.Series, Codes]:
    """The distinct values in the order of their first rows, null among them, and the place of each row's value there.

    Zeros of either sign are one value, and so is every NaN. Of type Object each row has its own.
    """
    rows = np.arange(len(values), dtype=np.uint32)
    if values.dtype == pl.Object:
        return values, rows
    by_hash = values.hash().to_arrow().dictionary_encode()
    codes = by_hash.indices.to_numpy().astype(np.uint32)
    first = np.empty(len(by_hash.dictionary), dtype=np.uint32)
    first[codes[::-1]] = rows[::-1]
    distinct = values.gather(first)
    # Two values of one hash are next to impossible, and here they would be told.
    return (distinct, codes) if distinct.gather(codes).eq_missing(values).all() else (values, rows)


def seldom_repeats(values: pl.Series) -> bool:
    """Whether nearly all of a few values, spread over the column, differ."""
    if values.dtype == pl.Object or len(values) <= _LOOKED_AT:
        return False
    some = values.gather_every(len(values) // _LOOKED_AT)
    return some.n_unique() > 0.9 * len(some)


class Met:
    """The distinct values of a column that comes in pieces, as their 64-bit hashes, with whole figures of each.

    Of ten million values two have one hash with a probability of 3 in a million; the count is then one too low.
    """

    def __init__(self) -> None:
        self._pieces: list[npt.NDArray[np.uint64]] = []
        self._later = 0

    def add(self, values: pl.Series, *figures: pl.Series) -> None:
        """Another piece of distinct values; ``figures`` are as many at every call, from 0 up."""
        columns = [values.hash(), *(figure.cast(pl.UInt64) for figure in figures)]
        self._pieces.append(np.stack([column.to_numpy() for column in columns], axis=1))
        self._later += len(values)
        if self._later > max(_HELD, len(self._pieces[0])):
            self.rows()

    def rows(self) -> npt.NDArray[np.uint64]:
        """One row for each value: its hash and its figures."""
        if self._later:
            every = np.concatenate(self._pieces)
            self._pieces = []
            _, first = np.unique(every[:, 0], return_index=True)
            self._pieces, self._later = [every[first]], 0
        return self._pieces[0]
