"""PostgreSQL: a schema for each release, and views with stable names that all move to it in one transaction.

A release is loaded in one transaction and shown in another; what a run has loaded that was ended in between goes with
the next. Schemas of old releases go last, each in a transaction of its own.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import PostgresTarget
from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.targets.base import FileColumn, PublishedFile, Seen, Table, Written
from erasmo_dagster.store.targets.postgres_catalog import drop_release, home_of, number_of, read_shapes
from erasmo_dagster.store.targets.postgres_columns import map_columns, short
from erasmo_dagster.store.targets.postgres_session import ServerError, Session, connected
from erasmo_dagster.store.targets.postgres_views import BUSY, RELEASE, View, Views

_OURS = "A release of erasmo"  # how a schema's comment begins that is ours to drop
_DROP_WAIT = "1s"
_IN_USE = BUSY | {"2BP01"}  # the last: others depend on it
_PAUSE = 0.2  # seconds


class PostgresPublisher:
    """A target of kind postgresql; ``wait`` is in seconds, for whoever else writes to the schema or reads its views."""

    def __init__(self, settings: PostgresTarget, *, wait: float) -> None:
        self._settings, self._wait = settings, wait
        self._schema = settings.schema_name

    def release(self) -> Seen | None:
        """The release that readers see; None where there is none yet."""
        with self._connected() as session:
            return self._current(session)[0]

    def publish(self, file: PublishedFile) -> Written:
        """Load a release, move the views to it and drop old releases that nobody reads."""
        number = file.release.number
        with self._connected() as session:
            self._alone(session)
            seen, names = self._current(session)
            if seen is not None and seen.number >= number:  # another machine was faster
                return Written(0, 0)
            current = None if seen is None else seen.number
            views = Views(session, self._schema, names, wait=self._wait)
            self._remove_unfinished(session, views, current)
            tables = file.tables(self._settings.leave_out)
            with session.transaction():
                home = self._new_schema(session, number)
                loaded = [_load(session, file, table, home) for table in tables]
                shown = [view for _, view in loaded]
                views.check(current, number, shown)
            views.move(current, number, shown, lambda: self._write_release(session, file, shown))
            notes = self._drop_old(session, number)
        return Written(sum(rows for rows, _ in loaded), len(tables), tuple(notes))

    def tidy(self) -> tuple[str, ...]:
        """Drop old releases that somebody has read before."""
        with self._connected() as session:
            seen, _ = self._current(session)
            if seen is None or not self._not_kept(session, seen.number):
                return ()
            self._alone(session)
            seen, names = self._current(session)  # by now
            if seen is None:
                return ()
            Views(session, self._schema, names, wait=self._wait).make_plain(seen.number)
            return tuple(self._drop_old(session, seen.number))

    def _connected(self) -> AbstractContextManager[Session]:
        return connected(self._settings.url, f"the target {self._settings.name!r} of publish")

    def _alone(self, session: Session) -> None:
        """Hold a lock as long as the connection, so that one writer at a time is at work on the schema."""
        session.run(f"SET lock_timeout = {round(self._wait * 1000)}")
        session.run("SET statement_timeout = 0")
        session.run("SET idle_in_transaction_session_timeout = 0")
        # Asked again and again: a query that waits would be a transaction that whoever has the lock waits for.
        asked = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
        until = time.monotonic() + self._wait
        while session.rows(asked, f"erasmo_dagster {self._schema}") != [(True,)]:
            if time.monotonic() > until:
                raise ErasmoError(
                    f"Got no access to the schema {self._schema} in {self._wait:g} s: another publish is at work there",
                    fix="wait for that to end, or raise lock_timeout in erasmo.yaml",
                )
            time.sleep(_PAUSE)

    def _current(self, session: Session) -> tuple[Seen | None, set[str]]:
        """The release that readers see, and the names of the views that are ours."""
        table = f"{quote(self._schema)}.{RELEASE}"
        if session.rows("SELECT to_regclass($1)::text", table) == [(None,)]:
            return None, set()
        rows = session.rows(f"SELECT release, digest, tables FROM {table}")
        return (Seen(rows[0][0], rows[0][1]), set(rows[0][2])) if rows else (None, set())

    def _remove_unfinished(self, session: Session, views: Views, current: int | None) -> None:
        """Drop what a run has left that loaded a release and was ended before readers saw it."""
        left = [home for number, home in self._releases(session).items() if current is None or number > current]
        if left and current is not None:
            views.settle(current)
        for home in left:
            with session.transaction():
                drop_release(session, home)

    def _new_schema(self, session: Session, number: int) -> str:
        home = home_of(self._schema, number)
        session.run(f"CREATE SCHEMA IF NOT EXISTS {quote(self._schema)}")
        session.run(f"CREATE SCHEMA {quote(home)}")
        session.run(f"COMMENT ON SCHEMA {quote(home)} IS {literal(f'{_OURS}: read {self._schema} instead.')}")
        return home

    def _write_release(self, session: Session, file: PublishedFile, views: list[View]) -> None:
        table = f"{quote(self._schema)}.{RELEASE}"
        session.run(
            f"CREATE TABLE IF NOT EXISTS {table} (release integer NOT NULL, publish_id integer NOT NULL,"
            " built_at timestamp NOT NULL, published_at timestamp NOT NULL, tables text[] NOT NULL,"
            " digest text NOT NULL)"
        )
        session.run(f"COMMENT ON TABLE {table} IS 'One row: the release that the views show. Moments are UTC.'")
        session.run(f"DELETE FROM {table}")
        names = ", ".join(literal(view.name) for view in views)
        session.run(
            f"INSERT INTO {table} VALUES ({file.release.number}, {file.release.publish_id},"
            f" {literal(file.release.built_at.isoformat())}, clock_timestamp(), ARRAY[{names}]::text[],"
            f" {literal(file.release.digest)})"
        )

    def _releases(self, session: Session) -> dict[int, str]:
        """Number -> schema of the releases that are there, the newest first."""
        rows = session.rows(
            "SELECT nspname::text FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') LIKE $1", f"{_OURS}%"
        )
        found = {number: name for (name,) in rows if (number := number_of(self._schema, name)) is not None}
        return dict(sorted(found.items(), reverse=True))

    def _drop_old(self, session: Session, current: int) -> list[str]:
        """Drop the releases that are not kept; what stays, since somebody reads it for instance, is told."""
        notes = []
        for home in self._not_kept(session, current):
            try:
                with session.transaction():
                    session.run(f"SET LOCAL lock_timeout = '{_DROP_WAIT}'")
                    drop_release(session, home)
            except ServerError as error:
                why = "something uses it" if error.sqlstate in _IN_USE else str(error)
                notes.append(f"the schema {home} stays for now: {why}")
                if not error.sqlstate:  # the connection is lost, and readers have the release
                    break
        return notes

    def _not_kept(self, session: Session, current: int) -> list[str]:
        """Schemas of older releases: those beyond ``keep``, and those that have more than the current one's columns.

        What the current one has not any more may be what nobody is to see.
        """
        releases = {number: home for number, home in self._releases(session).items() if number <= current}
        columns = _columns(session, home_of(self._schema, current))
        kept = list(releases)[: self._settings.keep]
        return [
            home
            for number, home in releases.items()
            if number != current and (number not in kept or not _columns(session, home) <= columns)
        ]


def _load(session: Session, file: PublishedFile, table: Table, home: str) -> tuple[int, View]:
    """Create a table in the release's schema and fill it; its rows, and the view that is to show it."""

    def has_infinite(column: FileColumn) -> bool:
        held = file.value(f"SELECT coalesce(bool_or(NOT isfinite({quote(column.name)})), false) FROM {source}")
        return bool(held[0])

    source, name = quote(table.name), short(table.name)
    if name == RELEASE:
        raise ErasmoError(
            f"Got a table called {RELEASE!r}, which is the name of the table that says what is published",
            fix="rename the mart, or list it under leave_out",
        )
    there = f"{quote(home)}.{quote(name)}"
    columns = map_columns(table.columns, has_infinite)
    session.run(f"CREATE TABLE {there} ({', '.join(f'{quote(c.name)} {c.loaded}' for c in columns)})")
    select = f"SELECT {', '.join(f'{c.expression} AS {quote(c.name)}' for c in columns)} FROM {source}"
    with file.batches(select) as rows:
        loaded = session.load(home, name, rows)
    converted = [
        f"ALTER COLUMN {quote(c.name)} TYPE {c.kind} USING {quote(c.name)}::{c.kind}"
        for c in columns
        if c.loaded != c.kind
    ]
    if converted:
        session.run(f"ALTER TABLE {there} {', '.join(converted)}")
    session.run(f"ANALYZE {there}")
    comments = {
        mapped.name: _comment(column, mapped.name) for column, mapped in zip(table.columns, columns, strict=True)
    }
    return loaded, View(name, tuple(comments.items()), table.comment)


def _columns(session: Session, home: str) -> set[tuple[str, str]]:
    return {(table, column) for table, shape in read_shapes(session, home).items() for column, _ in shape}


def _comment(column: FileColumn, name: str) -> str | None:
    if name == column.name:
        return column.comment
    return " ".join(filter(None, [column.comment, f"Called {column.name} in DuckDB."]))
