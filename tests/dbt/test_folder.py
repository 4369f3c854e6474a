"""The folder ``dbt_like_sql`` by our engine alone: whole, described, and failing for the right dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from erasmo_dagster import template
from tests.dbt.sample import FAULTS, Fault, write_sample

FOLDER = Path(template.__file__).parent / "dbt_like_sql"
STAGING = sorted(path.stem for path in (FOLDER / "staging").glob("*.sql"))
MARTS = sorted(path.stem for path in (FOLDER / "marts").glob("*.sql"))
SINGULAR = {path.stem for path in (FOLDER / "tests").glob("*.sql")}


def sql_project() -> Any:
    from erasmo_dagster.store.sql_models import load_sql_project

    project = load_sql_project(FOLDER)
    assert project is not None
    return project


Columns = dict[str, list[tuple[str, str]]]


def columns(con: duckdb.DuckDBPyConnection) -> Columns:
    """Table or view -> its columns with their types, in order; the wide tables left out."""
    query = (
        "SELECT table_name, list((column_name, lower(data_type)) ORDER BY column_index) FROM duckdb_columns()"
        " WHERE schema_name = 'main' AND NOT internal AND NOT ends_with(table_name, '_segmented') GROUP BY ALL"
    )
    return dict(con.execute(query).fetchall())


def described() -> Columns:
    """Table -> the columns that some yml describes, with their types."""
    tables: list[dict[str, Any]] = []
    for file in [*FOLDER.glob("staging/*.yml"), *FOLDER.glob("marts/*.yml")]:
        content = yaml.safe_load(file.read_text())
        tables += content.get("models", [])
        tables += [table for source in content.get("sources", []) for table in source["tables"]]
    assert all(table["description"].startswith("One row per ") for table in tables), "a grain is missing"
    assert all(column["description"] for table in tables for column in table["columns"])
    return {table["name"]: [(column["name"], column["data_type"]) for column in table["columns"]] for table in tables}


def test_every_mart_has_its_yml_and_nothing_is_described_that_is_not_there() -> None:
    assert sorted(path.stem for path in (FOLDER / "marts").glob("*.yml")) == MARTS
    assert described().keys() >= {*STAGING, *MARTS}


def test_the_sources_are_the_published_tables(tmp_path: Path) -> None:
    with duckdb.connect(write_sample(tmp_path / "segments.duckdb")) as con:
        published = columns(con)
    assert {name: held for name, held in described().items() if name not in {*STAGING, *MARTS}} == published


def test_every_column_is_described_and_every_description_has_its_column(tmp_path: Path) -> None:
    from erasmo_dagster.store.sql_models import build_models

    build = build_models(write_sample(tmp_path / "segments.duckdb"), sql_project())
    built = {model.name: [(name, kind.lower()) for name, kind in model.columns.items()] for model in build.models}
    assert {name: described()[name] for name in built} == built
    assert all(("dataset", "varchar") in held for held in built.values())
    assert all(model.lineage[column] for model in build.models for column in model.columns), "a column without lineage"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.fails[0])
def test_a_fault_of_one_dataset_is_laid_at_its_door(fault: Fault, tmp_path: Path) -> None:
    from erasmo_dagster.store.sql_models import build_models

    build = build_models(write_sample(tmp_path / "segments.duckdb", faults=(fault,)), sql_project())
    failed = [test for test in build.tests if not test.passed]
    assert {test.name for test in failed} & SINGULAR == set(fault.fails) & SINGULAR
    assert all(any(test.name.startswith(name) for test in failed) for name in fault.fails)
    assert {test.datasets for test in failed} == {(fault.dataset,)}
