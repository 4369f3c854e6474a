"""Rows -> vectors: each distinct text once, in the canonical column order or averaged over several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.encoders import Encoder
from erasmo_dagster.method.textual import join_clauses
from erasmo_dagster.settings import EmbeddingSettings


@dataclass(frozen=True)
class EmbeddingResult:
    """Vectors of the rows, in their order, and what they took.

    ``vectors`` is float32 [rows, d]. ``distinct_texts`` and ``tokens`` count what the encoder was given;
    ``truncated_rows`` counts rows whose text was cut, as far as the encoder tells.
    """

    vectors: np.ndarray
    rows: int
    distinct_texts: int
    truncated_rows: int
    tokens: int
    seconds: float

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
) -> EmbeddingResult:
    """The vector of every row, given as clauses in canonical order (arXiv 2410.03738, section 3.3).

    All rows are read in the same column order: in the paper's code each row's own shuffle drowns the content. With
    ``settings.permutations`` = n a row's vector is the mean over n seeded orders, the same for all rows. ``features``
    are the names of all columns in canonical order; without them the rows' own are taken, and a part of the rows may
    then be read in other orders than the whole.

    Raises ErasmoError where a vector is not finite.
    """
    started = time.monotonic()
    total = np.zeros((0, 0), dtype=np.float32)
    cut = np.zeros(len(rows), dtype=bool)
    distinct_texts = tokens = 0
    orders = 0
    for ordered in _orders(rows, settings.permutations, seed, features):
        texts = [join_clauses(clauses) for clauses in ordered]
        distinct, where = _distinct(texts)
        vectors = np.asarray(encoder.encode(distinct), dtype=np.float32)
        _check(vectors, distinct)
        if orders == 0:
            total = vectors[where]
        else:
            total += vectors[where]
        cut |= np.asarray(getattr(encoder, "truncated", np.zeros(len(distinct), dtype=bool)))[where]
        distinct_texts += len(distinct)
        tokens += int(getattr(encoder, "tokens", 0))
        orders += 1
    if orders > 1:
        total /= orders
        if settings.normalize:
            total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return EmbeddingResult(
        vectors=total,
        rows=len(rows),
        distinct_texts=distinct_texts,
        truncated_rows=int(cut.sum()),
        tokens=tokens,
        seconds=time.monotonic() - started,
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
        yield [sorted(row, key=lambda clause: rank[_feature(clause)]) for row in rows]


def _feature(clause: str) -> str:
    return clause.partition(" is ")[0]


def _distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts in order of appearance, and for each text the position of its own among them."""
    position: dict[str, int] = {}
    where = np.array([position.setdefault(text, len(position)) for text in texts], dtype=np.intp)
    return list(position), where


def _check(vectors: np.ndarray, texts: Sequence[str]) -> None:
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ErasmoError(f"Got vectors of shape {vectors.shape}", expected=f"[{len(texts)}, d], one a text")
    if bad := int((~np.isfinite(vectors)).any(axis=1).sum()):
        raise ErasmoError(
            f"Got {bad} of {len(texts)} vectors with NaN or infinity in them",
            expected="finite numbers",
            fix="lower `adapter.learning_rate` and run again with --retrain, or take another base model",
        )
