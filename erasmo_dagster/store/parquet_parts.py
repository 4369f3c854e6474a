"""The files of a Parquet source one by one, so that those which did not change need not be read again."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import duckdb

from erasmo_dagster.store.sql import describe, quote, read_parquet
from erasmo_dagster.store.staging import Part, Staged, in_groups
from erasmo_dagster.store.types import kept

_GRANULE = 2.0  # seconds: the coarsest file time in use, FAT's
_NESTED = re.compile(r"STRUCT|MAP|\[\d*\]$")


def parquet_parts(
    con: duckdb.DuckDBPyConnection, files: Sequence[Path], columns: Sequence[tuple[str, str]], hive: str
) -> tuple[Part, ...]:
    """A part for each file, or for a few where there are many; none for a single file.

    ``columns`` are those of all files together, with their DuckDB types. A part has them all, in their types, so that
    the parts' rows are those of the whole. None as well where files hold different nested types under one name.
    """
    parts: list[Part] = []
    for names in in_groups(map(str, files)) if len(files) > 1 else ():
        group = [Path(name) for name in names]
        relation = read_parquet(group, f"union_by_name = true, hive_partitioning = {hive}, hive_types_autocast = false")
        own = {name.casefold(): (name, kind) for name, kind in describe(con, f"FROM {relation}")}
        expressions = {name: _as_whole(own.get(name.casefold()), kind) for name, kind in columns}
        if None in expressions.values():
            return ()
        unified = f"SELECT {', '.join(f'{sql} AS {quote(name)}' for name, sql in expressions.items())} FROM {relation}"
        select = Staged((), f"({unified})", {name: kept(name, kind) for name, kind in columns}).select
        seen, at = _stats(group), time.time()
        identity = hashlib.sha256(json.dumps([seen, list(columns), hive]).encode()).hexdigest()[:24]
        parts.append(Part(identity, select, partial(_is_settled, group, seen, at)))
    return tuple(parts)


def _as_whole(own: tuple[str, str] | None, kind: str) -> str | None:
    """A file's column in the type that it has in all files together; None where a cast may lose some of it."""
    if own is None:
        return f"CAST(NULL AS {kind})"
    name, held = own
    if held == kind:
        return quote(name)
    return None if _NESTED.search(held) or _NESTED.search(kind) else f"CAST({quote(name)} AS {kind})"


def _stats(files: Sequence[Path]) -> list[tuple[str, int, int, int, int]]:
    """Path, bytes, times of the last change of content and of anything (ns), and inode. The latter two tell of a file
    that was replaced by another of its size and time."""
    stats = [(str(file), file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for name, stat in stats]


def _is_settled(files: Sequence[Path], seen: Sequence[tuple[str, int, int, int, int]], at: float) -> bool:
    """Whether the files are as they were seen, and so old then that a later write shows in their times."""
    return _stats(files) == seen and all(mtime < (at - _GRANULE) * 1e9 for _, _, mtime, _, _ in seen)
