"""Rows -> vectors: each distinct text once, in the canonical column order or averaged over several."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.encoders import BatchEncoder, Encoder
from erasmo_dagster.method.encoders.base import Batch
from erasmo_dagster.method.textual import join_clauses
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import EmbeddingSettings


@dataclass(frozen=True)
class EmbeddingResult:
    """Vectors of the rows, in their order, and what they took.

    ``vectors`` is float32 [rows, d]. ``distinct_texts`` counts the texts, ``known_texts`` those of them that the cache
    had, ``tokens`` what the encoder read of the others, and ``computed`` those of them that it did not take from
    another text's beginning. ``cut`` bool[rows] says whose text was cut, as far as the
    encoder tells, and ``truncated_rows`` counts them.
    """

    vectors: np.ndarray
    rows: int
    distinct_texts: int
    cut: np.ndarray
    tokens: int
    computed: int
    seconds: float
    known_texts: int = 0

    @property
    def truncated_rows(self) -> int:
        """Rows whose text was cut."""
        return int(self.cut.sum())

    @property
    def tokens_per_second(self) -> float:
        """Speed of the encoder; 0 where it counts no tokens."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def embed_rows(
    rows: Sequence[Sequence[str]],
    encoder: Encoder,
    settings: EmbeddingSettings,
    *,
    seed: int,
    features: Sequence[str] | None = None,
    cache: VectorCache | None = None,
) -> EmbeddingResult:
    """The vector of every row, given as clauses in canonical order (arXiv 2410.03738, section 3.3).

    All rows are read in the same column order: in the paper's code each row's own shuffle drowns the content. With
    ``settings.permutations`` = n a row's vector is the mean over n seeded orders, the same for all rows. ``features``
    are the names of all columns in canonical order; without them the rows' own are taken, and a part of the rows may
    then be read in other orders than the whole.

    Texts that ``cache`` knows are not encoded again, and vectors go into it as they come, so that what is done is not
    lost when this stops; it must be open, and of this encoder alone.

    Raises ErasmoError where vectors are not finite, not one a text, or of other dimensions than the cache's.
    """
    started = time.monotonic()
    total = np.zeros((0, 0), dtype=np.float32)
    cut = np.zeros(len(rows), dtype=bool)
    distinct_texts = known_texts = tokens = computed = 0
    orders = 0
    for ordered in _orders(rows, settings.permutations, seed, features):
        distinct, where = _distinct([join_clauses(clauses) for clauses in ordered])
        encoded = _encoded(distinct, encoder, cache)
        vectors = _scaled(encoded.vectors) if settings.normalize else encoded.vectors
        if orders == 0:
            total = vectors[where]
        else:
            total += vectors[where]
        cut |= encoded.truncated[where]
        distinct_texts += len(distinct)
        known_texts += encoded.known
        tokens += encoded.tokens
        computed += encoded.computed
        orders += 1
    if orders > 1:
        total /= orders
        if settings.normalize:
            total = _scaled(total)
    return EmbeddingResult(
        vectors=total,
        rows=len(rows),
        distinct_texts=distinct_texts,
        cut=cut,
        tokens=tokens,
        computed=computed,
        seconds=time.monotonic() - started,
        known_texts=known_texts,
    )


def _orders(
    rows: Sequence[Sequence[str]], permutations: int, seed: int, names: Sequence[str] | None
) -> Iterator[list[list[str]]]:
    """The rows' clauses in the canonical order, or in each of ``permutations`` seeded orders of the features."""
    if permutations == 0:
        yield [list(row) for row in rows]
        return
    # Rows may lack a clause, where missing values are left out: the order is one of features and not of positions.
    clauses = (clause for row in rows for clause in row) if names is None else (f"{name} is " for name in names)
    features = list(dict.fromkeys(map(_feature, clauses)))
    rng = np.random.default_rng(seed)
    for _ in range(permutations):
        rank = dict(zip(features, rng.permutation(len(features)).tolist(), strict=True))
        yield [sorted(row, key=lambda clause: rank.get(_feature(clause), 0)) for row in rows]


def _feature(clause: str) -> str:
    return clause.partition(" is ")[0]


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts in order of appearance, and for each text the position of its own among them."""
    position: dict[str, int] = {}
    where = np.array([position.setdefault(text, len(position)) for text in texts], dtype=np.intp)
    return list(position), where


@dataclass(frozen=True)
class _Encoded:
    vectors: np.ndarray  # float32 [n, d]
    truncated: np.ndarray  # bool [n]
    known: int  # texts that the cache had
    tokens: int  # that the encoder read
    computed: int  # of those, what it did not know from another text


def _encoded(texts: Sequence[str], encoder: Encoder, cache: VectorCache | None) -> _Encoded:
    """The vectors of distinct texts: the cache's first, then the encoder's, which the cache keeps as they come."""
    vectors = np.zeros((len(texts), 0), dtype=np.float32)
    truncated = np.zeros(len(texts), dtype=bool)
    missing = np.arange(len(texts))
    if cache is not None:
        positions, found, cut = cache.known(texts)
        if len(positions):
            vectors = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
            vectors[positions], truncated[positions] = found, cut
        missing = np.setdiff1d(missing, positions)
    known = len(texts) - len(missing)
    if not len(missing):
        return _Encoded(vectors, truncated, known, tokens=0, computed=0)
    rest = [texts[i] for i in missing.tolist()]
    left = len(rest)
    with closing(_parts(rest, encoder)) as parts:
        for positions, part in parts:
            _check(part, len(positions))
            cut = np.asarray(getattr(encoder, "truncated", np.zeros(len(rest), dtype=bool)))[positions]
            if cache is not None:
                cache.keep([rest[i] for i in positions], part, cut)
            if vectors.shape[1] == 0:
                vectors = np.zeros((len(texts), part.shape[1]), dtype=np.float32)
            vectors[missing[positions]], truncated[missing[positions]] = part, cut
            left -= len(positions)
    if left:
        raise ErasmoError(f"Got vectors of {len(rest) - left} texts", expected=f"those of {len(rest)}")
    tokens = int(getattr(encoder, "tokens", 0))
    return _Encoded(vectors, truncated, known, tokens, int(getattr(encoder, "distinct_tokens", tokens)))


def _parts(texts: Sequence[str], encoder: Encoder) -> Generator[Batch]:
    """The encoder's vectors as they come; all at once from one that tells nothing in between."""
    if isinstance(encoder, BatchEncoder):
        yield from encoder.batches(texts)
    else:
        yield np.arange(len(texts)), np.asarray(encoder.encode(texts), dtype=np.float32)


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """The vectors at length 1; one of zeros stays."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def _check(vectors: np.ndarray, texts: int) -> None:
    if vectors.ndim != 2 or len(vectors) != texts:
        raise ErasmoError(f"Got vectors of shape {vectors.shape}", expected=f"[{texts}, d], one a text")
    if bad := int((~np.isfinite(vectors)).any(axis=1).sum()):
        raise ErasmoError(
            f"Got {bad} of {texts} vectors with NaN or infinity in them",
            expected="finite numbers",
            fix="lower `adapter.learning_rate` and run again with --retrain, or take another encoder",
        )
