"""What every printed page is made of: the published file, opened to read, and rows as a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
from rich.markup import escape
from rich.table import Table

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def open_published(project: Project) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published file, read-only, with no way out of it: no other file, no network, no extension."""
    if not project.published.is_file():
        raise ErasmoError(
            f"Got no published file {project.published}", expected="a dataset to have run", fix="erasmo run NAME"
        )
    con = duckdb.connect(
        project.published,
        read_only=True,
        config={"enable_external_access": "false", "lock_configuration": "true", "allow_community_extensions": "false"},
    )
    try:
        yield con
    finally:
        con.close()


def print_table(out: Console, names: list[str], rows: list[tuple[Any, ...]]) -> None:
    """Rows under their names; None is empty."""
    table = Table(*(escape(legible(name)) for name in names), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if value is None else escape(legible(number(value))) for value in row))
    out.print(table)


def legible(text: str) -> str:
    """A text that does nothing to a terminal: characters that cannot be printed as their escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def number(value: Any) -> str:
    """A figure with four significant digits; anything else as it is, None as nothing."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
