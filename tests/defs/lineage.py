"""What tests of the lineage share: a run in the project's own instance, and looks at what it left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erasmo_dagster.settings import Project
from erasmo_dagster.show_tables import open_published
from erasmo_dagster.store.warehouse import open_warehouse

Run = Callable[..., dict[str, dict[str, Any]]]


def published(project: Project, query: str) -> list[Any]:
    """Rows of a query on the published file."""
    with open_published(project) as con:
        return con.execute(query).fetchall()


def warehouse(project: Project, query: str) -> list[Any]:
    """Rows of a query on the warehouse."""
    with open_warehouse(project.warehouse) as con:
        return con.execute(query).fetchall()
