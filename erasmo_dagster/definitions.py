"""Dagster's entry: assembly, nothing else."""

import dagster as dg

from erasmo_dagster.defs.assets import STAGE_ASSETS
from erasmo_dagster.defs.jobs import segment_dataset
from erasmo_dagster.defs.resources import project_resources
from erasmo_dagster.quiet_exit import quiet_exit
from erasmo_dagster.settings import Project, find_project


def build_definitions(project: Project) -> dg.Definitions:
    """The definitions of one project."""
    return dg.Definitions(
        assets=STAGE_ASSETS,
        jobs=[segment_dataset],
        resources=project_resources(project),
        # One process a run: every further process would import torch anew.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What ``dagster dev -w workspace.yaml`` and the project's own commands load."""
    quiet_exit()
    return build_definitions(find_project())
