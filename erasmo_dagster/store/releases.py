"""Releases: the published files by number, each one higher than the last.

A publish makes a new release, and so does whatever else changes what the file holds: a mart's SQL, a column that is
private now, an experiment. A file that is built anew and holds the same is the same release, so that the targets that
have it need no other copy. The number is in the file's table ``file_info``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from erasmo_dagster.settings import Project
from erasmo_dagster.store.candidate import editing
from erasmo_dagster.store.marts import INFO
from erasmo_dagster.store.sql import quote
from erasmo_dagster.store.warehouse import first_row, now, one_row, open_warehouse


@dataclass(frozen=True)
class Release:
    """A published file: its number, the last publish that it has (0 where it has none), and when it was built (UTC).

    ``digest`` tells what it holds; it is empty where nobody needs to know.
    """

    number: int
    publish_id: int
    built_at: datetime
    digest: str = ""


def stamp(con: duckdb.DuckDBPyConnection, project: Project, candidate: Path) -> Release:
    """Give the candidate its number: that of the last release where it holds the same, else the next one.

    ``con`` is the warehouse, in which :func:`record` writes it down.
    """
    last = _last(con)
    with editing(candidate) as file:
        # Whoever has the file alone needs no digest, and no time is spent on it.
        digest = _digest(file) if project.settings.copies else ""
        (publish_id,) = one_row(file.execute("SELECT coalesce(max(publish_id), 0) FROM publish_log"))
        if last is not None and digest and digest == last.digest:
            release = last
        else:
            release = Release(1 if last is None else last.number + 1, int(publish_id), now(con), digest)
        rows = {
            "release": str(release.number),
            "publish_id": str(release.publish_id),
            "built_at": release.built_at.isoformat(),
            "digest": release.digest,
        }
        file.executemany(f"INSERT INTO {INFO} VALUES (?, ?)", list(rows.items()))
    return release


def record(con: duckdb.DuckDBPyConnection, release: Release) -> None:
    """Write a release down in the warehouse; belongs in the transaction after which its file is put in place."""
    con.execute(
        "INSERT OR REPLACE INTO releases (release, publish_id, built_at, digest) VALUES (?, ?, ?, ?)",
        [release.number, release.publish_id, release.built_at, release.digest],
    )


def number_above(project: Project, last: int) -> None:
    """Number the next release above ``last``, where a warehouse was restored and its targets have later ones."""
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        known = _last(con)
        if known is None or known.number < last:
            record(con, Release(last, 0, now(con)))


def release_of(con: duckdb.DuckDBPyConnection) -> Release | None:
    """The release that an open published file is; None for a file of an earlier version of this package."""
    held = dict(con.execute(f"SELECT name, value FROM {INFO}").fetchall())
    if "release" not in held:
        return None
    moment = datetime.fromisoformat(held["built_at"])
    return Release(int(held["release"]), int(held["publish_id"]), moment, held.get("digest", ""))


def release_in(path: Path) -> Release | None:
    """The release of the published file at ``path``; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with duckdb.connect(path, read_only=True) as con:
            return release_of(con)
    except duckdb.Error:
        return None


def _last(con: duckdb.DuckDBPyConnection) -> Release | None:
    row = first_row(
        con.execute("SELECT release, publish_id, built_at, digest FROM releases ORDER BY release DESC LIMIT 1")
    )
    return None if row is None else Release(*row)


def _digest(con: duckdb.DuckDBPyConnection) -> str:
    """A digest of all that the file's tables and views hold and are called, but for what it was built from, and when.

    Rows count in any order. Where the copies went is no content: they are told of it later.
    """
    found: list[object] = [
        con.execute(query).fetchall()
        for query in (
            "SELECT table_name, comment FROM duckdb_tables() ORDER BY ALL",
            "SELECT view_name, sql, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
            "SELECT table_name, column_index, column_name, data_type, comment FROM duckdb_columns()"
            " WHERE NOT internal ORDER BY ALL",
        )
    ]
    tables = con.execute("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
    for (name,) in tables:
        if name == INFO:
            continue
        columns = "* EXCLUDE (targets)" if name == "publish_log" else "*"
        rows = f"(SELECT {columns} FROM {quote(name)})"
        # A sum: unlike an exclusive or, it counts equal rows.
        found.append((name, con.execute(f"SELECT count(*), sum(hash(t)) FROM {rows} t").fetchall()))
    return hashlib.sha256(repr((duckdb.__version__, found)).encode()).hexdigest()[:24]
