"""What a look at a table in PostgreSQL costs, and what a run reads of one that has changed."""

from __future__ import annotations

import json
import time
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store import postgres_source
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.parts import snapshot_files
from erasmo_dagster.store.sources import Snapshot, fingerprint_of, snapshot_source
from erasmo_dagster.store.watch import Sighting, look
from tests.postgres_server import PASSWORD, PostgresServer
from tests.store.postgres_reader import VARIABLE, PostgresReader

pytestmark = pytest.mark.postgres
DAY = 86400.0
# Texts of a value at first, and after each change of the types that it is of.
WRITTEN = {
    "feeling": ["sad", "blue", "blue", "blue"],
    "mood[]": ['["sad"]', *['["blue"]'] * 3],
    "pair[]": [
        '[{"a":1,"m":"sad"}]',
        '[{"a":1,"m":"blue"}]',
        '[{"b":1,"m":"blue"}]',
        '[{"b":1,"m":"blue","c":null}]',
    ],
    "outer_pair": ['("(1,sad)")', '("(1,blue)")', '("(1,blue)")', '("(1,blue,)")'],
}


class Crm(PostgresReader):
    """A table of customers, its snapshots and looks at it. ``copied`` are the rows that came over the wire."""

    def __init__(self, project: Project, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(project, server, monkeypatch)
        self.settings: dict[str, Any] = {
            "source": {"path": VARIABLE, "format": "postgresql", "table": "t"},
            "key": "id",
        }
        self.last: Sighting | None = None
        self.version = 0
        self.copied: list[int] = []
        next_chunk = postgres_source._next

        def counted(*given: Any) -> Any:
            chunk = next_chunk(*given)
            self.copied += [chunk.num_rows] if chunk is not None and chunk.num_rows else []
            return chunk

        monkeypatch.setattr(postgres_source, "_next", counted)

    @property
    def dataset(self) -> DatasetSettings:
        return DatasetSettings.model_validate(self.settings)

    def look(self, later: float = 0.0) -> Sighting:
        self.copied.clear()
        self.last = look("customers", self.dataset, self.project, self.last, now=time.time() + later)
        return self.last

    def snapshot(self) -> Snapshot:
        """What a run of the next version takes; it is what a reading of everything finds."""
        self.version += 1
        out = snapshot_path(self.project, "customers", self.version)
        whole = snapshot_source("customers", self.dataset, self.project, self.project.home / "whole.parquet")
        self.copied.clear()
        taken = snapshot_source("customers", self.dataset, self.project, out, in_parts=True)
        assert taken.fingerprint == whole.fingerprint == fingerprint_of(out)
        assert taken.rows_read == sum(self.copied)
        return taken

    def snapshot_texts(self) -> str:
        """The one text that column x has in the next version's snapshot; a look finds it too."""
        taken = self.snapshot()
        assert self.look().fingerprint == taken.fingerprint
        (text,) = pl.read_parquet(snapshot_files(taken.path))["x"].unique()
        return str(text)


@pytest.fixture
def crm(project: Project, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Crm:
    return Crm(project, postgres, monkeypatch)


def plain_table(crm: Crm) -> None:
    crm.sql(
        "CREATE TABLE t AS SELECT i AS id, 'a' || i AS x, now() + i * interval '1 s' AS at FROM generate_series(1, 30) i"
    )


def partitioned_table(crm: Crm) -> None:
    crm.sql(
        "CREATE TABLE t (id int, x text, month int) PARTITION BY LIST (month)",
        *(f"CREATE TABLE t{i} PARTITION OF t FOR VALUES IN ({i})" for i in range(3)),
        "INSERT INTO t SELECT i, 'a' || i, i % 3 FROM generate_series(1, 30) i",
    )


def test_a_table_that_did_not_change_is_not_read(crm: Crm) -> None:
    plain_table(crm)
    first = crm.look()
    assert crm.copied == [30]
    assert crm.look(later=30) is first
    assert crm.copied == []
    assert crm.look(later=DAY + 60).fingerprint == first.fingerprint  # `refresh.verify`
    assert crm.copied == [30]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE t SET x = 'other' WHERE id = 7",
        "DELETE FROM t WHERE id = 7",
        "INSERT INTO t VALUES (31, 'new')",
        "ALTER TABLE t ADD COLUMN y int DEFAULT 5",
        "ALTER TABLE t DROP COLUMN x",
        "ALTER TABLE t RENAME COLUMN x TO y",
        "ALTER TABLE t DROP COLUMN constant; ALTER TABLE t ADD COLUMN constant int DEFAULT 2",
        "TRUNCATE t; INSERT INTO t VALUES (1), (2)",
    ],
)
def test_any_change_of_a_table_is_seen(crm: Crm, change: str) -> None:
    plain_table(crm)
    crm.sql("ALTER TABLE t ADD COLUMN constant int DEFAULT 1")
    before = crm.look()
    crm.sql(*change.split("; "))
    assert crm.look(later=30).fingerprint != before.fingerprint


def test_a_row_written_as_it_was_costs_a_reading_and_is_no_change(crm: Crm) -> None:
    plain_table(crm)
    before = crm.look()
    crm.sql("UPDATE t SET x = x WHERE id = 7", "VACUUM FULL t")
    assert crm.look(later=30).fingerprint == before.fingerprint


def test_only_partitions_that_changed_are_read(crm: Crm) -> None:
    partitioned_table(crm)
    crm.look()
    assert crm.snapshot().rows_read == 30
    assert crm.snapshot().rows_read == 0
    crm.sql("UPDATE t SET x = 'other' WHERE id = 7")
    assert crm.look(later=30).fingerprint.rows == 30
    assert crm.copied == [10]
    assert crm.snapshot().rows_read == 10
    crm.sql("CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)", "INSERT INTO t VALUES (31, 'new', 3)", "DROP TABLE t0")
    taken = crm.snapshot()
    assert (taken.rows, taken.rows_read) == (21, 1)
    crm.sql("UPDATE t SET month = 2 WHERE id = 31")  # from one partition to another
    assert crm.snapshot().rows_read == 11
    crm.sql("UPDATE t SET id = 1 WHERE id = 31", "INSERT INTO t VALUES (1, 'again', 1)")
    with pytest.raises(ErasmoError, match="in more than one row"):
        crm.snapshot()


def test_a_plain_table_is_one_part(crm: Crm) -> None:
    plain_table(crm)
    assert crm.snapshot().rows_read == 30
    assert crm.snapshot().rows_read == 0
    crm.sql("DELETE FROM t WHERE id = 7")
    assert crm.snapshot().rows_read == 29


@pytest.mark.parametrize("source", [{"table": "v"}, {"table": None, "statement": "SELECT * FROM t"}])
def test_what_has_no_row_versions_is_read_at_each_look(crm: Crm, source: dict[str, Any]) -> None:
    plain_table(crm)
    crm.sql("CREATE VIEW v AS SELECT *, xmin, ctid, tableoid FROM t")
    crm.settings |= {"source": {**crm.settings["source"], **source}}
    crm.settings["drop"] = ["xmin", "ctid", "tableoid"] if source["table"] else []
    first = crm.look()
    assert crm.look(later=30).fingerprint == first.fingerprint
    assert crm.copied == [30]
    assert crm.snapshot().rows_read == 30
    assert crm.snapshot().rows_read == 30
    crm.sql("DELETE FROM t WHERE id = 7")
    assert crm.look(later=60).fingerprint.rows == 29


@pytest.mark.parametrize("source", [{"table": "t"}, {"table": None, "statement": "SELECT * FROM t"}])
def test_a_column_that_grows_is_asked_for_and_nothing_read(crm: Crm, source: dict[str, Any]) -> None:
    plain_table(crm)
    crm.settings |= {"source": {**crm.settings["source"], **source}, "refresh": {"updated_at": "at"}}
    first = crm.look()
    rows, (highest, _) = json.loads(first.probe or "")
    assert rows == 30
    assert highest.startswith("20")
    assert crm.copied == [30]
    asked: list[str] = []
    crm.monkeypatch.setattr(postgres_source, "_signatures", lambda opened: asked.append(opened.select))
    second = crm.look(later=30)
    assert (second.fingerprint, second.hashed_at) == (first.fingerprint, first.hashed_at)
    assert crm.copied == asked == []
    crm.sql("UPDATE t SET x = 'edited' WHERE id = 7")  # leaves the column alone: waits for the next verifying
    assert crm.look(later=60).fingerprint == first.fingerprint
    crm.sql("UPDATE t SET x = 'edited', at = now() + interval '1 d' WHERE id = 8")
    assert crm.look(later=90).fingerprint != first.fingerprint
    crm.settings["refresh"] = {"updated_at": "At"}
    with pytest.raises(ErasmoError, match=r"`refresh.updated_at` 'At', which .* does not have \(did you mean 'at'\?\)"):
        crm.look()


def test_a_commit_that_comes_late_is_seen(crm: Crm) -> None:
    plain_table(crm)
    crm.settings["refresh"] = {"updated_at": "at"}
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(crm.url) as late, late.cursor() as cursor:
        cursor.execute("UPDATE t SET x = 'began first', at = timestamptz '2100-01-01 10:00' WHERE id = 7")
        crm.sql("UPDATE t SET x = 'ended first', at = timestamptz '2100-01-01 10:01' WHERE id = 8")
        before = crm.look()
        late.commit()
    after = crm.look(later=30)
    assert after.fingerprint != before.fingerprint
    seen = [json.loads(one.probe or "") for one in (before, after)]
    assert [(rows, highest) for rows, (highest, _) in seen] == [(30, "2100-01-01 10:01:00+00")] * 2
    assert crm.look(later=60).hashed_at == after.hashed_at


def test_a_column_without_a_highest_value(crm: Crm) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id, i > 1 AS done FROM generate_series(1, 3) i")
    crm.settings["refresh"] = {"updated_at": "done"}
    with pytest.raises(ErasmoError, match=r"does not take \(function max\(boolean\) does not exist\)"):
        crm.look()


@pytest.mark.parametrize("kind", WRITTEN)
def test_texts_that_change_with_their_type_are_seen(crm: Crm, kind: str) -> None:
    values = {
        "mood": "'sad'",
        "pair": "row(1, 'sad')",
        "feeling": "'sad'",
        "outer_pair": "row(row(1, 'sad'))::outer_pair",
    }
    value = values.get(kind) or f"array[{values[kind[:-2]]}]::{kind}"
    crm.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE pair AS (a int, m mood)",
        "CREATE TYPE outer_pair AS (p pair)",
        "CREATE DOMAIN feeling AS mood",
        f"CREATE TABLE t (id int, x {kind})",
        f"INSERT INTO t SELECT i, {value} FROM generate_series(1, 3) i",
    )
    texts = [crm.snapshot_texts()]
    for change in ("RENAME VALUE 'sad' TO 'blue'", "RENAME ATTRIBUTE a TO b", "ADD ATTRIBUTE c int"):
        crm.sql(f"ALTER TYPE {'mood' if 'VALUE' in change else 'pair'} {change}")
        texts.append(crm.snapshot_texts())
    assert texts == WRITTEN[kind]


def test_another_server_or_database_is_told_from_this(crm: Crm) -> None:
    plain_table(crm)
    asked: list[Any] = []
    definition = postgres_source._definition
    crm.monkeypatch.setattr(postgres_source, "_definition", lambda one: asked.append(definition(one)) or asked[-1])
    crm.look()
    assert asked[-1][0] == crm.sql(
        "SELECT system_identifier::text, timeline_id::text, oid::bigint FROM pg_control_system(),"
        " pg_control_checkpoint(), pg_database WHERE datname = current_database()"
    )
    # Who may not read it gets the moment when the server was started.
    role = f"reader_{crm.url.rpartition('_')[2]}"
    crm.sql(
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
        f"CREATE ROLE {role} LOGIN PASSWORD 'readers-own'",
        f"GRANT SELECT ON t TO {role}",
    )
    crm.connect(crm.server.url(crm.url.rpartition("/")[2], role, "readers-own"))
    seen = crm.look(later=30)
    assert asked[-1][0][0][:1] == crm.sql("SELECT pg_postmaster_start_time()::text")[0]
    assert crm.look(later=60) is seen


def test_what_is_not_stored_in_postgresqls_own_way_is_read_at_each_look(crm: Crm) -> None:
    database, server = crm.url.rpartition("/")[2], crm.server
    crm.sql(
        "CREATE TABLE far AS SELECT i AS id, 'a' || i AS x, 1 AS month FROM generate_series(1, 20) i",
        "CREATE TABLE t (id int, x text, month int) PARTITION BY LIST (month)",
        "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
        "INSERT INTO t SELECT i, 'a' || i, 0 FROM generate_series(21, 30) i",
        "CREATE EXTENSION postgres_fdw",
        f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (port '{server.port}', dbname '{database}', host"
        f" '{server.host}')",
        f"CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user '{server.user}', password '{server.password}')",
        "CREATE FOREIGN TABLE t1 PARTITION OF t FOR VALUES IN (1) SERVER s OPTIONS (table_name 'far')",
    )
    before = crm.look()
    taken = crm.snapshot()
    # The row versions that a foreign table sends are all zero, and in the same places.
    crm.sql("TRUNCATE far", "INSERT INTO far SELECT i, 'b' || i, 1 FROM generate_series(1, 20) i")
    assert crm.look(later=30).fingerprint != before.fingerprint
    assert crm.snapshot().fingerprint != taken.fingerprint
    crm.sql("CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler", "CREATE TABLE o (id int) USING other")
    crm.sql("INSERT INTO o VALUES (1), (2)")
    crm.settings["source"]["table"] = "o"
    crm.look(later=60)
    crm.look(later=90)
    assert crm.copied == [2]


def test_tables_of_a_query_are_watched(crm: Crm) -> None:
    plain_table(crm)
    crm.settings["source"] |= {"query": "select id, x from source where id < 4"}
    first = crm.look()
    assert crm.look(later=30) is first
    assert crm.copied == []
    crm.sql("UPDATE t SET x = 'other' WHERE id = 1")
    assert crm.look(later=60).fingerprint != first.fingerprint


def test_nothing_of_the_url_is_kept(crm: Crm) -> None:
    plain_table(crm)
    seen = crm.look().model_dump_json()
    crm.snapshot()
    kept = b"".join(file.read_bytes() for file in crm.project.home.rglob("*") if file.is_file()) + seen.encode()
    for part in (PASSWORD, "127.0.0.1", str(crm.server.port)):
        assert part.encode() not in kept


def test_a_server_that_is_away_is_a_fault_and_no_change(crm: Crm) -> None:
    plain_table(crm)
    first = crm.look()
    crm.connect(f"postgresql://erasmo:{PASSWORD}@127.0.0.1:1/away")
    with pytest.raises(ErasmoError, match="where no server listens"):
        crm.look(later=30)
    crm.connect(crm.url)
    assert crm.look(later=60) is first
