"""Marts in the published file: built with every publish, and a test that fails holds back the dataset that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from erasmo_dagster.store.checks import blocked_versions, read_checks
from erasmo_dagster.store.marts import MartTestError, digest_in_file, models_digest, read_test_results
from erasmo_dagster.store.publish import mend, publish, refresh_marts, retire, rollback
from erasmo_dagster.store.versions import published_versions
from erasmo_dagster.store.warehouse import open_warehouse
from tests.conftest import write_test
from tests.store.test_publish import prepare, read, release


def versions(project: Project) -> dict[str, int]:
    with open_warehouse(project.warehouse) as con:
        return published_versions(con)


def results(project: Project) -> dict[str, tuple[Any, ...]]:
    return {r.name: (r.passed, r.severity, r.failures, r.datasets) for r in read_test_results(project.published)}


def test_a_mart_has_the_rows_of_the_version_beside_it(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    assert read(project, "select count(*) from people") == [(4,)]
    release(project, "a", prepare(project, "a", 6))
    assert read(project, "select count(*) from people") == [(6,)]
    rollback(project, {}, "a", 1, reason="back")
    assert read(project, "select count(*) from people") == [(4,)]
    retire(project, {}, "a", reason="gone")
    assert read(project, "select count(*) from people") == [(0,)]


def test_a_failing_test_holds_back_the_dataset_that_it_names_and_no_other(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    release(project, "b", prepare(project, "b", 4))
    write_test(sql, "select dataset, count(*) as n from {{ ref('people') }} group by dataset having count(*) > 4")
    before = project.published.read_bytes()
    second = prepare(project, "a", 5)
    with pytest.raises(MartTestError, match="dataset 'a' with rows that fail tests of the marts \\(own_rule"):
        release(project, "a", second)
    assert project.published.read_bytes() == before
    assert not list(project.published.parent.glob("*.tmp*"))
    release(project, "b", prepare(project, "b", 3))
    assert versions(project) == {"a": 1, "b": 2}
    with open_warehouse(project.warehouse) as con:
        assert blocked_versions(con) == {"a": second}
        told = {check.name: check.message for check in read_checks(con, "a", second) if not check.passed}
    assert list(told) == ["mart_tests"]
    assert "own_rule" in told["mart_tests"]
    # Mended, the same version is published.
    write_test(sql, "select dataset from {{ ref('people') }} where false")
    release(project, "a", second)
    assert versions(project) == {"a": second, "b": 2}


def test_a_failure_of_another_dataset_is_that_ones_own(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 5))
    write_test(sql, "select dataset from {{ ref('people') }} where dataset = 'a'")
    release(project, "b", prepare(project, "b", 4))
    assert versions(project) == {"a": 1, "b": 1}
    assert results(project) == {"own_rule": (False, "error", 5, ("a",))}


def test_a_warning_only_shows(project: Project, sql: Path) -> None:
    write_test(sql, "select dataset from {{ ref('people') }}", severity="warn")
    release(project, "a", prepare(project, "a", 2))
    assert results(project) == {"own_rule": (False, "warn", 2, ("a",))}
    assert read(project, "select test_name, severity, passed, failures, datasets from mart_tests") == [
        ("own_rule", "warn", False, 2, ["a"])
    ]


def test_a_failure_that_names_no_dataset_is_of_whoever_brings_it(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    write_test(sql, "select 1 as broken from {{ ref('people') }} having count(*) > 6")
    with pytest.raises(MartTestError, match="own_rule"):
        release(project, "b", prepare(project, "b", 5))
    assert versions(project) == {"a": 1}
    # Once the file that is served fails it, the next publish is not to blame.
    write_test(sql, "select 1 as broken from {{ ref('people') }} having count(*) > 2")
    refresh_marts(project, {})
    release(project, "b", prepare(project, "b", 5))
    assert results(project) == {"own_rule": (False, "error", 1, ())}


def test_hiding_a_dataset_is_never_held_up(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    release(project, "b", prepare(project, "b", 4))
    write_test(sql, "select dataset from {{ ref('people') }}")
    assert retire(project, {}, "a", reason="gone")
    assert versions(project) == {"b": 1}


def test_going_back_is_never_held_up(project: Project, sql: Path) -> None:
    for rows in (4, 3):
        release(project, "a", prepare(project, "a", rows))
    write_test(sql, "select dataset from {{ ref('people') }} having count(*) > 3")
    rollback(project, {}, "a", 1, reason="back")
    assert versions(project) == {"a": 1}


def test_sql_that_fails_holds_up_no_hiding_and_no_mending(project: Project, sql: Path) -> None:
    for dataset in ("a", "b"):
        release(project, dataset, prepare(project, dataset, 4))
    good = (sql / "marts" / "people.sql").read_text()
    (sql / "marts" / "people.sql").write_text("select nonsense\n")
    assert retire(project, {}, "a", reason="gone")
    assert read(project, "select distinct dataset from segments") == [("b",)]
    project.published.unlink()
    assert mend(project, {})
    assert read(project, "select distinct dataset from segments") == [("b",)]
    assert digest_in_file(project) != models_digest(project), "the marts are still to be built"
    (sql / "marts" / "people.sql").write_text(good)
    refresh_marts(project, {})
    assert read(project, "select count(*) from people") == [(4,)]
    assert digest_in_file(project) == models_digest(project)


def test_sql_that_fails_leaves_the_file_as_it_was_and_names_the_model(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    before = project.published.read_bytes()
    (sql / "marts" / "people.sql").write_text("select no_such_column from {{ source('erasmo', 'segments') }}\n")
    for attempt in (
        lambda: release(project, "a", prepare(project, "a", 5)),
        lambda: refresh_marts(project, {}),
    ):
        with pytest.raises(ErasmoError, match=r"people\.sql.*no_such_column"):
            attempt()
        assert project.published.read_bytes() == before
        assert not list(project.published.parent.glob("*.tmp*"))
    assert versions(project) == {"a": 1}


def test_a_model_reads_nothing_but_the_published_tables(project: Project, sql: Path) -> None:
    secret = project.root / "secret.csv"
    secret.write_text("a\n1\n")
    (sql / "marts" / "people.sql").write_text(f"select * from read_csv('{secret}')\n")
    with pytest.raises(ErasmoError, match=r"people\.sql"):
        release(project, "a", prepare(project, "a", 4))


def test_the_file_says_which_sql_it_was_built_with(project: Project, sql: Path) -> None:
    assert digest_in_file(project) is None
    release(project, "a", prepare(project, "a", 4))
    first = models_digest(project)
    assert digest_in_file(project) == first
    (sql / "marts" / "more.sql").write_text("select dataset from {{ ref('people') }}\n")
    (sql / "target").mkdir()
    changed = models_digest(project)
    (sql / "target" / "run.sql").write_text("what dbt left")
    assert models_digest(project) == changed != first
    refresh_marts(project, {})
    assert digest_in_file(project) == changed
    assert read(project, "select count(*) from more") == [(4,)]


def test_a_file_that_was_lost_is_built_with_its_marts(project: Project, sql: Path) -> None:
    release(project, "a", prepare(project, "a", 4))
    project.published.unlink()
    assert mend(project, {})
    assert read(project, "select count(*) from people") == [(4,)]


def test_a_project_without_the_folder_is_published_without_marts(project: Project) -> None:
    done = publish(project, {}, "a", prepare(project, "a", 4), run_id="r", reason="test")
    assert done.marts.models == ()
    assert read_test_results(project.published) == []
    assert digest_in_file(project) == models_digest(project)


def test_the_file_is_read_by_earlier_releases_of_duckdb(project: Project, sql: Path) -> None:
    """DuckDB 1.5's own shell, and the storage of 1.0 that still earlier ones read."""
    import subprocess
    import sys

    release(project, "a", prepare(project, "a", 4))
    shell = Path(sys.executable).parent / "duckdb"
    asked = [
        shell,
        "-readonly",
        "-csv",
        project.published,
        "select count(*) as n from people join segments using (entity_key)",
    ]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split() == ["n", "4"]
    with duckdb.connect(project.published, read_only=True) as con:
        tags = con.execute("select tags from duckdb_databases() where not internal").fetchall()
    assert tags[0][0]["storage_version"].startswith("v1.0.0")


def test_the_digest_changes_with_every_model_and_every_description(project: Project, sql: Path) -> None:
    seen = {models_digest(project)}
    for path in sorted(sql.rglob("*.*")):
        path.write_text(path.read_text() + "\n")
        seen.add(models_digest(project))
    (sql / "marts" / "people.sql").rename(sql / "marts" / "persons.sql")
    seen.add(models_digest(project))
    assert len(seen) == 5
    (sql / "README.md").write_text("of no matter")
    assert models_digest(project) in seen
