"""The pictures that assets show: PNG bytes, drawn without any global state of matplotlib's."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.clustering import ENOUGH
from erasmo_dagster.method.plot_text import drawn_label, escaped
from erasmo_dagster.method.quality import centered
from erasmo_dagster.method.tables.mixture import LEAST_SHARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from erasmo_dagster.method.candidates import Candidate
    from erasmo_dagster.method.clustering import SweepPoint

# Okabe and Ito's colours, which colour-blind people tell apart; beyond seven segments they return with other marks.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKS = ("o", "^", "s", "D", "v", "P")
NOISE, INK, FAINT = "#BBBBBB", "#333333", "#888888"
WIDTH, DPI = 7.0, 100  # 700 pixels
MOST_LISTED = 14  # segments in a legend or with a bar of their own
_LETTER = 0.0145  # of the width beside the candidates' names
_FIGURES = {
    "silhouette": ("silhouette", "higher is better"),
    "calinski_harabasz": ("Calinski-Harabasz", "higher is better"),
    "davies_bouldin": ("Davies-Bouldin", "lower is better"),
}


class LossLike(Protocol):
    """What is drawn of a point of a loss curve."""

    @property
    def tokens(self) -> int:
        """Training tokens so far."""

    @property
    def train_loss(self) -> float | None:
        """Loss on the training rows since the last point."""

    @property
    def eval_loss(self) -> float | None:
        """Loss on the held-out rows."""


def loss_curve(points: Sequence[LossLike], *, dpi: int = DPI) -> bytes:
    """Losses by training tokens; the lowest on held-out rows is ringed. Losses that are None are left out."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = blank_figure(3.4, dpi=dpi)
    train = [(p.tokens, p.train_loss) for p in points if p.train_loss is not None]
    held_out = [(p.tokens, p.eval_loss) for p in points if p.eval_loss is not None]
    for name, line, colour, mark in (("training", train, COLOURS[4], "."), ("held-out", held_out, COLOURS[0], "o")):
        if line:
            tokens, losses = zip(*line, strict=True)
            label = f"{name} rows, last {losses[-1]:.3g}"
            axes.plot(tokens, losses, color=colour, marker=mark, markersize=4, linewidth=1.5, label=label)
    if held_out:
        best, lowest = min(held_out, key=lambda point: point[1])
        axes.plot(best, lowest, "o", ms=11, mfc="none", mec=COLOURS[5], mew=1.5, label=f"lowest, {lowest:.3g}")
    if train or held_out:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(_thousands)
    axes.set_xlabel("training tokens")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(axis="y", color="#EEEEEE")
    return to_png(figure)


def project_2d(vectors: npt.NDArray[np.floating], seed: int) -> npt.NDArray[np.float64]:
    """The first two principal components float64[n, 2] of ``vectors`` float[n, d]; 0 where there are fewer."""
    return _components(vectors, seed)[0]


def projection(
    vectors: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    *,
    seed: int,
    max_rows: int = 5000,
    names: Mapping[int, str] | None = None,
    dpi: int = DPI,
) -> bytes:
    """Rows on their first two principal components, coloured by segment; beyond ``max_rows`` a seeded sample.

    The legend has the segments' ``names``, else their numbers.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:max_rows])
    labels = labels[rows]
    places, shares = _components(vectors[rows], seed)
    figure, (axes,) = blank_figure(4.6, dpi=dpi)
    size = float(np.interp(len(rows), [300, 5000], [26, 9]))
    for segment in np.unique(labels):  # the largest first, so that small ones lie on top
        own = places[labels == segment]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            color=segment_colour(segment),
            marker=_mark(segment),
            linewidths=0.4,
            edgecolors="white",
            label=_name(segment) if names is None else drawn_label(names.get(int(segment), _name(segment)), 32),
        )
    _legend(axes, len(np.unique(labels)))
    axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second ({shares[1]:.0%})")
    axes.set_xticks([])
    axes.set_yticks([])
    return to_png(figure)


def segment_sizes(counts: Mapping[int, int], *, dpi: int = DPI) -> bytes:
    """A bar a segment, with its rows and their share; what is beyond the first segments is one bar."""
    total = sum(counts.values())
    bars = [(_name(segment), counts[segment], segment_colour(segment)) for segment in sorted(counts)]
    if len(bars) > MOST_LISTED:
        rest = bars[MOST_LISTED - 1 :]
        bars = [*bars[: MOST_LISTED - 1], (f"{len(rest)} more", sum(bar[1] for bar in rest), NOISE)]
    names, rows, colours = zip(*bars, strict=True)
    figure, (axes,) = blank_figure(0.5 + 0.3 * len(bars), dpi=dpi)
    drawn = axes.barh(range(len(bars)), rows, color=colours, height=0.72)
    axes.bar_label(drawn, [f"{n:,} ({n / total:.1%})" for n in rows], padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.set_xlim(0, 1.18 * max(rows))  # room for the longest bar's text
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return to_png(figure)


def k_sweep(
    points: Sequence[SweepPoint],
    chosen: int,
    *,
    rows: int | None = None,
    choose_by: str | None = None,
    reason: str = "",
    dpi: int = DPI,
) -> bytes:
    """The figures by number of segments; the chosen number is marked, and the figure by which it was, ``choose_by``.

    Where there are bits saved, they come first, with a line at what is enough of them. Of ``rows`` rows, numbers of
    segments that leave one too small are hollow. ``reason`` stands below.
    """
    from matplotlib.ticker import MaxNLocator

    measured = [point for point in points if point.bits_saved is not None]
    lines = fill(escaped(reason), 96)
    height = 2.6 + 2.3 * bool(measured) + 0.17 * (lines.count("\n") + 1) * bool(lines)
    figure, panels = _sweep_panels(height, bits=bool(measured), dpi=dpi)
    for axes, (name, (title, better)) in zip(panels[-3:], _FIGURES.items(), strict=True):
        decides = ", which decides" if name == choose_by else ""
        axes.set_title(f"{title}{decides}\n{better}", fontsize=9, color=INK)
        _line_by_k(axes, {point.k: getattr(point, name) for point in points}, chosen)
    if measured:
        _bits_by_k(panels[0], measured, chosen, rows, decides=choose_by == "bits_saved")
    for axes in panels:
        axes.set_xlabel("segments")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if lines:
        figure.supxlabel(lines, fontsize=9, color=INK, x=0.01, ha="left", linespacing=1.3)
    return to_png(figure)


def _sweep_panels(height: float, *, bits: bool, dpi: int) -> tuple[Figure, Sequence[Axes]]:
    """Three panels side by side, and where there are ``bits`` one above, as wide as all."""
    if not bits:
        return blank_figure(height, columns=3, dpi=dpi)
    figure, first = blank_figure(height, columns=3, rows=2, dpi=dpi)
    for axes in first[1:3]:
        axes.remove()
    grid = first[0].get_gridspec()
    assert grid is not None
    first[0].set_subplotspec(grid[0, :])
    return figure, [first[0], *first[3:]]


def _line_by_k(axes: Axes, values: Mapping[int, float], chosen: int) -> None:
    axes.plot(list(values), list(values.values()), color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
    if chosen in values:
        axes.axvline(chosen, color="#DDDDDD", linewidth=6, zorder=0)
        axes.plot(chosen, values[chosen], "o", color=COLOURS[5], markersize=8)


def _bits_by_k(axes: Axes, points: Sequence[SweepPoint], chosen: int, rows: int | None, *, decides: bool) -> None:
    """Bits saved by number of segments; what has too small a segment is hollow, and counts for no line."""
    values = {point.k: float(point.bits_saved or 0.0) for point in points}
    least = 0 if rows is None else max(2, round(LEAST_SHARE * rows))
    small = [point.k for point in points if point.smallest < least]
    most = max(value for k, value in values.items() if k not in small or len(small) == len(values))
    _line_by_k(axes, values, chosen)
    if small:
        told = f"smallest segment below {LEAST_SHARE:.0%} of the rows"
        axes.plot(small, [values[k] for k in small], "o", ms=5, mfc="white", mec=COLOURS[0], ls="none", label=told)
    if decides and most > 0:
        told = f"enough: {ENOUGH:.0%} of the most, {most:.2g}"
        axes.axhline(ENOUGH * most, color=FAINT, linewidth=1, linestyle="--", zorder=0, label=told)
    if chosen in values:
        axes.plot([], [], "o", color=COLOURS[5], markersize=7, label=f"chosen: {chosen}")
    axes.legend(fontsize=9, labelcolor=INK, framealpha=0.8, edgecolor="none")
    title = "bits saved a row, which decide" if decides else "bits saved a row"
    axes.set_title(f"{title}\nhigher is better", fontsize=9, color=INK)


def leaderboard(candidates: Sequence[Candidate], chosen: str, *, dpi: int = DPI) -> bytes:
    """A bar for each candidate's bits saved, in their order; ``chosen`` is coloured, what may not win is hatched."""
    bits = [0.0 if candidate.bits_saved is None else candidate.bits_saved for candidate in candidates]
    figure, (axes,) = blank_figure(0.75 + 0.34 * len(bits), dpi=dpi)
    drawn = axes.barh(range(len(bits)), bits, height=0.66)
    start = 1.05 * min(0.0, *bits)
    width = max(1.05 * max(0.0, *bits) - start, 1e-9)
    for at, (bar, candidate) in enumerate(zip(drawn, candidates, strict=True)):
        bar.set_facecolor(COLOURS[5] if candidate.name == chosen else COLOURS[4])
        told = [] if candidate.bits_saved is None else [f"{candidate.bits_saved:.2f}"]
        told += ["chosen"] if candidate.name == chosen else []
        if candidate.refused:
            bar.set(facecolor="white", edgecolor=NOISE, hatch="////")
            told.append(drawn_label(candidate.refused, 44 if candidate.bits_saved is None else 36))
        said, end = ", ".join(told), max(0.0, bits[at])
        axes.annotate(said, (end, at), (4, 0), textcoords="offset points", va="center", fontsize=9, color=INK).set(
            in_layout=False
        )
        width = max(width, (end - start) / (0.97 - _LETTER * len(said)))  # room for the text beside every bar
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(bits)), [drawn_label(candidate.name, 40) for candidate in candidates])
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.set_xlim(start, start + width)
    axes.set_xlabel("bits saved a row: higher is better")
    axes.tick_params(axis="y", length=0)
    return to_png(figure)


def _components(
    vectors: npt.NDArray[np.floating], seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Places float64[n, 2] on the first two principal components, and each one's share of the variance."""
    from sklearn.decomposition import PCA

    points = centered(vectors)
    places, shares = np.zeros((len(points), 2)), np.zeros(2)
    if points.any():
        number = min(2, *points.shape)
        pca = PCA(number, random_state=seed)
        places[:, :number] = pca.fit_transform(points)
        shares[:number] = pca.explained_variance_ratio_
    return places, shares


def _name(segment: int) -> str:
    return "noise" if segment < 0 else f"segment {segment}"


def segment_colour(segment: int) -> str:
    """The colour of a segment in every picture; noise is grey."""
    return NOISE if segment < 0 else COLOURS[segment % len(COLOURS)]


def _mark(segment: int) -> str:
    return "X" if segment < 0 else MARKS[segment // len(COLOURS) % len(MARKS)]


def _legend(axes: Axes, segments: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    title = f"the first {MOST_LISTED} of {segments}" if segments > MOST_LISTED else None
    axes.legend(
        handles[:MOST_LISTED],
        names[:MOST_LISTED],
        title=title,
        title_fontsize=9,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handletextpad=0.2,
        markerscale=1.4,
    )


def _thousands(value: float, _: Any) -> str:
    return f"{value:,.0f}"


def blank_figure(height: float, columns: int = 1, *, rows: int = 1, dpi: int = DPI) -> tuple[Figure, Sequence[Axes]]:
    """A figure 7 inches wide and ``height`` inches high, with ``rows`` times ``columns`` panels, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=dpi, layout="constrained", facecolor="white")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(labelsize=9, color=FAINT, labelcolor=INK)
        axes.xaxis.label.set(fontsize=9, color=INK)
        axes.yaxis.label.set(fontsize=9, color=INK)
    return figure, panels


def to_png(figure: Figure) -> bytes:
    """The figure in at most 128 colours: thousands of soft-edged dots in true colour weigh four times as much."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    png = io.BytesIO()
    picture.quantize(128, dither=Image.Dither.NONE).save(png, "png", optimize=True)
    return png.getvalue()
