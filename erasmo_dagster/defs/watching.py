"""What a look at the sources finds: YAML files, the sources themselves, what is published, which runs are going on."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.watching import Memory, Seen
from erasmo_dagster.settings import DatasetScan, Project, load_dataset, scan_datasets
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.checks import blocked_versions
from erasmo_dagster.store.sources import Fingerprint, is_unchanged
from erasmo_dagster.store.versions import Publication, publications, stage_output
from erasmo_dagster.store.warehouse import open_warehouse
from erasmo_dagster.store.watch import look

# Dagster gives a sensor a minute by default: what is left over is looked at next time.
LOOK_SECONDS = 40.0
# A run that was made and not launched by then never will be.
_LAUNCH_SECONDS = 600.0
PARTITION_TAG = "dagster/partition"
GOING_ON = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Known:
    """What the warehouse knows of a dataset: its publication, that one's source, and a version stopped at the gate."""

    publication: Publication | None = None
    fingerprint: Fingerprint | None = None
    snapshot: Path | None = None
    blocked: int | None = None
    blocked_digest: str | None = None


def look_around(
    project: Project,
    instance: dg.DagsterInstance,
    memory: Mapping[str, Memory],
    *,
    sql: str = "",
    now: float | None = None,
    seconds: float = LOOK_SECONDS,
) -> tuple[list[Seen], DatasetScan]:
    """Every dataset as it is now, those first that were looked at longest ago.

    A source that takes long leaves less time for others; those to which the look does not come are asleep until the
    next. Raises ErasmoError where the warehouse cannot be read.
    """
    now = time.time() if now is None else now
    started = time.monotonic()
    scan = scan_datasets(project)
    known = read_known(project)
    registered = set(instance.get_dynamic_partitions("dataset"))
    running = datasets_in_progress(instance)
    names = {*scan.present, *(name for name, k in known.items() if k.publication and not k.publication.retired)}

    seen = []
    for name in sorted(names, key=lambda n: (memory.get(n, Memory()).looked_at, n)):
        asleep = time.monotonic() - started > seconds
        seen.append(
            look_at(
                project,
                scan,
                name,
                known.get(name, Known()),
                memory.get(name, Memory()),
                now=now,
                asleep=asleep,
                sql=sql,
            )
        )
    return [_with(one, registered=one.name in registered, running=one.name in running) for one in seen], scan


def look_at(
    project: Project,
    scan: DatasetScan,
    name: str,
    known: Known,
    memory: Memory,
    *,
    now: float,
    asleep: bool = False,
    sql: str = "",
) -> Seen:
    """One dataset; whatever is wrong with its YAML or its source is told in ``fault``.

    ``sql`` is the digest of the marts: what they hold up may be well once they have changed.
    """
    published = known.publication
    facts = {
        "name": name,
        "present": name in scan.present,
        "published_at": None if published is None else _epoch(published),
        "retired": published is not None and published.retired,
        "asleep": asleep,
    }
    if name not in scan.present or asleep:
        return Seen(**facts)  # type: ignore[arg-type]
    try:
        settings = load_dataset(project, name)
        content = hashlib.sha256(scan.files[name].read_bytes()).hexdigest()[:12]
        sighting = look(name, settings, project, memory.sighting, now=now)
    except (ErasmoError, OSError) as error:
        return Seen(**facts, fault=str(error))  # type: ignore[arg-type]
    changed = (
        known.fingerprint is None
        or known.snapshot is None
        or not is_unchanged(sighting.fingerprint, known.fingerprint, known.snapshot)
    )
    return Seen(
        **facts,  # type: ignore[arg-type]
        settings=settings.refresh,
        changed=changed,
        state=f"{sighting.fingerprint.digest}:{content}:{sql}",
        blocked=known.blocked_digest == sighting.fingerprint.digest,
        sighting=sighting,
    )


def _with(seen: Seen, *, registered: bool, running: bool) -> Seen:
    return Seen(**{**vars(seen), "registered": registered, "running": running})


def _epoch(published: Publication) -> float:
    return published.published_at.replace(tzinfo=UTC).timestamp()


def read_known(project: Project) -> dict[str, Known]:
    """What the warehouse knows, by dataset."""
    if not project.warehouse.is_file():
        return {}
    known = {}
    with open_warehouse(project.warehouse, lock_timeout=min(20.0, project.settings.lock_timeout)) as con:
        published, blocked = publications(con), blocked_versions(con)
        for name in {*published, *blocked}:
            publication = published.get(name)
            source = stage_output(con, name, publication.seen_version, "source_table") if publication else None
            stopped = stage_output(con, name, blocked[name], "source_table") if name in blocked else None
            known[name] = Known(
                publication,
                Fingerprint.model_validate(source.details["fingerprint"]) if source else None,
                snapshot_path(project, name, source.version) if source else None,
                blocked.get(name),
                stopped.details["digest"] if stopped else None,
            )
    return known


def datasets_in_progress(instance: dg.DagsterInstance) -> set[str]:
    """Datasets that a run is queued for or going on."""
    runs = runs_in_progress(instance)
    return {run.tags[PARTITION_TAG] for run in runs if PARTITION_TAG in run.tags}


def runs_in_progress(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that are queued or going on, of any job; not those whose maker died before they were launched."""
    return [
        record.dagster_run
        for record in instance.get_run_records(dg.RunsFilter(statuses=GOING_ON))
        if record.dagster_run.status is not DagsterRunStatus.NOT_STARTED
        or _age(record.create_timestamp) <= _LAUNCH_SECONDS
    ]


def _age(moment: datetime) -> float:
    return (datetime.now(UTC) - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()


def read_memory(cursor: str | None) -> dict[str, Memory]:
    """What the last look left in the sensor's cursor; nothing where it is of another release."""
    try:
        text = zlib.decompress(base64.b64decode(cursor or "", validate=True)) if cursor else "{}"
        return {name: Memory.model_validate(data) for name, data in json.loads(text).items()}
    except (ValueError, AttributeError, zlib.error):
        return {}


def write_memory(memory: Mapping[str, Memory]) -> str:
    """The cursor that the next look reads; packed, since the UI shows it to people whole."""
    content = {name: known.model_dump(mode="json", by_alias=True) for name, known in memory.items()}
    return base64.b64encode(zlib.compress(json.dumps(content).encode(), 9)).decode()
