"""Experiments as Dagster sees them: a job that runs one by name, as ``erasmo experiment run`` does."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from erasmo_dagster.defs.execution import ExecutionConfig, computed_on
from erasmo_dagster.defs.pictures import picture
from erasmo_dagster.defs.resources import WarehouseResource, project_resources
from erasmo_dagster.defs.stages import MODEL_POOL
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project

JOB = "run_experiment"


class ExperimentConfig(ExecutionConfig):
    """Which experiment to run, and how; `execution` of its file is what is not given."""

    experiment: str = Field(description="YAML file, or the name of a ready-made experiment.")
    full: bool = Field(default=False, description="Whole tables, and what the file says under `full`.")
    data: str | None = Field(default=None, description="Folder that ${DATA} in the file stands for.")
    only: list[str] = Field(default=[], description="Only these datasets, encoders and algorithms.")


@dg.op(name="experiment", pool=MODEL_POOL)
def _run(context: dg.OpExecutionContext, config: ExperimentConfig, warehouse: WarehouseResource) -> None:
    """Run the cells that are not done yet, and publish the results."""
    # Here, so that definitions load without what cells need.
    from erasmo_dagster.experiments.run import load_results, run_experiment

    report = run_experiment(
        warehouse.project,
        config.experiment,
        full=config.full,
        data=Path(config.data) if config.data else None,
        only=config.only,
        execution={name: getattr(config, name) for name in ExecutionConfig.model_fields},
    )
    frame = load_results(warehouse.project, report.name)
    for fault in report.faults:
        context.log.warning(fault)
    context.add_output_metadata(
        {
            "experiment": report.name,
            "cells": report.cells,
            "done_before": report.before,
            "done_now": report.done,
            "failed": report.failed,
            "dropped": report.dropped,
            **_shown(frame),
            **computed_on(report.cluster),
        }
    )
    if report.unexpected is not None:
        raise report.unexpected
    if report.nothing_done:
        raise ErasmoError(f"Got no cell of {report.name} done: {report.faults[0]}")


def _shown(frame: pl.DataFrame) -> dict[str, Any]:
    """The leaderboard, and how the arms did on the tables."""
    from erasmo_dagster.experiments.heat import heat_map
    from erasmo_dagster.experiments.means import JUDGES
    from erasmo_dagster.experiments.tables import markdown_tables

    done = frame.filter(pl.col("status") == "done")
    figure = next((name for name in JUDGES if done[name].is_not_null().any()), None)
    if figure is None:
        return {}
    return {
        "leaderboard": dg.MetadataValue.md(markdown_tables(frame)),
        "heat_map": picture(heat_map(frame, figure), f"{figure} by encoder and dataset"),
    }


@dg.graph(name="experiment_graph")
def _graph() -> None:
    _run()


def experiment_job(project: Project) -> dg.JobDefinition:
    """The job that runs an experiment, with the project's resources bound."""
    return _graph.to_job(
        name=JOB,
        description="Run an experiment's cells that are not done yet, and publish `experiments` and `leaderboard`.",
        resource_defs=project_resources(project),
    )
