"""The leaves of a decision tree as lines to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from erasmo_dagster.method.measures.features import Feature, Values
from erasmo_dagster.method.measures.rows import Ints
from erasmo_dagster.method.profiling.conditions import Condition, InRange, InValues, Mentions, range_of
from erasmo_dagster.method.profiling.prepare import CategoryColumn, NumberColumn, TextColumn
from erasmo_dagster.method.profiling.shown import percent


@dataclass(frozen=True)
class _Step:
    """One turn on the way to a leaf: down or up from a gap, and whether missing values go there as well.

    ``below`` and ``above`` are the values that the node's rows have next to the gap, None where they have none.
    """

    feature: Feature
    up: bool
    below: float | None
    above: float | None
    missing: bool


def leaf_lines(
    model: Any, features: Sequence[Feature], table: Values, segments: Ints, ids: Sequence[int]
) -> tuple[str, ...]:
    """One line a leaf of a fitted tree, those of most rows first.

    Such as ``segment 2: age is above 41 and job is technician (93 %, 120 rows)``: the segment that the leaf predicts
    among ``ids``, its share of the rows that the conditions hold for, and their number. Counted with the conditions as
    they read, on ``table`` float32[n, f] of ``features``, which the tree was fitted on with ``segments`` int64[n].
    """
    found: list[tuple[int, str]] = []
    for segment, path in _paths(model, features, table):
        conditions = _merged(path)
        holds = np.ones(len(segments), dtype=bool)
        for condition in conditions:
            holds &= condition.holds()
        rows = int(holds.sum())
        share = float((segments[holds] == segment).mean())
        said = " and ".join(condition.text() for condition in conditions) or "every row"
        counted = f"{rows} row{'' if rows == 1 else 's'}"
        found.append((rows, f"segment {ids[segment]}: {said} ({percent(share)}, {counted})"))
    return tuple(line for _, line in sorted(found, key=lambda leaf: (-leaf[0], leaf[1])))


def _paths(model: Any, features: Sequence[Feature], table: Values) -> list[tuple[int, list[_Step]]]:
    """The segment that each leaf predicts and the way there."""
    tree = model.tree_
    has_missing = np.asarray(np.isnan(table).any(axis=0))
    paths: list[tuple[int, list[_Step]]] = []

    def walk(node: int, rows: Ints, steps: list[_Step]) -> None:
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            paths.append((int(model.classes_[tree.value[node][0].argmax()]), steps))
            return
        at = int(tree.feature[node])
        values = table[rows, at]
        lower, upper = values <= tree.threshold[node], values > tree.threshold[node]
        below = float(values[lower].max()) if lower.any() else None
        above = float(values[upper].min()) if upper.any() else None
        missing_left = bool(tree.missing_go_to_left[node])
        to_left = lower | (np.isnan(values) & missing_left)
        down = _Step(features[at], False, below, above, bool(has_missing[at]) and missing_left)
        up = _Step(features[at], True, below, above, bool(has_missing[at]) and not missing_left)
        walk(left, rows[to_left], [*steps, down])
        walk(right, rows[~to_left], [*steps, up])

    walk(0, np.arange(len(table)), [])
    return paths


def _merged(path: Sequence[_Step]) -> list[Condition]:
    """One condition a column (one a term), in the order in which the tree came to them."""
    by_column: dict[int, list[_Step]] = {}
    for step in path:
        by_column.setdefault(id(step.feature.column), []).append(step)
    conditions: list[Condition] = []
    for steps in by_column.values():
        column = steps[0].feature.column
        if isinstance(column, NumberColumn):
            conditions.append(_range(column, steps))
        elif isinstance(column, CategoryColumn):
            conditions.append(_choice(column, steps))
        else:
            conditions += [_mentions(column, step) for step in steps]
    return conditions


def _mentions(column: TextColumn, step: _Step) -> Mentions:
    return Mentions(column, step.feature.term, wanted=step.up)


def _range(column: NumberColumn, steps: Sequence[_Step]) -> InRange:
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    missing = all(step.missing for step in steps)
    for step in steps:
        # Each step lies within those before it, so that the last bound is the closest.
        if (step.above if step.up else step.below) is None:
            return InRange(column, empty=True, missing=missing)
        if step.below is not None and step.above is not None:
            distinct = step.feature.distinct
            gap = distinct[int(step.below)], distinct[int(step.above)]
            low, high = (gap, high) if step.up else (low, gap)
    return range_of(column, low, high, missing=missing)


def _choice(column: CategoryColumn, steps: Sequence[_Step]) -> InValues:
    wanted = [step.feature.code for step in steps if step.up]
    if wanted:
        return InValues(column, (wanted[0],), wanted=True)
    unwanted = {step.feature.code for step in steps}
    left = {*range(len(column.names)), *([-1] if column.missing.any() else [])} - unwanted
    # "is yes" says more than "is not no".
    return InValues(column, tuple(left), wanted=True) if len(left) == 1 else InValues(column, tuple(unwanted), False)
