"""Text -> vector: what an encoder is, and the one that reads a causal language model's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import padded, split_by_tokens, tokenize
from erasmo_dagster.method.loading import load_model
from erasmo_dagster.settings import EmbeddingSettings

if TYPE_CHECKING:
    import torch


class Encoder(Protocol):
    """Turns texts into vectors; equal texts get equal vectors."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 vector a text, in the texts' order: [n, d]."""
        ...


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
        sequences = self._sequences(texts)
        vectors = np.empty((len(texts), 0), dtype=np.float32)
        with progress.bar("embedding", self.tokens, "tokens") as shown:
            for group in split_by_tokens([len(s) for s in sequences], self.settings.batch_tokens):
                batch = [sequences[i] for i in group]
                pooled = self._pooled(batch)
                if vectors.shape[1] == 0:
                    vectors = np.empty((len(texts), pooled.shape[1]), dtype=np.float32)
                vectors[group] = pooled
                shown.update(sum(map(len, batch)))
        return vectors

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

    def _pooled(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        import torch

        ids, mask = padded(batch, self._loaded.device)
        with torch.inference_mode():
            vectors = self._pool(self._hidden(ids, mask), mask)
            if self.settings.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def _hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The states to pool, fp32 [n, tokens, d]."""
        import torch

        last = self.settings.pooling != "mean_layers" and self.settings.layer == -1
        out = self._blocks(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=not last)
        if last:
            return out.last_hidden_state.float()  # type: ignore[no-any-return]
        states = out.hidden_states  # the token embeddings, then every block's output
        if self.settings.pooling == "mean_layers":
            return torch.stack(list(states[1:])).float().mean(0)
        layer = self.settings.layer
        if not -len(states) <= layer < len(states):
            raise ErasmoError(
                f"Got embedding.layer {layer}",
                expected=f"0 (the token embeddings) to {len(states) - 1}, or -1 (the last) to -{len(states)}",
            )
        return states[layer].float()  # type: ignore[no-any-return]

    def _pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.settings.pooling == "last":
            return states[range(len(states)), mask.sum(1) - 1]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)
