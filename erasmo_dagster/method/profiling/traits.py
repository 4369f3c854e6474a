"""By which values segments differ from the rest: effect sizes of numbers, moments, categories and missing values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from erasmo_dagster.method.profiling import shown
from erasmo_dagster.method.profiling.prepare import (
    CategoryColumn,
    Column,
    Floats,
    Ints,
    Mask,
    Membership,
    NumberColumn,
    TextColumn,
)
from erasmo_dagster.method.profiling.results import Trait, TraitKind

LEAST_STRENGTH = 0.1
LEAST_ROWS = 2
MOST_A_COLUMN = 3
_NOTHING = 1e-12  # a standard deviation below this share of the column's range is rounding


def phi(both: float, first: float, second: float, total: float) -> float:
    """Correlation of two properties of ``total`` rows that ``first`` and ``second`` rows have, ``both`` together."""
    spread = math.sqrt(first * (total - first)) * math.sqrt(second * (total - second))
    return max(-1.0, min(1.0, (both * total - first * second) / spread)) if spread else 0.0


def enough(rows: int, size: int) -> bool:
    """Whether a trait of that many rows of a segment counts: two, or the only one that there is."""
    return rows >= LEAST_ROWS or rows == size == 1


def missing_traits(column: NumberColumn | TextColumn, members: Membership, place: int) -> list[Trait]:
    """Missing more often than in the rest, or less often."""
    found = share_trait(column, members, place, column.missing, kind="missing", value=None)
    return [] if found is None else [found]


def share_trait(
    column: NumberColumn | TextColumn, members: Membership, place: int, has: Mask, *, kind: TraitKind, value: str | None
) -> Trait | None:
    """The trait of having something: ``has`` bool[n]. None where too few rows tell of it or it is too weak."""
    both, having = int(np.count_nonzero(has & members.of(place))), int(np.count_nonzero(has))
    return counted_trait(column, members, place, both, having, kind=kind, value=value)


def counted_trait(
    column: Column,
    members: Membership,
    place: int,
    both: int,
    having: int,
    *,
    kind: TraitKind,
    value: str | None,
    association: float | None = None,
) -> Trait | None:
    """As :func:`share_trait`, of ``having`` rows in all and ``both`` of them in the segment."""
    size, total = int(members.sizes[place]), len(members.codes)
    strength = phi(both, size, having, total)
    support = both if strength > 0 else size - both
    if abs(strength) < LEAST_STRENGTH or not enough(support, size):
        return None
    here, rest = both / size, (having - both) / (total - size)
    said = {
        "missing": f"{column.label} is missing",
        "category": f"{column.label} is {value}",
        "term": f"{column.label} mentions “{value}”",
    }[kind]
    return Trait(
        segment_id=members.ids[place],
        column=column.plan.name,
        label=column.label,
        kind=kind,
        value=value,
        in_segment=here,
        in_rest=rest,
        effect=here / (having / total),
        effect_kind="lift",
        strength=strength,
        column_association=abs(strength) if association is None else association,
        description=f"{said} in {shown.percent(here)} of rows, {shown.percent(rest)} in the rest",
    )


def category_traits(column: CategoryColumn, members: Membership, place: int) -> list[Trait]:
    """Values that are more frequent in a segment than in the rest, missing among them."""
    width = len(column.names) + 1
    codes = column.codes + 1  # 0 is missing
    everywhere = np.bincount(codes, minlength=width)
    here = np.bincount(codes[members.of(place)], minlength=width)
    association = cramers_v(here, everywhere)
    size, total = int(members.sizes[place]), len(codes)
    found = []
    more = (here * total > size * everywhere) & (here >= min(LEAST_ROWS, size))
    for code in np.flatnonzero(more).tolist():
        trait = counted_trait(
            column,
            members,
            place,
            int(here[code]),
            int(everywhere[code]),
            kind="category" if code else "missing",
            value=column.names[code - 1] if code else None,
            association=association,
        )
        if trait is not None:
            found.append(trait)
    return found


def cramers_v(here: Ints, everywhere: Ints) -> float:
    """Cramer (1946), "Mathematical Methods of Statistics", section 21.9, of a group and a column's values.

    ``here`` and ``everywhere``: rows per value in the group and in all.
    """
    kept = everywhere > 0
    inside, rows = here[kept].astype(np.float64), everywhere[kept].astype(np.float64)
    size, total = float(inside.sum()), float(rows.sum())
    if len(inside) < 2 or not 0 < size < total:
        return 0.0
    apart = inside - size * rows / total
    return float(min(1.0, math.sqrt(total * np.sum(apart**2 / rows) / (size * (total - size)))))


def mean_traits(column: NumberColumn, members: Membership) -> list[Trait | None]:
    """Per segment the difference of its mean to the rest's, over the rows that have a value; None where it is no trait.

    Cohen (1988), "Statistical Power Analysis", section 2.2, with the pooled standard deviation; where that is 0, with
    the one of all rows.
    """
    present = np.flatnonzero(~column.missing)
    # By value, so that no sum depends on where a row stands.
    order = present[np.argsort(column.values[present], kind="stable")]
    values, codes = column.values[order], members.codes[order]
    segments = len(members.ids)
    if not len(values) or values[0] == values[-1]:
        return [None] * segments
    scaled = _Scaled.of(values)
    z = scaled.values
    counts = np.bincount(codes, minlength=segments).astype(np.float64)
    total = counts.sum()
    means = np.bincount(codes, z, segments) / np.maximum(counts, 1)
    within = np.bincount(codes, (z - means[codes]) ** 2, segments)
    overall = float(z.sum() / total)
    squares = float(((z - overall) ** 2).sum())
    traits: list[Trait | None] = []
    for place in range(segments):
        here, size = counts[place], int(members.sizes[place])
        if not enough(int(here), size) or here == total:
            traits.append(None)
            continue
        others = np.arange(segments) != place
        rest = float(np.sum(counts[others] * means[others]) / (total - here))
        apart = float(means[place] - rest)
        inner = within[place] + np.sum(within[others] + counts[others] * (means[others] - rest) ** 2)
        pooled = math.sqrt(inner / (total - 2)) if total > 2 else 0.0
        spread = pooled if pooled > _NOTHING else math.sqrt(squares / (total - 1))
        strength = apart * math.sqrt(here * (total - here)) / total / math.sqrt(squares / total)
        strength = max(-1.0, min(1.0, strength))
        if abs(strength) < LEAST_STRENGTH or not apart:
            traits.append(None)
            continue
        mean_here, mean_rest = scaled.back(float(means[place])), scaled.back(rest)
        traits.append(
            Trait(
                segment_id=members.ids[place],
                column=column.plan.name,
                label=column.label,
                kind="number" if column.dtype is None else "moment",
                value=None,
                in_segment=mean_here,
                in_rest=mean_rest,
                effect=apart / spread,
                effect_kind="standardised difference",
                strength=strength,
                column_association=abs(strength),
                description="{} {} on average, {} in the rest".format(
                    column.label, *shown_means(column, mean_here, mean_rest)
                ),
            )
        )
    return traits


def shown_means(column: NumberColumn, first: float, second: float) -> tuple[str, str]:
    """Two means of a column as they are written."""
    if column.dtype is None:
        return shown.numbers(first, second, column.plan.unit)
    return shown.moments(first, second, column.dtype)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Values from -1 to 1 around their middle: then no square overflows or vanishes, and no sum cancels."""

    values: Floats
    centre: float
    span: float
    exponent: int

    @staticmethod
    def of(values: Floats) -> _Scaled:
        """``values`` are sorted and not all the same."""
        exponent = int(np.frexp(np.abs(values).max())[1])
        small = np.ldexp(values, -exponent)
        centre = float(small[len(small) // 2])
        span = float(np.abs(small - centre).max())
        return _Scaled((small - centre) / span, centre, span, exponent)

    def back(self, value: float) -> float:
        """A value on the scale as one of the column."""
        # Means lie within the values, rounding or not, so that this is finite.
        return math.ldexp(max(-1.0, min(1.0, self.centre + self.span * value)), self.exponent)
