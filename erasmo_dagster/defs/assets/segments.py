"""Segments of the rows."""

from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import picture, table
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import OWNERS, StageRun, begin_stage
from erasmo_dagster.method import plots
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.fitted import FittedClustering, FittedState
from erasmo_dagster.store.artifacts import state_dir
from erasmo_dagster.store.versions import stage_output
from erasmo_dagster.store.warehouse import read_embeddings, write_segments


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="segments",
    kinds={"scikitlearn", "duckdb"},
    owners=OWNERS,
    code_version="1",
    deps=["embeddings"],
)
def segments(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One segment per entity, with a confidence."""
    run = begin_stage(context, warehouse)
    vectors_of = run.inputs["embeddings"]
    with warehouse.get_connection() as con:
        entity_keys, vectors = read_embeddings(con, run.dataset, vectors_of.version, vectors_of.details["width"])
        corpus = stage_output(con, run.dataset, run.version, "text_corpus")
    settings = run.settings.clustering
    result = cluster(vectors, settings, seed=run.settings.seed)
    text = FittedState.load(state_dir(run.project, run.dataset, corpus.version if corpus else run.version)).text
    clustering = FittedClustering(settings=settings, centers=result.centers, scaler=result.scaler, k=result.k)
    FittedState(text=text, clustering=clustering).save(state_dir(run.project, run.dataset, run.version))
    rows = pl.DataFrame(
        {
            "entity_key": entity_keys,
            "segment_id": result.labels.astype(np.int32),
            "segment_name": [f"segment {label}" for label in result.labels],
            "confidence": result.confidence,
        }
    )
    with warehouse.get_connection() as con:
        write_segments(con, run.dataset, run.version, rows)
        details = {"rows": rows.height, "k": result.k, "sweep": [vars(p) for p in result.sweep], "notes": result.notes}
        output = run.record(con, run.hash_inputs(settings.model_dump(), run.settings.seed), details)
    return run.result(output, {"dagster/row_count": rows.height, **_pictures(run, result, vectors)})


def _pictures(run: StageRun, result: ClusterResult, vectors: np.ndarray) -> dict[str, Any]:
    ids, counts = np.unique(result.labels, return_counts=True)
    sizes = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    shown: dict[str, Any] = {
        "segments": dg.MetadataValue.int(result.k),
        "mean_confidence": dg.MetadataValue.float(round(float(result.confidence.mean()), 4)),
        "sizes": picture(plots.segment_sizes(sizes), "rows by segment"),
        "projection": picture(
            plots.projection(vectors, result.labels, seed=run.settings.seed),
            "vectors by segment, in two dimensions",
        ),
    }
    if result.sweep:
        shown["k_sweep"] = picture(plots.k_sweep(result.sweep, result.k), "figures by number of segments")
        shown["k_figures"] = table([vars(point) for point in result.sweep])
    if result.notes:
        shown["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in result.notes))
    return shown
