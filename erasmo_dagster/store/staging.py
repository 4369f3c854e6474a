"""What every reader hands over: a table as Parquet files and the SQL that reads its columns."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.paths import did_you_mean, listed
from erasmo_dagster.store.sql import quote

ENTITY_KEY = "__entity_key"
_MOST_PARTS = 256


@dataclass(frozen=True)
class Part:
    """Rows of a table that change apart from the others: those of a file, or of a partition.

    ``identity`` is another where the rows are others, or are read otherwise; ``select`` gives the rows, and the columns
    of the whole table. ``trusted`` says whether the identity still holds when the rows have been read, so that the
    part may be taken over by a later reading.
    """

    identity: str
    select: str
    trusted: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Staged:
    """A table of a source, read once. ``relation`` goes after FROM; ``columns`` maps a name to its SQL expression.

    ``parts``, where there are any, are all of its rows; those that the reader was told to be known may be missing from
    ``relation``. ``shown`` is the table's name in messages, where that is not its path.
    """

    files: tuple[Path, ...]
    relation: str
    columns: Mapping[str, str]
    parts: tuple[Part, ...] = ()
    shown: str | None = None

    @property
    def select(self) -> str:
        """The SELECT that gives the table's rows."""
        expressions = ", ".join(f"{sql} AS {quote(name)}" for name, sql in self.columns.items())
        return f"SELECT {expressions} FROM {self.relation}"


def in_groups(names: Iterable[str]) -> list[list[str]]:
    """Names of files or partitions, sorted; each alone, or where they are many, in groups that stay the same when
    others come and go."""
    names = sorted(names)
    if len(names) <= _MOST_PARTS:
        return [[name] for name in names]
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(zlib.crc32(name.encode()) % _MOST_PARTS, []).append(name)
    return [groups[number] for number in sorted(groups)]


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
