"""Refresh or retrain."""

import dagster as dg
from pydantic import Field

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.planning import make_plan
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, MODEL_POOL, OWNERS, begin_stage
from erasmo_dagster.refresh.decision import RefreshPlan


class RefreshConfig(dg.Config):
    """Run config of the decision; a run without any uses the dataset's YAML alone."""

    retrain: bool = Field(False, description="Train anew, whatever has changed.")


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="source",
    kinds={"python"},
    owners=OWNERS,
    pool=MODEL_POOL,
    code_version=CODE_VERSIONS["refresh_plan"],
    deps=["source_table"],
)
def refresh_plan(
    context: dg.AssetExecutionContext, config: RefreshConfig, warehouse: WarehouseResource
) -> dg.MaterializeResult[None]:
    """One decision per run: refresh with the training that stands, or retrain; and why."""
    run = begin_stage(context, warehouse)
    plan = make_plan(run, forced=config.retrain)
    with warehouse.get_connection() as con:
        output = run.record(con, run.hash_inputs(plan.settings), {"plan": plan.model_dump(mode="json")})
    context.log.info(plan.sentence)
    return run.result(output, _metadata(plan))


def _metadata(plan: RefreshPlan) -> dict[str, object]:
    shown: dict[str, object] = {
        "decision": plan.decision.mode,
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in plan.decision.reasons)),
    }
    if plan.changes is not None:
        shown |= {f"rows_{name}": value for name, value in plan.changes if name != "rows"}
        shown |= {"texts_embedded": plan.embedded, "compared_with_version": plan.standing}
    if plan.drift is not None:
        shown |= {
            "psi": dg.MetadataValue.float(round(plan.drift.psi, 4)),
            "share_beyond": dg.MetadataValue.float(round(plan.drift.beyond, 4)),
        }
    if plan.decision.mode == "refresh":
        shown["training_of_version"] = plan.fitted
    return shown
