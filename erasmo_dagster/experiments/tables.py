"""The tables of an experiment: leaderboards, costs, failures, and published figures beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from erasmo_dagster.experiments.means import (
    COSTS,
    JUDGES,
    WITHIN_ONE_SPACE,
    bounded,
    figure_name,
    figures_in,
    finished,
    higher_is_better,
    means,
    plain,
)

MAIN = (  # the figures to look at first
    *("ari", "ami", "homogeneity", "completeness", "accuracy", "f1_weighted"),
    *("gower_silhouette", "silhouette", "calinski_harabasz", "davies_bouldin"),
)
TOLERANCE = 0.05  # a larger difference from a published figure wants a reason


@dataclass(frozen=True)
class Value:
    """A figure's mean over seeds; ``spread`` is its standard deviation, None below two. ``best`` marks the best."""

    mean: float | None
    spread: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Line:
    """An encoder with an algorithm (and a number of segments asked for, None where there is none)."""

    encoder: str
    algorithm: str
    k: int | None
    cells: int
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaderboard:
    """The lines of one dataset and variant, the best first by ``judge``; None where nothing can judge them."""

    dataset: str
    variant: str
    rows: int | None
    figures: tuple[str, ...]
    judge: str | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Compared:
    """A published figure beside ours, None where it was not run; ``far`` as :func:`compared` says."""

    dataset: str
    encoder: str
    algorithm: str
    figure: str
    published: float
    ours: float | None
    difference: float | None
    far: bool


def leaderboards(frame: pl.DataFrame) -> list[Leaderboard]:
    """A leaderboard for each dataset and variant that has a finished cell, in the order of the frame.

    The best of each figure is marked: among all lines where the figure compares across encoders, else among the lines
    of one encoder, for distances in two vector spaces have nothing in common.
    """
    tables = frame.select("dataset", "variant").unique(maintain_order=True)
    found = [
        _leaderboard(frame.filter(pl.col("dataset") == dataset, pl.col("variant") == variant))
        for dataset, variant in tables.iter_rows()
    ]
    return [table for table in found if table is not None]


def _leaderboard(frame: pl.DataFrame) -> Leaderboard | None:
    figures = figures_in(frame)
    averaged = means(frame, ["encoder", "algorithm", "k"], figures)
    if averaged.is_empty():
        return None
    judge = next((name for name in (*JUDGES, "silhouette", *figures) if name in figures), None)
    if judge is not None and higher_is_better(judge) is not None:
        averaged = averaged.sort(judge, descending=bool(higher_is_better(judge)), nulls_last=True, maintain_order=True)
    best = {(name, row) for name in figures for row in _best(averaged, name)}
    lines = tuple(
        Line(
            row["encoder"],
            row["algorithm"],
            row["k"],
            row["cells"],
            {name: Value(row[name], row[f"{name}_sd"], (name, i) in best) for name in figures},
        )
        for i, row in enumerate(averaged.iter_rows(named=True))
    )
    rows = finished(frame)["rows"].max()
    return Leaderboard(
        frame["dataset"][0],
        frame["variant"][0],
        int(rows) if isinstance(rows, int | float) else None,
        tuple(figures),
        judge,
        lines,
    )


def _best(averaged: pl.DataFrame, figure: str) -> list[int]:
    """Rows with the best value of ``figure``, if at least two can be compared."""
    higher = higher_is_better(figure)
    if higher is None:
        return []
    numbered = averaged.with_row_index("row").drop_nulls(figure)
    groups = numbered.partition_by("encoder") if figure in WITHIN_ONE_SPACE else [numbered]
    best = []
    for group in groups:
        values = group[figure]
        if len(values) > 1:
            best += group.filter(values == (values.max() if higher else values.min()))["row"].to_list()
    return best


def costs(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Mean seconds, tokens and sizes of each dataset, variant and encoder, with the cells that they are means of."""
    columns = ("rows", "dimensions", *COSTS, "train_tokens", "embed_tokens")
    numbers = frame.with_columns(pl.col(name).cast(pl.Float64) for name in columns)
    return means(numbers, ["dataset", "variant", "encoder"], [*columns, "seconds"]).to_dicts() if len(frame) else []


def failures(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The cells that did not end well by encoder, algorithm and reason, with their number and their tables."""
    return (
        frame.filter(pl.col("status") != "done")
        .with_columns(pl.col("error").fill_null(pl.col("status")))
        .group_by("encoder", "algorithm", "error", maintain_order=True)
        .agg(
            pl.concat_str("dataset", "variant", separator=", ").unique(maintain_order=True).alias("tables"),
            pl.len().alias("cells"),
        )
        .to_dicts()
    )


def compared(frame: pl.DataFrame, published: pl.DataFrame) -> list[Compared]:
    """Published figures (dataset, encoder, algorithm, figure, value) beside the means of ours on the plain tables.

    ``far`` where they are more than ``TOLERANCE`` apart; where a figure has no scale of its own, as a share of what is
    published, and beyond what its rounding explains.
    """
    lines = []
    by = ["dataset", "encoder", "algorithm"]
    wanted = published.select(*by, "figure", pl.col("value").cast(pl.Float64))
    held = [name for name in wanted["figure"].unique() if name in frame.columns]
    ours = {tuple(row[name] for name in by): row for row in means(plain(frame), by, held).iter_rows(named=True)}
    for dataset, encoder, algorithm, figure, value in wanted.iter_rows():
        mine = ours.get((dataset, encoder, algorithm), {}).get(figure)
        apart = None if mine is None or value is None else mine - value
        far = apart is not None and (
            abs(apart) > TOLERANCE + 1e-9 if bounded(figure) else abs(apart) > max(TOLERANCE * abs(value), 0.5)
        )
        lines.append(Compared(dataset, encoder, algorithm, figure, value, mine, apart, far))
    return lines


def markdown_tables(
    frame: pl.DataFrame, *, figures: Sequence[str] | None = None, published: pl.DataFrame | None = None
) -> str:
    """The leaderboards as Markdown, with three digits; the best in bold as in :func:`leaderboards`.

    † stands at figures that compare only within one encoder's vectors. ``figures`` are the columns, in that order, by
    default the main ones. With ``published``, a table of those figures beside ours follows.
    """
    parts = []
    for table in leaderboards(frame):
        shown = [name for name in figures or MAIN if name in table.figures]
        with_k = any(line.k is not None for line in table.lines)
        head = ["encoder", "algorithm", *(["k"] if with_k else [])]
        head += [f"{figure_name(name)} †" if name in WITHIN_ONE_SPACE else figure_name(name) for name in shown]
        lines = [
            [
                line.encoder,
                line.algorithm,
                *([_dash(line.k)] if with_k else []),
                *(_bold(line.values[name]) for name in shown),
            ]
            for line in table.lines
        ]
        rows = "" if table.rows is None else f" ({table.rows:,} rows)"
        parts.append(f"**{_cell(table.dataset)}**, {_cell(table.variant)}{rows}\n\n{_markdown(head, lines)}")
    if published is not None and not published.is_empty():
        head = ["dataset", "encoder", "algorithm", "figure", "published", "ours", "difference"]
        told = [
            [
                *(line.dataset, line.encoder, line.algorithm, figure_name(line.figure)),
                *(digits(line.published), digits(line.ours)),
                digits(line.difference, sign=True) + (" (!)" if line.far else ""),
            ]
            for line in compared(frame, published)
        ]
        parts.append(_markdown(head, told, left=4))
    return "\n\n".join(parts) + "\n" if parts else ""


def digits(value: float | None, *, sign: bool = False, like: float | None = None) -> str:
    """A figure with three digits behind the point, fewer from 10 on, as many as ``like`` has; a dash for None."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value if like is None else like)
    places = 3 if size < 10 else 1 if size < 1000 else 0
    # Adding zero takes the sign from what is rounded to it.
    return f"{round(value, places) + 0.0:{'+' if sign else ''},.{places}f}".replace("-", "−")


def _bold(value: Value) -> str:
    text = digits(value.mean)
    return f"**{text}**" if value.best else text


def _dash(value: Any) -> str:
    return "–" if value is None else str(value)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 2) -> str:
    rule = ["---" if i < left else "--:" for i in range(len(head))]
    return "\n".join(
        f"| {' | '.join(_cell(text, inner=i >= left) for i, text in enumerate(row))} |" for row in (head, rule, *lines)
    )


def _cell(text: str, *, inner: bool = False) -> str:
    """``text`` within a table's line, where nothing of it is markup; ``inner`` texts are our own."""
    line = " ".join(str(text).split())
    return line if inner else "".join(f"\\{char}" if char in "\\`*_{}[]<>()#+!|~&" else char for char in line)
