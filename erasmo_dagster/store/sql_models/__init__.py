"""The engine of ``dbt_like_sql``: SQL models and tests, read as dbt reads them and built into one DuckDB file."""

from erasmo_dagster.store.sql_models.build import build_models
from erasmo_dagster.store.sql_models.load import load_sql_project
from erasmo_dagster.store.sql_models.records import (
    Build,
    BuiltModel,
    Column,
    Model,
    Source,
    SqlProject,
    Test,
    TestResult,
)

__all__ = [
    "Build",
    "BuiltModel",
    "Column",
    "Model",
    "Source",
    "SqlProject",
    "Test",
    "TestResult",
    "build_models",
    "load_sql_project",
]
