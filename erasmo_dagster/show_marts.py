"""What the command line prints of the marts, read from their folder and the published file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from erasmo_dagster.show_tables import open_published, print_table
from erasmo_dagster.store.marts import read_test_results
from erasmo_dagster.store.sql import quote
from erasmo_dagster.store.sql_models import TestResult, load_sql_project

if TYPE_CHECKING:
    from rich.console import Console


def print_marts(out: Console, project: Project) -> list[str]:
    """Every model with its rows, and the tests that fail. Returns those of error severity, one entry a test."""
    sql = load_sql_project(project.sql_dir)
    if sql is None or not sql.models:
        out.print(f"no models in {project.sql_dir}", highlight=False, soft_wrap=True)
        return []
    with open_published(project) as con:
        there = {name for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        rows = [
            (model.name, model.materialized, con.execute(f"SELECT count(*) FROM {quote(model.name)}").fetchall()[0][0])  # noqa: S608
            for model in sql.models
            if model.name in there
        ]
    print_table(out, ["model", "as", "rows"], rows)
    results = read_test_results(project.published)
    failing = [result for result in results if not result.passed]
    out.print(f"{len(results) - len(failing)} of {len(results)} tests pass", highlight=False)
    if failing:
        print_table(
            out,
            ["failing test", "severity", "rows", "datasets", "what is wrong"],
            [(t.name, t.severity, t.failures, ", ".join(t.datasets), t.message) for t in failing],
        )
    return [_named(result) for result in failing if result.severity == "error"]


def marts_fault(project: Project) -> str | None:
    """What is wrong with the marts, in a line: SQL that cannot be read, or tests of error severity that fail."""
    try:
        load_sql_project(project.sql_dir)
    except ErasmoError as error:
        return str(error)
    if not project.published.is_file():
        return None
    failing = [t for t in read_test_results(project.published) if not t.passed and t.severity == "error"]
    return "; ".join(map(_named, failing)) or None


def _named(result: TestResult) -> str:
    datasets = f" in {', '.join(result.datasets)}" if result.datasets else ""
    return f"test {result.name} fails{datasets}"
