"""Marts as Dagster and the command line see them: assets, checks, a job, and a sensor that builds them when SQL changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.health import dataset_health
from erasmo_dagster.defs.instance import open_instance, run_dataset, run_marts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from erasmo_dagster.show_marts import marts_fault
from tests.conftest import DatasetWriter, customers, write_test
from tests.defs.lineage import published
from tests.defs.test_sensors import Ticker

ROWS = "select dataset, count(*) as n from {{ ref('people') }} group by dataset having count(*) > 60"


@pytest.fixture
def tick(project: Project) -> Iterator[Ticker]:
    with open_instance(project) as instance:
        yield Ticker(project, instance)


def checks_of(instance: dg.DagsterInstance, key: dg.AssetKey, name: str) -> tuple[bool, str]:
    check = dg.AssetCheckKey(key, name)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    evaluation = record.event.dagster_event.event_specific_data  # type: ignore[union-attr]
    return bool(evaluation.passed), str(evaluation.description)  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_failing_test_blocks_its_dataset_and_is_seen_everywhere(
    project: Project,
    write_dataset: DatasetWriter,
    sql: Path,
    tick: Ticker,
) -> None:
    write_dataset("one", extra="refresh: {changed_share: 0.9}\n")
    write_dataset("two", customers(30))
    for name in ("one", "two"):
        run_dataset(tick.instance, project, name)
    write_test(sql, ROWS)
    people = dg.AssetKey(["marts", "people"])
    # The daemon builds the marts anew, once.
    (request,) = tick()
    assert request.job_name == "build_marts"
    assert tick.execute(request)
    assert tick() == []
    assert checks_of(tick.instance, people, "own_rule") == (True, "no failing rows")
    write_dataset("one", customers(63), extra="refresh: {changed_share: 0.9}\n")
    (request,) = tick()
    assert request.partition_key == "one"
    assert not tick.execute(request)
    passed, message = checks_of(tick.instance, people, "own_rule")
    assert not passed
    assert "one" in message
    health = {health.name: (health.state, health.note) for health in dataset_health(project, tick.instance)}
    assert health["one"][0] == "blocked"
    assert "own_rule" in health["one"][1]
    assert health["two"][0] == "ok"
    assert published(project, "select dataset, max(version) from segments group by all order by all") == [
        ("one", 1),
        ("two", 1),
    ]
    assert tick() == []  # the same source under the same SQL would only be blocked again
    with pytest.raises(ErasmoError, match=r"blocked at the gate \(mart_tests: own_rule"):
        run_dataset(tick.instance, project, "one")
    # With other SQL it is tried again, and the marts come with it.
    write_test(sql, ROWS.replace("60", "70"))
    requests = tick()
    assert [request.partition_key for request in requests if request.job_name == "segment_dataset"] == ["one"]
    assert all(tick.execute(request) for request in requests)
    assert published(project, "select count(*) from people where dataset = 'one'") == [(63,)]
    assert tick() == []


@pytest.mark.slow
def test_sql_that_cannot_be_read_hides_the_marts_alone_and_says_why(
    project: Project,
    write_dataset: DatasetWriter,
    sql: Path,
    tick: Ticker,
) -> None:
    write_dataset()
    run_dataset(tick.instance, project, "customers")
    good = (sql / "marts" / "people.sql").read_text()
    (sql / "marts" / "people.sql").write_text("select * from {{ ref('nobody') }}\n")
    definitions = build_definitions(project)
    assets = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert "published_segments" in assets
    assert "marts/people" not in assets
    assert "nobody" in str(definitions.resolve_job_def("build_marts").description)
    assert "nobody" in (marts_fault(project) or "")
    (request,) = tick()
    assert not tick.execute(request)
    assert [again.run_key for again in tick()] == [request.run_key], "which the daemon runs once"
    with pytest.raises(ErasmoError, match="nobody"):
        run_marts(tick.instance, project)
    assert published(project, "select count(*) from people") == [(60,)]
    (sql / "marts" / "people.sql").write_text(good)
    assert tick() == [], "what is served was built with this very SQL"
    assert marts_fault(project) is None


def test_models_are_assets_downstream_of_the_published_tables(project: Project, sql: Path) -> None:
    (sql / "marts" / "more.sql").write_text(
        "{{ config(materialized='view') }}\nselect dataset from {{ ref('people') }}\n"
    )
    write_test(sql, "select * from {{ ref('people') }} where entity_key is null")
    graph = build_definitions(project).resolve_asset_graph()
    source, people, more = (
        dg.AssetKey(path) for path in (["erasmo", "segments"], ["marts", "people"], ["marts", "more"])
    )
    assert graph.get(source).parent_keys == {dg.AssetKey("published_segments")}
    assert graph.get(people).parent_keys == {source}
    assert graph.get(more).parent_keys == {people}
    assert graph.get(people).partitions_def is None
    assert {key.name for key in graph.get_check_keys_for_assets({people})} == {"own_rule"}
    assert "select dataset, entity_key" in str(graph.get(people).description)
    (sql / "marts" / "more.sql").unlink()
    assert more not in build_definitions(project).resolve_asset_graph().get_all_asset_keys()
