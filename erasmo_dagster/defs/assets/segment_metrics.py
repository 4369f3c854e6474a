"""How good the segments are."""

import dagster as dg
import polars as pl

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import table
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.sampling import columns_of, sampled_rows
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.gower import gower_distances, gower_silhouette
from erasmo_dagster.method.quality import METRICS, external_metrics, internal_metrics, read_metrics
from erasmo_dagster.store.artifacts import snapshot_path, state_dir, text_dir
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.warehouse import read_embeddings, read_segments, write_metrics


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="segments",
    kinds={"scikitlearn", "duckdb"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["segment_metrics"],
    deps=["source_table", "text_corpus", "embeddings", "segments"],
)
def segment_metrics(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One row per figure: separation of the segments, and agreement with the label where the dataset has one."""
    run = begin_stage(context, warehouse)
    vectors_of = run.inputs["embeddings"]
    with warehouse.get_connection() as con:
        _, vectors = read_embeddings(con, run.dataset, vectors_of.version, vectors_of.details["width"])
        segmented = read_segments(con, run.dataset, run.inputs["segments"].version)
    fitted = FittedState.load(state_dir(run.project, run.dataset, run.inputs["segments"].version)).clustering
    points = vectors if fitted is None else fitted.model.space.project(vectors)  # the space that was clustered
    labels = segmented["segment_id"].to_numpy()
    settings = run.settings
    figures = internal_metrics(points, labels, max_rows=settings.clustering.metrics_rows, seed=settings.seed)
    if (gower := _gower(run, segmented)) is not None:
        figures["gower_silhouette"] = gower
    if settings.label:
        figures |= external_metrics(labels, _truth(run, settings.label, segmented["entity_key"]), vectors)
    rows = [
        {"metric": name, "value": value, "description": METRICS[name].description} for name, value in figures.items()
    ]
    with warehouse.get_connection() as con:
        write_metrics(con, run.dataset, run.version, pl.DataFrame(rows))
        output = run.record(
            con, run.hash_inputs(settings.label, settings.clustering.metrics_rows, settings.seed), figures
        )
    return run.result(output, {"reading": read_metrics(figures), "metrics": table(rows), **figures})


def _gower(run: StageRun, segmented: pl.DataFrame) -> float | None:
    """The silhouette in the table's own columns, on a seeded sample of its rows."""
    plan = FittedState.load(text_dir(run.project, run.dataset, run.inputs["text_corpus"].version)).text
    rows = sampled_rows(segmented, run.settings.seed)
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    distances = gower_distances(columns_of(rows, path), plan.columns)
    return None if distances is None else gower_silhouette(distances, rows["segment_id"].to_numpy())


def _truth(run: StageRun, label: str, entity_keys: pl.Series) -> list[str | None]:
    """The label of each entity, as text, in the order of ``entity_keys``; the one place that reads it."""
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    truth = pl.read_parquet(path, columns=[ENTITY_KEY, label]).select(
        pl.col(ENTITY_KEY).alias("entity_key"), pl.col(label).cast(pl.String).alias("truth")
    )
    joined = entity_keys.to_frame("entity_key").join(truth, on="entity_key", how="left", maintain_order="left")
    return joined["truth"].to_list()
