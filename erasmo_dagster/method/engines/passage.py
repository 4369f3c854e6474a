"""The layout of a chunk of shared prefixes: every token attends to its ancestors in the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from erasmo_dagster.method.engines.prefixes import Block, Chunk

if TYPE_CHECKING:
    import torch

    from erasmo_dagster.method.engines.attention import Asked

    Carried = dict[int, tuple[torch.Tensor, torch.Tensor]]

_GROUP = 8  # blocks whose keys are padded to one number


@dataclass(eq=False)
class Group:
    """Blocks of a chunk as rectangles: int64 [b, q] their tokens, [b, k] what they may attend to, bool [b, 1, q, k]."""

    queries: torch.Tensor
    keys: torch.Tensor
    sees: torch.Tensor


@dataclass(eq=False)
class Passage:
    """One chunk on its way through the model.

    ``carried`` and ``kept`` are the keys and values [tokens, heads, d] of the path before and after it, by layer.
    """

    groups: list[Group]
    path: torch.Tensor
    longest: int
    carried: Carried
    kept: Carried = field(default_factory=dict)

    def attend(self, asked: Asked) -> torch.Tensor:
        """As :class:`~erasmo_dagster.method.engines.attention.Layout` says; for inference, without dropout."""
        import torch

        query, key, value = asked.query, asked.key, asked.value
        if asked.layer in self.carried:
            key, value = (torch.cat(pair) for pair in zip(self.carried[asked.layer], (key, value), strict=True))
        (n, heads, _), kv = query.shape, key.shape[1]
        out = value.new_empty(n, heads, value.shape[-1])
        for group in self.groups:
            b, width = group.queries.shape
            at, of = group.queries.reshape(-1), group.keys.reshape(-1)
            # Heads that share keys stand one below the other, so that no key is copied for them.
            q = query.index_select(0, at).view(b, width, kv, heads // kv, -1).permute(0, 2, 3, 1, 4).flatten(2, 3)
            k, v = (each.index_select(0, of).view(b, -1, kv, each.shape[-1]).transpose(1, 2) for each in (key, value))
            sees = group.sees.repeat(1, 1, heads // kv, 1)
            found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=asked.scaling)
            found = found.view(b, kv, heads // kv, width, -1).permute(0, 3, 1, 2, 4)
            out[at] = found.reshape(b * width, heads, -1)
        self.kept[asked.layer] = key.index_select(0, self.path), value.index_select(0, self.path)
        return out


def passage_of(chunk: Chunk, carried: Carried, longest: int, device: torch.device) -> Passage:
    """The chunk's layout on ``device``; its blocks with the longest paths first, so that next to nothing is padded."""
    import torch

    blocks = sorted(chunk.blocks, key=lambda block: -len(block.above))
    groups = []
    for start in range(0, len(blocks), _GROUP):
        arrays = _rectangles(blocks[start : start + _GROUP], chunk.carried)
        groups.append(Group(*(torch.from_numpy(array).to(device) for array in arrays)))
    return Passage(groups, torch.from_numpy(chunk.path).to(device), longest, carried)


def _rectangles(blocks: Sequence[Block], carried: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    most = max(block.stop - block.start for block in blocks)
    above = len(blocks[0].above)
    queries = np.zeros((len(blocks), most), dtype=np.int64)
    keys = np.zeros((len(blocks), above + most), dtype=np.int64)
    sees = np.zeros((len(blocks), 1, most, above + most), dtype=bool)
    for i, block in enumerate(blocks):
        own, held = np.arange(block.start, block.stop), len(block.above)
        queries[i] = own[-1]  # what is left over computes the last token once more
        queries[i, : len(own)] = own
        keys[i, :held] = block.above
        keys[i, above : above + len(own)] = carried + own
        places = np.concatenate([np.arange(held), above + np.arange(len(own))])
        sees[i, 0][: len(own), places] = block.sees
        sees[i, 0, len(own) :] = sees[i, 0, len(own) - 1]
    return queries, keys, sees
