"""What `erasmo add` decides of a table, and the YAML that it writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project, load_dataset
from erasmo_dagster.store.draft import scalar
from erasmo_dagster.store.infer import Inferred, infer_dataset, write_dataset
from erasmo_dagster.store.sources import snapshot_source

ROWS = 40


@pytest.fixture
def customers(project: Project) -> Path:
    """A table with one column of every sort that is told apart."""
    path = project.root / "Customers 2024.csv"
    pl.DataFrame(
        {
            "id": [f"c{i:03}" for i in range(ROWS)],
            "row": list(range(1, ROWS + 1)),
            "age": [str(20 + i * 7 % 50) if i % 9 else "NA" for i in range(ROWS)],
            "income": [1000.5 + i * 37 for i in range(ROWS)],
            "job": [["nurse", "cook", "NA"][i % 3] for i in range(ROWS)],
            "rating": [1 + i % 5 for i in range(ROWS)],
            "member": [i % 2 == 0 for i in range(ROWS)],
            "since": [f"20{10 + i % 10}-01-01" for i in range(ROWS)],
            "note": [f"asked about offer {i} twice in the spring" for i in range(ROWS)],
            "email": [f"person{i}@example.org" for i in range(ROWS)],
            "call": [f"+49 30 {1234567 + i}" for i in range(ROWS)],
            "token": [f"{i:08x}-0000-4000-8000-{i:012x}" for i in range(ROWS)],
            "country": ["DE"] * ROWS,
            "fax": [None] * ROWS,
            "city": [["Ulm", "Bonn"][i % 2] for i in range(ROWS)],
        }
    ).write_csv(path)
    return path


def infer(file: Path | str, project: Project, *key: str, **options: Any) -> tuple[Inferred, DatasetSettings]:
    inferred = infer_dataset(str(file), key, project, **options)
    return inferred, DatasetSettings.model_validate(yaml.safe_load(inferred.yaml))


def refusal(file: Path | str, project: Project, key: Sequence[str] = (), **options: Any) -> str:
    with pytest.raises(ErasmoError) as caught:
        infer_dataset(str(file), key, project, **options)
    assert list(project.datasets_dir.iterdir()) == []
    return str(caught.value)


def test_roles_and_kinds(customers: Path, project: Project) -> None:
    inferred, settings = infer(customers, project, "id", label="city")
    assert inferred.name == "customers_2024"
    assert settings.source.path == "Customers 2024.csv"
    assert settings.source.null_values == ("NA",)
    assert settings.key == ("id",)
    assert settings.label == "city"
    assert settings.drop == ("row", "email", "call", "token")
    assert settings.sensitive == ("email", "call")
    assert {name: column.kind for name, column in settings.columns.items()} == {
        "age": "number",
        "income": "number",
        "job": "category",
        "rating": "number",
        "member": "boolean",
        "since": "datetime",
        "note": "text",
        "country": "category",
        "fax": "category",
    }


def test_decisions_are_told_one_a_line_without_values(customers: Path, project: Project) -> None:
    inferred, _ = infer(customers, project, "id")
    told = inferred.decisions
    assert "dataset customers_2024: 40 rows, 15 columns of Customers 2024.csv" in told
    assert "missing: 'NA' (18 cells)" in told
    assert "number: age, income, rating" in told
    assert "dropped: email (looks like e-mail addresses)" in told
    assert "dropped: token (looks like UUIDs)" in told
    assert "dropped: row (looks like a running number)" in told
    assert "sensitive: call" in told
    assert any(line.startswith("rating: 5 whole numbers from 1 to 5") for line in told)
    assert "country: the same in every row: the method leaves it out" in told
    assert "fax: no value in any row: the method leaves it out" in told
    assert not any("\n" in line for line in told)
    whole = inferred.yaml + "\n".join(told)
    assert "person" not in whole
    assert "+49" not in whole


def test_the_yaml_that_is_written_can_be_run(customers: Path, project: Project) -> None:
    inferred, settings = infer(customers, project, "id")
    path = write_dataset(project, inferred)
    assert path == project.datasets_dir / "customers_2024.yaml"
    assert [entry.name for entry in project.datasets_dir.iterdir()] == [path.name]
    loaded = load_dataset(project, "customers_2024")
    assert loaded == settings
    snapshot = snapshot_source("customers_2024", loaded, project, project.home / "t.parquet")
    assert snapshot.rows == ROWS
    assert snapshot.columns["age"] == "BIGINT"


def test_a_dataset_is_never_overwritten(customers: Path, project: Project) -> None:
    inferred, _ = infer(customers, project, "id")
    path = write_dataset(project, inferred)
    path.write_text("mine")
    with pytest.raises(ErasmoError, match="has already"):
        write_dataset(project, inferred)
    with pytest.raises(ErasmoError, match="has already"):
        infer(customers, project, "id")
    assert path.read_text() == "mine"


def test_without_a_key_columns_that_could_be_one_are_named(customers: Path, project: Project) -> None:
    message = refusal(customers, project)
    assert "such as: id, row, note, email, call" in message
    assert "--key" in message
    other = project.root / "pairs.csv"
    other.write_text("a,b\n1,1\n1,2\n2,1\n")
    assert "no column of it names each row" in refusal(other, project)
    _, settings = infer(other, project, "a", "b")
    assert settings.key == ("a", "b")


def test_a_key_or_label_that_does_not_hold(customers: Path, project: Project) -> None:
    assert "Got 5 values (1, 2, 3)" in refusal(customers, project, ["rating"]).replace("'", "")
    assert "without a value in key 'fax'" in refusal(customers, project, ["fax"])
    assert "did you mean 'id'?" in refusal(customers, project, ["ID"])
    assert "Got `label` 'town'" in refusal(customers, project, ["id"], label="town")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("data/Müller & Söhne.v2.csv", "muller_sohne"),
        ("2024.csv", "table_2024"),
        ("日本.csv", "table"),
        ("a" * 80 + ".csv", "a" * 48),
        ("_x-Y_.parquet.csv", "x_y"),
    ],
)
def test_a_name_from_the_file(project: Project, file: str, name: str) -> None:
    path = project.root / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("id,x\n1,2\n2,4\n")
    inferred, settings = infer(path, project, "id")
    assert inferred.name == name
    assert settings.source.path == file


@pytest.mark.parametrize("name", ["../x", 'a";drop schema', "Bank", "x" * 49, ""])
def test_a_bad_name_is_refused(project: Project, name: str) -> None:
    (project.root / "t.csv").write_text("id\n1\n2\n")
    if name:
        assert "Got dataset name" in refusal(project.root / "t.csv", project, ["id"], name=name)
    else:
        assert infer(project.root / "t.csv", project, "id", name=name)[0].name == "t"


def test_paths_are_relative_inside_the_project_and_absolute_outside(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = project.root / "data", tmp_path / "elsewhere"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "t.csv").write_text("id\n1\n2\n")
    monkeypatch.chdir(inside)
    assert infer("t.csv", project, "id")[1].source.path == "data/t.csv"
    assert infer("data/t.csv", project, "id")[1].source.path == "data/t.csv"
    assert infer("../../elsewhere/t.csv", project, "id")[1].source.path == str(outside / "t.csv")
    (project.root / "~t.csv").write_text("id\n1\n2\n")
    assert infer(project.root / "~t.csv", project, "id")[1].source.path == "./~t.csv"


def test_tables_of_databases(project: Project) -> None:
    with closing(sqlite3.connect(project.root / "shop.db")) as con:
        con.execute("CREATE TABLE people AS SELECT 1 AS id, x'00' AS photo UNION ALL SELECT 2, x'01'")
        con.execute("CREATE TABLE other (id)")
        con.commit()
    assert "expected one of: other, people" in refusal(project.root / "shop.db", project, ["id"])
    inferred, settings = infer(project.root / "shop.db", project, "id", table="people")
    assert inferred.name == "people"
    assert settings.source.table == "people"
    assert settings.drop == ("photo",)


def test_a_column_of_numbers_but_for_some_is_told(project: Project) -> None:
    path = project.root / "t.csv"
    path.write_text("id,size\n" + "".join(f"{i},{i % 77 if i else 'large'}\n" for i in range(200)))
    inferred, settings = infer(path, project, "id")
    assert "size: text, for 1 of 200 values are no numbers, the first in row 1" in inferred.decisions
    assert settings.columns["size"].kind == "category"
    assert snapshot_source("t", settings, project, project.home / "t.parquet").rows == 200


def test_marks_are_missing_values_only_where_that_is_proved(project: Project) -> None:
    path = project.root / "t.csv"
    path.write_text("id,country,size\n" + "".join(f"{i},{['NA', 'DE'][i % 2]},{i * 3 % 7}\n" for i in range(20)))
    inferred, settings = infer(path, project, "id")
    assert settings.source.null_values == ()
    assert any("list it under source.null_values" in line for line in inferred.decisions)


def test_numbers_that_are_no_names_of_rows_stay(project: Project) -> None:
    path = project.root / "t.parquet"
    frame = {"id": range(30), "income": [i * i + 7 for i in range(30)], "score": [i / 7 for i in range(30)]}
    names = {
        "name": [f"{'ab'[i % 2]}{'xyzuv'[i % 5]}{'lmn'[i % 3]}" for i in range(30)],
        "shop_id": [i * i for i in range(30)],
    }
    pl.DataFrame(frame | names).write_parquet(path)
    assert infer(path, project, "id")[1].drop == ("shop_id",)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_any_name_is_one_yaml_scalar(name: str) -> None:
    written = scalar(name)
    assert yaml.safe_load(f"x: {written}  # why\n{written}: {{y: {written}}}") == {"x": name, name: {"y": name}}
    assert len(written.splitlines()) == 1
    assert yaml.safe_load(f"- {written}  # why") == [name]


def test_hostile_names_read_back(project: Project) -> None:
    names = [
        "two words",
        'quo"te',
        "it's",
        "null",
        "yes",
        "1",
        "2020-01-01",
        "- x",
        "a: b",
        "#",
        "{x}",
        "😀",
        "n" * 200,
    ]
    path = project.root / "it's a: {table} #1.parquet"
    pl.DataFrame({name: [f"{name} {i % 3} {i}" for i in range(6)] for name in names}).write_parquet(path)
    inferred, settings = infer(path, project, *names[:3], label=names[3])
    assert settings.key == tuple(names[:3])
    assert settings.label == names[3]
    assert set(settings.columns) == set(names[4:])
    write_dataset(project, inferred)
    loaded = load_dataset(project, inferred.name)
    assert snapshot_source(inferred.name, loaded, project, project.home / "t.parquet").rows == 6


def test_nested_dates_and_decimals_have_kinds(project: Project) -> None:
    out = project.root / "t.parquet"
    duckdb.execute(
        "COPY (SELECT i AS id, [i] AS l, {'a': i} AS s, date '2020-01-01' + i::INT AS d, i::DECIMAL(9, 2) AS p,"
        f" time '10:00' AS t FROM range(3) r(i)) TO '{out}' (FORMAT parquet)"
    )
    kinds = {name: column.kind for name, column in infer(out, project, "id")[1].columns.items()}
    assert kinds == {"l": "nested", "s": "nested", "d": "datetime", "p": "number"}


def test_the_lines_of_a_text_file_are_rows(project: Project) -> None:
    (project.root / "My notes.txt").write_text("ok\n\nwait\nNA\n")
    inferred, settings = infer("My notes.txt", project)
    assert inferred.name == "my_notes"
    assert settings.key == ("line",)
    assert {name: column.kind for name, column in settings.columns.items()} == {"text": "text"}
    assert settings.source.null_values == ()
    assert "dataset my_notes: 3 rows, 2 columns of My notes.txt" in inferred.decisions
    assert "erasmo add 'My notes.txt'`" in inferred.yaml
    write_dataset(project, inferred)
    assert snapshot_source("my_notes", load_dataset(project, "my_notes"), project, project.home / "s.parquet").rows == 3


@pytest.mark.parametrize("pattern", ["texts/*.txt", "texts/**/*.txt", "./texts/*"])
def test_text_files_by_a_pattern_are_rows(project: Project, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "texts").mkdir()
    for i in range(12):
        (project.root / "texts" / f"{i}.txt").write_text(f"code{i}")
    inferred, settings = infer(pattern, project)
    assert inferred.name == "texts"
    assert settings.key == ("file",)
    assert settings.drop == ()
    assert {name: column.kind for name, column in settings.columns.items()} == {"text": "text"}
    write_dataset(project, inferred)
    out = project.home / "s.parquet"
    assert snapshot_source("texts", load_dataset(project, "texts"), project, out).rows == 12


def test_a_text_file_of_addresses_is_left_out_as_in_a_table(project: Project) -> None:
    (project.root / "mails.txt").write_text("".join(f"person{i}@example.org\n" for i in range(12)))
    inferred, settings = infer("mails.txt", project)
    assert (settings.drop, settings.sensitive) == (("text",), ("text",))
    assert "no column is left to describe a row" in inferred.decisions[-1]
