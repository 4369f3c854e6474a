"""The cells of a grid: what each is made of, and an id for everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import ValidationError

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments.settings import Algorithm, Arm, ExperimentDataset, ExperimentSettings, Variant
from erasmo_dagster.experiments.variants import SEED, changed, sampled
from erasmo_dagster.method.encoders.kinds import identify
from erasmo_dagster.method.textual import TextPlan, fit_text
from erasmo_dagster.settings import (
    ClusteringSettings,
    DatasetSettings,
    Project,
    TfidfOptions,
    anchored,
    load_dataset,
)
from erasmo_dagster.store.sources import ENTITY_KEY, snapshot_source

# Raised where the code of a step makes other output of the same input: what was done with the older code is done anew.
CODE = {"table": 1, "corpus": 1, "encoder": 1, "vectors": 1, "cell": 2}
_PARTS = ("source", "key", "drop", "label", "sensitive", "columns", "text", "adapter", "embedding")
_FOUND: Literal["auto"] = "auto"
# What draws nothing at random, so that one seed stands for all.
_SEEDLESS_METHODS = ("agglomerative", "hdbscan")


def digest(*parts: Any) -> str:
    """A name for all that something depends on: 24 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


@dataclass(frozen=True, eq=False)
class Table:
    """A dataset as one variant has it: rows by entity key, which is no column of ``frame``.

    ``judged`` has the same rows before the variant's changes, and ``plan`` the kinds of its columns: by them segments
    are judged. ``classes`` counts the label's values. ``settings`` are the dataset's, without an arm's.
    """

    dataset: str
    variant: str
    settings: DatasetSettings
    frame: pl.DataFrame
    judged: pl.DataFrame
    plan: TextPlan
    id: str

    @property
    def classes(self) -> int:
        """Values of the label, missing ones not counted; 0 without a label."""
        label = self.settings.label
        return 0 if label is None else int(self.frame[label].drop_nulls().n_unique())


@dataclass(frozen=True, eq=False)
class Embedding:
    """One way from a table's rows to vectors: what cells of all algorithms and numbers of segments share.

    ``about`` is the encoder's identity, None for a baseline. ``learnt`` names the fitting, None where there is none; it
    is on the table ``trained_on`` with ``trained_with``. Embeddings of one ``reading`` take their vectors from the same
    pass of a causal language model, by another layer or pooling. ``fault`` says why the vectors cannot be had.
    """

    table: Table
    arm: Arm
    settings: DatasetSettings
    seed: int
    corpus: str
    trained_on: Table
    trained_with: DatasetSettings
    trained_corpus: str
    about: Mapping[str, Any] | None = None
    learnt: str | None = None
    id: str = ""
    reading: str | None = None
    fault: ErasmoError | None = None


@dataclass(frozen=True, eq=False)
class Cell:
    """One result of the grid. ``k`` is the number of segments asked for, None where it is found."""

    embedding: Embedding
    algorithm: Algorithm
    clustering: ClusteringSettings
    k: int | None
    seed: int
    id: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_tables(settings: ExperimentSettings, project: Project, folder: Path, file: Path) -> list[Table]:
    """The tables of every dataset and variant, read from their sources; ``folder`` is for files in between.

    Raises ErasmoError as :func:`~erasmo_dagster.store.sources.snapshot_source` does.
    """
    tables = []
    for entry in settings.datasets:
        base, frame, source = _read(entry, project, folder, file)
        frame = sampled(frame, entry.rows, base.label if entry.stratify else None)
        plan = fit_text(frame.drop(ENTITY_KEY), base)
        for variant in settings.variants:
            if entry.variants and variant.name not in entry.variants:
                continue
            tables.append(_table(entry, variant, base, frame, plan, source))
    return tables


def _read(
    entry: ExperimentDataset, project: Project, folder: Path, file: Path
) -> tuple[DatasetSettings, pl.DataFrame, str]:
    """A dataset's settings (those that a cell heeds), its rows by key, and the digest of its source."""
    base = entry.definition or load_dataset(project, entry.name)
    kept = base.model_dump(include=set(_PARTS), exclude_unset=True)
    # Whatever encodes the dataset's rows elsewhere, here it is the arm.
    settings = DatasetSettings.model_validate(kept)
    if entry.stratify and settings.label is None:
        raise ErasmoError(f"Got `stratify` for dataset {entry.name!r}", expected="a dataset with a `label`")
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f".{entry.name}.parquet"
    try:
        snapshot = snapshot_source(entry.name, settings, project, written)
        frame = pl.read_parquet(written, glob=False).sort(ENTITY_KEY)
    except ErasmoError as error:
        if entry.source is None:
            raise
        # The dataset has no file of its own.
        where = f"datasets.{entry.name} in {file}"
        raise ErasmoError(
            error.got, expected=error.expected, fix=error.fix.replace(f"datasets/{entry.name}.yaml", where)
        ) from error
    finally:
        written.unlink(missing_ok=True)
    return settings, frame, digest(snapshot.fingerprint.digest, list(snapshot.columns))


def _table(
    entry: ExperimentDataset,
    variant: Variant,
    settings: DatasetSettings,
    frame: pl.DataFrame,
    plan: TextPlan,
    source: str,
) -> Table:
    done = changed(frame, variant, settings, plan)
    parts = (settings.key, entry.rows, settings.label if entry.stratify else None, variant.model_dump(exclude={"name"}))
    kinds = [column.model_dump() for column in plan.columns]  # by which a variant changes values
    return Table(
        dataset=entry.name,
        variant=variant.name,
        settings=done.settings,
        frame=done.frame.drop(ENTITY_KEY),
        judged=done.before.drop(ENTITY_KEY),
        plan=plan,
        id=digest(CODE["table"], SEED, source, parts, kinds),
    )


def arm_settings(table: Table, arm: Arm, seed: int, project: Project) -> DatasetSettings:
    """The dataset's settings with an arm's over them, and with nothing that the arm's encoder does not heed.

    Raises ErasmoError for an option of the arm that it does not heed, or that is not valid.
    """
    given = table.settings.model_dump(include=set(_PARTS), exclude_unset=True)
    given |= {"seed": seed, "text": given.get("text", {}) | arm.text}
    own = {part: given.pop(part, {}) for part in ("adapter", "embedding")}
    if (encoder := arm.encoder) is not None:
        adapter = (own["adapter"] if encoder.tuned else {}) | arm.adapter
        embedding = {name: value for name, value in own["embedding"].items() if name in encoder.reads} | arm.embedding
        given |= {"encoder": encoder} | {k: v for k, v in (("adapter", adapter), ("embedding", embedding)) if v}
    try:
        return anchored(DatasetSettings.model_validate(given), project)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ")
        raise ErasmoError(
            f"Got arm {arm.name!r} on dataset {table.dataset!r}: {f'`{where}`: ' if where else ''}{message}"
        ) from None


def plan_cells(
    settings: ExperimentSettings, tables: Sequence[Table], project: Project, only: Collection[str] = ()
) -> list[Cell]:
    """Every cell of the grid, those that share work beside each other; ``only`` those of the datasets, arms and
    algorithms with these names, where it names any of that sort.

    An arm whose weights cannot be had has its cells too, which fail. Raises ErasmoError for options of an arm that do
    not fit, for `k: label` without a label, and where nothing is left.
    """
    asked = _asked(settings, only)
    cells: list[Cell] = []
    known: dict[str, dict[str, Any] | ErasmoError] = {}
    for table in tables:
        for arm in settings.encoders:
            if table.dataset not in asked["datasets"] or arm.name not in asked["encoders"] or not _fits(arm, table):
                continue
            seen: set[str] = set()
            for seed in settings.seeds:
                embedding = _embedding(table, arm, seed, tables, project, known)
                for cell in _cells_of(embedding, settings, asked["algorithms"], seed):
                    # Where nothing draws at random, one seed stands for all.
                    if cell.id not in seen:
                        seen.add(cell.id)
                        cells.append(cell)
    if not cells:
        raise ErasmoError("Got a grid without a cell", expected="at least one", fix="see `rows`, `datasets`, --only")
    return cells


def _asked(settings: ExperimentSettings, only: Collection[str]) -> dict[str, set[str]]:
    """The names of datasets, arms and algorithms that are asked for."""
    names = {
        field: {item.name for item in getattr(settings, field)} for field in ("datasets", "encoders", "algorithms")
    }
    known = set().union(*names.values())
    if unknown := sorted(set(only) - known):
        raise ErasmoError(f"Got --only {unknown[0]!r}", expected=f"one of: {', '.join(sorted(known))}")
    return {field: own & set(only) or own for field, own in names.items()}


def _fits(arm: Arm, table: Table) -> bool:
    """Whether an arm is for a table, and has what it needs."""
    small = arm.rows is None or table.frame.height <= arm.rows
    named = not arm.datasets or table.dataset in arm.datasets
    return small and named and not arm.lacks


def _cells_of(
    embedding: Embedding, settings: ExperimentSettings, algorithms: Collection[str], seed: int
) -> Iterator[Cell]:
    table, arm = embedding.table, embedding.arm
    for algorithm in settings.algorithms:
        if algorithm.name not in algorithms or (arm.algorithms and algorithm.name not in arm.algorithms):
            continue
        ks = _ks(table, settings) if algorithm.takes_k else [_FOUND]
        for k in ks:
            clustering = algorithm.settings(k)
            seedless = algorithm.method in _SEEDLESS_METHODS and clustering.reduction[0] in ("none", "truncate")
            options = _options(embedding, clustering)
            names = (table.dataset, table.variant, arm.name, algorithm.name)
            judged = (table.settings.label, settings.paper_figures)
            drawn = None if seedless else seed
            yield Cell(
                embedding=embedding,
                algorithm=algorithm,
                clustering=clustering,
                k=k if isinstance(k, int) else None,
                seed=seed,
                id=digest(CODE["cell"], names, embedding.id, clustering.model_dump(mode="json"), judged, drawn),
                options=options,
            )


def _ks(table: Table, settings: ExperimentSettings) -> list[int | Literal["auto"]]:
    found: list[int | Literal["auto"]] = []
    for k in settings.k:
        if k == "label" and table.classes < 2:
            raise ErasmoError(
                f"Got `k: label` for dataset {table.dataset!r}, whose label has {table.classes} values",
                expected="a `label` with at least 2 values",
                fix="name one, or set `k` to a number or to auto",
            )
        found.append(table.classes if k == "label" else k)
    return list(dict.fromkeys(found))


def _options(embedding: Embedding, clustering: ClusteringSettings) -> dict[str, Any]:
    """The settings of a cell, for its reader."""
    arm, own = embedding.arm, embedding.settings
    told: dict[str, Any] = {"clustering": clustering.model_dump(mode="json"), "text": own.text.deciding()}
    if arm.encoder is None:
        return told | {"baseline": arm.peer.model_dump(mode="json") if arm.peer else None}
    told |= {"encoder": own.encoder.model_dump(mode="json"), "order": arm.order, "trained_on": arm.trained_on}
    told["embedding"] = own.embedding.model_dump(mode="json", include=set(own.encoder.reads))
    return told | ({"adapter": own.adapter.model_dump(mode="json")} if own.encoder.tuned else {})


def _embedding(
    table: Table,
    arm: Arm,
    seed: int,
    tables: Sequence[Table],
    project: Project,
    known: dict[str, dict[str, Any] | ErasmoError],
) -> Embedding:
    own = arm_settings(table, arm, seed, project)
    source = _trained_on(table, arm, tables)
    trained_with = own if source is table else arm_settings(source, arm, seed, project)
    parts: dict[str, Any] = {
        "table": table,
        "arm": arm,
        "settings": own,
        "seed": seed,
        "corpus": _corpus_id(table, own),
        "trained_on": source,
        "trained_with": trained_with,
        "trained_corpus": _corpus_id(source, trained_with),
    }
    if (peer := arm.peer) is not None:
        drawn = seed if peer.seeded else None
        try:
            told = peer.deciding(project.models)
        except ErasmoError as fault:
            return Embedding(**parts, id=digest("unknown", parts["corpus"], arm.options, seed), fault=fault)
        return Embedding(**parts, id=digest("baseline", CODE["vectors"], parts["corpus"], told, drawn))
    try:
        about = _identified(trained_with, project, known)
    except ErasmoError as fault:
        return Embedding(**parts, id=digest("unknown", parts["corpus"], _options_of(own), arm.order, seed), fault=fault)
    learnt = None
    if about["learns"]:
        tuned = (
            trained_with.adapter.model_dump(exclude={"device", "base_model", "forward_tokens"})
            if own.encoder.tuned
            else None
        )
        drawn = None if _fits_without_seed(own) else seed
        learnt = digest("encoder", CODE["encoder"], parts["trained_corpus"], about, tuned, drawn)
    read = own.embedding.model_dump(mode="json", include=set(own.encoder.reads) - {"batch_tokens"})
    drawn = seed if arm.order == "random" or own.embedding.permutations else None
    vectors = digest("vectors", CODE["vectors"], parts["corpus"], about, learnt, read, arm.order, drawn)
    reading = None
    if "pooling" in read and not own.embedding.permutations:
        alike = {name: value for name, value in read.items() if name not in ("pooling", "layer", "normalize")}
        reading = digest("reading", parts["corpus"], about, learnt, alike, arm.order, drawn)
    return Embedding(**parts, about=about, learnt=learnt, id=vectors, reading=reading)


def _options_of(settings: DatasetSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    return settings.encoder.deciding(), settings.adapter.model_dump(mode="json")


def _identified(
    settings: DatasetSettings, project: Project, known: dict[str, dict[str, Any] | ErasmoError]
) -> dict[str, Any]:
    """As :func:`identify`, which may fetch the weights, once for each encoder, be it there or not."""
    name = digest(_options_of(settings))
    if name not in known:
        try:
            known[name] = identify(settings, project.models)
        except ErasmoError as fault:
            known[name] = fault
    found = known[name]
    if isinstance(found, ErasmoError):
        raise found
    return found


def _trained_on(table: Table, arm: Arm, tables: Sequence[Table]) -> Table:
    """The table that the arm's encoder is fitted on: this one, or that of another dataset in the same variant."""
    if arm.trained_on is None or arm.trained_on == table.dataset:
        return table
    named = {t.variant: t for t in tables if t.dataset == arm.trained_on}
    return named.get(table.variant) or next(iter(named.values()))


def _corpus_id(table: Table, settings: DatasetSettings) -> str:
    columns = {name: column.model_dump() for name, column in settings.columns.items()}
    return digest(CODE["corpus"], table.id, settings.text.deciding(), sorted(settings.excluded), columns)


def _fits_without_seed(settings: DatasetSettings) -> bool:
    return isinstance(settings.encoder, TfidfOptions) and settings.encoder.lsa is None
