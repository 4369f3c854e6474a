"""The published file: what analysts open.

It is built whole beside the old one from the versions that ``published_versions`` names, and takes its place in one
rename, so that a reader sees the old file or the new one and never a mixture. Whatever fails before the rename leaves
the old file as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store.artifacts import delete_version_files, snapshot_path
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.versions import StageOutput, published_versions, stage_output, superseded_versions
from erasmo_dagster.store.warehouse import delete_version, now, one_row, open_warehouse

# The columns that publish adds to a source's own.
WIDE_COLUMNS = ("entity_key", "segment_id", "segment_name", "confidence", "version", "assigned_at")

_TABLES = {
    "segments": """
        SELECT dataset, entity_key, segment_id, segment_name, confidence, version, assigned_at FROM chosen_segments""",
    "segment_sizes": """
        SELECT *, rows / sum(rows) OVER (PARTITION BY dataset) AS share
        FROM (SELECT dataset, version, segment_id, segment_name, count(*) AS rows FROM chosen_segments GROUP BY ALL)""",
    "segment_metrics": """
        SELECT m.* REPLACE (c.version AS version) FROM main.segment_metrics m
        JOIN chosen_versions c ON m.dataset = c.dataset AND m.version = c.metrics_version""",
    "publish_log": "SELECT * FROM main.publish_log UNION ALL BY NAME SELECT * FROM new_log",
}

_COMMENTS = {
    "segments": "One row per entity of each dataset: the segment it is in now.",
    "segments.dataset": "Name of the dataset.",
    "segments.entity_key": "The entity's key as text; a JSON array where the key has several columns.",
    "segments.segment_id": "Number of the segment within its dataset; -1 is noise, a row that is in no segment.",
    "segments.segment_name": "Readable name of the segment.",
    "segments.confidence": "(d2 - d1) / d2 over the distances to the nearest two segment centres, 0 to 1. It says how "
    "clearly a row is in its segment; it is not a probability.",
    "segments.version": "Version of the dataset that this row was published with.",
    "segments.assigned_at": "When the row was assigned, UTC.",
    "segment_sizes": "One row per segment: how many rows it has.",
    "segment_sizes.rows": "Rows in the segment; they sum to the dataset's rows.",
    "segment_sizes.share": "Share of the dataset's rows, 0 to 1.",
    "segment_metrics": "One row per dataset and figure: how good the segmentation is.",
    "segment_metrics.metric": "Name of the figure.",
    "segment_metrics.value": "Its value.",
    "segment_metrics.description": "How to read it.",
    "publish_log": "One row per publish: what was published when, by which run, from which state of the source.",
    "publish_log.fingerprint": "Short hash of the source's columns and rows.",
}


class Published(BaseModel):
    """What a publish did."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    version: int
    rows: int
    segments: int
    datasets: tuple[str, ...]
    path: Path
    removed_versions: tuple[int, ...]


def publish(
    project: Project, datasets: Mapping[str, DatasetSettings], dataset: str, version: int, *, run_id: str, reason: str
) -> Published:
    """Publish one version of one dataset, with every other dataset at its published version.

    ``datasets`` are the settings of those that have a readable YAML; they say which columns stay private. Raises
    ErasmoError when the version is incomplete or the disk is full; the published file is then as it was.
    """
    target = project.published
    target.parent.mkdir(parents=True, exist_ok=True)
    candidate = target.with_name(target.name + ".tmp")
    with (
        open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout, transaction=False) as con,
        _candidate_file(candidate),
    ):
        chosen = {**published_versions(con), dataset: version}
        log = _log_row(con, dataset, version, run_id, reason)
        _build(con, project, datasets, chosen, log, candidate)
        _sync(candidate)
        # The versions move first: were the machine to stop here, the next publish would build this same file again.
        con.begin()
        con.execute(
            "INSERT OR REPLACE INTO published_versions VALUES (?, ?, ?)", [dataset, version, log["published_at"]]
        )
        con.execute(f"INSERT INTO publish_log BY NAME SELECT {_literals(log)}", list(log.values()))
        con.commit()
        candidate.replace(target)
        _sync(target.parent)
        removed = _remove_superseded(con, project, dataset)
    return Published(
        dataset=dataset,
        version=version,
        rows=log["rows"],
        segments=log["segments"],
        datasets=tuple(sorted(chosen)),
        path=target,
        removed_versions=tuple(removed),
    )


def _log_row(con: duckdb.DuckDBPyConnection, dataset: str, version: int, run_id: str, reason: str) -> dict[str, Any]:
    source = _needed(con, dataset, version, "source_table")
    rows, segments = one_row(
        con.execute(
            "SELECT count(*), count(DISTINCT segment_id) FROM segments WHERE dataset = ? AND version = ?",
            [dataset, _needed(con, dataset, version, "segments").version],
        )
    )
    if rows != source.details["rows"]:
        raise ErasmoError(
            f"Got {rows} segmented rows in version {version} of {dataset!r}",
            expected=f"{source.details['rows']}, one for each source row",
            fix=f"run `erasmo run {dataset}` again",
        )
    (last,) = one_row(con.execute("SELECT coalesce(max(publish_id), 0) FROM publish_log"))
    return {
        "publish_id": last + 1,
        "dataset": dataset,
        "version": version,
        "run_id": run_id,
        "fingerprint": source.details["digest"],
        "rows": rows,
        "segments": segments,
        "published_at": now(con),
        "reason": reason,
    }


def _needed(con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str) -> StageOutput:
    output = stage_output(con, dataset, version, stage)
    if output is None:
        raise ErasmoError(
            f"Got version {version} of {dataset!r} without {stage}", fix=f"run `erasmo run {dataset}` again"
        )
    return output


def _literals(log: Mapping[str, Any]) -> str:
    return ", ".join(f"? AS {name}" for name in log)


def _build(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    datasets: Mapping[str, DatasetSettings],
    chosen: Mapping[str, int],
    log: Mapping[str, Any],
    candidate: Path,
) -> None:
    con.execute(
        "CREATE TEMP TABLE chosen_versions"
        " (dataset VARCHAR, version INTEGER, segments_version INTEGER, metrics_version INTEGER)"
    )
    for name, version in chosen.items():
        held = [_needed(con, name, version, stage).version for stage in ("segments", "segment_metrics")]
        con.execute("INSERT INTO chosen_versions VALUES (?, ?, ?, ?)", [name, version, *held])
    con.execute(
        "CREATE TEMP VIEW chosen_segments AS SELECT s.* REPLACE (c.version AS version) FROM main.segments s"
        " JOIN chosen_versions c ON s.dataset = c.dataset AND s.version = c.segments_version"
    )
    con.execute(f"CREATE TEMP TABLE new_log AS SELECT {_literals(log)}", list(log.values()))
    con.execute(f"ATTACH {literal(candidate)} AS published")
    try:
        for table, query in _TABLES.items():
            con.execute(f"CREATE TABLE published.{table} AS SELECT * FROM ({query}) ORDER BY ALL")
        for name, version in chosen.items():
            _wide_table(con, project, name, version, datasets.get(name))
        for name, comment in _COMMENTS.items():
            table, _, column = name.partition(".")
            what = f"COLUMN published.{table}.{column}" if column else f"TABLE published.{table}"
            con.execute(f"COMMENT ON {what} IS {literal(comment)}")
        con.execute("CHECKPOINT published")
    finally:
        con.execute("DETACH published")
        con.execute("DROP TABLE new_log; DROP VIEW chosen_segments; DROP TABLE chosen_versions")


def _wide_table(
    con: duckdb.DuckDBPyConnection, project: Project, dataset: str, version: int, settings: DatasetSettings | None
) -> None:
    """``<dataset>_segmented``: the source's own columns beside the segment."""
    source = _needed(con, dataset, version, "source_table")
    private = set(source.details["sensitive"])
    if settings is not None:
        private = set() if settings.publish.sensitive else private | set(settings.sensitive)
    columns = [name for name in source.details["columns"] if name not in private]
    own = ", ".join(f"t.{quote(name)} AS {quote(alias)}" for name, alias in _aliases(columns).items())
    added = ", ".join(f"s.{name}" for name in WIDE_COLUMNS)
    table = f"published.{quote(dataset + '_segmented')}"
    con.execute(
        f"CREATE TABLE {table} AS SELECT {', '.join(filter(None, [own, added]))}"
        f" FROM read_parquet(?) t JOIN chosen_segments s ON s.entity_key = t.{quote(ENTITY_KEY)}"
        " WHERE s.dataset = ? ORDER BY s.entity_key",
        [str(snapshot_path(project, dataset, source.version)), dataset],
    )
    grain = f"One row per entity of {dataset}: its own columns beside its segment."
    con.execute(f"COMMENT ON TABLE {table} IS {literal(grain)}")
    con.execute(f"COMMENT ON COLUMN {table}.confidence IS {literal(_COMMENTS['segments.confidence'])}")


def _aliases(columns: list[str]) -> dict[str, str]:
    """Source column -> its name in the wide table, where the segment's columns keep theirs."""
    taken = {name.casefold() for name in (*columns, *WIDE_COLUMNS)}
    aliases = {}
    for name in columns:
        alias = name
        if name.casefold() in WIDE_COLUMNS:
            alias = f"source_{name}"
            while alias.casefold() in taken:
                alias = f"source_{alias}"
            taken.add(alias.casefold())
        aliases[name] = alias
    return aliases


@contextmanager
def _candidate_file(candidate: Path) -> Iterator[None]:
    """Remove what a killed publish left, and whatever is left when this one ends."""
    _remove(candidate)
    try:
        yield
    finally:
        _remove(candidate)


def _remove(candidate: Path) -> None:
    candidate.unlink(missing_ok=True)
    candidate.with_name(candidate.name + ".wal").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_superseded(con: duckdb.DuckDBPyConnection, project: Project, dataset: str) -> list[int]:
    removed = superseded_versions(con, dataset, project.settings.keep_versions)
    for version in removed:
        con.begin()
        delete_version(con, dataset, version)
        con.commit()
        delete_version_files(project, dataset, version)
    return removed
