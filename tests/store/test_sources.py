"""Snapshots: any name and value, a key that holds, a fingerprint, all or nothing."""

from __future__ import annotations

import json
import os
import resource
from datetime import date, datetime
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sources import ENTITY_KEY
from tests.store.reader import SECRET, Reader, sqlite_file

HOSTILE = [
    "file_row_number",
    "two words",
    'quo"te',
    "it's",
    "select",
    "😀 é",
    "n" * 200,
    'a"; drop table x; --',
    "a,b",
    "${HOME}",
    "1",
]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "duckdb", "sqlite", "query"])
def test_any_column_name_works_in_every_format(read: Reader, form: str) -> None:
    frame = pl.DataFrame({name: [f"{name} 1", f"{name} 2"] for name in HOSTILE})
    root = read.project.root
    path, source = f"t.{form}", {}
    if form in ("csv", "query"):
        frame.write_csv(root / "t.csv")
        path, source = "t.csv", {"query": 'select * from "source" -- all'} if form == "query" else {}
    elif form == "parquet":
        frame.write_parquet(root / path)
    elif form == "jsonl":
        frame.write_ndjson(root / path)
    elif form == "duckdb":
        with duckdb.connect(root / path) as con:
            con.register("frame", frame.to_arrow())
            con.execute('CREATE TABLE "we ""ird" AS FROM frame')
        source = {"table": 'we "ird'}
    else:
        with sqlite_file(root / path) as con:
            names = ", ".join('"' + name.replace('"', '""') + '"' for name in HOSTILE)
            con.execute(f'CREATE TABLE "we ""ird" ({names})')
            con.executemany(f'INSERT INTO "we ""ird" VALUES ({", ".join("?" * len(HOSTILE))})', frame.rows())
    read_back = read.frame(
        path, source=source, key=HOSTILE[:2], drop=HOSTILE[2:4], sensitive=HOSTILE[4:6], label=HOSTILE[7]
    )
    assert_frame_equal(read_back.drop(ENTITY_KEY), frame)
    assert read_back[ENTITY_KEY].to_list() == [json.dumps(list(row[:2])).replace(", ", ",") for row in frame.rows()]


def test_the_same_table_as_csv_and_parquet_gives_the_same_snapshot(read: Reader) -> None:
    frame = pl.DataFrame(
        {
            "id": [3, 1, 2],
            "x": [0.1, float("nan"), None],
            "long": ["z" * 100_000, "two\nlines", 'a "quote"'],
            "day": [date(1701, 1, 1), None, date(9999, 12, 31)],
            "at": [datetime(1850, 1, 1, 1, 2, 3), datetime(2020, 1, 1), None],
            "ok": [True, None, False],
        }
    )
    frame.write_parquet(read.project.root / "t.parquet")
    frame.write_csv(read.project.root / "t.csv")
    first = read("t.parquet")
    kept = pl.read_parquet(first.path)
    second = read("t.csv")
    assert_frame_equal(kept, pl.read_parquet(second.path))
    assert first.fingerprint == second.fingerprint
    assert kept[ENTITY_KEY].to_list() == ["3", "1", "2"]
    assert first.columns == second.columns
    assert kept.columns == [ENTITY_KEY, *first.columns]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"key": "ID"}, "Got `key` 'ID', which t.csv does not have (did you mean 'id'?), expected one of: id, age"),
        ({"key": ["id", "ages"]}, "(did you mean 'age'?)"),
        ({"label": "group"}, "Got `label` 'group'"),
        ({"drop": ["age", "x", "y"]}, "Got `drop` 'x', 'y'"),
        ({"sensitive": "email"}, "Got `sensitive` 'email'"),
        ({"columns": {"sex": {"unit": "kg"}}}, "mend `columns` in datasets/customers.yaml"),
    ],
)
def test_columns_that_the_settings_name_and_the_source_lacks(read: Reader, settings: dict[str, Any], said: str) -> None:
    read.write("t.csv", "id,age\n1,30\n2,40\n")
    assert said in read.refusal("t.csv", **settings)


def test_a_key_names_each_row(read: Reader) -> None:
    read.write("t.csv", f"id,b,c\n1,x,{SECRET}\n1,y,{SECRET}\n2,,x\n2,z,y\n3,z,z\n")
    assert "Got 2 values ('1', '2') of key 'id' in more than one row" in read.refusal("t.csv")
    assert "Got 1 of 5 rows of t.csv without a value in key 'b'" in read.refusal("t.csv", key="b")
    assert "Got 1 of 5 rows" in read.refusal("t.csv", key=["id", "b"])
    assert SECRET in read.refusal("t.csv", key="c")
    assert SECRET not in read.refusal("t.csv", key="c", sensitive="c")


def test_keys_of_several_columns_cannot_be_confused(read: Reader) -> None:
    read.write("t.csv", 'a,b\n"x"",""y",z\nx,"y"",""z"\n')
    keys = read.frame("t.csv", key=["a", "b"])[ENTITY_KEY].to_list()
    assert [json.loads(key) for key in keys] == [['x","y', "z"], ["x", 'y","z']]


def test_a_missing_header_does_not_spill_its_first_row(read: Reader) -> None:
    read.write("t.csv", f"{SECRET},1\nb,2\nc,3\n")
    assert SECRET not in read.refusal("t.csv", sensitive="card")


def test_a_fingerprint_is_of_the_rows_whatever_their_order(read: Reader) -> None:
    def fingerprint(content: str) -> str:
        return read(read.write("t.csv", content)).fingerprint.digest

    first = fingerprint("id,x,y\n1,a,b\n2,c,d\n")
    assert fingerprint("id,x,y\n2,c,d\n1,a,b\n") == first
    assert fingerprint("y,id,x\nb,1,a\nd,2,c\n") == first
    changed = [
        "id,x,y\n1,a,b\n2,c,D\n",
        "id,x,y\n1,b,a\n2,c,d\n",
        "id,x,y\n1,a,d\n2,c,b\n",
        "id,x,y\n1,a,b\n2,c,\n",
        "id,x,y\n1,a,b\n2,c,d\n3,c,d\n",
        "id,x,Z\n1,a,b\n2,c,d\n",
    ]
    assert len({first, *map(fingerprint, changed)}) == len(changed) + 1


def test_equal_rows_do_not_cancel_in_a_fingerprint(read: Reader) -> None:
    read.write("t.csv", "x\na\n")
    numbered = "select row_number() over () as id, {} as x from range(2)"
    one, other = (read("t.csv", source={"query": numbered.format(value)}).fingerprint for value in ("'a'", "'b'"))
    assert one.rows == other.rows
    assert one.hash != other.hash


def test_a_fingerprint_says_what_it_was_made_of(read: Reader) -> None:
    read.write("t.csv", "id\n1\n2\n")
    fingerprint = read("t.csv").fingerprint
    dumped = fingerprint.model_dump(by_alias=True)
    assert dumped.keys() == {"scheme", "duckdb", "schema", "rows", "hash"}
    assert dumped["schema"] == {"id": "BIGINT"}
    assert type(fingerprint).model_validate(dumped).digest == fingerprint.digest


def test_a_full_disk_leaves_the_snapshot_as_it_was(read: Reader) -> None:
    read.write("small.csv", "id\n1\n2\n")
    read.write("large.csv", "id,x\n" + "".join(f"{i},{os.urandom(40).hex()}\n" for i in range(20_000)))
    before = read("small.csv")
    content = before.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        message = read.refusal("large.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "no space left on the disk" in message
    assert before.path.read_bytes() == content


def test_an_unwritable_folder(read: Reader) -> None:
    read.write("t.csv", "id\n1\n2\n")
    read.out.parent.parent.mkdir(parents=True)
    read.out.parent.write_text("a file where the folder should be")
    with pytest.raises(ErasmoError, match="a folder to write in"):
        read("t.csv")


def test_what_a_killed_reader_left_is_cleared_in_time(read: Reader) -> None:
    read.write("t.csv", "id\n1\n2\n")
    old, fresh = read.out.parent / ".reading-old", read.out.parent / ".reading-fresh"
    for folder in (old, fresh):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    read("t.csv")
    assert not old.exists()
    assert fresh.exists()
