"""The page "Query segments" does what it says: every query, from everywhere, and the mart that it adds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from erasmo_dagster import template
from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance, run_dataset, run_marts
from erasmo_dagster.settings import Project, open_project
from tests.conftest import DatasetWriter, customers, make_project

PAGE = Path(__file__).parents[2] / "docs" / "query-segments.md"
PUBLISHED = ".erasmo/published/segments.duckdb"


@dataclass(frozen=True)
class Block:
    language: str
    options: dict[str, str]
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)(.*)\n((?:.*\n)*?)```$", PAGE.read_text(), flags=re.MULTILINE)
    return [Block(language, dict(re.findall(r"(\w+)=(\S+)", rest)), text) for language, rest, text in found]


def of(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language and not block.options]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Project]:
    """A project as the page has it, with customers that were published twice; between the two, some moved."""
    made = make_project(tmp_path_factory.mktemp("docs"))
    shutil.copytree(Path(template.__file__).parent / "dbt_like_sql", made.sql_dir)
    project = open_project(made.root, made.root / ".erasmo")
    before = {name: os.environ.get(name) for name in ("ERASMO_HOME", "ERASMO_PROJECT", "DAGSTER_HOME")}
    write = DatasetWriter(project, tiny_model)
    with open_instance(project) as instance:
        write("customers")
        run_dataset(instance, project, "customers")
        # Six customers become as others are.
        rows = customers(66)
        moved = rows.select("id", pl.exclude("id").gather((pl.int_range(66) + (pl.int_range(66) < 6)) % 66))
        write("customers", moved, "refresh: {changed_share: 0.9, psi: 9}\n")
        run_dataset(instance, project, "customers")
    yield project
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def shell(project: Project, command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=project.root,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def comparable(rows: Any) -> list[tuple[str, ...]]:
    return [tuple(str(round(v, 4) if isinstance(v, float) else v) for v in row) for row in rows]


def test_the_page_has_five_queries_with_answers(project: Project) -> None:
    queries = of("sql")
    assert len(queries) == 5
    with duckdb.connect(project.published, read_only=True) as con:
        empty = [query.text for query in queries if not con.execute(query.text).fetchall()]
    assert empty == []


def test_every_query_has_one_answer_from_everywhere(project: Project) -> None:
    for block in of("sql"):
        with duckdb.connect(project.published, read_only=True) as con:
            rows = con.execute(block.text).fetchall()
            names = [column[0] for column in con.description or []]
            frame = con.sql(block.text).pl()
            pandas = con.sql(block.text).df()
        assert comparable(frame.rows()) == comparable(rows)
        assert list(pandas.columns) == names
        assert len(pandas) == len(rows)
        (project.root / "query.sql").write_text(block.text)
        lines = shell(project, "erasmo sql --file query.sql --format json").splitlines()
        assert comparable(tuple(json.loads(line).values()) for line in lines) == comparable(rows)
        answer = json.loads(shell(project, f'duckdb -readonly -json {PUBLISHED} < query.sql || echo "[]"') or "[]")
        assert [list(row) for row in answer] == [names] * len(rows)


@pytest.mark.parametrize("number", range(len([b for b in blocks() if b.language == "sh" and not b.options])))
def test_the_commands_run(project: Project, number: int) -> None:
    shell(project, of("sh")[number].text)


@pytest.mark.parametrize("number", range(len(of("python"))))
def test_the_python_runs(project: Project, number: int) -> None:
    (project.root / "example.py").write_text(of("python")[number].text)
    assert "customers" in shell(project, "python example.py")


def test_a_connection_that_is_kept_sees_the_next_publish_as_the_page_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    code = next(block.text for block in of("python") if "def latest" in block.text)
    scope: dict[str, Any] = {}
    exec(code, scope)  # the page's own words
    count = "select count(*) from published.segments"
    scope["con"].execute("create view kept as from published.segments")
    first = scope["latest"]().execute(count).fetchall()
    smaller = project.root / "smaller.duckdb"
    with duckdb.connect(smaller) as con:
        con.execute("create table segments as select 'customers' as dataset, 9 as version")
    original = project.published.read_bytes()
    try:
        smaller.replace(project.published)
        assert scope["con"].execute(count).fetchall() == first, "an open connection reads on in the old file"
        assert scope["latest"]().execute(count).fetchall() == [(1,)]
    finally:
        scope["con"].close()
        project.published.write_bytes(original)


def test_a_mart_is_a_file_and_becomes_an_asset_with_lineage_and_checks(project: Project) -> None:
    files = [block for block in blocks() if "file" in block.options]
    assert len(files) == 2
    for block in files:
        (project.root / block.options["file"]).write_text(block.text)
    key = dg.AssetKey(["marts", "segment_ages"])
    defs = build_definitions(project)
    graph = defs.resolve_asset_graph()
    assert graph.get(key).parent_keys == {dg.AssetKey(["staging", "stg_segment_sizes"])}
    checks = {check.name for check in graph.get_check_keys_for_assets({key})}
    assert checks == {"not_null_segment_ages_segment_id", "unique_segment_ages_segment_id"}
    with open_instance(project) as instance:
        run_marts(instance, project)
        event = instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        metadata = event.asset_materialization.metadata
        found = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            list(graph.get_check_keys_for_assets({key}))
        )
    assert {check.name for check in found} == checks
    lineage = metadata["dagster/column_lineage"].value.deps_by_column
    assert [(d.asset_key.path, d.column_name) for d in lineage["segment_rows"]] == [
        (["staging", "stg_segment_sizes"], "rows")
    ]
    columns = {column.name: column.type for column in metadata["dagster/column_schema"].value.columns}
    assert columns["segment_id"] == "INTEGER"
    with duckdb.connect(project.published, read_only=True) as con:
        assert con.execute("select sum(segment_rows) from segment_ages").fetchall() == [(66,)]


def test_the_table_of_marts_is_the_folder(project: Project) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE))
    shipped = {path.stem for path in (Path(template.__file__).parent / "dbt_like_sql" / "marts").glob("*.sql")}
    assert listed == shipped


def test_the_queries_of_the_other_pages_run(project: Project) -> None:
    root = PAGE.parents[1]
    readme = (root / "README.md").read_text()
    queries = re.findall(r'erasmo sql "(select [^"]+)"', readme)
    fresh = (root / "docs" / "keep-segments-fresh.md").read_text()
    queries += re.findall(r"^```sql\n((?:.*\n)*?)```$", fresh, flags=re.MULTILINE)
    assert len(queries) >= 3
    with duckdb.connect(project.published, read_only=True) as con:
        for query in queries:
            con.execute(query)


def test_the_tables_that_the_readme_lists_are_those_of_the_file(project: Project) -> None:
    readme = (PAGE.parents[1] / "README.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z_<>]+)` \| [^|]+ \| ([^|]+) \|$", readme, flags=re.MULTILINE))
    with duckdb.connect(project.published, read_only=True) as con:
        tables = con.execute(
            "select table_name, list(column_name order by column_index) from duckdb_columns() where not internal"
            " group by table_name"
        ).fetchall()
    held = dict(tables)
    fixed = {name: columns for name, columns in listed.items() if name != "<dataset>_segmented"}
    assert {name: ", ".join(held[name]) for name in fixed} == fixed
    assert "customers_segmented" in held
