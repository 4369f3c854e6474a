"""PostgreSQL as a target: what readers see, and what stands after everything that can go wrong."""

from __future__ import annotations

import pytest

from erasmo_dagster.store.publish import retire, rollback
from erasmo_dagster.store.targets import send
from tests.store.targets.conftest import WithTargets
from tests.store.targets.places import TEAM, Database
from tests.store.test_publish import prepare, read, release

pytestmark = pytest.mark.postgres


def test_readers_have_every_table_under_a_stable_name(with_targets: WithTargets, database: Database) -> None:
    project = with_targets(TEAM)
    release(project, "a", prepare(project, "a", 4))
    (sent,) = send(project)
    assert (sent.target, sent.kind, sent.release, sent.error) == ("team", "postgresql", 1, None)
    names = {name for (name,) in read(project, "select table_name from information_schema.tables")}
    assert {name for name, kind in database.relations("erasmo") if kind == "VIEW"} == names
    assert ("release", "BASE TABLE") in database.relations("erasmo")
    for name in sorted(names):
        assert database.rows(f'select count(*) from erasmo."{name}"') == read(project, f'select count(*) from "{name}"')
    assert sent.tables == len(names)
    query = "select dataset, entity_key, segment_id, segment_name, version from {}segments order by entity_key"
    assert database.rows(query.format("erasmo.")) == read(project, query.format(""))
    assert database.rows("select release, publish_id, tables @> '{segments}' from erasmo.release") == [(1, 1, True)]
    assert database.schemas() == {"erasmo", "erasmo_r1"}


def test_each_release_is_a_schema_and_the_newest_are_kept(with_targets: WithTargets, database: Database) -> None:
    project = with_targets(TEAM)
    for rows in (4, 6, 8):
        release(project, "a", prepare(project, "a", rows))
        send(project)
    assert database.rows("select version, count(*) from erasmo.segments group by 1") == [(3, 8)]
    assert database.schemas() == {"erasmo", "erasmo_r2", "erasmo_r3"}
    rollback(project, {}, "a", 1, reason="back")
    (sent,) = send(project)
    assert sent.release == 4
    assert database.rows("select version, count(*) from erasmo.segments group by 1") == [(1, 4)]
    assert [one.tables for one in send(project)] == [0], "what a target has is not copied again"
    retire(project, {}, "a", reason="gone")
    send(project)
    assert database.rows("select count(*) from erasmo.segments") == [(0,)]
    assert "a_segmented" not in {name for name, _ in database.relations("erasmo")}
