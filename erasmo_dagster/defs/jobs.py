"""Jobs: one dataset from table to published segments, or hidden from the published file."""

import dagster as dg

from erasmo_dagster.defs.assets import STAGE_ASSETS
from erasmo_dagster.defs.resources import WarehouseResource, project_resources
from erasmo_dagster.settings import Project, readable_datasets, scan_datasets
from erasmo_dagster.store.publish import retire
from erasmo_dagster.store.targets import send

segment_dataset = dg.define_asset_job(
    "segment_dataset",
    selection=dg.AssetSelection.assets(*STAGE_ASSETS),
    description="Source table to published segments, for one dataset.",
)

RETIRE_OP = "hide"


class RetireConfig(dg.Config):
    """Which dataset to hide."""

    dataset: str


@dg.op(name=RETIRE_OP)
def _hide(context: dg.OpExecutionContext, config: RetireConfig, warehouse: WarehouseResource) -> None:
    """Hide a dataset from the published file, unless its YAML is back."""
    project = warehouse.project
    if config.dataset in scan_datasets(project).present:
        context.log.info(f"{config.dataset} has a YAML again, so it stays")
    elif retire(project, readable_datasets(project), config.dataset, reason="its YAML is gone"):
        context.log.info(f"{config.dataset} is hidden; the warehouse keeps it until `erasmo gc`")
        send(project)


@dg.graph(name="hide_dataset")
def _retire_graph() -> None:
    _hide()


def retire_job(project: Project) -> dg.JobDefinition:
    """The job that hides a dataset, with the project's resources bound: bound later, Dagster warns of its own doing."""
    return _retire_graph.to_job(
        name="retire_dataset",
        description="Hide a dataset whose YAML is gone from the published file; the warehouse keeps it.",
        resource_defs=project_resources(project),
    )
