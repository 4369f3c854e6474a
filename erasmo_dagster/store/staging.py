"""What every reader hands over: a table as Parquet files and the SQL that reads its columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.paths import did_you_mean, listed
from erasmo_dagster.store.sql import quote

ENTITY_KEY = "__entity_key"


@dataclass(frozen=True)
class Staged:
    """A table of a source, read once. ``relation`` goes after FROM; ``columns`` maps a name to its SQL expression."""

    files: tuple[Path, ...]
    relation: str
    columns: Mapping[str, str]

    @property
    def select(self) -> str:
        """The SELECT that gives the table's rows."""
        expressions = ", ".join(f"{sql} AS {quote(name)}" for name, sql in self.columns.items())
        return f"SELECT {expressions} FROM {self.relation}"


def check_names(names: Iterable[str], shown: str) -> None:
    """Refuse column names that a table in DuckDB cannot have side by side. Raises ErasmoError."""
    seen: dict[str, str] = {}
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise ErasmoError(
                f"Got no name for column {position} of {shown}",
                expected="a name for every column",
                fix="name it in the header (pandas: `to_csv(index=False)` or `index_label=…`)",
            )
        if name.casefold() == ENTITY_KEY:
            raise ErasmoError(
                f"Got a column named {name!r} in {shown}", expected="that name free for the row's key", fix="rename it"
            )
        if other := seen.get(name.casefold()):
            what = f"two columns named {name!r}" if other == name else f"columns {other!r} and {name!r}"
            raise ErasmoError(
                f"Got {what} in {shown}", expected="names that differ by more than case", fix="rename one of them"
            )
        seen[name.casefold()] = name


def pick_table(wanted: str | None, known: Iterable[str], shown: str) -> str:
    """The table to read of a database. Raises ErasmoError, naming those there are, where it is absent or not told."""
    known = sorted(known)
    if not known:
        raise ErasmoError(f"Got {shown} without any table", expected="at least one table or view")
    if wanted in known:
        return wanted
    if wanted is None and len(known) == 1:
        return known[0]
    got = f"Got no `table` for {shown}" if wanted is None else f"Got table {wanted!r}, which {shown} does not have"
    near = did_you_mean(wanted, known) if wanted is not None else ""
    raise ErasmoError(got, expected=f"one of: {listed(known)}{near}", fix="set `table` in the source")
