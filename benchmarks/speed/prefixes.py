"""What has to be computed at the least: distinct prefixes of token sequences, and their floating-point operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Tokens = Sequence[list[int]]


@dataclass(frozen=True)
class Prefixes:
    """Tokens of all sequences, those of distinct prefixes, and the positions that the latter look at, summed."""

    tokens: int
    distinct: int
    looked_at: int

    @property
    def ceiling(self) -> float:
        """How many times faster an engine can be at the most that computes every distinct prefix once."""
        return self.tokens / self.distinct


def prefixes_of(sequences: Tokens) -> Prefixes:
    """Count by the sorted sequences: of each, the tokens beyond what it shares with the one before.

    A causal model's state at a token depends on the tokens before it alone, so two rows with the same first tokens
    have the same states there, and next to each other in sorted order they are found.
    """
    tokens = distinct = looked_at = 0
    before: list[int] = []
    for sequence in sorted(sequences):
        shared = _shared(before, sequence)
        tokens += len(sequence)
        distinct += len(sequence) - shared
        # The token at position p (from 0) looks at p + 1 positions.
        looked_at += (len(sequence) * (len(sequence) + 1) - shared * (shared + 1)) // 2
        before = sequence
    return Prefixes(tokens, distinct, looked_at)


def _shared(one: list[int], other: list[int]) -> int:
    most = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:most]) != np.asarray(other[:most]))
    return int(differ[0]) if len(differ) else most


def linear_shapes(model: Any) -> list[tuple[int, int]]:
    """Inputs and outputs of every linear layer of a transformers model without its output layer."""
    return [(into, out) for _, into, out in _linear(model)]


def _linear(model: Any) -> Iterator[tuple[str, int, int]]:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, Linear):
            yield name, module.in_features, module.out_features
        elif isinstance(module, Conv1D):
            yield name, *module.weight.shape


def operations(model: Any, found: Prefixes) -> float:
    """Floating-point operations of the distinct prefixes: the blocks' linear layers, and attention.

    Two for each weight and token, and four for each layer, dimension of its heads and position looked at (the product
    with the keys and that with the values). What is done elementwise is not counted.
    """
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    weights = sum(into * out for into, out in linear_shapes(model))
    return float(2 * weights * found.distinct + 4 * config.num_hidden_layers * width * found.looked_at)
