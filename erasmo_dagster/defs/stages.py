"""What every stage's asset does around its work: find its version and inputs, reuse or record its output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.refresh.decision import RefreshPlan
from erasmo_dagster.settings import DatasetSettings, Project, load_dataset
from erasmo_dagster.store.versions import (
    STAGES,
    StageOutput,
    begin_version,
    find_reusable,
    inputs_hash,
    link_stage,
    record_stage,
    stage_output,
    upstream,
)

OWNERS = ["team:erasmo"]
# Runs with a step in this pool are those that `max_model_runs` counts.
MODEL_POOL = "model"
# Tag of a run: what started it.
REASON_TAG = "erasmo/reason"
# Raised where a stage's code makes other output of the same input: what was fitted before is then fitted anew.
CODE_VERSIONS = {
    "source_table": "2",
    "refresh_plan": "1",
    "text_corpus": "2",
    "adapter": "2",
    "embeddings": "3",
    "segments": "4",
    "segment_metrics": "3",
    "segment_profile": "1",
}


def reading(settings: DatasetSettings) -> dict[str, Any]:
    """How the encoder reads texts: the settings of `embedding` that it heeds, and the seed of its orders."""
    heeded = settings.embedding.model_dump(include=set(settings.encoder.reads) - {"batch_tokens"})
    return {"embedding": heeded, "seed": settings.seed if settings.embedding.permutations else None}


def settings_digests(settings: DatasetSettings) -> dict[str, str]:
    """A digest of each part of the settings that something fitted depends on, with the code that fits it."""
    encoder = settings.encoder
    tuned = settings.adapter.model_dump(exclude={"device", "forward_tokens"}) if encoder.tuned else None
    parts: dict[str, tuple[Any, ...]] = {
        "text": (
            CODE_VERSIONS["text_corpus"],
            settings.text.deciding(),
            sorted(settings.excluded),
            {name: column.model_dump() for name, column in settings.columns.items()},
        ),
        "adapter": (CODE_VERSIONS["adapter"], encoder.deciding(), tuned, settings.seed),
        "embedding": (CODE_VERSIONS["embeddings"], reading(settings)),
        "clustering": (CODE_VERSIONS["segments"], settings.clustering.model_dump(), settings.seed),
    }
    return {name: inputs_hash(*part) for name, part in parts.items()}


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
        data = {name: output.inputs_hash for name, output in self.inputs.items() if name != "refresh_plan"}
        return inputs_hash(self.code_version, data, *settings)

    @property
    def plan(self) -> RefreshPlan:
        """What was decided for this run."""
        return RefreshPlan.model_validate(self.inputs["refresh_plan"].details["plan"])

    def standing(self, part: str, stage: str) -> StageOutput | None:
        """The output of ``stage`` that stands, where the plan is to refresh and ``part`` of the settings is as then.

        The YAML may have moved on since the plan was made, where stages are materialized one by one.
        """
        plan = self.plan
        if plan.decision.mode != "refresh" or plan.standing is None:
            return None
        if plan.settings[part] != settings_digests(self.settings)[part]:
            return None
        with self.warehouse.get_connection() as con:
            return stage_output(con, self.dataset, plan.standing, stage)

    def link(self, output: StageOutput) -> StageOutput:
        """Make an earlier version's output this version's too."""
        with self.warehouse.get_connection() as con:
            return link_stage(con, self.dataset, self.version, output)

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
        made = "this run" if output.version == self.version else f"version {output.version}, reused"
        return dg.MaterializeResult(
            metadata={"version": self.version, "made_by": made, **metadata, "seconds": round(self.seconds, 2)},
            data_version=dg.DataVersion(output.inputs_hash),
        )


def root_run(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> str:
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
    return StageRun(stage, dataset, version, settings, project, warehouse, CODE_VERSIONS[stage], inputs)
