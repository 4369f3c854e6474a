"""Where the heavy stages compute: in the run's own process, or on a Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings.base import Settings

_ADDRESS = re.compile(r"auto|([^\s/@:]+|\[[0-9a-fA-F:]+\]):\d{1,5}")


def is_address(text: str) -> bool:
    """Whether ``text`` is `auto` or `host:port`."""
    return _ADDRESS.fullmatch(text) is not None


class ExecutionSettings(Settings):
    """The engine of the stages that run a language model; no result depends on it, and nothing kept names it."""

    engine: Literal["local", "ray"] = Field(
        "local",
        description="`local`: in the process of the run. `ray`: by workers on a Ray cluster "
        "(needs `pip install 'erasmo-dagster[ray]'`).",
    )
    address: str | None = Field(
        None,
        description="Cluster to attach to, of which this machine is a node: `host:port` of its head, or `auto` for the "
        "one that runs here or that RAY_ADDRESS names; `${VARIABLE}` is expanded. null: Ray is started on this machine "
        "for the stage, and ended with it.",
    )
    workers: int | None = Field(
        None, ge=1, le=10_000, description="Workers at most; null: as many as the cluster has resources for."
    )
    cpus_per_worker: int = Field(
        1, ge=1, le=1024, description="Cores of a worker, and the threads that it computes by."
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of a worker; less than 1 where several share one. null: 1 where the cluster has any, else 0.",
    )
    memory_mb: int | None = Field(
        None,
        ge=1,
        description="Memory of a worker in MiB, which Ray sets aside for it; null: memory is not counted. Ray places "
        "workers by it and does not hold them to it.",
    )
    object_store_mb: int | None = Field(
        None,
        ge=80,
        description="Memory in MiB of Ray's object store: what lies there on a cluster that is started here, what a "
        "stage may keep there on one that is attached to. null: as Ray has it, 30 % of a machine.",
    )
    max_failures: int = Field(
        3,
        ge=0,
        le=1000,
        description="How often the same work is begun again after a worker was lost with it, before the stage fails.",
    )
    dashboard: bool = Field(
        True, description="Show Ray's dashboard, on 127.0.0.1, where Ray is started on this machine for the stage."
    )

    def overridden(self, given: Mapping[str, Any], *, where: str = "", fix: str = "") -> ExecutionSettings:
        """These settings with those of ``given`` in their place; the engine local takes nothing of a cluster's.

        Raises ErasmoError for settings that are not valid: ``where`` they were got, and how to ``fix`` it.
        """
        before = {} if given.get("engine") == "local" else self.model_dump()
        try:
            return ExecutionSettings.model_validate({**before, **given})
        except ValidationError as error:
            fault = error.errors()[0]
            name = ".".join(("execution", *map(str, fault["loc"])))
            message = fault["msg"].removeprefix("Value error, ")
            expected = "settings as those of `execution` in a dataset"
            raise ErasmoError(f"Got {name}{where}: {message}", expected=expected, fix=fix) from error

    @field_validator("address")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is None or "${" in value or is_address(value):
            return value
        why = "; Ray's client cannot do what the stages need" if value.startswith("ray://") else ""
        raise ValueError(f"got address {value!r}, expected auto or host:port of a cluster that this machine is in{why}")

    @model_validator(mode="after")
    def _options_that_are_heeded(self) -> ExecutionSettings:
        if self.engine == "local" and (others := sorted(self._chosen())):
            raise ValueError(f"`execution.{others[0]}` is read by the engine ray alone, and `engine` is local")
        return self

    def _chosen(self) -> list[str]:
        """Settings of Ray that are not as they are by default."""
        fields = type(self).model_fields.items()
        return [name for name, field in fields if name != "engine" and getattr(self, name) != field.default]
