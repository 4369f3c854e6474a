"""Dagster's record of runs, set right where a process ended without a word."""

import dagster as dg
import psutil
from dagster import DagsterRunStatus, RunsFilter

PROCESS_TAG = "erasmo/process"
_RUNNING = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.CANCELING,
]


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs of the command line whose process is gone; the UI would show them running for ever."""
    ended = []
    for run in instance.get_runs(RunsFilter(statuses=_RUNNING)):
        process = run.tags.get(PROCESS_TAG)
        if process and not _is_alive(process):
            instance.report_run_failed(run, "The process of this run ended without a word: it was killed.")
            ended.append(run.run_id)
    return ended


def process_name(process: psutil.Process) -> str:
    """A name for a process that no later one has, though it may get its number."""
    return f"{process.pid}@{process.create_time():.2f}"


def _is_alive(name: str) -> bool:
    try:
        return process_name(psutil.Process(int(name.partition("@")[0]))) == name
    except (psutil.NoSuchProcess, ValueError):
        return False


def failure_of(instance: dg.DagsterInstance, run_id: str) -> str:
    """What ended a failed run, in one line."""
    logs = instance.all_logs(run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.PIPELINE_FAILURE})
    for entry in logs:
        event = entry.dagster_event
        if event is not None and event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                return " ".join(error.message.partition(":")[2].split() or error.message.split())
    messages = [entry.dagster_event.message for entry in logs if entry.dagster_event and entry.dagster_event.message]
    return " ".join((messages[-1] if messages else "without a word").split())
