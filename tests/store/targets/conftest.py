from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from erasmo_dagster.settings import Project, ProjectSettings
from tests.postgres_server import PostgresServer
from tests.store.targets.places import Database

WithTargets = Callable[..., Project]


@pytest.fixture
def with_targets(project: Project) -> WithTargets:
    """The project with targets beside the DuckDB file."""

    def give(*targets: dict[str, Any], **settings: Any) -> Project:
        given = ProjectSettings.model_validate({"publish": ["duckdb", *targets], "keep_versions": 50, **settings})
        return project.model_copy(update={"settings": given})

    return give


@pytest.fixture
def database(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Database:
    """An empty database, whose address is in $TEAM_DATABASE_URL."""
    url = postgres.new_database()
    monkeypatch.setenv("TEAM_DATABASE_URL", url)
    return Database(postgres, url)
