"""How assets reach the project and its DuckDB files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from dagster_duckdb import DuckDBResource

from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.warehouse import open_warehouse


class WarehouseResource(DuckDBResource):
    """The private warehouse: every connection is one locked transaction, closed whatever happens."""

    project_root: str
    erasmo_home: str

    @property
    def project(self) -> Project:
        """The project that the warehouse belongs to."""
        return open_project(Path(self.project_root), Path(self.erasmo_home))

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one short read or write; nothing slow belongs inside."""
        with open_warehouse(Path(self.database), lock_timeout=self.project.settings.lock_timeout) as con:
            yield con


def project_resources(project: Project) -> dict[str, DuckDBResource]:
    """``warehouse`` for the pipeline, ``published`` (read-only) for previews and a user's own assets."""
    return {
        "warehouse": WarehouseResource(
            database=str(project.warehouse), project_root=str(project.root), erasmo_home=str(project.home)
        ),
        "published": DuckDBResource(database=str(project.published), connection_config={"access_mode": "READ_ONLY"}),
    }
