"""`erasmo add`: read a table, decide how to segment it, and write that down for the user to change."""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project, SourceSettings, check_name, dataset_files
from erasmo_dagster.settings.environment import is_database_url, is_variable
from erasmo_dagster.store.draft import Draft, compose
from erasmo_dagster.store.paths import legible, listed, locate
from erasmo_dagster.store.plain_text import TEXT_COLUMN, text_key
from erasmo_dagster.store.profile import Profile, distinct, is_whole, missing_markers, odd_values, profile
from erasmo_dagster.store.sources import workplace, write_rows
from erasmo_dagster.store.sql import faults, read_parquet
from erasmo_dagster.store.tables import Table, open_source
from erasmo_dagster.store.types import TextRules

_FEW_CODES = 10
_HERE = "the command"  # what the user mends: there is no YAML yet


@dataclass(frozen=True)
class Inferred:
    """A dataset's YAML, ready to be written, and what was decided in it, one line each."""

    name: str
    yaml: str
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class _Look:
    """A table, looked at: its columns, and the marks in it that stand for a missing value, with their cells.

    ``prose`` is the column of plain text, which is text however short it is; None in a table.
    """

    rows: int
    profiles: tuple[Profile, ...]
    markers: dict[str, int]
    odd: dict[str, str]
    prose: str | None


def infer_dataset(
    file: str,
    key: Sequence[str],
    project: Project,
    *,
    name: str | None = None,
    table: str | None = None,
    label: str | None = None,
) -> Inferred:
    """Read a table and decide its settings; ``write_dataset`` writes them.

    ``file`` is relative to the working folder, else to the project; or ``${VARIABLE}``, which holds the URL of a
    PostgreSQL database. Raises ErasmoError for a table that cannot be read, a key that does not name each row (naming
    columns that do, where no key is given), a label that is not there, and a name that no dataset may have or one has
    already.
    """
    path = _path_for(file, project)
    source = SourceSettings(path=path, table=table)
    on_server = is_variable(path) and locate(source.by_name()["source"], project).format == "postgresql"
    if on_server:
        source = source.model_copy(update={"format": "postgresql"})
    # Of a table `schema.name` on a server, the name; a DuckDB file's schema is rarely what tells its tables apart.
    name = check_name(name or _slug((table.rpartition(".")[2] if on_server else table) if table else file))
    _check_free(project, name)
    options = [("--key", column) for column in key] + [("--table", table), ("--label", label)]
    location = locate(source.by_name()["source"], project)
    if location.format == "text" and not key:
        key = (text_key(location),)
    look = _look(source, key, label, project)
    markers = look.markers
    if markers:
        source = source.model_copy(update={"null_values": tuple(markers)})
        look = _look(source, key, label, project)
    draft = _decide(source, tuple(key), label, look)
    command = shlex.join(["erasmo", "add", file, *(word for option in options if option[1] for word in option if word)])
    return Inferred(name, compose(draft, command), tuple(_tell(name, draft, look, markers)))


def write_dataset(project: Project, inferred: Inferred) -> Path:
    """Write ``datasets/<name>.yaml``, whole or not at all. Raises ErasmoError where that dataset has a file."""
    _check_free(project, inferred.name)
    path = project.datasets_dir / f"{inferred.name}.yaml"
    with workplace(project.datasets_dir) as folder:
        written = folder / path.name
        written.write_text(inferred.yaml, encoding="utf-8")
        written.replace(path)
    return path


def _check_free(project: Project, name: str) -> None:
    if taken := dataset_files(project).get(name):
        raise ErasmoError(
            f"Got dataset name {name!r}, which {taken} has already",
            expected="a new one",
            fix="pass --name, or edit that file",
        )


def _path_for(file: str, project: Project) -> str:
    """The path to write down: relative to the project where the file is inside it, else absolute."""
    if file.startswith("pypi:") or is_variable(file):
        return file
    if is_database_url(file):
        raise ErasmoError(
            "Got the URL of a database",
            expected="a variable that holds it, since it has a password",
            fix="run `export DATABASE_URL=…` and pass '${DATABASE_URL}' in single quotes",
        )
    path = Path(os.path.expanduser(file))  # noqa: PTH111 - leaves `~` alone where there is no home
    if "*" not in file and not path.exists() and (project.root / path).exists():
        path = project.root / path
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link stays a link: what it leads to may change
    for root in (project.root, project.root.resolve()):
        if path.is_relative_to(root):
            inside = path.relative_to(root).as_posix()
            return f"./{inside}" if inside.startswith(("~", "pypi:")) else inside
    return str(path)


def _slug(file: str) -> str:
    """A dataset name from the name of a file or table."""
    # Of a pattern, the last part of it that is one name: `texts` of `texts/**/*.txt`.
    named = next((part for part in reversed(Path(file).parts) if "*" not in part), file) if "*" in file else file
    stem = re.sub(r"(\.\w{1,8}){1,2}$", "", Path(named).name)
    ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", ascii_only).strip("_")
    return (slug if slug[:1].isalpha() else f"table_{slug}".strip("_"))[:48].rstrip("_")


def _look(source: SourceSettings, key: Sequence[str], label: str | None, project: Project) -> _Look:
    def unreadable(error: Exception) -> ErasmoError:
        return ErasmoError(f"Got {source.path}, which cannot be read to its end ({type(error).__name__})")

    location = locate(source.by_name()["source"], project)
    rules = TextRules(complain=False)
    with (
        faults(unreadable),
        workplace(project.home) as folder,
        open_source(source, project, folder, rules) as table,
    ):
        if not key:
            raise _no_key(table)
        written = folder / "written.parquet"
        rows = write_rows(table, DatasetSettings(source=source, key=tuple(key), label=label), written, _HERE)
        relation = read_parquet([written])
        profiles = tuple(profile(table.con, relation, name, kind, rows) for name, kind in table.columns.items())
        texts = [p.name for p in profiles if p.type == "VARCHAR" and p.values]
        return _Look(
            rows,
            profiles,
            missing_markers(table.con, relation, texts) if location.format in ("csv", "tsv") else {},
            odd_values(table.con, relation, texts),
            TEXT_COLUMN if location.format == "text" else None,
        )


def _no_key(table: Table) -> ErasmoError:
    candidates = []
    for name, kind in table.columns.items():
        if kind != "VARCHAR" and not is_whole(kind):
            continue
        counts = f"SELECT count(*), {distinct(f'({table.select})', name)} FROM ({table.select})"
        rows, values = table.con.execute(counts).fetchone() or (0, 0)
        if rows and rows == values:
            candidates.append(name)
    if not candidates:
        return ErasmoError(
            f"Got no key for {table.shown}, and no column of it names each row",
            expected="--key with several columns that do so together",
            fix="or write a YAML with source.query: select row_number() over () as id, * from source",
        )
    return ErasmoError(
        f"Got no key for {table.shown}",
        expected=f"a column that names each row, such as: {listed(candidates, most=5)}",
        fix="pass --key COLUMN",
    )


def _decide(source: SourceSettings, key: tuple[str, ...], label: str | None, look: _Look) -> Draft:
    drop, columns = {}, {}
    sensitive = []
    for column in look.profiles:
        if column.contact:
            sensitive.append(column.name)
        if column.name in (*key, label):
            continue
        if column.contact:
            drop[column.name] = f"looks like {column.contact}"
        elif column.name == look.prose:
            columns[column.name] = ("text", _remark(column, look))
        elif column.type == "BLOB":
            drop[column.name] = "bytes"
        elif column.identifier:
            drop[column.name] = f"looks like {column.identifier}"
        elif column.kind:
            columns[column.name] = (column.kind, _remark(column, look))
    return Draft(source, key, label, drop, tuple(sensitive), columns)


def _remark(column: Profile, look: _Look) -> str:
    if not column.values:
        return "no value in any row: the method leaves it out"
    if column.distinct == 1 and column.values == column.rows:
        return "the same in every row: the method leaves it out"
    if column.name in look.odd:
        return look.odd[column.name]
    if column.whole and column.distinct <= _FEW_CODES < column.values:
        return (
            f"{column.distinct} whole numbers from {column.low} to {column.high};"
            " if they are codes: {kind: category, values: {1: what 1 means}}"
        )
    if column.kind == "text":
        return f"{column.words:.0f} words on average"
    if column.kind == "category":
        return f"{column.distinct:,} different"
    return ""


def _tell(name: str, draft: Draft, look: _Look, markers: dict[str, int]) -> list[str]:
    """The decisions, one line each, without any cell's value but the marks for missing ones."""
    told = [
        f"dataset {name}: {look.rows:,} rows, {len(look.profiles):,} columns of {draft.source.path}",
        f"key: {listed(draft.key)} (in every row, never twice)",
    ]
    if markers:
        told.append(f"missing: {', '.join(f'{text!r} ({cells:,} cells)' for text, cells in markers.items())}")
    for kind in dict.fromkeys(kind for kind, _ in draft.columns.values()):
        named = [column for column, (other, _) in draft.columns.items() if other == kind]
        told.append(f"{kind}: {listed(named)}")
    told += [f"dropped: {legible(column)} ({reason})" for column, reason in draft.drop.items()]
    told += [f"sensitive: {legible(column)}" for column in draft.sensitive]
    routine = re.compile(r"[\d,]+ different|\d+ words on average|")
    told += [
        f"{legible(column)}: {remark}" for column, (_, remark) in draft.columns.items() if not routine.fullmatch(remark)
    ]
    if not draft.columns:
        told.append("no column is left to describe a row: take one out of `drop` before running")
    return told
