"""What a report tells of, read from the published file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.profile_plots import GONE, NEW

NOISE_ID = -1


@dataclass(frozen=True)
class Trait:
    """A row of ``segment_profile``."""

    column: str
    kind: str
    value: str | None
    in_segment: float
    in_rest: float
    effect: float
    effect_kind: str
    strength: float
    description: str


@dataclass(frozen=True)
class Segment:
    """A segment with all that is said of it; words are empty and traits none where there is no profile.

    ``jaccard`` is how well it is found again on resampled rows; None where that is not known.
    """

    segment_id: int
    name: str
    rows: int
    share: float
    summary: str = ""
    rule: str | None = None
    rule_precision: float | None = None
    rule_coverage: float | None = None
    typical: Mapping[str, str] = field(default_factory=dict)
    central: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    traits: tuple[Trait, ...] = ()
    jaccard: float | None = None


@dataclass(frozen=True)
class Figure:
    """A row of ``segment_metrics``; the value is None where it is not defined."""

    metric: str
    value: float | None
    description: str


@dataclass(frozen=True)
class Publish:
    """A row of ``publish_log``, with how many rows came, went, changed segment and stayed; None where unknown."""

    publish_id: int
    version: int
    run_id: str
    fingerprint: str
    rows: int
    segments: int
    published_at: datetime
    reason: str
    figures: Mapping[str, float]
    came: int | None
    went: int | None
    moved: int | None
    stayed: int | None


@dataclass(frozen=True)
class ReportData:
    """Everything that a report on one dataset tells, oldest publish first.

    ``pairs`` has (from, to, rows) of the last publish by name, as
    :func:`~erasmo_dagster.method.profile_plots.movement` draws them; none at the first publish. ``values`` has rows
    of ``segment_values``; ``labels`` the words for columns.
    """

    dataset: str
    version: int
    rows: int
    segments: tuple[Segment, ...]
    figures: tuple[Figure, ...]
    publishes: tuple[Publish, ...]
    pairs: tuple[tuple[str, str, int], ...]
    values: pl.DataFrame
    labels: Mapping[str, str]


def gather_report(
    con: duckdb.DuckDBPyConnection, dataset: str, *, labels: Mapping[str, str] | None = None
) -> ReportData:
    """Read one dataset from the published file that ``con`` has open.

    ``labels`` are readable words for columns; a column without one is told by its name. Raises ErasmoError where the
    dataset is not published.
    """
    sizes = _rows(con, "segment_sizes", dataset, "segment_id")
    if not sizes:
        raise ErasmoError(
            f"Got dataset {dataset!r}, which is not published", expected="one that is", fix=f"erasmo run {dataset}"
        )
    traits = _traits(con, dataset)
    said = {row["segment_id"]: row for row in _rows(con, "segment_descriptions", dataset, "segment_id")}
    segments = tuple(_segment(row, said.get(row["segment_id"]), traits.get(row["segment_id"], ())) for row in sizes)
    moves = _rows(con, "segment_transitions", dataset, "publish_id, from_segment_id, to_segment_id")
    publishes = tuple(_publish(row, moves) for row in _rows(con, "publish_log", dataset, "publish_id"))
    values = _values(con, dataset)
    columns = {*values["column_name"].to_list(), *(trait.column for segment in segments for trait in segment.traits)}
    return ReportData(
        dataset=dataset,
        version=sizes[0]["version"],
        rows=sum(segment.rows for segment in segments),
        segments=segments,
        figures=tuple(
            Figure(row["metric"], _finite(row["value"]), row["description"])
            for row in _rows(con, "segment_metrics", dataset, "metric")
        ),
        publishes=publishes,
        pairs=_pairs(moves, publishes[-1] if publishes else None, _names(con, dataset, segments)),
        values=values,
        labels={column: (labels or {}).get(column) or column.replace("_", " ") for column in sorted(columns)},
    )


def _rows(con: duckdb.DuckDBPyConnection, table: str, dataset: str, order: str) -> list[dict[str, Any]]:
    """A dataset's rows of a table; none where the file has no such table (one that an earlier release wrote)."""
    if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]).fetchall():
        return []
    found = con.execute(f"SELECT * FROM {table} WHERE dataset = ? ORDER BY {order}", [dataset])  # noqa: S608
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _traits(con: duckdb.DuckDBPyConnection, dataset: str) -> dict[int, tuple[Trait, ...]]:
    traits: dict[int, tuple[Trait, ...]] = {}
    for row in _rows(con, "segment_profile", dataset, "segment_id, trait_rank"):
        trait = Trait(row["column_name"], **{name: row[name] for name in Trait.__annotations__ if name != "column"})
        traits[row["segment_id"]] = (*traits.get(row["segment_id"], ()), trait)
    return traits


def _segment(size: Mapping[str, Any], said: Mapping[str, Any] | None, traits: tuple[Trait, ...]) -> Segment:
    name = size["segment_name"] if (size["segment_name"] or "").strip() else f"segment {size['segment_id']}"
    head = (size["segment_id"], name, size["rows"], size["share"])
    if said is None:
        return Segment(*head, traits=traits)
    return Segment(
        *head,
        summary=said["summary"] or "",
        rule=said["rule"],
        rule_precision=_finite(said["rule_precision"]),
        rule_coverage=_finite(said["rule_coverage"]),
        typical={str(name): "" if value is None else str(value) for name, value in _json(said["typical_row"]).items()},
        central=tuple(said["central_members"] or ()),
        doubtful=tuple(said["doubtful_members"] or ()),
        traits=traits,
    )


def _publish(row: Mapping[str, Any], moves: list[dict[str, Any]]) -> Publish:
    counts: Counter[str] = Counter()
    own = [move for move in moves if move["publish_id"] == row["publish_id"]]
    for move in own:
        source, target = move["from_segment_id"], move["to_segment_id"]
        kind = "came" if source is None else "went" if target is None else "stayed" if source == target else "moved"
        counts[kind] += move["rows"]
    figures = {name: _finite(value) for name, value in _json(row["figures"]).items()}
    told: dict[str, Any] = {kind: counts[kind] if own else None for kind in ("came", "went", "moved", "stayed")}
    told |= {name: row[name] for name in Publish.__annotations__ if name not in (*told, "figures")}
    return Publish(figures={name: value for name, value in figures.items() if value is not None}, **told)


def _names(con: duckdb.DuckDBPyConnection, dataset: str, segments: tuple[Segment, ...]) -> dict[int, str]:
    """A name for each segment there ever was, no two alike; the history has those of segments that are no more."""
    history = _rows(con, "segment_history", dataset, "valid_from")
    names = {row["segment_id"]: row["segment_name"] for row in history if row["segment_name"]}
    names |= {segment.segment_id: segment.name for segment in segments}
    often = Counter([*names.values(), NEW, GONE])
    return {segment: name if often[name] == 1 else f"{name} ({segment})" for segment, name in names.items()}


def _pairs(
    moves: list[dict[str, Any]], last: Publish | None, names: Mapping[int, str]
) -> tuple[tuple[str, str, int], ...]:
    """The last publish's movement by name; none where nothing was published before."""
    own = [move for move in moves if last is not None and move["publish_id"] == last.publish_id]
    if all(move["from_segment_id"] is None for move in own):
        return ()
    told = {None: ""} | {
        move[end]: names.get(move[end], "noise" if move[end] == NOISE_ID else f"segment {move[end]}")
        for move in own
        for end in ("from_segment_id", "to_segment_id")
        if move[end] is not None
    }
    return tuple(
        (told[move["from_segment_id"]] or NEW, told[move["to_segment_id"]] or GONE, move["rows"]) for move in own
    )


def _values(con: duckdb.DuckDBPyConnection, dataset: str) -> pl.DataFrame:
    schema = {
        "segment_id": pl.Int32,
        "column_name": pl.String,
        "value": pl.String,
        "value_order": pl.Int32,
        "rows": pl.Int64,
    }
    rows = _rows(con, "segment_values", dataset, "column_name, segment_id, value_order, value")
    return pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)


def _json(text: str | None) -> dict[str, Any]:
    held = json.loads(text) if text else {}
    return held if isinstance(held, dict) else {}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
