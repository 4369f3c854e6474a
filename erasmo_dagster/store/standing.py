"""What later rows are compared with: the rows that a training put into segments, and those that followed."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl

from erasmo_dagster.store.sql import literal
from erasmo_dagster.store.vectors import read_embeddings
from erasmo_dagster.store.versions import FITTED_STATE, StageOutput, stage_output
from erasmo_dagster.store.warehouse import frame_of


def standing_rows(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """Rows of ``version``, then those of its training that it no longer has: a row that comes back is where it was.

    Columns entity_key, text_hash, segment_id, confidence, assigned_at and segments_version (that which holds them); one
    row an entity and text.
    """
    fitted = stage_output(con, dataset, version, FITTED_STATE)
    assert fitted is not None
    standing, trained = (_rows(con, dataset, v) for v in (version, fitted.version))
    return frame_of(
        con,
        f"WITH standing AS ({standing}), gone AS ({trained} ANTI JOIN standing USING (entity_key, text_hash))"
        " SELECT * EXCLUDE (part) FROM (SELECT *, 0 AS part FROM standing UNION ALL SELECT *, 1 FROM gone)"
        " ORDER BY part, entity_key",
    )


def _rows(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> str:
    """A SELECT of a version's segments beside the texts that they were drawn from."""
    held = [stage_output(con, dataset, version, stage) for stage in ("text_corpus", "segments")]
    corpus, segments = (int(output.version) for output in held if output is not None)
    own = f"dataset = {literal(dataset)} AND version ="
    return (
        f"SELECT entity_key, text_hash, segment_id, confidence, assigned_at, {segments}::INTEGER AS segments_version"
        f" FROM (SELECT entity_key, text_hash FROM corpus WHERE {own} {corpus})"
        f" JOIN (SELECT * FROM segments WHERE {own} {segments}) USING (entity_key)"
    )


def read_drawn_in(
    con: duckdb.DuckDBPyConnection, dataset: str, segments: StageOutput, embeddings: StageOutput
) -> tuple[pl.Series, np.ndarray]:
    """What ``segments`` were drawn in, by entity_key: keys, and points of the table or vectors float32[n, d]."""
    if width := segments.details.get("points"):
        return read_embeddings(con, dataset, segments.version, width, kind="points")
    return read_embeddings(con, dataset, embeddings.version, embeddings.details["width"])
