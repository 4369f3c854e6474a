"""What later rows are compared with: the rows that a training put into segments, and those that followed."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.store.corpus import Corpus
from erasmo_dagster.store.sql import literal
from erasmo_dagster.store.vectors import read_embeddings
from erasmo_dagster.store.versions import FITTED_STATE, StageOutput, stage_output
from erasmo_dagster.store.warehouse import frame_of


@dataclass(frozen=True, eq=False)
class Matched:
    """What stands of the n rows of a corpus, by entity_key.

    ``segment_ids`` int32[n] and ``confidence`` float32[n] are those of the row with the same key and text, else those
    of one that reads alike; of the rows that are ``new`` bool[n], which nothing stands like, they are 0.
    ``assigned_at`` is null but for the same key and text. ``since`` bool[n] are the rows that the training had not, or
    not with that text. ``changed`` has entity_key, text_hash, new and since of the rows that are one of both.
    ``memberships`` are those of the rows that keep a segment: entity_key, segment_id, membership.
    """

    segment_ids: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    assigned_at: pl.Series
    new: npt.NDArray[np.bool_]
    since: npt.NDArray[np.bool_]
    changed: pl.DataFrame
    memberships: pl.DataFrame


def match_rows(con: duckdb.DuckDBPyConnection, dataset: str, version: int, corpus: Corpus) -> Matched:
    """The rows of ``corpus`` beside those of ``version``, and those of its training that it no longer has.

    A row that comes back is where it was. Among twins of one text the lowest segment counts, then the first key. No key
    and no text of a row that is as it was passes through Python: DuckDB matches them, on the disk where it must.
    """
    fitted = stage_output(con, dataset, version, FITTED_STATE)
    assert fitted is not None
    standing, trained = (_rows(con, dataset, v) for v in (version, fitted.version))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE stood AS WITH standing AS ({standing}), trained AS ({trained})"
        " SELECT * FROM standing UNION ALL SELECT * FROM trained ANTI JOIN standing USING (entity_key, text_hash)"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE matched AS WITH same AS ("
        " SELECT r.entity_key, r.text_hash, s.segment_id, s.confidence, s.assigned_at, s.entity_key AS like_key,"
        f" s.segments_version FROM {corpus.relation} r LEFT JOIN stood s USING (entity_key, text_hash)),"
        " others AS (SELECT text_hash FROM same WHERE segment_id IS NULL),"
        " twins AS (SELECT text_hash, arg_min(struct_pack(segment_id := segment_id, confidence := confidence,"
        " entity_key := entity_key, segments_version := segments_version),"
        " struct_pack(segment_id := segment_id, entity_key := entity_key)) AS twin"
        " FROM stood SEMI JOIN others USING (text_hash) GROUP BY text_hash),"
        f" since AS (SELECT entity_key FROM {corpus.relation} ANTI JOIN ({trained}) USING (entity_key, text_hash))"
        " SELECT same.entity_key, same.text_hash, coalesce(segment_id, twin.segment_id) AS segment_id,"
        " coalesce(confidence, twin.confidence) AS confidence, assigned_at,"
        " coalesce(like_key, twin.entity_key) AS like_key,"
        " coalesce(segments_version, twin.segments_version) AS segments_version,"
        " since.entity_key IS NOT NULL AS since"
        " FROM same LEFT JOIN twins ON segment_id IS NULL AND same.text_hash = twins.text_hash"
        " LEFT JOIN since ON same.entity_key = since.entity_key"
    )
    rows = frame_of(
        con,
        "SELECT coalesce(segment_id, 0)::INTEGER AS segment_id, coalesce(confidence, 0)::FLOAT AS confidence,"
        " assigned_at, segment_id IS NULL AS new, since FROM matched ORDER BY entity_key",
    )
    found = Matched(
        rows["segment_id"].to_numpy(),
        rows["confidence"].to_numpy(),
        rows["assigned_at"],
        rows["new"].to_numpy(),
        rows["since"].to_numpy(),
        frame_of(
            con,
            "SELECT entity_key, text_hash, segment_id IS NULL AS new, since FROM matched"
            " WHERE segment_id IS NULL OR since ORDER BY entity_key",
        ),
        frame_of(
            con,
            "SELECT m.entity_key, h.segment_id, h.membership FROM matched m JOIN segment_memberships h"
            " ON h.entity_key = m.like_key AND h.version = m.segments_version WHERE h.dataset = ?"
            " ORDER BY m.entity_key, h.segment_id",
            [dataset],
        ),
    )
    con.execute("DROP TABLE matched; DROP TABLE stood")
    return found


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
