"""The suite: labelled tables by a YAML list, read once and drawn from by seed. The label leaves here apart."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml
from pydantic import Field, ValidationError, field_validator

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import file_sha256
from erasmo_dagster.method.textual import TextPlan, fit_text
from erasmo_dagster.settings import DatasetSettings, Project, Settings, SourceSettings
from erasmo_dagster.settings.base import Strings
from erasmo_dagster.store.paths import did_you_mean, locate
from erasmo_dagster.store.plain_text import TEXT_COLUMN, text_key
from erasmo_dagster.store.sql import copy_to_parquet
from erasmo_dagster.store.tables import open_source
from erasmo_dagster.store.types import TextRules

Positions = npt.NDArray[np.intp]


class Entry(Settings):
    """One labelled table of a suite."""

    name: str = Field(min_length=1, description="What the results call it.")
    file: str = Field(min_length=1, description="File below the data's folder, of any format that a dataset can have.")
    label: str | None = Field(None, description="Column with the known groups; no method sees it.")
    drop: Strings = Field((), description="Further columns that no method sees.")
    k: int | None = Field(None, ge=2, description="Segments asked for; `true` or none: as many as there are groups.")
    label_rule: str | None = Field(None, min_length=1, description="SQL expression over the label: the groups.")
    rows: int | None = Field(None, ge=3, description="Rows drawn at most, beside --rows.")

    @field_validator("k", mode="before")
    @classmethod
    def _groups(cls, value: Any) -> Any:
        if isinstance(value, bool):
            if not value:
                raise ValueError("expected `true` or a number")
            return None
        return value


@dataclass(frozen=True)
class BadEntry:
    """An entry of a suite that cannot be read, and why."""

    name: str
    error: str


@dataclass(frozen=True, eq=False)
class Source:
    """A table without its label and dropped columns; ``truth`` (String) is each row's group, null where it has none."""

    entry: Entry
    frame: pl.DataFrame
    truth: pl.Series | None
    settings: DatasetSettings
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Sample:
    """What a method gets: rows of a table, how they become text, and the number of segments asked for.

    ``id`` tells the same rows of the same table; ``seed`` is the one that drew them.
    """

    name: str
    frame: pl.DataFrame
    plan: TextPlan
    settings: DatasetSettings
    k: int
    seed: int
    id: str

    def part(self, rows: Positions) -> Sample:
        """Some of the rows, in the order given; all of them: the sample itself. Raises ErasmoError as fit_text does."""
        if np.array_equal(rows, np.arange(self.frame.height)):
            return self
        frame = self.frame[rows]
        name = hashlib.sha256(f"{self.id} ".encode() + np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest()
        plan = fit_text(frame, self.settings)
        # In the order of the sample's own: a text that is the same has been read already.
        order = {column.name: at for at, column in enumerate(self.plan.columns)}
        columns = sorted(plan.columns, key=lambda column: order.get(column.name, len(order)))
        plan = plan.model_copy(update={"columns": tuple(columns)})
        return Sample(self.name, frame, plan, self.settings, self.k, self.seed, name)

    def reversed(self, *, plan: bool) -> Sample:
        """The same rows with their columns from last to first; with ``plan`` they are read in that order as well.

        Else they are read in the order that the project chooses, which does not heed the table's.
        """
        frame = self.frame.select(reversed(self.frame.columns))
        read = fit_text(frame, self.settings)
        if plan:
            read = self.plan.model_copy(update={"columns": self.plan.columns[::-1]})
        name = hashlib.sha256(f"{self.id} reversed {plan}".encode()).hexdigest()
        return Sample(self.name, frame, read, self.settings, self.k, self.seed, name)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample and, apart from it, the groups of its rows, which the external figures alone are given."""

    sample: Sample
    truth: tuple[str, ...] | None

    def part(self, rows: Positions) -> Drawn:
        """Some of the rows with their groups."""
        truth = None if self.truth is None else tuple(self.truth[i] for i in rows.tolist())
        return Drawn(self.sample.part(rows), truth)


def load_suite(file: Path) -> list[Entry | BadEntry]:
    """The entries of a suite, a YAML list. An entry that is not valid stands in its place with the reason.

    Raises ErasmoError for a file that is no such list, or names two tables alike.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ErasmoError(f"Got {error.strerror!r} for {file}", expected="a suite to read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ErasmoError(f"Got {file}, which is no YAML ({str(error).splitlines()[0]})", expected="a list") from error
    if not isinstance(data, list) or not data:
        raise ErasmoError(f"Got {file}", expected="a list of tables, each with `name`, `file` and `label`")
    entries = [_entry(item, number) for number, item in enumerate(data, start=1)]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ErasmoError(f"Got two tables called {twice[0]!r} in {file}", expected="a name of its own for each")
    return entries


def _entry(item: Any, number: int) -> Entry | BadEntry:
    if not isinstance(item, Mapping):
        return BadEntry(f"entry {number}", "expected a mapping with `name`, `file` and `label`")
    name = str(item.get("name") or f"entry {number}")
    known: dict[str, Any] = {}
    for field, value in item.items():
        if field in Entry.model_fields:
            known[field] = value
        elif near := did_you_mean(str(field), Entry.model_fields):
            return BadEntry(name, f"Got field {field!r}, which a table of a suite does not have{near}.")
        else:
            progress.note(f"{name}: the field {field!r} of the suite is not read")
    try:
        return Entry.model_validate(known)
    except ValidationError as error:
        faults = (f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg']}" for fault in error.errors())
        return BadEntry(name, "; ".join(faults))


def read_source(entry: Entry, data: Path) -> Source:
    """Read the table of an entry in the folder ``data`` by the project's own readers.

    Plain text has the one column ``text``. Raises ErasmoError for a file that cannot be read, for columns that it
    lacks, and for a rule that does not hold over the label.
    """
    project = Project(root=data.resolve(), home=data.resolve())
    source = SourceSettings(path=entry.file)
    (table,) = source.by_name().values()
    location = locate(table, project)
    # A rule may compare numbers; a label that is taken as it is keeps its text, such as `01`.
    as_text = frozenset({entry.label} if entry.label and not entry.label_rule else ())
    with tempfile.TemporaryDirectory(prefix="erasmo-quality-") as folder:
        place = Path(folder).resolve()
        with open_source(source, project, place, TextRules(as_text=as_text, complain=False)) as opened:
            copy_to_parquet(opened.con, opened.select, place / "rows.parquet")
        frame = pl.read_parquet(place / "rows.parquet", memory_map=False)
    hidden = [*entry.drop, *([entry.label] if entry.label else [])]
    if absent := [name for name in hidden if name not in frame.columns]:
        raise ErasmoError(
            f"Got column {absent[0]!r}, which {entry.file} does not have{did_you_mean(absent[0], frame.columns)}",
            expected="columns of the table under `label` and `drop`",
        )
    truth = None if entry.label is None else _groups(frame[entry.label], entry)
    if location.format == "text":
        hidden.append(text_key(location))
    frame = frame.drop(set(hidden))
    if not frame.width:
        raise ErasmoError(f"Got {entry.file} without a column beside `label` and `drop`", expected="at least one")
    files = [file_sha256(file) for file in location.files]
    told = "\n".join([entry.model_dump_json(exclude={"name", "rows"}), *files])
    return Source(entry, frame, truth, settings_of(frame), hashlib.sha256(told.encode()).hexdigest())


def settings_of(frame: pl.DataFrame, **parts: Any) -> DatasetSettings:
    """A dataset's settings for a table without a key, ``parts`` of its YAML beside the defaults."""
    key = "row"
    while key in frame.columns:
        key += "_"
    plain = frame.columns == [TEXT_COLUMN] and frame[TEXT_COLUMN].dtype == pl.String
    columns = {TEXT_COLUMN: {"kind": "text"}} if plain else {}
    return DatasetSettings.model_validate({"source": {"path": "-"}, "key": key, "columns": columns, **parts})


def draw(source: Source, rows: int, seed: int) -> Drawn:
    """At most ``rows`` of the rows that have a group, in their order, drawn by ``seed``.

    Raises ErasmoError for fewer than two groups, for no more rows than segments, and as fit_text does.
    """
    known = np.arange(source.frame.height) if source.truth is None else np.flatnonzero(source.truth.is_not_null())
    most = min(rows, source.entry.rows or rows)
    if len(known) > most:
        known = known[np.sort(np.random.default_rng(seed).permutation(len(known))[:most])]
    truth = None if source.truth is None else source.truth[known].to_list()
    k = source.entry.k
    if k is None:
        if truth is None:
            raise ErasmoError("Got no `label` and no `k`", expected="a number of segments, or a label to count")
        k = len(set(truth))
        if k < 2:
            raise ErasmoError(f"Got {k} group{'s' * (k != 1)} in the label of {len(known)} rows", expected="at least 2")
    if len(known) <= k:
        raise ErasmoError(f"Got {len(known)} rows for {k} segments", expected=f"at least {k + 1}")
    frame = source.frame[known]
    told = f"{source.fingerprint} ".encode() + np.ascontiguousarray(known, np.int64).tobytes()
    plan = fit_text(frame, source.settings)
    sample = Sample(source.entry.name, frame, plan, source.settings, k, seed, hashlib.sha256(told).hexdigest())
    return Drawn(sample, None if truth is None else tuple(truth))


def _groups(label: pl.Series, entry: Entry) -> pl.Series:
    """The group of every row as text, null where the label is missing, blank or NaN, or the rule gives none."""
    found = label
    if entry.label_rule is not None:
        try:
            found = _by_rule(label, entry.label_rule)
        except (pl.exceptions.PolarsError, TypeError) as error:
            raise ErasmoError(
                f"Got label_rule {entry.label_rule!r}, which does not hold over {label.name!r} "
                f"({str(error).splitlines()[0][:120]})",
                expected="a SQL expression over the label",
            ) from error
    if found.dtype.is_float():
        found = found.fill_nan(None)
    if found.dtype.is_nested() or found.dtype == pl.Binary:
        raise ErasmoError(f"Got the label {label.name!r} of type {found.dtype}", expected="one value a row")
    texts = found.cast(pl.String).str.strip_chars()
    return texts.set(texts == "", None)


def _by_rule(label: pl.Series, rule: str) -> pl.Series:
    """The rule over the label; where it compares numbers and the label holds them as text, over those."""
    expression = pl.sql_expr(rule)
    if not set(expression.meta.root_names()) <= {label.name}:
        raise pl.exceptions.ColumnNotFoundError(f"it names more than {label.name!r}")
    table = pl.DataFrame({label.name: label})
    try:
        return table.with_columns(__group=expression)["__group"]
    except pl.exceptions.PolarsError:
        if label.dtype != pl.String:
            raise
        numbers = label.str.strip_chars().cast(pl.Float64, strict=False)
        if numbers.null_count() > label.str.strip_chars().replace("", None).null_count():
            raise
        return pl.DataFrame({label.name: numbers}).with_columns(__group=expression)["__group"]
