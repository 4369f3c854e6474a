"""The result of one cell: segments of vectors that are there, and the figures that judge them."""

from __future__ import annotations

import time
from math import isfinite
from typing import Any

import numpy as np
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments.cells import Cell, Table
from erasmo_dagster.experiments.steps import Steps, Vectors
from erasmo_dagster.experiments.variants import SEED
from erasmo_dagster.method.agreement import external_metrics
from erasmo_dagster.method.auto import segment_table
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.gower import gower_distances, gower_silhouette
from erasmo_dagster.method.quality import internal_metrics, paper_metrics
from erasmo_dagster.settings.clustering import ON_COLUMNS
from erasmo_dagster.store.experiments import CellResult

GOWER_ROWS = 2_000  # distances between all pairs of them are held in memory


def done(name: str, cell: Cell, found: Vectors, judge: Judge, steps: Steps) -> CellResult:
    """The result of a cell of the experiment ``name``: its segments and how good they are.

    Raises ErasmoError as the algorithm does.
    """
    started = time.monotonic()
    clustered = _clustered(cell, found, steps)
    seconds = time.monotonic() - started
    figures = judge.figures(cell, found, clustered.labels)
    return _result(
        name,
        cell,
        status="done",
        rows=len(found.vectors),
        dimensions=found.vectors.shape[1],
        segments=clustered.k,
        figures={name: value for name, value in figures.items() if isfinite(value)},
        train_seconds=found.train_seconds,
        embed_seconds=found.embed_seconds,
        cluster_seconds=seconds,
        train_tokens=found.train_tokens,
        embed_tokens=found.embed_tokens,
    )


def failed(name: str, cell: Cell, error: Exception) -> CellResult:
    """The result of a cell that ended with ``error``."""
    # What a fault of ours says may hold values of the table.
    told = str(error) if isinstance(error, ErasmoError) else f"a fault in the program ({type(error).__name__})"
    return _result(name, cell, status="failed", error=told)


def _clustered(cell: Cell, found: Vectors, steps: Steps) -> ClusterResult:
    if cell.clustering.method not in ON_COLUMNS:
        return cluster(found.vectors, cell.clustering, seed=cell.seed)
    plan, models = steps.plan(cell.embedding), steps.project.models
    frame = cell.embedding.table.frame
    return segment_table(frame, plan, cell.clustering, seed=cell.seed, models_dir=models, vectors=found.vectors).result


def _result(name: str, cell: Cell, **outcome: Any) -> CellResult:
    table = cell.embedding.table
    return CellResult(
        experiment=name,
        cell=cell.id,
        dataset=table.dataset,
        variant=table.variant,
        encoder=cell.embedding.arm.name,
        algorithm=cell.algorithm.name,
        k=cell.k,
        seed=cell.seed,
        options=cell.options,
        **outcome,
    )


class Judge:
    """Figures of segments. They are of the vectors as the encoder gave them, whatever an algorithm made of those, so
    that algorithms compare; and of the table as it was before a variant changed it, so that variants do."""

    def __init__(self, paper: bool) -> None:
        self._paper = paper
        self._gower: tuple[str, np.ndarray, Any] | None = None

    def figures(self, cell: Cell, found: Vectors, labels: np.ndarray) -> dict[str, float]:
        """The figures that there are, by name."""
        table, rows = cell.embedding.table, cell.clustering.metrics_rows
        figures = internal_metrics(found.vectors, labels, max_rows=rows, seed=SEED)
        sample, distances = self._distances(table)
        if distances is not None and (value := gower_silhouette(distances, labels[sample])) is not None:
            figures["gower_silhouette"] = value
        label = table.settings.label
        truth = None if label is None else table.judged[label].cast(pl.String).to_list()
        if truth is not None:
            figures |= external_metrics(labels, truth, found.vectors)
        if self._paper:
            figures |= paper_metrics(found.vectors, labels, truth, max_rows=rows, seed=SEED)
        return figures

    def _distances(self, table: Table) -> tuple[np.ndarray, Any]:
        """Positions of the rows judged, and the distances between them, of the last table asked for."""
        if self._gower is None or self._gower[0] != table.id:
            height = table.judged.height
            sample = np.sort(np.random.default_rng(SEED).permutation(height)[:GOWER_ROWS])
            self._gower = (table.id, sample, gower_distances(table.judged[sample], table.plan.columns))
        return self._gower[1:]
