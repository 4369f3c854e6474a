"""How many rows of each segment have which value of each column."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.profiling import shown
from erasmo_dagster.method.profiling.prepare import CategoryColumn, Ints, NumberColumn, Table, memberships, prepare

MISSING, OTHER = "(missing)", "(other)"
_SLACK = 0.25  # of a bin's rows that its edge may move by to be a rounder number

_SCHEMA = {
    "segment_id": pl.Int32,
    "column_name": pl.String,
    "value": pl.String,
    "value_order": pl.Int32,
    "rows": pl.Int64,
}


def count_values(
    frame: Table,
    segment_ids: npt.NDArray[np.integer],
    columns: Sequence[ColumnPlan],
    *,
    bins: int = 10,
    most: int = 50,
) -> pl.DataFrame:
    """One row per segment, column and value that it has: segment_id, column_name, value, value_order, rows.

    Free text, sensitive and nested columns are left out. Values are in human words; beyond the ``most`` most frequent
    of a column they are ``(other)``. Numbers and moments of more than ``bins`` values are in at most ``bins`` bins of
    about as many rows (``39.2 to 42.1``; a value on an edge is in the lower one). ``(missing)`` is a value.
    ``value_order`` counts from 0: numbers ascending, categories by their rows in all segments, ``(other)`` and
    ``(missing)`` last. A segment's rows in a column add up to its size.

    Raises ValueError where there is not one id a row.
    """
    members = memberships(segment_ids, frame.height)
    parts = [pl.DataFrame(schema=_SCHEMA)]
    for column in chain.from_iterable(prepare(frame, [plan], texts=False) for plan in columns):
        if isinstance(column, CategoryColumn):
            codes, names = _frequent(column, most)
        elif isinstance(column, NumberColumn):
            codes, names = _binned(column, max(1, bins))
        else:
            continue
        # Two values may read alike: "(other)" of the data and ours.
        words = list(dict.fromkeys([*names, MISSING]))
        place = np.array([words.index(name) for name in [*names, MISSING]], dtype=np.int64)
        values = place[codes]  # -1 is the last
        for segment, segment_id in enumerate(members.ids):
            rows = np.bincount(values[members.of(segment)], minlength=len(words))
            held = np.flatnonzero(rows)
            parts.append(
                pl.DataFrame(
                    {
                        "segment_id": [segment_id] * len(held),
                        "column_name": [column.plan.name] * len(held),
                        "value": [words[i] for i in held],
                        "value_order": held,
                        "rows": rows[held],
                    },
                    schema=_SCHEMA,
                )
            )
    return pl.concat(parts)


def _frequent(column: CategoryColumn, most: int) -> tuple[Ints, list[str]]:
    counts = np.bincount(column.codes + 1, minlength=len(column.names) + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    kept = order[:most]
    names = [column.names[i] for i in kept]
    if len(order) > most:
        names.append(OTHER)
    place = np.full(len(column.names) + 1, len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    place[-1] = -1
    return place[column.codes], names


def _binned(column: NumberColumn, bins: int) -> tuple[Ints, list[str]]:
    present = np.sort(column.values[~column.missing])
    codes = np.full(len(column.values), -1, dtype=np.int64)
    if not len(present):
        return codes, []
    distinct = np.unique(present)
    if len(distinct) <= bins:
        codes[~column.missing] = np.searchsorted(distinct, column.values[~column.missing])
        return codes, [_written(column, value) for value in distinct.tolist()]
    edges = _edges(present, bins)
    codes[~column.missing] = np.searchsorted(edges, column.values[~column.missing], side="left")
    ends = [float(present[0]), *edges, float(present[-1])]
    written = [_written(column, end) for end in ends]
    return codes, [low if low == high else f"{low} to {high}" for low, high in pairwise(written)]


def _edges(present: npt.NDArray[np.float64], bins: int) -> list[float]:
    """Upper edges of all bins but the last: round numbers near the quantiles, every bin with rows."""
    edges: list[float] = []
    step = len(present) / bins
    for number in range(1, bins):
        first = float(present[max(0, round((number - _SLACK) * step) - 1)])
        last = float(present[min(len(present) - 1, round((number + _SLACK) * step))])
        edge = first if first == last else float(shown.shortest_between(first, last))
        before = np.searchsorted(present, edges[-1], side="right") if edges else 0
        if before < np.searchsorted(present, edge, side="right") < len(present):
            edges.append(edge)
    return edges


def _written(column: NumberColumn, value: float) -> str:
    if column.dtype is None:
        return shown.decimal_of(value)
    text = shown.exact_moment(value, column.dtype)
    # Without a space, as the two ends of a bin are told apart by theirs.
    return text.replace(" ", "T") if isinstance(column.dtype, pl.Datetime) else text
