"""The definitions of one project."""

import dagster as dg

from erasmo_dagster.defs.assets import STAGE_ASSETS
from erasmo_dagster.defs.jobs import segment_dataset
from erasmo_dagster.defs.resources import project_resources
from erasmo_dagster.settings import Project


def build_definitions(project: Project) -> dg.Definitions:
    """Assets, job and resources of a project; it registers no partition keys."""
    return dg.Definitions(
        assets=STAGE_ASSETS,
        jobs=[segment_dataset],
        resources=project_resources(project),
        # One process a run: every further process would import torch anew.
        executor=dg.in_process_executor,
    )
