"""What a look at a table in PostgreSQL costs, and what a run reads of one that has changed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store import postgres_source
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.sources import Snapshot, fingerprint_of, snapshot_source
from erasmo_dagster.store.watch import Sighting, look
from tests.postgres_server import PASSWORD, PostgresServer
from tests.store.postgres_reader import VARIABLE, PostgresReader

pytestmark = pytest.mark.postgres
DAY = 86400.0


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
    rows, highest = json.loads(first.probe or "")
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


def test_a_column_without_a_highest_value(crm: Crm) -> None:
    crm.sql("CREATE TABLE t AS SELECT i AS id, i > 1 AS done FROM generate_series(1, 3) i")
    crm.settings["refresh"] = {"updated_at": "done"}
    with pytest.raises(ErasmoError, match=r"does not take \(function max\(boolean\) does not exist\)"):
        crm.look()


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
