"""Plain text: the lines of one file, or files one by one, as rows of a table."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.paths import Location, legible
from erasmo_dagster.store.sql import faults, quote, read_parquet
from erasmo_dagster.store.staging import Staged

TEXT_COLUMN = "text"
_LINES = pa.schema([("line", pa.int64()), (TEXT_COLUMN, pa.string())])
_FILES = pa.schema([("file", pa.string()), (TEXT_COLUMN, pa.string())])
_ROWS, _BYTES = 10_000, 64 * 2**20  # written at once
_LARGEST = 2**30  # bytes of a cell: Arrow's and DuckDB's own limits are not far above

Row = tuple[int | str, str | None]


def text_key(location: Location) -> str:
    """The column that names a row: ``line`` of a file, ``file`` of several."""
    return "file" if location.names else "line"


def stage_text(location: Location, folder: Path) -> Staged:
    """Copy plain text into ``folder``: columns ``line`` (from 1) and ``text``, a row for each line of a file that is
    not blank; or, for several files, ``file`` (its path below the pattern's folder) and ``text``, a row a file, null
    where a file is blank.

    Line ends are taken as they come (CRLF too), a byte order mark is taken off. Raises ErasmoError for bytes that are
    not UTF-8, with the file and line, and for a file that cannot be read to its end.
    """
    written = folder / "rows.parquet"
    schema = _FILES if location.names else _LINES

    def unreadable(_: Exception) -> ErasmoError:
        return ErasmoError(f"Got {location.shown}, which cannot be read to its end", expected="whole files")

    with faults(unreadable), pq.ParquetWriter(written, schema, compression="lz4") as out:
        for keys, texts in _chunks(_file_rows(location) if location.names else _line_rows(location)):
            out.write_table(pa.table([keys, texts], schema=schema))
    return Staged((written,), read_parquet([written]), {name: quote(name) for name in schema.names})


def _line_rows(location: Location) -> Iterator[Row]:
    with _gzip_faults(location.shown), location.open() as lines:
        for number, line in enumerate(lines, start=1):
            text = _decoded(line, f"line {number} of {location.shown}", first=number == 1).strip()
            if text:
                yield number, text


def _file_rows(location: Location) -> Iterator[Row]:
    for name, file in zip(location.names, location.files, strict=True):
        shown = f"file {legible(name)} of {location.shown}"
        with _gzip_faults(shown), replace(location, files=(file,)).open() as stream:
            content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ErasmoError(f"Got {shown} of more than {_LARGEST // 2**20} MiB", expected="smaller ones")
        text = _decoded(content, shown, first=True)
        yield name, text.replace("\r\n", "\n").replace("\r", "\n").strip() or None


@contextmanager
def _gzip_faults(shown: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ErasmoError(f"Got {shown}, which is not a whole gzip file", expected="one", fix="write it anew") from None


def _decoded(content: bytes, shown: str, *, first: bool) -> str:
    try:
        return content.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ErasmoError(
            f"Got bytes that are not UTF-8 in {f'line {line} of ' if line > 1 else ''}{shown}",
            expected="UTF-8 text",
            fix="save the file as UTF-8 (from Latin-1: `iconv -f LATIN1 -t UTF-8 old > new`)",
        ) from None


def _chunks(rows: Iterator[Row]) -> Iterator[tuple[list[int | str], list[str | None]]]:
    """Keys and texts of the rows, some thousand at a time, fewer where they are long."""
    while first := list(islice(rows, 1)):
        chunk, size = first, len(first[0][1] or "")
        while len(chunk) < _ROWS and size < _BYTES and (more := list(islice(rows, 1))):
            chunk += more
            size += len(more[0][1] or "")
        yield [key for key, _ in chunk], [text for _, text in chunk]
