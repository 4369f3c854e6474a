"""Which texts the model sees, in which order: everything follows from the seed, so a training can be taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.textual import join_clauses, shuffle_clauses

if TYPE_CHECKING:
    import torch

# Token ids of several texts.
Sequences = Sequence[Sequence[int] | npt.NDArray[np.int32]]

# What a random stream is for; the second number of its seed.
_SPLIT, _ORDER, _CLAUSES, _HELD_OUT, _DROPOUT = range(5)
_STEPS_BUCKETED = 8
IGNORED = -100  # the label that torch's cross-entropy leaves out


@dataclass
class TrainingTexts:
    """The rows as token sequences: held-out ones once, the others shuffled anew in every epoch.

    As in the paper (arXiv 2410.03738, section 3.2) every row's clauses are permuted anew each time that it is seen,
    unless ``shuffled`` is False.
    ``cut`` collects the rows that were longer than ``max_length`` tokens.
    """

    rows: Sequence[Sequence[str]]
    tokenizer: Any
    max_length: int
    seed: int
    train: np.ndarray
    held_out: np.ndarray
    shuffled: bool = True
    cut: set[int] = field(default_factory=set)

    def held_out_sequences(self) -> list[list[int]]:
        """Tokens of the held-out rows, in one seeded order of their clauses that never changes."""
        return self._tokens(self.held_out, _HELD_OUT, 0)

    def steps(self, epoch: int, rows_a_step: int) -> Iterator[list[list[int]]]:
        """The epoch's sequences, one list an optimizer step; rows of similar length share a step.

        The rows are shuffled first and sorted within a few steps' worth only, so a step stays a random sample but
        for its length. A row of a single token has nothing to predict and is left out.
        """
        rng = np.random.default_rng([self.seed, _ORDER, epoch])
        order = rng.permutation(self.train)
        bucket = rows_a_step * _STEPS_BUCKETED
        for start in range(0, len(order), bucket):
            sequences = self._tokens(order[start : start + bucket], _CLAUSES, epoch)
            sequences = sorted((s for s in sequences if len(s) > 1), key=len)
            steps = [sequences[i : i + rows_a_step] for i in range(0, len(sequences), rows_a_step)]
            for index in rng.permutation(len(steps)):
                yield steps[index]

    def _tokens(self, rows: np.ndarray, purpose: int, epoch: int) -> list[list[int]]:
        texts = []
        for row in rows.tolist():
            clauses = self.rows[row]
            if self.shuffled:
                clauses = shuffle_clauses(clauses, np.random.default_rng([self.seed, purpose, epoch, row]))
            texts.append(join_clauses(clauses))
        sequences = []
        for row, ids in zip(rows.tolist(), tokenize(self.tokenizer, texts), strict=True):
            end = self.tokenizer.eos_token_id
            whole = ids if end is None or ids[-1:] == [end] else [*ids, end]
            if len(whole) > self.max_length:
                self.cut.add(row)
            sequences.append(whole[: self.max_length])
        return sequences


def split_rows(rows: int, fraction: float, at_most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows to train on and of those held out; at least one is trained on."""
    held_out = min(round(rows * fraction), at_most, rows - 1)
    order = np.random.default_rng([seed, _SPLIT]).permutation(rows)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def dropout_seed(seed: int, step: int, worker: int = 0) -> int:
    """Seed of torch's generator in one step, so that a resumed training drops the same units.

    Each of several workers drops others; the first one's are those of a training that has one.
    """
    return int(np.random.SeedSequence([seed, _DROPOUT, step, *([worker] if worker else [])]).generate_state(1)[0])


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text, with the special tokens that the model expects around it, uncut."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]


def split_by_tokens(
    lengths: Sequence[int], max_tokens: int, max_rows: int | None = None, *, pads: bool = True
) -> list[list[int]]:
    """Positions of ``lengths``, longest first, in groups whose size, padded or not, stays within ``max_tokens``.

    A sequence longer than that is alone in its group.
    """
    groups: list[list[int]] = []
    size = longest = 0
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        group = groups[-1] if groups else []
        grown = (len(group) + 1) * longest if pads else size + lengths[position]
        if not group or grown > max_tokens or len(group) == max_rows:
            groups.append([position])
            size = longest = lengths[position]
        else:
            group.append(position)
            size += lengths[position]
    return groups


def padded(sequences: Sequences, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right with 0, and the mask of the real ones; both int64 [n, longest]."""
    import torch

    longest = max(len(sequence) for sequence in sequences)
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
        mask[i, : len(sequence)] = 1
    return ids.to(device), mask.to(device)
