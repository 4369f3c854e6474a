"""What a folder of SQL models is, and what came of building it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warn"]
Materialized = Literal["view", "table"]


@dataclass(frozen=True)
class Column:
    """A column as a .yml describes it; ``data_type`` is None where the .yml does not give it."""

    name: str
    description: str
    data_type: str | None


@dataclass(frozen=True)
class Source:
    """A published table that models may read by ``source('erasmo', name)``."""

    name: str
    description: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Test:
    """One test: ``sql`` is a SELECT whose rows are failures.

    ``name`` is unique and the one that dbt gives. ``model`` is the model that is tested, or the first that a singular
    test reads; ``path`` the file that the test is written in.
    """

    __test__ = False  # pytest collects no class of this name

    name: str
    model: str | None
    column: str | None
    severity: Severity
    sql: str
    description: str
    depends_on: tuple[str, ...]
    sources: tuple[str, ...]
    path: Path


@dataclass(frozen=True)
class Model:
    """One model: ``sql`` is the rendered SELECT, ``refs`` and ``sources`` what it reads, in the order it names them."""

    name: str
    path: Path
    description: str
    columns: tuple[Column, ...]
    materialized: Materialized
    sql: str
    refs: tuple[str, ...]
    sources: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class SqlProject:
    """A folder of models, in the order in which they are built."""

    root: Path
    models: tuple[Model, ...]
    tests: tuple[Test, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class BuiltModel:
    """A model in the file: its rows, its columns with their DuckDB types, and where each column comes from.

    ``lineage`` has for each column ("model" or "source", table, column) of the tables that the model reads itself;
    the list is empty where the column comes from none, or where that cannot be told.
    """

    name: str
    rows: int
    columns: dict[str, str]
    lineage: dict[str, list[tuple[str, str, str]]]
    seconds: float


@dataclass(frozen=True)
class TestResult:
    """How a test came out. ``datasets`` has the values of ``dataset`` among the failing rows, if they have it."""

    __test__ = False

    name: str
    model: str | None
    column: str | None
    severity: Severity
    passed: bool
    failures: int
    datasets: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class Build:
    """What a build made, in its order, and how every test came out."""

    models: tuple[BuiltModel, ...]
    tests: tuple[TestResult, ...]
