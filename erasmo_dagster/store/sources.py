"""Read a dataset's source into a snapshot, Parquet that the whole run reads, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from pydantic import BaseModel, ConfigDict, Field

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import remove_stale
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.settings.environment import is_variable
from erasmo_dagster.store.artifacts import snapshots
from erasmo_dagster.store.parts import (
    Earlier,
    Written,
    earlier_parts,
    hashed,
    place,
    snapshot_columns,
    snapshot_files,
    way_of_making,
    write_parts,
)
from erasmo_dagster.store.paths import did_you_mean, listed
from erasmo_dagster.store.sql import confine, connect, copy_to_parquet, faults, quote, read_parquet
from erasmo_dagster.store.staging import ENTITY_KEY
from erasmo_dagster.store.tables import Table, open_source
from erasmo_dagster.store.types import TextRules

__all__ = [
    "ENTITY_KEY",
    "Fingerprint",
    "Reading",
    "Snapshot",
    "fingerprint_of",
    "is_unchanged",
    "open_reading",
    "schema_changes",
    "snapshot_source",
]

_SCHEME = 1


class Fingerprint(BaseModel):
    """What a snapshot holds, whatever the order of its rows and columns.

    ``hash`` is the sum of DuckDB's hash of every row, as decimal text: a sum, since equal rows cancel in a xor.
    DuckDB promises its hash for one release alone, so fingerprints compare only where ``duckdb`` is equal.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, serialize_by_alias=True)

    scheme: int
    duckdb: str
    schema_: dict[str, str] = Field(alias="schema", description="Column -> DuckDB type.")
    rows: int
    hash: str

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this fingerprint."""
        content = json.dumps(self.model_dump(by_alias=True), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def is_current(self) -> bool:
        """Whether this release and this DuckDB would hash the same rows to the same figure."""
        return self.scheme == _SCHEME and self.duckdb == duckdb.__version__

    def same_scheme(self, other: Fingerprint) -> bool:
        """Whether both were computed alike, so that they can be compared."""
        return (self.scheme, self.duckdb) == (other.scheme, other.duckdb)

    def same_content(self, other: Fingerprint) -> bool:
        """Whether both are of the same columns and rows. Raises ValueError unless ``same_scheme``."""
        if not self.same_scheme(other):
            raise ValueError(
                f"fingerprints of scheme {self.scheme} by DuckDB {self.duckdb} and of scheme {other.scheme} by DuckDB "
                f"{other.duckdb} do not compare"
            )
        return (self.schema_, self.rows, self.hash) == (other.schema_, other.rows, other.hash)


@dataclass(frozen=True)
class Snapshot:
    """A source as it was at one moment: ``__entity_key`` (VARCHAR), then its own columns.

    ``columns`` maps the source's columns to their DuckDB types; ``rows_read`` are those that were not taken over.
    """

    path: Path
    rows: int
    columns: dict[str, str]
    fingerprint: Fingerprint
    rows_read: int


def snapshot_source(
    name: str, settings: DatasetSettings, project: Project, out: Path, *, in_parts: bool = False
) -> Snapshot:
    """Read the source of dataset ``name`` once and write it to ``out`` with its key, all or nothing.

    The key is the column's text, or a JSON array of texts where there are several. Rows keep the source's order.
    With ``in_parts``, ``out`` is a folder where the source has parts, and those which are as the dataset's last
    snapshot has them are taken over from there.

    Raises ErasmoError in one line, free of cell values but for keys that are not sensitive, for a source that cannot be
    read or does not fit the settings; ``out`` is then as it was.
    """
    with open_reading(name, settings, project, out.parent, in_parts=in_parts) as reading:
        fingerprint, written = reading.write()
        place(reading.written, out, written.trusted, reading.made_as)
    return Snapshot(out, fingerprint.rows, fingerprint.schema_, fingerprint, written.rows_read)


@dataclass(frozen=True)
class Reading:
    """A dataset's source, opened. ``written`` is where ``write`` puts its rows; it is gone when the reading ends.

    ``earlier`` are the parts that may be taken over, None to write one file. ``made_as`` names what they depend on.
    """

    table: Table
    settings: DatasetSettings
    written: Path
    where: str
    made_as: str
    earlier: Earlier | None
    take: bool

    def write(self) -> tuple[Fingerprint, Written]:
        """Write the rows with their key and hash them. Raises ErasmoError where they do not fit the settings."""
        con = self.table.con
        if self.earlier is None or not self.table.parts:
            rows = write_rows(self.table, self.settings, self.written, self.where)
            held = hashed(con, [self.written])
            written = Written((self.written,), rows, held.hash, rows, {})
        else:
            key = _entity_key(self.settings.key)
            parts = self.table.parts
            written = write_parts(con, parts, key, self.written, self.earlier, self.made_as, take=self.take)
            _check_rows(self.table, self.settings, written.files, self.where)
        return _fingerprint(con, written), written


@contextmanager
def open_reading(
    name: str,
    settings: DatasetSettings,
    project: Project,
    parent: Path,
    *,
    in_parts: bool = False,
    take: bool = True,
) -> Iterator[Reading]:
    """Open the source of dataset ``name`` as ``snapshot_source`` does, in a folder of ``parent`` that is gone
    afterwards. Without ``take``, every part is read. Raises ErasmoError, for what fails in the block too."""
    where = f"datasets/{name}.yaml"
    with read_faults(settings, where), workplace(parent) as folder:
        made_as = way_of_making(_SCHEME, settings.key)
        earlier = earlier_parts(snapshots(project, name), made_as, folder / "earlier") if in_parts else None
        known = earlier.files if earlier is not None and take else ()
        with open_source(settings.source, project, folder, _text_rules(settings), known) as table:
            _check_bytes(settings, table, where)
            _check_columns(table, settings, where)
            yield Reading(table, settings, folder / "snapshot.parquet", where, made_as, earlier, take)


def fingerprint_of(snapshot: Path) -> Fingerprint:
    """Today's fingerprint of a stored snapshot. Raises ErasmoError for a file that cannot be read."""

    def unreadable(_: Exception) -> ErasmoError:
        return ErasmoError(f"Got {snapshot}, which cannot be read", expected="the snapshot that a run wrote")

    with faults(unreadable), connect(snapshot.parent) as con:
        files = snapshot_files(snapshot)
        confine(con, files, snapshot.parent)
        held = hashed(con, files)
        return _fingerprint(con, Written(tuple(files), held.rows, held.hash, 0, {}))


def is_unchanged(present: Fingerprint, stored: Fingerprint, snapshot: Path) -> bool:
    """Whether ``present``, computed today, is of the same rows as ``stored``, the fingerprint of ``snapshot``.

    One that an earlier release or another DuckDB has stored is computed anew from the file; where that is gone, the
    answer is False. Raises ErasmoError where the file is needed and cannot be read, ValueError where ``present`` is
    not of today.
    """
    if not present.same_scheme(stored):
        if not snapshot.exists():
            return False
        stored = fingerprint_of(snapshot)
    return present.same_content(stored)


def schema_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """One sentence for each column added, dropped or retyped, sorted. Both map columns to DuckDB types."""
    added = [f"column added: {name} ({after[name]})" for name in after.keys() - before.keys()]
    dropped = [f"column dropped: {name} ({before[name]})" for name in before.keys() - after.keys()]
    retyped = [
        f"column retyped: {name} ({before[name]} to {after[name]})"
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    ]
    return sorted(added + dropped + retyped)


def write_rows(table: Table, settings: DatasetSettings, out: Path, where: str) -> int:
    """Write a source's rows with their key, and check both; the number of rows. ``where`` is what to mend.

    Raises ErasmoError for a column that the settings name and the source lacks, for fewer than two rows, and for a key
    with missing or repeated values.
    """
    _check_columns(table, settings, where)
    key = f"{_entity_key(settings.key)} AS {quote(ENTITY_KEY)}"
    copy_to_parquet(table.con, f"SELECT {key}, * FROM ({table.select})", out)
    return _check_rows(table, settings, [out], where)


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """A folder in ``parent`` that is gone afterwards, on the disk where its files are to end."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_stale(parent.glob(".reading-*"))
    with tempfile.TemporaryDirectory(prefix=".reading-", dir=parent) as folder:
        yield Path(folder).resolve()


def read_faults(settings: DatasetSettings, where: str) -> AbstractContextManager[None]:
    """Turn what reading a source raises in the block into an ErasmoError. ``where`` is what to mend."""
    return faults(lambda error: _fault(error, settings, where))


def _fault(error: Exception, settings: DatasetSettings, where: str) -> ErasmoError:
    if isinstance(error, OSError):
        return ErasmoError(
            f"Got {error.strerror!r} from the disk for {error.filename}",
            expected="files to read, and a folder to write in",
        )
    kind = type(error).__name__
    if settings.source.query is not None:
        return ErasmoError(
            f"Got a query that fails on a row ({kind})",
            expected="one that holds for every row",
            fix=f"mend source.query in {where} (try_cast gives null where cast fails)",
        )
    what = "rows of types that it can read" if is_variable(settings.source.path or "") else "a whole file"
    return ErasmoError(f"Got {settings.source.path}, which cannot be read to its end ({kind})", expected=what)


def _text_rules(settings: DatasetSettings) -> TextRules:
    kinds = {name: column.kind for name, column in settings.columns.items()}
    return TextRules(
        as_text=settings.excluded | {name for name, kind in kinds.items() if kind in ("category", "text")},
        as_number=frozenset(name for name, kind in kinds.items() if kind == "number"),
        # A query may leave a column out, and has casts of its own.
        complain=settings.source.query is None,
    )


def _entity_key(columns: tuple[str, ...]) -> str:
    texts = [f"CAST({quote(name)} AS VARCHAR)" for name in columns]
    if len(texts) == 1:
        return texts[0]
    missing = " OR ".join(f"{quote(name)} IS NULL" for name in columns)
    return f"CASE WHEN {missing} THEN NULL ELSE CAST(to_json([{', '.join(texts)}]) AS VARCHAR) END"


def _check_columns(table: Table, settings: DatasetSettings, where: str) -> None:
    roles = {
        "key": settings.key,
        "label": (settings.label,) if settings.label else (),
        "drop": settings.drop,
        "sensitive": settings.sensitive,
        "columns": tuple(settings.columns),
    }
    named = {column for columns in roles.values() for column in columns}
    for role, columns in roles.items():
        if absent := [column for column in columns if column not in table.columns]:
            # Where no name fits, the header may be missing and a row of values have been taken for it.
            values = bool(settings.sensitive) and named.isdisjoint(table.columns)
            raise ErasmoError(
                f"Got `{role}` {listed(map(repr, absent))}, which {table.shown} does not have"
                + ("" if values else did_you_mean(absent[0], table.columns)),
                expected="its first line to name the columns" if values else f"one of: {listed(table.columns)}",
                fix=f"mend `{role}` in {where}",
            )


def _check_bytes(settings: DatasetSettings, table: Table, where: str) -> None:
    for column, kind in table.columns.items():
        if kind == "BLOB" and column not in {*settings.drop, *settings.key}:
            raise ErasmoError(
                f"Got column {column!r} of bytes (BLOB) in {table.shown}",
                expected="values that can be written as text",
                fix=f"put it under `drop` in {where}, or leave it out in source.query",
            )


def _check_rows(table: Table, settings: DatasetSettings, written: Sequence[Path], where: str) -> int:
    """The number of rows. Raises ErasmoError for fewer than two and for a key that does not name each row."""
    relation, key = read_parquet(written), quote(ENTITY_KEY)
    rows, keys = table.con.execute(f"SELECT count(*), count({key}) FROM {relation}").fetchone() or (0, 0)
    if rows < 2:
        raise ErasmoError(
            f"Got {'one row' if rows else 'no row'} in {table.shown}", expected="at least 2", fix="bring more rows"
        )
    _check_dates(table, relation)
    shown = listed(map(repr, settings.key))
    fix = f"mend the source, or `key` in {where}"
    if keys < rows:
        raise ErasmoError(
            f"Got {rows - keys} of {rows} rows of {table.shown} without a value in key {shown}",
            expected="a value in each",
            fix=fix,
        )
    repeated = f"SELECT {key} AS key FROM {relation} GROUP BY 1 HAVING count(*) > 1"
    (count,) = table.con.execute(f"SELECT count(*) FROM ({repeated})").fetchone() or (0,)
    if count:
        examples = ""
        if not set(settings.key) & set(settings.sensitive):
            some = table.con.execute(f"{repeated} ORDER BY 1 LIMIT 3").fetchall()
            examples = f" ({listed(repr(value) for (value,) in some)})"
        raise ErasmoError(
            f"Got {count} value{'s' * (count > 1)}{examples} of key {shown} in more than one row of {table.shown}",
            expected="each in one row",
            fix=fix,
        )
    return int(rows)


def _check_dates(table: Table, relation: str) -> None:
    """Refuse dates that only DuckDB has (infinity, year 12000): polars and Python fail on them."""
    for column, kind in table.columns.items():
        if kind.startswith(("DATE", "TIMESTAMP")):
            moment = f"TRY_CAST({quote(column)} AS TIMESTAMP)"
            inside = f"{moment} >= TIMESTAMP '0001-01-01' AND {moment} < TIMESTAMP '10000-01-01'"
            outside = f"{quote(column)} IS NOT NULL AND NOT coalesce({inside}, false)"
            (count,) = table.con.execute(f"SELECT count(*) FROM {relation} WHERE {outside}").fetchone() or (0,)
            if count:
                raise ErasmoError(
                    f"Got {count} dates in column {column!r} of {table.shown} that are infinite or beyond a calendar",
                    expected="years 1 to 9999",
                    fix="mend them, or null them in source.query",
                )


def _fingerprint(con: duckdb.DuckDBPyConnection, written: Written) -> Fingerprint:
    columns = snapshot_columns(con, written.files)
    fields = {"scheme": _SCHEME, "duckdb": duckdb.__version__, "schema": columns}
    return Fingerprint.model_validate({**fields, "rows": written.rows, "hash": written.hash})
