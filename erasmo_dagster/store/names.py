"""What segments are called: an id and a name that mean the same from version to version, and are never used again."""

from __future__ import annotations

import duckdb

from erasmo_dagster.store.warehouse import one_row


def next_segment_id(con: duckdb.DuckDBPyConnection, dataset: str) -> int:
    """The lowest id above all that were ever published."""
    (last,) = one_row(
        con.execute("SELECT coalesce(max(segment_id), -1) FROM segment_names WHERE dataset = ?", [dataset])
    )
    return int(last) + 1


def published_names(con: duckdb.DuckDBPyConnection, dataset: str) -> dict[int, str]:
    """Id -> name of every segment that was ever published; those that were called by their number alone are left out.

    A segment is called so where nothing set it apart, and by releases before there were profiles.
    """
    rows = con.execute(
        "SELECT segment_id, segment_name FROM segment_names"
        " WHERE dataset = ? AND segment_name <> 'segment ' || segment_id ORDER BY segment_id",
        [dataset],
    ).fetchall()
    return dict(rows)


def register_segments(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, profile_version: int, *, forget: bool = False
) -> None:
    """Write down the ids and names that ``version`` is published with.

    ``forget`` takes all earlier names away, which may tell of a column that is private by now.
    """
    if forget:
        con.execute(
            "UPDATE segment_names SET segment_name = 'segment ' || segment_id WHERE dataset = ? AND segment_id >= 0",
            [dataset],
        )
    con.execute(
        "INSERT INTO segment_names SELECT dataset, segment_id, segment_name, ?::INTEGER FROM segment_descriptions"
        " WHERE dataset = ? AND version = ? ORDER BY segment_id"
        " ON CONFLICT DO UPDATE SET segment_name = CASE"
        " WHEN excluded.segment_name = 'segment ' || excluded.segment_id THEN segment_name"
        " ELSE excluded.segment_name END",
        [version, dataset, profile_version],
    )
