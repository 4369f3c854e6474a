"""The report as HTML: one file, with its pictures inside."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from erasmo_dagster.method.plots import segment_colour
from erasmo_dagster.method.profile_plots import (
    FIGURE_NAMES,
    LESS,
    MORE,
    MOST_PANELS,
    MOST_SEGMENTS,
    OVER_TIME,
    distributions,
    heat_cells,
    heat_map,
    metrics_over_versions,
    movement,
)
from erasmo_dagster.method.quality import METRICS, read_jaccard, read_metrics, read_stability
from erasmo_dagster.report.gather import Figure, ReportData, Trait

if TYPE_CHECKING:
    from jinja2 import Environment, Template

DPI = 200  # 1400 pixels: sharp on paper and on dense screens
MOST_TRAITS = 8
MOST_TYPICAL = 16
MOST_PUBLISHES = 30
# Marks that turn the direction of the text around them; the page isolates each text instead.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with the words for those who cannot see it."""

    uri: str
    alt: str


def render_report(data: ReportData, projection_png: bytes | None, provenance: Mapping[str, str]) -> str:
    """The report on one dataset as one HTML text.

    ``projection_png`` is the picture of the rows that :func:`~erasmo_dagster.method.plots.projection` draws, None
    where there is none; ``provenance`` is shown as it is, a name and a text a line. The same input gives the same
    text: nothing of the clock, the machine or the network goes in. All texts from data are escaped, and characters
    that do something to a reader's screen are shown as their codes.
    """
    last = data.publishes[-1] if data.publishes else None
    known = {figure.metric: figure.value for figure in data.figures if figure.value is not None}
    number_of = len(data.segments)
    return _template().render(
        data=data,
        last=last,
        segments=data.segments,
        largest=max(segment.share for segment in data.segments) or 1.0,
        pictures=_pictures(data, projection_png),
        figures=_figures(data),
        readings=[reading for reading in (read_metrics(known), read_stability(known)) if reading],
        publishes=data.publishes[::-1][:MOST_PUBLISHES],
        earlier=max(0, len(data.publishes) - MOST_PUBLISHES),
        drawn=f" The {MOST_SEGMENTS} largest of {number_of} segments." if number_of > MOST_SEGMENTS else "",
        stable=any(segment.jaccard is not None for segment in data.segments),
        provenance=provenance,
        colour=segment_colour,
        more=MORE,
        less=LESS,
        most_traits=MOST_TRAITS,
        most_typical=MOST_TYPICAL,
    )


def _pictures(data: ReportData, projection_png: bytes | None) -> dict[str, Picture | None]:
    """The pictures by name, None where there is nothing to draw."""
    by_size = sorted(data.segments, key=lambda segment: (-segment.rows, segment.segment_id))
    names = {segment.segment_id: segment.name for segment in by_size[:MOST_SEGMENTS]}
    number = len(data.segments)
    some = f"the {len(names)} largest segments" if len(names) < number else "the segments"
    pictures: dict[str, Picture | None] = dict.fromkeys(
        ("projection", "heat_map", "distributions", "over_versions", "movement")
    )
    if projection_png is not None:
        pictures["projection"] = picture(
            projection_png, "Each row as a dot on the first two principal components, coloured by segment."
        )
    cells = heat_cells(_trait_rows(data), names, data.labels)
    if cells:
        best = max(cells, key=lambda cell: abs(cell.strength))
        pictures["heat_map"] = picture(
            heat_map(cells, dpi=DPI),
            f"How strongly columns set {some} apart. Strongest: {best.label} in “{best.segment_name}”, {best.text}.",
        )
    columns = _columns(data)
    if columns:
        shown = ", ".join(data.labels[column] for column in columns)
        pictures["distributions"] = picture(
            distributions(data.values, names, columns=columns, labels=data.labels, dpi=DPI),
            f"Shares of the values within {some}, for: {shown}.",
        )
    logged = [(publish.version, publish.figures) for publish in data.publishes]
    if any(name in figures for _, figures in logged for name in OVER_TIME):
        pictures["over_versions"] = picture(
            metrics_over_versions(logged[-MOST_PUBLISHES:], dpi=DPI),
            f"The figures by publish, {len(logged)} in all; the table above has the last ones.",
        )
    if data.pairs:
        last = data.publishes[-1]
        pictures["movement"] = picture(
            movement(data.pairs, dpi=DPI),
            f"Rows by the segment that they were in and are in: {last.stayed} stayed, {last.moved} changed segment, "
            f"{last.came} are new, {last.went} went.",
        )
    return pictures


def picture(png: bytes, alt: str) -> Picture:
    """The picture with the words for those who cannot see it."""
    return Picture(f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", alt)


def _trait_rows(data: ReportData) -> list[dict[str, Any]]:
    return [
        {**vars(trait), "segment_id": segment.segment_id, "column_name": trait.column}
        for segment in data.segments
        for trait in segment.traits
    ]


def _columns(data: ReportData) -> list[str]:
    """Columns to show the values of: those that set segments apart the most, then the others by name."""
    strength: dict[str, float] = {}
    for segment in data.segments:
        for trait in segment.traits:
            strength[trait.column] = max(strength.get(trait.column, 0.0), abs(trait.strength))
    columns = data.values["column_name"].unique().to_list()
    return sorted(columns, key=lambda column: (-strength.get(column, 0.0), column))[:MOST_PANELS]


def _figures(data: ReportData) -> list[Figure]:
    """The figures in the order in which the method lists them, others last."""
    order = list(METRICS)
    return sorted(
        data.figures,
        key=lambda figure: (order.index(figure.metric) if figure.metric in order else len(order), figure.metric),
    )


def _words(trait: Trait, labels: Mapping[str, str]) -> str:
    """The trait without its figures."""
    label, value = shortened(labels.get(trait.column, trait.column), 60), shortened(trait.value or "", 60)
    match trait.kind:
        case "category":
            return f"{label} is {value}"
        case "term":
            return f"{label} mentions “{value}”"
        case "missing":
            return f"{label} is missing"
        case _:
            return label


def _effect(trait: Trait) -> str:
    """The effect in the short form of its kind."""
    if trait.effect_kind == "lift":
        return f"{trait.effect:.1f} ×" if trait.effect < 100 else f"{trait.effect:,.0f} ×"
    return f"{trait.effect:+.1f} sd".replace("-", "−")


def _measured(trait: Trait, value: float) -> str:
    """A mean or a share; a moment's mean is a date."""
    if trait.kind == "number":
        return number(value)
    if trait.kind == "moment":
        return _date(value)
    return percent(value)


def _date(seconds: float) -> str:
    from datetime import UTC, datetime, timedelta

    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%d}"
    except OverflowError:
        return number(seconds)


def number(value: float | None) -> str:
    """A figure with four significant digits, whole ones with separators; a dash for None."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def _figure_value(figure: Figure) -> str:
    """Three digits behind the point for ratios; counts and large figures as they are."""
    value = figure.value
    if value is None or figure.metric in ("segments", "rows") or figure.metric.endswith("_rows") or abs(value) >= 10:
        return number(value)
    return f"{value:.3f}".replace("-", "−")


def _figure_name(figure: Figure) -> str:
    return FIGURE_NAMES.get(figure.metric) or figure.metric.replace("_", " ")


def percent(share: float | None) -> str:
    """A share as a percentage, with a digit behind the point below one percent; a dash for None."""
    if share is None:
        return "–"
    digits = 1 if 0 < share < 0.0095 or 0.995 <= share < 1 else 0
    return f"{share:.{digits}%}".replace("%", "\u00a0%")


def shortened(text: str, most: int) -> str:
    """``text`` with at most ``most`` characters, in one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def legible(value: Any) -> Any:
    """A text without characters that do something to the reader's screen: those are shown as their codes.

    Joiners stay, since scripts and emoji need them.
    """
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(char if _harmless(char) else char.encode("unicode_escape").decode("ascii") for char in value)


def _harmless(char: str) -> bool:
    return char in "\n\u00a0\u200c\u200d" or (
        char not in _TURNING and unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")
    )


def environment(*packages: str) -> Environment:
    """Templates of ``packages`` whose texts are all escaped and legible; a name that is not given is an error."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=legible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "percent": percent, "shortened": shortened}
    return made


@cache
def _template() -> Template:
    made = environment("erasmo_dagster.report")
    made.filters["effect"] = _effect
    made.globals |= {
        "measured": _measured,
        "words": _words,
        "figure_value": _figure_value,
        "figure_name": _figure_name,
        "read_jaccard": read_jaccard,
    }
    return made.get_template("template.html")
