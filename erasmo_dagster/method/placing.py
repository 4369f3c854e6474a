"""Rows into segments that stand: a refresh without retraining."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.fitted import FittedClustering


@dataclass(frozen=True, eq=False)
class Placement:
    """Where n rows are: ``segment_ids`` int32[n], ``confidence`` float32[n], and which kept what they had, bool[n].

    ``like`` int64[n] is the place of the row that stands whose segment it kept, -1 for those that were placed; these
    have ``memberships`` (entity_key, segment_id, membership), none where the method has none.
    """

    segment_ids: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    kept: npt.NDArray[np.bool_]
    like: npt.NDArray[np.int64]
    memberships: pl.DataFrame


def place_rows(
    rows: pl.DataFrame,
    points_of: Callable[[npt.NDArray[np.bool_]], npt.NDArray[np.float32]],
    standing: pl.DataFrame,
    fitted: FittedClustering,
) -> Placement:
    """Keep the segment of every row whose text is as it was; put the others where ``fitted.model`` does.

    ``rows`` has entity_key and text_hash; ``points_of`` gives, for a mask bool[n] of them, their points float32[m, d],
    and is asked for those that are put somewhere alone. ``standing`` has entity_key, text_hash, segment_id and
    confidence of the version that stands. A row that is new but reads like one that stands
    goes where that one is, whatever method drew the segments. Noise is -1, and stays so. Ties between twins go to the
    lower segment.
    """
    wanted = rows.select("entity_key", "text_hash")
    before = standing.select("entity_key", "text_hash", "segment_id", "confidence").with_row_index("like")
    same_row = wanted.join(before, on=["entity_key", "text_hash"], how="left", maintain_order="left")
    like = same_row["like"].cast(pl.Int64).fill_null(-1).to_numpy().copy()
    segment_ids = same_row["segment_id"].fill_null(0).cast(pl.Int32).to_numpy().copy()
    confidence = same_row["confidence"].fill_null(0).cast(pl.Float32).to_numpy().copy()
    others = np.flatnonzero(like < 0)
    if len(others):  # most rows are as they were: the others' twins alone are looked for
        texts = wanted["text_hash"].gather(others).to_frame()
        twins = before.join(texts, on="text_hash", how="semi").sort("segment_id", "entity_key")
        twins = twins.unique("text_hash", keep="first", maintain_order=True)
        same_text = texts.with_columns(row=others).join(twins, on="text_hash")
        alike = same_text["row"].to_numpy()
        for array, name in ((like, "like"), (segment_ids, "segment_id"), (confidence, "confidence")):
            array[alike] = same_text[name].to_numpy()
    kept = like >= 0
    memberships = None
    if not kept.all():
        found = fitted.model.place(points_of(~kept))
        segment_ids[~kept] = fitted.ids(found.labels)
        confidence[~kept] = found.confidence
        memberships = found.memberships
    new = wanted["entity_key"].filter(pl.Series(~kept))
    return Placement(segment_ids, confidence, kept, like, membership_rows(new, memberships, fitted))


def membership_rows(
    entity_keys: pl.Series, memberships: npt.NDArray[np.float32] | None, fitted: FittedClustering
) -> pl.DataFrame:
    """Memberships float32[n, k] one a row: columns entity_key, segment_id, membership; none for None."""
    if memberships is None:
        return pl.DataFrame(schema={"entity_key": pl.String, "segment_id": pl.Int32, "membership": pl.Float32})
    n, k = memberships.shape
    return pl.DataFrame(
        {
            "entity_key": entity_keys.gather(np.repeat(np.arange(n), k)),
            "segment_id": np.tile(np.array(fitted.segment_ids, dtype=np.int32), n),
            "membership": memberships.ravel(),
        }
    )
