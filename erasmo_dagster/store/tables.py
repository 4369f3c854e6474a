"""Open a source: its one table, or a user's query over its tables, on a connection that reaches nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, SourceSettings
from erasmo_dagster.store.paths import listed
from erasmo_dagster.store.readers import stage
from erasmo_dagster.store.sql import ONE_SELECT, confine, connect, describe, faults, first_line, quote, statement_kinds
from erasmo_dagster.store.staging import Part, Staged, check_names
from erasmo_dagster.store.types import TextRules, kept


@dataclass(frozen=True)
class Table:
    """A source, opened: ``select`` on ``con`` gives its rows, ``columns`` their names and DuckDB types.

    ``parts``, where there are any, give the same rows; those that were told to be known need not be in ``select``.
    """

    con: duckdb.DuckDBPyConnection
    select: str
    columns: dict[str, str]
    shown: str
    parts: tuple[Part, ...] = ()


@contextmanager
def open_source(
    source: SourceSettings, project: Project, folder: Path, rules: TextRules, known: Collection[str] = ()
) -> Iterator[Table]:
    """Read every table of a source once, into ``folder``, and open what it gives.

    ``known`` are identities of parts that need not be read, but for a query.

    Raises ErasmoError for a table that cannot be read, and for a query that is not one SELECT over the tables.
    """
    staged = {}
    for number, (name, table) in enumerate(source.by_name().items()):
        own = folder / f"table_{number}"
        own.mkdir()
        staged[name] = stage(table, project, own, rules, known if source.query is None else ())
    con = connect(folder)
    try:
        confine(con, [file for table in staged.values() for file in table.files], folder)
        if source.query is None:
            only = staged["source"]
            select, shown, parts = only.select, only.shown or str(source.path), only.parts
        else:
            select, shown, parts = _over_tables(con, source.query, staged), "the query", ()
        yield Table(con, select, dict(describe(con, select)), shown, parts)
    finally:
        con.close()


def _over_tables(con: duckdb.DuckDBPyConnection, query: str, tables: Mapping[str, Staged]) -> str:
    for name, table in tables.items():
        con.execute(f"CREATE VIEW {quote(name)} AS {table.select}")
    fix = "mend source.query"
    try:
        kinds = statement_kinds(con, query)
    except duckdb.Error as error:
        raise ErasmoError(
            f"Got a query that does not parse ({first_line(error)})", expected="one SELECT", fix=fix
        ) from None
    if kinds != ONE_SELECT:
        told = listed(kinds) or "no statement"
        raise ErasmoError(f"Got a query of {told}", expected="one SELECT that only reads", fix=fix)

    def wrong(error: Exception) -> ErasmoError:
        what = "reaches outside its tables" if isinstance(error, duckdb.PermissionException) else "does not run"
        return ErasmoError(
            f"Got a query that {what} ({first_line(error)})", expected=f"one SELECT over: {listed(tables)}", fix=fix
        )

    with faults(wrong):
        columns = describe(con, query)  # of the query itself: in a view, DuckDB renames repeated columns
        check_names([name for name, _ in columns], "the result of the query")
        # A schema of its own, in which the query's names are not looked up.
        con.execute(f"CREATE SCHEMA query; CREATE VIEW query.result AS {query}")
    return Staged((), "query.result", {name: kept(name, kind) for name, kind in columns}).select
