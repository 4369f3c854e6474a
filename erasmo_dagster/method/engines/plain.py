"""Padded batches of sequences of like length: what every causal language model can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from erasmo_dagster.method.batches import Sequences, padded, split_by_tokens
from erasmo_dagster.method.engines.base import (
    Engine,
    Pooled,
    as_vectors,
    reads_last,
    rotation_limit,
    states_of,
)
from erasmo_dagster.settings import EmbeddingSettings

if TYPE_CHECKING:
    import torch

_TOKENS = {"cpu": 4096}
_TOKENS_ELSEWHERE = 16_384


class PlainEngine(Engine):
    """Reads sequences in batches of at most ``batch_tokens`` tokens, padding included, the longest first.

    Padding is masked and pooled nowhere, so that a sequence's vector does not depend on those beside it. Where the
    longest one would turn the positions of all, long ones are read alone.
    """

    def __init__(self, model: Any, device: torch.device, batch_tokens: int | None = None) -> None:
        super().__init__(batch_tokens or _TOKENS.get(device.type, _TOKENS_ELSEWHERE))
        self._blocks, self._device = model.base_model, device  # without the output layer over the vocabulary
        self._limit = rotation_limit(model)

    def tokens(self, sequences: Sequences) -> int:
        """All of them."""
        return sum(map(len, sequences))

    def parts(self, sequences: Sequences, ways: Sequence[EmbeddingSettings]) -> Iterator[Pooled]:
        """Batch by batch."""
        for group in self._groups([len(s) for s in sequences]):
            batch = [sequences[i] for i in group]
            if self._limit is not None and len(batch[0]) > self._limit:
                self._vectors([batch[0][:1]], [])  # a short text turns positions back from those of the last long one
            yield Pooled(np.asarray(group, dtype=np.intp), self._vectors(batch, ways), sum(map(len, batch)))

    def _groups(self, lengths: list[int]) -> list[list[int]]:
        limit = max(lengths) if self._limit is None else self._limit
        alone = [i for i, length in enumerate(lengths) if length > limit]
        together = [i for i, length in enumerate(lengths) if length <= limit]
        groups = split_by_tokens([lengths[i] for i in together], self.size)
        return [*([i] for i in alone), *([together[i] for i in group] for group in groups)]

    def _vectors(self, batch: Sequences, ways: Sequence[EmbeddingSettings]) -> list[np.ndarray]:
        import torch

        ids, mask = padded(batch, self._device)
        with torch.inference_mode():
            deep = not all(map(reads_last, ways))
            out = self._blocks(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=deep)
            return [as_vectors(_pool(states_of(out, way), mask, way), way) for way in ways]


def _pool(states: torch.Tensor, mask: torch.Tensor, way: EmbeddingSettings) -> torch.Tensor:
    if way.pooling == "last":
        return states[range(len(states)), mask.sum(1) - 1]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
