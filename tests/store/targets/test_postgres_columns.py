"""Every type of DuckDB in PostgreSQL, and names that PostgreSQL does not take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import PostgresTarget
from erasmo_dagster.store.targets.postgres import PostgresPublisher
from erasmo_dagster.store.targets.postgres_columns import short
from tests.store.targets.places import TEAM, Database, opened, own_file

pytestmark = pytest.mark.postgres

# DuckDB's value -> PostgreSQL's type, and the value as its text.
VALUES: dict[str, tuple[str, str | None]] = {
    "true": ("boolean", "true"),
    "(-128)::TINYINT": ("smallint", "-128"),
    "255::UTINYINT": ("smallint", "255"),
    "65535::USMALLINT": ("integer", "65535"),
    "(-32768)::SMALLINT": ("smallint", "-32768"),
    "4294967295::UINTEGER": ("bigint", "4294967295"),
    "9223372036854775807::BIGINT": ("bigint", "9223372036854775807"),
    "18446744073709551615::UBIGINT": ("numeric(20,0)", "18446744073709551615"),
    "170141183460469231731687303715884105727::HUGEINT": ("numeric", "170141183460469231731687303715884105727"),
    "(-12345678901234567890.123456)::DECIMAL(38, 6)": ("numeric(38,6)", "-12345678901234567890.123456"),
    "1.5::DECIMAL(4, 1)": ("numeric(4,1)", "1.5"),
    "1.5::FLOAT": ("real", "1.5"),
    "'nan'::DOUBLE": ("double precision", "NaN"),
    "'-infinity'::DOUBLE": ("double precision", "-Infinity"),
    "'grüß\n\"dich\"'": ("text", 'grüß\n"dich"'),
    "'a' || chr(0) || 'b'": ("text", "a�b"),
    "'small'::ENUM('small', 'large')": ("text", "small"),
    "'0110'::BIT": ("text", "0110"),
    "'\\x00\\xFF'::BLOB": ("bytea", "\\x00ff"),
    "'4ac7a9e9-607c-4c8a-84f3-843f0191e3fd'::UUID": ("uuid", "4ac7a9e9-607c-4c8a-84f3-843f0191e3fd"),
    "DATE '2024-02-29'": ("date", "2024-02-29"),
    "DATE '0044-03-15 (BC)'": ("date", "0044-03-15 BC"),
    "'infinity'::DATE": ("date", "infinity"),
    "TIME '12:34:56.789'": ("time without time zone", "12:34:56.789"),
    "TIMETZ '12:34:56+02'": ("time with time zone", "12:34:56+02"),
    "TIMESTAMP '1600-01-02 03:04:05.678901'": ("timestamp without time zone", "1600-01-02 03:04:05.678901"),
    "'-infinity'::TIMESTAMP": ("timestamp without time zone", "-infinity"),
    "'infinity'::TIMESTAMPTZ": ("timestamp with time zone", "infinity"),
    "TIMESTAMPTZ '2024-02-29 01:00:00+02'": ("timestamp with time zone", "2024-02-28 23:00:00+00"),
    "'2024-02-29 01:00:00'::TIMESTAMP_S": ("timestamp without time zone", "2024-02-29 01:00:00"),
    "'2024-02-29 01:00:00.123456789'::TIMESTAMP_NS": ("timestamp without time zone", "2024-02-29 01:00:00.123457"),
    "INTERVAL '14 months -3 days 4.5 seconds'": ("interval", "1 year 2 mons -3 days +00:00:04.5"),
    "'{\"a\": [1, null]}'::JSON": ("jsonb", '{"a": [1, null]}'),
    "['x', NULL]": ("jsonb", '["x", null]'),
    "['nan'::DOUBLE, 'infinity'::DOUBLE, 1.5]": ("jsonb", "[null, null, 1.5]"),
    "{'said': 'NaN \"x\" \\ ' || chr(0), 'n': 'nan'::FLOAT}": ("jsonb", '{"n": null, "said": "NaN \\"x\\" \\\\ �"}'),
    "MAP {'k': DATE '2024-02-29'}": ("jsonb", '{"k": "2024-02-29"}'),
    "[1, 2]::INTEGER[2]": ("jsonb", "[1, 2]"),
    "union_value(n := 7)": ("jsonb", '{"n": 7}'),
}


def published(tmp_path: Path, database: Database, *statements: str, number: int = 1, schema: str = "erasmo") -> None:
    own_file(tmp_path / "own.duckdb", statements)
    settings = PostgresTarget.model_validate({**TEAM, "schema": schema})
    with opened(tmp_path / "own.duckdb", number) as file:
        PostgresPublisher(settings, wait=20).publish(file)


def kinds(database: Database, view: str) -> list[tuple[Any, ...]]:
    return database.rows(
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
        f" WHERE attrelid = '{view}'::regclass AND attnum > 0 ORDER BY attnum"
    )


def test_every_type_arrives(tmp_path: Path, database: Database) -> None:
    columns = ", ".join(f"{value} AS c{i}" for i, value in enumerate(VALUES))
    nulls = ", ".join(f"NULL AS c{i}" for i in range(len(VALUES)))
    published(
        tmp_path,
        database,
        f"CREATE TABLE t AS SELECT 1 AS id, {columns}",
        f"INSERT INTO t SELECT 2, {nulls}",
    )
    shown = ", ".join(f"c{i}::text" for i in range(len(VALUES)))
    (row,) = database.rows(f"SELECT {shown} FROM erasmo.t WHERE id = 1")
    found = {
        value: (kind, text) for value, (_, kind), text in zip(VALUES, kinds(database, "erasmo.t")[1:], row, strict=True)
    }
    assert found == VALUES
    assert database.rows(f"SELECT {shown} FROM erasmo.t WHERE id = 2") == [(None,) * len(VALUES)]


def test_names_that_are_too_long_or_taken_are_told_apart(tmp_path: Path, database: Database) -> None:
    long = "how_many_times_has_the_customer_called_the_hotline_in_the_last_twelve_months_"
    names = [f"{long}by_phone", f"{long}by_mail", "xmin", "ctid", 'a "quoted" name', "ß" * 40, "a;b", "%s", "$1", "Id"]
    columns = ", ".join(f'''{i} AS "{name.replace('"', '""')}"''' for i, name in enumerate(names))
    table = f"{long}segmented"
    published(
        tmp_path,
        database,
        f'CREATE TABLE "{table}" AS SELECT {columns}',
        f"""COMMENT ON COLUMN "{table}"."{names[0]}" IS 'Calls.'""",
    )
    there = [name for name, _ in kinds(database, f"erasmo.{short(table)}")]
    assert there[2:5] == ["xmin_", "ctid_", 'a "quoted" name']
    assert there[6:] == names[6:]
    assert len(set(there)) == len(names)
    assert all(len(name.encode()) <= 63 for name in there)
    assert there[0].startswith(long[:50])
    assert database.rows(f"SELECT * FROM erasmo.{short(table)}") == [tuple(range(len(names)))]
    comments = database.rows(
        f"SELECT col_description('erasmo.{short(table)}'::regclass, n) FROM generate_series(1, 2) n ORDER BY n"
    )
    assert comments == [(f"Calls. Called {names[0]} in DuckDB.",), (f"Called {names[1]} in DuckDB.",)]


def test_comments_go_along_and_views_become_tables(tmp_path: Path, database: Database) -> None:
    published(
        tmp_path,
        database,
        "CREATE TABLE t AS SELECT 1 AS a",
        "COMMENT ON TABLE t IS 'It''s $erasmo$ one row.'",
        "COMMENT ON COLUMN t.a IS 'One; or \"1\".'",
        "CREATE VIEW v AS SELECT a + 1 AS b FROM t",
        "CREATE VIEW stg_t AS SELECT a FROM t",
        "CREATE TABLE nothing (a INTEGER)",
    )
    told = "SELECT obj_description('erasmo.t'::regclass), col_description('erasmo.t'::regclass, 1)"
    assert database.rows(told) == [("It's $erasmo$ one row.", 'One; or "1".')]
    assert database.rows("SELECT b FROM erasmo.v") == [(2,)]
    assert database.rows("SELECT * FROM erasmo.nothing") == []
    assert {name for name, _ in database.relations("erasmo")} == {"t", "v", "nothing", "release"}
    published(tmp_path, database, "CREATE TABLE t AS SELECT 1 AS a", number=2)
    assert database.rows(told) == [(None, None)]


def test_a_value_that_postgres_does_not_take_is_not_shown(tmp_path: Path, database: Database) -> None:
    published(tmp_path, database, "CREATE TABLE t AS SELECT 1 AS a")
    with pytest.raises(ErasmoError, match="load the table t: a value that PostgreSQL does not take") as caught:
        published(tmp_path, database, "CREATE TABLE t AS SELECT DATE '5877000-01-01' AS secret", number=2)
    assert "5877" not in str(caught.value)
    assert database.rows("SELECT * FROM erasmo.t") == [(1,)]
    assert database.schemas() == {"erasmo", "erasmo_r1"}
