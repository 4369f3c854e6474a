"""``make demo``: two real tables, from their packages to published segments, on one laptop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.peak_memory import PeakMemory
from erasmo_dagster.settings import DatasetSettings, Project, dataset_files, load_dataset, write_schema
from erasmo_dagster.settings.clustering import ON_COLUMNS

if TYPE_CHECKING:
    from rich.console import Console

DEMO_DATASETS = ("penguins", "elements")
CHANGING = "penguins"


def run_demo(out: Console, project: Project) -> None:
    """Run the lineage of both demo datasets through Dagster and print what a newcomer wants to know."""
    quiet_libraries()
    from erasmo_dagster.defs.instance import open_instance, run_dataset
    from erasmo_dagster.demo_refresh import show_refresh
    from erasmo_dagster.method.base_models import find_local, resolve
    from erasmo_dagster.show import print_dataset, print_query

    started = time.monotonic()
    settings = {name: load_dataset(project, name) for name in _present(project)}
    write_schema(project)
    reports = {}
    with PeakMemory() as memory, progress.on_terminal(), open_instance(project) as instance:
        for model in dict.fromkeys(model for s in settings.values() for model in _models(s)):
            had = find_local(model, project.models) is not None
            out.print(f"model {model}: {'reused' if had else 'fetching'}", highlight=False)
            resolve(model, project.models)
        for name, dataset in settings.items():
            out.print(f"{name}: a budget of {dataset.adapter.max_tokens or 0:,} training tokens", highlight=False)
            reports[name] = run_dataset(instance, project, name)
        trained = time.monotonic()
        show_refresh(out, project, instance, CHANGING)
        refreshed = time.monotonic() - trained
    for name, report in reports.items():
        out.rule(name)
        print_dataset(out, project, name)
        reused = [stage for stage, metadata in report.metadata.items() if "reused" in str(metadata.get("made_by"))]
        out.print(f"reused from an earlier run: {', '.join(reused) or 'nothing'}", highlight=False)
    query = "select dataset, segment_name, rows, round(share, 2) as share from segment_overview"
    out.rule("query the segments")
    out.print(f'erasmo sql "{query}"', highlight=False, soft_wrap=True)
    print_query(out, project, query, format="table", limit=100)
    out.rule()
    out.print(f"published file   {project.published}", highlight=False, soft_wrap=True)
    out.print("read a report    erasmo report penguins: one HTML file", highlight=False)
    out.print("open the UI      make ui, or erasmo ui: http://127.0.0.1:3000", highlight=False)
    out.print(
        f"took             {time.monotonic() - started:.0f} s ({refreshed:.0f} s of it for the two refreshes),"
        f" peak memory {memory.bytes / 2**30:.2f} GiB",
        highlight=False,
    )


def _models(settings: DatasetSettings) -> list[str]:
    """The models that the dataset's run reads by."""
    clustering = settings.clustering
    return [settings.adapter.base_model, *([clustering.text_model] if clustering.method in ON_COLUMNS else [])]


def _present(project: Project) -> list[str]:
    files = dataset_files(project)
    if absent := [name for name in DEMO_DATASETS if name not in files]:
        raise ErasmoError(
            f"Got no datasets/{absent[0]}.yaml in {project.root}",
            expected=f"the demo's datasets: {', '.join(DEMO_DATASETS)}",
            fix="run the demo in a folder that `erasmo init` made",
        )
    return list(DEMO_DATASETS)
