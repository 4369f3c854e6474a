"""Ideas about the columns: the project's mixture with one thing changed, and rows' vectors beside its columns.

Every function draws the segments of a sample: labels int64[n] from its rows, the readers of texts and a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.features import no_column
from benchmarks.quality.peers import Labels, calm, kmeans
from benchmarks.quality.reading import LAST, Floats, Reader, causal_reader, layer_of, sentence_reader, texts_of
from benchmarks.quality.suite import Sample
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.parts import Encode
from erasmo_dagster.method.tables.referee import by_words
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.settings import ClusteringSettings


@dataclass(eq=False)
class Readers:
    """The language models that a fit reads by; neither is fetched before its first text.

    ``shared_seconds`` is other work that the fit takes from one before.
    """

    sentences: Reader
    causal: Reader
    shared_seconds: float = 0.0

    @property
    def kept_seconds(self) -> float:
        """All that the fit need not do again."""
        return self.sentences.kept_seconds + self.causal.kept_seconds + self.shared_seconds

    @property
    def kept_mb(self) -> float:
        """The most memory held meanwhile."""
        return max(self.sentences.kept_mb, self.causal.kept_mb)

    @classmethod
    def of(cls, place: Any) -> Readers:
        """Those of a :class:`~benchmarks.quality.methods.Place`."""
        return cls(
            sentence_reader(place.sentence_model, place.models, place.cache),
            causal_reader(place.base_model, place.models, place.cache),
        )

    def minilm(self, sample: Sample) -> Floats:
        """The rows by the sentence encoder, float32[n, d]."""
        return self.sentences(texts_of(sample))

    def causal_rows(self, sample: Sample, layer: int = LAST) -> Floats:
        """The rows by a layer of the untuned causal language model, float32[n, d]."""
        return layer_of(self.causal(texts_of(sample)), layer)


Draw = Callable[[Sample, Readers, int], Labels]
Rows = Callable[[Readers, Sample], Floats]


@contextmanager
def changed(**values: Any) -> Iterator[None]:
    """Names of the mixture's modules (``module__NAME``) with other values while the context is open."""
    from erasmo_dagster.method.algorithms import mixed
    from erasmo_dagster.method.tables import mixture, parts

    modules = {"mixed": mixed, "mixture": mixture, "parts": parts}
    places = [(modules[name.partition("__")[0]], name.partition("__")[2], value) for name, value in values.items()]
    before = [getattr(module, name) for module, name, _ in places]
    try:
        for module, name, value in places:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)


def mixture(
    sample: Sample,
    encode: Encode,
    seed: int,
    *,
    columns: Sequence[ColumnPlan] | None = None,
    vectors: Floats | None = None,
) -> Labels:
    """The project's mixture of the columns, by default of all, with ``vectors`` float32[n, d] as one more part."""
    plans = sample.plan.columns if columns is None else columns
    space, points = TableSpace.fit(sample.frame, plans, encode, vectors=vectors, seed=seed)
    settings = ClusteringSettings(method="mixture", k=sample.k)
    return cluster(points, settings, seed=seed, layout=space.layout).labels


def other_mixture(**values: Any) -> Draw:
    """The mixture with other values of its constants, as :func:`changed` takes them."""

    def draw(sample: Sample, readers: Readers, seed: int) -> Labels:
        with changed(**values):
            return mixture(sample, readers.sentences, seed)

    return draw


def no_texts(sample: Sample, readers: Readers, seed: int) -> Labels:
    """Columns of text left out."""
    columns = [column for column in sample.plan.columns if column.kind != "text"]
    if not columns:
        raise no_column()
    return mixture(sample, readers.sentences, seed, columns=columns)


def texts_by_words(sample: Sample, readers: Readers, seed: int) -> Labels:
    """Columns of text by components of their words' TF-IDF."""

    def encode(texts: Sequence[str]) -> Floats:
        with calm():
            return by_words(texts, seed)

    return mixture(sample, encode, seed)


def one_view(points: Floats, layout: Layout, k: int, *, count: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Starts of the mixture by k-means of all dimensions alone: a layout without kinds has no other view."""
    from erasmo_dagster.method.tables.starts import starts

    return starts(points, Layout(0, (), ()), k, count=count, seed=seed)


def points_kmeans(sample: Sample, readers: Readers, seed: int) -> Labels:
    """k-means on the mixture's points."""
    _, points = TableSpace.fit(sample.frame, sample.plan.columns, readers.sentences, seed=seed)
    return kmeans(points, sample.k, seed)


def beside_mixture(rows: Rows) -> Draw:
    """The mixture with the rows' own vectors as one more part."""

    def draw(sample: Sample, readers: Readers, seed: int) -> Labels:
        return mixture(sample, readers.sentences, seed, vectors=rows(readers, sample))

    return draw


def weighted_blocks(weight: float, rows: Rows | None = None) -> Draw:
    """k-means of blocks: each column, and the rows' own vectors at ``weight``.

    Every block is centred and divided by its first singular value, as in multiple factor analysis (Escofier and Pagès,
    1994).
    """

    def draw(sample: Sample, readers: Readers, seed: int) -> Labels:
        space, points = TableSpace.fit(sample.frame, sample.plan.columns, readers.sentences, seed=seed)
        with calm():
            blocks = [_balanced(points[:, span]) for span in space.spans]
            if rows is not None:
                blocks.append(weight * _balanced(rows(readers, sample)))
        return kmeans(np.concatenate(blocks, axis=1), sample.k, seed)

    return draw


def _balanced(block: Floats) -> npt.NDArray[np.float64]:
    """A block centred, its first singular value the root of the number of rows."""
    centred = np.asarray(block - block.mean(axis=0, dtype=np.float64), dtype=np.float64)
    first = float(np.linalg.norm(centred, ord=2))
    scaled: npt.NDArray[np.float64] = centred * (np.sqrt(len(block)) / first) if first > 0 else centred
    return scaled
