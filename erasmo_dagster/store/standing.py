"""What later rows are compared with: the rows that a training put into segments, and those that followed."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl

from erasmo_dagster.store.versions import FITTED_STATE, StageOutput, stage_output
from erasmo_dagster.store.warehouse import read_embeddings, read_standing


def standing_rows(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """Rows of ``version``, then those of its training that it no longer has: a row that comes back is where it was.

    Columns entity_key, text_hash, segment_id, confidence, assigned_at and segments_version (that which holds them); one
    row an entity and text.
    """
    fitted = stage_output(con, dataset, version, FITTED_STATE)
    assert fitted is not None
    standing, trained = (_rows(con, dataset, v) for v in (version, fitted.version))
    return pl.concat([standing, trained.join(standing, on=["entity_key", "text_hash"], how="anti")])


def _rows(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    held = [stage_output(con, dataset, version, stage) for stage in ("text_corpus", "segments")]
    corpus, segments = (output.version for output in held if output is not None)
    return read_standing(con, dataset, corpus, segments).with_columns(segments_version=pl.lit(segments, pl.Int32))


def read_drawn_in(
    con: duckdb.DuckDBPyConnection, dataset: str, segments: StageOutput, embeddings: StageOutput
) -> tuple[pl.Series, np.ndarray]:
    """What ``segments`` were drawn in, by entity_key: keys, and points of the table or vectors float32[n, d]."""
    if width := segments.details.get("points"):
        return read_embeddings(con, dataset, segments.version, width, kind="points")
    return read_embeddings(con, dataset, embeddings.version, embeddings.details["width"])
