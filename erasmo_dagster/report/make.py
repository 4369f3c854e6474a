"""The report on one dataset of a project, from its published file and its warehouse."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import whole_file
from erasmo_dagster.method import plots
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.report.gather import gather_report
from erasmo_dagster.report.render import render_report
from erasmo_dagster.settings import Project, check_name, load_dataset
from erasmo_dagster.store.artifacts import state_dir, text_dir
from erasmo_dagster.store.standing import read_drawn_in
from erasmo_dagster.store.versions import StageOutput, stage_output
from erasmo_dagster.store.warehouse import open_warehouse, read_segments

_PACKAGES = ("erasmo-dagster", "dagster", "duckdb", "polars", "scikit-learn", "torch", "transformers", "peft")
_DPI = 200  # sharp on paper


def write_report(project: Project, dataset: str, path: Path) -> Path:
    """Write the report on what is published of a dataset to ``path``, which appears whole or not at all; the path.

    Raises ErasmoError where nothing is published, or ``path`` cannot be written.
    """
    return write_page(make_report(project, dataset), path)


def write_page(text: str, path: Path) -> Path:
    """Write a page to ``path``, which appears whole or not at all; the path. Raises ErasmoError where it cannot."""
    path = path.expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ErasmoError(f"Got {path} to write to", expected="a file in a folder that exists")
    with whole_file(path) as written:
        written.write_text(text, encoding="utf-8")
    return path


def make_report(project: Project, dataset: str) -> str:
    """The report on what is published of a dataset, as HTML. Raises ErasmoError where nothing is."""
    check_name(dataset)
    if not project.published.is_file():
        raise ErasmoError(f"Got no published file {project.published}", fix=f"erasmo run {dataset}")
    with duckdb.connect(project.published, read_only=True) as con:
        data = gather_report(con, dataset)
    outputs = _outputs(project, dataset, data.version)
    jaccard = _jaccard(project, dataset, outputs)
    data = replace(
        data,
        labels={**data.labels, **_labels(project, dataset, outputs)},
        segments=tuple(replace(segment, jaccard=jaccard.get(segment.segment_id)) for segment in data.segments),
    )
    names = {segment.segment_id: segment.name for segment in data.segments}
    return render_report(data, _projection(project, dataset, outputs, names), _provenance(project, dataset, outputs))


def _outputs(project: Project, dataset: str, published: int) -> dict[str, StageOutput]:
    """The stages of the published version; none where the warehouse is not there."""
    if not project.warehouse.is_file():
        return {}
    stages = ("source_table", "refresh_plan", "text_corpus", "adapter", "embeddings", "segments")
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        found = {stage: stage_output(con, dataset, published, stage) for stage in stages}
    return {stage: output for stage, output in found.items() if output is not None}


def _labels(project: Project, dataset: str, outputs: dict[str, StageOutput]) -> dict[str, str]:
    """What the columns are called in the texts."""
    if "text_corpus" not in outputs:
        return {}
    state = _kept(text_dir(project, dataset, outputs["text_corpus"].version))
    return {} if state is None else {column.name: column.label for column in state.text.columns}


def _jaccard(project: Project, dataset: str, outputs: dict[str, StageOutput]) -> dict[int, float]:
    """How well each segment is found again on resampled rows, by its id; none where that is not known."""
    if "segments" not in outputs:
        return {}
    state = _kept(state_dir(project, dataset, outputs["segments"].version))
    if state is None or state.clustering is None:
        return {}
    return dict(zip(state.clustering.segment_ids, state.clustering.jaccard, strict=False))


def _kept(folder: Path) -> FittedState | None:
    """The state in a folder; None where it is no longer kept or of another format: a report goes on without it."""
    try:
        return FittedState.load(folder)
    except ErasmoError:
        return None


def _projection(project: Project, dataset: str, outputs: dict[str, StageOutput], names: dict[int, str]) -> bytes | None:
    """The rows' vectors in two dimensions; None where they are no longer kept."""
    if not {"embeddings", "segments"} <= set(outputs):
        return None
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        keys, vectors = read_drawn_in(con, dataset, outputs["segments"], outputs["embeddings"])
        segmented = read_segments(con, dataset, outputs["segments"].version)
    if keys.is_empty() or keys.to_list() != segmented["entity_key"].to_list():
        return None
    labels = segmented["segment_id"].to_numpy().astype(np.int64)
    return plots.projection(vectors, labels, seed=0, dpi=_DPI, names=names)


def _provenance(project: Project, dataset: str, outputs: dict[str, StageOutput]) -> dict[str, str]:
    """How the segments were made, a line each; nothing of a row, and no path."""
    told: dict[str, str] = {}
    source, corpus, adapter = (outputs.get(stage) for stage in ("source_table", "text_corpus", "adapter"))
    if source is not None:
        told["Source"] = f"{source.details['rows']} rows, fingerprint {source.details['digest']}"
    if corpus is not None:
        told["Columns in the text"] = ", ".join(corpus.details["columns"])
        if corpus.details["dropped"]:
            told["Columns left out"] = "; ".join(f"{name}: {why}" for name, why in corpus.details["dropped"].items())
    if adapter is not None:
        details = adapter.details
        told["Encoder"] = _settings({"": details.get("encoder", "erasmo"), **_told_options(details)}).strip()
        if "base_model" in details:
            told["Language model"] = f"{_public(details['base_model'])}, revision {details['revision'][:12]}"
        if "training" in details:
            told["Fine-tuning"] = _training(details)
    if (plan := outputs.get("refresh_plan")) is not None:
        decision = plan.details["plan"]["decision"]
        told["Decision of the last run"] = f"{decision['mode']}: {'; '.join(decision['reasons'])}"
    try:
        settings = load_dataset(project, dataset)
    except ErasmoError:
        settings = None
    if settings is not None:
        told["Vectors"] = _settings(settings.embedding.model_dump(exclude={"batch_tokens"}))
        told["Clustering"] = _settings(settings.clustering.model_dump())
        told["Seed"] = str(settings.seed)
        if settings.sensitive:
            told["Sensitive columns"] = f"{len(settings.sensitive)}, of which nothing is shown here"
    told["Software"] = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return told


def _public(model: str) -> str:
    """A base model's name without the machine's folders."""
    kind, _, place = model.partition(":")
    return f"path:{Path(place).name}" if kind == "path" else model


def _told_options(details: dict[str, Any]) -> dict[str, Any]:
    """The encoder's options, but for its weights, which are told apart, and addresses."""
    return {name: value for name, value in details.get("options", {}).items() if name not in ("name", "model", "url")}


def _training(details: dict[str, Any]) -> str:
    training = details["training"]
    loss = f", loss on held-out rows {training['eval_loss']:.3g}" if training.get("eval_loss") is not None else ""
    return (
        f"{details['method']}, {training['tokens']:,} tokens in {training['steps']} steps,"
        f" stopped by {training['stopped_by']}{loss}"
    )


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {v if isinstance(v, str) else json.dumps(v)}" for name, v in values.items())
