"""The definitions of one project."""

import dagster as dg

from erasmo_dagster.defs.assets import STAGE_ASSETS
from erasmo_dagster.defs.checks import GATE_CHECKS
from erasmo_dagster.defs.experiments import experiment_job
from erasmo_dagster.defs.freshness import is_fresh
from erasmo_dagster.defs.jobs import retire_job, segment_dataset
from erasmo_dagster.defs.marts import mart_definitions
from erasmo_dagster.defs.resources import project_resources
from erasmo_dagster.defs.schedules import build_schedules
from erasmo_dagster.defs.sensors import build_sensors
from erasmo_dagster.defs.targets import targets_jobs
from erasmo_dagster.settings import Project


def build_definitions(project: Project) -> dg.Definitions:
    """Assets, checks, jobs, sensors, schedules and resources of a project; it registers no partition keys."""
    retire_dataset, marts, targets = retire_job(project), mart_definitions(project), targets_jobs(project)
    return dg.Definitions(
        assets=[*STAGE_ASSETS, *marts.assets],
        asset_checks=[*GATE_CHECKS, is_fresh, *marts.checks],
        jobs=[segment_dataset, retire_dataset, marts.job, experiment_job(project), *targets],
        sensors=build_sensors(project, retire_dataset, marts.job, *targets),
        schedules=build_schedules(project),
        resources=project_resources(project),
        # One process a run: every further process would import torch anew.
        executor=dg.in_process_executor,
    )
