"""An experiment's figures as a heat map, and what its other pictures share with it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.experiments.means import bounded, finished, higher_is_better, kinds_in, means
from erasmo_dagster.method.plot_text import escaped, shortened
from erasmo_dagster.method.plots import COLOURS, DPI, FAINT, INK, WIDTH, blank_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_COLUMNS = 12  # at this width
MOST_ROWS = 24


@dataclass(frozen=True)
class Layout:
    """What a heat map has a row of, what a column of, and over what its values are means."""

    rows: str
    columns: tuple[str, ...]
    averaged: tuple[str, ...]


def heat_layout(frame: pl.DataFrame) -> Layout:
    """How a heat map of ``frame`` shows the most: datasets by algorithms, or by encoders, else datasets alone."""
    several = {name: max(1, frame[name].n_unique()) for name in ("dataset", "variant", "encoder", "algorithm", "k")}
    tables = tuple(name for name in ("dataset", "variant") if several[name] > 1) or ("dataset",)
    if int(np.prod([several[name] for name in tables])) > MOST_COLUMNS:
        tables = ("dataset",)
    width = int(np.prod([several[name] for name in tables]))
    rows, columns = "encoder", tables
    if several["algorithm"] > 1:
        if several["encoder"] == 1 or several["algorithm"] * width > MOST_COLUMNS >= several["encoder"] * width:
            rows, columns = "algorithm", (*tables, "encoder") if several["encoder"] > 1 else tables
        elif several["algorithm"] * width <= MOST_COLUMNS:
            columns = (*tables, "algorithm")
    left = tuple(name for name in several if name not in (rows, *columns) and several[name] > 1)
    return Layout(rows, columns, left)


def heat_map(frame: pl.DataFrame, figure: str, *, dpi: int = DPI) -> bytes:
    """Means of ``figure`` as :func:`heat_layout` lays them out, with their values; the darker, the better.

    A figure with a scale of its own has one colour scale, from the 5th to the 95th percentile of what is shown; any
    other one a scale a dataset, from the worst to the best, since its values say nothing across tables. A cross stands
    where all cells failed, a dash where there are none or the figure is not defined.
    """
    layout = heat_layout(frame)
    rows = kinds_in(frame, layout.rows)
    order = {name: kinds_in(frame, name) for name in layout.columns}
    columns: list[tuple[str, ...]] = sorted(
        frame.select(layout.columns).unique().iter_rows(),
        key=lambda column: [order[name].index(part) for name, part in zip(layout.columns, column, strict=True)],
    )
    note = remark((len(rows), MOST_ROWS, layout.rows), (len(columns), MOST_COLUMNS, "column"))
    rows, columns = rows[:MOST_ROWS], columns[:MOST_COLUMNS]
    places = [layout.rows, *layout.columns]
    averaged = means(frame, places, [figure]).select(*places, figure)
    found = {(row, tuple(column)): value for row, *column, value in averaged.iter_rows() if value is not None}
    ran = {(row, tuple(column)) for row, *column in frame.select(places).iter_rows()}
    ended = {(row, tuple(column)) for row, *column in finished(frame).select(places).iter_rows()}
    grid = np.array([[found.get((row, column), np.nan) for column in columns] for row in rows], dtype=np.float64)
    shades = _shades(grid, [column[0] for column in columns], figure)

    nested = len(layout.columns) > 1
    cells = (WIDTH - 1.9) / max(1, len(columns))
    lines = {row: wrapped(row, 24) for row in rows}
    tall = max(0.26, 0.15 * max((text.count("\n") + 1 for text in lines.values()), default=1) + 0.06)
    heads = [wrapped(str(column[-1]), 16) for column in columns]
    upright = cells < 1.0
    head = 0.85 * max((max(map(len, text.split("\n"))) for text in heads), default=1) * 0.075 + 0.25 if upright else 0.5
    drawn, (axes,) = blank_figure(
        head + tall * len(rows) + (0.35 if nested else 0) + 0.5 + (0.2 if note else 0), dpi=dpi
    )
    # A few columns are not drawn as wide as the page.
    drawn.set_layout_engine("constrained", rect=(0, 0, min(1.0, (1.9 + 1.3 * len(columns)) / WIDTH), 1))
    axes.imshow(np.ma.masked_invalid(shades), cmap=_scale(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    size = 8.0 if cells > 0.5 else 7.0
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            value, dark = grid[i, j], shades[i, j] > 0.5
            place = (row, column)
            text = _value(value) if np.isfinite(value) else "×" if place in ran and place not in ended else "–"
            colour = FAINT if not np.isfinite(value) else "white" if dark else INK
            axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    for edge in range(1, len(columns)):
        apart = columns[edge][0] != columns[edge - 1][0]
        axes.axvline(edge - 0.5, color="white", linewidth=5 if apart and nested else 1)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color="white", linewidth=1)
    axes.set_yticks(range(len(rows)), list(lines.values()))
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), heads)
    for label in axes.get_xticklabels():
        label.set(rotation=50 if upright else 0, ha="left" if upright else "center", va="bottom", fontsize=8)
        label.set_rotation_mode("anchor" if upright else "default")
    axes.tick_params(length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if nested:
        _groups(axes, columns, cells, len(rows))
    _scale_bar(drawn, axes, grid, figure)
    foot(drawn, note)
    return to_png(drawn)


def _shades(grid: npt.NDArray[np.float64], groups: Sequence[Any], figure: str) -> npt.NDArray[np.float64]:
    """How good each value is, 0 to 1 on its own colour scale; NaN where there is none."""
    shades = np.full(grid.shape, np.nan)
    names = np.array([0] * len(groups) if bounded(figure) else [groups.index(group) for group in groups])
    for name in set(names.tolist()):
        own = grid[:, names == name]
        values = own[np.isfinite(own)]
        if values.size == 0:
            continue
        low, high = np.percentile(values, [5, 95]) if bounded(figure) else (values.min(), values.max())
        scaled = np.clip((own - low) / (high - low), 0, 1) if high > low else np.where(np.isfinite(own), 0.5, np.nan)
        shades[:, names == name] = 1 - scaled if higher_is_better(figure) is False else scaled
    return shades


def _scale_bar(drawn: Figure, axes: Axes, grid: npt.NDArray[np.float64], figure: str) -> None:
    """What the colours stand for."""
    values = grid[np.isfinite(grid)]
    if values.size == 0 or values.max() == values.min():
        return
    bar = drawn.colorbar(axes.images[0], ax=axes, location="bottom", shrink=0.4, aspect=30, pad=0.03, fraction=0.03)
    if bounded(figure):
        low, high = np.percentile(values, [5, 95])
        words = [f"{_value(low)} and less", f"{_value(high)} and more"]
    else:
        words = ["worst of the dataset", "best of the dataset"]
    bar.set_ticks([0, 1], labels=words)
    bar.ax.tick_params(labelsize=8, length=0, labelcolor=INK)
    bar.outline.set_visible(False)


def _groups(axes: Axes, columns: Sequence[tuple[Any, ...]], cells: float, rows: int) -> None:
    """The names of what columns belong to, below them."""
    starts = [i for i in range(len(columns)) if i == 0 or columns[i][:-1] != columns[i - 1][:-1]]
    for start, end in zip(starts, [*starts[1:], len(columns)], strict=True):
        name = " · ".join(str(part) for part in columns[start][:-1])
        room = max(4, int((end - start) * cells / 0.075))
        axes.text(
            (start + end - 1) / 2,
            rows - 0.42,
            wrapped(name, room),
            ha="center",
            va="top",
            fontsize=8,
            color=INK,
            linespacing=1.0,
        )


@cache
def _scale() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("better", ["#F1F5F8", "#8FBEDD", COLOURS[0], "#00405F"], N=16)
    return colours.with_extremes(bad="#FAFAFA")


def _value(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e5 else f"{value:.1e}".replace("e+0", "e")
    text = f"{round(value, 2) + 0.0:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return text.replace("-", "−")


def wrapped(text: str, width: int) -> str:
    """``text`` in at most two lines of ``width`` characters."""
    lines = textwrap.wrap(shortened(text, 2 * width), width)
    if len(lines) > 2:
        lines = [lines[0], shortened(" ".join(lines[1:]), width)]
    return escaped("\n".join(lines))


def remark(*parts: tuple[int, int, str]) -> str:
    """What is not shown of each kind: how many there are, how many are drawn at most, and their word."""
    left = [f"{most} of {number} {word}s" for number, most, word in parts if number > most]
    return f"Shown: the first {', '.join(left)}." if left else ""


def foot(drawn: Figure, note: str) -> None:
    """Write ``note`` below a picture, if there is one."""
    if note:
        drawn.text(0.01, 0.0, note, fontsize=8, color=FAINT, va="bottom")
