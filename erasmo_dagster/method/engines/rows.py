"""The layout of whole sequences one after the other, without padding: every token attends to its own sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from erasmo_dagster.method.batches import Sequences

if TYPE_CHECKING:
    import torch

    from erasmo_dagster.method.engines.attention import Asked


@dataclass(eq=False)
class Rows:
    """Sequences packed into one: ``ids`` and ``positions`` int64[1, tokens].

    Attention alone sees them as a rectangle [sequences, longest], by ``spread`` (places of its cells) and back by
    ``packed`` (cells of the tokens); what fills it up comes after every real token, which causal attention never sees.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    spread: torch.Tensor
    packed: torch.Tensor
    longest: int

    def attend(self, asked: Asked) -> torch.Tensor:
        """As :class:`~erasmo_dagster.method.engines.attention.Layout` says; with gradients."""
        import torch

        heads, kv = asked.query.shape[1], asked.key.shape[1]
        rows = len(self.spread) // self.longest
        q, k, v = (
            each.index_select(0, self.spread).view(rows, self.longest, each.shape[1], -1).transpose(1, 2)
            for each in (asked.query, asked.key, asked.value)
        )
        found = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=asked.dropout, scale=asked.scaling, enable_gqa=heads != kv
        )
        return found.transpose(1, 2).reshape(len(self.spread), heads, -1).index_select(0, self.packed)


def pack(sequences: Sequences, device: torch.device) -> Rows:
    """The sequences, none of them empty, one after the other on ``device``."""
    import torch

    lengths = np.array([len(sequence) for sequence in sequences])
    starts = np.cumsum(lengths) - lengths
    longest = int(lengths.max())
    cells = np.arange(longest)
    spread = starts[:, None] + np.minimum(cells, lengths[:, None] - 1)
    ids, positions, places, packed = (
        torch.from_numpy(array).to(device)
        for array in (
            np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences])[None],
            np.concatenate([np.arange(length) for length in lengths])[None],
            spread.ravel(),
            np.flatnonzero((cells < lengths[:, None]).ravel()),
        )
    )
    return Rows(ids, positions, places, packed, longest)
