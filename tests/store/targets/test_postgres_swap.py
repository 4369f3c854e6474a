"""The move from one release to the next in PostgreSQL: readers, grants, other people's views, other writers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import PostgresTarget
from erasmo_dagster.store.targets import postgres_views
from erasmo_dagster.store.targets.postgres import PostgresPublisher
from tests.store.targets.places import TEAM, Database, opened, own_file, session

pytestmark = pytest.mark.postgres


class Releases:
    """Releases of a file of one's own, by number."""

    def __init__(self, folder: Path, *, wait: float = 20, **settings: Any) -> None:
        self.folder = folder
        self.target = PostgresPublisher(PostgresTarget.model_validate({**TEAM, **settings}), wait=wait)

    def publish(self, number: int, *statements: str) -> Any:
        path = self.folder / f"{number}.duckdb"
        own_file(path, statements)
        with opened(path, number) as file:
            return self.target.publish(file)


@pytest.fixture
def releases(tmp_path: Path, database: Database) -> Releases:
    return Releases(tmp_path)


def seen(releases: Releases) -> int | None:
    held = releases.target.release()
    return None if held is None else held.number


def two_tables(number: int) -> list[str]:
    """Two tables that agree; every third release the second has another column in the middle."""
    more = f"'x{number}' AS more, " if number % 3 == 0 else ""
    return [
        f"CREATE TABLE a AS SELECT i, {number} AS version FROM range({100 + number}) r(i)",
        f"CREATE TABLE b AS SELECT i, {more}{number} AS version FROM range({100 + number}) r(i)",
    ]


SEEN = "(SELECT release FROM erasmo.release), min(version), max(version), count(*)"
JOINED = "SELECT (SELECT release FROM erasmo.release), min(a.version), max(b.version), count(*) FROM {} USING (i)"


def ask(cursor: Any, query: str) -> list[tuple[int, ...]]:
    cursor.execute(query)
    rows: list[tuple[int, ...]] = cursor.fetchall()
    return rows


def joined(cursor: Any) -> list[tuple[int, ...]]:
    return ask(cursor, JOINED.format("erasmo.a a JOIN erasmo.b b"))


def joined_the_other_way(cursor: Any) -> list[tuple[int, ...]]:
    return ask(cursor, JOINED.format("erasmo.b b JOIN erasmo.a a"))


def one_after_the_other(cursor: Any) -> list[tuple[int, ...]]:
    """Both in a transaction that sees the database as it was at its beginning."""
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    rows = [row for view in "ab" for row in ask(cursor, f"SELECT {SEEN} FROM erasmo.{view}")]
    cursor.execute("COMMIT")
    return rows if rows[0] == rows[1] else [(0, *rows[0], *rows[1])]


def both_releases(database: Database) -> set[str]:
    """The views that are ready for those who see the database as it was."""
    found = database.rows(
        "SELECT viewname::text FROM pg_views WHERE schemaname = 'erasmo' AND definition LIKE '%UNION%'"
    )
    return {name for (name,) in found}


@contextmanager
def readers(database: Database, *asked: Callable[[Any], list[tuple[int, ...]]]) -> Iterator[list[tuple[int, ...]]]:
    """Readers who ask without a pause; what they saw, and after the block their errors are raised."""
    seen: list[tuple[int, ...]] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def read(query: Callable[[Any], list[tuple[int, ...]]]) -> None:
        try:
            while not stop.is_set():
                with session(database.url) as cursor:
                    for _ in range(20):
                        seen.extend(query(cursor))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(query,)) for query in asked]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_readers_see_one_release_at_a_time_and_no_error(releases: Releases, database: Database) -> None:
    releases.publish(1, *two_tables(1))
    with readers(database, joined, joined_the_other_way, joined, one_after_the_other) as seen:
        for number in range(2, 22):
            releases.publish(number, *two_tables(number))
    assert len(seen) > 100
    mixed = [row for row in seen if len(set(row[:3])) != 1 or row[3] != 100 + row[0]]
    assert mixed == []
    assert len({row[0] for row in seen}) > 5
    assert database.schemas() <= {"erasmo", *(f"erasmo_r{number}" for number in range(1, 22))}
    for number in (22, 23):
        releases.publish(number, *two_tables(number))
    assert database.schemas() == {"erasmo", "erasmo_r22", "erasmo_r23"}, "what readers held went with the next publish"


def test_grants_owner_and_options_stay_when_columns_change(releases: Releases, database: Database) -> None:
    analyst, lead, other, owner = (database.role(name) for name in ("analyst", "lead", "other", "owner"))
    releases.publish(1, "CREATE TABLE t AS SELECT 1 AS a, 2 AS b, 3 AS c", "CREATE TABLE u AS SELECT 1 AS a")
    for statement in (
        f"GRANT USAGE ON SCHEMA erasmo TO {analyst}, {lead}, {other}",
        f"GRANT CREATE ON SCHEMA erasmo TO {owner}",
        f"GRANT SELECT ON erasmo.t TO {analyst}",
        f"GRANT SELECT, REFERENCES ON erasmo.t TO {lead} WITH GRANT OPTION",
        f"GRANT SELECT (a, b) ON erasmo.t TO {other}",
        "ALTER VIEW erasmo.t SET (security_barrier = true)",
        f"ALTER VIEW erasmo.u OWNER TO {owner}",
        # Of views that are new, and not of one that is made anew.
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA erasmo GRANT SELECT ON TABLES TO {other}",
    ):
        database.rows(statement)
    acl = (
        "SELECT c.relname::text, coalesce(t.attname::text, ''), pg_get_userbyid(x.grantee)::text, x.privilege_type,"
        " x.is_grantable FROM pg_class c LEFT JOIN pg_attribute t ON t.attrelid = c.oid AND t.attacl IS NOT NULL,"
        " aclexplode(coalesce(t.attacl, c.relacl)) x WHERE c.oid = 'erasmo.t'::regclass AND x.grantee <> c.relowner"
        " ORDER BY 1, 2, 3, 4"
    )
    table_acl = acl.replace("coalesce(t.attacl, c.relacl)", "c.relacl").replace("t.attacl IS NOT NULL", "false")
    before, table_before = database.rows(acl), database.rows(table_acl)
    assert len(table_before) == 3
    releases.publish(
        2,
        "CREATE TABLE t AS SELECT 'text' AS a, 3 AS c, 4 AS d",
        "CREATE TABLE u AS SELECT 'text' AS a",
        "CREATE TABLE w AS SELECT 1 AS a",
    )
    assert database.rows("SELECT a, c, d FROM erasmo.t") == [("text", 3, 4)]
    assert database.rows(table_acl) == table_before
    assert database.rows(acl) == [row for row in before if row[1] != "b"]
    assert database.rows("SELECT reloptions FROM pg_class WHERE oid = 'erasmo.t'::regclass") == [
        (["security_barrier=true"],)
    ]
    assert database.rows("SELECT viewowner::text FROM pg_views WHERE schemaname = 'erasmo' AND viewname = 'u'") == [
        (owner,)
    ]
    assert database.rows("SELECT a FROM erasmo.u") == [("text",)]
    for role, query in ((analyst, "SELECT a FROM erasmo.t"), (lead, "SELECT c FROM erasmo.t")):
        with session(database.url_of(role)) as cursor:
            cursor.execute(query)
            assert len(cursor.fetchall()) == 1
    with session(database.url_of(other)) as cursor:
        cursor.execute("SELECT a FROM erasmo.t")
        with pytest.raises(Exception, match="permission denied for view t"):
            cursor.execute("SELECT c FROM erasmo.t")
        cursor.execute("SELECT a FROM erasmo.w")
        with pytest.raises(Exception, match="permission denied for schema erasmo_r2"):
            cursor.execute("SELECT a FROM erasmo_r2.w")
    # The view stays the same one where columns are only added.
    (oid,) = database.rows("SELECT 'erasmo.t'::regclass::oid::bigint")[0]
    releases.publish(3, "CREATE TABLE t AS SELECT 'text' AS a, 3 AS c, 4 AS d, 5 AS e")
    assert database.rows("SELECT 'erasmo.t'::regclass::oid::bigint") == [(oid,)]
    assert database.rows("SELECT e FROM erasmo.t") == [(5,)]
    assert database.rows(table_acl) == table_before


def test_a_view_of_somebody_else_is_never_dropped(releases: Releases, database: Database) -> None:
    releases.publish(1, "CREATE TABLE t AS SELECT 1 AS a, 2 AS b", "CREATE TABLE u AS SELECT 1 AS a")
    database.rows("CREATE VIEW public.mine AS SELECT a FROM erasmo.t")
    database.rows("CREATE VIEW erasmo.own AS SELECT a FROM erasmo.u")
    releases.publish(2, "CREATE TABLE t AS SELECT 10 AS a, 2 AS b, 3 AS c", "CREATE TABLE u AS SELECT 1 AS a")
    assert database.rows("SELECT a FROM public.mine") == [(10,)], "it goes on to the next release"
    with pytest.raises(ErasmoError) as caught:
        releases.publish(3, "CREATE TABLE t AS SELECT 'text' AS a")
    assert "erasmo.t by public.mine; erasmo.u by erasmo.own" in str(caught.value)
    assert database.rows("SELECT a FROM public.mine") == [(10,)]
    assert seen(releases) == 2
    assert "erasmo_r3" not in database.schemas()
    database.rows("DROP VIEW public.mine")
    database.rows("DROP VIEW erasmo.own")
    releases.publish(3, "CREATE TABLE t AS SELECT 'text' AS a")
    assert database.rows("SELECT a FROM erasmo.t") == [("text",)]


@pytest.mark.parametrize("statement", ["CREATE TABLE erasmo.t (a integer)", "CREATE VIEW erasmo.t AS SELECT 1 AS a"])
def test_a_name_that_is_taken_is_refused(releases: Releases, database: Database, statement: str) -> None:
    database.rows("CREATE SCHEMA erasmo")
    database.rows(statement)
    with pytest.raises(ErasmoError, match=r"Got erasmo\.t, which the target has not made"):
        releases.publish(1, "CREATE TABLE t AS SELECT 1 AS a")
    assert database.schemas() == {"erasmo"}
    with pytest.raises(ErasmoError, match="Got a table called 'release'"):
        releases.publish(1, "CREATE TABLE release AS SELECT 1 AS a")


def test_readers_who_do_not_let_go_hold_up_the_move_and_nothing_else(tmp_path: Path, database: Database) -> None:
    releases = Releases(tmp_path, wait=1)
    releases.publish(1, *two_tables(1))
    with session(database.url) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM erasmo.a")
        cursor.fetchall()
        with pytest.raises(ErasmoError, match="views of erasmo that readers have not let go of in 1 s"):
            releases.publish(2, *two_tables(2))
        assert database.rows("SELECT DISTINCT version FROM erasmo.b") == [(1,)], "nobody else waits"
        cursor.execute("SELECT DISTINCT version FROM erasmo.b")
        assert cursor.fetchall() == [(1,)]
        cursor.execute("COMMIT")
    releases.publish(2, *two_tables(2))
    assert database.rows("SELECT DISTINCT version FROM erasmo.a") == [(2,)]


def test_a_reader_who_comes_after_the_move_is_no_fault(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = Releases(tmp_path, wait=0.3)
    releases.publish(1, *two_tables(1))
    with session(database.url) as cursor:

        def come(_: Any) -> bool:
            cursor.execute("BEGIN")
            assert ask(cursor, f"SELECT {SEEN} FROM erasmo.a") == [(2, 2, 2, 102)]
            return True

        with monkeypatch.context() as patch:
            patch.setattr(postgres_views.Views, "_others_have_ended", come)
            releases.publish(2, *two_tables(2))
        assert both_releases(database) == {"a", "b"}
        assert ask(cursor, f"SELECT {SEEN} FROM erasmo.b") == [(2, 2, 2, 102)]
        cursor.execute("COMMIT")
    releases.publish(3, *two_tables(3))
    assert both_releases(database) == set()
    assert database.rows(f"SELECT {SEEN} FROM erasmo.b") == [(3, 3, 3, 103)]


def test_an_old_release_that_somebody_uses_stays_until_the_next(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_views, "_GRACE", 0.3)
    releases = Releases(tmp_path, keep=1)
    releases.publish(1, *two_tables(1))
    with session(database.url) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM erasmo_r1.a")
        cursor.fetchall()
        written = releases.publish(2, *two_tables(2))
        assert written.notes == ("the schema erasmo_r1 stays for now: something uses it",)
        assert database.schemas() == {"erasmo", "erasmo_r1", "erasmo_r2"}
        assert database.rows("SELECT DISTINCT version FROM erasmo.a") == [(2,)]
        assert both_releases(database) == {"a", "b"}
        cursor.execute("COMMIT")
    database.rows("CREATE VIEW public.old AS SELECT count(*) FROM erasmo_r2.a")
    assert releases.publish(3, *two_tables(3)).notes == ("the schema erasmo_r2 stays for now: something uses it",)
    assert database.rows("SELECT * FROM public.old") == [(102,)]
    assert both_releases(database) == set()
    database.rows("DROP VIEW public.old")
    database.rows("CREATE SCHEMA erasmo_r1")  # of somebody else
    releases.publish(4, *two_tables(4))
    assert database.schemas() == {"erasmo", "erasmo_r1", "erasmo_r4"}


def test_a_target_never_goes_back(releases: Releases, database: Database) -> None:
    releases.publish(5, *two_tables(5))
    assert releases.publish(4, *two_tables(4)).tables == 0
    assert seen(releases) == 5
    assert database.schemas() == {"erasmo", "erasmo_r5"}


def test_writers_take_turns(tmp_path: Path, database: Database) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            Releases(tmp_path).publish(number, *two_tables(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert database.rows("SELECT release FROM erasmo.release") == [(6,)]
    assert database.rows("SELECT DISTINCT version FROM erasmo.a") == [(6,)]


def test_two_schemas_of_one_database_do_not_meet(tmp_path: Path, database: Database) -> None:
    Releases(tmp_path, schema="erasmo_one").publish(3, *two_tables(3))
    Releases(tmp_path, schema="erasmo_two").publish(1, *two_tables(1))
    Releases(tmp_path, schema="erasmo_two", keep=1).publish(2, *two_tables(2))
    assert database.rows("SELECT DISTINCT version FROM erasmo_one.a") == [(3,)]
    assert database.schemas() == {"erasmo_one", "erasmo_one_r3", "erasmo_two", "erasmo_two_r2"}
