"""PostgreSQL as a source: every type, one state, and errors that say nothing of the URL."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, load_dataset
from erasmo_dagster.store import postgres_source
from erasmo_dagster.store.infer import infer_dataset, write_dataset
from erasmo_dagster.store.postgres import with_defaults
from erasmo_dagster.store.sources import ENTITY_KEY, snapshot_source
from tests.postgres_server import PASSWORD, PostgresServer
from tests.store.postgres_reader import VARIABLE, PostgresReader
from tests.store.reader import SECRET

pytestmark = pytest.mark.postgres


@pytest.fixture
def crm(project: Project, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> PostgresReader:
    return PostgresReader(project, postgres, monkeypatch)


# Type -> a value in SQL, what a snapshot holds, and as which type.
TYPES: dict[str, tuple[str, Any, Any]] = {
    "boolean": ("true", True, pl.Boolean),
    "smallint": ("-3", -3, pl.Int16),
    "integer": ("7", 7, pl.Int32),
    "bigint": ("9007199254740993", 9007199254740993, pl.Int64),
    "real": ("1.5", 1.5, pl.Float32),
    "double precision": ("'-Infinity'", float("-inf"), pl.Float64),
    "numeric": ("123.25", 123.25, pl.Float64),
    "numeric(12, 2)": ("1234567890.25", Decimal("1234567890.25"), pl.Decimal(12, 2)),
    "numeric(3, 5)": ("0.00123", 0.00123, pl.Float64),
    "numeric(50, 2)": ("2.5", 2.5, pl.Float64),
    "money": ("'$1,234.50'", 1234.5, pl.Float64),
    "text": ("'é😀'", "é😀", pl.String),
    "varchar(9)": ("'a'", "a", pl.String),
    "char(5)": ("'ab'", "ab", pl.String),
    "name": ("'n'", "n", pl.String),
    '"char"': ("'q'", "q", pl.String),
    "date": ("'1850-02-28'", date(1850, 2, 28), pl.Date),
    "timestamp": ("'2020-01-02 03:04:05.678901'", datetime(2020, 1, 2, 3, 4, 5, 678901), pl.Datetime("us")),
    "timestamptz": ("'2020-01-02 03:04+02'", datetime(2020, 1, 2, 1, 4, tzinfo=UTC), pl.Datetime("us", "UTC")),
    "time": ("'24:00'", time(23, 59, 59, 999999), pl.Time),
    "timetz": ("'10:00+02'", "10:00:00+02", pl.String),
    "interval": ("'1 year 2 days 3 hours'", "1 year 2 days 03:00:00", pl.String),
    "uuid": ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", pl.String),
    "json": ("'\"word\"'", "word", pl.String),
    "jsonb": ('\'{"b": [1, null], "a": "x"}\'', '{"a": "x", "b": [1, null]}', pl.String),
    "integer[]": ("'{{1,2},{3,null}}'", "[[1,2],[3,null]]", pl.String),
    "text[]": ("array['a,b', null]", '["a,b",null]', pl.String),
    "mood": ("'sad'", "sad", pl.String),
    "mood[]": ("'{sad,ok}'", '["sad","ok"]', pl.String),
    "positive": ("3", 3, pl.Int32),
    "price": ("2.50", Decimal("2.50"), pl.Decimal(6, 2)),
    "pair": ("row(1, 'x y')", '(1,"x y")', pl.String),
    "inet": ("'10.0.0.1/8'", "10.0.0.1/8", pl.String),
    "macaddr": ("'08:00:2b:01:02:03'", "08:00:2b:01:02:03", pl.String),
    "oid": ("4294967295", 4294967295, pl.Int64),
    "point": ("'(1,2)'", "(1,2)", pl.String),
    "int4range": ("'[1,3)'", "[1,3)", pl.String),
    "bit(3)": ("'101'", "101", pl.String),
    "tsvector": ("'a b'", "'a' 'b'", pl.String),
    "xml": ("'<a/>'", "<a/>", pl.String),
    "regclass": ("'pg_class'", "pg_class", pl.String),
}


def test_every_type_is_read(crm: PostgresReader) -> None:
    crm.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE DOMAIN positive AS int CHECK (value > 0)",
        "CREATE DOMAIN price AS numeric(6, 2)",
        f"CREATE TABLE t (id int, {', '.join(f'x{i} {kind}' for i, kind in enumerate(TYPES))})",
        f"INSERT INTO t VALUES (1, {', '.join(sql for sql, _, _ in TYPES.values())}), (2{', null' * len(TYPES)})",
    )
    frame = crm.table("t").sort("id")
    held = dict(zip(TYPES, frame.drop(ENTITY_KEY, "id").row(0), strict=True))
    assert held == {kind: value for kind, (_, value, _) in TYPES.items()}
    assert dict(zip(TYPES, frame.drop(ENTITY_KEY, "id").dtypes, strict=True)) == {
        k: t for k, (_, _, t) in TYPES.items()
    }
    assert set(frame.drop(ENTITY_KEY, "id").row(1)) == {None}


def test_what_is_no_number_and_keys_that_must_not_be_rounded(crm: PostgresReader) -> None:
    crm.sql(
        "CREATE TABLE t (id numeric, x numeric, y numeric(9, 2))",
        "INSERT INTO t VALUES (9007199254740993, 'NaN', 'NaN'), (9007199254740992, 'Infinity', 1.25), (1.50, 1e400, 0)",
    )
    frame = crm.table("t")
    assert frame[ENTITY_KEY].to_list() == ["9007199254740993", "9007199254740992", "1.50"]
    assert str(frame["x"].to_list()) == "[nan, inf, inf]"
    assert frame["y"].to_list() == [None, Decimal("1.25"), Decimal("0.00")]
    assert crm.table("t", columns={"x": {"kind": "category"}})["x"].to_list()[:2] == ["NaN", "Infinity"]


@pytest.mark.parametrize(
    ("kind", "infinite"),
    [
        ("date", ["infinity", "-infinity", "5874897-12-31", "0044-03-15 BC"]),
        ("timestamp", ["infinity", "-infinity", "294276-12-31 23:59:59.999999", "4713-01-01 BC"]),
        ("timestamptz", ["infinity", "-infinity", "294276-12-31 00:00+00", "10000-01-01 00:00+00"]),
    ],
)
def test_moments_beyond_the_calendar(crm: PostgresReader, kind: str, infinite: list[str]) -> None:
    inside = ["0001-01-01", "9999-12-31"]
    values = ", ".join(f"({i}, '{value}')" for i, value in enumerate([*inside, *infinite]))
    crm.sql(f"CREATE TABLE t (id int, valid_to {kind})", f"INSERT INTO t VALUES {values}")
    assert f"Got {len(infinite)} dates in column 'valid_to' of table t of {VARIABLE}" in crm.no_table("t")
    query = "select id, case when isfinite(valid_to) then valid_to end as valid_to from source"
    finite = crm.frame(VARIABLE, source=crm.source("t", query=query)).sort("id")["valid_to"]
    assert [str(value)[:10] for value in finite.drop_nulls()] == inside
    own = crm.statement(f"SELECT id, valid_to FROM t WHERE valid_to BETWEEN '{inside[0]}' AND '{inside[1]}'")
    assert own.height == 2


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-(2**63), 2**63 - 1),
            "f": st.none() | st.floats(allow_nan=False),
            "d": st.none() | st.decimals(min_value=-(10**14), max_value=10**14, places=3),
            "t": st.none() | TEXTS,
            "day": st.none() | MOMENTS.map(datetime.date),
            "at": st.none() | MOMENTS,
            "b": st.none() | st.booleans(),
        }
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_values_come_as_they_are(crm: PostgresReader, rows: list[dict[str, Any]]) -> None:
    kinds = {
        "i": "bigint",
        "f": "float8",
        "d": "numeric(18, 3)",
        "t": "text",
        "day": "date",
        "at": "timestamp",
        "b": "bool",
    }
    crm.sql("DROP TABLE IF EXISTS t", f"CREATE TABLE t (id int, {', '.join(f'{n} {k}' for n, k in kinds.items())})")
    values = ", ".join(f"({i}, {', '.join(_literal(row[n]) for n in kinds)})" for i, row in enumerate(rows))
    crm.sql(f"INSERT INTO t VALUES {values}")
    assert crm.table("t").sort("id").drop(ENTITY_KEY, "id").rows(named=True) == rows


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    text = value.isoformat() if isinstance(value, date) else str(value)
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def test_any_name_of_table_and_column(crm: PostgresReader) -> None:
    names = ["two words", 'quo"te', "it's", "select", "😀 é", "a,b", "${HOME}", "1", "c0", "q", 'a"; drop table x; --']
    quoted = ", ".join('"' + name.replace('"', '""') + '" text' for name in names)
    crm.sql('CREATE SCHEMA "O""dd"', f'CREATE TABLE "O""dd"."we.ird" (id int, {quoted})')
    crm.sql(
        f"""INSERT INTO "O""dd"."we.ird" SELECT i{"".join(f", 'v{i}'" for i in range(len(names)))} FROM generate_series(1, 2) i"""
    )
    frame = crm.table('O"dd.we.ird', drop=names[1:3], sensitive=names[3])
    assert frame.columns == [ENTITY_KEY, "id", *names]
    assert frame.row(0)[2:] == tuple(f"v{i}" for i in range(len(names)))
    crm.sql('CREATE TABLE "Case" (id int, "Age" int, age int)')
    assert "columns 'Age' and 'age' in table Case of" in crm.no_table("Case")


def test_tables_are_found_and_named(crm: PostgresReader) -> None:
    assert f"Got {VARIABLE} without any table" in crm.no_table()
    crm.sql("CREATE TABLE customers AS SELECT i AS id FROM generate_series(1, 3) i")
    assert crm.table().height == crm.table("customers").height == crm.table("public.customers").height == 3
    crm.sql("CREATE SCHEMA crm", "CREATE VIEW crm.recent AS SELECT * FROM customers WHERE id < 3")
    assert crm.table("crm.recent").height == 2
    message = crm.no_table("crm.recents")
    assert f"Got table 'crm.recents', which {VARIABLE} does not have" in message
    assert "one of: crm.recent, customers (did you mean 'crm.recent'?)" in message
    assert f"Got no `table` for {VARIABLE}" in crm.no_table()
    assert "Got `null_values` for" in crm.refusal(VARIABLE, source=crm.source("customers", null_values="NA"))
    crm.sql("CREATE TABLE nothing (id int)")
    assert f"Got no row in table nothing of {VARIABLE}" in crm.no_table("nothing")
    assert "which table customers of" in crm.no_table("customers", key="ID")


def test_statements(crm: PostgresReader) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id, 'a' || i AS x FROM generate_series(1, 3) i")
    with_comments = "-- what we sell\nWITH big AS (SELECT * FROM t WHERE id > 1) /* all; */ SELECT * FROM big -- end"
    assert sorted(crm.statement(with_comments)["x"]) == ["a2", "a3"]
    assert crm.statement("(SELECT id FROM t) UNION ALL VALUES (10);\n")["id"].sort().to_list() == [1, 2, 3, 10]
    odd = """SELECT id, E'it\\'s; --' AS x, $a$; -- $a$ AS y, ';''x' AS "z;" FROM t"""
    for end in ("; -- the end", ";;\n/* a; */ -- b;", " -- ';", "/* /* nested */ ; */"):
        assert crm.statement(odd + end).row(0)[2:] == ("it's; --", "; -- ", ";'x")
    assert "two columns named 'id' in the statement on" in crm.no_statement("SELECT * FROM t a JOIN t b USING (x)")
    for statement, said in {
        "DELETE FROM t": "begins with DELETE, expected one SELECT",
        "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone": "does not take",
        "SELECT * FROM t) AS q; DELETE FROM t; --": "does not take",
        "SELECT * FORM t": 'syntax error at or near "FORM"',
        "SELECT * FROM nowhere": 'relation "nowhere" does not exist',
        "SELECT id, nme FROM t": 'column "nme" does not exist',
        "SELECT set_config('a.b', 'c', false) AS id, pg_sleep(0), nextval('s') FROM t": "which writes",
    }.items():
        crm.sql("CREATE SEQUENCE IF NOT EXISTS s")
        assert said in crm.no_statement(statement)
    assert crm.sql("SELECT count(*) FROM t") == [(3,)]


def test_a_value_that_fails_is_not_told(crm: PostgresReader) -> None:
    crm.sql(f"CREATE TABLE t AS SELECT i AS id, '{SECRET}' AS x FROM generate_series(1, 3) i")
    message = crm.no_statement("SELECT id, x::int FROM t")
    assert f"Got the statement on {VARIABLE}, which cannot be read to its end" in message
    assert SECRET not in message


def test_a_query_joins_it_with_files(crm: PostgresReader) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id, i * 10 AS x FROM generate_series(1, 3) i")
    crm.write("names.csv", "id,name\n1,Ann\n2,Bob\n")
    source = {
        "tables": {"names": {"path": "names.csv"}, "t": {"path": VARIABLE, "format": "postgresql", "table": "t"}},
        "query": "select id, name, x from names join t using (id)",
    }
    assert crm.frame(source=source).sort("id").rows() == [("1", 1, "Ann", 10), ("2", 2, "Bob", 20)]


def test_a_url_is_told_without_a_format(crm: PostgresReader) -> None:
    crm.sql("CREATE TABLE t AS SELECT 1 AS id UNION ALL SELECT 2")
    assert crm.frame(VARIABLE)["id"].sort().to_list() == [1, 2]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://erasmo:wrong-pass@127.0.0.1:{port}/postgres", "a user or password that the server refuses"),
        ("postgresql://nobody:wrong-pass@127.0.0.1:{port}/postgres", "a user or password that the server refuses"),
        ("postgresql://erasmo:{password}@127.0.0.1:{port}/nowhere", "a database that the server does not have"),
        ("postgresql://erasmo:wrong-pass@127.0.0.1:1/postgres", "a host and port where no server listens"),
        ("postgresql://erasmo:wrong-pass@no-such-host.invalid/postgres", "a host that has no address"),
        (
            "postgresql://erasmo:{password}@127.0.0.1:{port}/postgres?sslmode=require",
            "encryption that the server refuses",
        ),
        ("postgresql://erasmo:wrong-pass%zz@no-such-host.invalid/postgres", "a text that is no PostgreSQL URL"),
        ("postgresql://erasmo:wrong pass@no-such-host.invalid/postgres", "a text that is no PostgreSQL URL"),
        ("postgresql://erasmo:wrong-pass@127.0.0.1:{port}no/postgres", "a text that is no PostgreSQL URL"),
        ("host=no-such-host.invalid password=wrong-pass colour=red", "a text that is no PostgreSQL URL"),
        ("wrong-pass", "a text that is no PostgreSQL URL"),
        ("", "a text that is no PostgreSQL URL"),
    ],
)
def test_servers_that_cannot_be_reached(crm: PostgresReader, url: str, said: str) -> None:
    crm.connect(url.format(port=crm.server.port, password=crm.server.password))
    message = crm.no_table("t")
    assert f"Got in {VARIABLE} a" in message
    assert said in message
    for part in ("wrong", "pass@", "no-such-host", "nobody", "nowhere", "colour", "sslmode"):
        assert part not in message


def test_a_variable_that_is_not_set(crm: PostgresReader) -> None:
    crm.monkeypatch.delenv("CRM_DATABASE_URL")
    assert f"Got {VARIABLE} for table t of {VARIABLE}, which is not set" in crm.no_table("t")


def test_time_limits_are_added_where_there_are_none() -> None:
    assert with_defaults("postgresql://u:p@h/d?connect_timeout=3").count("connect_timeout") == 1
    assert "connect_timeout=3&keepalives_idle=" in with_defaults("postgresql://u:p@h/d?connect_timeout=3")
    assert with_defaults("host=h connect_timeout = 3").count("connect_timeout") == 1
    assert "/d?connect_timeout=10&" in with_defaults("postgresql://u:p@h/d")
    assert with_defaults("nothing") == "nothing"


def test_a_url_with_an_open_end(crm: PostgresReader) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 3) i")
    for end in ("?", "?connect_timeout=3", "?connect_timeout=3&"):
        crm.connect(crm.url + end)
        assert crm.table("t").height == 3


def test_a_table_that_the_user_may_not_read(crm: PostgresReader) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id, i AS x FROM generate_series(1, 3) i")
    crm.sql("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'readers-own'")
    crm.connect(crm.server.url(crm.url.rpartition("/")[2], "reader", "readers-own"))
    message = crm.no_table("t")
    assert f"Got table t of {VARIABLE}, which its user may not read" in message
    assert "reader" not in message
    crm.sql("GRANT SELECT (id) ON t TO reader")  # so not to the system columns
    assert crm.statement("SELECT id FROM t").height == 3
    crm.sql("GRANT SELECT ON t TO reader", "ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    crm.sql("CREATE POLICY p ON t TO reader USING (id < 3)")
    assert crm.table("t").height == 2


def test_a_table_that_another_session_alters(crm: PostgresReader) -> None:
    crm.monkeypatch.setitem(postgres_source._SESSION, "lock_timeout", "100ms")
    crm.sql("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 3) i")
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(crm.url) as con, con.cursor() as cursor:
        cursor.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        assert "which another session holds locked" in crm.no_table("t")
        con.rollback()
    assert crm.table("t").height == 3


@contextmanager
def between_chunks(crm: PostgresReader, act: Callable[[], object]) -> Iterator[None]:
    """Do something once, when the first chunk has come."""
    next_chunk, done = postgres_source._next, []

    def then(*given: Any) -> Any:
        chunk = next_chunk(*given)
        if not done:
            done.append(act())
        return chunk

    with crm.monkeypatch.context() as patched:
        patched.setattr(postgres_source, "_next", then)
        yield
    assert done


def test_a_connection_that_is_lost_leaves_nothing(crm: PostgresReader) -> None:
    # More than what is on its way when the first chunk has come.
    crm.sql("CREATE TABLE t AS SELECT i AS id, repeat(md5(i::text), 12) AS x FROM generate_series(1, 150000) i")
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'erasmo_dagster'"
    with between_chunks(crm, lambda: crm.sql(others)):
        message = crm.no_table("t")
    assert (
        message
        == f"Got table t of {VARIABLE}, whose connection was lost, expected one that lasts to the last row: run again."
    )
    with between_chunks(crm, lambda: crm.sql(others.replace("terminate", "cancel"))):
        assert "whose reading the server cancelled" in crm.no_table("t")
    snapshot = crm(VARIABLE, source=crm.source("t"))
    assert (snapshot.rows, snapshot.rows_read) == (150000, 150000)


def test_all_rows_are_of_one_moment(crm: PostgresReader) -> None:
    crm.sql(
        "CREATE TABLE t (id int, part int) PARTITION BY LIST (part)",
        *(f"CREATE TABLE t{i} PARTITION OF t FOR VALUES IN ({i})" for i in range(3)),
        "INSERT INTO t SELECT i, i % 3 FROM generate_series(1, 30) i",
    )
    with between_chunks(crm, lambda: crm.sql("UPDATE t SET part = 0 WHERE part = 2", "DELETE FROM t WHERE part = 1")):
        assert crm.table("t")["part"].value_counts().sort("part").rows() == [(0, 10), (1, 10), (2, 10)]
    assert crm.table("t")["part"].unique().to_list() == [0]


def test_texts_do_not_depend_on_the_role(crm: PostgresReader) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id, timestamptz '2020-01-01 12:00+00' AS at, interval '36 hours' AS span,"
            " array[timestamptz '2020-01-01 12:00+00'] AS all_at FROM generate_series(1, 2) i")  # fmt: skip
    before = crm(VARIABLE, source=crm.source("t")).fingerprint
    database = crm.url.rpartition("/")[2]
    for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'German'", "intervalstyle = 'iso_8601'"):
        crm.sql(f"ALTER DATABASE {database} SET {setting}")
    assert crm(VARIABLE, source=crm.source("t")).fingerprint == before


def test_add_describes_a_table_on_a_server(crm: PostgresReader) -> None:
    crm.sql("CREATE SCHEMA crm")
    columns = "i AS id, i % 50 AS age, 'job' || i % 3 AS job, 'person' || i || '@example.org' AS email"
    crm.sql(f"CREATE TABLE crm.customers AS SELECT {columns} FROM generate_series(1, 60) i")
    with pytest.raises(ErasmoError, match="expected a column that names each row, such as: id, email"):
        infer_dataset(VARIABLE, (), crm.project, table="crm.customers")
    inferred = infer_dataset(VARIABLE, ("id",), crm.project, table="crm.customers")
    path = write_dataset(crm.project, inferred)
    assert path.name == "customers.yaml"
    assert "erasmo add '${CRM_DATABASE_URL}' --key id --table crm.customers" in inferred.yaml
    loaded = load_dataset(crm.project, "customers")
    assert loaded.source.model_dump(exclude_defaults=True) == crm.source("crm.customers") | {"path": VARIABLE}
    assert (loaded.drop, loaded.sensitive) == (("email",), ("email",))
    assert snapshot_source("customers", loaded, crm.project, crm.out).rows == 60
    for url in (crm.url, crm.url.replace("postgresql", "postgres")):
        with pytest.raises(ErasmoError) as caught:
            infer_dataset(url, ("id",), crm.project)
        assert str(caught.value).startswith("Got the URL of a database, expected a variable")
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("more", [{}, {"format": "postgresql"}])
def test_a_url_in_the_yaml_is_refused_and_not_repeated(crm: PostgresReader, more: dict[str, str]) -> None:
    file = crm.project.datasets_dir / "customers.yaml"
    for source in ({"path": crm.url, **more}, {"tables": {"t": {"path": crm.url, **more}}, "query": "from t"}):
        file.write_text(json.dumps({"source": source, "key": "id"}))
        with pytest.raises(ErasmoError) as caught:
            load_dataset(crm.project, "customers")
        told = "".join(traceback.format_exception(caught.value))
        assert "expected `${VARIABLE}` alone for a PostgreSQL database" in told
        assert PASSWORD not in told


def test_without_the_driver(crm: PostgresReader) -> None:
    crm.monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    assert 'without the driver for PostgreSQL: pip install "erasmo-dagster[postgres]"' in crm.no_table("t")
