"""Every format, read as its users write it."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from erasmo_dagster.store import sqlite
from erasmo_dagster.store.sources import ENTITY_KEY
from tests.store.reader import SECRET, Reader, sqlite_file


def test_csv_columns_get_the_types_that_all_of_their_values_have(read: Reader) -> None:
    read.write(
        "t.csv",
        "id,whole,part,day,moment,zoned,yes,word,nothing,code,phone,long\n"
        '1,3,1.5,1899-12-31,2020-01-01 10:00:00,2020-01-01T10:00:00Z,true,"a, ""b""",,007,+49301,12345678901234567890\n'
        "2, 4 ,2,2020-02-29,2020-01-01,2020-01-01T10:00:00+02:00,FALSE,c,,8,+49302,1\n",
    )
    snapshot = read("t.csv")
    assert snapshot.columns == {
        "id": "BIGINT",
        "whole": "BIGINT",
        "part": "DOUBLE",
        "day": "DATE",
        "moment": "TIMESTAMP",
        "zoned": "TIMESTAMP WITH TIME ZONE",
        "yes": "BOOLEAN",
        "word": "VARCHAR",
        "nothing": "VARCHAR",
        "code": "VARCHAR",
        "phone": "VARCHAR",
        "long": "VARCHAR",
    }
    rows = pl.read_parquet(snapshot.path).rows(named=True)
    assert rows[0][ENTITY_KEY] == "1"
    assert rows[0]["day"] == date(1899, 12, 31)
    assert rows[0]["word"] == 'a, "b"'
    assert rows[0]["code"] == "007"
    assert [row["whole"] for row in rows] == [3, 4]
    assert [row["nothing"] for row in rows] == [None, None]


@pytest.mark.parametrize("ambiguous", ["03/04/2020", "3.4.2020", "1,5", "1_000", "12h", "0x1F", "1e999", "infinite"])
def test_text_that_a_type_would_change_or_guess_at_stays_text(read: Reader, ambiguous: str) -> None:
    read.write("t.tsv", f"id\tx\n1\t{ambiguous}\n2\t{ambiguous}\n")
    assert read.frame("t.tsv")["x"].to_list() == [ambiguous] * 2


def test_not_a_number_and_infinities_survive(read: Reader) -> None:
    read.write("t.csv", "id,x\n1,NaN\n2,-inf\n3,1e300\n4,\n")
    assert str(read.frame("t.csv")["x"].to_list()) == "[nan, -inf, 1e+300, None]"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "||"])
def test_delimiter_is_told_from_the_header_or_given(read: Reader, delimiter: str) -> None:
    read.write("t.csv", "id,x y\n1,a\n2,b\n".replace(",", delimiter))
    source = {"delimiter": delimiter} if len(delimiter) > 1 else {}
    assert read.frame("t.csv", source=source).rows() == [("1", 1, "a"), ("2", 2, "b")]


def test_a_delimiter_in_a_quoted_name_is_not_the_delimiter(read: Reader) -> None:
    read.write("t.csv", 'id;"last, first, middle"\n1;"a, b"\n2;c\n')
    assert read.frame("t.csv")["last, first, middle"].to_list() == ["a, b", "c"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_endings_byte_order_mark_and_breaks_in_cells(read: Reader, newline: str) -> None:
    text = newline.join(["id,x", '1,"two', 'lines"', "2,b", ""])
    read.write("t.csv", b"\xef\xbb\xbf" + text.encode())
    assert read.frame("t.csv")["x"].to_list() == [f"two{newline}lines", "b"]


def test_null_values_of_a_csv_file(read: Reader) -> None:
    read.write("t.csv", 'id,x,y\n1,NA,-\n2,"NA",b\n3,7,\n')
    frame = read.frame("t.csv", source={"null_values": ["NA", "-"]})
    assert frame["x"].to_list() == [None, None, 7]
    assert frame["y"].to_list() == [None, "b", None]


def test_compressed_text_files(read: Reader) -> None:
    read.write("t.csv.gz", gzip.compress(b"id,x\n1,a\n2,b\n"))
    read.write("t.jsonl.gz", gzip.compress(b'{"id": 1, "x": "a"}\n{"id": 2, "x": "b"}\n'))
    assert_frame_equal(read.frame("t.csv.gz"), read.frame("t.jsonl.gz"))


def test_json_lines_with_nested_mixed_and_absent_values(read: Reader) -> None:
    lines = [{"id": "a", "x": 1, "n": {"p": [1, 2]}}, {"id": "b", "x": "one", "late": 2.5}]
    read.write("t.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert read.frame("t.jsonl").rows() == [("a", "a", "1", {"p": [1, 2]}, None), ("b", "b", "one", None, 2.5)]


def test_parquet_files_are_united_by_column_name(read: Reader) -> None:
    parts: dict[str, dict[str, list[Any]]] = {"a": {"id": [1, 2], "x": [1, 2]}, "b": {"y": ["p"], "id": [3]}}
    for part, columns in parts.items():
        (read.project.root / f"year={part}").mkdir()
        pl.DataFrame(columns).write_parquet(read.project.root / f"year={part}" / "t.parquet")
    frame = read.frame("year=*/*.parquet")
    assert frame.sort("id").rows() == [("1", 1, 1, None, "a"), ("2", 2, 2, None, "a"), ("3", 3, None, "p", "b")]
    assert read("year=a/t.parquet").columns == {"id": "BIGINT", "x": "BIGINT"}


def test_types_that_polars_cannot_read_become_text(read: Reader) -> None:
    out = read.project.root / "t.parquet"
    duckdb.execute(
        "COPY (SELECT i AS id, interval 1 day AS span, [interval 1 day] AS spans, uuid() AS u, 'a'::ENUM('a', 'b') AS e,"
        " '\"j\"'::JSON AS j, '101'::BIT AS bits, {'a': [1]} AS nested, 1.25::DECIMAL(9, 2) AS price,"
        f" time '10:00' AS t FROM range(2) r(i)) TO '{out}' (FORMAT parquet)"
    )
    frame = read.frame("t.parquet")
    row = frame.row(0, named=True)
    assert row["span"] == "1 day"
    assert row["spans"] == "[1 day]"
    assert len(row["u"]) == 36
    assert (row["e"], row["j"], row["bits"], row["nested"]) == ("a", "j", "101", {"a": [1]})
    assert frame.schema["price"] == pl.Decimal(9, 2)


def test_duckdb_tables_and_views(read: Reader) -> None:
    path = read.project.root / "shop.duckdb"
    with duckdb.connect(path) as con:
        con.execute('CREATE SCHEMA x; CREATE TABLE x."od.d" AS SELECT 7 AS id UNION ALL SELECT 8')
        con.execute("CREATE TABLE t AS SELECT i AS id, i::HUGEINT << 40 AS big FROM range(3) r(i)")
        con.execute("CREATE VIEW v AS SELECT * FROM t WHERE id < 2; CREATE VIEW files AS FROM read_csv('/etc/passwd')")
    assert read.frame("shop.duckdb", source={"table": "t"}).height == 3
    assert read.frame("shop.duckdb", source={"table": "main.v"})["big"].to_list() == [0, 2**40]
    assert read.frame("shop.duckdb", source={"table": "x.od.d"})["id"].to_list() == [7, 8]
    assert "expected one of: files, t, v, x.od.d" in read.refusal("shop.duckdb")
    assert "did you mean 't'?" in read.refusal("shop.duckdb", source={"table": "T"})
    assert "over tables of that file" in read.refusal("shop.duckdb", source={"table": "files"})


def test_a_duckdb_file_with_one_table_needs_no_name_and_what_its_writer_left_is_read(read: Reader) -> None:
    path = read.project.root / "shop.db"
    killed = "con.execute('CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 2'); os._exit(1)"
    subprocess.run([sys.executable, "-c", f"import duckdb, os; con = duckdb.connect({str(path)!r}); {killed}"])
    assert path.with_name("shop.db.wal").exists()
    assert read.frame("shop.db", source={"format": "duckdb"})["id"].to_list() == [1, 2]


def test_a_duckdb_file_that_another_holds_open(read: Reader) -> None:
    path = read.project.root / "shop.duckdb"
    with duckdb.connect(path) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 2")
        assert "is writing" in read.refusal("shop.duckdb")
    hold = f"import duckdb, sys; con = duckdb.connect({str(path)!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        assert "another process" in read.refusal("shop.duckdb")
        other.communicate()
    assert read("shop.duckdb").rows == 2


def test_sqlite_values_decide_the_types(read: Reader) -> None:
    with sqlite_file(read.project.root / "shop.db") as con:
        con.execute(
            "CREATE TABLE t (id INTEGER, b BOOLEAN, n, r REAL, mixed, s TEXT, d DATE, at DATETIME, odd DATE, nil)"
        )
        con.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (1, 1, 2**62, 1, 1, "a", "1850-01-01", "2020-01-01 10:00:00", "soon", None),
                (2, 0, None, 2.5, "x", "é😀", None, "2020-01-01", "2020-01-01", None),
                (3, None, 9, float("inf"), 2.5, None, "2020-01-01", None, None, None),
            ],
        )
        con.execute("CREATE VIEW v AS SELECT id, s FROM t")
    frame = read.frame("shop.db", source={"table": "t"})
    assert frame.rows() == [
        ("1", 1, True, 2**62, 1.0, "1", "a", date(1850, 1, 1), datetime(2020, 1, 1, 10), "soon", None),
        ("2", 2, False, None, 2.5, "x", "é😀", None, datetime(2020, 1, 1), "2020-01-01", None),
        ("3", 3, None, 9, float("inf"), "2.5", None, date(2020, 1, 1), None, None, None),
    ]
    assert read("shop.db", source={"table": "v"}).columns == {"id": "BIGINT", "s": "VARCHAR"}


def test_sqlite_faults(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_WAIT", 0.1)
    path = read.project.root / "shop.db"
    with sqlite_file(path) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS id, CAST(x'436166e9' AS TEXT) AS s UNION ALL SELECT 2, ?", [SECRET])
        con.execute("CREATE TABLE other AS SELECT 1 AS id UNION ALL SELECT 2")
        con.commit()
        assert "expected one of: other, t" in read.refusal("shop.db")
        assert "not UTF-8" in read.refusal("shop.db", source={"table": "t"})
        con.execute("BEGIN EXCLUSIVE")  # also: the failed read left no lock
        assert "another process is writing" in read.refusal("shop.db", source={"table": "other"})
        con.rollback()
    read.write("cut.sqlite", path.read_bytes()[:5000])
    assert "not a whole SQLite file" in read.refusal("cut.sqlite", source={"table": "t"})
    read.write("no.db", "neither of them, whatever it may be")
    assert "neither a SQLite nor a DuckDB file" in read.refusal("no.db")


def test_bytes_are_refused_unless_dropped(read: Reader) -> None:
    with sqlite_file(read.project.root / "shop.db") as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS id, x'00ff' AS photo UNION ALL SELECT 2, NULL")
    assert "put it under `drop`" in read.refusal("shop.db")
    assert read.frame("shop.db", drop="photo")["photo"].to_list() == [b"\x00\xff", None]


def test_a_file_in_a_wheel(read: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / "tinytable-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tinytable/t.csv", "id,x\n1,a\n2,b\n")
        archive.writestr("tinytable-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinytable\nVersion: 1.0\n")
        archive.writestr(
            "tinytable-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinytable-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = "pypi:tinytable==1.0/tinytable/t.csv"
    assert read.frame(path, source={"sha256": digest})["x"].to_list() == ["a", "b"]
    assert "without its checksum" in read.refusal(path)
    assert "expected pypi:<package>==<version>" in read.refusal("pypi:tinytable", source={"sha256": digest})


def test_a_number_column_with_a_stray_word_is_refused_until_the_user_decides(read: Reader) -> None:
    read.write("t.csv", "id,age\n" + "".join(f"{i},{i % 90}\n" for i in range(200)) + f"200,{SECRET}\n")
    message = read.refusal("t.csv")
    assert "Got 1 of 201 values in column 'age' of t.csv that are no numbers, the first in row 201" in message
    assert SECRET not in message
    assert read("t.csv", columns={"age": {"kind": "category"}}).columns["age"] == "VARCHAR"
    assert read("t.csv", source={"null_values": SECRET}).columns["age"] == "BIGINT"
    assert read("t.csv", drop="age").columns["age"] == "VARCHAR"


def test_a_declared_number_must_be_one_in_any_table(read: Reader) -> None:
    read.write("t.csv", "id,age\n1,30\n2,old\n")
    assert read("t.csv").columns["age"] == "VARCHAR"
    assert "the first in row 2 below the header" in read.refusal("t.csv", columns={"age": {"kind": "number"}})


def test_codes_are_no_numbers_with_strays(read: Reader) -> None:
    read.write("t.csv", "id,zip\n" + "".join(f"{i},{10000 + i}\n" for i in range(200)) + "200,01234\n")
    assert read.frame("t.csv")["zip"].to_list()[-1] == "01234"
