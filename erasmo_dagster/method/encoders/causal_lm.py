"""The encoder that reads a causal language model's hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import padded, split_by_tokens, tokenize
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.loading import load_model
from erasmo_dagster.settings import EmbeddingSettings

if TYPE_CHECKING:
    import torch


class CausalLMEncoder:
    """Hidden states of a causal language model, pooled over each text's own tokens (arXiv 2410.03738, section 3.3).

    A text's vector does not depend on the texts beside it: padding is masked and pooled nowhere. After ``encode``,
    ``truncated`` tells for each text whether it was longer than the model or ``settings.max_length`` takes,
    ``truncated_rows`` counts those, and ``tokens`` counts the tokens that went in.
    """

    def __init__(
        self, base: LocalModel, adapter: Path | None, settings: EmbeddingSettings, device: str = "auto"
    ) -> None:
        self.settings = settings
        self._loaded = load_model(base, adapter, device)
        # The blocks alone: the output layer over the vocabulary is not needed.
        self._blocks: Any = self._loaded.model.base_model
        self.max_length = min(settings.max_length or self._loaded.max_length, self._loaded.max_length)
        self.truncated = np.zeros(0, dtype=bool)
        self.tokens = 0

    @property
    def truncated_rows(self) -> int:
        """Texts of the last call that were cut."""
        return int(self.truncated.sum())

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 vector a text: [n, hidden size]. Raises ErasmoError for a layer that the model lacks."""
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """As ``encode``, batch by batch: texts of like length together."""
        for positions, (vectors,) in self.batches_of_ways(texts, [self.settings]):
            yield positions, vectors

    def batches_of_ways(
        self, texts: Sequence[str], ways: Sequence[EmbeddingSettings]
    ) -> Iterator[tuple[npt.NDArray[np.intp], list[np.ndarray]]]:
        """As ``batches``, under each of several settings of pooling, layer and length: every text is read once."""
        sequences = self._sequences(texts)
        with progress.bar("embedding", self.tokens, "tokens") as shown:
            for group in split_by_tokens([len(s) for s in sequences], self.settings.batch_tokens):
                batch = [sequences[i] for i in group]
                yield np.asarray(group, dtype=np.intp), self._vectors(batch, ways)
                shown.update(sum(map(len, batch)))

    def _sequences(self, texts: Sequence[str]) -> list[list[int]]:
        whole = tokenize(self._loaded.tokenizer, texts)
        self.truncated = np.array([len(ids) > self.max_length for ids in whole], dtype=bool)
        sequences = [ids[: self.max_length] or [self._stand_in()] for ids in whole]
        self.tokens = sum(map(len, sequences))
        return sequences

    def _stand_in(self) -> int:
        """The token that stands for a text of none."""
        tokenizer = self._loaded.tokenizer
        known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        return next((int(token) for token in known if token is not None), 0)

    def _vectors(self, batch: Sequence[Sequence[int]], ways: Sequence[EmbeddingSettings]) -> list[np.ndarray]:
        import torch

        ids, mask = padded(batch, self._loaded.device)
        vectors = []
        with torch.inference_mode():
            deep = not all(map(_reads_last, ways))
            out = self._blocks(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=deep)
            for way in ways:
                pooled = _pool(_states(out, way), mask, way)
                if way.normalize:
                    pooled = torch.nn.functional.normalize(pooled, dim=-1)
                vectors.append(np.asarray(pooled.cpu().numpy(), dtype=np.float32))
        return vectors


def _reads_last(way: EmbeddingSettings) -> bool:
    return way.pooling != "mean_layers" and way.layer == -1


def _states(out: Any, way: EmbeddingSettings) -> torch.Tensor:
    """The states to pool, fp32 [n, tokens, d]."""
    import torch

    if _reads_last(way):
        return out.last_hidden_state.float()  # type: ignore[no-any-return]
    states = out.hidden_states  # the token embeddings, then every block's output
    if way.pooling == "mean_layers":
        return torch.stack(list(states[1:])).float().mean(0)
    if not -len(states) <= way.layer < len(states):
        raise ErasmoError(
            f"Got embedding.layer {way.layer}",
            expected=f"0 (the token embeddings) to {len(states) - 1}, or -1 (the last) to -{len(states)}",
        )
    return states[way.layer].float()  # type: ignore[no-any-return]


def _pool(states: torch.Tensor, mask: torch.Tensor, way: EmbeddingSettings) -> torch.Tensor:
    if way.pooling == "last":
        return states[range(len(states)), mask.sum(1) - 1]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
