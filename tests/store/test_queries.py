"""A user's query over tables of several formats, which reaches nothing else."""

from __future__ import annotations

import duckdb
import polars as pl
import pytest

from tests.store.reader import SECRET, Reader, sqlite_file


def test_a_query_joins_formats(read: Reader) -> None:
    read.write("orders.csv", "order,customer,total\n1,a,10\n2,b,20\n3,a,5\n")
    with sqlite_file(read.project.root / "shop.db") as con:
        con.execute("CREATE TABLE people AS SELECT 'a' AS id, 'Ann' AS name UNION ALL SELECT 'b', 'Bob'")
    query = """
        select p.id, p.name, sum(o.total) as "spent; in all", count(*) as orders
        from source o join "the people" p on p.id = o.customer group by all order by all; -- one row a person
    """
    frame = read.frame("orders.csv", source={"query": query, "tables": {"the people": {"path": "shop.db"}}})
    assert frame.rows() == [("a", "a", "Ann", 15, 2), ("b", "b", "Bob", 20, 1)]


def test_a_row_number_over_a_file_is_the_same_every_time(read: Reader) -> None:
    read.write("t.csv", "x\n" + "".join(f"{i * 7919 % 10007}\n" for i in range(10_000)))
    query = {"query": "select row_number() over () as id, * from source"}
    first = read("t.csv", source=query)
    assert pl.read_parquet(first.path)["x"].to_list() == [i * 7919 % 10007 for i in range(10_000)]
    assert read("t.csv", source=query).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('/proc/self/environ')",
        "select * from '{elsewhere}'",
        "select * from read_parquet('{elsewhere}')",
        "select * from glob('/etc/*')",
        "select * from query('copy (select 1) to ''{target}''')",
        "copy source to '{target}'",
        "attach '{target}' as x",
        "install httpfs",
        "set threads = 4",
        "pragma database_list",
        "create table x as select 1",
        "insert into source values (1)",
        "select * from source; copy source to '{target}'",
        "select * from source) ; copy (select 1) to '{target}'; select * from (select 1",
        "with x as (copy source to '{target}') select * from x",
        "export database '{target}'",
        "select * from elsewhere",
        "selec * from source",
        "select nothing from source",
        "select id, id from source",
        "select id, x as ID from source",
        "select id, $1 from source",
        "-- nothing",
    ],
)
def test_a_query_that_is_not_one_select_over_the_tables(read: Reader, query: str) -> None:
    read.write("t.csv", "id,x\n1,a\n2,b\n")
    elsewhere, target = read.project.root / "elsewhere.parquet", read.project.root / "stolen"
    pl.DataFrame({"id": [1, 2], "x": [SECRET, SECRET]}).write_parquet(elsewhere)
    message = read.refusal("t.csv", source={"query": query.format(elsewhere=elsewhere, target=target)})
    assert SECRET not in message
    assert not target.exists()


@pytest.mark.parametrize("table", ['t"; drop table t; --', "t' OR 1=1 --", "sqlite_schema", "T"])
def test_a_hostile_table_name_reaches_nothing(read: Reader, table: str) -> None:
    with duckdb.connect(read.project.root / "t.duckdb") as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 2")
    with sqlite_file(read.project.root / "t.sqlite") as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 2")
    for path in ("t.duckdb", "t.sqlite"):
        assert "expected one of: t" in read.refusal(path, source={"table": table})
        assert read(path).rows == 2


def test_a_query_that_fails_on_a_row_tells_no_value(read: Reader) -> None:
    read.write("t.csv", f"id,card\n1,{SECRET}\n2,b\n")
    for expression in ("card::int", "error(card)", "strptime(card, '%Y')"):
        message = read.refusal("t.csv", source={"query": f"select id, {expression} as x from source"}, sensitive="x")
        assert "fails on a row" in message
        assert SECRET not in message
