"""The command: what it prints, how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from erasmo_dagster import cli
from erasmo_dagster.settings import Project
from tests.conftest import DatasetWriter, customers

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def erasmo(project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command inside the project: exit status, stdout, stderr."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("ERASMO_HOME", str(project.home))
    monkeypatch.setattr(cli.out, "width", 200)

    def erasmo(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["erasmo", *arguments])
        capfd.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return erasmo


def test_add_run_show_and_query(project: Project, erasmo: Command, tiny_model: object) -> None:
    customers().write_csv(project.root / "People 2024.csv")
    status, out, _ = erasmo("add", "People 2024.csv", "--key", "id", "--label", "kind")
    assert status == 0
    assert "erasmo run people_2024" in out
    assert (project.datasets_dir / ".schema.json").is_file()
    file = project.datasets_dir / "people_2024.yaml"
    file.write_text(
        file.read_text() + f"\nadapter: {{base_model: 'path:{tiny_model}', max_tokens: 200, device: cpu}}\n"
    )
    status, out, err = erasmo("run", "people_2024")
    assert (status, "published in" in out) == (0, True), err
    assert "Traceback" not in err
    assert "Warning" not in err
    status, out, _ = erasmo("show", "people_2024")
    assert "silhouette" in out
    assert "segments" in out
    status, out, err = erasmo("status")
    assert (status, err) == (0, "")
    assert "ok" in out
    query = "select dataset, count(*) n from segments group by all"
    assert erasmo("sql", query, "--format", "json")[1] == '{"dataset": "people_2024", "n": 60}\n'
    assert erasmo("sql", query, "--format", "csv")[1].splitlines() == ["dataset,n", "people_2024,60"]
    assert "people_2024" in erasmo("sql", query)[1]


def test_a_fault_is_one_line_and_status_one(erasmo: Command, write_dataset: DatasetWriter) -> None:
    write_dataset(extra="nonsense: 1\n")
    for arguments in (
        ("run", "customers"),
        ("run", "absent"),
        ("show", "customers"),
        ("run", "../x"),
        ("sql", "select 1"),
    ):
        status, out, err = erasmo(*arguments)
        assert status == 1
        assert out == ""
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1


def test_sql_reads_the_published_file_and_nothing_else(
    project: Project, erasmo: Command, write_dataset: DatasetWriter
) -> None:
    write_dataset()
    assert erasmo("run", "customers")[0] == 0
    before = project.published.read_bytes()
    for query in (
        "drop table segments",
        "delete from segments",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "copy segments to 'stolen.csv'",
        "attach 'other.duckdb'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "create table t as select 1",
        "export database 'x'",
        "nonsense",
    ):
        status, _, err = erasmo("sql", query)
        assert status == 1, query
        assert len(err.splitlines()) == 1
    assert project.published.read_bytes() == before
    assert not (project.root / "stolen.csv").exists()


def test_the_shipped_queries_run(project: Project, erasmo: Command, write_dataset: DatasetWriter) -> None:
    from erasmo_dagster.template import create_project

    write_dataset()
    erasmo("run", "customers")
    analyses = sorted((create_project(project.root / "new") / "dbt_like_sql" / "analyses").glob("*.sql"))
    assert analyses
    for file in analyses:
        status, out, err = erasmo("sql", "--file", str(file), "--format", "json")
        assert status == 0, err
        assert json.loads(out.splitlines()[0])["dataset"] == "customers"


def test_init_makes_a_project_and_refuses_a_full_folder(project: Project, erasmo: Command) -> None:
    assert erasmo("init", "fresh")[0] == 0
    made = {p.name for p in (project.root / "fresh").iterdir()}
    assert {"datasets", "dbt_like_sql", "workspace.yaml"} <= made
    status, _, err = erasmo("init", "fresh")
    assert status == 1
    assert "not empty" in err


def test_schema_is_json_that_knows_the_fields(erasmo: Command) -> None:
    status, out, _ = erasmo("schema")
    assert status == 0
    assert "clustering" in json.loads(out)["properties"]


def test_usage_errors_exit_with_two(erasmo: Command) -> None:
    assert erasmo("run")[0] == 2
    assert erasmo("sql")[0] == 1


@pytest.mark.slow
def test_versions_diff_rollback_and_status(project: Project, erasmo: Command, write_dataset: DatasetWriter) -> None:
    write_dataset()
    assert erasmo("status")[0] == 0  # unpublished is not wrong
    assert erasmo("run", "customers")[0] == 0
    write_dataset(frame=customers(64))
    status, out, err = erasmo("status")
    assert (status, "stale" in out) == (1, True)
    assert err == "customers is stale\n"
    status, out, _ = erasmo("run", "customers")
    assert "refresh" in out
    assert "4 new rows" in out
    status, out, _ = erasmo("versions", "customers")
    assert status == 0
    lines = out.splitlines()
    assert lines[1].split()[0] == "2"
    assert "published" in lines[1]
    assert "refresh" in lines[1]
    assert "passed" in lines[1]
    assert "retrain" in lines[2]
    assert lines[3].startswith("2 refresh: 4 new rows")
    status, out, _ = erasmo("diff", "customers", "1", "2")
    assert status == 0
    assert "60 to 64 rows; 4 new, 0 changed, 0 gone; one training" in out
    assert "gower_silhouette" in out
    assert erasmo("diff", "customers", "1", "9")[2].startswith("error: Got version 9 of 'customers'")
    status, out, _ = erasmo("rollback", "customers", "--to", "1")
    assert out == "Published version 1 of customers: 60 rows, 3 segments.\n"
    assert "published" in erasmo("versions", "customers")[1].splitlines()[2]
    assert erasmo("status")[0] == 0  # the table that was left is known
    assert erasmo("rollback", "customers", "--to", "7")[0] == 1
    for command in (("versions", "absent"), ("diff", "absent", "1", "2"), ("rollback", "absent", "--to", "1")):
        status, out, err = erasmo(*command)
        assert (status, out, len(err.splitlines())) == (1, "", 1)


@pytest.mark.slow
def test_a_blocked_run_says_so_and_status_names_it(
    project: Project, erasmo: Command, write_dataset: DatasetWriter
) -> None:
    write_dataset()
    assert erasmo("run", "customers")[0] == 0
    write_dataset(frame=customers(64), extra="gate: {min_segment_size: 60}\n")
    status, _, err = erasmo("run", "customers")
    assert status == 1
    assert "error: Got version 2 of 'customers' blocked at the gate (segments_are_large_enough" in err
    assert "Traceback" not in err
    status, out, err = erasmo("status")
    assert (status, err) == (1, "customers is blocked\n")
    assert "segments_are_large_enough" in out
    assert "blocked by segments_are_large_enough" in erasmo("versions", "customers")[1]


@pytest.mark.slow
def test_remove_and_gc(project: Project, erasmo: Command, write_dataset: DatasetWriter) -> None:
    file = write_dataset()
    assert erasmo("run", "customers")[0] == 0
    status, out, _ = erasmo("remove", "customers")
    assert (status, file.exists()) == (0, False)
    assert "is gone from" in out
    assert "retired" in erasmo("status")[1]
    assert "customers: deleted, its YAML is gone" in erasmo("gc")[1]
    assert "customers" not in erasmo("status")[1]
    assert erasmo("remove", "customers")[0] == 1
