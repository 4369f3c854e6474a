"""SQL looked at before it runs: one SELECT, and nothing that writes."""

from __future__ import annotations

import re

import duckdb

from erasmo_dagster.errors import ErasmoError

# `WITH x AS (COPY …) SELECT` is a SELECT by its type, and would write. These words begin whatever DuckDB takes there;
# its JSON of the statement tells. A quote within a text is escaped in it, so that no text can look like a node.
_MAY_WRITE = re.compile(r"\b(insert|update|delete|copy|merge|truncate)\b", re.IGNORECASE)
_WRITES = re.compile(r'"type":"(\w+)_QUERY_NODE"')


def one_select(sql: str, file: str) -> str:
    """``sql`` without its closing semicolon. Raises ErasmoError where it is not exactly one SELECT."""
    try:
        # By the module's own connection, which holds nothing: to open one takes as long as to read ten models.
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise ErasmoError(
            f"Got SQL in {file} that DuckDB cannot read ({told(error)})", expected="one SELECT", fix="mend it"
        ) from None
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        raise ErasmoError(
            f"Got {' and '.join(kinds) or 'no statement'} in {file}",
            expected="one SELECT",
            fix="keep the one SELECT; a pivot needs its values written out with IN",
        )
    if _MAY_WRITE.search(sql) and (found := _WRITES.search(_as_json(sql))):
        raise ErasmoError(
            f"Got {found[1]} within the SELECT of {file}",
            expected="one SELECT, which only reads",
            fix="take it out: a model is what its SELECT returns",
        )
    return _without_semicolon(sql)


def told(error: Exception) -> str:
    """What DuckDB says in one line: its message without the excerpt of the SQL, and the line that it points at."""
    message, _, excerpt = str(error).partition("\n\nLINE ")
    _, _, line = excerpt.partition(": ")
    at = line.splitlines()[0].strip(" .") if line else ""
    message = " ".join(message.split()).rstrip(" .:")
    return f"{message}, at `{at}`" if at else message


def _as_json(sql: str) -> str:
    with duckdb.connect(":memory:", config={"enable_external_access": "false", "threads": 1}) as con:
        return str(con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])


def _without_semicolon(sql: str) -> str:
    if ";" not in sql:
        return sql.strip()
    text = sql.encode()
    for offset, _ in duckdb.tokenize(sql):
        if text[offset : offset + 1] == b";":  # of one statement, the first is the end
            return text[:offset].decode().rstrip()
    return sql.strip()
