"""How good the segments are."""

from typing import Any

import dagster as dg
import polars as pl

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import table
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.sampling import MEASURED_ROWS, planned_columns_of, sampled_rows
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.method.fitted import FittedClustering, FittedState
from erasmo_dagster.method.measures import TableMeasures, measure_table
from erasmo_dagster.method.quality import (
    METRICS,
    external_metrics,
    internal_metrics,
    read_jaccard,
    read_metrics,
    read_stability,
)
from erasmo_dagster.store.artifacts import snapshot_path, state_dir, text_dir
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.standing import read_drawn_in
from erasmo_dagster.store.vectors import read_embeddings
from erasmo_dagster.store.warehouse import read_segments, write_metrics

_MEASURES = {"eta_squared": "variance", "nmi": "mutual information", "text": "variance of its words"}


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="segments",
    kinds={"scikitlearn", "duckdb"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["segment_metrics"],
    deps=["source_table", "text_corpus", "embeddings", "segments"],
)
def segment_metrics(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One row per figure: of the vectors, of the table's own columns, of how stable the segments are, and agreement
    with the label where there is one.

    Stability is the training's: versions that only place rows have the same. The metadata has the share of every column
    that segments explain, the questions by which a small tree tells them apart, and how stable each segment is.
    """
    run = begin_stage(context, warehouse)
    segments, embeddings, settings = run.inputs["segments"], run.inputs["embeddings"], run.settings
    with warehouse.get_connection() as con:
        _, drawn = read_drawn_in(con, run.dataset, segments, embeddings)
        segmented = read_segments(con, run.dataset, segments.version)
        vectors = drawn
        if settings.label and segments.details.get("points"):  # the label's figures are of the encoder's vectors
            _, vectors = read_embeddings(con, run.dataset, embeddings.version, embeddings.details["width"])
    fitted = FittedState.load(state_dir(run.project, run.dataset, segments.version)).clustering
    points = drawn if fitted is None else fitted.model.space.project(drawn)  # the space that was clustered
    labels = segmented["segment_id"].to_numpy()
    figures = internal_metrics(points, labels, max_rows=settings.clustering.metrics_rows, seed=settings.seed)
    private = frozenset({*settings.sensitive, *run.inputs["source_table"].details["sensitive"]})
    measures = _measures(run, segmented, private)
    figures |= measures.figures()
    if fitted is not None:
        figures |= fitted.stability
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
    told: dict[str, Any] = {"reading": read_metrics(figures), "metrics": table(rows), **_tables(measures, private)}
    if stable := read_stability(figures):
        told["reading_of_stability"] = stable
    if fitted is not None and fitted.jaccard:
        told["stability_by_segment"] = _stability(fitted)
    return run.result(output, {**told, **figures})


def _measures(run: StageRun, segmented: pl.DataFrame, private: frozenset[str]) -> TableMeasures:
    """What the table's own columns say, of a seeded sample of the rows in segments.

    ``private`` columns are those that the YAML calls sensitive now, whatever it said at the training.
    """
    plan = FittedState.load(text_dir(run.project, run.dataset, run.inputs["text_corpus"].version)).text
    rows = sampled_rows(segmented.filter(pl.col("segment_id") >= 0), run.settings.seed, MEASURED_ROWS)
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    frame, found = planned_columns_of(rows, path, plan.columns, label=run.settings.label)
    columns = [column.model_copy(update={"sensitive": column.name in private}) for column in found]
    return measure_table(frame, columns, rows["segment_id"].to_numpy(), seed=run.settings.seed)


def _tables(measures: TableMeasures, private: frozenset[str]) -> dict[str, Any]:
    """The columns, those that segments explain most first, and a line for each leaf of the tree; nothing private."""
    found: dict[str, Any] = {}
    parts = measures.separation.columns if measures.separation is not None else ()
    if columns := [column for column in parts if column.column not in private]:
        found["columns"] = table(
            [
                {
                    "column": column.column,
                    "share explained": column.share,
                    "by chance": column.chance,
                    "p-value": column.p_value,
                    "measured by": _MEASURES[column.measure],
                }
                for column in sorted(columns, key=lambda column: -column.share)
            ]
        )
    if measures.explained is not None and measures.explained.rules:
        found["rules"] = table([{"rule": rule} for rule in measures.explained.rules])
    return found


def _stability(fitted: FittedClustering) -> Any:
    """How well each segment is found again on resampled rows, the least stable first."""
    found = zip(fitted.segment_ids, fitted.jaccard, strict=True)
    return table(
        [
            {"segment": segment, "jaccard": round(jaccard, 3), "reading": read_jaccard(jaccard)}
            for segment, jaccard in sorted(found, key=lambda pair: (pair[1], pair[0]))
        ]
    )


def _truth(run: StageRun, label: str, entity_keys: pl.Series) -> list[str | None]:
    """The label of each entity, as text, in the order of ``entity_keys``; the one place that reads it."""
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    truth = pl.read_parquet(path, columns=[ENTITY_KEY, label], glob=False).select(
        pl.col(ENTITY_KEY).alias("entity_key"), pl.col(label).cast(pl.String).alias("truth")
    )
    joined = entity_keys.to_frame("entity_key").join(truth, on="entity_key", how="left", maintain_order="left")
    return joined["truth"].to_list()
