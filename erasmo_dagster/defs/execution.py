"""Where a stage computes: as the dataset says, or otherwise for one run."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from erasmo_dagster.defs.stages import StageRun
from erasmo_dagster.distributed.cluster import Cluster, installed
from erasmo_dagster.settings import ExecutionSettings

if TYPE_CHECKING:
    from erasmo_dagster.defs.clusters import RayCluster

_said = {name: field.description for name, field in ExecutionSettings.model_fields.items()}


class ExecutionConfig(dg.Config):
    """Run config of a stage that runs a language model; what is not given is as `execution` in the dataset's YAML."""

    engine: str | None = Field(None, description=_said["engine"])
    address: str | None = Field(None, description=_said["address"])
    workers: int | None = Field(None, description=_said["workers"])
    cpus_per_worker: int | None = Field(None, description=_said["cpus_per_worker"])
    gpus_per_worker: float | None = Field(None, description=_said["gpus_per_worker"])
    memory_mb: int | None = Field(None, description=_said["memory_mb"])
    object_store_mb: int | None = Field(None, description=_said["object_store_mb"])
    max_failures: int | None = Field(None, description=_said["max_failures"])
    dashboard: bool | None = Field(None, description=_said["dashboard"])


def ray_cluster(run: StageRun) -> "RayCluster":
    """The cluster that the stage computes on, to be attached to where there is something to compute.

    Raises ErasmoError where the packages of the extra ray are not installed.
    """
    with installed():
        from erasmo_dagster.defs.clusters import RayCluster
    return RayCluster.of(run.settings.execution, run.project.home)


def with_execution(run: StageRun, config: ExecutionConfig) -> StageRun:
    """The stage with the run config's settings before those of the YAML.

    A run on the engine local takes nothing of the YAML's cluster. Raises ErasmoError for settings that are not valid.
    """
    given = {name: value for name, value in config if name in _said and value is not None}
    if not given:
        return run
    execution = run.settings.execution.overridden(
        given, where=" in the run config", fix=f"correct the config of the asset {run.stage}"
    )
    return replace(run, settings=run.settings.model_copy(update={"execution": execution}))


def computed_on(cluster: Cluster | None) -> dict[str, Any]:
    """Where the model ran, as Dagster shows it; no part of what is recorded."""
    if cluster is None:
        return {}
    # The dashboard of a cluster that was started for the stage is gone with it; the stage's log had its address.
    url = None if cluster.started else cluster.dashboard
    dashboard = {"ray_dashboard": dg.MetadataValue.url(url)} if url else {}
    return {"computed_on": cluster.sentence, **dashboard}
