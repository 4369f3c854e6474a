"""Models built into a DuckDB file, and their tests run there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from erasmo_dagster.errors import ErasmoError, disk_fault
from erasmo_dagster.store.sql import describe, literal, quote
from erasmo_dagster.store.sql_models.lineage import column_lineage
from erasmo_dagster.store.sql_models.records import Build, BuiltModel, Model, SqlProject, Test, TestResult
from erasmo_dagster.store.sql_models.render import relation
from erasmo_dagster.store.sql_models.statements import told

# No way out of the file: no other file, no network, no extension, no variable of Python's. One thread, so that sums of
# floating-point numbers are the same from build to build; what does not fit in memory spills beside the file.
_CONFINED: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "memory_limit": "1GB",
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
}


def build_models(path: Path, project: SqlProject) -> Build:
    """Build every model into the DuckDB file at ``path``, in order, then run every test; all of it or nothing.

    Views and tables take the place of those of the same name. A test that fails is a result; a model or a test whose
    SQL cannot run is an ErasmoError that names its file and leaves the file as it was.
    """
    if not path.is_file():
        raise ErasmoError(f"Got no file {path}", expected="a published file to build the models in")
    con = duckdb.connect(path, config=_CONFINED)
    try:
        con.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET lock_configuration = true")
        con.execute("BEGIN")
        _drop(con, project)
        tables = _tables(con)
        models: list[BuiltModel] = []
        for model in project.models:
            models.append(_build(con, model, project, tables, path))
            tables[model.name] = list(models[-1].columns)
        tests = tuple(_run(con, test, project, path) for test in project.tests)
        con.execute("COMMIT")
        con.execute("CHECKPOINT")
    finally:
        con.close()
    return Build(tuple(models), tests)


def _drop(con: duckdb.DuckDBPyConnection, project: SqlProject) -> None:
    """Take out what an earlier build made, before anything is built, so that no model reads what is about to go."""
    there = con.execute(
        "SELECT table_name, table_type = 'VIEW' FROM information_schema.tables WHERE table_schema = 'main'"
    ).fetchall()
    names = {model.name for model in project.models}
    for name, is_view in there:
        if name.casefold() in names:
            con.execute(f"DROP {'VIEW' if is_view else 'TABLE'} main.{quote(name)}")


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    rows = con.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns()"
        " WHERE schema_name = 'main' AND NOT internal GROUP BY table_name"
    ).fetchall()
    return dict(rows)


def _build(
    con: duckdb.DuckDBPyConnection, model: Model, project: SqlProject, tables: dict[str, list[str]], path: Path
) -> BuiltModel:
    began = time.perf_counter()
    name, kind = relation(model.name), model.materialized.upper()
    with _faults(model.path, project, path):
        # As a subquery first: DuckDB refuses a WITH that writes there, and would run it in CREATE TABLE.
        describe(con, f"SELECT * FROM (\n{model.sql}\n)")
        con.execute(f"CREATE {kind} {name} AS\n{model.sql}\n")
        ((rows,),) = con.execute(f"SELECT count(*) FROM {name}").fetchall()
        columns = dict(describe(con, f"SELECT * FROM {name}"))
    if model.description:
        con.execute(f"COMMENT ON {kind} {name} IS {literal(model.description)}")
    there = {column.casefold(): column for column in columns}
    for column in model.columns:
        if column.description and column.name.casefold() in there:
            held = quote(there[column.name.casefold()])
            con.execute(f"COMMENT ON COLUMN {name}.{held} IS {literal(column.description)}")
    names = frozenset(other.name for other in project.models)
    lineage = column_lineage(model.sql, list(columns), tables, names)
    return BuiltModel(model.name, rows, columns, lineage, time.perf_counter() - began)


def _run(con: duckdb.DuckDBPyConnection, test: Test, project: SqlProject, path: Path) -> TestResult:
    rows = f"(\n{test.sql}\n)"
    with _faults(test.path, project, path, test.name):
        ((failures,),) = con.execute(f"SELECT count(*) FROM {rows}").fetchall()
        datasets: tuple[str, ...] = ()
        if failures and any(name.casefold() == "dataset" for name, _ in describe(con, f"SELECT * FROM {rows}")):
            found = con.execute(
                f"SELECT DISTINCT dataset::VARCHAR FROM {rows} WHERE dataset IS NOT NULL ORDER BY 1"
            ).fetchall()
            datasets = tuple(name for (name,) in found)
    message = "no failing rows"
    if failures:
        message = f"{failures} failing row{'s' if failures > 1 else ''}"
        message += f" of {', '.join(datasets)}" if datasets else ""
    return TestResult(test.name, test.model, test.column, test.severity, failures == 0, failures, datasets, message)


@contextmanager
def _faults(source: Path, project: SqlProject, path: Path, test: str | None = None) -> Iterator[None]:
    """Turn what DuckDB says of a model or a test into an ErasmoError that names the file it is written in."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        if fault := disk_fault(error, path.parent):
            raise fault from None
        file = f"{project.root.name}/{source.relative_to(project.root).as_posix()}"
        got = f"Got an error in {file}" + (f", test {test}" if test else "") + f": {told(error)}"
        if isinstance(error, duckdb.PermissionException):
            raise ErasmoError(
                got, expected="SQL that reads the published tables alone", fix="name them by ref and source"
            ) from None
        fix = "mend its SQL"
        if isinstance(error, duckdb.CatalogException):
            fix = "mend its SQL; read models by ref and published tables by source"
        raise ErasmoError(got, fix=fix) from None
