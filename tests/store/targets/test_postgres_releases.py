"""Older releases in PostgreSQL: who still sees them, which of them go at once, and what role is enough for all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.targets import postgres, postgres_views
from erasmo_dagster.store.targets.postgres_session import ServerError
from tests.store.targets.places import Database, session
from tests.store.targets.test_postgres_swap import SEEN, Releases, ask, both_releases, two_tables

pytestmark = pytest.mark.postgres


def test_who_sees_the_database_as_it_was_sees_its_release_whatever_is_published(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_views, "_GRACE", 0.1)
    releases = Releases(tmp_path)
    releases.publish(1, *two_tables(1))
    with session(database.url) as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert ask(cursor, "SELECT 1") == [(1,)]  # from here on
        for number in (2, 3, 4):
            releases.publish(number, *two_tables(number))
        for view in "ab":
            assert ask(cursor, f"SELECT {SEEN} FROM erasmo.{view}") == [(1, 1, 1, 101)]
            assert database.rows(f"SELECT {SEEN} FROM erasmo.{view}") == [(4, 4, 4, 104)]
        cursor.execute("COMMIT")
    releases.publish(5, *two_tables(5))
    assert both_releases(database) == set()
    assert database.schemas() == {"erasmo", "erasmo_r4", "erasmo_r5"}


def test_a_view_that_has_nothing_of_a_release_says_so(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_views, "_GRACE", 0.1)
    releases = Releases(tmp_path)
    new = "CREATE TABLE c AS SELECT 1 AS i"
    with session(database.url) as before, session(database.url) as cursor:
        before.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert ask(before, "SELECT 1") == [(1,)]
        releases.publish(1, *two_tables(1))
        with pytest.raises(Exception, match="a release that is gone, begin another transaction: 0"):
            ask(before, "SELECT count(*)::integer FROM erasmo.a WHERE i = 3")
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert ask(cursor, f"SELECT {SEEN} FROM erasmo.a") == [(1, 1, 1, 101)]
        cursor.execute("SAVEPOINT one")
        with session(database.url) as other:
            other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            assert ask(other, "SELECT 1") == [(1,)]
            cursor.execute("COMMIT")
            releases.publish(2, *two_tables(2), new)
            assert database.rows("SELECT i FROM erasmo.c") == [(1,)]
            with pytest.raises(Exception, match="a release that is gone, begin another transaction: 1"):
                ask(other, "SELECT i FROM erasmo.c")
    releases.publish(3, *two_tables(3), new)
    assert database.rows("SELECT definition LIKE '%gone%' FROM pg_views WHERE schemaname = 'erasmo'") == [(False,)] * 3


def test_while_a_view_changes_readers_of_the_others_do_not_wait(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_views, "_GRACE", 0.1)
    releases = Releases(tmp_path)
    releases.publish(1, *two_tables(1))
    changes, seen = postgres_views.Views._changes, []

    def read(*arguments: Any) -> Any:
        with session(database.url) as other:
            other.execute("SET lock_timeout = 2000")
            seen.extend(ask(other, f"SELECT {SEEN} FROM erasmo.a"))
        return changes(*arguments)

    with session(database.url) as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert ask(cursor, "SELECT release FROM erasmo.release") == [(1,)]
        releases.publish(2, *two_tables(2))
        assert both_releases(database) == {"a", "b"}
        monkeypatch.setattr(postgres_views.Views, "_changes", read)
        releases.publish(3, *two_tables(3))  # in which b has other columns
        cursor.execute("COMMIT")
    assert seen == [(2, 2, 2, 102)]
    assert database.rows(f"SELECT {SEEN} FROM erasmo.b") == [(3, 3, 3, 103)]


def test_what_is_private_now_is_in_no_older_release(tmp_path: Path, database: Database) -> None:
    releases = Releases(tmp_path, keep=3)
    for number in (1, 2):
        releases.publish(number, "CREATE TABLE t AS SELECT 1 AS a, 'x' AS email", "CREATE TABLE u AS SELECT 1 AS a")
    assert database.schemas() == {"erasmo", "erasmo_r1", "erasmo_r2"}
    private = ["CREATE TABLE t AS SELECT 1 AS a", "CREATE TABLE u AS SELECT 1 AS a, 2 AS b"]
    with session(database.url) as cursor:
        cursor.execute("BEGIN")
        assert ask(cursor, "SELECT a FROM erasmo_r2.t") == [(1,)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgres_views, "_GRACE", 0.1)
            written = releases.publish(3, *private)
        assert written.notes == ("the schema erasmo_r2 stays for now: something uses it",)
        assert "erasmo_r2" in database.schemas()
        cursor.execute("COMMIT")
    assert releases.target.tidy() == ()
    assert database.schemas() == {"erasmo", "erasmo_r3"}
    assert both_releases(database) == set()
    releases.publish(4, *private)
    releases.publish(5, private[0])  # a dataset was removed
    assert database.schemas() == {"erasmo", "erasmo_r5"}
    releases.publish(6, private[0])
    assert releases.target.tidy() == ()
    assert database.schemas() == {"erasmo", "erasmo_r5", "erasmo_r6"}


def test_a_release_that_cannot_be_dropped_says_why(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = Releases(tmp_path, keep=1)
    releases.publish(1, *two_tables(1))
    with monkeypatch.context() as patch:
        lost = ServerError("Got an error of PostgreSQL where it was to run a statement: the connection was lost", "")
        patch.setattr(postgres, "drop_release", lambda *_: (_ for _ in ()).throw(lost))
        (note,) = releases.publish(2, *two_tables(2)).notes
    assert note.startswith("the schema erasmo_r1 stays for now: Got an error of PostgreSQL")
    assert database.rows("SELECT release FROM erasmo.release") == [(2,)]
    assert releases.target.tidy() == ()
    assert database.schemas() == {"erasmo", "erasmo_r2"}


def test_a_role_that_may_only_make_schemas_publishes(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, analyst, owner = (database.role(name) for name in ("publisher", "analyst", "owner"))
    name = database.url.rpartition("/")[2]
    database.rows(f"GRANT CREATE ON DATABASE {name} TO {publisher}")
    monkeypatch.setenv("TEAM_DATABASE_URL", database.url_of(publisher))
    releases = Releases(tmp_path)
    releases.publish(1, *two_tables(1))
    with session(database.url_of(publisher)) as cursor:
        cursor.execute(f"GRANT USAGE ON SCHEMA erasmo TO {analyst}")
        cursor.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA erasmo TO {analyst}")

    def read(number: int) -> None:
        with session(database.url_of(analyst)) as cursor:
            for view in "ab":
                assert ask(cursor, f"SELECT {SEEN} FROM erasmo.{view}") == [(number, number, number, 100 + number)]

    for number in (2, 3, 4):
        releases.publish(number, *two_tables(number))
        read(number)
    assert database.schemas() == {"erasmo", "erasmo_r4"}, "the third has a column that the fourth has not"
    # A view of somebody else stays theirs where they let the publisher act for them, and may make views here.
    database.rows(f"ALTER VIEW erasmo.b OWNER TO {owner}")
    with pytest.raises(ErasmoError, match="must be owner of view b"):
        releases.publish(5, *two_tables(5))
    assert database.rows("SELECT release FROM erasmo.release") == [(4,)]
    database.rows(f"GRANT {owner} TO {publisher}")
    database.rows(f"GRANT CREATE ON SCHEMA erasmo TO {owner}")
    for number in (5, 6):
        releases.publish(number, *two_tables(number))
        read(number)
    owners = "SELECT viewname::text, viewowner::text FROM pg_views WHERE schemaname = 'erasmo' ORDER BY 1"
    assert database.rows(owners) == [("a", publisher), ("b", owner)]
    assert database.schemas() == {"erasmo", "erasmo_r5", "erasmo_r6"}
