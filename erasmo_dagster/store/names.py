"""What segments are called: an id and a name that mean the same from version to version, and are never used again."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from erasmo_dagster.store.warehouse import one_row


def next_segment_id(con: duckdb.DuckDBPyConnection, dataset: str) -> int:
    """The lowest id above all that were ever published."""
    (last,) = one_row(
        con.execute("SELECT coalesce(max(segment_id), -1) FROM segment_names WHERE dataset = ?", [dataset])
    )
    return int(last) + 1


def segment_names(con: duckdb.DuckDBPyConnection, dataset: str, segment_ids: Iterable[int]) -> dict[int, str]:
    """Id -> name of segments: the one they were published with, else ``segment <id>``."""
    rows = con.execute("SELECT segment_id, segment_name FROM segment_names WHERE dataset = ?", [dataset]).fetchall()
    known = dict(rows)
    return {segment_id: known.get(segment_id, f"segment {segment_id}") for segment_id in segment_ids}


def register_segments(con: duckdb.DuckDBPyConnection, dataset: str, version: int, segments_version: int) -> None:
    """Write down the ids and names that ``version`` is published with, those that are new."""
    con.execute(
        "INSERT OR IGNORE INTO segment_names"
        " SELECT DISTINCT ON (segment_id) dataset, segment_id, segment_name, ?::INTEGER FROM segments"
        " WHERE dataset = ? AND version = ? AND segment_id >= 0",
        [version, dataset, segments_version],
    )
