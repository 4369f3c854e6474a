"""`clustering.method: auto`: several ways to segment one table, compared by what their segments tell
of its columns.

Every candidate is drawn on the same rows with the same number of segments, and the one whose segments save the most
bits in describing the source's own columns is taken (:class:`~erasmo_dagster.method.tables.referee.Referee`). Where
none saves more than twice its standard error, the referee cannot tell, and the mixture of the columns is taken. No
candidate's own space has a say, and no label. Separation, Gower silhouette, tree and stability are told of each where
asked for, and choose nothing: on tables with known groups, choosing by any of them was worse. Where the number of
segments is `auto`, the mixture of the columns chooses it for all candidates, by all rows; or that of columns and
vectors, where no number tells of the columns alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.candidates import Candidate, Measured, attempted
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.measures import Stability
from erasmo_dagster.method.peers import PEERS, ROW_TEXTS, by_nearest_row, peer_steadiness
from erasmo_dagster.method.steadiness import steadiness
from erasmo_dagster.method.tables.mixture import LEAST_SHARE
from erasmo_dagster.method.tables.parts import Encode, Floats
from erasmo_dagster.method.tables.referee import Referee
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.method.tables.texts import TextModelError, text_encoder
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import ClusteringSettings

# Rows that candidates are compared on, a seeded sample where there are more. Peers are drawn on no others.
COMPARED_ROWS = 2_000
ON_VECTORS = "vectors, k-means"
NOTHING_TO_COMPARE_BY = (
    "No column tells rows apart, so no ways were compared: the segments are of the encoder's vectors."
)
NOTHING_SAVED = (
    "None of the ways compared tells more of the columns, beyond doubt, than its segments cost to describe: the first "
    "of them is taken, whatever the others save."
)
BEYOND_DOUBT = 2.0  # standard errors above 0 of the bits saved
# Of the stability of candidates, each of which is drawn anew for it; that of the segments taken has more of both.
STEADY_ROWS, STEADY_RESAMPLES = 500, 4


@dataclass(frozen=True, eq=False)
class TableSegments:
    """Segments of a table: ``result`` with its labels and model, and the ``points`` float32[n, d] that it is drawn in.

    ``space`` is what the points are of, None where they are the encoder's vectors; ``texts`` the revision of the
    sentence encoder that it reads texts by, if any. ``chosen`` names the candidate that was taken, ``candidates`` are
    all that were compared, best first; none where the settings name the method. ``stability`` is of these segments,
    None where it was not asked for or is not defined.
    """

    result: ClusterResult
    points: Floats
    space: TableSpace | None = None
    texts: str | None = None
    chosen: str = ""
    candidates: tuple[Candidate, ...] = ()
    stability: Stability | None = None

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
    encode: Encode | None = None,
    measured: bool = False,
    kept: Path | None = None,
) -> TableSegments:
    """Segments of the rows of ``frame``, by the columns of ``plan``; for `auto` by the best candidate.

    ``vectors`` float32[n, d] are the rows' own, by an encoder; where given they are candidates as well, alone and as
    one more part beside the columns. ``encode`` reads texts as ``clustering.text_model`` does; None is that model
    itself, whose vectors are kept in the folder ``kept``, if any, and read there the next time. ``measured`` asks for
    the stability of the segments, and for all figures of the candidates, which take about as long again.

    Raises ErasmoError as clustering does, and where no candidate can be drawn. Where the sentence encoder cannot be
    had, that is TextModelError for a table with columns of text: a network that fails must not decide on the segments.
    Without any, the candidate that it reads whole rows for is refused.
    """
    encode = _failing_once(encode or text_encoder(clustering.text_model, models_dir, kept=kept))
    table = _Table(frame, plan, encode, vectors, seed)
    if clustering.method == "auto":
        found = _best(table, clustering, measured)
    else:
        found = replace(table.drawn(_Way(clustering)), chosen=clustering.method)
        if measured:
            found = replace(found, stability=attempted(lambda: table.stability(_Way(clustering), found)))
    if found.space is not None and found.space.needs_texts:
        return replace(found, texts=resolve(clustering.text_model, models_dir).revision)
    return found


def _failing_once(encode: Encode) -> Encode:
    """``encode``, which raises its first ErasmoError ever after: looking for a model that is not there takes long."""
    failed: list[ErasmoError] = []

    def known(texts: Sequence[str]) -> Floats:
        if failed:
            raise failed[0]
        try:
            return encode(texts)
        except ErasmoError as error:
            failed.append(error)
            raise

    return known


@dataclass(frozen=True)
class _Way:
    """``settings`` of the clustering, on the columns, the vectors, or both; or the one of PEERS that is named."""

    settings: ClusteringSettings
    columns: bool = True
    vectors: bool = False
    peer: str = ""

    def with_k(self, k: int) -> _Way:
        options = self.settings.model_dump(exclude={"k", "k_min", "k_max", "choose_by"})
        return replace(self, settings=ClusteringSettings.model_validate({**options, "k": k}))


def _ways(clustering: ClusteringSettings, with_vectors: bool) -> dict[str, _Way]:
    def by(method: str) -> ClusteringSettings:
        options = clustering.model_dump(include={"k", "n_init", "k_min", "k_max", "choose_by", "metrics_rows"})
        if method != "mixture" and options.get("choose_by") == "bits_saved":
            del options["choose_by"]  # which is of mixtures
        return ClusteringSettings.model_validate({**options, "method": method})

    ways = {
        "columns, mixture": _Way(by("mixture")),
        "columns, k-means": _Way(by("kmeans++")),
    }
    if with_vectors:
        ways[ON_VECTORS] = _Way(by("kmeans++"), columns=False, vectors=True)
        ways["columns and vectors, mixture"] = _Way(by("mixture"), vectors=True)
    return ways | {name: _Way(by("kmeans++"), peer=name) for name in PEERS}


@dataclass(frozen=True, eq=False)
class _Table:
    """The rows that segments are drawn of; what has been drawn of them is kept, by the way."""

    frame: pl.DataFrame
    plan: TextPlan
    encode: Encode
    vectors: Floats | None
    seed: int
    _kept: dict[_Way, tuple[TableSegments, float]] = field(default_factory=dict)

    @cached_property
    def _in_columns(self) -> tuple[TableSpace, Floats]:
        return TableSpace.fit(self.frame, self.plan.columns, self.encode, seed=self.seed)

    @cached_property
    def compared(self) -> npt.NDArray[np.int64]:
        """The rows that candidates are compared on, int64[m], ascending."""
        order = np.random.default_rng(self.seed).permutation(self.frame.height)
        return np.sort(order[:COMPARED_ROWS])

    def sample(self) -> _Table:
        """The rows compared; itself where these are all."""
        if len(self.compared) == self.frame.height:
            return self
        own = None if self.vectors is None else self.vectors[self.compared]
        return _Table(self.frame[self.compared], self.plan, self.encode, own, self.seed)

    def drawn(self, way: _Way) -> TableSegments:
        """Segments of all rows. Raises ErasmoError where there are none by this way."""
        return self.timed(way)[0]

    def timed(self, way: _Way) -> tuple[TableSegments, float]:
        """The same, and the seconds that it took."""
        if way not in self._kept:
            started = time.monotonic()
            found = self._draw(way)
            self._kept[way] = found, time.monotonic() - started
        return self._kept[way]

    def same(self, way: _Way, drawn: _Way) -> None:
        """Take what has been ``drawn`` for what ``way`` gives, which is known to be the same."""
        self._kept[way] = self._kept[drawn]

    def _draw(self, way: _Way) -> TableSegments:
        if not way.columns:
            assert self.vectors is not None
            return TableSegments(cluster(self.vectors, way.settings, seed=self.seed), self.vectors)
        if way.vectors:
            columns, seed = self.plan.columns, self.seed
            space, points = TableSpace.fit(self.frame, columns, self.encode, vectors=self.vectors, seed=seed)
        else:
            space, points = self._in_columns
        if way.peer:
            k, rows = way.settings.k, self.compared
            assert isinstance(k, int)
            labels = PEERS[way.peer](self.frame[rows], self.plan, k, way.settings.n_init, self.seed, self.encode)
            result = by_nearest_row(points, rows, labels)
            if result.k < k:
                told = f"Asked for k={k}, {way.peer} told {result.k} segments apart."
                result = replace(result, notes=(*result.notes, told))
            return TableSegments(result, points, space)
        result = cluster(points, way.settings, seed=self.seed, layout=space.layout)
        return TableSegments(result, points, space)

    def stability(self, way: _Way, found: TableSegments, *, rows: int = 1_000, resamples: int = 10) -> Stability | None:
        """How stable the segments ``found`` by ``way`` are, on at most ``rows`` of the rows that it draws on."""
        if not way.peer:
            layout = None if found.space is None else found.space.layout
            return steadiness(
                found.points, found.labels, way.settings, layout, seed=self.seed, rows=rows, resamples=resamples
            )
        own = self.compared
        return peer_steadiness(
            way.peer,
            self.frame[own],
            self.plan,
            found.points[own],
            found.labels[own],
            n_init=way.settings.n_init,
            encode=self.encode,
            seed=self.seed,
            rows=rows,
            resamples=resamples,
        )


def _best(table: _Table, clustering: ClusteringSettings, measured: bool) -> TableSegments:
    """The segments of the candidate that saves the most bits, with all that were compared."""
    ways = _ways(clustering, table.vectors is not None)
    swept: ClusterResult | None = None
    if clustering.k == "auto":
        swept = _choosing(table, ways)
        k = swept.k
        ways = {name: way.with_k(k) for name, way in ways.items()}
    sample = table.sample()
    try:
        referee = Referee(sample.frame, sample.plan.columns, seed=sample.seed)
    except ErasmoError:
        if table.vectors is None:
            raise
        return _undisputed(table, ways[ON_VECTORS], swept, measured)
    candidates = _compare(sample, ways, referee, measured)
    eligible = [candidate for candidate in candidates if not candidate.refused]
    if not eligible:
        raise _nothing({candidate.name: candidate.refused for candidate in candidates})
    chosen = next((c for c in eligible if not c.doubtful), None)
    if chosen is None:  # none tells anything of the columns: what is fitted to them all comes first
        chosen = min(eligible, key=lambda c: list(ways).index(c.name))
    found = table.drawn(ways[chosen.name])
    stable = attempted(lambda: table.stability(ways[chosen.name], found)) if measured else None
    if measured:
        steady = {chosen.name: None if stable is None else stable.ari}
        steady |= {
            c.name: _steady(sample, ways[c.name]) for c in candidates if c.bits_saved is not None and c != chosen
        }
        candidates = [replace(candidate, stability=steady.get(candidate.name)) for candidate in candidates]
    result = found.result
    if swept is not None:
        result = replace(result, sweep=swept.sweep, reason=swept.reason)
    if chosen.doubtful:
        result = replace(result, notes=(*result.notes, NOTHING_SAVED))
    return replace(found, result=result, chosen=chosen.name, candidates=tuple(candidates), stability=stable)


def _choosing(table: _Table, ways: dict[str, _Way]) -> ClusterResult:
    """What says the number of segments for all: the first mixture whose segments save bits in its own points.

    Where none does, the first way that can be drawn.
    """
    refused: dict[str, str] = {}
    first: ClusterResult | None = None
    for name, way in sorted(ways.items(), key=lambda item: item[1].settings.method != "mixture"):
        if way.peer or (first is not None and way.settings.method != "mixture"):
            continue
        try:
            found = table.drawn(way).result
        except TextModelError:
            raise
        except ErasmoError as error:
            refused[name] = str(error)
            continue
        table.same(way.with_k(found.k), way)
        first = first or found
        if any(point.k == found.k and (point.bits_saved or 0.0) > 0 for point in found.sweep):
            return found
    if first is None:
        raise _nothing(refused)
    return first


def _nothing(refused: dict[str, str]) -> ErasmoError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    return ErasmoError(
        f"Got no segments from clustering.method=auto ({reasons})",
        expected="at least one way to segment the table",
        fix="lower clustering.k, or set clustering.method",
    )


def _undisputed(table: _Table, way: _Way, swept: ClusterResult | None, measured: bool) -> TableSegments:
    """The segments of the vectors, where no column can be told by any segments."""
    found = table.drawn(way)
    result = replace(found.result, notes=(*found.result.notes, NOTHING_TO_COMPARE_BY))
    if swept is not None:
        result = replace(result, sweep=swept.sweep, reason=swept.reason)
    stable = attempted(lambda: table.stability(way, found)) if measured else None
    return replace(found, result=result, chosen=ON_VECTORS, stability=stable)


def _compare(table: _Table, ways: dict[str, _Way], referee: Referee, measured: bool) -> list[Candidate]:
    """All candidates, best first."""
    measures = Measured(table.frame, table.plan.columns, table.seed)
    candidates = []
    for name, way in ways.items():
        started = time.monotonic()
        try:
            found, seconds = table.timed(way)
        except ErasmoError as error:
            if isinstance(error, TextModelError) and way.peer != ROW_TEXTS:
                raise
            candidates.append(Candidate(name, None, 0.0, time.monotonic() - started, str(error)))
            continue
        smallest = float(np.bincount(found.labels[found.labels >= 0]).min() / table.frame.height)
        refused = f"a segment holds {smallest:.1%} of the rows" if smallest < LEAST_SHARE else ""
        bits, spread = referee.saved(found.labels)
        candidate = Candidate(name, bits, smallest, seconds, refused, doubtful=bits <= BEYOND_DOUBT * spread)
        if measured:
            candidate = measures.told(candidate, found.labels)
        candidates.append(candidate)
    if all(candidate.refused for candidate in candidates):  # a small segment is better than none
        candidates = [c if c.bits_saved is None else replace(c, refused="") for c in candidates]
    order = list(ways)
    return sorted(candidates, key=lambda c: (bool(c.refused), -c.rounded_bits, order.index(c.name)))


def _steady(table: _Table, way: _Way) -> float | None:
    """How stable the segments that ``way`` has drawn on the rows compared are."""
    found = attempted(lambda: table.stability(way, table.drawn(way), rows=STEADY_ROWS, resamples=STEADY_RESAMPLES))
    return None if found is None else found.ari
