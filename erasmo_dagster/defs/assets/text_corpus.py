"""Rows as text."""

import dagster as dg
import numpy as np
import polars as pl

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, begin_stage
from erasmo_dagster.defs.summarizing import corpus_rows, summarize_source
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.textual import TextPlan, fit_text, sample_texts
from erasmo_dagster.settings import DatasetSettings
from erasmo_dagster.store.artifacts import snapshot_path, text_dir, version_dir
from erasmo_dagster.store.corpus import corpus_file
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.warehouse import write_corpus


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="text",
    kinds={"polars", "duckdb"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["text_corpus"],
    deps=["source_table", "refresh_plan"],
)
def text_corpus(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One row per entity: its clauses "feature is value" in the dataset's canonical column order."""
    run = begin_stage(context, warehouse)
    snapshot = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    table = pl.scan_parquet(snapshot, glob=False).drop(ENTITY_KEY)
    settings = run.settings
    standing = run.standing("text", "text_corpus")
    if standing is None:
        plan = fit_text(table, settings)
    else:
        plan = FittedState.load(text_dir(run.project, run.dataset, standing.version)).text
    summarized = summarize_source(run, snapshot, plan)
    by = [summarized.details["summarizers"]] if summarized else []
    hashed = run.hash_inputs({**plan.model_dump(mode="json"), "settings": plan.settings.deciding()}, *by)
    FittedState(text=plan, clustering=None).save(text_dir(run.project, run.dataset, run.version))
    rows = int(table.select(pl.len()).collect().item())
    written = corpus_rows(snapshot, plan, summarized)
    beside = version_dir(run.project, run.dataset, run.version)
    # The texts are made before the warehouse is locked.
    with corpus_file(written, beside) as file, warehouse.get_connection() as con:
        distinct = write_corpus(con, run.dataset, run.version, file)
        details = {
            "rows": rows,
            "columns": [column.name for column in plan.columns],
            "dropped": plan.dropped,
            "distinct_texts": distinct,
            "summarized": summarized.details if summarized else {},
        }
        output = run.record(con, hashed, details)
    shown = np.sort(np.random.default_rng(settings.seed).choice(rows, min(rows, 5), replace=False))
    some = pl.concat([table.slice(int(row), 1).collect() for row in shown])
    if summarized:
        some = some.with_columns(summarized.frame[shown])
    samples = sample_texts(some, _masked(plan, settings), n=5, seed=settings.seed)
    left_out = "\n".join(f"- `{name}`: {reason}" for name, reason in plan.dropped.items())
    return run.result(
        output,
        {
            "dagster/row_count": rows,
            "distinct_texts": distinct,
            "columns_in_order": ", ".join(column.label for column in plan.columns),
            "text_fitted": "this run" if standing is None else f"version {run.plan.fitted}, which stands",
            **({"summarized": dg.MetadataValue.json(summarized.details)} if summarized else {}),
            "left_out": dg.MetadataValue.md(left_out or "nothing"),
            "sample": dg.MetadataValue.md("\n\n".join(f"> {text}" for text in samples)),
        },
    )


def _masked(plan: TextPlan, settings: DatasetSettings) -> TextPlan:
    """The plan, which may stand from before, with the columns that are sensitive now besides those that were then."""
    columns = (c.model_copy(update={"sensitive": c.sensitive or c.name in settings.sensitive}) for c in plan.columns)
    return plan.model_copy(update={"columns": tuple(columns)})
