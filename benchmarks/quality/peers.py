"""The peers: other ways to segments of a table, each from its rows and the number of segments asked for alone.

Every function takes a frame without label, how its columns are read, k and a seed, and gives labels int64[n]. Raises
ErasmoError where no column of the table is of a kind that it can use, and whatever the library raises.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.quality.features import MEASURED, NAMED, no_column, parts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.baselines import OneHotOptions, one_hot
from erasmo_dagster.method.gower import gower_distances, measured
from erasmo_dagster.method.textual import TextPlan

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Peer = Callable[[pl.DataFrame, TextPlan, int, int], Labels]

STARTS = 10
CATEGORIES = 30
EXPLAINED, COMPONENTS = 0.9, 10
PROTOTYPE_STARTS = 3
WIDTH = 0.5  # of the spectral kernel, in median distances
# What the libraries say to nobody's use here: the message of each, and of which module it is.
_SAID = (
    (r"Number of distinct clusters .* found smaller than n_clusters", "sklearn"),
    (r"Graph is not fully connected", "sklearn"),
)


def library(name: str) -> Any:
    """A library that only the benchmark needs. Raises ErasmoError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ErasmoError(
            f"Got no {name.partition('.')[0]} ({error})",
            expected="the libraries of the peers",
            fix="install the extra `dev` of erasmo-dagster",
        ) from error


@contextmanager
def calm() -> Iterator[None]:
    """One thread, so that sums are added up in one order, and without the warnings that are expected."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1), warnings.catch_warnings():
        for message, module in _SAID:
            warnings.filterwarnings("ignore", message, module=rf"{module}\b")
        yield


def kmeans(points: Floats, k: int, seed: int) -> Labels:
    """k-means, the best of ten starts."""
    from sklearn.cluster import KMeans

    with calm():
        fitted = KMeans(n_clusters=k, n_init=STARTS, random_state=seed).fit(points)
    return np.asarray(fitted.labels_, dtype=np.int64)


def one_hot_kmeans(frame: pl.DataFrame, plan: TextPlan, k: int, seed: int) -> Labels:
    """Numbers standardised, at most 30 categories a column one-hot; k-means."""
    if not any(column.kind in (*MEASURED, *NAMED) for column in plan.columns):
        raise no_column()
    options = OneHotOptions(name="one-hot", categories=CATEGORIES)
    return kmeans(one_hot(frame, plan, options, seed, Path()).vectors, k, seed)


def famd_kmeans(frame: pl.DataFrame, plan: TextPlan, k: int, seed: int) -> Labels:
    """Factor analysis of mixed data (Pagès, 2004) by prince, k-means on its components.

    As many components as explain 90 % of the variance, at most 10. Without numbers it is a multiple correspondence
    analysis, without categories a principal component analysis. A missing number is the mean, a missing category a
    value of its own.
    """
    import pandas as pd

    prince = library("prince")
    own = parts(frame, plan)
    numbers, categories = own.numbers.shape[1], own.categories.shape[1]
    # Names and values that no two of can be joined to the same text, as prince joins them.
    table = {f"n{i}": own.numbers[:, i] for i in range(numbers)}
    for i in range(categories):
        codes = np.unique(own.categories[:, i].astype(str), return_inverse=True)[1]
        table[f"c{i}"] = np.array([f"v{code}" for code in codes], dtype=object)
    kind = prince.FAMD if numbers and categories else prince.PCA if numbers else prince.MCA
    most = min(COMPONENTS, frame.height - 1, numbers + sum(len(set(c.tolist())) for c in own.categories.T))
    with calm():
        data = pd.DataFrame(table)
        analysis = kind(n_components=most, engine="scipy", random_state=seed).fit(data)
        coordinates = np.asarray(analysis.row_coordinates(data), dtype=np.float64)[:, :most]
        shares = np.asarray(analysis.eigenvalues_, dtype=np.float64)[:most] / float(analysis.total_inertia_)
    enough = int(np.searchsorted(np.cumsum(shares), EXPLAINED - 1e-9) + 1)
    return kmeans(coordinates[:, :enough], k, seed)


def kprototypes(frame: pl.DataFrame, plan: TextPlan, k: int, seed: int) -> Labels:
    """k-prototypes (Huang, 1998) by kmodes, started after Cao; k-modes without numbers, k-means without categories."""
    kmodes, kprototypes = library("kmodes.kmodes"), library("kmodes.kprototypes")
    own = parts(frame, plan)
    if not own.categories.shape[1]:
        return kmeans(own.numbers, k, seed)
    options = {"n_clusters": k, "init": "Cao", "n_init": PROTOTYPE_STARTS, "random_state": seed, "n_jobs": 1}
    with calm():
        if not own.numbers.shape[1]:
            labels = kmodes.KModes(**options).fit_predict(own.categories.astype(str))
        else:
            table = np.concatenate([own.numbers.astype(object), own.categories], axis=1)
            named = list(range(own.numbers.shape[1], table.shape[1]))
            labels = kprototypes.KPrototypes(**options).fit_predict(table, categorical=named)
    return np.asarray(labels, dtype=np.int64)


def gower_average(frame: pl.DataFrame, plan: TextPlan, k: int, seed: int) -> Labels:
    """Average linkage by Gower distance. It draws nothing at random."""
    from sklearn.cluster import AgglomerativeClustering

    apart = _gower(frame, plan)
    with calm():
        return np.asarray(
            AgglomerativeClustering(n_clusters=k, metric="precomputed", linkage="average").fit(apart).labels_, np.int64
        )


def gower_spectral(frame: pl.DataFrame, plan: TextPlan, k: int, seed: int) -> Labels:
    """Spectral clustering by exp(-D² / 2σ²) of Gower distances D; σ is half the median distance."""
    from sklearn.cluster import SpectralClustering

    apart = _gower(frame, plan).astype(np.float64)
    pairs = apart[np.triu_indices(len(apart), 1)]
    middle = float(np.median(pairs)) or float(pairs.mean())  # 0 where most rows are alike
    if not middle:
        raise ErasmoError("Got rows that are all alike", expected="distances above 0")
    near = np.exp(-(apart**2) / (2 * (WIDTH * middle) ** 2))
    with calm():
        return np.asarray(
            SpectralClustering(n_clusters=k, affinity="precomputed", random_state=seed).fit(near).labels_, np.int64
        )


def _gower(frame: pl.DataFrame, plan: TextPlan) -> Floats:
    apart = gower_distances(frame, plan.columns)
    if apart is None:
        raise no_column()
    return apart


def skrub_kmeans(frame: pl.DataFrame, plan: TextPlan, k: int, seed: int) -> Labels:
    """skrub's TableVectorizer as it comes, means for what is missing, every dimension standardised; k-means."""
    skrub = library("skrub")
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = [column for column in plan.columns if column.kind != "nested"]
    if not columns:
        raise no_column()
    table = frame.select(_for_skrub(frame[column.name], column.kind) for column in columns)
    vectorizer = skrub.TableVectorizer(high_cardinality=skrub.StringEncoder(random_state=seed))
    with calm():
        values = vectorizer.fit_transform(table).to_numpy().astype(np.float64)
        scaling = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
        return kmeans(scaling.fit_transform(values), k, seed)


def _for_skrub(series: pl.Series, kind: str) -> pl.Series:
    """A column as skrub knows columns: dates as they are, other moments and every number as numbers, else texts."""
    if kind == "number" or series.dtype in (pl.Time, pl.Duration):
        return pl.Series(series.name, measured(series).astype(np.float64))
    if series.dtype.is_temporal() or series.dtype == pl.Boolean:
        return series
    return series.cast(pl.String)


# Name -> its function and the libraries that it needs, loaded before the clock starts.
PEERS: dict[str, tuple[Peer, tuple[str, ...]]] = {
    "onehot-kmeans": (one_hot_kmeans, ("sklearn.cluster",)),
    "famd-kmeans": (famd_kmeans, ("sklearn.cluster", "pandas", "prince")),
    "kprototypes": (kprototypes, ("sklearn.cluster", "kmodes.kprototypes")),
    "gower-average": (gower_average, ("sklearn.cluster",)),
    "gower-spectral": (gower_spectral, ("sklearn.cluster",)),
    "skrub-kmeans": (skrub_kmeans, ("sklearn.pipeline", "sklearn.impute", "skrub")),
}
