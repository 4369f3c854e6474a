"""Files that are not there or not whole: one line says what and where."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.store.reader import SECRET, Reader


def test_paths_are_expanded(read: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\n1\n2\n")
    monkeypatch.setenv("TABLES", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("${TABLES}/t.csv", "~/t.csv", "../t.csv", str(tmp_path / "t.csv")):
        assert read(path).rows == 2
    monkeypatch.delenv("TABLES")
    assert "Got ${TABLES} in the path ${TABLES}/t.csv, which is not set" in read.refusal("${TABLES}/t.csv")


@pytest.mark.parametrize("name", ["a[1].csv", "b*.csv", "c?.csv", 'it\'s "é😀" {x,y}.csv', "#1 %20.csv"])
def test_file_names_are_taken_literally(read: Reader, name: str) -> None:
    for other in ("a1.csv", "bb.csv", "cc.csv"):  # what the name would mean as a pattern
        read.write(other, "id,x\n1,wrong\n2,wrong\n")
    read.write(name, "id,x\n1,right\n2,right\n")
    assert read.frame(name)["x"].to_list() == ["right", "right"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.csv", "Got no file"),
        ("nowhere-*.parquet", "Got no file for nowhere-*.parquet"),
        ("folder.csv", "which is no file"),
        ("empty.csv", "is empty (0 bytes)"),
        ("empty.parquet", "is empty (0 bytes)"),
        ("sheet.xlsx", "whose ending tells no format"),
        ("*.csv", "in paths of Parquet and text files alone"),
    ],
)
def test_paths_that_lead_nowhere(read: Reader, path: str, said: str) -> None:
    (read.project.root / "folder.csv").mkdir()
    for name in ("empty.csv", "empty.parquet"):
        read.write(name, "")
    read.write("sheet.xlsx", "PK")
    assert said in read.refusal(path)


def test_options_of_another_format_are_refused(read: Reader) -> None:
    read.write("t.csv", "id\n1\n2\n")
    pl.DataFrame({"id": [1, 2]}).write_parquet(read.project.root / "t.parquet")
    assert "expected it for duckdb or sqlite or postgresql alone" in read.refusal("t.csv", source={"table": "t"})
    assert "expected it for csv or tsv alone" in read.refusal("t.parquet", source={"null_values": "NA"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,x\n1,a\n2,b,c\n", "line 3 of t.csv with 3 cells, expected 2"),
        ("id,x\n1,a\n2\n", "line 3 of t.csv with 1 cell, expected 2"),
        (f'id,x\n1,"{SECRET}\n2,b\n', "quotes do not match in line 2"),
        (f'id,x\n1,"a"{SECRET}\n2,b\n', "quotes do not match in line 2"),
        ("id,x\n1,a\r\n2,b\n", "one kind of line ending"),
        (b"id,x\n1,a\n2,caf\xe9\n", "not UTF-8 in line 3"),
        ("id,x\n1,a\n2,b\n".encode("utf-16"), "not UTF-8 in line 1"),
        (b"\x00\xff\xfe" * 1000, "not UTF-8 in line 1"),
        ("\nid,x\n1,a\n2,b\n", "blank first line"),
        ("id,,x\n1,a,b\n2,c,d\n", "no name for column 2"),
        ("id,x,x\n1,a,b\n2,c,d\n", "two columns named 'x'"),
        ("id,Age,age\n1,a,b\n2,c,d\n", "columns 'Age' and 'age'"),
        ("id,__Entity_key\n1,a\n2,b\n", "that name free for the row's key"),
        ("id,x\n", "no row in t.csv, expected at least 2"),
        ("id,x\n1,a\n", "one row in t.csv, expected at least 2"),
        ("id,x\0\n1,a\n2,b\n", "NUL character"),
    ],
)
def test_broken_csv(read: Reader, content: str | bytes, said: str) -> None:
    read.write("t.csv", content)
    message = read.refusal("t.csv")
    assert said in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"id": 1}\n{"id": 2\n{"id": 3}\n', "not JSON in line 2"),
        (b'{"id": 1}\n{"id": "caf\xe9"}\n', "not UTF-8 in line 2"),
        ('{"id": 1}\n[2]\n', "JSON that is no object in line 2"),
        ('{"id": 1, "id": 2}\n', "a key twice in line 1"),
        ('{"id": 1, "": 2}\n{"id": 2}\n', "a key without a name in line 1"),
        ('{"id": 1, "Age": 2}\n{"id": 2, "age": 3}\n', "columns 'Age' and 'age'"),
        ("\n\n", "without any row"),
    ],
)
def test_broken_json_lines(read: Reader, content: str | bytes, said: str) -> None:
    read.write("t.jsonl", content)
    assert said in read.refusal("t.jsonl")


def test_json_keys_that_only_look_renamed_are_read(read: Reader) -> None:
    read.write("t.jsonl", '{"id": 1, "age": 2, "age_1": 3}\n{"id": 2, "age": 3}\n')
    assert read("t.jsonl").columns == {"id": "BIGINT", "age": "BIGINT", "age_1": "BIGINT"}


def test_broken_binary_files(read: Reader) -> None:
    read.write("t.parquet", b"PAR1" + b"\x01" * 200 + b"PAR1")
    assert "cannot be read as Parquet" in read.refusal("t.parquet")
    read.write("t.duckdb", "hello " * 5000)
    assert "cannot open" in read.refusal("t.duckdb")
    for name, content in {"t.csv.gz": b"id,x\n1,a\n2,b\n", "u.csv.gz": gzip.compress(os.urandom(9000))[:4000]}.items():
        read.write(name, content)
        assert "gzip file" in read.refusal(name) or "not UTF-8" in read.refusal(name)


def test_parquet_names_that_differ_by_case(read: Reader) -> None:
    for names in (["id", "Age", "age"], ["id", "a", "a"]):
        pq.write_table(pa.table([[1, 2], [3, 4], [5, 6]], names=names), read.project.root / "t.parquet")
        assert "differ by more than case" in read.refusal("t.parquet")


def test_dates_that_only_duckdb_has(read: Reader) -> None:
    query = "select unnest([1, 2, 3]) as id, unnest([date 'infinity', date '12000-01-01', date '0001-01-01']) as day"
    read.write("t.csv", "x\n1\n")
    assert "Got 2 dates in column 'day'" in read.refusal("t.csv", source={"query": query})
