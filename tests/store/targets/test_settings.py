"""The targets of erasmo.yaml: what may be said, and that no refusal shows a password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ParquetTarget, PostgresTarget, Project, ProjectSettings, open_project

SECRET = "hunter2-very-secret"
URL = f"postgresql://erasmo:{SECRET}@127.0.0.1/x"


def opened(project: Project, publish: Any) -> ProjectSettings:
    (project.root / "erasmo.yaml").write_text(yaml.safe_dump({"publish": publish}))
    return open_project(project.root, project.home).settings


def test_by_default_there_is_the_file_alone(project: Project) -> None:
    assert project.settings.copies == ()
    assert [target.kind for target in ProjectSettings().publish] == ["duckdb"]


def test_the_yaml_of_the_docs(project: Project) -> None:
    docs = (Path(__file__).parents[3] / "docs" / "targets.md").read_text()
    text = docs.partition("```yaml\n")[2].partition("```")[0]
    (project.root / "erasmo.yaml").write_text(text)
    team, lake = open_project(project.root, project.home).settings.copies
    assert isinstance(team, PostgresTarget)
    assert (team.name, team.schema_name, team.keep, team.leave_out) == ("team", "erasmo", 2, ("stg_*",))
    assert isinstance(lake, ParquetTarget)
    assert (lake.name, lake.keep) == ("lake", 2)


@pytest.mark.parametrize(
    ("publish", "told"),
    [
        ([{"kind": "parquet", "path": "x"}], "expected `duckdb` among them"),
        ([], "expected `duckdb` among them"),
        ("duckdb", "expected a list of targets"),
        ({"kind": "postgresql", "url": URL}, "expected a list of targets"),
        (["duckdb", "parquet"], "got no `publish.1.parquet.path`, which is required"),
        (["duckdb", URL], "expected `duckdb`, or a mapping with `kind`, one of duckdb, postgresql, parquet"),
        (["duckdb", 7], "expected `duckdb`, or a mapping"),
        (["duckdb", {"kind": "postgres", "url": URL}], "expected `duckdb`, or a mapping"),
        (["duckdb", {"kind": ["postgresql"], "url": URL}], "expected `duckdb`, or a mapping"),
        (["duckdb", {"kind": "postgresql", "url": URL}], r"expected `\$\{VARIABLE\}` and nothing else"),
        (["duckdb", {"kind": "postgresql", "url": f"${{A}}{SECRET}"}], r"expected `\$\{VARIABLE\}` and nothing else"),
        (["duckdb", {"kind": "postgresql", "url": {SECRET: URL}}], r"expected `\$\{VARIABLE\}` and nothing else"),
        (
            ["duckdb", {"kind": "postgresql", "url": "${A}", "shema": URL}],
            "expected one of: leave_out, kind, name, url, s",
        ),
        (["duckdb", {"kind": "postgresql", "url": "${A}", "schema": "pg_x"}], "begins with pg_"),
        (["duckdb", {"kind": "postgresql", "url": "${A}", "schema": "A b"}], "`publish.1.postgresql.schema`"),
        (["duckdb", {"kind": "postgresql", "url": "${A}", "keep": 0}], "`publish.1.postgresql.keep`"),
        (["duckdb", {"kind": "parquet", "path": f"s3://key:{SECRET}@bucket/x"}], "address with a user in it"),
        (["duckdb", {"kind": "parquet", "path": "x", "endpoint_url": f"http://a:{SECRET}@b"}], "with a user in it"),
        (
            ["duckdb", {"kind": "parquet", "path": "x"}, {"kind": "parquet", "path": "y"}],
            "several targets named parquet",
        ),
        (["duckdb", {"kind": "parquet", "path": "x", "name": "duckdb"}], "several targets named duckdb"),
        (
            ["duckdb", {"kind": "parquet", "path": "x"}, {"kind": "parquet", "path": "x/", "name": "y"}],
            "two targets that write to one place",
        ),
    ],
)
def test_what_is_not_a_target_is_told(project: Project, publish: Any, told: str) -> None:
    with pytest.raises(ErasmoError, match=told) as caught:
        opened(project, publish)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "az"])
def test_a_container_of_azure_is_no_user(scheme: str) -> None:
    def target(path: str) -> ParquetTarget:
        return ParquetTarget.model_validate({"kind": "parquet", "path": path})

    path = f"{scheme}://segments@account.dfs.core.windows.net/team"
    assert target(path).path == path
    for refused in (f"{scheme}://user:{SECRET}@account/team", f"simplecache::s3://{SECRET}@bucket/x"):
        with pytest.raises(ValueError, match="address with a user in it"):
            target(refused)


def test_a_password_beside_it_is_not_in_the_chain(project: Project) -> None:
    (project.root / "erasmo.yaml").write_text(yaml.safe_dump({"lock_timeout": -1, "database": URL}))
    with pytest.raises(ErasmoError) as caught:
        open_project(project.root, project.home)
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"
