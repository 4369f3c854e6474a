"""How every dataset is: what is published, whether it is still its source, and what went wrong last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import dagster as dg
from dagster import DagsterRunStatus
from dagster._core.scheduler.instigation import SensorInstigatorData

from erasmo_dagster.defs.runs import failure_of
from erasmo_dagster.defs.watching import PARTITION_TAG, Known, datasets_in_progress, look_at, read_known, read_memory
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.watching import Memory
from erasmo_dagster.settings import DatasetScan, Project, load_dataset, scan_datasets
from erasmo_dagster.store.checks import failed_gate
from erasmo_dagster.store.warehouse import open_warehouse

State = Literal["ok", "unpublished", "running", "behind", "stale", "failing", "blocked", "retired"]
# What `erasmo status` answers with a status other than 0.
WRONG: tuple[State, ...] = ("stale", "failing", "blocked")


@dataclass(frozen=True)
class Health:
    """The state of one dataset, and in ``note`` what a person should know of it."""

    name: str
    state: State
    note: str = ""


def dataset_health(project: Project, instance: dg.DagsterInstance) -> list[Health]:
    """Every dataset that has a YAML or is published, by name; the sources are looked at now."""
    scan, known, memory = scan_datasets(project), read_known(project), _sensor_memory(instance)
    running = datasets_in_progress(instance)
    names = sorted({*scan.present, *(name for name, k in known.items() if k.publication)})
    return [
        _health(project, instance, scan, name, known.get(name, Known()), memory.get(name, Memory()), name in running)
        for name in names
    ]


def _health(
    project: Project,
    instance: dg.DagsterInstance,
    scan: DatasetScan,
    name: str,
    known: Known,
    memory: Memory,
    running: bool,
) -> Health:
    published = known.publication
    if name not in scan.present:
        if published is not None and published.retired:
            return Health(name, "retired", "its YAML is gone; `erasmo gc` removes what is kept of it")
        return Health(name, "behind", "its YAML is gone; it stays published until retire_after has passed")
    try:
        settings = load_dataset(project, name)
    except ErasmoError as error:
        return Health(name, "failing", str(error))
    if running:
        return Health(name, "running", "a run is in progress")
    if known.blocked is not None:
        return Health(name, "blocked", _why_blocked(project, name, known.blocked))
    if (fault := _failed_since(instance, name, known)) is not None:
        return Health(name, "failing", fault)
    now = time.time()
    seen = look_at(project, scan, name, known, memory, now=now)
    if seen.fault is not None:
        return Health(name, "failing", seen.fault)
    if published is None:
        return Health(name, "unpublished", "nothing is published yet")
    if not seen.changed:
        return Health(name, "ok")
    since = max(memory.matched_at or 0.0, seen.published_at or 0.0)
    most = settings.refresh.max_age.total_seconds() if settings.refresh.max_age else 0.0
    shown = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    note = f"the source has changed; it was last known to be as published on {shown}"
    return Health(name, "stale" if now - since > most else "behind", note)


def _why_blocked(project: Project, name: str, version: int) -> str:
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        failed = failed_gate(con, name, version)
    return f"version {version}: " + "; ".join(f"{result.name}: {result.message}" for result in failed)


def _failed_since(instance: dg.DagsterInstance, name: str, known: Known) -> str | None:
    """What ended the last run, where it failed after what is published was."""
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: name}), limit=1)
    if not records or records[0].dagster_run.status is not DagsterRunStatus.FAILURE:
        return None
    published = known.publication.published_at.replace(tzinfo=UTC) if known.publication else None
    created = records[0].create_timestamp
    if published is not None and (created if created.tzinfo else created.replace(tzinfo=UTC)) < published:
        return None
    return f"run {records[0].dagster_run.run_id[:8]} failed: {failure_of(instance, records[0].dagster_run.run_id)}"


def _sensor_memory(instance: dg.DagsterInstance) -> Mapping[str, Memory]:
    """What the sensor remembers, so that sources which are as they were are not hashed again."""
    for state in instance.all_instigator_state():
        data = state.instigator_data
        if state.instigator_name == "source_changes" and isinstance(data, SensorInstigatorData):
            return read_memory(data.cursor)
    return {}
