"""An experiment's file: what is asked, of which tables, encoders, algorithms, numbers of segments and seeds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import polars as pl
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.baselines import BASELINES, BaselineOptions
from erasmo_dagster.settings import (
    ClusteringSettings,
    ColumnSettings,
    DatasetSettings,
    ExecutionSettings,
    Settings,
    SourceSettings,
    TextSettings,
    check_name,
)
from erasmo_dagster.settings.base import Strings
from erasmo_dagster.settings.clustering import Method
from erasmo_dagster.settings.encoders import EncoderChoice
from erasmo_dagster.settings.project import read_yaml, validated
from erasmo_dagster.settings.refresh import Figure

READY = Path(__file__).parent / "ready"
FULL = "-full"  # what a whole run's results are called after
_DATA = "${DATA}"
_FIGURES = frozenset(get_args(Figure))
_OWN = ("source", "key", "drop", "label", "sensitive", "columns", "text")


class ExperimentDataset(Settings):
    """A table: by the name of a file in datasets/, or defined here by `source` and the rest of such a file's fields."""

    name: Annotated[str, AfterValidator(lambda name: _safe(name))] = Field(
        min_length=1, description="Name of datasets/NAME.yaml, or of the dataset that is defined here."
    )
    rows: int | None = Field(None, ge=10, description="Rows at most, a seeded sample. null: all; so has --full.")
    stratify: bool = Field(False, description="Draw the sample with every label's share kept.")
    source: SourceSettings | None = Field(None, description="The table; without it the dataset's file has it.")
    key: Strings = Field((), description="As in a dataset's file.")
    drop: Strings = Field((), description="As in a dataset's file.")
    label: str | None = Field(None, description="As in a dataset's file.")
    sensitive: Strings = Field((), description="As in a dataset's file.")
    columns: dict[str, ColumnSettings] = Field(default_factory=dict, description="As in a dataset's file.")
    text: TextSettings = Field(TextSettings(), description="As in a dataset's file.")
    variants: Strings = Field((), description="Only these of the file's variants, by name.")

    @property
    def definition(self) -> DatasetSettings | None:
        """The dataset, where it is defined here."""
        if self.source is None:
            return None
        return DatasetSettings.model_validate(self.model_dump(include=set(_OWN), exclude_unset=True))

    @model_validator(mode="after")
    def _one_or_the_other(self) -> ExperimentDataset:
        if self.source is None and (own := sorted(self.model_fields_set & set(_OWN))):
            raise ValueError(f"`{own[0]}` describes a dataset of the experiment's own, which needs a `source`")
        try:
            _ = self.definition
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{where}: {fault['msg']}" if where else fault["msg"]) from None
        return self


def _safe(name: str) -> str:
    try:
        return check_name(name)
    except ErasmoError as error:
        raise ValueError(f"expected {error.expected}") from None


class Arm(Settings):
    """One way from rows to vectors."""

    name: str = Field(min_length=1, max_length=80, description="What tables and pictures call it.")
    encoder: EncoderChoice | None = Field(None, description="As in a dataset's file.")
    baseline: str | None = Field(None, description=f"A simple peer instead of an encoder: {', '.join(BASELINES)}.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the baseline.")
    text: dict[str, Any] = Field(default_factory=dict, description="Options of `text` other than the dataset's.")
    adapter: dict[str, Any] = Field(default_factory=dict, description="Options of `adapter` other than the dataset's.")
    embedding: dict[str, Any] = Field(
        default_factory=dict, description="Options of `embedding` other than the dataset's."
    )
    order: Literal["canonical", "random"] = Field(
        "canonical",
        description="Order of the columns at embedding: one for all rows, or each row its own, as in the papers' code.",
    )
    trained_on: str | None = Field(
        None, description="Dataset of this file on which the encoder is fitted; by default the one that it embeds."
    )
    rows: int | None = Field(None, ge=1, description="Left out on tables with more rows.")
    datasets: Strings = Field((), description="Only on these datasets.")
    algorithms: Strings = Field((), description="Only with these algorithms.")
    needs: Strings = Field((), description="Left out unless these environment variables are set, such as a key.")

    @property
    def peer(self) -> BaselineOptions | None:
        """The baseline's options; None for an encoder."""
        if self.baseline is None:
            return None
        return BASELINES[self.baseline][0].model_validate({**self.options, "name": self.baseline})

    @property
    def lacks(self) -> tuple[str, ...]:
        """The environment variables that it needs and that are not set."""
        return tuple(name for name in self.needs if name not in os.environ)

    @model_validator(mode="after")
    def _one_kind(self) -> Arm:
        if (self.encoder is None) == (self.baseline is None):
            raise ValueError("expected either `encoder` or `baseline`")
        unheeded = {"adapter", "embedding", "order", "trained_on"} if self.baseline else {"options"}
        if found := sorted(self.model_fields_set & unheeded):
            raise ValueError(f"got `{found[0]}`, which {'a baseline' if self.baseline else 'an encoder'} does not heed")
        if self.baseline is not None and self.baseline not in BASELINES:
            raise ValueError(f"got baseline {self.baseline!r}, expected one of: {', '.join(BASELINES)}")
        try:
            _ = self.peer
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise ValueError(f"`options.{where}` of the baseline {self.baseline}: {fault['msg']}") from None
        return self


def _expanded(value: Any) -> Any:
    """Arms, with every `axes` replaced by the arms of its product: a level of each axis, their names joined."""
    if not isinstance(value, list):
        return value
    arms: list[Any] = []
    for item in value:
        axes = item.get("axes") if isinstance(item, dict) else None
        if axes is None:
            arms.append(item)
            continue
        levels_of: list[Any] = list(axes.values()) if isinstance(axes, dict) else [None]
        if not all(
            isinstance(levels, dict) and levels and all(map(_is_level, levels.values())) for levels in levels_of
        ):
            raise ValueError("axes: expected axis -> name of a level -> the fields that it sets")
        for chosen in product(*(levels.items() for levels in levels_of)):
            arm = {key: field for key, field in item.items() if key != "axes"}
            for _, fields in chosen:
                arm = merged(arm, fields)
            arms.append({"name": ", ".join(str(level) for level, _ in chosen), **arm})
    return arms


def _is_level(fields: Any) -> bool:
    return isinstance(fields, dict)


class Algorithm(ClusteringSettings):
    """One way from vectors to segments: fields of a dataset's `clustering`, but for `k`.

    An experiment compares vectors, so that k-means is what stands where no `method` is named.
    """

    method: Method = Field("kmeans++", description="As in a dataset's file, but for the default.")
    name: str = Field(min_length=1, max_length=80, description="What tables and pictures call it; by default `method`.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"name": data, "method": data}
        if isinstance(data, dict) and "k" in data:
            raise ValueError("`k` stands beside `algorithms`, and not in them")
        if isinstance(data, dict) and "name" not in data and "method" in data:
            return {**data, "name": data["method"]}
        return data

    @property
    def takes_k(self) -> bool:
        """Whether the number of segments is asked for, and not found."""
        return self.method != "hdbscan"

    def settings(self, k: int | Literal["auto"]) -> ClusteringSettings:
        """The settings of one clustering into ``k`` segments."""
        given = self.model_dump(include=self.model_fields_set - {"name"}, exclude_unset=True)
        return ClusteringSettings.model_validate({"method": self.method} | given | ({"k": k} if self.takes_k else {}))


class Variant(Settings):
    """A seeded change of the table. The label is never looked at and never changed."""

    name: str = Field(min_length=1, max_length=80, description="By default what is changed, and by how much.")
    rows: int | None = Field(None, ge=10, description="Rows at most, drawn at random.")
    missing: float | None = Field(None, gt=0, lt=1, description="Share of the values that are taken away.")
    noise: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Numbers move by a normal deviate of this many standard deviations; other values are replaced, "
        "with this probability, by the value of another row. Texts stay.",
    )
    duplicate_columns: int | None = Field(None, ge=1, le=1000, description="Columns that are there twice.")
    correlated_columns: int | None = Field(
        None, ge=1, le=1000, description="Columns that are there twice, the second time with a noise of 0.1."
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and "name" not in data:
            changes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in data.items() if value)
            return {**data, "name": changes or AS_IT_IS}
        return data


AS_IT_IS = "as it is"


class PublishedFigures(Settings):
    """Figures that a paper prints for one cell, to stand beside ours."""

    dataset: str
    encoder: str = Field(description="Name of the arm.")
    algorithm: str = Field(description="Name of the algorithm.")
    figures: dict[str, float] = Field(
        min_length=1, description="Our names of the figures -> the values printed; in the file they stand beside these."
    )

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "figures" in data:
            return data
        figures = {name: value for name, value in data.items() if name not in cls.model_fields}
        if unknown := sorted(set(figures) - _FIGURES):
            raise ValueError(f"got figure {unknown[0]!r}, expected names among: {', '.join(sorted(_FIGURES))}")
        return {name: value for name, value in data.items() if name in cls.model_fields} | {"figures": figures}


def _many(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _by_name(value: Any) -> Any:
    return [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


K = int | Literal["label", "auto"]


class ExperimentSettings(Settings):
    """A grid: datasets x variants x arms x algorithms x k x seeds."""

    description: str = Field(min_length=1, description="What is asked.")
    notes: str = Field("", description="What a reader of the results should know.")
    datasets: Annotated[tuple[ExperimentDataset, ...], BeforeValidator(_by_name)] = Field(min_length=1)
    encoders: Annotated[tuple[Arm, ...], BeforeValidator(_expanded)] = Field(
        min_length=1,
        description="The arms; `axes` (axis -> name of a level -> the fields that it sets) makes all combinations.",
    )
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    k: Annotated[tuple[K, ...], BeforeValidator(_many)] = Field(
        ("label",),
        min_length=1,
        description="`label`: as many segments as the label has values, the one use of it before the figures; `auto`; "
        "a number; or several of these.",
    )
    seeds: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = Field((0,), min_length=1)
    variants: tuple[Variant, ...] = Field(
        (Variant(name=AS_IT_IS),), min_length=1, description="Changes of the tables; by default none."
    )
    paper_figures: bool = Field(False, description="Add the figures as the first paper's code takes them.")
    published: tuple[PublishedFigures, ...] = Field((), description="Figures that a paper prints.")
    execution: ExecutionSettings = Field(
        ExecutionSettings(),
        description="Where cells are computed, as in a dataset's file; no result depends on it.",
    )
    full: dict[str, Any] = Field(default_factory=dict, description="What --full changes, merged over the file.")

    @model_validator(mode="after")
    def _names_fit(self) -> ExperimentSettings:
        names: dict[str, set[str]] = {}
        for field in ("datasets", "encoders", "algorithms", "variants"):
            listed = [item.name for item in getattr(self, field)]
            if twice := sorted({name for name in listed if listed.count(name) > 1}):
                raise ValueError(f"{field}: got {twice[0]!r} twice, expected a `name` of its own for each")
            names[field] = set(listed)
        for dataset in self.datasets:
            if unknown := sorted(set(dataset.variants) - names["variants"]):
                known = ", ".join(sorted(names["variants"]))
                raise ValueError(f"dataset {dataset.name!r}: got {unknown[0]!r}, expected one of `variants`: {known}")
        for arm in self.encoders:
            trained_on = (arm.trained_on,) if arm.trained_on else ()
            for field, used in (("datasets", (*arm.datasets, *trained_on)), ("algorithms", arm.algorithms)):
                if unknown := sorted(set(used) - names[field]):
                    known = ", ".join(sorted(names[field]))
                    raise ValueError(f"arm {arm.name!r}: got {unknown[0]!r}, expected one of `{field}`: {known}")
        for k in self.k:
            if isinstance(k, int) and k < 2:
                raise ValueError(f"got k={k}, expected at least 2, `label` or `auto`")
        return self

    def published_figures(self) -> pl.DataFrame | None:
        """The paper's figures: columns dataset, encoder, algorithm, figure, value; None where the file has none."""
        rows = [
            {"dataset": p.dataset, "encoder": p.encoder, "algorithm": p.algorithm, "figure": figure, "value": value}
            for p in self.published
            for figure, value in p.figures.items()
        ]
        return pl.DataFrame(rows) if rows else None


def with_execution(settings: ExperimentSettings, given: Mapping[str, Any]) -> ExperimentSettings:
    """The settings with those of ``given`` before the file's `execution`, of which the engine local takes nothing.

    Raises ErasmoError for settings that are not valid.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"execution": settings.execution.overridden(chosen)})


def find_experiment(name: str) -> Path:
    """The file of an experiment: a path, or the name of one that comes with the package. Raises ErasmoError."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    ready = {file.stem: file for file in ready_experiments()}
    if name not in ready:
        raise ErasmoError(
            f"Got experiment {name!r}", expected=f"a YAML file, or one of: {', '.join(ready) or 'none yet'}"
        )
    return ready[name]


def ready_experiments() -> list[Path]:
    """The files of the experiments that come with the package, by name."""
    return sorted(READY.glob("*.yaml"))


def load_experiment(path: Path, *, full: bool = False, data: Path | None = None) -> tuple[str, ExperimentSettings]:
    """An experiment's name and settings; ``data`` is the folder that ``${DATA}`` in the datasets' paths stands for.

    With ``full``, what stands under `full` is merged over the rest, datasets lose their `rows`, and the name ends in
    ``-full``, so that small and whole runs are kept apart. Raises ErasmoError in one line that names file and field.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ErasmoError(f"Got {path}, which holds no fields", expected="an experiment")
    settings = validated(ExperimentSettings, raw, path)
    if full or settings.full:
        whole = validated(ExperimentSettings, merged(raw, settings.full), f"{path}, with `full`")
        settings = whole.model_copy(update={"datasets": tuple(map(_whole, whole.datasets))}) if full else settings
    datasets = tuple(_placed(dataset, data, path) for dataset in settings.datasets)
    return path.stem + (FULL if full else ""), settings.model_copy(update={"datasets": datasets})


def merged(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: mappings key by key, lists of items with names item by item, all else whole.

    >>> merged({"k": 2, "encoders": [{"name": "a", "rows": 5}]}, {"encoders": [{"name": "a", "rows": None}]})
    {'k': 2, 'encoders': [{'name': 'a', 'rows': None}]}
    """
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list) and over and all(map(_has_name, over)):
        named = {item["name"]: item for item in over}
        old = [{"name": item} if isinstance(item, str) else item for item in base]
        kept = [merged(item, named.pop(item["name"], {})) if _has_name(item) else item for item in old]
        return [*kept, *named.values()]
    return over


def _has_name(item: Any) -> bool:
    return isinstance(item, Mapping) and "name" in item


def _whole(dataset: ExperimentDataset) -> ExperimentDataset:
    return dataset.model_copy(update={"rows": None})


def _placed(dataset: ExperimentDataset, data: Path | None, path: Path) -> ExperimentDataset:
    """The dataset with ``${DATA}`` replaced, so that it is the same wherever the process was started."""
    if dataset.source is None:
        return dataset
    source = dataset.source.model_dump(exclude_unset=True)
    for table in (source, *source.get("tables", {}).values()):
        if _DATA in (table.get("path") or ""):
            if data is None and "DATA" not in os.environ:
                raise ErasmoError(
                    f"Got {_DATA} in the path of dataset {dataset.name!r} of {path}, and no such folder",
                    expected="the folder that holds the data",
                    fix="add --data DIR",
                )
            table["path"] = table["path"].replace(_DATA, str((data or Path(os.environ["DATA"])).resolve()))
    return dataset.model_copy(update={"source": SourceSettings.model_validate(source)})
