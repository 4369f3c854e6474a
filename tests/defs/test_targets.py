"""Targets beside the DuckDB file, through Dagster: a whole run, one that fails, and what completes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance, run_dataset, run_marts
from erasmo_dagster.defs.targets import JOB, target_requests
from erasmo_dagster.defs.upkeep import remove_dataset
from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.targets import TargetError, read_standings
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import published
from tests.postgres_server import PostgresServer
from tests.store.targets.places import LAKE, TEAM, Database

pytestmark = pytest.mark.postgres


@pytest.fixture
def database(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Database:
    url = postgres.new_database()
    monkeypatch.setenv("TEAM_DATABASE_URL", url)
    return Database(postgres, url)


@pytest.fixture
def team(project: Project, write_dataset: DatasetWriter) -> Project:
    """A project with a dataset, and with both kinds of targets in its erasmo.yaml."""
    write_dataset()
    (project.root / "erasmo.yaml").write_text(json.dumps({"publish": ["duckdb", TEAM, LAKE]}))
    return open_project(project.root, project.home)


@pytest.fixture
def instance(team: Project) -> Iterator[dg.DagsterInstance]:
    with open_instance(team) as instance:
        yield instance


def lake(project: Project) -> Any:
    return json.loads((project.root / "lake" / "latest.json").read_text())


def test_a_run_publishes_everywhere(team: Project, instance: dg.DagsterInstance, database: Database, sql: Path) -> None:
    metadata = run_dataset(instance, team, "customers").metadata
    rows = [record.data for record in metadata["published_segments"]["targets"].records]
    assert [(row["target"], row["kind"], row["release"]) for row in rows] == [
        ("team", "postgresql", 1),
        ("lake", "parquet", 1),
    ]
    assert all(row["rows"] > 60 and row["tables"] > 10 and row["seconds"] > 0 for row in rows)
    for table in ("segments", "segment_sizes", "customers_segmented", "people", "leaderboard"):
        held = published(team, f"select count(*) from {table}")
        assert database.rows(f"select count(*) from erasmo.{table}") == held
        assert [(lake(team)["tables"][table]["rows"],)] == held
    query = "select segment_id, count(*) from {}customers_segmented group by 1 order by 1"
    assert database.rows(query.format("erasmo.")) == published(team, query.format(""))
    events = repr([instance.all_logs(run.run_id) for run in instance.get_runs()])
    assert "customers_segmented" in events
    assert database.server.password not in events
    assert database.server.password not in repr(published(team, "from publish_log"))
    assert target_requests(instance, team, 0.0) == []
    (sql / "marts" / "people.sql").write_text("select dataset, count(*) as people from segments group by dataset\n")
    run_marts(instance, team)
    assert database.rows("select people from erasmo.people") == [(60,)]
    assert lake(team)["release"] == 2
    lines = list(remove_dataset(team, instance, "customers"))
    assert any("target team has release 3" in line for line in lines)
    assert database.rows("select count(*) from erasmo.segments") == [(0,)]
    assert not instance.has_dynamic_partition("dataset", "customers")


def test_a_target_that_fails_fails_the_asset_and_is_completed(
    team: Project,
    instance: dg.DagsterInstance,
    database: Database,
    write_dataset: DatasetWriter,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_dataset(instance, team, "customers")
    write_dataset(frame=customers(63))
    monkeypatch.setenv("TEAM_DATABASE_URL", "postgresql://erasmo:hunter2-secret@127.0.0.1:1/nowhere")
    with pytest.raises(TargetError, match=r"team: Got in .* no server listens"):
        run_dataset(instance, team, "customers")
    run = instance.get_runs(limit=1)[0]
    assert run.status is dg.DagsterRunStatus.FAILURE
    told = repr(instance.all_logs(run.run_id))
    assert "no server listens" in told
    printed = capfd.readouterr()
    assert not any("hunter2-secret" in text for text in (told, printed.out, printed.err))
    assert published(team, "select count(*) from segments") == [(63,)]
    assert lake(team)["tables"]["segments"]["rows"] == 63
    assert database.rows("select count(*) from erasmo.segments") == [(60,)]
    assert [(one.target, one.behind) for one in read_standings(team)] == [("team", True), ("lake", False)]
    # The sensor starts the job that completes it; while it cannot, once in ten minutes.
    (request,) = target_requests(instance, team, 0.0)
    assert request.job_name == JOB
    assert target_requests(instance, team, 599.0)[0].run_key == request.run_key
    assert target_requests(instance, team, 601.0)[0].run_key != request.run_key
    job = build_definitions(team).resolve_job_def(JOB)
    assert not job.execute_in_process(instance=instance, raise_on_error=False).success
    monkeypatch.setenv("TEAM_DATABASE_URL", database.url)
    assert job.execute_in_process(instance=instance).success
    assert database.rows("select count(*) from erasmo.segments") == [(63,)]
    assert target_requests(instance, team, 0.0) == []
    assert not any(one.behind for one in read_standings(team))


def test_a_retry_completes_what_is_behind_and_copies_nothing_twice(
    team: Project, instance: dg.DagsterInstance, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM_DATABASE_URL")
    with pytest.raises(TargetError, match="TEAM_DATABASE_URL"):
        run_dataset(instance, team, "customers")
    monkeypatch.setenv("TEAM_DATABASE_URL", database.url)
    failed = instance.get_runs(limit=1)[0]
    done = (
        build_definitions(team)
        .resolve_job_def("segment_dataset")
        .execute_in_process(
            partition_key="customers",
            instance=instance,
            asset_selection=[dg.AssetKey("published_segments")],
            tags={"dagster/root_run_id": failed.run_id, "dagster/parent_run_id": failed.run_id},
        )
    )
    (event,) = [e for e in done.get_asset_materialization_events() if e.asset_key == dg.AssetKey("published_segments")]
    rows = [record.data for record in event.materialization.metadata["targets"].records]  # type: ignore[union-attr]
    assert [(row["target"], row["release"], row["tables"] > 0) for row in rows] == [
        ("team", 1, True),
        ("lake", 1, False),
    ]
    assert database.rows("select release from erasmo.release") == [(1,)]


def test_without_targets_there_is_no_job_for_them(project: Project) -> None:
    names = {job.name for job in build_definitions(project).resolve_all_job_defs()}
    assert JOB not in names
