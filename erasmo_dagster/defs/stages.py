"""What every stage's asset does around its work: find its version and inputs, reuse or record its output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.settings import DatasetSettings, Project, load_dataset
from erasmo_dagster.store.versions import (
    STAGES,
    StageOutput,
    begin_version,
    find_reusable,
    inputs_hash,
    link_stage,
    record_stage,
    upstream,
)

OWNERS = ["team:erasmo"]


@dataclass(frozen=True)
class StageRun:
    """One stage of one run on one dataset."""

    stage: str
    dataset: str
    version: int
    settings: DatasetSettings
    project: Project
    warehouse: WarehouseResource
    code_version: str
    inputs: Mapping[str, StageOutput]
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time since the stage began."""
        return time.monotonic() - self.started

    def hash_inputs(self, *settings: Any) -> str:
        """A hash of all that the output depends on: code, upstream outputs and the given settings."""
        return inputs_hash(self.code_version, {k: v.inputs_hash for k, v in self.inputs.items()}, *settings)

    def reusable(self, hashed: str, usable: Callable[[StageOutput], bool]) -> StageOutput | None:
        """The output of an earlier run with equal inputs, now this version's too, if its files are still there."""
        with self.warehouse.get_connection() as con:
            found = find_reusable(con, self.dataset, self.version, self.stage, hashed)
            if found is None or not usable(found):
                return None
            return link_stage(con, self.dataset, self.version, found)

    def record(self, con: Any, hashed: str, details: dict[str, Any]) -> StageOutput:
        """Say that this version's output is whole; belongs in the transaction that wrote its rows."""
        return record_stage(con, self.dataset, self.version, self.stage, inputs_hash=hashed, details=details)

    def result(self, output: StageOutput, metadata: Mapping[str, Any]) -> dg.MaterializeResult[None]:
        """The materialization as Dagster shows it."""
        made = "this run" if output.version == self.version else f"version {output.version}: same inputs, so reused"
        return dg.MaterializeResult(
            metadata={"version": self.version, "made_by": made, **metadata, "seconds": round(self.seconds, 2)},
            data_version=dg.DataVersion(output.inputs_hash),
        )


def root_run(context: dg.AssetExecutionContext) -> str:
    """The id by which a run has its version: a retry by Dagster is a new run with the same root."""
    return context.run.root_run_id or context.run.run_id


def begin_stage(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> StageRun:
    """Open a stage: validated settings, the run's version, and the outputs it reads.

    Raises ErasmoError when the YAML is not valid or an upstream stage was never materialized.
    """
    stage, dataset = context.asset_key.path[-1], context.partition_key
    project = warehouse.project
    settings = load_dataset(project, dataset)
    with warehouse.get_connection() as con:
        version = begin_version(con, dataset, root_run(context))
        inputs = {name: upstream(con, dataset, version, name) for name in STAGES[stage]}
    code_version = context.assets_def.code_versions_by_key[context.asset_key] or ""
    return StageRun(stage, dataset, version, settings, project, warehouse, code_version, inputs)
