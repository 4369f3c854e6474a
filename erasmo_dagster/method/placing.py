"""Rows into segments that stand: a refresh without retraining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.clustering import assign
from erasmo_dagster.method.fitted import FittedClustering


@dataclass(frozen=True, eq=False)
class Placement:
    """Where n rows are: ``segment_ids`` int32[n], ``confidence`` float32[n], and which kept what they had, bool[n]."""

    segment_ids: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    kept: npt.NDArray[np.bool_]


def place_rows(
    rows: pl.DataFrame, vectors: npt.NDArray[np.float32], standing: pl.DataFrame, fitted: FittedClustering
) -> Placement:
    """Keep the segment of every row whose text is as it was; put the others into the segment of the nearest centre.

    ``rows`` has entity_key and text_hash, one row a vector of ``vectors`` float32[n, d]; ``standing`` has entity_key,
    text_hash, segment_id and confidence of the version that stands. A row that is new but reads like one that stands
    goes where that one is, whatever method drew the segments (agglomerative and spectral ones are not those of the
    nearest centre). Ties between twins go to the lower segment.
    """
    wanted = rows.select("entity_key", "text_hash")
    same_row = wanted.join(
        standing.select("entity_key", "text_hash", "segment_id", "confidence"),
        on=["entity_key", "text_hash"],
        how="left",
        maintain_order="left",
    )
    twins = standing.sort("segment_id", "entity_key").unique("text_hash", keep="first", maintain_order=True)
    same_text = wanted.join(
        twins.select("text_hash", "segment_id", "confidence"), on="text_hash", how="left", maintain_order="left"
    )
    known = same_row.select(
        pl.coalesce("segment_id", same_text["segment_id"]), pl.coalesce("confidence", same_text["confidence"])
    )
    kept = known["segment_id"].is_not_null().to_numpy()
    segment_ids = known["segment_id"].fill_null(0).cast(pl.Int32).to_numpy().copy()
    confidence = known["confidence"].fill_null(0).cast(pl.Float32).to_numpy().copy()
    if not kept.all():
        found = assign(vectors[~kept], fitted.centers, fitted.scaler)
        segment_ids[~kept] = np.asarray(fitted.segment_ids, dtype=np.int32)[found.labels]
        confidence[~kept] = found.confidence
    return Placement(segment_ids, confidence, kept)
