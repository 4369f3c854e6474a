"""`clustering.method: auto`: several ways to segment one table, compared by what their segments tell
of its columns.

Every candidate is drawn on the same rows with the same number of segments, and the one whose segments save the most
bits in describing the source's own columns is taken (:class:`~erasmo_dagster.method.tables.referee.Referee`). No
candidate's own space has a say, and no label.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.tables.mixture import LEAST_SHARE
from erasmo_dagster.method.tables.parts import Encode, Floats
from erasmo_dagster.method.tables.referee import Referee
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.method.tables.texts import text_encoder
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import ClusteringSettings

# Rows that candidates are compared on, a seeded sample where there are more.
COMPARED_ROWS = 2_000
HOW_TO_READ = (
    "Bits saved: how much shorter the segments make the description of a row's columns; more is better, below 0 they "
    "cost more than they tell."
)


@dataclass(frozen=True)
class Candidate:
    """One way to segment the table: ``bits_saved`` a row of those compared, ``smallest`` the smallest segment's share.

    ``refused`` says why it could not be drawn, or may not win; empty where it may.
    """

    name: str
    bits_saved: float | None
    smallest: float
    seconds: float
    refused: str = ""


@dataclass(frozen=True, eq=False)
class TableSegments:
    """Segments of a table: ``result`` with its labels and model, and the ``points`` float32[n, d] that it is drawn in.

    ``space`` is what the points are of, None where they are the encoder's vectors; ``texts`` the revision of the
    sentence encoder that it reads texts by, if any. ``chosen`` names the candidate that was taken, ``candidates`` are
    all that were compared, best first; none where the settings name the method.
    """

    result: ClusterResult
    points: Floats
    space: TableSpace | None = None
    texts: str | None = None
    chosen: str = ""
    candidates: tuple[Candidate, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The segment of each row, int64[n]."""
        return self.result.labels

    @property
    def k(self) -> int:
        """Number of segments."""
        return self.result.k


def segment_table(
    frame: pl.DataFrame,
    plan: TextPlan,
    clustering: ClusteringSettings,
    *,
    seed: int,
    models_dir: Path,
    vectors: Floats | None = None,
) -> TableSegments:
    """Segments of the rows of ``frame``, by the columns of ``plan``; for `auto` by the best candidate.

    ``vectors`` float32[n, d] are the rows' own, by an encoder; where given they are candidates as well, alone and as
    one more part beside the columns.

    Raises ErasmoError as clustering does, and where no candidate can be drawn.
    """
    encode = text_encoder(clustering.text_model, models_dir)
    if clustering.method != "auto":
        found = _drawn(_Way(clustering), frame, plan, encode, None, seed)
        return replace(found, texts=_revision(found.space, clustering, models_dir), chosen=clustering.method)
    ways = _ways(clustering, vectors is not None)
    sample = np.sort(np.random.default_rng(seed).permutation(frame.height)[:COMPARED_ROWS])
    own = None if vectors is None else vectors[sample]
    candidates = _compare(ways, frame[sample], plan, encode, own, seed)
    eligible = [candidate for candidate in candidates if not candidate.refused]
    if not eligible:
        reasons = "; ".join(f"{candidate.name}: {candidate.refused}" for candidate in candidates)
        raise ErasmoError(
            f"Got no segments from clustering.method=auto ({reasons})",
            expected="at least one way to segment the table",
            fix="lower clustering.k, or set clustering.method",
        )
    chosen = eligible[0].name
    found = _drawn(ways[chosen], frame, plan, encode, vectors, seed)
    revision = _revision(found.space, clustering, models_dir)
    return replace(found, texts=revision, chosen=chosen, candidates=tuple(candidates))


def _revision(space: TableSpace | None, clustering: ClusteringSettings, models_dir: Path) -> str | None:
    needed = space is not None and space.needs_texts
    return resolve(clustering.text_model, models_dir).revision if needed else None


@dataclass(frozen=True)
class _Way:
    """``settings`` of the clustering, on the columns, the vectors, or both."""

    settings: ClusteringSettings
    columns: bool = True
    vectors: bool = False


def _ways(clustering: ClusteringSettings, with_vectors: bool) -> dict[str, _Way]:
    def by(method: str) -> ClusteringSettings:
        options = {"k": clustering.k, "n_init": clustering.n_init}
        if clustering.k == "auto":
            options |= {"k_min": clustering.k_min, "k_max": clustering.k_max}
        return ClusteringSettings.model_validate({"method": method, **options})

    ways = {
        "columns, mixture": _Way(by("mixture")),
        "columns, k-means": _Way(by("kmeans++")),
    }
    if with_vectors:
        ways["vectors, k-means"] = _Way(by("kmeans++"), columns=False, vectors=True)
        ways["columns and vectors, mixture"] = _Way(by("mixture"), vectors=True)
    return ways


def _drawn(
    way: _Way, frame: pl.DataFrame, plan: TextPlan, encode: Encode, vectors: Floats | None, seed: int
) -> TableSegments:
    if not way.columns:
        assert vectors is not None
        return TableSegments(cluster(vectors, way.settings, seed=seed), vectors)
    space, points = TableSpace.fit(frame, plan.columns, encode, vectors=vectors if way.vectors else None, seed=seed)
    return TableSegments(cluster(points, way.settings, seed=seed, layout=space.layout), points, space)


def _compare(
    ways: dict[str, _Way], frame: pl.DataFrame, plan: TextPlan, encode: Encode, vectors: Floats | None, seed: int
) -> list[Candidate]:
    """All candidates, best first; where k is `auto` the first way's number of segments is that of all."""
    referee = Referee(frame, plan.columns, seed=seed)
    candidates = []
    k: int | None = None
    for name, way in ways.items():
        started = time.monotonic()
        settings = way.settings if k is None else _with_k(way.settings, k)
        try:
            result = _drawn(replace(way, settings=settings), frame, plan, encode, vectors, seed).result
        except ErasmoError as error:
            candidates.append(Candidate(name, None, 0.0, time.monotonic() - started, str(error)))
            continue
        k = k or result.k
        smallest = float(np.bincount(result.labels[result.labels >= 0]).min() / frame.height)
        refused = f"a segment holds {smallest:.1%} of the rows" if smallest < LEAST_SHARE else ""
        bits = referee.bits_saved(result.labels)
        candidates.append(Candidate(name, bits, smallest, time.monotonic() - started, refused))
    if all(candidate.refused for candidate in candidates):  # a small segment is better than none
        candidates = [c if c.bits_saved is None else replace(c, refused="") for c in candidates]
    order = list(ways)
    return sorted(candidates, key=lambda c: (bool(c.refused), -(c.bits_saved or -np.inf), order.index(c.name)))


def _with_k(settings: ClusteringSettings, k: int) -> ClusteringSettings:
    options = settings.model_dump(exclude={"k", "k_min", "k_max", "choose_by"})
    return ClusteringSettings.model_validate({**options, "k": k})


def language_model_says(candidates: Sequence[Candidate]) -> str:
    """One sentence on whether the rows' own vectors add anything to what the columns say."""
    with_vectors = [c.bits_saved for c in candidates if c.bits_saved is not None and "vectors" in c.name]
    without = [c.bits_saved for c in candidates if c.bits_saved is not None and "vectors" not in c.name]
    if not with_vectors or not without:
        return ""
    gain = max(with_vectors) - max(without)
    if gain > 0:
        return f"The encoder's vectors add {gain:.2g} bits a row to what the columns alone tell."
    return f"The encoder's vectors add nothing to what the columns alone tell ({-gain:.2g} bits a row less)."
