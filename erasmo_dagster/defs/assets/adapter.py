"""The fine-tuned model."""

from typing import Any

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import picture
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.method import plots
from erasmo_dagster.method.adapter import fine_tune
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.training import TrainingResult
from erasmo_dagster.store.artifacts import adapter_dir, checkpoint_dir
from erasmo_dagster.store.warehouse import read_corpus


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["adapter"],
    deps=["text_corpus", "refresh_plan"],
)
def adapter(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One fine-tuned model per dataset: low-rank weights over a base model, trained on the shuffled corpus."""
    run = begin_stage(context, warehouse)
    if (standing := run.standing("adapter", "adapter")) is not None:
        return run.result(run.link(standing), _metadata(standing.details))
    settings = run.settings.adapter
    base = resolve(settings.base_model, run.project.models)
    hashed = run.hash_inputs(
        settings.model_dump(exclude={"device", "base_model", "forward_tokens"}), run.settings.seed, base.revision
    )
    output = None
    # Only the run that was asked to retrain does: a later one may use its plan.
    if not (run.plan.forced and run.inputs["refresh_plan"].version == run.version):
        output = run.reusable(
            hashed,
            lambda o: settings.method == "none" or adapter_dir(run.project, run.dataset, o.version).is_dir(),
        )
    if output is None:
        details: dict[str, Any] = {"base_model": base.name, "revision": base.revision, "method": settings.method}
        if settings.method != "none":
            details["training"] = _train(run, base, hashed).model_dump(mode="json")
        with warehouse.get_connection() as con:
            output = run.record(con, hashed, details)
    return run.result(output, _metadata(output.details))


def _train(run: StageRun, base: LocalModel, hashed: str) -> TrainingResult:
    corpus_version = run.inputs["text_corpus"].version
    with run.warehouse.get_connection() as con:
        corpus = read_corpus(con, run.dataset, corpus_version)
    return fine_tune(
        corpus["clauses"].to_list(),
        base,
        run.settings.adapter,
        seed=run.settings.seed,
        out=adapter_dir(run.project, run.dataset, run.version),
        checkpoints=checkpoint_dir(run.project, run.dataset, hashed),
        provenance={
            "dataset": run.dataset,
            "version": run.version,
            "corpus_version": corpus_version,
            "corpus_inputs": run.inputs["text_corpus"].inputs_hash,
        },
    )


def _metadata(details: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "base_model": details["base_model"],
        "base_revision": details["revision"],
        "method": details["method"],
    }
    if "training" not in details:
        return metadata
    training = TrainingResult.model_validate(details["training"])
    return metadata | {
        "rows": training.rows,
        "held_out_rows": training.eval_rows,
        "training_tokens": training.tokens,
        "tokens_per_second": round(training.tokens / training.seconds, 1) if training.seconds else 0.0,
        "training_seconds": round(training.seconds, 1),
        "steps": training.steps,
        "stopped_by": training.stopped_by,
        "truncated_rows": training.truncated_rows,
        "trainable_parameters": training.trainable_parameters,
        "loss": picture(plots.loss_curve(training.loss_curve), "loss by training tokens"),
        **({"eval_loss": training.eval_loss} if training.eval_loss is not None else {}),
        **({"eval_loss_before": training.first_eval_loss} if training.first_eval_loss is not None else {}),
    }
