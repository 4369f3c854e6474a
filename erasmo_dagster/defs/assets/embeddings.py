"""Vectors of the rows."""

from typing import Any

import dagster as dg

from erasmo_dagster.defs.encoding import Encoded, Reading, encode, encoder_id, forget_unfinished, way_of_reading
from erasmo_dagster.defs.execution import ExecutionConfig, computed_on, with_execution
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, MODEL_POOL, OWNERS, StageRun, begin_stage
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.store.artifacts import text_dir
from erasmo_dagster.store.corpus import corpus_of, count_rows
from erasmo_dagster.store.vectors import write_joined
from erasmo_dagster.store.versions import NEW_VECTORS, StageOutput, drop_stage, stage_output


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="model",
    kinds={"pytorch", "duckdb"},
    owners=OWNERS,
    pool=MODEL_POOL,
    code_version=CODE_VERSIONS["embeddings"],
    deps=["text_corpus", "adapter", "refresh_plan"],
)
def embeddings(
    context: dg.AssetExecutionContext, config: ExecutionConfig, warehouse: WarehouseResource
) -> dg.MaterializeResult[None]:
    """One vector per entity: what the encoder makes of its text; by default a fine-tuned model's mean hidden state."""
    run = with_execution(begin_stage(context, warehouse), config)
    tuned, written = run.inputs["adapter"], run.inputs["text_corpus"]
    way = way_of_reading(run, _standing(run))
    encoder = encoder_id(tuned, way)
    hashed = run.hash_inputs(encoder)
    output = run.reusable(hashed, lambda o: o.details.get("encoder") == encoder)
    cluster = None
    if output is None:
        plan = FittedState.load(text_dir(run.project, run.dataset, written.version)).text
        corpus = corpus_of(run.dataset, written.version)
        encoded = encode(run, tuned, corpus, plan, way)
        cluster = encoded.read.cluster if encoded.read else None
        with warehouse.get_connection() as con:
            table, found = write_joined(
                con, run.dataset, run.version, corpus, encoded.width, held=encoded.held, parts=encoded.parts
            )
            if missing := count_rows(con, corpus) - found:
                raise ErasmoError(
                    f"Got no vector for {missing:,} of {found + missing:,} rows",
                    expected="one of every row; a version that had some may have been deleted meanwhile",
                    fix="run again, which reads their texts",
                )
            new = stage_output(con, run.dataset, run.version, NEW_VECTORS)
            # Its rows have just been replaced by the whole set.
            drop_stage(con, run.dataset, run.version, NEW_VECTORS)
            output = run.record(
                con,
                hashed,
                {**_details(encoded, written), **_read_before(new, encoder), "table": table, "reading": way},
            )
        forget_unfinished(run, encoder)
    details = dict(output.details)
    del details["encoder"], details["reading"]
    return run.result(output, {"dagster/row_count": details.pop("rows"), **details, **computed_on(cluster)})


def _standing(run: StageRun) -> StageOutput | None:
    """The vectors that stand, where this run refreshes what was made of them."""
    plan = run.plan
    if plan.decision.mode != "refresh" or plan.standing is None:
        return None
    with run.warehouse.get_connection() as con:
        return stage_output(con, run.dataset, plan.standing, run.stage)


def _details(encoded: Encoded, corpus: StageOutput) -> dict[str, Any]:
    read = encoded.read or Reading()
    about = {name: corpus.details[name] for name in ("rows", "distinct_texts")}
    return {"encoder": encoded.encoder, "width": encoded.width, **about, **read.details()}


def _read_before(new: StageOutput | None, encoder: str) -> dict[str, Any]:
    """The figures of the reading that refresh_plan did for this run, with the same encoder."""
    if new is None or new.details["encoder"] != encoder:
        return {}
    return {name: new.details[name] for name in new.details if name not in ("encoder", "width")}
