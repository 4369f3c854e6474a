"""Models are built into the published file, their tests run there, and nothing else is reached from it."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql_models import Build, TestResult, build_models, load_sql_project
from tests.dbt.sample import write_sample
from tests.store.sql_folder import STAGED, build, folder, load, published, rows
from tests.store.test_sql_models import REAL

STAGING = {
    "models/stg_segments.sql": STAGED,
    "models/sizes.sql": "{{ config(materialized='table') }}\nselect dataset, segment_id, count(*) as n"
    " from {{ ref('stg_segments') }} group by all order by n desc, dataset desc, segment_id",
}


def results(built: Build) -> dict[str, TestResult]:
    return {test.name: test for test in built.tests}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def with_tests(*entries: str, column: str = "entity_key") -> dict[str, str]:
    listed = "".join(f"          - {entry}\n" for entry in entries)
    text = f"models:\n  - name: stg_segments\n    columns:\n      - name: {column}\n        data_tests:\n{listed}"
    return STAGING | {"models/a.yml": text}


def only(tmp_path: Path, entry: str, *, column: str = "entity_key") -> TestResult:
    (result,) = build(tmp_path, with_tests(entry, column=column)).tests
    return result


def test_views_and_tables_are_made_with_their_rows_and_types(tmp_path: Path) -> None:
    built = build(tmp_path, STAGING)
    view, table = built.models
    assert (view.name, view.rows, table.name, table.rows) == ("stg_segments", 6, "sizes", 5)
    assert list(table.columns.items()) == [("dataset", "VARCHAR"), ("segment_id", "INTEGER"), ("n", "BIGINT")]
    assert table.seconds > 0
    path = tmp_path / "segments.duckdb"
    kinds = "SELECT table_name, table_type FROM information_schema.tables WHERE table_name IN ('stg_segments', 'sizes')"
    assert dict(rows(path, kinds)) == {"stg_segments": "VIEW", "sizes": "BASE TABLE"}
    order = [("a", 0, 2), ("b", 0, 1), ("b", 7, 1), ("b", None, 1), ("a", 1, 1)]
    assert rows(path, "FROM sizes") == order
    assert names(tmp_path) == ["segments.duckdb", "sql"]


def test_views_work_under_any_name_of_the_file_and_beside_another_default(tmp_path: Path) -> None:
    top = "select s.*, t.n from {{ ref('stg_segments') }} s join {{ ref('sizes') }} t using (dataset)"
    bare = "with x as (from segments) select x.dataset, main.sizes.n from x, sizes, {{ ref('sizes') }} as y"
    build(tmp_path, STAGING | {"models/top.sql": top, "models/bare.sql": bare})
    path = tmp_path / "segments.duckdb"
    expected = [rows(path, f"FROM {view} ORDER BY ALL") for view in ("top", "bare")]
    moved = shutil.move(path, tmp_path / "another name.db")
    with duckdb.connect() as con:
        con.execute("CREATE TABLE segments AS SELECT 1 AS wrong")
        con.execute(f"ATTACH '{moved}' AS p (READ_ONLY)")
        assert [con.execute(f"FROM p.{view} ORDER BY ALL").fetchall() for view in ("top", "bare")] == expected
        stored = con.execute("SELECT sql FROM duckdb_views() WHERE database_name = 'p' AND NOT internal").fetchall()
    assert stored
    assert not any(name in sql for (sql,) in stored for name in ("segments.main", "p.main"))


def test_descriptions_become_comments(tmp_path: Path) -> None:
    text = """
models:
  - name: sizes
    description: It's one row per segment.
    columns: [{name: N, description: "Rows; how many"}, {name: gone, description: Not there.}, {name: dataset}]
  - {name: stg_segments, description: As they are., columns: [{name: dataset, description: The dataset.}]}
"""
    build(tmp_path, STAGING | {"models/a.yml": text})
    path = tmp_path / "segments.duckdb"
    query = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL ORDER BY ALL"
    assert rows(path, query) == [("sizes", "n", "Rows; how many"), ("stg_segments", "dataset", "The dataset.")]
    assert rows(path, "SELECT comment FROM duckdb_tables() WHERE table_name = 'sizes'") == [
        ("It's one row per segment.",)
    ]
    assert rows(path, "SELECT comment FROM duckdb_views() WHERE view_name = 'stg_segments'") == [("As they are.",)]


def test_a_rerun_replaces_views_and_tables_whichever_they_were(tmp_path: Path) -> None:
    build(tmp_path, STAGING)
    path = tmp_path / "segments.duckdb"
    swapped = {
        "models/stg_segments.sql": "{{ config(materialized='table') }} " + STAGED,
        "models/sizes.sql": "select 1 as one from {{ ref('stg_segments') }}",
    }
    again = build_models(path, load(tmp_path, swapped))
    assert [model.rows for model in again.models] == [6, 6]
    assert rows(path, "SELECT DISTINCT * FROM sizes") == [(1,)]
    assert build_models(path, load(tmp_path, STAGING)).models[1].rows == 5


def test_a_build_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    build(tmp_path, STAGING)
    path = tmp_path / "segments.duckdb"
    before = rows(path, "FROM sizes")
    faulty = load(
        tmp_path, {"models/sizes.sql": "{{ config(materialized='table') }} select 1 as x", "tests/t.sql": "from gone"}
    )
    with pytest.raises(ErasmoError, match=r"sql/tests/t\.sql"):
        build_models(path, faulty)
    assert rows(path, "FROM sizes") == before
    assert names(tmp_path) == ["segments.duckdb", "sql"]


RUNTIME = {
    "a table that is not there": ("select * from gone", "gone does not exist", "ref and published"),
    "a source that is not in the file": (
        "from {{ source('erasmo', 'x_segmented') }}",
        "x_segmented does not exist",
        "source",
    ),
    "a column that is not there": (
        "select nope from segments",
        'Referenced column "nope" not found',
        "at `select nope",
    ),
    "a cast that fails": (
        "{{ config(materialized='table') }} select entity_key::date as d from segments",
        "1",
        "mend its SQL",
    ),
    "a file": ("select * from 'x.csv'", "x.csv", "reads the published tables alone"),
    "a file of the system": ("select * from read_text('/etc/passwd')", "/etc/passwd", "published tables alone"),
    "files by a pattern": ("select * from glob('/etc/*')", "/etc/*", "published tables alone"),
    "a network": (
        "select * from 'https://localhost:1/x.parquet'",
        "https://localhost:1/x.parquet",
        "published tables alone",
    ),
    "another database": ("select * from sqlite_scan('x', 'y')", "extension", "mend"),
    "a table of Python": ("select * from python_table", "python_table does not exist", "source"),
    "a writing query within a text": ("select * from query('drop table segments')", "SELECT", "mend"),
}


@pytest.mark.parametrize(("text", "says", "more"), RUNTIME.values(), ids=RUNTIME)
def test_sql_that_cannot_run_is_told_with_its_file(tmp_path: Path, text: str, says: str, more: str) -> None:
    python_table = duckdb.sql("select 1 as x").to_arrow_table()
    assert python_table.num_rows == 1
    source = "sources: [{name: erasmo, tables: [{name: x_segmented}]}]"
    with pytest.raises(ErasmoError) as raised:
        build(tmp_path, {"models/marts/a.sql": text, "models/s.yml": source})
    told = str(raised.value)
    assert "sql/models/marts/a.sql" in told
    assert says in told
    assert more in told
    assert raised.value.fix
    assert "\n" not in told


def test_a_test_that_cannot_run_is_told_with_its_file_and_name(tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match=r"sql/models/a.yml, test not_null_stg_segments_nope: .*nope"):
        build(tmp_path, with_tests("not_null", column="nope"))


@pytest.mark.parametrize(
    "word", ["insert into segments values ('z', 'z', 9)", "delete from segments", "copy segments to 'y.csv'"]
)
def test_a_with_that_writes_never_runs_even_where_nobody_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr("erasmo_dagster.store.sql._MAY_WRITE", re.compile("(?!)"))
    text = f"with x as ({word}) select 1 as one"
    for files in (
        {"models/a.sql": "{{ config(materialized='table') }} " + text},
        {"models/a.sql": text},
        {"tests/t.sql": text},
    ):
        shutil.rmtree(tmp_path / "sql", ignore_errors=True)
        (tmp_path / "segments.duckdb").unlink(missing_ok=True)
        with pytest.raises(ErasmoError, match="must be at the top level"):
            build(tmp_path, files)
        assert rows(tmp_path / "segments.duckdb", "SELECT count(*) FROM segments") == [(6,)]
    assert names(tmp_path) == ["segments.duckdb", "sql"]


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="Got no file"):
        build_models(tmp_path / "gone.duckdb", load(tmp_path))
    assert not (tmp_path / "gone.duckdb").exists()


def test_times_are_utc_wherever_the_build_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    text = "{{ config(materialized='table') }} select timestamptz '2026-01-01 12:00:00+00' :: varchar as t"
    build(tmp_path, {"models/a.sql": text})
    assert rows(tmp_path / "segments.duckdb", "FROM a") == [("2026-01-01 12:00:00+00",)]


def test_not_null_finds_the_rows_without_a_value(tmp_path: Path) -> None:
    result = only(tmp_path, "not_null")
    assert (result.passed, result.failures, result.datasets, result.severity) == (False, 1, ("b",), "error")
    assert result.message == "1 failing row of b"


def test_a_test_without_failing_rows_passes(tmp_path: Path) -> None:
    result = only(tmp_path, "not_null", column="dataset")
    assert (result.passed, result.failures, result.datasets, result.message) == (True, 0, (), "no failing rows")


def test_unique_finds_every_row_of_a_value_that_occurs_again_and_no_null(tmp_path: Path) -> None:
    result = only(tmp_path, "unique")
    assert (result.failures, result.datasets) == (3, ("a", "b"))
    (tmp_path / "segments.duckdb").unlink()
    result = only(tmp_path, "unique: {config: {where: \"dataset = 'b'\", severity: warn}}")
    assert (result.failures, result.datasets, result.severity) == (2, ("b",), "warn")


def test_unique_takes_an_expression_of_a_model(tmp_path: Path) -> None:
    argument = "dataset || '.' || entity_key"
    text = f'models: [{{name: stg_segments, data_tests: [{{unique: {{arguments: {{column_name: "{argument}"}}}}}}]}}]'
    (result,) = build(tmp_path, STAGING | {"models/a.yml": text}).tests
    assert (result.failures, result.datasets, result.column) == (2, ("b",), None)


def test_accepted_values_finds_the_others_and_no_null(tmp_path: Path) -> None:
    result = only(tmp_path, "accepted_values: {arguments: {values: [1, 2]}}")
    assert (result.failures, result.datasets) == (1, ("a",))
    (tmp_path / "segments.duckdb").unlink()
    result = only(tmp_path, "accepted_values: {arguments: {values: [0, 1], quote: false}}", column="segment_id")
    assert (result.failures, result.datasets) == (1, ("b",))


def test_relationships_finds_the_rows_without_a_parent_and_no_null(tmp_path: Path) -> None:
    to_source = "relationships: {arguments: {to: \"source('erasmo', 'segment_sizes')\", field: segment_id}}"
    result = only(tmp_path, to_source, column="segment_id")
    assert (result.failures, result.datasets) == (1, ("b",))
    (tmp_path / "segments.duckdb").unlink()
    to_model = "relationships: {arguments: {to: ref('sizes'), field: segment_id}}"
    assert only(tmp_path, to_model, column="segment_id").passed


def test_a_parents_column_that_is_not_there_is_no_column_of_the_child(tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match=r"sql/models/a.yml, test relationships_.*entity_key"):
        only(tmp_path, "relationships: {arguments: {to: ref('sizes'), field: entity_key}}")


def test_singular_tests_count_their_rows_and_name_the_datasets_that_they_select(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        STAGING
        | {
            "tests/many.sql": "select Dataset, n from {{ ref('sizes') }} where n = 1 -- all of them",
            "tests/none.sql": "select * from {{ ref('sizes') }} where n > 9;",
            "tests/nameless.sql": "{{ config(severity='warn') }} select 1 as x union all select 2",
            "tests/null_dataset.sql": "select null as dataset",
            "tests/two_of_a_name.sql": "with rows as (select 1 as x) select * from rows",
        },
    )
    found = results(built)
    assert (found["many"].failures, found["many"].datasets) == (4, ("a", "b"))
    assert found["many"].message == "4 failing rows of a, b"
    assert found["none"].passed
    assert (found["nameless"].failures, found["nameless"].datasets, found["nameless"].severity) == (2, (), "warn")
    assert (found["null_dataset"].failures, found["null_dataset"].datasets) == (1, ())
    assert found["nameless"].message == "2 failing rows"


def test_tests_of_sources_run(tmp_path: Path) -> None:
    text = "sources: [{name: erasmo, tables: [{name: other, columns: [{name: x, data_tests: [unique]}]}]}]"
    path = published(tmp_path / "segments.duckdb")
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE other AS SELECT 1 AS x FROM range(2)")
    (result,) = build_models(path, load(tmp_path, {"models/o.yml": text})).tests
    assert (result.name, result.model, result.failures) == ("source_unique_erasmo_other_x", None, 2)


LINEAGE = """
with members as (select * from {{ ref('stg_segments') }}),
totals as (select dataset, sum(rows) as total from {{ source('erasmo', 'segment_sizes') }} group by dataset)
select
    members.dataset,
    members.entity_key || '!' as Shout,
    totals.total / count(*) over (partition by segment_id) as part,
    (select max(rows) from {{ source('erasmo', 'segment_sizes') }}) as most,
    1 as one,
    count(*) over ()
from members left join totals using (dataset)
"""


def test_lineage_names_the_columns_of_the_tables_that_a_model_reads_itself(tmp_path: Path) -> None:
    built = {model.name: model for model in build(tmp_path, STAGING | {"models/top.sql": LINEAGE}).models}
    assert built["stg_segments"].lineage["entity_key"] == [("source", "segments", "entity_key")]
    lineage = built["top"].lineage
    assert list(lineage) == list(built["top"].columns)
    assert ("model", "stg_segments", "dataset") in lineage["dataset"]
    assert lineage["Shout"] == [("model", "stg_segments", "entity_key")]
    assert lineage["part"] == [("model", "stg_segments", "segment_id"), ("source", "segment_sizes", "rows")]
    assert lineage["most"] == [("source", "segment_sizes", "rows")]
    assert lineage["one"] == []


ODD = {
    "by position": "select columns('e.*') from {{ ref('stg_segments') }}",
    "from first": "from {{ ref('stg_segments') }} select dataset",
    "a pivot": "pivot (from {{ ref('stg_segments') }}) on segment_id in (0, 1) using count(*) group by dataset",
    "a summary": "summarize {{ ref('stg_segments') }}",
    "a list comprehension": "select [x for x in [dataset]] as l, {'a': entity_key} as s from {{ ref('stg_segments') }}",
    "a recursion": "with recursive t(i) as (select 1 union all select i + 1 from t where i < 3) select i from t",
    "values": "values (1, 2), (3, 4)",
    "positional join": "select * from {{ ref('stg_segments') }} a positional join {{ ref('sizes') }} b",
    "as of": "select a.dataset from {{ ref('stg_segments') }} a asof join {{ ref('sizes') }} b on a.segment_id >= b.n",
    "unnest": "select unnest({'a': dataset, 'b': entity_key}) from {{ ref('stg_segments') }}",
    "a lateral": "select dataset, y from {{ ref('stg_segments') }} s, lateral (select s.segment_id + 1 as y)",
    "a union by name": "from {{ ref('stg_segments') }} union all by name select 'x' as dataset",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_lineage_of_odd_sql_has_every_column_and_says_nothing(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = build(tmp_path, STAGING | {"models/odd.sql": text}).models
    (odd,) = [model for model in built if model.name == "odd"]
    assert list(odd.lineage) == list(odd.columns)
    tables = {"stg_segments": "model", "sizes": "model"}
    for origins in odd.lineage.values():
        assert all(tables[table] == kind for kind, table, _ in origins)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_real_folder_builds_and_every_test_passes(tmp_path: Path) -> None:
    project = load_sql_project(REAL)
    assert project is not None
    built = build_models(write_sample(tmp_path / "segments.duckdb"), project)
    assert len(built.models) == len(project.models) > 10
    assert [test.name for test in built.tests] == [test.name for test in project.tests]
    assert [test.name for test in built.tests if not test.passed] == []
    assert json.dumps([model.lineage for model in built.models])


def test_the_file_keeps_its_storage_version(tmp_path: Path) -> None:
    build(tmp_path, STAGING)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{tmp_path / 'segments.duckdb'}' AS p (READ_ONLY)")
        tags = con.execute(
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = 'p'"
        ).fetchall()
    assert "v1.0" in str(tags)


def test_a_folder_elsewhere_is_not_touched(tmp_path: Path) -> None:
    root = folder(tmp_path, STAGING)
    before = sorted(path.name for path in root.rglob("*"))
    build(tmp_path, STAGING)
    assert sorted(path.name for path in root.rglob("*")) == before
