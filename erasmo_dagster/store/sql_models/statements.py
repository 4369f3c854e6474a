"""SQL looked at before it runs: one SELECT, and nothing that writes."""

from __future__ import annotations

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import ONE_SELECT, statement_kinds


def one_select(sql: str, file: str) -> str:
    """``sql`` without its closing semicolon. Raises ErasmoError where it is not exactly one SELECT."""
    try:
        # By the module's own connection, which holds nothing: to open one takes as long as to read ten models.
        kinds = statement_kinds(duckdb, sql)
    except duckdb.Error as error:
        raise ErasmoError(
            f"Got SQL in {file} that DuckDB cannot read ({told(error)})", expected="one SELECT", fix="mend it"
        ) from None
    if kinds != ONE_SELECT:
        raise ErasmoError(
            f"Got {' and '.join(kinds) or 'no statement'} in {file}",
            expected="one SELECT, which only reads",
            fix="keep the one SELECT, whose rows are the model; a pivot needs its values written out with IN",
        )
    return _without_semicolon(sql)


def told(error: Exception) -> str:
    """What DuckDB says in one line: its message without the excerpt of the SQL, and the line that it points at."""
    message, _, excerpt = str(error).partition("\n\nLINE ")
    _, _, line = excerpt.partition(": ")
    at = line.splitlines()[0].strip(" .") if line else ""
    message = " ".join(message.split()).rstrip(" .:")
    return f"{message}, at `{at}`" if at else message


def _without_semicolon(sql: str) -> str:
    if ";" not in sql:
        return sql.strip()
    text = sql.encode()
    for offset, _ in duckdb.tokenize(sql):
        if text[offset : offset + 1] == b";":  # of one statement, the first is the end
            return text[:offset].decode().rstrip()
    return sql.strip()
