"""Which columns of the tables a model reads each of its own columns comes from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Lineage = dict[str, list[tuple[str, str, str]]]
_NOT_FOUND = (
    Exception  # sqlglot raises its own errors, and KeyError, ValueError, RecursionError on SQL it does not know
)


def column_lineage(
    sql: str, columns: Sequence[str], tables: Mapping[str, Sequence[str]], models: frozenset[str]
) -> Lineage:
    """For each column of a SELECT its (kind, table, column) in the tables that it names, in order of name.

    ``tables`` has the columns of every table in the file, ``models`` the names of those that are models. A column
    that cannot be followed has an empty list. By sqlglot's ``lineage``, over the query with its names resolved.
    """
    try:
        with _silent():
            return _followed(sql, columns, tables, models)
    except _NOT_FOUND:
        return {column: [] for column in columns}


def _followed(sql: str, columns: Sequence[str], tables: Mapping[str, Sequence[str]], models: frozenset[str]) -> Lineage:
    from sqlglot import parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope
    from sqlglot.schema import MappingSchema

    # Types say nothing of where a column comes from, and sqlglot does not know all of DuckDB's.
    schema = MappingSchema(
        {"main": {table: dict.fromkeys(held, "VARCHAR") for table, held in tables.items()}}, dialect="duckdb"
    )
    query = qualify(
        parse_one(sql, dialect="duckdb"),
        dialect="duckdb",
        schema=schema,
        validate_qualify_columns=False,
        identify=False,
    )
    scope = build_scope(query)
    names = [select.alias_or_name for select in query.selects]
    if scope is None or len(names) != len(columns):
        return {column: [] for column in columns}
    options: dict[str, Any] = {"dialect": "duckdb", "scope": scope, "trim_selects": False, "copy": False}
    try:
        nodes = lineage(None, query, schema, **options)
    except _NOT_FOUND:
        nodes = {}
    found: Lineage = {}
    for column, name in zip(columns, names, strict=True):
        try:
            node = nodes[name] if name in nodes else lineage(name, query, schema, **options)
            found[column] = _origins(node, tables, models)
        except _NOT_FOUND:
            found[column] = []
    return found


def _origins(node: Any, tables: Mapping[str, Sequence[str]], models: frozenset[str]) -> list[tuple[str, str, str]]:
    """The leaves below a node that are columns of tables in the file."""
    from sqlglot import exp

    origins = set()
    for leaf in node.walk():
        table = leaf.expression
        if not isinstance(table, exp.Table) or table.db not in ("", "main") or table.name not in tables:
            continue
        name = exp.to_column(leaf.name, dialect="duckdb").name.casefold()
        for column in tables[table.name]:
            if column.casefold() == name:
                origins.add(("model" if table.name in models else "source", table.name, column))
    return sorted(origins)


@contextmanager
def _silent() -> Iterator[None]:
    """sqlglot logs what it does not know; here that is an empty list and no more."""
    logger = logging.getLogger("sqlglot")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
