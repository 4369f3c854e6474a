"""One pass of a language model for all who want vectors of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.encoders import Encoder
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import EmbeddingSettings


class Late:
    """An encoder that is opened when it is first asked: where a cache has everything, no model is loaded."""

    def __init__(self, opened: Callable[[], Encoder]) -> None:
        self._open = opened

    @cached_property
    def encoder(self) -> Any:
        """The encoder itself."""
        return self._open()

    @property
    def tokens(self) -> int:
        """As the encoder tells; 0 where it was not asked, or counts none."""
        return int(getattr(self.encoder, "tokens", 0)) if "encoder" in vars(self) else 0

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """As the encoder tells, of the texts of the last call."""
        own = getattr(self.encoder, "truncated", None)
        return np.zeros(self._texts, dtype=bool) if own is None else own

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As the encoder does."""
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """As the encoder does; all at once where it has no batches."""
        self._texts = len(texts)
        if hasattr(self.encoder, "batches"):
            yield from self.encoder.batches(texts)
        else:
            yield np.arange(len(texts)), np.asarray(self.encoder.encode(texts), dtype=np.float32)


class ReadsForAll(Late):
    """A causal language model that is read once for several settings of pooling and layer.

    Its own vectors are those of the first of ``ways``; those of each other go into that one's cache.
    """

    def __init__(self, encoder: Late, ways: Sequence[EmbeddingSettings], caches: Sequence[VectorCache]) -> None:
        super().__init__(lambda: encoder.encoder)
        self._ways, self._caches = ways, caches

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """The vectors of the first way, batch by batch."""
        self._texts = len(texts)
        for positions, (own, *others) in self.encoder.batches_of_ways(texts, self._ways):
            read, cut = [texts[i] for i in positions], self.encoder.truncated[positions]
            for cache, vectors in zip(self._caches, others, strict=True):
                cache.keep(read, vectors, cut)
            yield positions, own
