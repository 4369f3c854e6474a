"""Vectors of the rows."""

from typing import Any

import dagster as dg
import polars as pl

from erasmo_dagster.defs.encoding import Encoded, encode, encoder_id, forget_unfinished, way_of_reading
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.store.artifacts import text_dir
from erasmo_dagster.store.versions import NEW_VECTORS, StageOutput, drop_stage, stage_output
from erasmo_dagster.store.warehouse import read_corpus, write_embeddings


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="model",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["embeddings"],
    deps=["text_corpus", "adapter", "refresh_plan"],
)
def embeddings(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One vector per entity: what the encoder makes of its text; by default a fine-tuned model's mean hidden state."""
    run = begin_stage(context, warehouse)
    tuned, written = run.inputs["adapter"], run.inputs["text_corpus"]
    way = way_of_reading(run, _standing(run))
    encoder = encoder_id(tuned, way)
    hashed = run.hash_inputs(encoder)
    output = run.reusable(hashed, lambda o: o.details.get("encoder") == encoder)
    if output is None:
        with warehouse.get_connection() as con:
            corpus = read_corpus(con, run.dataset, written.version)
        plan = FittedState.load(text_dir(run.project, run.dataset, written.version)).text
        encoded = encode(run, tuned, corpus, plan, way)
        with warehouse.get_connection() as con:
            table = write_embeddings(con, run.dataset, run.version, corpus, encoded.vectors)
            new = stage_output(con, run.dataset, run.version, NEW_VECTORS)
            # Its rows have just been replaced by the whole set.
            drop_stage(con, run.dataset, run.version, NEW_VECTORS)
            output = run.record(
                con,
                hashed,
                {**_details(encoded, corpus), **_read_before(new, encoder), "table": table, "reading": way},
            )
        forget_unfinished(run, encoder)
    details = dict(output.details)
    del details["encoder"], details["reading"]
    return run.result(output, {"dagster/row_count": details.pop("rows"), **details})


def _standing(run: StageRun) -> StageOutput | None:
    """The vectors that stand, where this run refreshes what was made of them."""
    plan = run.plan
    if plan.decision.mode != "refresh" or plan.standing is None:
        return None
    with run.warehouse.get_connection() as con:
        return stage_output(con, run.dataset, plan.standing, run.stage)


def _details(encoded: Encoded, corpus: pl.DataFrame) -> dict[str, Any]:
    read = encoded.run
    return {
        "encoder": encoded.encoder,
        "rows": corpus.height,
        "width": int(encoded.vectors.shape[1]),
        "distinct_texts": corpus["text_hash"].n_unique(),
        "texts_embedded": read.distinct_texts if read else 0,
        "tokens": read.tokens if read else 0,
        "truncated_rows": read.truncated_rows if read else 0,
        "model_seconds": round(read.seconds, 2) if read else 0.0,
        "tokens_per_second": round(read.tokens_per_second, 1) if read else 0.0,
    }


def _read_before(new: StageOutput | None, encoder: str) -> dict[str, Any]:
    """The figures of the reading that refresh_plan did for this run, with the same encoder."""
    if new is None or new.details["encoder"] != encoder:
        return {}
    return {name: new.details[name] for name in new.details if name not in ("encoder", "width")}
