"""A source's present state, seen as cheaply as can be: files' sizes and times first, rows only where these differ.

Size and time never say that a source has changed, only that its rows need not be hashed again: what decides is the
fingerprint. The rule for files written again within the granularity of their time is git's ("racy" files). A table in
PostgreSQL is told by its row versions, which the server sums up.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store.paths import did_you_mean, listed, locate
from erasmo_dagster.store.postgres_source import seen_in_postgres
from erasmo_dagster.store.readers import highest
from erasmo_dagster.store.sources import (
    Fingerprint,
    fingerprint_of,
    is_unchanged,
    open_reading,
    read_faults,
    schema_changes,
    workplace,
)
from erasmo_dagster.store.sql import quote
from erasmo_dagster.store.tables import Table

__all__ = ["Sighting", "fingerprint_of", "is_unchanged", "look", "schema_changes"]

_GRANULE = 2.0  # seconds: the coarsest file time in use, FAT's
_SECOND = 1_000_000_000  # nanoseconds
# What is committed may lie there alone. SQLite's -shm holds no data.
_COMPANIONS = {"duckdb": (".wal",), "sqlite": ("-wal", "-journal")}

File = tuple[str, int, int]


class Sighting(BaseModel):
    """A source as it was at one moment; it goes through JSON unchanged.

    ``hashed_at`` is 0 where a file changed while it was read: the next look then reads it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[File, ...] = Field(
        description="Digest of the path, bytes and mtime (ns) of each file, companions too; of a table on a server, "
        "digest and rows of each partition, and 0."
    )
    probe: str | None = Field(None, description="Number of rows and highest `refresh.updated_at`, where it is set.")
    fingerprint: Fingerprint
    hashed_at: float = Field(description="Epoch seconds when hashing the rows began; 0: hash again.")
    probed_at: float = Field(0.0, description="Epoch seconds when `probe` was last found as it was.")
    read_as: str = Field("", description="Digest of the settings that say how the rows are read.")


def look(
    name: str, settings: DatasetSettings, project: Project, last: Sighting | None, *, now: float | None = None
) -> Sighting:
    """The present state of the source of dataset ``name``; ``last`` itself where its files say that nothing changed.

    The rows are hashed where ``last`` is absent, older than ``refresh.verify``, or comes from other settings or another
    DuckDB; and where a file differs, or was written less than 2 s before the last hashing (or after). In the latter
    two cases ``refresh.updated_at`` spares it: with as many rows and the same highest value, the fingerprint stays.
    That costs one aggregate over PostgreSQL, DuckDB, SQLite and Parquet files; CSV, JSON lines and a query are read for
    it, so that only the hashing is spared. Of a source in parts, only those are read that are not as the last snapshot
    has them; but for ``refresh.verify``, all are.

    ``now`` is in epoch seconds. Raises ErasmoError for what ``snapshot_source`` refuses, and for a
    ``refresh.updated_at`` that the source lacks.
    """
    now = time.time() if now is None else now
    read_as = _read_as(settings)
    verify = settings.refresh.verify.total_seconds()
    # A clock set back would put verifying off by as much, so times ahead count as due.
    if last is not None and not (
        last.read_as == read_as and last.fingerprint.is_current and 0 <= now - last.hashed_at < verify
    ):
        last = None
    on_disk = _files(name, settings, project)  # before they are read: the next look sees what changes meanwhile
    on_server = _tables(name, settings, project)
    files = tuple(sorted({*on_disk, *(on_server or ())}))
    settled = last is not None and _settled(files, max(last.hashed_at, last.probed_at))
    if last is not None and on_server is not None and files == last.files and settled:
        return last
    probe, fingerprint = _read(name, settings, project, last)
    if fingerprint is None:
        assert last is not None
        return last.model_copy(update={"files": files, "probed_at": now})
    steady = on_disk == _files(name, settings, project)
    return Sighting(
        files=files, probe=probe, fingerprint=fingerprint, hashed_at=now if steady else 0.0, read_as=read_as
    )


def _read_as(settings: DatasetSettings) -> str:
    content = [settings.source.model_dump(mode="json"), settings.key, settings.refresh.updated_at]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _files(name: str, settings: DatasetSettings, project: Project) -> tuple[File, ...]:
    found: set[File] = set()
    with read_faults(settings, f"datasets/{name}.yaml"):
        for table in settings.source.by_name().values():
            location = locate(table, project)
            found |= {_stat(file) for file in location.files}
            for ending in _COMPANIONS.get(location.format, ()):
                found |= _stat_companion(location.file.with_name(location.file.name + ending))
    return tuple(sorted(found))


def _tables(name: str, settings: DatasetSettings, project: Project) -> tuple[File, ...] | None:
    """Tables on servers, as they are; None where that takes asking for ``refresh.updated_at``, or reading the rows."""
    found: set[File] = set()
    with read_faults(settings, f"datasets/{name}.yaml"):
        for table in settings.source.by_name().values():
            location = locate(table, project)
            if location.format == "postgresql":
                if settings.refresh.updated_at is not None and settings.source.query is None:
                    return None
                if (seen := seen_in_postgres(location, table)) is None:
                    return None
                found |= {(digest, rows, 0) for digest, rows in seen}
    return tuple(found)


def _stat(file: Path) -> File:
    stat = file.stat()
    # A sighting is kept where people look, and a path may hold a secret from the environment.
    return (hashlib.sha256(str(file).encode()).hexdigest()[:16], stat.st_size, stat.st_mtime_ns)


def _stat_companion(file: Path) -> set[File]:
    try:
        seen = _stat(file)
    except FileNotFoundError:
        return set()
    # An empty one holds no commit, and SQLite's is left by a mere reader, such as ourselves.
    return {seen} if seen[1] else set()


def _settled(files: tuple[File, ...], read_at: float) -> bool:
    """Whether every file was last written so long before it was read that a later write shows in its time."""
    return all(mtime < (read_at - _GRANULE) * _SECOND for _, _, mtime in files)


def _read(
    name: str, settings: DatasetSettings, project: Project, last: Sighting | None
) -> tuple[str | None, Fingerprint | None]:
    """The source's probe and fingerprint; no fingerprint where the probe is that of ``last``.

    The probe comes first: where the rows change between the two, it is the probe that is out of date, and the next
    look, whose files differ or are racy, hashes again.
    """
    probe, known = _probe_in_place(name, settings, project), last.probe if last else None
    if probe is not None and probe == known:
        return probe, None
    parent = project.artifacts / name
    with open_reading(name, settings, project, parent, in_parts=True, take=last is not None) as reading:
        if settings.refresh.updated_at is not None and probe is None:
            probe = _probe(reading.table, settings, reading.where)
            if probe == known:
                return probe, None
        return probe, reading.write()[0]


def _probe_in_place(name: str, settings: DatasetSettings, project: Project) -> str | None:
    """The probe of a table in a database file; None where it takes reading the source, or none is set."""
    column, where = settings.refresh.updated_at, f"datasets/{name}.yaml"
    if column is None or settings.source.query is not None:
        return None
    with read_faults(settings, where), workplace(project.artifacts / name) as folder:
        found = highest(
            settings.source.by_name()["source"],
            project,
            folder,
            column,
            lambda columns, shown: _check_column(column, columns, shown, where),
        )
    return None if found is None else _as_text(*found, column in settings.sensitive)


def _probe(table: Table, settings: DatasetSettings, where: str) -> str:
    """The probe of an opened source. Of Parquet files, which are not copied, this reads one column."""
    column = settings.refresh.updated_at
    assert column is not None
    _check_column(column, list(table.columns), table.shown, where)
    aggregate = f"SELECT count(*), CAST(max({quote(column)}) AS VARCHAR) FROM ({table.select})"
    rows, value = table.con.execute(aggregate).fetchone() or (0, None)
    return _as_text(rows, value, column in settings.sensitive)


def _as_text(rows: int, value: object, sensitive: bool) -> str:
    text = json.dumps([rows, value], default=repr, ensure_ascii=False)
    # Cursors are shown in Dagster's UI, where sensitive values do not belong.
    return hashlib.sha256(text.encode()).hexdigest()[:16] if sensitive else text


def _check_column(column: str, columns: Sequence[str], shown: str, where: str) -> None:
    if column not in columns:
        raise ErasmoError(
            f"Got `refresh.updated_at` {column!r}, which {shown} does not have{did_you_mean(column, columns)}",
            expected=f"one of: {listed(columns)}",
            fix=f"mend `refresh.updated_at` in {where}",
        )
