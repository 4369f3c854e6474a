"""The profile of every segment of a table, from the table's own columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.profiling import shown
from erasmo_dagster.method.profiling.phrases import phrase, says_the_same
from erasmo_dagster.method.profiling.prepare import (
    CategoryColumn,
    Column,
    Mask,
    Membership,
    NumberColumn,
    Table,
    TextColumn,
    canonical_sample,
    memberships,
    prepare,
)
from erasmo_dagster.method.profiling.results import SegmentProfile, TableProfile, Trait
from erasmo_dagster.method.profiling.rules import RuleFinder
from erasmo_dagster.method.profiling.terms import MOST_TERMS, candidate_terms, term_traits
from erasmo_dagster.method.profiling.traits import (
    MOST_A_COLUMN,
    category_traits,
    mean_traits,
    missing_traits,
    shown_means,
)

NO_TRAIT = "no column sets it apart"
_SAID = 3  # traits in a summary
_TWO_DAYS = 2 * 86_400.0  # seconds that moments must span to be shown as days
_KIND_ORDER = {"number": 0, "moment": 0, "category": 1, "term": 2, "missing": 3}


def profile_segments(
    frame: Table,
    segment_ids: npt.NDArray[np.integer],
    columns: Sequence[ColumnPlan],
    *,
    language: str = "en",
    seed: int = 0,
    max_rows: int = 20_000,
    most_traits: int = 12,
) -> TableProfile:
    """What sets each segment apart from the rest of the rows, and how its typical row looks.

    ``segment_ids`` int[n], one a row of ``frame``; -1 is noise and has a profile as well. Sensitive and nested
    ``columns`` are left out, and so are columns of the frame that ``columns`` lacks. Means and shares are of all rows;
    beyond ``max_rows``, terms of texts and the trees of the rules come from a sample that ``seed`` draws. Neither the
    order of the rows nor that of the frame's columns changes the result. A trait is shown by at least two rows (by the
    one that there is), and has a strength of at least 0.1; a column has at most three, one of free text at most four.

    Raises ValueError where there is not one id a row.
    """
    members = memberships(segment_ids, frame.height)
    told = prepare(frame, columns)
    rows = canonical_sample(told, members, most=max_rows, seed=seed)
    telling, typical = {}, {}
    for position, column in enumerate(told):
        if isinstance(column, TextColumn):
            telling[position], typical[position] = candidate_terms(column, members, rows, language)
    traits = _traits(told, members, telling, most_traits)
    finder = RuleFinder(told, members, rows, {at: _together(terms) for at, terms in telling.items()}, seed)
    scales = {column.plan.name: column for column in told}
    segments = []
    for place, segment_id in enumerate(members.ids):
        size = int(members.sizes[place])
        segments.append(
            SegmentProfile(
                segment_id=segment_id,
                rows=size,
                share=size / frame.height,
                traits=tuple(traits[place]),
                rule=finder.rule(place) if len(members.ids) > 1 else None,
                typical=_typical(told, members.of(place), traits[place], {at: t[place] for at, t in typical.items()}),
                summary=_summary(traits[place], scales),
            )
        )
    return TableProfile(tuple(segments))


def _together(terms: list[list[str]]) -> list[str]:
    """The terms of all segments, each once."""
    return list(dict.fromkeys(term for of_segment in terms for term in of_segment[:MOST_TERMS]))


def _traits(
    columns: Sequence[Column], members: Membership, terms: dict[int, list[list[str]]], most: int
) -> list[list[Trait]]:
    found: list[list[tuple[int, Trait]]] = [[] for _ in members.ids]
    if len(members.ids) < 2:
        return [[] for _ in members.ids]
    for position, column in enumerate(columns):
        means = mean_traits(column, members) if isinstance(column, NumberColumn) else []
        for place in range(len(members.ids)):
            if isinstance(column, CategoryColumn):
                own = category_traits(column, members, place)
            else:
                own = missing_traits(column, members, place)
                if isinstance(column, TextColumn):
                    own += term_traits(column, members, place, terms[position][place])
                elif (mean := means[place]) is not None:
                    own.append(mean)
            limit = MOST_TERMS if isinstance(column, TextColumn) else MOST_A_COLUMN
            found[place] += [(position, trait) for trait in sorted(own, key=_rank)[:limit]]
    ordered = [sorted(of_segment, key=lambda at: (_rank(at[1])[0], at[0], *_rank(at[1])[1:])) for of_segment in found]
    return [[trait for _, trait in of_segment[:most]] for of_segment in ordered]


def _rank(trait: Trait) -> tuple[float, int, str]:
    # Rounded, so that traits whose strengths differ by rounding alone keep the order of their columns.
    return -round(abs(trait.strength), 9), _KIND_ORDER[trait.kind], trait.value or ""


def _summary(traits: Sequence[Trait], columns: dict[str, Column]) -> str:
    """The strongest traits: of different columns, and without one that repeats a word, as long as there are others."""
    once: list[Trait] = []
    for trait in traits:
        if not any(trait.column == other.column or says_the_same(trait, other) for other in once):
            once.append(trait)
    said = (once + [trait for trait in traits if trait not in once])[:_SAID]
    said = [trait for trait in traits if trait in said]
    return ", ".join(_clause(trait, columns[trait.column]) for trait in said) or NO_TRAIT


def _clause(trait: Trait, column: Column) -> str:
    if isinstance(column, NumberColumn) and trait.kind != "missing":
        return "{} ({} against {})".format(phrase(trait), *shown_means(column, trait.in_segment, trait.in_rest))
    shares = f"({shown.percent(trait.in_segment)} against {shown.percent(trait.in_rest)})"
    if trait.kind == "term":
        return f"{phrase(trait)} in {shown.clean(trait.label, 40)} {shares}"
    if trait.kind == "missing" and trait.strength < 0:
        return f"seldom missing {shown.clean(trait.label, 40)} {shares}"
    entire = "always" if (trait.value or "").lower() in ("yes", "no", "true", "false") else "only"
    often = entire if trait.in_segment == 1 else "mostly" if trait.in_segment >= 0.5 else "more often"
    return f"{often} {phrase(trait)} {shares}"


def _typical(
    columns: Sequence[Column], mine: Mask, traits: Sequence[Trait], terms: dict[int, list[str]]
) -> dict[str, str]:
    """Label -> median, most frequent value, or terms; ``missing`` where more rows of the segment lack it than not."""
    shown_values: dict[str, str] = {}
    for position, column in enumerate(columns):
        if isinstance(column, NumberColumn):
            text = _median(column, mine)
        elif isinstance(column, CategoryColumn):
            text = _mode(column, mine)
        else:
            own = [trait.value or "" for trait in traits if trait.column == column.plan.name and trait.kind == "term"]
            best = (own or terms.get(position, []))[:3]
            text = ", ".join(f"“{term}”" for term in best)
            if not text and np.count_nonzero(column.missing & mine) * 2 > np.count_nonzero(mine):
                text = "missing"
        if text:
            shown_values[column.label] = text
    return shown_values


def _median(column: NumberColumn, mine: Mask) -> str:
    values = column.values[mine]
    present = np.sort(values[~np.isnan(values)])
    if 2 * len(present) < len(values):
        return "missing"
    low, high = float(present[(len(present) - 1) // 2]), float(present[len(present) // 2])
    middle = low / 2 + high / 2 if low != high else low
    if column.dtype is None:
        return shown.number(middle, column.plan.unit)
    every = column.values[~column.missing]
    return shown.moment(middle, column.dtype, whole_days=float(every.max() - every.min()) >= _TWO_DAYS)


def _mode(column: CategoryColumn, mine: Mask) -> str:
    counts = np.bincount(column.codes[mine] + 1, minlength=len(column.names) + 1)
    if 2 * counts[0] > counts.sum():
        return "missing"
    if not len(column.names) or (counts[1:].max() < 2 <= counts.sum()):
        return "various"  # a value of one row is nobody's type
    return column.names[int(np.argmax(counts[1:]))]
