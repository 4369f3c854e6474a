"""CSV and TSV files.

The header is required and the quoting is RFC 4180's; only the delimiter is detected, from the header. So a broken
line is an error with its number, where detecting the whole dialect would find one in which the line is fine.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import TableSettings
from erasmo_dagster.store.paths import Location
from erasmo_dagster.store.sql import confine, connect, copy_to_parquet, faults, literal, read_parquet
from erasmo_dagster.store.staging import Staged, check_names
from erasmo_dagster.store.types import TextRules, check_kinds, kinds_of, type_of, typed

_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_LINE = 32 * 2**20
_HEADER = 2**18  # bytes in which a header ends


def stage_delimited(location: Location, table: TableSettings, folder: Path, rules: TextRules) -> Staged:
    """Copy a CSV or TSV file into ``folder``, and type its columns by all of their values.

    Raises ErasmoError for a header with an empty or repeated name, a line with too many or too few cells, bytes that
    are not UTF-8, a broken gzip file, and a column that ``rules`` refuse.
    """
    delimiter = table.delimiter or ("\t" if location.format == "tsv" else _detect_delimiter(location))
    header = _header(location, delimiter)
    check_names(header, location.shown)
    cells = folder / "cells.parquet"
    with connect(folder) as con, faults(lambda error: _fault(error, location)):
        confine(con, [location.file], folder)
        source = f"read_csv({literal(escape(str(location.file)))}, {_options(location, table, delimiter, header)})"
        copy_to_parquet(con, f"SELECT * FROM {source}", cells, compression="lz4")
        relation = read_parquet([cells])
        expressions = {}
        for name in header:
            kinds = kinds_of(con, relation, name)
            check_kinds(con, relation, name, kinds, rules, location.shown)
            expressions[name] = typed(name, type_of(kinds))
    return Staged((cells,), relation, expressions)


def _options(location: Location, table: TableSettings, delimiter: str, header: list[str]) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header)
    nulls = ", ".join(literal(text) for text in ("", *table.null_values))
    options = {
        "auto_detect": "false",
        "columns": f"{{{columns}}}",
        "header": "true",
        "delim": literal(delimiter),
        "quote": literal('"'),
        "escape": literal('"'),
        "comment": literal(""),
        "nullstr": f"[{nulls}]",
        "max_line_size": str(_LONGEST_LINE),
        "compression": literal("gzip" if location.gzipped else "none"),
    }
    return ", ".join(f"{option} = {value}" for option, value in options.items())


def _detect_delimiter(location: Location) -> str:
    """The delimiter that occurs most often in the header, outside quotes."""
    with _gzip_faults(location), location.open() as raw:
        start = raw.read(_HEADER).decode("utf-8", errors="replace")
    header = next(iter(re.sub('"[^"]*"', "", start).splitlines()), "")
    return max(_DELIMITERS, key=header.count)


def _header(location: Location, delimiter: str) -> list[str]:
    """The names in the first line, blanks around them taken off."""
    with _gzip_faults(location), location.open() as raw:
        stream = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        try:
            if len(delimiter) == 1:
                cells = next(csv.reader(stream, delimiter=delimiter, strict=True), [])
            else:  # csv.reader knows delimiters of one character alone
                cells = [cell.strip('"') for cell in stream.readline().rstrip("\r\n").split(delimiter)]
        except UnicodeDecodeError:
            raise _not_utf8(location) from None
        except csv.Error:
            raise ErasmoError(
                f"Got a first line of {location.shown} that cannot be read", expected="the names of the columns"
            ) from None
    if not any(cell.strip() for cell in cells):
        raise ErasmoError(f"Got a blank first line in {location.shown}", expected="the names of the columns")
    return [cell.strip() for cell in cells]


def _not_utf8(location: Location) -> ErasmoError:
    with _gzip_faults(location), location.open() as raw:
        number = next((n for n, line in enumerate(raw, start=1) if not _is_utf8(line)), 1)
    return ErasmoError(
        f"Got bytes that are not UTF-8 in line {number} of {location.shown}",
        expected="UTF-8 text",
        fix="save the file as UTF-8 (from Latin-1: `iconv -f LATIN1 -t UTF-8 old > new`)",
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _gzip_faults(location: Location) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise _broken_gzip(location) from None


def _broken_gzip(location: Location) -> ErasmoError:
    return ErasmoError(f"Got {location.shown}, which is not a whole gzip file", expected="one", fix="write it anew")


def _fault(error: Exception, location: Location) -> ErasmoError:
    """DuckDB's error without the line that it quotes."""
    text = str(error)
    line = f"line {found[1]}" if (found := re.search(r"CSV Error on Line: (\d+)", text)) else "a line"
    where = f"{line} of {location.shown}"
    if "Invalid unicode" in text:
        return _not_utf8(location)
    if "GZIP" in text:
        return _broken_gzip(location)
    if counts := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text):
        return ErasmoError(
            f"Got {where} with {counts[2]} cell{'s' * (counts[2] != '1')}",
            expected=f"{counts[1]} as in the header",
            fix='mend the line, put cells that hold the delimiter in "quotes", or set source.delimiter',
        )
    if "quote" in text.partition("Possible fixes")[0]:
        return ErasmoError(
            f"Got a cell whose quotes do not match in {where}",
            expected='"cell", with "" for a quote inside it',
            fix="mend the line",
        )
    if "Maximum line size" in text:
        return ErasmoError(f"Got {where} longer than {_LONGEST_LINE // 2**20} MiB", expected="a shorter one")
    return ErasmoError(
        f"Got {location.shown}, which cannot be read as {location.format.upper()}",
        expected="one delimiter, one kind of line ending, and cells that hold either in quotes",
        fix="write the file anew",
    )
