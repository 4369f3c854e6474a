"""The marts of ``dbt_like_sql`` in the published file: built into the candidate, and judged before it is served."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from erasmo_dagster.store.sql_models import Build, TestResult, build_models, load_sql_project

MART_TESTS = "mart_tests"  # the table of results in the published file, and the check's name in the warehouse
INFO = "file_info"  # the table that says what the file was built from, and as which release
_SUFFIXES = {".sql", ".yml", ".yaml"}
_OUTPUTS = {"target", "logs", "dbt_packages"}  # what dbt leaves in the folder


class MartTestError(ErasmoError):
    """A version that tests of error severity keep from being published; ``build`` has all that was found."""

    def __init__(self, dataset: str, failed: list[TestResult], build: Build) -> None:
        self.build = build
        self.failed = failed
        told = "; ".join(f"{test.name}: {test.message}" for test in failed)
        super().__init__(
            f"Got dataset {dataset!r} with rows that fail tests of the marts ({told})",
            expected="no such rows",
            fix="mend the source or the SQL and run again; what was published is as it was",
        )


def models_digest(project: Project) -> str:
    """A digest of the names and contents of the folder's SQL and YAML; it changes whenever the marts may."""
    digest = hashlib.sha256()
    root = project.sql_dir
    try:
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(root).parts
            hidden = any(part.startswith(".") or part in _OUTPUTS for part in parts)
            if path.suffix in _SUFFIXES and not hidden and path.is_file():
                digest.update(f"{path.relative_to(root)}\0".encode())
                digest.update(path.read_bytes() + b"\0")
    except OSError as error:
        raise ErasmoError(f"Got {error.strerror!r} for {error.filename}", expected="a file to read") from None
    return digest.hexdigest()[:16]


def digest_in_file(project: Project) -> str | None:
    """The digest of the folder that the published file was built with; None where there is no such file."""
    if not project.published.is_file():
        return None
    try:
        with duckdb.connect(project.published, read_only=True) as con:
            rows = con.execute(f"SELECT value FROM {INFO} WHERE name = 'models_digest'").fetchall()
    except duckdb.Error:
        return ""
    return str(rows[0][0]) if rows else ""


def build_marts(project: Project, candidate: Path, dataset: str | None, *, lenient: bool = False) -> Build:
    """Build every model of the project into ``candidate``, run every test, and write the results beside them.

    Where ``dataset`` moves to a new version, a failing test of error severity refuses it: one whose failing rows name
    the dataset, or name none and did not fail in the file that is served. Failures that name other datasets are
    theirs, and are written down. Raises MartTestError; ErasmoError where a model cannot be built, unless it is
    ``lenient``: the file then has no marts, and no digest, so that the next look has them built anew.
    """
    digest = models_digest(project)
    try:
        sql = load_sql_project(project.sql_dir)
        build = build_models(candidate, sql) if sql is not None else Build((), ())
    except ErasmoError:
        if not lenient:
            raise
        build, digest = Build((), ()), ""
    _write(candidate, build, digest)
    if dataset is not None:
        failing = [test for test in build.tests if not test.passed and test.severity == "error"]
        before = _failing_before(project.published) if any(not test.datasets for test in failing) else set()
        own = [t for t in failing if dataset in t.datasets or (not t.datasets and t.name not in before)]
        if own:
            raise MartTestError(dataset, own, build)
    return build


def read_test_results(path: Path) -> list[TestResult]:
    """The results in a published file; none where it has no marts."""
    with duckdb.connect(path, read_only=True) as con:
        if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [MART_TESTS]).fetchall():
            return []
        rows = con.execute(
            "SELECT test_name, model, column_name, severity, passed, failures, datasets, message"
            f" FROM {MART_TESTS} ORDER BY test_name"
        ).fetchall()
    return [
        TestResult(
            name=name,
            model=model,
            column=column,
            severity=severity,
            passed=passed,
            failures=failures,
            datasets=tuple(datasets),
            message=message,
        )
        for name, model, column, severity, passed, failures, datasets, message in rows
    ]


def _write(candidate: Path, build: Build, digest: str) -> None:
    with duckdb.connect(candidate) as con:
        con.execute(
            f"CREATE TABLE {MART_TESTS} (test_name VARCHAR, model VARCHAR, column_name VARCHAR, severity VARCHAR,"
            " passed BOOLEAN, failures BIGINT, datasets VARCHAR[], message VARCHAR)"
        )
        rows = [
            (t.name, t.model, t.column, t.severity, t.passed, t.failures, list(t.datasets), t.message)
            for t in sorted(build.tests, key=lambda t: t.name)
        ]
        if rows:
            con.executemany(f"INSERT INTO {MART_TESTS} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        con.execute(f"COMMENT ON TABLE {MART_TESTS} IS 'One row per test of the marts, as of this file.'")
        con.execute(f"CREATE TABLE {INFO} (name VARCHAR, value VARCHAR)")
        con.execute(f"INSERT INTO {INFO} VALUES ('models_digest', ?)", [digest])
        con.execute(f"COMMENT ON TABLE {INFO} IS 'What this file was built from.'")
        con.execute("CHECKPOINT")


def _failing_before(published: Path) -> set[str]:
    if not published.is_file():
        return set()
    try:
        return {test.name for test in read_test_results(published) if not test.passed}
    except duckdb.Error:
        return set()
