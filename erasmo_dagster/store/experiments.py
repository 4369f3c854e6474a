"""The cells of experiments in the warehouse, and what analysts see of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import duckdb
import polars as pl

from erasmo_dagster.settings.refresh import Figure
from erasmo_dagster.store.sql import literal
from erasmo_dagster.store.warehouse import now

# The figures that have a column in the published file; a cell may hold more.
FIGURES: tuple[str, ...] = get_args(Figure)
_PLACE = ("experiment", "dataset", "variant", "encoder", "algorithm", "k", "seed")
_COSTS = ("train_seconds", "embed_seconds", "cluster_seconds", "train_tokens", "embed_tokens")


@dataclass(frozen=True)
class CellResult:
    """How one cell of a grid came out.

    The costs are those of the whole steps that it rests on: cells that share an encoder's training or an embedding
    each have all of its seconds and tokens, as they would have alone. None where nothing was done or counted.
    """

    experiment: str
    cell: str
    dataset: str
    variant: str
    encoder: str
    algorithm: str
    k: int | None
    seed: int
    options: Mapping[str, Any]
    status: str  # done or failed
    error: str | None = None
    rows: int | None = None
    dimensions: int | None = None
    segments: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    train_seconds: float | None = None
    embed_seconds: float | None = None
    cluster_seconds: float | None = None
    train_tokens: int | None = None
    embed_tokens: int | None = None


def write_cell(con: duckdb.DuckDBPyConnection, result: CellResult) -> None:
    """Write a cell down, in place of what it was before."""
    row = asdict(result) | {"finished_at": now(con)}
    row |= {name: json.dumps(row[name], sort_keys=True) for name in ("options", "figures")}
    names = ", ".join(row)
    con.execute(
        f"INSERT OR REPLACE INTO experiments ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )


def finished_cells(con: duckdb.DuckDBPyConnection, experiment: str) -> set[str]:
    """The cells that are done; failed ones are tried again."""
    rows = con.execute("SELECT cell FROM experiments WHERE experiment = ? AND status = 'done'", [experiment]).fetchall()
    return {cell for (cell,) in rows}


def forget_cells(
    con: duckdb.DuckDBPyConnection, experiment: str, keep: Collection[str], waiting: Collection[str] = ()
) -> int:
    """Delete an experiment's cells other than ``keep``, which its file no longer asks for; their number.

    Those of the encoders ``waiting`` stay: what they need is not there today.
    """
    gone = con.execute(
        "DELETE FROM experiments WHERE experiment = ? AND NOT list_contains(?::VARCHAR[], cell)"
        " AND NOT list_contains(?::VARCHAR[], encoder) RETURNING cell",
        [experiment, list(keep), list(waiting)],
    ).fetchall()
    return len(gone)


def forget_replaced(con: duckdb.DuckDBPyConnection, experiment: str, by: Collection[str]) -> int:
    """Delete the cells in whose place those of ``by`` are: alike in all names, k and seed; their number."""
    alike = " AND ".join(f"old.{name} IS NOT DISTINCT FROM new.{name}" for name in _PLACE)
    gone = con.execute(
        "DELETE FROM experiments AS old WHERE experiment = ? AND NOT list_contains(?::VARCHAR[], cell) AND EXISTS"
        f" (FROM experiments AS new WHERE list_contains(?::VARCHAR[], new.cell) AND {alike}) RETURNING cell",
        [experiment, list(by), list(by)],
    ).fetchall()
    return len(gone)


def experiment_counts(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """One row an experiment: experiment, done, failed, finished_at."""
    return _frame(
        con,
        "SELECT experiment, count(*) FILTER (status = 'done') AS done, count(*) FILTER (status = 'failed') AS failed,"
        " max(finished_at) AS finished_at FROM experiments GROUP BY 1 ORDER BY 1",
        [],
    )


def read_cells(con: duckdb.DuckDBPyConnection, experiment: str) -> pl.DataFrame:
    """An experiment's cells in the order in which they were finished, every figure in a Float64 column of its own."""
    frame = _frame(con, "SELECT * FROM experiments WHERE experiment = ? ORDER BY finished_at, cell", [experiment])
    figures = [json.loads(text) for text in frame["figures"].cast(pl.String).to_list()]
    names = dict.fromkeys((*FIGURES, *(name for cell in figures for name in cell)))
    columns = [pl.Series(name, [cell.get(name) for cell in figures], dtype=pl.Float64) for name in names]
    # `rows` and `segments` are columns already, which count noise too.
    return frame.drop("figures").with_columns(column for column in columns if column.name not in frame.columns)


def _frame(con: duckdb.DuckDBPyConnection, query: str, params: list[Any]) -> pl.DataFrame:
    frame = pl.from_arrow(con.sql(query, params=params).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def published_cells() -> str:
    """The query of the published table ``experiments``."""
    figures = ", ".join(f"TRY_CAST(figures ->> {literal(name)} AS DOUBLE) AS {name}" for name in FIGURES)
    return f"SELECT * EXCLUDE (figures, finished_at), {figures}, finished_at FROM main.experiments"


def leaderboard() -> str:
    """The query of the published view ``leaderboard``, over the published table ``experiments``."""
    means = ", ".join(f"avg({name}) AS {name}" for name in FIGURES)
    costs = ", ".join(f"avg({name}) AS {name}" for name in _COSTS)
    ranks = ", ".join(
        f"CASE WHEN {name} IS NOT NULL THEN rank() OVER (PARTITION BY experiment, dataset, variant"
        f" ORDER BY {name} DESC NULLS LAST) END AS rank_by_{name}"
        for name in RANKED
    )
    return (
        f"SELECT *, {ranks} FROM (SELECT experiment, dataset, variant, encoder, algorithm, k,"
        " count(*) FILTER (status = 'done') AS cells, count(*) FILTER (status = 'failed') AS failed,"
        f" max(rows) AS rows, max(dimensions) AS dimensions, avg(segments) AS segments, {means}, {costs}"
        " FROM experiments GROUP BY experiment, dataset, variant, encoder, algorithm, k)"
    )


RANKED = ("gower_silhouette", "silhouette", "ari")
COMMENTS = {
    "experiments": "One row per cell of an experiment: dataset, variant of it, encoder, algorithm, k, seed.",
    "experiments.experiment": "Name of the experiment; whole runs end in -full.",
    "experiments.cell": "Hash of all that the cell depends on.",
    "experiments.variant": "What was changed in the table.",
    "experiments.encoder": "Name of the arm: what turned rows into vectors.",
    "experiments.algorithm": "What turned vectors into segments.",
    "experiments.k": "Segments asked for; null where the algorithm chose them.",
    "experiments.options": "Settings of the cell, JSON.",
    "experiments.status": "done or failed.",
    "experiments.error": "Why a cell failed.",
    "experiments.rows": "Rows of the table.",
    "experiments.dimensions": "Dimensions of the vectors.",
    "experiments.segments": "Segments found; noise is none.",
    "experiments.train_seconds": "Seconds of fitting the encoder, whole, whoever shares it; null where none is fitted.",
    "experiments.embed_seconds": "Seconds of embedding all rows, whole, whoever shares it.",
    "experiments.cluster_seconds": "Seconds of clustering.",
    "experiments.train_tokens": "Tokens read in training.",
    "experiments.embed_tokens": "Tokens read in embedding; null where an interrupted embedding lost count.",
    "experiments.silhouette": "-1 to 1, among the encoder's own vectors; compare within one encoder and dataset.",
    "experiments.gower_silhouette": "-1 to 1, among the table's own columns; compares across encoders.",
    "experiments.ari": "Agreement with the label beyond chance; null without a label.",
    "leaderboard": "One row per experiment, dataset, variant, encoder, algorithm and k: means over seeds, and ranks.",
    "leaderboard.cells": "Cells that are done; the means are over these.",
    "leaderboard.failed": "Cells that failed.",
    "leaderboard.rank_by_gower_silhouette": "1 for the best of its experiment, dataset and variant.",
    "leaderboard.rank_by_silhouette": "The same by a figure that does not compare across encoders.",
    "leaderboard.rank_by_ari": "The same by agreement with the label; null without one.",
}
