"""Ranks of arms over many tables, and whether their differences are more than chance.

Demšar (2006), "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, section 3.2: mean ranks,
Friedman's test, and after it Nemenyi's for all pairs with its critical difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.experiments.means import figure_name, higher_is_better, kinds_in, means

ALPHA = 0.05
LEAST_ARMS, LEAST_BLOCKS = 3, 5  # below these Friedman's test says nothing
BLOCKS = ("dataset", "variant", "algorithm", "k")


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of arms by one figure, the best first; 1 is the best rank, and equal values share theirs.

    ``blocks`` is the number of blocks in which every arm has the figure, from ``datasets`` datasets; ``left_out`` the
    number of those where one lacks it. ``wins`` are blocks in which an arm was the best, alone or with others.
    ``p_value`` is Friedman's, ``critical_difference`` and ``pairwise`` (p-values, arms by arms) are Nemenyi's; None
    where there was no test. ``remark`` says in words what may be read from all this.
    """

    figure: str
    arms: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    wins: tuple[int, ...]
    blocks: int
    datasets: int
    left_out: int
    arms_left_out: tuple[str, ...]
    p_value: float | None
    critical_difference: float | None
    pairwise: tuple[tuple[float, ...], ...] | None
    remark: str


def rank_arms(
    frame: pl.DataFrame, figure: str, *, arm: Sequence[str] = ("encoder",), blocks: Sequence[str] = BLOCKS
) -> Ranking:
    """Rank the arms of an experiment's ``frame`` by ``figure`` within each block, and test the mean ranks.

    An arm is a value of the columns ``arm``. A block is a combination of ``blocks`` less those; over all else, seeds
    above all, the figure is averaged first, because repetitions on one table are no independent measurements (Demšar,
    section 3). Only blocks in which every arm has the figure count; an arm that has it nowhere is left out. Raises
    ValueError for a figure of which neither high nor low is better.
    """
    higher = higher_is_better(figure)
    if higher is None:
        raise ValueError(f"got figure {figure!r} to rank by, expected one with a better direction")
    rows = [name for name in blocks if name not in arm]
    joined = frame.with_columns(pl.concat_str(pl.col(arm), separator=" / ").alias("arm"))
    known = kinds_in(joined, "arm")
    numbers = {name: f"#{i}" for i, name in enumerate(known)}  # an arm may be called like a column
    numbered = joined.with_columns(pl.col("arm").replace_strict(numbers))
    table = means(numbered, [*rows, "arm"], [figure]).pivot(on="arm", index=rows, values=figure)
    arms = [name for name in known if _has(table, numbers[name])]
    whole = table.drop_nulls([numbers[name] for name in arms]) if arms else table.clear()
    values = whole.select(numbers[name] for name in arms).to_numpy() if arms else np.empty((0, 0))
    ranks = _ranks(values, higher)
    order = np.argsort(ranks.mean(axis=0), kind="stable") if len(ranks) else np.arange(len(arms))
    datasets = whole["dataset"].n_unique() if "dataset" in rows else len(whole)
    p, difference, pairs = _tested(ranks)
    return Ranking(
        figure=figure,
        arms=tuple(arms[i] for i in order),
        mean_ranks=tuple(float(rank) for rank in ranks.mean(axis=0)[order]) if len(ranks) else (),
        wins=tuple(int(n) for n in (ranks == ranks.min(axis=1, keepdims=True)).sum(axis=0)[order])
        if len(ranks)
        else (),
        blocks=len(whole),
        datasets=datasets,
        left_out=len(table) - len(whole),
        arms_left_out=tuple(name for name in known if name not in arms),
        p_value=p,
        critical_difference=difference,
        pairwise=None if pairs is None else tuple(tuple(map(float, pairs[i, order])) for i in order),
        remark=_remark(figure, len(arms), len(whole), datasets, p, difference),
    )


def _has(table: pl.DataFrame, column: str) -> bool:
    return column in table.columns and table[column].null_count() < table.height


def _ranks(values: npt.NDArray[np.float64], higher: bool) -> npt.NDArray[np.float64]:
    """Ranks within each row of ``values`` [blocks, arms]."""
    from scipy.stats import rankdata

    if not values.size:
        return np.empty(values.shape)
    ranks: npt.NDArray[np.float64] = rankdata(-values if higher else values, axis=1)
    return ranks


def _tested(
    ranks: npt.NDArray[np.float64],
) -> tuple[float | None, float | None, npt.NDArray[np.float64] | None]:
    """Friedman's p-value, Nemenyi's critical difference and p-values; None each where there is too little to test."""
    blocks, arms = ranks.shape
    if blocks < LEAST_BLOCKS or arms < LEAST_ARMS:
        return None, None, None
    if (ranks == ranks[0, 0]).all():  # every arm is equal everywhere
        return 1.0, None, None
    import scikit_posthocs
    from scipy.stats import friedmanchisquare, studentized_range

    p = float(friedmanchisquare(*ranks.T).pvalue)
    quantile = float(studentized_range.ppf(1 - ALPHA, arms, np.inf)) / np.sqrt(2)
    pairs = np.asarray(scikit_posthocs.posthoc_nemenyi_friedman(ranks), dtype=float)
    return p, float(quantile * np.sqrt(arms * (arms + 1) / (6 * blocks))), pairs


def _remark(figure: str, arms: int, blocks: int, datasets: int, p: float | None, difference: float | None) -> str:
    name = figure_name(figure)
    of = f"{blocks} {'block' if blocks == 1 else 'blocks'} of {datasets} {'dataset' if datasets == 1 else 'datasets'}"
    if p is None:
        return (
            f"No test by {name}: {arms} {'arm' if arms == 1 else 'arms'} and {of} are too few "
            f"(at least {LEAST_ARMS} arms and {LEAST_BLOCKS} blocks). The mean ranks describe these runs only."
        )
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p >= ALPHA or difference is None:
        text = f"By {name} the arms' ranks do not differ more than chance would have it (Friedman, {chance}, {of})."
    else:
        text = (
            f"By {name} the arms' ranks differ (Friedman, {chance}, {of}); two arms differ where their mean ranks lie "
            f"{difference:.2f} or more apart (Nemenyi, alpha {ALPHA})."
        )
    if datasets < blocks:
        text += " Blocks of one dataset are not independent, so that the true p is larger than the one told."
    return text
