"""Backups of a project that Dagster may be running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from erasmo_dagster.defs.runs import end_dead_runs
from erasmo_dagster.defs.watching import datasets_in_progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, readable_datasets
from erasmo_dagster.store.backup import restore
from erasmo_dagster.store.publish import publish_anew
from erasmo_dagster.store.targets import send


def restore_project(project: Project, instance: dg.DagsterInstance, folder: Path, *, replace: bool) -> Iterator[str]:
    """Put a backup in the place of what the project has, and publish what it says; what was done, by line.

    Raises ErasmoError where a run is in progress, and as :func:`~erasmo_dagster.store.backup.restore` does; and in the
    end, when all is restored, TargetError where a target cannot be brought to it, such as one that has a later release.
    """
    end_dead_runs(instance)
    if busy := sorted(datasets_in_progress(instance)):
        raise ErasmoError(
            f"Got a run of {busy[0]!r} in progress", fix="stop Dagster's services, or wait for it to end, and try again"
        )
    backup, aside = restore(project, folder, replace=replace)
    if aside is not None:
        yield f"set what was there aside in {aside}; delete it when you no longer want it"
    datasets = readable_datasets(project)
    for name, version in backup.published.items():
        yield f"{name}: version {version}" + ("" if name in datasets else ", which has no YAML here")
    publish_anew(project, datasets)
    yield f"restored from {folder}, made at {backup.made_at:%Y-%m-%d %H:%M} UTC"
    # What the restored warehouse says of the targets is of then: only they know what their readers see.
    for sent in send(project):
        yield f"target {sent.target} has release {sent.release}"
