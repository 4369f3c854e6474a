"""Who was in which segment when: kept at every publish, and longer than the versions themselves.

``segment_history`` has one row for every uninterrupted stay of an entity in a segment; the open ones (``valid_to`` is
null) are the published segments. ``segment_transitions`` counts for every publish how many rows went from where to
where; a null ``from`` is a row that is new, a null ``to`` one that went.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb

_COLUMNS = "dataset, entity_key, segment_id, from_version, valid_from, to_version, valid_to"


@contextmanager
def prepared_history(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    version: int,
    segments_version: int | None,
    publish_id: int,
    moment: datetime,
) -> Iterator[None]:
    """Inside, ``next_history`` and ``next_transitions`` are what the tables will be once ``version`` is published.

    ``segments_version`` is the one whose rows are published; None where the dataset is hidden. Nothing is changed
    before :func:`commit_history`.
    """
    try:
        con.execute(
            "CREATE TEMP TABLE next_rows AS SELECT entity_key, segment_id FROM segments"
            " WHERE dataset = ? AND version = ?",
            [dataset, -1 if segments_version is None else segments_version],
        )
        con.execute(
            "CREATE TEMP TABLE open_stays AS SELECT entity_key, segment_id, from_version"
            " FROM segment_history WHERE dataset = ? AND valid_to IS NULL",
            [dataset],
        )
        con.execute(
            "CREATE TEMP TABLE ended AS SELECT ? AS dataset, entity_key, segment_id, ?::INTEGER AS to_version,"
            " ?::TIMESTAMP AS valid_to FROM open_stays"
            " ANTI JOIN next_rows USING (entity_key, segment_id)",
            [dataset, version, moment],
        )
        con.execute(
            "CREATE TEMP TABLE begun AS SELECT ? AS dataset, entity_key, segment_id,"
            " ?::INTEGER AS from_version, ?::TIMESTAMP AS valid_from, NULL::INTEGER AS to_version,"
            " NULL::TIMESTAMP AS valid_to FROM next_rows"
            " ANTI JOIN open_stays USING (entity_key, segment_id)",
            [dataset, version, moment],
        )
        con.execute(
            "CREATE TEMP TABLE moved AS SELECT ?::INTEGER AS publish_id, ? AS dataset,"
            " (SELECT version FROM published_versions WHERE dataset = ? AND retired_at IS NULL) AS from_version,"
            " ?::INTEGER AS version, o.segment_id AS from_segment_id, n.segment_id AS to_segment_id, count(*) AS rows"
            " FROM open_stays o FULL JOIN next_rows n USING (entity_key) GROUP BY ALL",
            [publish_id, dataset, dataset, version],
        )
        con.execute(
            "CREATE TEMP VIEW next_history AS"
            " SELECT h.* REPLACE (coalesce(h.to_version, e.to_version) AS to_version,"
            " coalesce(h.valid_to, e.valid_to) AS valid_to) FROM main.segment_history h LEFT JOIN ended e"
            " ON h.dataset = e.dataset AND h.entity_key = e.entity_key AND h.segment_id = e.segment_id"
            " AND h.valid_to IS NULL"
            " UNION ALL BY NAME FROM begun"
        )
        con.execute("CREATE TEMP VIEW next_transitions AS FROM main.segment_transitions UNION ALL BY NAME FROM moved")
        yield
    finally:
        con.execute(
            "DROP VIEW IF EXISTS next_transitions; DROP VIEW IF EXISTS next_history; DROP TABLE IF EXISTS ended;"
            " DROP TABLE IF EXISTS moved; DROP TABLE IF EXISTS begun;"
            " DROP TABLE IF EXISTS open_stays; DROP TABLE IF EXISTS next_rows"
        )


@contextmanager
def unchanged_history(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Inside, ``next_history`` and ``next_transitions`` are the tables as they are."""
    try:
        con.execute("CREATE TEMP VIEW next_history AS FROM main.segment_history")
        con.execute("CREATE TEMP VIEW next_transitions AS FROM main.segment_transitions")
        yield
    finally:
        con.execute("DROP VIEW IF EXISTS next_transitions; DROP VIEW IF EXISTS next_history")


def commit_history(con: duckdb.DuckDBPyConnection) -> None:
    """Make the tables what was prepared; belongs in the transaction that moves the published version."""
    con.execute(
        "UPDATE segment_history h SET to_version = e.to_version, valid_to = e.valid_to FROM ended e"
        " WHERE h.dataset = e.dataset AND h.entity_key = e.entity_key AND h.segment_id = e.segment_id"
        " AND h.valid_to IS NULL"
    )
    con.execute(f"INSERT INTO segment_history ({_COLUMNS}) SELECT {_COLUMNS} FROM begun")
    con.execute("INSERT INTO segment_transitions BY NAME FROM moved")
