"""Conditions on one column each, of which a rule is made: which rows they hold for, and how they read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from erasmo_dagster.method.profiling import shown
from erasmo_dagster.method.profiling.prepare import CategoryColumn, Ints, Mask, NumberColumn, TextColumn


@dataclass(frozen=True, eq=False)
class InRange:
    """Numbers above ``low`` and at most ``high``, moments from ``low`` on and before ``high``; None is no bound.

    ``equal`` stands for both where one value is left. With ``empty`` no number will do; ``missing`` rows may count too.
    """

    column: NumberColumn
    low: float | None = None
    high: float | None = None
    low_text: str = ""
    high_text: str = ""
    equal: float | None = None
    empty: bool = False
    missing: bool = False

    def holds(self, rows: Ints | None = None) -> Mask:
        """bool[n], or of ``rows`` alone."""
        values = self.column.values if rows is None else self.column.values[rows]
        absent = np.isnan(values)
        inside = ~absent & (not self.empty)
        if self.equal is not None:
            inside &= values == self.equal
        moment = self.column.dtype is not None
        if self.low is not None:
            inside &= values >= self.low if moment else values > self.low
        if self.high is not None:
            inside &= values < self.high if moment else values <= self.high
        return np.asarray(inside | absent if self.missing else inside)

    def text(self) -> str:
        """Such as ``age is above 40 and at most 60``."""
        parts = []
        if self.equal is not None:
            parts = [self.low_text]
        elif self.column.dtype is not None:
            parts += [f"{self.low_text} or later"] if self.low is not None else []
            parts += [f"before {self.high_text}"] if self.high is not None else []
        else:
            parts += [f"above {self.low_text}"] if self.low is not None else []
            parts += [f"at most {self.high_text}"] if self.high is not None else []
        label = self.column.label
        if self.empty or not parts:
            return f"{label} is {'missing' if self.missing else 'not missing'}"
        return f"{label} is {' and '.join(parts)}{' or missing' if self.missing else ''}"


@dataclass(frozen=True, eq=False)
class InValues:
    """A category is one value, or none of some; codes into the column's names, -1 is missing."""

    column: CategoryColumn
    codes: tuple[int, ...]
    wanted: bool

    def holds(self, rows: Ints | None = None) -> Mask:
        """bool[n], or of ``rows`` alone."""
        codes = self.column.codes if rows is None else self.column.codes[rows]
        return np.asarray(np.isin(codes, self.codes, invert=not self.wanted))

    def text(self) -> str:
        """Such as ``job is not student or retired``."""
        named = [self.column.names[code] for code in sorted(self.codes) if code >= 0]
        named += ["missing"] if -1 in self.codes else []
        return f"{self.column.label} is {'' if self.wanted else 'not '}{' or '.join(named)}"


@dataclass(frozen=True, eq=False)
class Mentions:
    """A text has a term, or has it not."""

    column: TextColumn
    term: str
    wanted: bool

    def holds(self, rows: Ints | None = None) -> Mask:
        """bool[n], or of ``rows`` alone."""
        return np.asarray(self.column.holds(self.term, rows) == self.wanted)

    def text(self) -> str:
        """Such as ``note mentions “refund”``."""
        return f"{self.column.label} {'mentions' if self.wanted else 'does not mention'} “{self.term}”"


Condition = InRange | InValues | Mentions


def range_of(
    column: NumberColumn, low: tuple[float, float] | None, high: tuple[float, float] | None, *, missing: bool
) -> InRange:
    """The values above the gap ``low`` and below the gap ``high``; a gap is two values, None is no bound.

    Bounds are the shortest decimals, or the roundest moments, in the gaps; one value where the two leave one.
    """
    if low is not None and high is not None and low[1] == high[0]:
        return InRange(column, equal=low[1], low_text=_exactly(column, low[1]), missing=missing)
    first, first_text = _bound(column, *low) if low is not None else (None, "")
    last, last_text = _bound(column, *high) if high is not None else (None, "")
    return InRange(column, first, last, first_text, last_text, missing=missing)


def _bound(column: NumberColumn, below: float, above: float) -> tuple[float, str]:
    if column.dtype is None:
        bound = shown.shortest_between(below, above)
        return float(bound), shown.with_unit(shown.decimal(bound), column.plan.unit)
    return shown.round_moment(below, above, column.dtype)


def _exactly(column: NumberColumn, value: float) -> str:
    if column.dtype is None:
        return shown.with_unit(shown.decimal_of(value), column.plan.unit)
    return shown.exact_moment(value, column.dtype)
