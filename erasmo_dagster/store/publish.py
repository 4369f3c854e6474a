"""Publishing: what analysts see moves from one version to another, in one step.

The file is built whole beside the old one from the versions that ``published_versions`` names, and takes its place in
one rename, so that a reader sees the old file or the new one and never a mixture. Whatever fails before the rename
leaves the old file as it was.

The other targets of ``erasmo.yaml`` get copies of the file, by :func:`~erasmo_dagster.store.targets.send` once it is in
place and the warehouse is free again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project, check_name
from erasmo_dagster.store.candidate import publishing, put_in_place, sync
from erasmo_dagster.store.checks import GATE, CheckResult, gate_results, write_check
from erasmo_dagster.store.history import commit_history, prepared_history, unchanged_history
from erasmo_dagster.store.marts import MART_TESTS, MartTestError, build_marts
from erasmo_dagster.store.names import register_segments
from erasmo_dagster.store.published_file import build_file, literals, needed
from erasmo_dagster.store.releases import record, release_of, stamp
from erasmo_dagster.store.sql_models import Build
from erasmo_dagster.store.upkeep import remove_superseded
from erasmo_dagster.store.versions import Publication, publications, published_versions
from erasmo_dagster.store.warehouse import in_transaction, now, one_row, open_warehouse


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
    marts: Build


@dataclass(frozen=True)
class _Move:
    """One change of what is published: ``version`` of ``dataset``, whose rows ``segments_version`` has.

    ``segments_version`` is None where the dataset is hidden; ``seen`` is the version with the newest source known.
    """

    dataset: str
    version: int
    segments_version: int | None
    seen: int
    log: Mapping[str, Any]


def publish(
    project: Project, datasets: Mapping[str, DatasetSettings], dataset: str, version: int, *, run_id: str, reason: str
) -> Published:
    """Publish one version of one dataset that has passed its gate, with every other dataset as it is published.

    ``datasets`` are the settings of those that have a readable YAML; they say which columns stay private. Raises
    ErasmoError when the version is incomplete, has not passed every check of the gate, was compared with another
    version than the one that is published by now, or the disk is full; the published file is then as it was.
    """
    with publishing(project) as (con, candidate):
        _check_gate(con, dataset, version)
        if _is_published(con, dataset, version):
            # A retry of a run that died after its publish, or a changed setting of what is private.
            marts = _rebuild(con, project, datasets, candidate)
            return _published(con, project, dataset, version, marts)
        _check_base(con, dataset, version)
        move = _move(con, dataset, version, seen=version, run_id=run_id, reason=reason)
        try:
            done = _swap(con, project, datasets, move, candidate)
        except MartTestError as failed:
            told = "; ".join(f"{test.name}: {test.message}" for test in failed.failed)
            write_check(con, dataset, version, CheckResult(MART_TESTS, False, True, told, {}))
            raise
        write_check(con, dataset, version, CheckResult(MART_TESTS, True, True, "no test fails because of it", {}))
        return done


def rollback(
    project: Project, datasets: Mapping[str, DatasetSettings], dataset: str, version: int, *, reason: str
) -> Published:
    """Publish a version that was published before.

    The source that is known stays the newest one seen, so that no sensor takes the table that was left for a change.
    Raises ErasmoError where nothing is published, or the version is not kept or was never published.
    """
    check_name(dataset)
    with publishing(project) as (con, candidate):
        published = publications(con).get(dataset)
        if published is None:
            raise ErasmoError(f"Got dataset {dataset!r}, of which nothing is published", fix=f"erasmo run {dataset}")
        known = con.execute(
            "SELECT DISTINCT l.version FROM publish_log l JOIN versions v ON v.dataset = l.dataset"
            " AND v.version = l.version WHERE l.dataset = ? AND l.rows > 0 ORDER BY 1",
            [dataset],
        ).fetchall()
        if (version,) not in known:
            raise ErasmoError(
                f"Got version {version} of {dataset!r}",
                expected=f"one that was published and is still kept: {', '.join(str(v) for (v,) in known)}",
                fix=f"erasmo versions {dataset}",
            )
        move = _move(con, dataset, version, seen=published.seen_version, run_id="", reason=reason)
        return _swap(con, project, datasets, move, candidate, judged=False)


def retire(project: Project, datasets: Mapping[str, DatasetSettings], dataset: str, *, reason: str) -> bool:
    """Hide a dataset from the published file; the warehouse keeps it. False where it is not published."""
    with publishing(project) as (con, candidate):
        published = publications(con).get(dataset)
        if published is None or published.retired:
            return False
        source = needed(con, dataset, published.version, "source_table")
        log = _log_row(con, dataset, published.version, 0, 0, source.details["digest"], "", reason)
        move = _Move(dataset, published.version, None, published.seen_version, log)
        _swap(con, project, datasets, move, candidate, judged=False)
        return True


def mend(project: Project, datasets: Mapping[str, DatasetSettings]) -> bool:
    """Build the published file anew where it is not what the warehouse says is published; whether that was so.

    A publish that is killed between the two leaves the older file, and a file may have been deleted.
    """
    if not project.warehouse.is_file() or _is_current(project):
        return False
    with publishing(project) as (con, candidate):
        if _last_publish(con) == _published_in_file(project.published):
            return False
        _rebuild(con, project, datasets, candidate, lenient=True)
    return True


def publish_anew(project: Project, datasets: Mapping[str, DatasetSettings]) -> None:
    """Build the published file from the warehouse, whatever file is there: belongs after the warehouse was restored.

    Two warehouses that were one may number different publishes alike, so that :func:`mend` sees no difference.
    """
    with publishing(project) as (con, candidate):
        if _last_publish(con) or project.published.exists():
            _rebuild(con, project, datasets, candidate, lenient=True)


def refresh_marts(project: Project, datasets: Mapping[str, DatasetSettings]) -> Build:
    """Build the published file anew from what is published, with the marts as their SQL is now.

    No dataset moves, so a failing test holds up nothing; its result is written down. Raises ErasmoError where a model
    cannot be built: the file is then as it was.
    """
    with publishing(project) as (con, candidate):
        return _rebuild(con, project, datasets, candidate)


def _rebuild(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    datasets: Mapping[str, DatasetSettings],
    candidate: Path,
    *,
    lenient: bool = False,
) -> Build:
    """Build the file of what is published anew; where it is ``lenient``, without marts that cannot be built."""
    with unchanged_history(con):
        build_file(con, project, datasets, published_versions(con), None, candidate)
        marts = build_marts(project, candidate, None, lenient=lenient)
        release = stamp(con, project, candidate)
        sync(candidate)
        with in_transaction(con):
            record(con, release)
        put_in_place(candidate, project.published)
    return marts


def _is_published(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> bool:
    """Whether this version is what is published of the dataset, and no stage of it was made anew since."""
    if published_versions(con).get(dataset) != version:
        return False
    made, published_at = one_row(
        con.execute(
            "SELECT (SELECT max(finished_at) FROM stage_outputs WHERE dataset = ? AND version = ?), published_at"
            " FROM published_versions WHERE dataset = ?",
            [dataset, version, dataset],
        )
    )
    return bool(made <= published_at)


def _published(con: duckdb.DuckDBPyConnection, project: Project, dataset: str, version: int, marts: Build) -> Published:
    rows, segments = one_row(
        con.execute(
            "SELECT rows, segments FROM publish_log WHERE dataset = ? AND version = ? ORDER BY publish_id DESC",
            [dataset, version],
        )
    )
    return Published(
        dataset=dataset,
        version=version,
        rows=rows,
        segments=segments,
        datasets=tuple(published_versions(con)),
        path=project.published,
        removed_versions=tuple(remove_superseded(con, project, dataset)),
        marts=marts,
    )


def _is_current(project: Project) -> bool:
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        return _last_publish(con) == _published_in_file(project.published)


def _last_publish(con: duckdb.DuckDBPyConnection) -> int:
    (last,) = one_row(con.execute("SELECT coalesce(max(publish_id), 0) FROM publish_log"))
    return int(last)


def _published_in_file(path: Path) -> int:
    """Number of the last publish that a published file has; 0 where there is none that can be read.

    One of an earlier version of this package, which had no releases, counts as none.
    """
    if not path.is_file():
        return 0
    try:
        with duckdb.connect(path, read_only=True) as con:
            return _last_publish(con) if release_of(con) is not None else 0
    except duckdb.Error:
        return 0


def _swap(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    datasets: Mapping[str, DatasetSettings],
    move: _Move,
    candidate: Path,
    *,
    judged: bool = True,
) -> Published:
    """Build the file with the move in it and put it in place; a move that is not ``judged`` no mart holds up."""
    dataset, log = move.dataset, move.log
    chosen = published_versions(con)
    if move.segments_version is None:
        chosen.pop(dataset, None)
    else:
        chosen[dataset] = move.version
    with prepared_history(con, dataset, move.version, move.segments_version, log["publish_id"], log["published_at"]):
        build_file(con, project, datasets, chosen, log, candidate)
        marts = build_marts(project, candidate, dataset if judged else None, lenient=not judged)
        release = stamp(con, project, candidate)
        sync(candidate)
        # The versions move first: were the machine to stop here, `mend` would build this same file again.
        with in_transaction(con):
            con.execute(
                "INSERT OR REPLACE INTO published_versions (dataset, version, published_at, seen_version, retired_at)"
                " VALUES (?, ?, ?, ?, ?)",
                [
                    dataset,
                    move.version,
                    log["published_at"],
                    move.seen,
                    log["published_at"] if move.segments_version is None else None,
                ],
            )
            con.execute(f"INSERT INTO publish_log BY NAME SELECT {literals(log)}", list(log.values()))
            record(con, release)
            commit_history(con)
            if move.segments_version is not None:
                profile = needed(con, dataset, move.version, "segment_profile")
                forget = bool(profile.details.get("forgets"))
                register_segments(con, dataset, move.version, profile.version, forget=forget)
        put_in_place(candidate, project.published)
    removed = remove_superseded(con, project, dataset)
    return Published(
        dataset=dataset,
        version=move.version,
        rows=log["rows"],
        segments=log["segments"],
        datasets=tuple(sorted(chosen)),
        path=project.published,
        removed_versions=tuple(removed),
        marts=marts,
    )


def _check_gate(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> None:
    results = gate_results(con, dataset, version)
    # The tests of the marts are run anew by each publish.
    if failed := [r for r in results.values() if r.blocking and not r.passed and r.name != MART_TESTS]:
        raise ErasmoError(
            f"Got version {version} of {dataset!r}, which failed at the gate"
            f" ({'; '.join(f'{result.name}: {result.message}' for result in failed)})",
            expected="every blocking check to pass",
            fix="mend the source or the settings and run again; what was published is as it was",
        )
    if absent := [name for name in GATE if name not in results]:
        raise ErasmoError(
            f"Got version {version} of {dataset!r} without the checks {', '.join(absent)}",
            expected="every check of the gate",
            fix="materialize segments and segment_metrics with their checks, or run the whole dataset",
        )


def _check_base(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> None:
    """Refuse a version whose segments were named and judged by another version than what is published."""
    published: Publication | None = publications(con).get(dataset)
    base = needed(con, dataset, version, "segments").details.get("base")
    current = published.version if published else None
    if base != current and version != current:
        raise ErasmoError(
            f"Got version {version} of {dataset!r}, which was compared with version {base}",
            expected=f"version {current}, which is published by now",
            fix=f"run `erasmo run {dataset}` again, or publish it as it is by `erasmo rollback`",
        )


def _move(con: duckdb.DuckDBPyConnection, dataset: str, version: int, *, seen: int, run_id: str, reason: str) -> _Move:
    source = needed(con, dataset, version, "source_table")
    held = needed(con, dataset, version, "segments").version
    rows, segments = one_row(
        con.execute(
            "SELECT count(*), count(DISTINCT segment_id) FILTER (segment_id >= 0) FROM segments"
            " WHERE dataset = ? AND version = ?",
            [dataset, held],
        )
    )
    if rows != source.details["rows"]:
        raise ErasmoError(
            f"Got {rows} segmented rows in version {version} of {dataset!r}",
            expected=f"{source.details['rows']}, one for each source row",
            fix=f"run `erasmo run {dataset}` again",
        )
    log = _log_row(con, dataset, version, rows, segments, source.details["digest"], run_id, reason)
    return _Move(dataset, version, held, max(seen, version), log)


def _log_row(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    version: int,
    rows: int,
    segments: int,
    digest: str,
    run_id: str,
    reason: str,
) -> dict[str, Any]:
    metrics = needed(con, dataset, version, "segment_metrics").version
    figures = con.execute(
        "SELECT metric, value FROM segment_metrics WHERE dataset = ? AND version = ? ORDER BY metric",
        [dataset, metrics],
    ).fetchall()
    return {
        "publish_id": _last_publish(con) + 1,
        "dataset": dataset,
        "version": version,
        "run_id": run_id,
        "fingerprint": digest,
        "rows": rows,
        "segments": segments,
        "published_at": _moment(con, dataset),
        "reason": reason,
        "figures": json.dumps({metric: value for metric, value in figures if value is not None and isfinite(value)}),
    }


def _moment(con: duckdb.DuckDBPyConnection, dataset: str) -> datetime:
    """Now, but later than the dataset's last publish, whatever the machine's clock said then: stays do not overlap."""
    (last,) = one_row(con.execute("SELECT max(published_at) FROM publish_log WHERE dataset = ?", [dataset]))
    moment: datetime = now(con)
    return moment if last is None or moment > last else last + timedelta(milliseconds=1)
