"""Summaries that were made before, by summarizer and text; a table of all datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import duckdb
import polars as pl

from erasmo_dagster.store.warehouse import now, registered


def text_hash(text: str) -> str:
    """The name of a text in the table: 32 hexadecimal digits, the same in every release and on every machine."""
    return blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def read_summaries(con: duckdb.DuckDBPyConnection, summarizer: str, texts: Iterable[str]) -> dict[str, str]:
    """Text -> summary, of those of ``texts`` that ``summarizer`` (its identity) has summarized before."""
    by_hash = {text_hash(text): text for text in texts}
    with registered(con, "wanted", pl.DataFrame({"text_hash": list(by_hash)}, schema={"text_hash": pl.String})):
        rows = con.execute(
            "SELECT text_hash, summary FROM summaries SEMI JOIN wanted USING (text_hash) WHERE summarizer = ?",
            [summarizer],
        ).fetchall()
    return {by_hash[hashed]: summary for hashed, summary in rows}


def write_summaries(con: duckdb.DuckDBPyConnection, summarizer: str, summaries: Mapping[str, str]) -> None:
    """Keep summaries by their texts; one that is there stays."""
    made = now(con)
    rows: Sequence[tuple[object, ...]] = [
        (summarizer, text_hash(text), summary, made) for text, summary in summaries.items()
    ]
    if rows:
        con.executemany("INSERT INTO summaries VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


def forget_summaries(con: duckdb.DuckDBPyConnection) -> int:
    """Delete the summaries that no version's corpus has; their number."""
    deleted = con.execute(
        "DELETE FROM summaries WHERE summary NOT IN"
        " (SELECT unnest(map_values(summaries)) FROM corpus WHERE summaries IS NOT NULL) RETURNING text_hash"
    ).fetchall()
    return len(deleted)
