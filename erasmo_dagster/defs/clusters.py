"""A Ray cluster as a resource of Dagster, for the time of a stage; needs the extra ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster_ray import Lifecycle, LocalRay
from pydantic import PrivateAttr

from erasmo_dagster.distributed.cluster import Cluster, connect, ray_errors
from erasmo_dagster.settings import ExecutionSettings


class RayCluster(LocalRay):  # type: ignore[misc]  # mypy does not look into dagster-ray
    """dagster-ray's resource, attached to the cluster that a dataset's settings name, or started for them.

    It takes the address of a dataset and not of the whole code location, and connects within the stage: a stage that
    has nothing to compute starts nothing.
    """

    _settings: ExecutionSettings = PrivateAttr(default=ExecutionSettings(engine="ray"))
    _shared: Path = PrivateAttr(default=Path())
    _gpu: bool | None = PrivateAttr(default=None)
    _model: str | None = PrivateAttr(default=None)
    _cluster: Cluster | None = PrivateAttr(default=None)

    @classmethod
    def of(
        cls, settings: ExecutionSettings, shared: Path, *, gpu: bool | None = None, model: str | None = None
    ) -> Self:
        """The cluster of ``settings``, for work as :func:`~erasmo_dagster.distributed.cluster.connect` asks for."""
        # By itself the resource would connect before the stage knows what there is to do, log each mistake of a user's
        # as a fault with its traceback, and say of a cluster that goes on running that it is deleted.
        resource = cls(lifecycle=Lifecycle(create=False, cleanup="never"))
        resource._settings, resource._shared = settings, shared
        resource._gpu, resource._model = gpu, model
        return resource

    @property
    def name(self) -> str:
        """As events of Dagster call it."""
        return "Ray cluster"

    @property
    def cluster(self) -> Cluster:
        """What it is attached to, while it is."""
        assert self._cluster is not None
        return self._cluster

    @property
    def used(self) -> Cluster | None:
        """What it was attached to last; None where there was nothing to compute."""
        return self._cluster

    @contextmanager
    def attached(self) -> Iterator[Cluster]:
        """Be attached while the stage that runs now does its work; its log in Dagster tells of it.

        Raises ErasmoError as :func:`~erasmo_dagster.distributed.cluster.attached` does.
        """
        context = dg.OpExecutionContext.get()
        with self.yield_for_execution(context), ray_errors(self._settings):
            self.connect(context)
            self.on_connect(context)
            yield self.cluster

    def connect(self, context: Any) -> Any:
        """Attach this process, with workers that import what it does; overrides the resource's plain `ray.init`."""
        self._context, self._cluster = connect(self._settings, self._shared, gpu=self._gpu, model=self._model)
        return self._context

    def on_connect(self, context: Any) -> None:
        """Say in the stage's log what it is, with the dashboard's address."""
        context.log.info(self.cluster.sentence)
