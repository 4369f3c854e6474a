"""Frames of experiments as the runner gives them, with figures that tests choose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

FIGURES = ("silhouette", "calinski_harabasz", "davies_bouldin", "gower_silhouette", "ari", "f1_weighted")
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("experiment", "cell", "dataset", "variant", "encoder", "algorithm"), pl.String),
    **{"k": pl.Int32, "seed": pl.Int32, "status": pl.String, "error": pl.String},
    **{"rows": pl.Int64, "dimensions": pl.Int32, "segments": pl.Int32},
    **dict.fromkeys(("train_seconds", "embed_seconds", "cluster_seconds"), pl.Float64),
    **{"train_tokens": pl.Int64, "embed_tokens": pl.Int64},
    **dict.fromkeys(FIGURES, pl.Float64),
}
Change = Callable[[dict[str, Any]], dict[str, Any]]


def grid(
    datasets: Sequence[str] = ("zoo", "penguins"),
    encoders: Sequence[str] = ("ERASMO", "TF-IDF", "one-hot"),
    algorithms: Sequence[str] = ("kmeans",),
    variants: Sequence[str] = ("as it is",),
    seeds: Sequence[int] = (0, 1),
    change: Change = dict,
) -> pl.DataFrame:
    """A whole grid: the first encoder is the best, and the cheapest. ``change`` makes other cells of some."""
    rng = np.random.default_rng(0)
    rows = []
    for cell, (dataset, variant, encoder, algorithm, seed) in enumerate(
        itertools.product(datasets, variants, encoders, algorithms, seeds)
    ):
        good = 0.8 - 0.7 * encoders.index(encoder) / len(encoders) + 0.01 * rng.random()
        row = {
            **{"experiment": "grid", "cell": f"{cell:024x}", "dataset": dataset, "variant": variant},
            **{"encoder": encoder, "algorithm": algorithm, "k": 3, "seed": seed, "status": "done", "error": None},
            **{"rows": 150, "dimensions": 576, "segments": 3, "train_seconds": None},
            **{"embed_seconds": 10.0 ** encoders.index(encoder), "cluster_seconds": 0.5},
            **{"train_tokens": None, "embed_tokens": 9000},
            **{"silhouette": good / 2, "calinski_harabasz": 100 * good, "davies_bouldin": 3 - good},
            **{"gower_silhouette": good / 3, "ari": good, "f1_weighted": good},
        }
        rows.append(change(row))
    return pl.DataFrame(rows, schema=SCHEMA)


def failed(row: dict[str, Any], error: str = "Got memberships of 0.26, expected more.") -> dict[str, Any]:
    """The cell, failed."""
    return {**row, "status": "failed", "error": error, "segments": None, **dict.fromkeys(FIGURES)}
