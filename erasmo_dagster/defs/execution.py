"""Where a stage computes: as the dataset says, or otherwise for one run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from erasmo_dagster import progress
from erasmo_dagster.defs.stages import StageRun
from erasmo_dagster.distributed.cluster import Cluster, installed
from erasmo_dagster.distributed.embedding import computes_on_gpu
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.encoders.kinds import options_of
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


def ray_cluster(run: StageRun, about: Mapping[str, Any], *, trains: bool = False) -> "RayCluster | None":
    """The cluster that the stage's encoder computes on, to be attached to where there is something to compute.

    ``about`` is as :func:`~erasmo_dagster.method.encoders.kinds.identify` gives it, ``trains`` says that its weights
    are trained there. None where this process computes. Raises ErasmoError where the packages of the extra ray are not
    installed.
    """
    if run.settings.execution.engine == "local":
        return None
    options = options_of(about, run.settings)
    if options.remote is not None:
        progress.note(f"The encoder {options.name} asks an endpoint: this process does, no worker of Ray")
        return None
    with installed():
        from erasmo_dagster.defs.clusters import RayCluster
    gpu, model = computes_on_gpu(options, run.settings), about.get("base_model")
    if model is not None and trains:
        model = str(resolve(model, run.project.models).path)  # which workers open as this process sees it
    elif model is not None:
        model = model.removeprefix("path:") if model.startswith("path:") else None  # others they look for themselves
    return RayCluster.of(run.settings.execution, run.project.home, gpu=gpu, model=model)


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
