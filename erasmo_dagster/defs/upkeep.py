"""Datasets and versions that go: what Dagster knows of them goes too."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from erasmo_dagster.defs.runs import end_dead_runs
from erasmo_dagster.defs.watching import datasets_in_progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, check_name, readable_datasets, scan_datasets
from erasmo_dagster.store.publish import retire
from erasmo_dagster.store.targets import send
from erasmo_dagster.store.upkeep import collect


def remove_dataset(project: Project, instance: dg.DagsterInstance, name: str) -> Iterator[str]:
    """Hide a dataset from the published file, set its YAML aside and delete its partition; what was done, by line.

    Raises ErasmoError for an unknown dataset and for one with a run in progress.
    """
    check_name(name)
    end_dead_runs(instance)
    if name in datasets_in_progress(instance):
        raise ErasmoError(f"Got dataset {name!r} with a run in progress", fix="wait for it to end, or end it in the UI")
    file = scan_datasets(project).files.get(name)
    others = {other: settings for other, settings in readable_datasets(project).items() if other != name}
    # The YAML first: a sensor that looked in between would only start the dataset again.
    if file is not None:
        aside = project.home / "removed" / file.name
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(file.read_bytes())
        file.unlink()
        yield f"moved {file} to {aside}"
    hidden = retire(project, others, name, reason="erasmo remove")
    known = instance.has_dynamic_partition("dataset", name)
    if known:
        instance.delete_dynamic_partition("dataset", name)
    if not (file or hidden or known):
        raise ErasmoError(f"Got dataset {name!r}, which is not known", fix="erasmo status")
    if hidden:
        yield f"{name} is gone from {project.published}"
    for sent in send(project):
        yield f"target {sent.target} has release {sent.release}"
    yield "what the warehouse keeps of it goes with `erasmo gc`"


def collect_garbage(project: Project, instance: dg.DagsterInstance) -> Iterator[str]:
    """Delete what no dataset needs any more; what was done, by line.

    Raises ErasmoError where ``datasets/`` cannot be listed, or is empty while datasets are published.
    """
    end_dead_runs(instance)
    scan = scan_datasets(project)
    if not scan.readable:
        raise ErasmoError(
            f"Got no {project.datasets_dir} to list", expected="the datasets that are to stay", fix="bring it back"
        )
    done = collect(project, present=scan.present, busy=datasets_in_progress(instance))
    for name, versions in done.versions.items():
        yield f"{name}: deleted versions {', '.join(map(str, versions))}"
    for name in done.datasets:
        yield f"{name}: deleted, its YAML is gone"
    yield f"freed {done.freed_bytes / 1e6:.1f} MB"
