"""Pictures of an experiment: PNG bytes, drawn without any global state of Matplotlib's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.experiments.heat import foot, remark, wrapped
from erasmo_dagster.experiments.means import (
    SECONDS,
    amount_of,
    figure_name,
    higher_is_better,
    kinds_in,
    means,
    plain,
)
from erasmo_dagster.experiments.ranks import ALPHA, Ranking
from erasmo_dagster.method.plot_text import drawn_label
from erasmo_dagster.method.plots import COLOURS, DPI, FAINT, INK, MARKS, blank_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MOST_PANELS = 6  # datasets beside each other
MOST_ARMS = len(COLOURS) * len(MARKS)  # with a colour and mark of their own


def critical_difference(ranking: Ranking, *, dpi: int = DPI) -> bytes:
    """Mean ranks on a line, the best at the left; a bar joins arms that Nemenyi's test cannot tell apart.

    The diagram of Demšar (2006), figure 1, by scikit-posthocs. Where Friedman's test finds no difference, one bar
    joins all. Raises ValueError where there was no test.
    """
    if ranking.p_value is None:
        raise ValueError(f"got a ranking without a test, expected one with: {ranking.remark}")
    import pandas as pd
    import scikit_posthocs

    arms = len(ranking.arms)
    same = ranking.pairwise is None or ranking.p_value >= ALPHA
    pairs = np.ones((arms, arms)) if same else np.array(ranking.pairwise)
    # Numbers stand for the arms: names may be long, or have braces and dollars.
    ranks = pd.Series(ranking.mean_ranks, index=[str(i) for i in range(arms)])
    figure, (axes,) = blank_figure(1.5 + 0.2 * ((arms + 1) // 2), dpi=dpi)
    parts = scikit_posthocs.critical_difference_diagram(
        ranks,
        pd.DataFrame(pairs, index=ranks.index, columns=ranks.index),
        alpha=ALPHA,
        ax=axes,
        label_fmt_left="{label}",
        label_fmt_right="{label}",
        label_props={"fontsize": 8},
        marker_props={"s": 22, "color": COLOURS[0]},
        elbow_props={"linewidth": 1.1, "color": FAINT},
        crossbar_props={"color": INK, "linewidth": 2.5, "solid_capstyle": "round"},
        text_h_margin=0.05 * max(1.0, float(np.ptp(ranking.mean_ranks))),
    )
    for text in parts["labels"]:
        place = int(text.get_text())
        name, rank = drawn_label(ranking.arms[place], 32), f"{ranking.mean_ranks[place]:.2f}"
        text.set_text(f"{name}  {rank} " if text.get_ha() == "right" else f" {rank}  {name}")
        text.set_color(INK)
    axes.spines["top"].set(visible=True, color=FAINT, bounds=(1, arms))
    axes.set_xticks(range(1, arms + 1))
    axes.tick_params(labelsize=8)
    if not same and ranking.critical_difference is not None:
        end = 1 + ranking.critical_difference
        axes.plot([1, end], [1.9, 1.9], color=FAINT, linewidth=2.5, marker="|", markersize=7)
        words = f"  critical difference {ranking.critical_difference:.2f}"
        axes.text(end, 1.9, words, fontsize=8, color=INK, va="center")
    return to_png(figure)


def cost(frame: pl.DataFrame, figure: str, *, dpi: int = DPI) -> bytes:
    """``figure`` against the seconds of training, embedding and clustering: a mark an encoder, a panel a dataset.

    Seconds have a logarithmic axis; below a hundredth they are drawn as that. The grey line is the Pareto front:
    encoders than which no cheaper one is better. Values are means over algorithms, k and seeds.
    """
    points = means(plain(frame), ["dataset", "encoder"], [figure, SECONDS]).drop_nulls([figure, SECONDS])
    figures, styles = _panels(frame, points, 2.3, dpi)
    drawn, panels, note = figures
    sign = -1 if higher_is_better(figure) is False else 1
    for dataset, axes in panels:
        own = points.filter(pl.col("dataset") == dataset)
        own = own.with_columns(pl.col(SECONDS).clip(0.01)).sort(SECONDS, figure, descending=[False, sign > 0])
        front: list[tuple[float, float]] = []
        for encoder, value, seconds in own.select("encoder", figure, SECONDS).iter_rows():
            if not front or sign * value > sign * front[-1][1]:
                front.append((seconds, value))
            if encoder in styles:
                colour, mark = styles[encoder]
                axes.plot(
                    seconds, value, linestyle="", color=colour, marker=mark, markersize=7, markeredgecolor="white"
                )
        if front:
            axes.step(*zip(*front, strict=True), where="post", color="#BBBBBB", linewidth=1.2, zorder=0)
        if not own.is_empty():
            axes.set_xscale("log")
            axes.margins(x=0.12, y=0.12)
            _plain_ticks(axes.xaxis, own[SECONDS].to_numpy())
    _finish(drawn, panels, "seconds (training, embedding, clustering)", figure, styles, note, lines=False)
    return to_png(drawn)


def by_amount(frame: pl.DataFrame, kind: str, figure: str, *, dpi: int = DPI) -> bytes:
    """``figure`` by how much of ``kind`` a variant of the table has: a line an encoder, a panel a dataset.

    ``kind`` is what :func:`~erasmo_dagster.experiments.means.amounts_in` finds, ``figure`` a figure or ``seconds``.
    The plain table is the amount 0, or its own number of rows where rows are what varies. Values are means over
    algorithms, k and seeds.
    """
    bare = pl.col("rows").cast(pl.Float64) if kind == "rows" else pl.lit(0.0)
    changed = [(v, found[1]) for v in kinds_in(frame, "variant") if (found := amount_of(v)) and found[0] == kind]
    rest = [variant for variant in kinds_in(frame, "variant") if amount_of(variant) is None]
    touched = pl.col("variant").is_in([variant for variant, _ in changed])
    kept = frame.filter(touched.any().over("dataset"), touched | pl.col("variant").is_in(rest)).with_columns(
        pl.when(pl.col("variant").is_in(rest))
        .then(bare)
        .otherwise(pl.col("variant").replace_strict(dict(changed), default=None, return_dtype=pl.Float64))
        .alias("amount")
    )
    points = means(kept, ["dataset", "encoder", "amount"], [figure]).drop_nulls([figure, "amount"])
    figures, styles = _panels(frame, points, 2.3, dpi)
    drawn, panels, note = figures
    for dataset, axes in panels:
        for encoder, (colour, mark) in styles.items():
            own = points.filter(pl.col("dataset") == dataset, pl.col("encoder") == encoder).sort("amount")
            axes.plot(own["amount"], own[figure], color=colour, marker=mark, markersize=5, linewidth=1.4)
        here = points.filter(pl.col("dataset") == dataset)
        if figure == SECONDS and not here.is_empty():
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis, here[SECONDS].to_numpy())
        if kind == "rows" and not here.is_empty():
            axes.set_xscale("log")
            _row_ticks(axes, here["amount"].unique().sort().to_list())
        axes.grid(axis="y", color="#EEEEEE")
    _finish(drawn, panels, kind, figure, styles, note, lines=True)
    return to_png(drawn)


_Panels = tuple["Figure", list[tuple[str, "Axes"]], str]


def _panels(
    frame: pl.DataFrame, points: pl.DataFrame, height: float, dpi: int
) -> tuple[_Panels, dict[str, tuple[str, str]]]:
    """A panel for each dataset that has points, and the colour and mark of each encoder that has."""
    every = kinds_in(points, "dataset")
    datasets = every[:MOST_PANELS] or [""]
    with_points = set(points["encoder"])
    encoders = kinds_in(frame, "encoder")
    styles = {
        name: (COLOURS[i % len(COLOURS)], MARKS[i // len(COLOURS)])
        for i, name in enumerate(encoders[:MOST_ARMS])
        if name in with_points
    }
    across = 1 if len(datasets) == 1 else 2
    down = -(-len(datasets) // across)
    legend = 0.19 * -(-len(styles) // 3) + 0.1
    figure, panels = blank_figure(
        (height if across > 1 else height + 0.7) * down + legend + 0.2, across, rows=down, dpi=dpi
    )
    for axes in panels[len(datasets) :]:
        axes.set_axis_off()
    for dataset, axes in zip(datasets, panels, strict=False):
        axes.set_title(drawn_label(dataset, 44), fontsize=9, color=INK, loc="left")
        if points.is_empty():
            axes.set_axis_off()
            middle = axes.text(0.5, 0.5, "no cell to show", fontsize=9, color=INK, transform=axes.transAxes)
            middle.set(ha="center", va="center")
    note = remark((len(every), MOST_PANELS, "dataset"), (len(encoders), MOST_ARMS, "encoder"))
    return (figure, list(zip(datasets, panels, strict=False)), note), styles


def _finish(
    drawn: Figure,
    panels: list[tuple[str, Axes]],
    along: str,
    figure: str,
    styles: Mapping[str, tuple[str, str]],
    note: str,
    *,
    lines: bool,
) -> None:
    """Axis labels at the edges, one legend below all panels, and the note."""
    from matplotlib.lines import Line2D

    better = {True: ", higher is better", False: ", lower is better", None: ""}[higher_is_better(figure)]
    for place, (_, axes) in enumerate(panels):
        if place >= len(panels) - 2:
            axes.set_xlabel(drawn_label(along, 60))
        if place % 2 == 0:
            axes.set_ylabel(f"{figure_name(figure)}{better if figure != SECONDS else ''}")
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=6, linestyle="-" if lines else "", linewidth=1.4)
        for colour, mark in styles.values()
    ]
    if handles:
        drawn.legend(
            handles,
            [wrapped(name, 28) for name in styles],
            loc="outside lower center",
            ncols=min(3, len(handles)),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            columnspacing=1.2,
        )
    foot(drawn, note)


def _plain_ticks(axis: Axis, seconds: npt.NDArray[np.float64]) -> None:
    """At most six ticks on a logarithmic axis, written out rather than as powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = float(seconds.min()), float(seconds.max())
    low, high = (low / 3, high * 3) if high < 4 * low else (low / 1.6, high * 1.6)
    (axis.axes.set_ylim if axis is axis.axes.yaxis else axis.axes.set_xlim)(low, high)
    steps = [10.0**power for power in range(-3, 10) if low <= 10.0**power <= high]
    if len(steps) < 2:
        steps = [m * 10.0**p for p in range(-3, 10) for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    axis.set_major_locator(FixedLocator(steps[:: -(-len(steps) // 6)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def _row_ticks(axes: Axes, amounts: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    kept: list[float] = []
    for amount in amounts[::-1]:  # the largest stays
        if amount > 0 and (not kept or kept[-1] / amount >= 1.6):
            kept.append(amount)
    axes.xaxis.set_major_locator(FixedLocator(kept[::-1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
