"""Snapshots in parts: what is known of those of an earlier version, so that parts which did not change are taken over.

A snapshot in parts is a folder of Parquet files, one a part, with a record of them beside it. A file is named after the
identity of its part and how it was made, and the record tells of these: whatever is interrupted, none speaks of
the rows of another file.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
from pydantic import BaseModel, ConfigDict, ValidationError

from erasmo_dagster.files import link_or_copy, whole_file
from erasmo_dagster.store.sql import copy_to_parquet, describe, quote, read_parquet
from erasmo_dagster.store.staging import ENTITY_KEY, Part

_FILE = re.compile(r"\d+-(?P<identity>\w+)-(?P<made_as>\w+)\.parquet")


class PartRows(BaseModel):
    """What a part holds: its rows, and the sum of their hashes as decimal text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    hash: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    made_as: str
    parts: dict[str, PartRows]


@dataclass(frozen=True)
class Earlier:
    """Parts of an earlier snapshot by their identity, each as a file of our own; ``records`` are all there are."""

    files: dict[str, Path]
    known: dict[str, PartRows]
    records: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Written:
    """A snapshot's files in their order, what they hold, and how many rows were read from the source for them."""

    files: tuple[Path, ...]
    rows: int
    hash: str
    rows_read: int
    trusted: dict[str, PartRows]


def snapshot_files(snapshot: Path) -> list[Path]:
    """The Parquet files of a snapshot, in the order of its rows: itself, or where it is a folder those in it."""
    return sorted(snapshot.glob("*.parquet")) if snapshot.is_dir() else [snapshot]


def remove_snapshot(snapshot: Path) -> None:
    """Delete a snapshot and the record of its parts."""
    _record_of(snapshot).unlink(missing_ok=True)
    if snapshot.is_dir():
        shutil.rmtree(snapshot)
    else:
        snapshot.unlink(missing_ok=True)


def place(written: Path, out: Path, trusted: dict[str, PartRows], made_as: str) -> None:
    """Put a snapshot that is written whole where it belongs, in the place of what is there, and record its parts."""
    if trusted:
        with whole_file(_record_of(out)) as record:
            record.write_text(_Record(made_as=made_as, parts=trusted).model_dump_json())
    else:
        _record_of(out).unlink(missing_ok=True)
    if written.is_dir() or out.is_dir():
        old = written.with_name("replaced")
        with suppress(FileNotFoundError):
            out.rename(old)
        written.rename(out)
    else:
        written.replace(out)


def earlier_parts(snapshots: Iterable[Path], made_as: str, folder: Path) -> Earlier:
    """The parts of the first of these snapshots that has some, linked into ``folder``, where nobody removes them.

    ``made_as`` names the settings and the release: parts made otherwise are left where they are.
    """
    snapshots = list(snapshots)
    records = tuple(map(_record_of, snapshots))
    for snapshot, path in zip(snapshots, records, strict=True):
        try:
            record = _Record.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            continue
        # A run that was killed between the two leaves a record without its snapshot, or beside one in a single file.
        if record.made_as != made_as or not snapshot.is_dir():
            continue
        folder.mkdir()
        return Earlier(dict(_own(snapshot, record, folder)), record.parts, records)
    return Earlier({}, {})


def write_parts(
    con: duckdb.DuckDBPyConnection,
    parts: Iterable[Part],
    key: str,
    out: Path,
    earlier: Earlier,
    made_as: str,
    *,
    take: bool,
) -> Written:
    """Write a snapshot in parts into the folder ``out``; ``key`` is the SQL expression of a row's key.

    With ``take``, parts that are as they were are not read again. Without, all are, and where one that should be as it
    was is not, the disk or server that said so is not to be believed: all records are removed, so that a run reads all.
    """
    out.mkdir()
    files, held, trusted, rows_read = [], [], {}, 0
    for number, part in enumerate(parts):
        file = out / f"{number:05d}-{part.identity}-{made_as}.parquet"
        known = earlier.known.get(part.identity)
        if take and known is not None and part.identity in earlier.files:
            earlier.files[part.identity].rename(file)
            found = trusted[part.identity] = known
        else:
            copy_to_parquet(con, f"SELECT {key} AS {quote(ENTITY_KEY)}, * FROM ({part.select})", file)
            found = hashed(con, [file])
            rows_read += found.rows
            if known is not None and known != found:
                for record in earlier.records:
                    record.unlink(missing_ok=True)
            if part.trusted():
                trusted[part.identity] = found
        files.append(file)
        held.append(found)
    total = sum(int(one.hash) for one in held)
    return Written(tuple(files), sum(one.rows for one in held), str(total), rows_read, trusted)


def hashed(con: duckdb.DuckDBPyConnection, files: Iterable[Path]) -> PartRows:
    """Number of rows in Parquet files of a snapshot, and the sum of their hashes, whatever the order of columns."""
    relation = read_parquet(files)
    ordered = ", ".join(quote(name) for name in sorted(snapshot_columns(con, files)))
    aggregate = f"SELECT count(*), CAST(coalesce(sum(hash({ordered})), 0) AS VARCHAR) FROM {relation}"
    rows, total = con.execute(aggregate).fetchone() or (0, "0")
    return PartRows(rows=rows, hash=total)


def snapshot_columns(con: duckdb.DuckDBPyConnection, files: Iterable[Path]) -> dict[str, str]:
    """The source's columns in Parquet files of a snapshot: name -> DuckDB type."""
    return {name: kind for name, kind in describe(con, f"FROM {read_parquet(files)}") if name != ENTITY_KEY}


def way_of_making(*content: object) -> str:
    """A name for the settings, and the release of DuckDB, that the files of a snapshot depend on."""
    return hashlib.sha256(json.dumps([*content, duckdb.__version__]).encode()).hexdigest()[:16]


def _record_of(snapshot: Path) -> Path:
    return snapshot.with_suffix(".parts.json")


def _own(snapshot: Path, record: _Record, folder: Path) -> Iterator[tuple[str, Path]]:
    """Identities of a snapshot's parts that the record tells of, and their files in ``folder``."""
    with suppress(FileNotFoundError):  # a publish is just removing the snapshot
        for file in snapshot.iterdir():
            found, own = _FILE.fullmatch(file.name), folder / file.name
            known = found and found["made_as"] == record.made_as and found["identity"] in record.parts
            if found and known and link_or_copy(file, own):
                yield found["identity"], own
