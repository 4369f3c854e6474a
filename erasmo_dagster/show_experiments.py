"""What the command line prints of experiments, read from their files and the warehouse, and their report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments.run import ExperimentReport, load_results
from erasmo_dagster.experiments.settings import FULL, ExperimentSettings, find_experiment, merged, ready_experiments
from erasmo_dagster.settings import Project
from erasmo_dagster.settings.project import read_yaml, validated
from erasmo_dagster.show_tables import open_published, print_table
from erasmo_dagster.store.experiments import experiment_counts
from erasmo_dagster.store.warehouse import open_warehouse

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = ("ari", "gower_silhouette", "silhouette")


def print_experiments(out: Console, project: Project) -> None:
    """The experiments that come with the package and those that have results."""
    counts = pl.DataFrame()
    if project.warehouse.is_file():
        with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
            counts = experiment_counts(con)
    held = {row["experiment"]: row for row in counts.iter_rows(named=True)}
    ready = {file.stem: validated(ExperimentSettings, read_yaml(file), file) for file in ready_experiments()}
    rows = []
    for name in [*ready, *(name for name in held if name not in ready)]:
        own = held.get(name, {"done": 0, "failed": 0})
        whole = name.removesuffix(FULL)
        asked = ready[whole].description if whole in ready else ""
        rows.append((name, own["done"], own["failed"], "" if name != whole else " ".join(asked.split())))
    print_table(out, ["experiment", "done", "failed", "what it asks"], rows)


def print_results(out: Console, project: Project, name: str) -> None:
    """An experiment's leaderboard, as published: means over the seeds, the best of each table first."""
    load_results(project, name)  # says so where there are none
    figures = ", ".join(f"round({figure}, 3)" for figure in _SHOWN)
    with open_published(project) as con:
        rows = con.execute(
            f"SELECT dataset, variant, encoder, algorithm, k, {figures},"  # noqa: S608 - names of ours
            " round(coalesce(train_seconds, 0) + embed_seconds + cluster_seconds, 1), nullif(failed, 0)"
            " FROM leaderboard WHERE experiment = ?"
            " ORDER BY dataset, variant, rank_by_ari, rank_by_gower_silhouette, encoder, algorithm, k",
            [name],
        ).fetchall()
    heads = ["dataset", "variant", "encoder", "algorithm", "k", "ARI", "Gower", "silhouette", "seconds", "failed"]
    # What says the same in every row, or nothing, would only take room.
    told = [i for i, head in enumerate(heads) if head != "variant" or len({row[i] for row in rows}) > 1]
    told = [i for i in told if any(row[i] is not None for row in rows)]
    print_table(out, [heads[i] for i in told], [tuple("" if row[i] is None else row[i] for i in told) for row in rows])


def print_run(out: Console, report: ExperimentReport) -> None:
    """What a run did, and why cells failed."""
    counts = f"{report.cells} cells: {report.before} were done, {report.done} are done now, {report.failed} failed"
    dropped = f"; {report.dropped} that the file no longer asks for were dropped" if report.dropped else ""
    out.print(f"{report.name}: {counts}{dropped}.", highlight=False, markup=False, soft_wrap=True)
    for fault in report.faults:
        out.print(f"  - {fault}", highlight=False, markup=False, soft_wrap=True)
    if report.failed:
        out.print("Failed cells are tried again by the same command.", highlight=False)


def write_html(
    out: Console,
    project: Project,
    name: str,
    path: Path,
    *,
    settings: ExperimentSettings | None = None,
    command: str | None = None,
) -> None:
    """Write the report on an experiment's results; without its ``settings``, what a ready-made one asks is told."""
    from erasmo_dagster.experiments.report import write_report

    settings = settings or ready_settings(name)
    written = write_report(
        load_results(project, name),
        name=name,
        description=settings.description if settings else "",
        out=path,
        published=settings.published_figures() if settings else None,
        notes=settings.notes if settings else "",
        command=command,
    )
    out.print(f"Wrote {written} ({written.stat().st_size / 1e3:.0f} kB).", highlight=False, soft_wrap=True)


def ready_settings(name: str) -> ExperimentSettings | None:
    """The file of a ready-made experiment, by the name of its results; None for another."""
    try:
        file = find_experiment(name.removesuffix(FULL))
    except ErasmoError:
        return None
    raw = read_yaml(file)
    return validated(ExperimentSettings, merged(raw, raw.get("full", {})) if name.endswith(FULL) else raw, file)
