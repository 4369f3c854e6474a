"""The SQL and the names of dbt's generic tests.

As in dbt-core's ``include/global_project/macros/generic_test_sql`` and ``parser/generic_test_builders.py``, but for
the columns: whole rows are selected, so that a ``dataset`` column tells whose rows fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from erasmo_dagster.store.sql import quote
from erasmo_dagster.store.sql_models.properties import GenericTest
from erasmo_dagster.store.sql_models.render import Renderer, relation


@dataclass(frozen=True)
class GenericSql:
    """A generic test as SQL, and what it refers to beside the table that it tests."""

    name: str
    sql: str
    description: str
    refs: tuple[str, ...]
    sources: tuple[str, ...]
    quoted: bool  # of quoted names alone, so that it needs no look


def generic_sql(
    test: GenericTest, table: str, column: str, where: str | None, renderer: Renderer, file: str, *, source: str | None
) -> GenericSql:
    """The test of ``column`` (an SQL expression) of ``table``; ``source`` is the table's source, None for models."""
    tested = relation(table) if where is None else f"(select * from {relation(table)} where\n{where}\n) as tested"
    arguments = test.arguments
    refs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    match test.kind:
        case "not_null":
            sql = f"select * from {tested} where {column} is null"
            description = f"{_bare(column)} of {table} is never null"
        case "unique":
            sql = (
                f"select * from {tested} where {column} in (\n"
                f"    select {column} from {tested} where {column} is not null group by {column} having count(*) > 1\n)"
            )
            description = f"{_bare(column)} of {table} is unique"
        case "accepted_values":
            shown = [f"'{value}'" if arguments.quote else str(value) for value in arguments.values or ()]
            sql = f"select * from {tested} where {column} not in ({', '.join(shown)})"
            description = f"{_bare(column)} of {table} is one of {', '.join(map(str, arguments.values or ()))}"
        case "relationships":
            # dbt reads `to` as the inside of a Jinja expression.
            to = renderer.expression(str(arguments.to), file)
            refs, sources = to.refs, to.sources
            sql = (
                f"with parent as (select {arguments.field} as to_value from {to.text})\n"
                f"select * from {tested} where {column} is not null\n"
                f"    and {column} not in (select to_value from parent where to_value is not null)"
            )
            parent = ", ".join((*refs, *sources)) or str(arguments.to)
            description = f"every {_bare(column)} of {table} is a {arguments.field} of {parent}"
    quoted = where is None and column == quote(_bare(column)) and test.kind in ("not_null", "unique")
    name = test.name or generic_name(test, table, _bare(column), source)
    return GenericSql(name, sql, test.description or f"{description}.", refs, sources, quoted)


def generic_name(test: GenericTest, table: str, column: str, source: str | None) -> str:
    """The name that dbt makes: the test, the table, and the arguments in the order of their names."""
    given: dict[str, Any] = {key: getattr(test.arguments, key) for key in test.arguments.model_fields_set}
    given["column_name"] = column
    parts: list[str] = []
    for key in sorted(given):
        value = given[key]
        parts += [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
    words = "__".join(re.sub("[^0-9a-zA-Z_]+", "_", part) for part in parts)
    kind = test.kind if source is None else f"source_{test.kind}_{source}"
    return f"{kind}_{table}_{words}"


def _bare(column: str) -> str:
    """A quoted name as people write it; an expression as it is."""
    return column[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', column) else column
