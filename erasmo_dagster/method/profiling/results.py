"""What a profile holds: traits, a rule, a typical row and a summary per segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TraitKind = Literal["number", "moment", "category", "missing", "term"]
EffectKind = Literal["standardised difference", "lift"]

NOISE = -1


@dataclass(frozen=True)
class Trait:
    """One thing by which a segment differs from the rest of the rows.

    ``value`` is a category's value in human words or a term, None for numbers, moments and missing. ``in_segment`` and
    ``in_rest`` are means (moments in seconds since 1970) or shares of rows, 0 to 1. ``effect`` is Cohen's d with the
    pooled standard deviation for means, and for shares the lift: ``in_segment`` over the share in all rows.

    ``strength``, -1 to 1, is the correlation of the trait with being in the segment (point-biserial for means, phi for
    shares), by which traits of all kinds are ranked. ``column_association``, 0 to 1, is Cramer's V of being in the
    segment and the column's values, missing among them, for categories; ``|strength|`` for the others.
    """

    segment_id: int
    column: str
    label: str
    kind: TraitKind
    value: str | None
    in_segment: float
    in_rest: float
    effect: float
    effect_kind: EffectKind
    strength: float
    column_association: float
    description: str


@dataclass(frozen=True)
class Rule:
    """A condition in words. ``precision``: share of the ``rows`` it holds for that are in the segment.

    ``coverage``: share of the segment's rows that it holds for. All are counted with the rule as it reads.
    """

    text: str
    precision: float
    coverage: float
    rows: int


@dataclass(frozen=True)
class SegmentProfile:
    """What sets one segment apart; ``traits`` strongest first, ``typical`` from label to shown value."""

    segment_id: int
    rows: int
    share: float
    traits: tuple[Trait, ...]
    rule: Rule | None
    typical: dict[str, str]
    summary: str


@dataclass(frozen=True, eq=False)
class TableProfile:
    """The profiles of a table's segments by their ids; noise (-1), where there is any, comes last."""

    segments: tuple[SegmentProfile, ...]
