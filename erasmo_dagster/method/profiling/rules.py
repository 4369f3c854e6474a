"""A rule in plain words for each segment: the best path of a small decision tree, told from all other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.profiling.conditions import Condition, InRange, InValues, Mentions, range_of
from erasmo_dagster.method.profiling.prepare import (
    CategoryColumn,
    Column,
    Ints,
    Mask,
    Membership,
    NumberColumn,
    TextColumn,
)
from erasmo_dagster.method.profiling.results import Rule

DEPTH = 3
# F1 that a rule may lose for being shorter.
_SLIGHT = 0.005
_MOST_VALUES = 50  # of a category
_MOST_INDICATORS = 30  # a segment: the values and terms that are most correlated with it
_MOST_NUMBERS = 40  # a segment, likewise; a table seldom has more


@dataclass(frozen=True, eq=False)
class _Number:
    """A column of numbers in the sample as places in its sorted distinct values; NaN where missing.

    A tree sees no more of numbers than their order, and 32 bits hold every place exactly.
    """

    column: NumberColumn
    ranks: npt.NDArray[np.float32]
    distinct: list[float]


@dataclass(frozen=True, eq=False)
class _Indicator:
    """Whether a category is one value (``code``), or a text has a ``term``; bool[m] in the sample."""

    column: CategoryColumn | TextColumn
    has: Mask
    code: int = -1
    term: str = ""


class RuleFinder:
    """Finds rules on a sample, ``rows`` int64[m], and counts them on all rows.

    ``terms``: by the position of a column of text, the terms that conditions may be about.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        members: Membership,
        rows: Ints,
        terms: dict[int, list[str]],
        seed: int,
    ) -> None:
        self.members, self.rows, self.seed = members, rows, seed
        self.places = members.codes[rows]
        self.numbers: list[_Number] = []
        self.indicators: list[_Indicator] = []
        for position, column in enumerate(columns):
            if isinstance(column, NumberColumn):
                self.numbers += _number(column, rows)
            elif isinstance(column, CategoryColumn):
                self.indicators += _values(column, rows)
            else:
                self.indicators += [
                    _Indicator(column, column.holds(term, rows), term=term) for term in terms.get(position, [])
                ]

    def rule(self, place: int) -> Rule | None:
        """The rule of one segment; None where there is no other, or nothing separates it."""
        mine = self.places == place
        if not 0 < np.count_nonzero(mine) < len(mine):
            return None
        features: list[_Number | _Indicator] = [*self._numbers(mine), *self._indicators(mine)]
        if not features:
            return None
        table = np.column_stack([_values_of(feature) for feature in features])
        paths = _paths(table, mine, self.seed)
        best: tuple[float, list[Condition]] | None = None
        for path in paths:
            conditions = _merged(features, path)
            score = _f1(self._holds(conditions), mine)
            if best is None or score > best[0] + 1e-12:
                best = score, conditions
        if best is None or not best[1]:
            return None
        return self._counted(self._shortened(best[1], mine), place)

    def _numbers(self, mine: Mask) -> list[_Number]:
        if len(self.numbers) <= _MOST_NUMBERS:
            return self.numbers
        strength = [abs(_correlation(number.ranks, mine)) for number in self.numbers]
        order = sorted(range(len(strength)), key=lambda i: (-strength[i], i))[:_MOST_NUMBERS]
        return [self.numbers[i] for i in sorted(order)]

    def _indicators(self, mine: Mask) -> list[_Indicator]:
        strength = [abs(_correlation(indicator.has.astype(np.float32), mine)) for indicator in self.indicators]
        order = sorted(range(len(strength)), key=lambda i: (-strength[i], i))[:_MOST_INDICATORS]
        return [self.indicators[i] for i in sorted(order) if strength[i] > 0]

    def _holds(self, conditions: Sequence[Condition]) -> Mask:
        result = np.ones(len(self.rows), dtype=bool)
        for condition in conditions:
            result &= condition.holds(self.rows)
        return result

    def _shortened(self, conditions: list[Condition], mine: Mask) -> list[Condition]:
        """Without what hardly helps by F1: whole conditions, then missing values that a range admits."""
        best = _f1(self._holds(conditions), mine)
        for condition in reversed(list(conditions)):
            others = [other for other in conditions if other is not condition]
            if others and (score := _f1(self._holds(others), mine)) >= best - _SLIGHT:
                conditions, best = others, max(best, score)
        for condition in list(conditions):
            if isinstance(condition, InRange) and condition.missing and not condition.empty:
                plainer = [
                    InRange(**{**vars(condition), "missing": False}) if c is condition else c for c in conditions
                ]
                if (score := _f1(self._holds(plainer), mine)) >= best - _SLIGHT:
                    conditions, best = plainer, max(best, score)
        return conditions

    def _counted(self, conditions: list[Condition], place: int) -> Rule | None:
        holds = np.ones(len(self.members.codes), dtype=bool)
        for condition in conditions:
            holds &= condition.holds()
        mine = self.members.of(place)
        rows, hits, size = int(holds.sum()), int((holds & mine).sum()), int(mine.sum())
        if not rows or hits * len(mine) <= size * rows:
            return None
        text = " and ".join(condition.text() for condition in conditions)
        return Rule(text=text, precision=hits / rows, coverage=hits / size, rows=rows)


def _f1(holds: Mask, mine: Mask) -> float:
    both = int(np.count_nonzero(holds & mine))
    return 2 * both / (np.count_nonzero(holds) + np.count_nonzero(mine))


def _number(column: NumberColumn, rows: Ints) -> list[_Number]:
    values = column.values[rows]
    absent = np.isnan(values)
    distinct, ranks = np.unique(values[~absent], return_inverse=True)
    if len(distinct) < 2 and not (len(distinct) and absent.any()):
        return []
    placed = np.full(len(rows), np.nan, dtype=np.float32)
    placed[~absent] = ranks
    return [_Number(column, placed, distinct.tolist())]


def _values(column: CategoryColumn, rows: Ints) -> list[_Indicator]:
    codes = column.codes[rows]
    counts = np.bincount(codes + 1, minlength=len(column.names) + 1)
    if np.count_nonzero(counts) < 2:
        return []
    order = np.argsort(-counts[1:], kind="stable")[:_MOST_VALUES]
    kept = [int(code) for code in order if counts[code + 1]] + ([-1] if counts[0] else [])
    return [_Indicator(column, codes == code, code=code) for code in kept]


def _values_of(feature: _Number | _Indicator) -> npt.NDArray[np.float32]:
    return feature.ranks if isinstance(feature, _Number) else feature.has.astype(np.float32)


def _correlation(values: npt.NDArray[np.float32], mine: Mask) -> float:
    present = ~np.isnan(values)
    x, y = values[present].astype(np.float64), mine[present].astype(np.float64)
    if len(x) < 2 or not x.std() or not y.std():
        return 0.0
    return round(float(np.mean((x - x.mean()) * (y - y.mean())) / (x.std() * y.std())), 9)


@dataclass(frozen=True)
class _Step:
    """One turn on the way to a leaf: down or up from a gap, and whether missing values go there as well.

    ``below`` and ``above`` are the values that the node's rows have next to the gap, None where they have none.
    """

    feature: int
    up: bool
    below: float | None
    above: float | None
    missing: bool


def _paths(table: npt.NDArray[np.float32], mine: Mask, seed: int) -> list[list[_Step]]:
    """The ways to the leaves of a tree that tells ``mine`` bool[m] from the others by ``table`` float32[m, f]."""
    from sklearn.tree import DecisionTreeClassifier

    smallest = max(1, min(20, int(mine.sum()) // 10))
    model = DecisionTreeClassifier(
        max_depth=DEPTH, min_samples_leaf=smallest, class_weight="balanced", random_state=seed % 2**32
    )
    tree: Any = model.fit(table, mine).tree_
    has_missing: Mask = np.asarray(np.isnan(table).any(axis=0))
    paths: list[list[_Step]] = []

    def walk(node: int, rows: Ints, steps: list[_Step]) -> None:
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left < 0:
            paths.append(steps)
            return
        feature = int(tree.feature[node])
        values = table[rows, feature]
        lower, upper = values <= tree.threshold[node], values > tree.threshold[node]
        below = float(values[lower].max()) if lower.any() else None
        above = float(values[upper].min()) if upper.any() else None
        to_left = np.isnan(values) & bool(tree.missing_go_to_left[node])
        missing = bool(has_missing[feature]), bool(tree.missing_go_to_left[node])
        down = _Step(feature, False, below, above, missing == (True, True))
        up = _Step(feature, True, below, above, missing == (True, False))
        walk(left, rows[lower | to_left], [*steps, down])
        walk(right, rows[~(lower | to_left)], [*steps, up])

    walk(0, np.arange(len(table)), [])
    return paths


def _merged(features: Sequence[_Number | _Indicator], path: Sequence[_Step]) -> list[Condition]:
    """One condition a column, in the order in which the tree came to them."""
    by_column: dict[int, list[_Step]] = {}
    for step in path:
        by_column.setdefault(id(features[step.feature].column), []).append(step)
    conditions: list[Condition] = []
    for steps in by_column.values():
        first = features[steps[0].feature]
        if isinstance(first, _Number):
            conditions.append(_range(first, steps))
        elif isinstance(first.column, CategoryColumn):
            indicators = [feature for step in steps if isinstance(feature := features[step.feature], _Indicator)]
            conditions.append(_choice(first.column, indicators, steps))
        else:
            for step in steps:
                feature = features[step.feature]
                if isinstance(feature, _Indicator) and isinstance(feature.column, TextColumn):
                    conditions.append(Mentions(feature.column, feature.term, wanted=step.up))
    return conditions


def _range(number: _Number, steps: Sequence[_Step]) -> InRange:
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    for step in steps:
        # Each step lies within those before it, so that the last bound is the closest.
        if (step.above if step.up else step.below) is None:
            return InRange(number.column, empty=True, missing=all(step.missing for step in steps))
        if step.below is not None and step.above is not None:
            gap = number.distinct[int(step.below)], number.distinct[int(step.above)]
            low, high = (gap, high) if step.up else (low, gap)
    return range_of(number.column, low, high, missing=all(step.missing for step in steps))


def _choice(column: CategoryColumn, indicators: Sequence[_Indicator], steps: Sequence[_Step]) -> InValues:
    wanted = [indicator.code for indicator, step in zip(indicators, steps, strict=True) if step.up]
    if wanted:
        return InValues(column, (wanted[0],), wanted=True)
    unwanted = {indicator.code for indicator in indicators}
    left = {*range(len(column.names)), *([-1] if column.missing.any() else [])} - unwanted
    # "is yes" says more than "is not no".
    return InValues(column, tuple(left), wanted=True) if len(left) == 1 else InValues(column, tuple(unwanted), False)
