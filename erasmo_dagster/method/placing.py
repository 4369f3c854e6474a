"""Rows into segments that stand: a refresh without retraining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.fitted import FittedClustering


@dataclass(frozen=True, eq=False)
class Placement:
    """Where n rows are: ``segment_ids`` int32[n], ``confidence`` float32[n].

    ``memberships`` (entity_key, segment_id, membership) are those of the rows that were placed now, none where the
    method has none.
    """

    segment_ids: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    memberships: pl.DataFrame


def place_rows(
    segment_ids: npt.NDArray[np.int32],
    confidence: npt.NDArray[np.float32],
    new: npt.NDArray[np.bool_],
    entity_keys: pl.Series,
    points: npt.NDArray[np.float32],
    fitted: FittedClustering,
) -> Placement:
    """Put the rows that are ``new`` bool[n] where ``fitted.model`` does; the others keep what they have.

    ``segment_ids`` int32[n] and ``confidence`` float32[n] are those that stand. Of the m new rows ``entity_keys`` are
    the keys and ``points`` float32[m, d] what they are placed by. Noise is -1.
    """
    memberships = None
    if new.any():
        segment_ids, confidence = segment_ids.copy(), confidence.copy()
        found = fitted.model.place(points)
        segment_ids[new] = fitted.ids(found.labels)
        confidence[new] = found.confidence
        memberships = found.memberships
    return Placement(segment_ids, confidence, membership_rows(entity_keys, memberships, fitted))


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
