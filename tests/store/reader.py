"""Reads sources in tests, and catches what is said of those that cannot be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store.sources import Snapshot, snapshot_source

SECRET = "4111-1111-SECRET"


class Reader:
    """Reads a source of a project into one snapshot file."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.out = project.home / "snapshots" / "snapshot.parquet"

    def write(self, name: str, content: str | bytes) -> str:
        path = self.project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def __call__(self, path: str | None = None, key: str | list[str] = "id", **settings: Any) -> Snapshot:
        source = {"path": path, **settings.pop("source", {})}
        dataset = DatasetSettings.model_validate({"source": source, "key": key, **settings})
        return snapshot_source("customers", dataset, self.project, self.out)

    def frame(self, path: str | None = None, **settings: Any) -> pl.DataFrame:
        return pl.read_parquet(self(path, **settings).path)

    def refusal(self, path: str | None = None, **settings: Any) -> str:
        """The message for a source that cannot be read; it is one line, and nothing was written."""
        before = self.out.read_bytes() if self.out.exists() else None
        with pytest.raises(ErasmoError) as caught:
            self(path, **settings)
        after = self.out.read_bytes() if self.out.exists() else None
        assert before == after
        assert [entry.name for entry in self.out.parent.glob("*")] == ([self.out.name] if before else [])
        message = str(caught.value)
        assert message.startswith("Got ")
        assert "\n" not in message
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return message


@contextmanager
def sqlite_file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as con:
        yield con
        con.commit()
