"""The pictures that assets show: PNG bytes, drawn without any global state of matplotlib's."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.plot_text import drawn_label
from erasmo_dagster.method.quality import centered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from erasmo_dagster.method.clustering import SweepPoint

# Okabe and Ito's colours, which colour-blind people tell apart; beyond seven segments they return with other marks.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKS = ("o", "^", "s", "D", "v", "P")
NOISE, INK, FAINT = "#BBBBBB", "#333333", "#888888"
WIDTH, DPI = 7.0, 100  # 700 pixels
MOST_LISTED = 14  # segments in a legend or with a bar of their own


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


def k_sweep(points: Sequence[SweepPoint], chosen: int, *, dpi: int = DPI) -> bytes:
    """The figures by number of segments, side by side; the chosen number is marked."""
    from matplotlib.ticker import MaxNLocator

    figure, panels = blank_figure(2.6, columns=3, dpi=dpi)
    titles = {
        "silhouette": "silhouette\nhigher is better",
        "calinski_harabasz": "Calinski-Harabasz\nhigher is better",
        "davies_bouldin": "Davies-Bouldin\nlower is better",
    }
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        values = {point.k: getattr(point, name) for point in points}
        axes.plot(list(values), list(values.values()), color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
        if chosen in values:
            axes.axvline(chosen, color="#DDDDDD", linewidth=6, zorder=0)
            axes.plot(chosen, values[chosen], "o", color=COLOURS[5], markersize=8)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlabel("segments")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
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
