"""Pictures of what sets segments apart, of their figures over versions, and of who moved: PNG bytes."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from erasmo_dagster.method.plot_text import drawn_label, escaped, shortened
from erasmo_dagster.method.plots import COLOURS, DPI, FAINT, INK, NOISE, WIDTH, blank_figure, to_png
from erasmo_dagster.method.quality import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 16  # rows of the heat map
MOST_SEGMENTS = 12  # in one picture; more cannot be read at this width
MOST_PANELS = 8
MOST_IN_A_ROW = 4  # figures over versions
MOST_VALUES = 7  # categories with a colour of their own
MORE, LESS = COLOURS[5], COLOURS[0]  # than in the rest: vermilion and blue, which colour-blind people tell apart
NEW, GONE, OTHERS = "new", "gone", "others"
MISSING, OTHER = "(missing)", "(other)"
FIGURE_NAMES = {
    "separation": "separation",
    "gower_silhouette": "Gower silhouette",
    "tree_accuracy": "tree accuracy",
    "stability": "stability",
    "silhouette": "silhouette",
    "calinski_harabasz": "Calinski-Harabasz",
    "davies_bouldin": "Davies-Bouldin",
    "ari": "ARI by the label",
}
OVER_TIME = tuple(FIGURE_NAMES)
_NUMBER = r"[-+−]?\d[\d.,:eETZ+−-]*( \d\d:\d\d(:\d\d)?)?"  # or a date, or a moment
_BIN = re.compile(f"{_NUMBER}( to {_NUMBER})?")


@dataclass(frozen=True)
class HeatCell:
    """How strongly a column sets a segment apart: ``strength`` -1..1, below 0 where it has less than the rest."""

    segment_id: int
    segment_name: str
    column: str
    label: str
    strength: float
    text: str


def heat_cells(
    traits: Iterable[Mapping[str, Any]], names: Mapping[int, str], labels: Mapping[str, str]
) -> list[HeatCell]:
    """The strongest trait of each column in each segment.

    ``traits`` are rows of ``segment_profile``; ``names`` by segment id, ``labels`` by column. Traits of segments that
    ``names`` lacks are left out.
    """
    best: dict[tuple[int, str], Mapping[str, Any]] = {}
    for trait in traits:
        place = (trait["segment_id"], trait["column_name"])
        if place[0] in names and (place not in best or abs(trait["strength"]) > abs(best[place]["strength"])):
            best[place] = trait
    return [
        HeatCell(segment, names[segment], column, labels.get(column, column), trait["strength"], _cell_text(trait))
        for (segment, column), trait in sorted(best.items())
    ]


def heat_map(cells: Sequence[HeatCell], *, dpi: int = DPI) -> bytes:
    """Columns, the strongest first, by segment; colour is the signed strength, and none where there is no trait.

    At most ``MOST_COLUMNS`` columns and the first ``MOST_SEGMENTS`` segments; a line below tells of the rest.
    """
    strength: Counter[str] = Counter()
    for cell in cells:
        strength[cell.column] = max(strength[cell.column], abs(cell.strength))  # type: ignore[assignment]
    columns = sorted(strength, key=lambda column: (-strength[column], column))
    segments = {cell.segment_id: cell.segment_name for cell in sorted(cells, key=lambda cell: cell.segment_id)}
    drawn = [c for c in cells if c.column in columns[:MOST_COLUMNS] and c.segment_id in list(segments)[:MOST_SEGMENTS]]
    labels = {cell.column: cell.label for cell in cells}
    note = _remark(columns, MOST_COLUMNS, "columns", segments, MOST_SEGMENTS)
    columns, ids = columns[:MOST_COLUMNS], list(segments)[:MOST_SEGMENTS]

    grid = np.full((max(1, len(columns)), max(1, len(ids))), np.nan)
    for cell in drawn:
        grid[columns.index(cell.column), ids.index(cell.segment_id)] = cell.strength
    figure, (axes,) = blank_figure(1.5 + 0.38 * len(columns) + (0.2 if note else 0), dpi=dpi)
    _grid(axes, grid, _diverging(), -1, 1)
    wide = (WIDTH - 1.6) / max(1, len(ids))  # inches a cell
    size = 8.0 if wide > 0.8 else 6.5
    for cell in drawn:
        place = (ids.index(cell.segment_id), columns.index(cell.column))
        _write(axes, *place, cell.text, wide, size, _diverging()((cell.strength + 1) / 2))
    axes.set_yticks(range(len(columns)), [_two_lines(labels[column], 22) for column in columns])
    _names_on_top(axes, [segments[i] if wide > 0.8 else _numbered(i, segments[i]) for i in ids], wide)
    if drawn:
        bar = figure.colorbar(
            axes.images[0], ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02, fraction=0.03
        )
        bar.set_ticks([-1, 0, 1], labels=["less than the rest", "no difference", "more than the rest"])
        bar.ax.tick_params(labelsize=8, length=0, labelcolor=INK)
        bar.outline.set_visible(False)
    else:
        axes.text(0, 0, "no column sets a segment apart", ha="center", va="center", fontsize=9, color=INK)
    _foot(figure, note)
    return to_png(figure)


def distributions(
    values: pl.DataFrame,
    names: Mapping[int, str],
    *,
    columns: Sequence[str],
    labels: Mapping[str, str],
    dpi: int = DPI,
) -> bytes:
    """Per column the shares of its values in each segment, as bars of one length.

    ``values`` has rows of ``segment_values`` (segment_id, column_name, value, value_order, rows). The first
    ``MOST_PANELS`` of ``columns`` are drawn, with the ``MOST_SEGMENTS`` largest of the segments in ``names``. Numbers'
    bins go from light to dark; of categories, the most frequent have a colour and the rest are grey.
    """
    values = values.filter(pl.col("segment_id").is_in(list(names)))
    by_column = values.group_by("segment_id", "column_name").agg(pl.col("rows").sum())
    sizes = dict(by_column.group_by("segment_id").agg(pl.col("rows").max()).iter_rows())
    ids = sorted(sorted(sizes, key=lambda i: (-sizes[i], i))[:MOST_SEGMENTS])
    held = set(values["column_name"])
    wanted = [column for column in columns if column in held]
    note = _remark(wanted, MOST_PANELS, "columns", names, MOST_SEGMENTS)
    shown = wanted[:MOST_PANELS]
    panels_of = [_read_shares(values.filter(pl.col("column_name") == column)) for column in shown]
    across = 1 if len(shown) < 2 else 2
    down = max(1, -(-len(shown) // across))
    few = len(ids) <= 6  # then there is room for names in two lines
    legends = sum(max(shares.lines for shares in panels_of[i : i + across]) for i in range(0, len(shown), across))
    height = down * (0.55 + (0.28 if few else 0.19) * max(1, len(ids))) + 0.17 * legends + (0.2 if note else 0)
    figure, panels = blank_figure(height, across, rows=down, dpi=dpi)
    words = [_two_lines(names[i], 24) if few else drawn_label(_numbered(i, names[i]), 26) for i in ids]
    for number, axes in enumerate(panels):
        if number >= len(shown):
            axes.set_axis_off()
            continue
        _bars(axes, panels_of[number], ids)
        axes.set_title(
            drawn_label(labels.get(shown[number], shown[number]), 40), fontsize=9, color=INK, loc="left", pad=2
        )
        axes.set_yticks(range(len(ids)), words if number % across == 0 else [""] * len(ids))
    if not shown:
        _nothing(panels[0], "no column to show")
    _foot(figure, note)
    return to_png(figure)


def metrics_over_versions(figures: Sequence[tuple[int, Mapping[str, float]]], *, dpi: int = DPI) -> bytes:
    """The figures in ``OVER_TIME`` by publish, oldest first: ``figures`` has a version and its figures by name.

    A version that was published twice (a rollback) has two places. Figures that no version has are left out.
    """
    from matplotlib.ticker import MaxNLocator

    kept = [name for name in OVER_TIME if any(np.isfinite(of.get(name, np.nan)) for _, of in figures)]
    down = -(-len(kept) // MOST_IN_A_ROW) or 1
    figure, panels = blank_figure(2.1 * down, -(-len(kept) // down) or 1, rows=down, dpi=dpi)
    for axes in panels[max(1, len(kept)) :]:
        axes.remove()
    for name, axes in zip(kept, panels, strict=False):
        line = np.array([of.get(name, np.nan) for _, of in figures], dtype=float)
        places = np.arange(len(line))
        axes.plot(places, line, color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
        last = int(np.flatnonzero(np.isfinite(line))[-1])
        axes.plot(last, line[last], "o", color=COLOURS[5], markersize=6)
        falls = last > 0 and line[last] < line[last - 1]  # then there is room below
        axes.annotate(
            f"{line[last]:,.0f}" if abs(line[last]) >= 1000 else f"{line[last]:.3g}",
            (last, line[last]),
            xytext=(0, -14 if falls else 7),
            textcoords="offset points",
            ha="center" if len(line) == 1 else "right",
            fontsize=9,
            color=INK,
        )
        better = "higher" if METRICS[name].higher_is_better else "lower"
        axes.set_title(f"{FIGURE_NAMES[name]}\n{better} is better", fontsize=8, color=INK)
        step = max(1, -(-len(line) // 4))
        ticks = sorted({*range(len(line) - 1, -1, -step)})
        axes.set_xticks(ticks, [f"v{figures[i][0]}" for i in ticks])
        axes.set_xlim(-0.5, len(line) - 0.5)
        axes.margins(y=0.35)
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y", color="#EEEEEE")
        if len(line) == 1:
            axes.set_yticks([])
    if not kept:
        _nothing(panels[0], "no figure was logged")
    return to_png(figure)


def movement(pairs: Sequence[tuple[str, str, int]], *, dpi: int = DPI) -> bytes:
    """Who moved: rows by the segment they were in and the one they are in.

    ``pairs`` has (from, to, rows) by name; ``NEW`` stands for rows that came, ``GONE`` for rows that went. Rows that
    stayed are grey. Beyond ``MOST_SEGMENTS`` the smallest segments are one.
    """
    from matplotlib.patches import Rectangle

    sizes: Counter[str] = Counter()
    for source, target, rows in pairs:
        for name in {source, target} - {NEW, GONE}:
            sizes[name] += rows
    order = list(sizes)
    if len(order) > MOST_SEGMENTS:
        largest = sorted(order, key=lambda name: (-sizes[name], name))[: MOST_SEGMENTS - 1]
        order = [*(name for name in order if name in largest), OTHERS]
    place = {name: (name if name in order else OTHERS) for name in sizes} | {NEW: NEW, GONE: GONE}
    sources = [*order, *([NEW] if any(pair[0] == NEW for pair in pairs) else [])]
    targets = [*order, *([GONE] if any(pair[1] == GONE for pair in pairs) else [])]
    counts = np.zeros((max(1, len(sources)), max(1, len(targets))))
    for source, target, rows in pairs:
        counts[sources.index(place[source]), targets.index(place[target])] += rows
    moved = counts.copy()
    np.fill_diagonal(moved[: len(order), : len(order)], 0)
    strongest, colours = max(1.0, float(moved.max())), _sequential()

    figure, (axes,) = blank_figure(1.2 + 0.36 * len(sources), dpi=dpi)
    _grid(axes, np.where(moved > 0, 0.15 + 0.85 * moved / strongest, np.nan), colours, 0, 1.15)
    wide = (WIDTH - 1.9) / max(1, len(targets))
    for row, column in np.argwhere(counts > 0):
        stayed = moved[row, column] == 0
        if stayed:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#EDEDED", linewidth=0))
        shade = (0.93,) * 3 if stayed else colours((0.15 + 0.85 * moved[row, column] / strongest) / 1.15)
        _write(axes, column, row, f"{int(counts[row, column]):,}", wide, 8.0 if wide > 0.5 else 6.5, shade)
    axes.set_yticks(range(len(sources)), [_two_lines(name, 24) for name in sources])
    axes.set_ylabel("was in", fontsize=9, color=INK)
    _names_on_top(axes, targets, wide)
    axes.set_title("is in", fontsize=9, color=INK)
    if not pairs:
        _nothing(axes, "nothing was published before")
    return to_png(figure)


def _cell_text(trait: Mapping[str, Any]) -> str:
    if trait["kind"] in ("number", "moment"):
        return f"{trait['effect']:+.1f}\u00a0sd".replace("-", "−")
    share = f"{trait['in_segment']:.0%}".replace("%", "\u00a0%")
    what = "missing" if trait["kind"] == "missing" else str(trait["value"])
    return f"{shortened(f'“{what}”' if trait['kind'] == 'term' else what, 28)} {share}"


@dataclass(frozen=True)
class _Shares:
    """One column's counts by value and segment, with the colours and the legend of its panel."""

    counts: Mapping[str, Counter[int]]
    total: Counter[int]
    colours: Mapping[str, Any]  # in the order of the bars
    ramp: Sequence[str]  # bins of numbers, which have one entry together
    entries: Sequence[str]
    across: int  # entries of the legend beside each other

    @property
    def lines(self) -> int:
        """Lines of the legend."""
        return -(-len(self.entries) // self.across)


def _read_shares(values: pl.DataFrame) -> _Shares:
    counts: dict[str, Counter[int]] = {}
    for segment, value, rows in values.sort("value_order", "value").select("segment_id", "value", "rows").iter_rows():
        counts.setdefault(value, Counter())[segment] += rows
    total = sum(counts.values(), Counter())
    plain = [value for value in counts if value not in (MISSING, OTHER)]
    ramp = plain if all(_BIN.fullmatch(value) for value in plain) else []
    colours: dict[str, Any] = {}
    if ramp:
        with suppress(ValueError):  # numbers without bins may come by frequency
            ramp = sorted(ramp, key=float)
        colours |= zip(ramp, _sequential()(np.linspace(0.12, 1, len(ramp)) if len(ramp) > 1 else [0.55]), strict=True)
    else:
        frequent = sorted(plain, key=lambda value: (-sum(counts[value].values()), plain.index(value)))[:MOST_VALUES]
        colours |= {value: COLOURS[place] for place, value in enumerate(v for v in plain if v in frequent)}
        if len(plain) > MOST_VALUES or OTHER in counts:
            rest = [value for value in (*plain, OTHER) if value in counts and value not in colours]
            counts[OTHER] = sum((counts[value] for value in rest), Counter())
    colours |= {value: colour for value, colour in ((OTHER, NOISE), (MISSING, "#E8E8E8")) if value in counts}
    entries = [drawn_label(value, 16).strip("()_") or "?" for value in colours if value not in ramp]
    if ramp:
        low, high = ramp[0].split(" to ")[0], ramp[-1].split(" to ")[-1]
        entries.insert(0, drawn_label(low if low == high else f"{low} to {high}", 32))
    across = max(1, min(len(entries), 48 // (max(map(len, entries), default=1) + 5)))
    return _Shares(counts, total, colours, ramp, entries, across)


def _bars(axes: Axes, shares: _Shares, ids: Sequence[int]) -> None:
    """One column's bars, a segment each, and its legend below."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    left = np.zeros(len(ids))
    for value, colour in shares.colours.items():
        widths = np.array([shares.counts[value][i] / shares.total[i] if shares.total[i] else 0.0 for i in ids])
        axes.barh(range(len(ids)), widths, left=left, color=[colour], height=0.76, edgecolor="white", linewidth=0.5)
        left += widths
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ids) - 0.45, -0.55)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8)
    handles: list[Any] = [Patch(color=colour) for value, colour in shares.colours.items() if value not in shares.ramp]
    if shares.ramp:
        handles.insert(0, tuple(Patch(color=shares.colours[value]) for value in shares.ramp))
    axes.legend(
        handles,
        shares.entries,
        ncols=shares.across,
        loc="upper left",
        bbox_to_anchor=(-0.01, 0.0),
        borderaxespad=0.2,
        frameon=False,
        fontsize=7.5,
        labelcolor=INK,
        handlelength=4.5 if shares.ramp else 0.9,
        handleheight=0.8,
        handletextpad=0.5,
        columnspacing=1.2,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
    )


def _grid(axes: Axes, values: np.ndarray[Any, Any], colours: Any, low: float, high: float) -> None:
    """Coloured cells with white lines between them and no frame."""
    axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    down, across = values.shape
    axes.set_xticks(np.arange(across + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(down + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#E4E4E4", linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, labelsize=8)


def _write(axes: Axes, x: float, y: float, text: str, inches: float, size: float, background: Any) -> None:
    """Text in a cell, in two lines where it is long; white where the cell is dark."""
    room = max(4, int(inches * 72 / (size * 0.58)))
    lines = textwrap.wrap(shortened(text, 200), room, break_long_words=False)
    if len(lines) > 2 or any(len(line) > room for line in lines):
        rest, _, last = text.rpartition(" ")  # the figure, which is to stay
        lines = [shortened(part, room) for part in (rest, last)]
    # Relative luminance; from .245 on, dark ink has the higher contrast (WCAG 2.1, 1.4.3).
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3])
    colour = "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.245 else INK
    axes.text(x, y, escaped("\n".join(lines)), ha="center", va="center", fontsize=size, color=colour, linespacing=1.05)


def _numbered(segment_id: int, name: str) -> str:
    """A name that stays one of its kind when it is cut."""
    return name if segment_id < 0 else f"{segment_id}: {name}"


def _names_on_top(axes: Axes, names: Sequence[str], inches: float) -> None:
    """Names above the columns; upright where the columns are narrow."""
    turned = inches < 0.8
    room = 20 if turned else int(inches * 72 / (8 * 0.58))
    texts = [
        "\n".join(textwrap.wrap(shortened(name, 200), room, max_lines=2 if turned else 4, placeholder=" …"))
        for name in names
    ]
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(names)), [escaped(text) for text in texts], rotation=90 if turned else 0)
    axes.tick_params(axis="x", labelsize=7.5 if turned else 8, pad=4)


def _two_lines(text: str, room: int) -> str:
    return escaped("\n".join(textwrap.wrap(shortened(text, 200), room, max_lines=2, placeholder=" …")))


def _remark(shown: Sequence[str], most: int, what: str, segments: Mapping[int, str], most_segments: int) -> str:
    parts = []
    if len(shown) > most:
        parts.append(f"{most} of {len(shown)} {what}")
    if len(segments) > most_segments:
        parts.append(f"{most_segments} of {len(segments)} segments")
    return " and ".join(parts)


def _foot(figure: Figure, note: str) -> None:
    if note:
        figure.supxlabel(note, fontsize=8, color=FAINT, x=0.99, ha="right")


def _nothing(axes: Axes, text: str) -> None:
    axes.clear()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color=INK, transform=axes.transAxes)


@cache
def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("strength", [LESS, "#FFFFFF", MORE], N=41)


@cache
def _sequential() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blues", ["#E3EEF7", "#6BAED6", "#0072B2", "#08306B"])
