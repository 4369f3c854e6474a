"""Vectors of the rows."""

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import OWNERS, StageRun, begin_stage
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.embedding import EmbeddingResult, embed_rows
from erasmo_dagster.method.encoders import CausalLMEncoder
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.store.artifacts import adapter_dir
from erasmo_dagster.store.warehouse import read_corpus, write_embeddings


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="model",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    code_version="1",
    deps=["text_corpus", "adapter"],
)
def embeddings(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One vector per entity: the fine-tuned model's hidden state, averaged over the tokens of the entity's text."""
    run = begin_stage(context, warehouse)
    settings = run.settings.embedding
    hashed = run.hash_inputs(settings.model_dump(exclude={"batch_tokens"}), run.settings.seed)
    # An adapter that was trained anew has the same inputs and, on a GPU, other weights.
    adapter_version = run.inputs["adapter"].version
    output = run.reusable(hashed, lambda o: o.details.get("adapter_version") == adapter_version)
    if output is None:
        with warehouse.get_connection() as con:
            corpus = read_corpus(con, run.dataset, run.inputs["text_corpus"].version)
        result = _embed(run, corpus["clauses"].to_list())
        with warehouse.get_connection() as con:
            table = write_embeddings(con, run.dataset, run.version, corpus, result.vectors)
            output = run.record(
                con,
                hashed,
                {
                    "rows": result.rows,
                    "adapter_version": adapter_version,
                    "width": int(result.vectors.shape[1]),
                    "table": table,
                    "distinct_texts": result.distinct_texts,
                    "tokens": result.tokens,
                    "truncated_rows": result.truncated_rows,
                    "model_seconds": round(result.seconds, 2),
                    "tokens_per_second": round(result.tokens_per_second, 1),
                },
            )
    details = dict(output.details)
    return run.result(output, {"dagster/row_count": details.pop("rows"), **details})


def _embed(run: StageRun, rows: list[list[str]]) -> EmbeddingResult:
    tuned = run.inputs["adapter"]
    # The adapter names its base model: the YAML may have moved on since it was trained.
    base = resolve(tuned.details["base_model"], run.project.models)
    folder = adapter_dir(run.project, run.dataset, tuned.version) if tuned.details["method"] != "none" else None
    encoder = CausalLMEncoder(base, folder, run.settings.embedding, device=run.settings.adapter.device)
    result = embed_rows(rows, encoder, run.settings.embedding, seed=run.settings.seed)
    del encoder
    release_memory()
    return result
