"""Word of a failure to those who want to know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import dagster as dg

from erasmo_dagster.defs.watching import PARTITION_TAG
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import NotifySettings, Project, load_dataset
from erasmo_dagster.store.checks import failed_gate
from erasmo_dagster.store.versions import version_of_run
from erasmo_dagster.store.warehouse import open_warehouse

ATTEMPT_TAG = "erasmo/attempt"
LAST_TAG = "erasmo/last_attempt"
_RETRIED_TAG = "dagster/will_retry"


def tell_of_failure(project: Project, run: dg.DagsterRun, message: str) -> list[str]:
    """Notify of a failed run where it was stopped at the gate, or was the last to be tried.

    Returns what went wrong with the notices themselves, one line each.
    """
    from erasmo_dagster.notify import Notice, notify

    dataset = run.tags.get(PARTITION_TAG)
    if dataset is None or run.tags.get(_RETRIED_TAG) == "true":
        return []
    settings = notify_settings(project, dataset)
    if settings is None:
        return []
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        version = version_of_run(con, dataset, run.root_run_id or run.run_id)
        failed = failed_gate(con, dataset, version) if version is not None else []
    event: Literal["blocked", "failed"] = "blocked" if failed else "failed"
    if failed:
        told = "; ".join(f"{result.name}: {result.message}" for result in failed)
        message = f"version {version} was blocked at the gate ({told}); what was published is as it was"
    elif run.tags.get(LAST_TAG) != "true":
        return []
    notice = Notice(
        dataset=dataset,
        event=event,
        message=" ".join(message.split()),
        version=version,
        run_id=run.run_id,
        at=datetime.now(UTC),
    )
    return notify(settings, notice)


def notify_settings(project: Project, dataset: str) -> NotifySettings | None:
    """Whom a dataset's YAML names, else the project's; the project's too where the YAML cannot be read."""
    try:
        own = load_dataset(project, dataset).notify
    except ErasmoError:
        own = None
    return own or project.settings.notify
