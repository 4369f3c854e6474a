"""Dagster's own instance of a project, and how the command line runs a dataset in it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster import DagsterError, DagsterExecutionInterruptedError

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.marts import JOB as MARTS_JOB
from erasmo_dagster.defs.notices import tell_of_failure
from erasmo_dagster.defs.partitions import register_datasets
from erasmo_dagster.defs.runs import PROCESS_TAG, end_dead_runs, process_name
from erasmo_dagster.defs.stages import MODEL_POOL, REASON_TAG
from erasmo_dagster.defs.watching import PARTITION_TAG
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import whole_file
from erasmo_dagster.settings import Project, readable_datasets
from erasmo_dagster.settings.environment import expand
from erasmo_dagster.store.checks import failed_gate
from erasmo_dagster.store.marts import MartTestError
from erasmo_dagster.store.publish import mend
from erasmo_dagster.store.versions import publications, version_of_run
from erasmo_dagster.store.warehouse import open_warehouse

_STORAGE_URL = "postgresql+psycopg2://"
_HEADER = "# Written by erasmo from erasmo.yaml; delete this line to keep changes of your own.\n"


def write_instance_config(project: Project) -> Path:
    """Write ``dagster.yaml`` unless a user has made it their own; the folder for $DAGSTER_HOME."""
    home = project.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    retries = project.settings.run_retries
    text = f"""{_HEADER}telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: {project.settings.max_concurrent_runs}
  pools:
    # Runs wait in the queue and not at a step: a run that is killed then holds no place.
    granularity: run
    default_limit: {project.settings.max_model_runs}
run_retries:
  # A run whose process died is started again; one that failed on its input would only fail again.
  enabled: {str(retries > 0).lower()}
  max_retries: {retries}
  retry_on_asset_or_op_failure: false
run_monitoring:
  enabled: true
{_storage(project)}"""
    file = home / "dagster.yaml"
    current = file.read_text() if file.is_file() else _HEADER
    if not current.startswith(_HEADER):
        _tell_of_storage(project, file, current)
    elif current != text:
        with whole_file(file) as written:
            written.write_text(text)
    return home


def _tell_of_storage(project: Project, file: Path, current: str) -> None:
    """Warn where a ``dagster.yaml`` that is the user's own does not say what ``erasmo.yaml`` says."""
    named = project.settings.dagster_storage
    if named is not None and not re.search(rf"^\s+env:\s*['\"]?{named[2:-1]}\b", current, re.MULTILINE):
        logging.getLogger(__name__).warning(
            "Got `dagster_storage` in erasmo.yaml, which %s, your own, does not name: write its `storage` there", file
        )


def _storage(project: Project) -> str:
    """Where Dagster keeps its own record, if not in files: the variable is named, and its value written nowhere."""
    named = project.settings.dagster_storage
    if named is None:
        return ""
    # dagster-postgres works with psycopg2 alone, and SQLAlchemy 2.1 takes another driver where none is named.
    if not expand(named, "in dagster_storage of erasmo.yaml").startswith(_STORAGE_URL):
        raise ErasmoError(
            f"Got in {named} no address that begins with {_STORAGE_URL}, for `dagster_storage` of erasmo.yaml",
            expected=f"{_STORAGE_URL}user:password@host:5432/database",
            fix=f"name the driver in the variable {named[2:-1]}",
        )
    if find_spec("dagster_postgres") is None:
        raise ErasmoError(
            "Got `dagster_storage` in erasmo.yaml without the package dagster-postgres",
            fix="pip install 'erasmo-dagster[postgres]'",
        )
    return f"storage:\n  postgres:\n    postgres_url:\n      env: {named[2:-1]}\n"


def dagster_environment(project: Project) -> dict[str, str]:
    """The environment in which Dagster's own processes find the project."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(write_instance_config(project)),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        # A large source takes longer to hash than the minute that Dagster gives a sensor.
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": os.environ.get("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "600"),
        "ERASMO_PROJECT": str(project.root),
        "ERASMO_HOME": str(project.home),
    }


@contextmanager
def open_instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """The project's instance, the same one that its UI shows, with a partition for every dataset.

    Raises ErasmoError for a database of Dagster's that cannot be used.
    """
    home = write_instance_config(project)
    # dagster.yaml may refer to the environment, and steps look the folder up by this name.
    os.environ["DAGSTER_HOME"] = str(home)
    with ExitStack() as opened:
        with _storage_errors(project):
            instance = opened.enter_context(dg.DagsterInstance.from_config(str(home)))
            register_datasets(instance, project)
            # Dagster would learn of the pool as it sees the first runs wait, and let all of those go.
            instance.event_log_storage.initialize_concurrency_limit_to_default(MODEL_POOL)
        yield instance


@contextmanager
def _storage_errors(project: Project) -> Iterator[None]:
    """Say in one line that Dagster's database is not to be used, where it is one of PostgreSQL."""
    named = project.settings.dagster_storage
    if named is None or find_spec("dagster_postgres") is None:
        yield
        return
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, DagsterPostgresException) as error:
        # Its text repeats host and user.
        raise ErasmoError(
            f"Got a database of Dagster's that cannot be used ({type(error).__name__})",
            expected="an empty database of PostgreSQL, or one that Dagster has made its tables in",
            fix=f"see what {named} leads to",
        ) from None


@dataclass(frozen=True)
class RunReport:
    """How a run from the command line ended."""

    run_id: str
    metadata: dict[str, dict[str, Any]]


def run_dataset(instance: dg.DagsterInstance, project: Project, dataset: str, *, retrain: bool = False) -> RunReport:
    """Take one dataset from table to published segments in this process, as a Dagster run that the UI shows.

    Raises what the failing stage raised; the run is then recorded as failed.
    """
    end_dead_runs(instance)
    register_datasets(instance, project)
    mend(project, readable_datasets(project))
    run_config = {
        # Dagster's events are in the UI; the terminal shows progress and outcome.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {"refresh_plan": {"config": {"retrain": retrain}}},
    }
    job = build_definitions(project).resolve_job_def("segment_dataset")
    try:
        result = job.execute_in_process(
            partition_key=dataset,
            instance=instance,
            run_config=run_config,
            tags={
                PROCESS_TAG: process_name(psutil.Process()),
                REASON_TAG: "erasmo run",
                "dagster/max_retries": "0",  # whoever gave the command sees it fail
            },
        )
    except DagsterExecutionInterruptedError as interrupted:
        raise KeyboardInterrupt from interrupted
    except (DagsterError, MartTestError) as error:
        if (blocked := _blocked(instance, project, dataset)) is None:
            raise
        raise blocked from error
    metadata = {
        event.asset_key.path[-1]: {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None and len(event.asset_key.path) == 1  # not the marts
    }
    return RunReport(run_id=result.run_id, metadata=metadata)


def run_marts(instance: dg.DagsterInstance, project: Project) -> None:
    """Build the published file anew with the marts as their SQL is now, as a Dagster run that the UI shows.

    Raises ErasmoError where nothing is published yet or a model cannot be built; the run is then recorded as failed.
    """
    if not project.published.is_file():
        raise ErasmoError(f"Got no published file {project.published}", fix="erasmo run NAME")
    end_dead_runs(instance)
    try:
        build_definitions(project).resolve_job_def(MARTS_JOB).execute_in_process(
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={
                PROCESS_TAG: process_name(psutil.Process()),
                REASON_TAG: "erasmo build",
                "dagster/max_retries": "0",
            },
        )
    except DagsterExecutionInterruptedError as interrupted:
        raise KeyboardInterrupt from interrupted


def _blocked(instance: dg.DagsterInstance, project: Project, dataset: str) -> ErasmoError | None:
    """What stopped the run that has just failed, where that was the gate; those under `notify` are told too."""
    runs = instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: dataset}), limit=1)
    if not runs:
        return None
    run = runs[0]
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        version = version_of_run(con, dataset, run.run_id)
        failed = failed_gate(con, dataset, version or 0)
        published = publications(con).get(dataset)
    if not failed:
        return None
    faults = tell_of_failure(project, run, "")
    told = "; ".join(f"{result.name}: {result.message}" for result in failed)
    stays = f"version {published.version} stays published" if published else "nothing is published"
    return ErasmoError(
        f"Got version {version} of {dataset!r} blocked at the gate ({told}); {stays}",
        expected="every blocking check to pass",
        fix="; ".join([f"mend the source, or `gate` in datasets/{dataset}.yaml, and run again", *faults]),
    )
