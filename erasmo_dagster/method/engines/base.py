"""What the engines have in common: which hidden states are read, and how they become one vector a sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.batches import Sequences
from erasmo_dagster.settings import EmbeddingSettings

if TYPE_CHECKING:
    import torch

LEAST = 256  # tokens at once, below which no memory is too small


@dataclass(frozen=True, eq=False)
class Pooled:
    """Vectors float32[m, d], one array a way of pooling, of the sequences at ``positions`` int[m].

    ``tokens`` is the number that was computed for them.
    """

    positions: npt.NDArray[np.intp]
    vectors: list[npt.NDArray[np.float32]]
    tokens: int


class Engine(ABC):
    """Reads token sequences with ``size`` tokens at once; fewer from where on the memory of a GPU is too small."""

    def __init__(self, size: int) -> None:
        self.size = size

    @abstractmethod
    def tokens(self, sequences: Sequences) -> int:
        """Tokens that it would compute, padding not counted."""

    @abstractmethod
    def parts(self, sequences: Sequences, ways: Sequence[EmbeddingSettings]) -> Iterator[Pooled]:
        """As ``read``, for as long as there is room."""

    def read(self, sequences: Sequences, ways: Sequence[EmbeddingSettings]) -> Iterator[Pooled]:
        """Vectors of the sequences, part by part, under each of ``ways``; none may be empty.

        Raises ErasmoError for a layer that the model lacks.
        """
        import torch

        left = np.arange(len(sequences))
        while len(left):
            done = np.zeros(len(sequences), dtype=bool)
            try:
                for part in self.parts([sequences[i] for i in left.tolist()], ways):
                    positions = left[part.positions]
                    done[positions] = True
                    yield Pooled(positions, part.vectors, part.tokens)
            except torch.OutOfMemoryError:
                if self.size <= LEAST:
                    raise
            left = left[~done[left]]
            if len(left):
                self.size //= 2
                torch.cuda.empty_cache()


def rotation_limit(model: Any) -> int | None:
    """Tokens of a text from which on its positions are rotated otherwise, and so those of all that is read beside it.

    None where a token's rotation depends on its position alone. Of the kinds of transformers, dynamic scaling and
    longrope (arXiv 2402.13753) look at the longest text.
    """
    config = model.config.get_text_config()
    told = getattr(config, "rope_parameters", None) or {}
    limits = []
    for parameters in (told, *(each for each in told.values() if isinstance(each, dict))):
        if parameters.get("rope_type") in ("dynamic", "longrope"):
            limits.append(
                parameters.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or config.max_position_embeddings
            )
    return min(limits, default=None)


def reads_last(way: EmbeddingSettings) -> bool:
    """Whether the last layer is all that this way of pooling needs."""
    return way.pooling != "mean_layers" and way.layer == -1


def states_of(out: Any, way: EmbeddingSettings) -> torch.Tensor:
    """The states to pool, fp32 [n, tokens, d]. Raises ErasmoError for a layer that the model lacks."""
    import torch

    if reads_last(way):
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


def as_vectors(pooled: torch.Tensor, way: EmbeddingSettings) -> npt.NDArray[np.float32]:
    """Pooled states [m, d] as they leave an engine."""
    import torch

    if way.normalize:
        pooled = torch.nn.functional.normalize(pooled, dim=-1)
    return np.asarray(pooled.cpu().numpy(), dtype=np.float32)
