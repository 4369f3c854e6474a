"""What the encoder learns: a fine-tuned model, a vocabulary, ranges."""

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg

from erasmo_dagster.defs.execution import ExecutionConfig, computed_on, ray_cluster, with_execution
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import picture
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, MODEL_POOL, OWNERS, StageRun, begin_stage
from erasmo_dagster.distributed.training import fine_tune_on_ray
from erasmo_dagster.method import plots
from erasmo_dagster.method.encoders.kinds import fit_encoder, identify
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.training import TrainingResult
from erasmo_dagster.settings import ErasmoOptions
from erasmo_dagster.store.artifacts import adapter_dir, checkpoint_dir, text_dir
from erasmo_dagster.store.corpus import clause_rows

if TYPE_CHECKING:
    from erasmo_dagster.defs.clusters import RayCluster


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="model",
    kinds={"pytorch", "huggingface"},
    owners=OWNERS,
    pool=MODEL_POOL,
    code_version=CODE_VERSIONS["adapter"],
    deps=["text_corpus", "refresh_plan"],
)
def adapter(
    context: dg.AssetExecutionContext, config: ExecutionConfig, warehouse: WarehouseResource
) -> dg.MaterializeResult[None]:
    """One fitted encoder per dataset: for ERASMO low-rank weights over a base model, trained on the shuffled corpus."""
    run = with_execution(begin_stage(context, warehouse), config)
    if (standing := run.standing("adapter", "adapter")) is not None:
        return run.result(run.link(standing), _metadata(standing.details))
    about = identify(run.settings, run.project.models)
    tuned = run.settings.adapter.model_dump(exclude={"device", "base_model", "forward_tokens"})
    hashed = run.hash_inputs(about, tuned if run.settings.encoder.tuned else None, run.settings.seed)
    # Other encoders learn in seconds, in this process.
    tunes = isinstance(run.settings.encoder, ErasmoOptions)
    output, cluster = None, ray_cluster(run, about, trains=True) if tunes else None
    # Only the run that was asked to retrain does: a later one may use its plan.
    if not (run.plan.forced and run.inputs["refresh_plan"].version == run.version):
        output = run.reusable(
            hashed, lambda o: not about["learns"] or adapter_dir(run.project, run.dataset, o.version).is_dir()
        )
    if output is None:
        details = about | (_fit(run, about, hashed, cluster) if about["learns"] else {})
        with warehouse.get_connection() as con:
            output = run.record(con, hashed, details)
    used = cluster.used if cluster else None
    return run.result(output, _metadata(output.details) | computed_on(used))


def _fit(run: StageRun, about: dict[str, Any], hashed: str, cluster: "RayCluster | None") -> dict[str, Any]:
    written = run.inputs["text_corpus"]
    folder = adapter_dir(run.project, run.dataset, run.version)
    with clause_rows(run.warehouse.get_connection, run.dataset, written.version, folder.parent) as rows:
        return fit_encoder(
            rows,
            FittedState.load(text_dir(run.project, run.dataset, written.version)).text,
            run.settings,
            about,
            models_dir=run.project.models,
            out=folder,
            checkpoints=checkpoint_dir(run.project, run.dataset, hashed),
            provenance={
                "dataset": run.dataset,
                "version": run.version,
                "corpus_version": written.version,
                "corpus_inputs": written.inputs_hash,
            },
            tune=partial(fine_tune_on_ray, attach=cluster.attached) if cluster else None,
        )


def _metadata(details: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"encoder": details["encoder"], "learns": details["learns"]}
    named = {"base_model": "base_model", "revision": "base_revision", "method": "method"}
    metadata |= {shown: details[name] for name, shown in named.items() if name in details}
    metadata["options"] = dg.MetadataValue.json(details["options"])
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
