"""An experiment as one HTML file that needs nothing else: no script, no network, no server."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments import plots
from erasmo_dagster.experiments.heat import heat_layout, heat_map
from erasmo_dagster.experiments.machine import machine
from erasmo_dagster.experiments.means import (
    JUDGES,
    KNOWN,
    SECONDS,
    WITHIN_ONE_SPACE,
    amount_of,
    amounts_in,
    figure_name,
    figures_in,
    higher_is_better,
    kinds_in,
    plain,
)
from erasmo_dagster.experiments.ranks import Ranking, rank_arms
from erasmo_dagster.experiments.tables import (
    MAIN,
    TOLERANCE,
    compared,
    costs,
    digits,
    failures,
    leaderboards,
    markdown_tables,
)
from erasmo_dagster.report.make import write_page
from erasmo_dagster.report.render import Picture, environment, picture

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["make_report", "markdown_tables", "write_report"]

DPI = 200  # 1400 pixels: sharp on paper and on dense screens
MOST_OPEN = 8  # leaderboards; where there are more, those of changed tables are folded
MOST_FAILURES = 100
_WORDS = {"variant": "variants of the table", "k": "numbers of segments"}  # else an s at the end


@dataclass(frozen=True)
class Shown:
    """A picture with what is written below it."""

    picture: Picture
    caption: str


@dataclass(frozen=True)
class RankTable:
    """A ranking with its diagram, None where there was no test."""

    of: str
    ranking: Ranking
    diagram: Shown | None


def write_report(
    frame: pl.DataFrame,
    *,
    name: str,
    description: str,
    out: Path,
    published: pl.DataFrame | None = None,
    notes: str = "",
    command: str | None = None,
) -> Path:
    """Write the report on an experiment to ``out``, which appears whole or not at all; the path.

    See :func:`make_report`. Raises ErasmoError where there is no cell, or ``out`` cannot be written.
    """
    page = make_report(frame, name=name, description=description, published=published, notes=notes, command=command)
    return write_page(page, out)


def make_report(
    frame: pl.DataFrame,
    *,
    name: str,
    description: str,
    published: pl.DataFrame | None = None,
    notes: str = "",
    command: str | None = None,
) -> str:
    """The report on an experiment as HTML, with the machine that makes it.

    ``frame`` has a row a cell: experiment, cell, dataset, variant, encoder, algorithm, k, seed, status ("done" or
    another), error, rows, dimensions, segments, train_seconds, embed_seconds, cluster_seconds, train_tokens,
    embed_tokens, and a column of floats a figure. ``published`` has figures that a paper prints (dataset, encoder,
    algorithm, figure, value), shown beside ours with ``notes``, paragraphs of text; only whole tables compare with
    them. ``command`` makes it all again. All texts are escaped. Raises ErasmoError where there is no cell.
    """
    if frame.is_empty():
        raise ErasmoError(f"Got no cell of experiment {name!r}", fix=f"erasmo experiment run {shlex.quote(name)}")
    figures = figures_in(frame)
    tables = leaderboards(frame)
    failed = failures(frame)
    return _template().render(
        name=name,
        description=_paragraphs(description),
        notes=_paragraphs(notes),
        command=command or f"erasmo experiment run {shlex.quote(name)}",
        done=int((frame["status"] == "done").sum()),
        cells=len(frame),
        made_of=[
            (_WORDS.get(column, f"{column}s"), kinds_in(frame, column))
            for column in ("dataset", "variant", "encoder", "algorithm", "k", "seed")
        ],
        machine=machine(),
        tables=tables,
        grouped=_grouped,
        folded={t.variant for t in tables if amount_of(t.variant)} if len(tables) > MOST_OPEN else set(),
        heat_maps=_heat_maps(frame, figures),
        ranks=_rank_tables(frame, figures),
        costs=costs(plain(frame)),
        changed=plain(frame).height < frame.height,
        trade=_trade(frame, figures),
        amounts=_amounts(frame, figures),
        failed=failed[:MOST_FAILURES],
        more_failed=sum(line["cells"] for line in failed[MOST_FAILURES:]),
        compared=compared(frame, published) if published is not None else [],
        tolerance=TOLERANCE,
        reading=[(figure, KNOWN[figure].description if figure in KNOWN else "") for figure in figures],
        within=WITHIN_ONE_SPACE,
    )


def _grouped(figures: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The figures of a leaderboard, the main ones without a title and the others folded under one."""
    main = [name for name in MAIN if name in figures]
    paper = [name for name in figures if name.startswith("paper_")]
    others = [name for name in figures if name not in (*main, *paper)]
    groups = [("", main), ("more figures", others), ("as the first paper's code takes them", paper)]
    return [(title, names) for title, names in groups if names]


def _judges(figures: Sequence[str]) -> list[str]:
    """The figures to compare encoders by; the silhouette only where there is nothing better."""
    return [name for name in JUDGES if name in figures] or [name for name in ("silhouette",) if name in figures]


def _heat_maps(frame: pl.DataFrame, figures: Sequence[str]) -> list[Shown]:
    cells = plain(frame)
    layout = heat_layout(cells)
    over = f", means over {_listed([*layout.averaged, 'seed'])}"
    shown = []
    for figure in (name for name in ("ari", "gower_silhouette", "silhouette") if name in figures):
        caption = f"{_title(figure)} by {layout.rows} and {_listed(layout.columns)}{over}. The darker, the better."
        if figure in WITHIN_ONE_SPACE:
            caption += " Values of two encoders do not compare; this is what papers print."
        if cells.height < frame.height:
            caption += " Tables as they are, without the changed ones."
        caption += " A cross: all cells failed; a dash: there was none, or the figure is not defined."
        shown.append(Shown(picture(heat_map(cells, figure, dpi=DPI), caption), caption))
    return shown


def _rank_tables(frame: pl.DataFrame, figures: Sequence[str]) -> list[RankTable]:
    found = []
    for figure in _judges(figures):
        for arm, rest in (("encoder", "algorithm"), ("algorithm", "encoder")):
            if frame[arm].n_unique() < 2:
                continue
            # An algorithm that finds the number of segments stands beside those that are given one.
            number = [] if arm == "algorithm" and frame["k"].has_nulls() else ["k"]
            ranking = rank_arms(frame, figure, arm=[arm], blocks=["dataset", "variant", rest, *number])
            diagram = None
            if ranking.p_value is not None:
                caption = (
                    f"Mean ranks of {arm}s by {figure_name(figure)}, the best at the left. A bar joins those that the "
                    "test cannot tell apart."
                )
                diagram = Shown(picture(plots.critical_difference(ranking, dpi=DPI), caption), caption)
            found.append(RankTable(f"{arm}s", ranking, diagram))
    return found


def _trade(frame: pl.DataFrame, figures: Sequence[str]) -> Shown | None:
    """The best judge's figure against seconds."""
    if not (judges := _judges(figures)):
        return None
    caption = (
        f"{_title(judges[0])} against seconds (logarithmic). Grey: the front of encoders than which no cheaper one is "
        "better. Means over algorithms, numbers of segments and seeds."
    )
    return Shown(picture(plots.cost(frame, judges[0], dpi=DPI), caption), caption)


def _amounts(frame: pl.DataFrame, figures: Sequence[str]) -> list[Shown]:
    shown = []
    for kind in amounts_in(frame):
        for figure in [*_judges(figures)[:1], SECONDS]:
            caption = f"{_title(figure)} by {kind}: means over algorithms, numbers of segments and seeds."
            shown.append(Shown(picture(plots.by_amount(frame, kind, figure, dpi=DPI), caption), caption))
    return shown


def _title(figure: str) -> str:
    name = figure_name(figure)
    return name[:1].upper() + name[1:]


def _listed(names: Sequence[str]) -> str:
    words = [f"{name}s" if name == "seed" else name for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _duration(seconds: float | None) -> str:
    """Seconds as people read them; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 100 else f"{hours:.1f} h"


def _direction(figure: str) -> str:
    return {True: "higher", False: "lower", None: ""}[higher_is_better(figure)]


@cache
def _template() -> Template:
    made = environment("erasmo_dagster.experiments", "erasmo_dagster.report")
    made.filters |= {
        "digits": digits,
        "spread": lambda value, mean: digits(value, like=mean),
        "difference": lambda value: digits(value, sign=True),
        "duration": _duration,
        "figure": figure_name,
        "direction": _direction,
    }
    return made.get_template("report.html")
