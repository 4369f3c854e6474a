"""A table's rows as points, one part a column: what segments of a table are drawn in without a language model's rows.

Blocks of columns of different kinds, each balanced by its own variance, as in multiple factor analysis (Escofier and
Pagès, 1994); numbers and categories as in factor analysis of mixed data, texts by a sentence encoder. The order of the
columns in the table does not matter: parts are kept by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import ColumnPlan, some
from erasmo_dagster.method.space import checked
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.parts import (
    Arrays,
    CategoryPart,
    DensePart,
    Encode,
    Floats,
    NumberPart,
    codes_of,
    few_numbers,
    is_measured,
    number_codes,
    numbers_of,
    texts_of,
    truths_of,
)

TablePart = NumberPart | CategoryPart | DensePart
_KINDS: dict[str, Callable[..., TablePart]] = {part.kind: part for part in (NumberPart, CategoryPart, DensePart)}


@dataclass(frozen=True, eq=False)
class TableSpace:
    """How rows of a table become points: ``parts`` side by side, numbers first, then categories, then texts.

    A part whose column is empty is of the rows' own vectors.
    """

    parts: tuple[TablePart, ...]

    @classmethod
    def fit(
        cls,
        frame: pl.DataFrame,
        columns: Sequence[ColumnPlan],
        encode: Encode,
        *,
        vectors: Floats | None = None,
        seed: int,
    ) -> tuple[TableSpace, Floats]:
        """The space of the rows of ``frame``, and their points float32[n, d].

        ``encode`` is asked for each distinct text of the columns of text, and not at all where there are none.
        ``vectors`` float32[n, w], if given, are the rows' own and a part as well. Nested columns are left out.

        Raises ErasmoError where no column tells the rows apart, and for ``vectors`` with NaN or infinities; ValueError
        where there is not one of these a row.
        """
        numbers: list[tuple[TablePart, Floats]] = []
        categories: list[tuple[TablePart, Floats]] = []
        dense: list[tuple[TablePart, Floats]] = []
        for plan in sorted(columns, key=lambda plan: plan.name):
            series, moments = frame[plan.name], plan.kind == "datetime"
            if is_measured(plan):
                values = numbers_of(series, moments=moments)
                levels = few_numbers(values)
                if levels is None:
                    if (number := NumberPart.fit(plan.name, values, moments=moments)) is not None:
                        numbers.append((number, number.read(values)))
                else:
                    codes = number_codes(values.clip(*_ends(levels.values())))
                    if (category := CategoryPart.fit(plan.name, codes, levels, moments=moments)) is not None:
                        categories.append((category, category.read(codes, values)))
            elif plan.kind == "text":
                present, read = _encoded(series, encode)
                if (part := DensePart.fit(plan.name, read, seed=seed)) is not None:
                    dense.append((part, part.read(read, present)))
            elif plan.kind != "nested":
                codes = truths_of(codes_of(series)) if plan.kind == "boolean" else codes_of(series)
                if (category := CategoryPart.fit(plan.name, codes)) is not None:
                    categories.append((category, category.read(codes)))
        if vectors is not None:
            vectors = _one_each(vectors, frame)
            if (part := DensePart.fit("", vectors, seed=seed)) is not None:
                dense.append((part, part.read(vectors, np.ones(len(vectors), dtype=bool))))
        parts = [*numbers, *categories, *dense]
        if not parts:
            raise ErasmoError(
                f"Got no column that tells rows apart by its values: {some([plan.name for plan in columns])}",
                expected="at least one number, moment, category, truth value or text that varies",
                fix="set clustering.method to kmeans++, which uses the encoder's vectors alone",
            )
        return cls(tuple(part for part, _ in parts)), np.concatenate([points for _, points in parts], axis=1)

    @property
    def dimensions(self) -> int:
        """Dimensions of the points."""
        return sum(part.width for part in self.parts)

    @property
    def spans(self) -> tuple[slice, ...]:
        """The dimensions of each part."""
        ends = np.cumsum([part.width for part in self.parts])
        return tuple(slice(int(end) - part.width, int(end)) for part, end in zip(self.parts, ends, strict=True))

    @property
    def layout(self) -> Layout:
        """Which dimensions are what."""
        widths = {kind: tuple(part.width for part in self.parts if part.kind == kind) for kind in _KINDS}
        return Layout(len(widths["number"]), widths["category"], widths["dense"])

    @property
    def needs_texts(self) -> bool:
        """Whether reading a row takes a sentence encoder."""
        return any(isinstance(part, DensePart) and part.column for part in self.parts)

    @property
    def needs_vectors(self) -> bool:
        """Whether reading a row takes its own vector."""
        return any(isinstance(part, DensePart) and not part.column for part in self.parts)

    def read(self, frame: pl.DataFrame, encode: Encode, *, vectors: Floats | None = None) -> Floats:
        """The points float32[n, d] of the rows of ``frame``; a row's does not depend on the rows beside it.

        Raises ErasmoError where a column is missing, and for vectors with NaN or infinities or of another number of
        dimensions than the training's; ValueError where ``vectors`` are needed and there is not one a row.
        """
        lacking = [part.column for part in self.parts if part.column and part.column not in frame.columns]
        if lacking:
            raise ErasmoError(
                f"Got a table without {some(lacking)}",
                expected="the columns that the segments were fitted on",
                fix="bring them back in `source`, or retrain the dataset",
            )
        points = np.empty((frame.height, self.dimensions), dtype=np.float32)
        for part, span in zip(self.parts, self.spans, strict=True):
            points[:, span] = self._read(part, frame, encode, vectors)
        return points

    def _read(self, part: TablePart, frame: pl.DataFrame, encode: Encode, vectors: Floats | None) -> Floats:
        if isinstance(part, NumberPart):
            return part.read(numbers_of(frame[part.column], moments=part.moments))
        if isinstance(part, CategoryPart):
            if part.levels is None:
                return part.read(codes_of(frame[part.column]))
            numbers = numbers_of(frame[part.column], moments=part.moments)
            return part.read(number_codes(numbers.clip(*_ends(part.levels))), numbers)
        if part.column:
            present, read = _encoded(frame[part.column], encode)
            return part.read(_as_wide(read, part), present)
        if vectors is None:
            raise ValueError("got no vectors for a space that has a part of them")
        vectors = _one_each(vectors, frame)
        return part.read(_as_wide(vectors, part), np.ones(len(vectors), dtype=bool))

    def arrays(self) -> Arrays:
        """Every array by a name of its own."""
        return {f"{at}.{name}": array for at, part in enumerate(self.parts) for name, array in part.arrays().items()}

    def details(self) -> list[dict[str, Any]]:
        """What is no array, as JSON."""
        return [{"kind": part.kind, **part.details()} for part in self.parts]

    @classmethod
    def from_saved(cls, details: Sequence[dict[str, Any]], arrays: Arrays) -> TableSpace:
        """The space whose :meth:`details` and :meth:`arrays` these are; KeyError or TypeError where they are none."""
        parts: list[TablePart] = []
        for at, described in enumerate(details):
            own = {name.removeprefix(f"{at}."): array for name, array in arrays.items() if name.startswith(f"{at}.")}
            fields = {name: value for name, value in described.items() if name != "kind"}
            fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            parts.append(_KINDS[described["kind"]](**fields, **own))
        return cls(tuple(parts))


def _encoded(series: pl.Series, encode: Encode) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Which rows have a text, bool[n], and the vectors float32[m, w] of those that do; distinct texts are read once."""
    texts = texts_of(series)
    present: npt.NDArray[np.bool_] = texts.is_not_null().to_numpy()
    distinct = texts.drop_nulls().unique().sort().to_list()
    if not distinct:
        return present, np.zeros((0, 1), dtype=np.float32)
    place = {text: at for at, text in enumerate(distinct)}
    return present, encode(distinct)[[place[text] for text in texts.drop_nulls().to_list()]]


def _ends(levels: Collection[float]) -> tuple[float, float]:
    """What infinities of a column of few numbers are read as."""
    return min(levels, default=0.0), max(levels, default=0.0)


def _one_each(vectors: Floats, frame: pl.DataFrame) -> Floats:
    if len(vectors) != frame.height:
        raise ValueError(f"got {len(vectors)} vectors for {frame.height} rows")
    return checked(vectors)


def _as_wide(vectors: Floats, part: DensePart) -> Floats:
    if len(vectors) and vectors.shape[1] != len(part.mean):
        raise ErasmoError(
            f"Got vectors of {vectors.shape[1]} dimensions for {some([part.column]) if part.column else 'the rows'}",
            expected=f"{len(part.mean)}, as when the segments were fitted",
            fix="embed with the model that the segments were made with, or retrain the dataset",
        )
    return vectors
