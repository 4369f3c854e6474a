"""The look at the sources in a real instance: what it starts, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest

from erasmo_dagster.defs import sensors, watching
from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.health import dataset_health
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.defs.upkeep import collect_garbage, remove_dataset
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.watching import Memory, plan_watch
from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.publish import rollback
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import published, warehouse
from tests.defs.test_refresh import small_change

pytestmark = pytest.mark.slow  # several whole runs each


@pytest.fixture
def instance(project: Project) -> Iterator[dg.DagsterInstance]:
    with open_instance(project) as instance:
        yield instance


class Ticker:
    """Ticks as the daemon does, with the cursor carried on and runs done in this process."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self.project, self.instance, self.cursor = project, instance, ""
        self.events: list[dg.AssetCheckEvaluation] = []

    def __call__(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = sensors.tick(context, self.project)
        if isinstance(result, dg.SkipReason):
            return []
        self.cursor = result.cursor or ""
        self.events = [event for event in result.asset_events or [] if isinstance(event, dg.AssetCheckEvaluation)]
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("dataset", list(request.partition_keys))
        return list(result.run_requests or [])

    def notes(self) -> str:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = sensors.tick(context, self.project)
        assert isinstance(result, dg.SensorResult)
        return str(result.skip_reason.skip_message) if result.skip_reason else ""

    def execute(self, request: dg.RunRequest) -> bool:
        job = build_definitions(self.project).resolve_job_def(str(request.job_name))
        done = job.execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            run_config=request.run_config,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        return done.success


@pytest.fixture
def tick(project: Project, instance: dg.DagsterInstance) -> Ticker:
    return Ticker(project, instance)


def test_a_new_yaml_is_registered_run_and_then_left_alone(
    project: Project, write_dataset: DatasetWriter, tick: Ticker
) -> None:
    assert tick() == []
    write_dataset()
    (request,) = tick()
    assert (request.job_name, request.partition_key) == ("segment_dataset", "customers")
    assert tick.instance.get_dynamic_partitions("dataset") == ["customers"]
    assert tick.execute(request)
    assert tick() == []
    assert tick.notes() == "customers: as published"
    write_dataset(frame=customers())  # written again, and the same
    assert tick() == []


def test_a_change_is_one_run_and_a_change_back_another(
    project: Project, write_dataset: DatasetWriter, tick: Ticker
) -> None:
    write_dataset()
    tick.execute(tick()[0])
    keys = set()
    for frame in (small_change(), customers(), small_change()):
        write_dataset(frame=frame)
        (request,) = tick()
        keys.add(request.run_key)
        assert tick() == []  # started for this state
        assert tick.execute(request)
        assert tick() == []
    assert len(keys) == 3
    assert published(project, "select version from publish_log order by 1") == [(1,), (2,), (3,), (4,)]
    assert published(project, "select reason from publish_log where version = 3")[0][0].startswith("source changed")


def test_a_broken_dataset_holds_up_no_other_and_stays_served(
    project: Project, write_dataset: DatasetWriter, tick: Ticker
) -> None:
    for name in ("broken", "locked", "sound"):
        write_dataset(name, customers(30))
        run_dataset(tick.instance, project, name)
    tick()
    (project.datasets_dir / "broken.yaml").write_text("source: [")
    (project.root / "locked.parquet").unlink()
    (project.datasets_dir / "Bad Name.yaml").write_text("key: id")
    write_dataset("sound", customers(33))
    (request,) = tick()
    assert request.partition_key == "sound"
    notes = tick.notes()
    assert "YAML that does not parse" in notes
    assert "locked.parquet" in notes
    assert "Bad Name" in notes
    assert tick.execute(request)
    assert published(project, "select dataset, count(*) from segments group by all order by all") == [
        ("broken", 30),
        ("locked", 30),
        ("sound", 33),
    ]
    states = {health.name: health.state for health in dataset_health(project, tick.instance)}
    assert states == {"Bad Name": "failing", "broken": "failing", "locked": "failing", "sound": "ok"}


def test_failed_runs_are_tried_again_with_backoff_and_then_given_up(
    project: Project, write_dataset: DatasetWriter, tick: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_dataset(extra="refresh: {retries: 2, backoff: 100s}\n")
    file.write_text(file.read_text().replace("max_tokens: 300", "max_tokens: 300, learning_rate: 1.0, max_length: 8"))
    file.write_text(file.read_text().replace("path:/", "path:/nowhere/"))
    clock = [datetime.now(UTC).timestamp()]
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    attempts = []
    for _ in range(40):
        for request in tick():
            attempts.append((round(clock[0]), request.tags[sensors.ATTEMPT_TAG], request.tags[sensors.LAST_TAG]))
            assert not tick.execute(request)
        clock[0] += 30
    assert [(attempt, last) for _, attempt, last in attempts] == [("1", "false"), ("2", "false"), ("3", "true")]
    first, second = (later[0] - earlier[0] for earlier, later in pairwise(attempts))
    assert 100 <= first <= 200
    assert 200 <= second <= 300
    assert "gave up after 3 failed runs" in tick.notes()
    (health,) = dataset_health(project, tick.instance)
    assert health.state == "failing"
    assert "nowhere" in health.note


def test_a_blocked_version_is_not_tried_again_until_something_changes(
    project: Project, write_dataset: DatasetWriter, tick: Ticker
) -> None:
    write_dataset()
    tick.execute(tick()[0])
    write_dataset(frame=small_change(), extra="gate: {min_segment_size: 30}\n")
    assert not tick.execute(tick()[0])
    assert tick() == []
    assert "blocked at the gate" in tick.notes()
    (health,) = dataset_health(project, tick.instance)
    assert health.state == "blocked"
    assert "segments_are_large_enough" in health.note
    assert published(project, "select distinct version from segments") == [(1,)]
    write_dataset(frame=small_change(), extra="gate: {min_segment_size: 2}\n")
    assert tick.execute(tick()[0])
    assert published(project, "select distinct version from segments") == [(3,)]
    assert [health.state for health in dataset_health(project, tick.instance)] == ["ok"]


def test_a_rollback_holds_until_the_source_changes(
    project: Project, write_dataset: DatasetWriter, tick: Ticker
) -> None:
    write_dataset()
    tick.execute(tick()[0])
    write_dataset(frame=small_change())
    tick.execute(tick()[0])
    rollback(project, {}, "customers", 1, reason="erasmo rollback")
    assert tick() == []
    write_dataset(frame=customers(64))
    (request,) = tick()
    assert tick.execute(request)


def test_a_dataset_without_yaml_is_hidden_after_a_while_and_comes_back(
    project: Project, write_dataset: DatasetWriter, tick: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_dataset()
    write_dataset("other", customers(30))
    for request in tick():
        tick.execute(request)
    text = file.read_text()
    clock = [datetime.now(UTC).timestamp()]
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    file.unlink()
    assert tick() == []
    assert "hidden from the published file in 24 h" in tick.notes()
    clock[0] += timedelta(hours=23).total_seconds()
    assert tick() == []
    clock[0] += timedelta(hours=2).total_seconds()
    # An empty or unreadable folder retires nothing.
    away = project.root / "away"
    project.datasets_dir.rename(away)
    assert tick() == []
    project.datasets_dir.mkdir()
    assert tick() == []
    project.datasets_dir.rmdir()
    away.rename(project.datasets_dir)
    (request,) = tick()
    assert request.job_name == "retire_dataset"
    assert tick.execute(request)
    assert published(project, "select distinct dataset from segments") == [("other",)]
    assert warehouse(project, "select count(*) from segments where dataset = 'customers'") == [(60,)]
    assert tick() == []
    file.write_text(text)
    (request,) = tick()
    assert request.tags["erasmo/reason"] == "its YAML is back"
    assert tick.execute(request)
    assert published(project, "select distinct dataset from segments order by 1") == [("customers",), ("other",)]


def test_remove_and_gc(project: Project, write_dataset: DatasetWriter, tick: Ticker) -> None:
    file = write_dataset()
    write_dataset("other", customers(30))
    for request in tick():
        tick.execute(request)
    (project.artifacts / "customers" / "training" / "left").mkdir(parents=True)
    (project.artifacts / "customers" / "99").mkdir()
    list(collect_garbage(project, tick.instance))
    assert sorted(path.name for path in (project.artifacts / "customers").iterdir()) == ["1"]
    lines = list(remove_dataset(project, tick.instance, "customers"))
    assert any("removed/customers.yaml" in line for line in lines)
    assert not file.exists()
    assert (project.home / "removed" / "customers.yaml").exists()
    assert published(project, "select distinct dataset from segments") == [("other",)]
    assert tick.instance.get_dynamic_partitions("dataset") == ["other"]
    assert tick() == []
    assert "customers: deleted, its YAML is gone" in list(collect_garbage(project, tick.instance))
    for table in ("versions", "segments", "corpus", "segment_history", "segment_names", "published_versions"):
        assert warehouse(project, f"select count(*) from {table} where dataset = 'customers'") == [(0,)]
        assert warehouse(project, f"select count(*) from {table} where dataset = 'other'") != [(0,)]
    assert not (project.artifacts / "customers").exists()
    with pytest.raises(ErasmoError, match="not known"):
        list(remove_dataset(project, tick.instance, "customers"))


def test_stale_is_a_changed_source_that_waits_too_long(
    project: Project, write_dataset: DatasetWriter, tick: Ticker, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(extra="refresh: {on_change: false, max_age: 1h}\n")
    run_dataset(tick.instance, project, "customers")
    assert tick() == []
    write_dataset(frame=small_change(), extra="refresh: {on_change: false, max_age: 1h}\n")
    assert tick() == []
    assert [health.state for health in dataset_health(project, tick.instance)] == ["behind"]
    now = datetime.now(UTC).timestamp()
    monkeypatch.setattr(sensors.time, "time", lambda: now + 3700)
    assert tick() == []
    (evaluation,) = tick.events
    assert (evaluation.partition, evaluation.passed) == ("customers", False)
    assert "refresh.max_age 1 h" in str(evaluation.description)
    assert tick() == []
    assert tick.events == []  # said once
    assert [health.state for health in dataset_health(project, tick.instance)] == ["stale"]
    monkeypatch.undo()
    run_dataset(tick.instance, project, "customers")
    assert tick() == []
    assert [event.passed for event in tick.events] == [True]
    assert [health.state for health in dataset_health(project, tick.instance)] == ["ok"]


def test_schedules_follow_the_yaml(
    project: Project, write_dataset: DatasetWriter, instance: dg.DagsterInstance
) -> None:
    file = write_dataset(extra="refresh: {cron: '30 6 * * 1-5', timezone: Europe/Rome}\n")
    write_dataset("plain")
    repository = build_definitions(project).get_repository_def()
    (schedule,) = repository.schedule_defs
    assert (schedule.name, schedule.cron_schedule, schedule.execution_timezone) == (
        "refresh_customers",
        "30 6 * * 1-5",
        "Europe/Rome",
    )
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime(2026, 1, 5, 6, 30), repository_def=repository
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "customers"
    file.unlink()
    assert "is gone" in str(schedule.evaluate_tick(context).skip_message)
    for sensor in repository.sensor_defs:
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_the_interval_is_a_setting(project: Project) -> None:
    (project.root / "erasmo.yaml").write_text("sensor_interval: 2m\n")
    repository = build_definitions(open_project(project.root, project.home)).get_repository_def()
    assert {sensor.minimum_interval_seconds for sensor in repository.sensor_defs} == {120}


def test_a_look_that_takes_long_leaves_the_rest_for_the_next(
    project: Project, write_dataset: DatasetWriter, instance: dg.DagsterInstance
) -> None:
    for name in ("a", "b"):
        write_dataset(name, customers(30))
    seen, _ = watching.look_around(project, instance, {}, seconds=-1)
    assert [one.asleep for one in seen] == [True, True]


def test_those_that_were_looked_at_last_come_last(
    project: Project, write_dataset: DatasetWriter, instance: dg.DagsterInstance
) -> None:
    for name in ("a", "b", "c"):
        write_dataset(name, customers(30))
    (project.root / "a.parquet").unlink()  # a source that cannot be read is looked at too
    memory: dict[str, Memory] = {}
    order = []
    for now in (1000.0, 1030.0):
        seen, _ = watching.look_around(project, instance, memory, now=now)
        order.append([one.name for one in seen])
        looked_at = [one if one.name == "a" else replace(one, asleep=True) for one in seen]
        memory = plan_watch(looked_at, memory, now=now, retire_after=60.0, datasets_readable=True).memory
    assert order == [["a", "b", "c"], ["b", "c", "a"]]
