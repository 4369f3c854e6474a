"""What an encoder is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Batch = tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors; equal texts get equal vectors.

    After ``encode``, an encoder may tell of it: ``tokens`` (number read), ``distinct_tokens`` (those it computed, where
    texts that begin alike share them), ``truncated`` (bool[n], texts cut) and ``engine`` (how it reads, in words).
    """

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One float32 vector a text, in the texts' order: [n, d]."""
        ...


@runtime_checkable
class BatchEncoder(Encoder, Protocol):
    """An encoder whose work can be kept as it comes: what is done is not lost when it stops."""

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Positions int[m] in ``texts`` and their vectors float32[m, d], batch by batch, in any order."""
        ...


@runtime_checkable
class FittedEncoder(Encoder, Protocol):
    """An encoder that learns from the corpus: a vocabulary, ranges, weights."""

    def save(self, folder: Path) -> None:
        """Write what was learnt into ``folder``, which exists and is empty: JSON and safetensors."""
        ...


def assembled(n: int, batches: Iterator[Batch]) -> npt.NDArray[np.float32]:
    """The vectors float32[n, d] of all batches, in the texts' order; [0, 0] for no texts."""
    vectors = np.empty((n, 0), dtype=np.float32)
    for positions, part in batches:
        if vectors.shape[1] == 0:
            vectors = np.empty((n, part.shape[1]), dtype=np.float32)
        vectors[positions] = part
    return vectors
