"""What runs in a process of its own: ticks as the daemon does them, the runs that they ask for, and one fault in it."""

from __future__ import annotations

import json
import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster import DagsterRunStatus
from tqdm import tqdm

from benchmarks.faults.injection import Fault, inject, now_in
from benchmarks.faults.scratch import CHANGING
from erasmo_dagster.defs import sensors
from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.defs.runs import PROCESS_TAG, end_dead_runs, process_name
from erasmo_dagster.defs.watching import PARTITION_TAG
from erasmo_dagster.settings import Project, open_project

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SETTLED = f"{CHANGING}: as published"


@dataclass(frozen=True)
class Order:
    """What a process shall do: at most ``ticks`` ticks, until the dataset is as published.

    ``retried`` starts with Dagster's retry of the run that died. The process writes what it did to ``report`` (JSON)
    when it ends, and all that is printed to ``log``.
    """

    root: Path
    home: Path
    report: Path
    log: Path
    ticks: int = 5
    fault: Fault | None = None
    retried: bool = False


def work(order: Order) -> None:
    """Carry out an order."""
    warnings.simplefilter("ignore")
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and outlives one that is killed
    with order.log.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ["ERASMO_PROJECT"], os.environ["ERASMO_HOME"] = str(order.root), str(order.home)
    project = open_project(order.root, order.home)
    if order.fault is not None:
        inject(order.fault, project)
    done: dict[str, Any] = {"ticks": [], "runs": []}
    with open_instance(project) as instance:
        if order.retried and (run := _retry(instance)) is not None:
            done["runs"].append(run)
        for _ in range(order.ticks):
            note = _tick(project, instance, order.home / "cursor", done["runs"])
            done["ticks"].append(note)
            if SETTLED in note:
                break
    temporary = order.report.with_suffix(".tmp")
    temporary.write_text(json.dumps(done))
    temporary.replace(order.report)


def _tick(project: Project, instance: dg.DagsterInstance, cursor: Path, runs: list[dict[str, Any]]) -> str:
    """One tick and the runs that it asks for, which are added to ``runs``; what the tick told."""
    now_in("tick")
    context = dg.build_sensor_context(instance=instance, cursor=cursor.read_text() if cursor.exists() else None)
    result = sensors.tick(context, project)
    now_in("")
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    # The daemon keeps the cursor before a run has ended, whatever becomes of it.
    temporary = cursor.with_suffix(".tmp")
    temporary.write_text(result.cursor or "")
    temporary.replace(cursor)
    for request in result.run_requests or []:
        job = build_definitions(project).resolve_job_def(str(request.job_name))
        done = job.execute_in_process(
            instance=instance,
            partition_key=request.partition_key,
            run_config={**request.run_config, **_QUIET},
            tags={**request.tags, PROCESS_TAG: process_name(psutil.Process())},
            raise_on_error=False,
        )
        runs.append({"dataset": request.partition_key, "success": done.success, "fault": _fault(done.all_events)})
    if result.skip_reason is not None:
        return str(result.skip_reason.skip_message)
    return f"started {', '.join(str(request.partition_key) for request in result.run_requests or [])}"


def segment_job() -> dg.JobDefinition:
    """The job, for a run that Dagster itself starts again."""
    project = open_project(Path(os.environ["ERASMO_PROJECT"]), Path(os.environ["ERASMO_HOME"]))
    return build_definitions(project).resolve_job_def("segment_dataset")


def _retry(instance: dg.DagsterInstance) -> dict[str, Any] | None:
    """Start the dead run again from where it failed, as Dagster's daemon does under ``run_retries``."""
    if not end_dead_runs(instance):
        return None
    (run,) = instance.get_runs(dg.RunsFilter(statuses=[DagsterRunStatus.FAILURE]), limit=1)
    with dg.execute_job(
        dg.reconstructable(segment_job),
        instance=instance,
        run_config=run.run_config,
        tags={**run.tags, PROCESS_TAG: process_name(psutil.Process())},
        reexecution_options=dg.ReexecutionOptions.from_failure(run.run_id, instance),
        raise_on_error=False,
    ) as done:
        return {
            "dataset": run.tags[PARTITION_TAG],
            "success": done.success,
            "fault": _fault(done.all_events),
            "retried": True,
        }


def _fault(events: Any) -> str:
    """What the first failing step said."""
    for event in events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return str(error.message if error else event.message).strip()
    return ""
