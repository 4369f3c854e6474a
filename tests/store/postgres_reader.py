"""Tables in a database of a real server, read as a dataset's source."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from erasmo_dagster.settings import Project
from tests.postgres_server import PASSWORD, PostgresServer
from tests.store.reader import Reader

VARIABLE = "${CRM_DATABASE_URL}"


class PostgresReader(Reader):
    """Reads a table or statement of a database of its own, whose URL is in the environment."""

    def __init__(self, project: Project, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(project)
        self.server, self.url, self.monkeypatch = server, server.new_database(), monkeypatch
        self.connect(self.url)

    def connect(self, url: str) -> None:
        self.monkeypatch.setenv("CRM_DATABASE_URL", url)

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, each on its own; the rows of the last."""
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            rows = self.server.execute(statement, self.url)
        return rows

    def source(self, table: str | None = None, **more: Any) -> dict[str, Any]:
        return {"format": "postgresql", "table": table, **more}

    def table(self, table: str | None = None, **settings: Any) -> pl.DataFrame:
        return self.frame(VARIABLE, source=self.source(table), **settings)

    def statement(self, statement: str, **settings: Any) -> pl.DataFrame:
        return self.frame(VARIABLE, source=self.source(statement=statement), **settings)

    def no_table(self, table: str | None = None, **settings: Any) -> str:
        """The message for a table that cannot be read; it has no word of the URL."""
        return self._secret(self.refusal(VARIABLE, source=self.source(table), **settings))

    def no_statement(self, statement: str, **settings: Any) -> str:
        return self._secret(self.refusal(VARIABLE, source=self.source(statement=statement), **settings))

    def _secret(self, message: str) -> str:
        for part in (PASSWORD, "127.0.0.1", str(self.server.port), "erasmo:", self.url.rpartition("/")[2]):
            assert part not in message
        return message
