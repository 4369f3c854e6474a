"""Where tests of the targets publish to, and what they ask there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from erasmo_dagster.store.releases import Release
from erasmo_dagster.store.targets.base import PublishedFile, attached
from tests.postgres_server import PostgresServer

TEAM = {"kind": "postgresql", "name": "team", "url": "${TEAM_DATABASE_URL}"}
LAKE = {"kind": "parquet", "name": "lake", "path": "lake"}


@dataclass(frozen=True)
class Database:
    """A database of the tests' server."""

    server: PostgresServer
    url: str

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement; the rows it gives."""
        return self.server.execute(statement, self.url)

    def role(self, name: str) -> str:
        """A new role that may log in; the database's address for it."""
        unique = f"{name}_{self.url.rpartition('_')[2]}"
        self.rows(f"CREATE ROLE {unique} LOGIN PASSWORD 'x'")
        return unique

    def url_of(self, role: str) -> str:
        return self.server.url(self.url.rpartition("/")[2], role, "x")

    def relations(self, schema: str) -> set[tuple[str, str]]:
        found = self.rows(
            f"SELECT table_name::text, table_type::text FROM information_schema.tables WHERE table_schema = '{schema}'"
        )
        return {(name, kind) for name, kind in found}

    def schemas(self) -> set[str]:
        return {name for (name,) in self.rows("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'erasmo%'")}


@contextmanager
def session(url: str) -> Iterator[Any]:
    """A cursor on a connection that stays open; statements commit by themselves unless BEGIN is one."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url, autocommit=True) as con, con.cursor() as cursor:
        yield cursor


def own_file(path: Path, statements: Sequence[str]) -> None:
    """A published file with the tables of ``statements`` and nothing else."""
    path.unlink(missing_ok=True)
    with duckdb.connect(path) as con:
        con.execute("SET TimeZone = 'UTC'")
        for statement in statements:
            con.execute(statement)


@contextmanager
def opened(path: Path, number: int) -> Iterator[PublishedFile]:
    """A file as the release of a number."""
    with attached(path, path.parent / "spill") as con:
        yield PublishedFile(con, Release(number, number, datetime(2026, 1, 2, 3, 4, 5)))
