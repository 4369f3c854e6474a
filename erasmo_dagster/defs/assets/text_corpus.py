"""Rows as text."""

import dagster as dg
import polars as pl

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, begin_stage
from erasmo_dagster.defs.summarizing import summarize_texts
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.textual import TextPlan, fit_text, sample_texts, text_hashes, write_clauses
from erasmo_dagster.settings import DatasetSettings
from erasmo_dagster.store.artifacts import snapshot_path, text_dir
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
    source = run.inputs["source_table"]
    frame = pl.read_parquet(snapshot_path(run.project, run.dataset, source.version)).sort(ENTITY_KEY)
    entity_keys, frame = frame[ENTITY_KEY], frame.drop(ENTITY_KEY)
    settings = run.settings
    standing = run.standing("text", "text_corpus")
    if standing is None:
        plan = fit_text(frame, settings)
    else:
        plan = FittedState.load(text_dir(run.project, run.dataset, standing.version)).text
    summarized = summarize_texts(run, frame, plan)
    clauses = write_clauses(summarized.frame, plan)
    hashes = text_hashes(clauses)
    by = [summarized.details["summarizers"]] if summarized.details else []
    hashed = run.hash_inputs({**plan.model_dump(mode="json"), "settings": plan.settings.deciding()}, *by)
    details = {
        "rows": frame.height,
        "columns": [column.name for column in plan.columns],
        "dropped": plan.dropped,
        "distinct_texts": hashes.n_unique(),
        "summarized": summarized.details,
    }
    FittedState(text=plan, clustering=None).save(text_dir(run.project, run.dataset, run.version))
    with warehouse.get_connection() as con:
        corpus = pl.DataFrame([entity_keys.alias("entity_key"), hashes, clauses, summarized.summaries])
        write_corpus(con, run.dataset, run.version, corpus)
        output = run.record(con, hashed, details)
    samples = sample_texts(summarized.frame, _masked(plan, settings), n=5, seed=settings.seed)
    left_out = "\n".join(f"- `{name}`: {reason}" for name, reason in plan.dropped.items())
    return run.result(
        output,
        {
            "dagster/row_count": frame.height,
            "distinct_texts": details["distinct_texts"],
            "columns_in_order": ", ".join(column.label for column in plan.columns),
            "text_fitted": "this run" if standing is None else f"version {run.plan.fitted}, which stands",
            **({"summarized": dg.MetadataValue.json(summarized.details)} if summarized.details else {}),
            "left_out": dg.MetadataValue.md(left_out or "nothing"),
            "sample": dg.MetadataValue.md("\n\n".join(f"> {text}" for text in samples)),
        },
    )


def _masked(plan: TextPlan, settings: DatasetSettings) -> TextPlan:
    """The plan, which may stand from before, with the columns that are sensitive now besides those that were then."""
    columns = (c.model_copy(update={"sensitive": c.sensitive or c.name in settings.sensitive}) for c in plan.columns)
    return plan.model_copy(update={"columns": tuple(columns)})
