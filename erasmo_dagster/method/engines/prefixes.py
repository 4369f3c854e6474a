"""Token sequences as a stream in which every shared prefix comes once, and what attends to what in it.

The sequences are sorted, so that the stream is a walk through their prefix tree, depth first: a sequence adds what it
does not share with the one before it. A token's ancestors are then, for every lower depth, the last token of the
stream there, and all that a forward pass needs follows from the depths alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.batches import Sequences

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Stream:
    """``tokens`` and their ``depths`` int64[t]; sequence ``order[i]`` shares ``shared[i]`` tokens with the one before
    it, and ends after ``ends[i]`` tokens of the stream, at depth ``lengths[i]``."""

    tokens: Ints
    depths: Ints
    order: Ints
    ends: Ints
    lengths: Ints

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max(initial=0))


def as_stream(sequences: Sequences) -> Stream:
    """The sequences as one stream, sorted by their tokens; equal ones add nothing."""
    # Big-endian, so that the order of the bytes is that of the tokens.
    each = [np.asarray(sequence, dtype=">i4") for sequence in sequences]
    order = sorted(range(len(each)), key=lambda i: each[i].tobytes())
    added, depths = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    before = np.zeros(0, dtype=">i4")
    for position in order:
        sequence = each[position]
        shared = _shared_prefix(before, sequence)
        added.append(sequence[shared:].astype(np.int64))
        depths.append(np.arange(shared, len(sequence)))
        before = sequence
    return Stream(
        np.concatenate(added),
        np.concatenate(depths),
        np.array(order, dtype=np.int64),
        np.cumsum([len(own) for own in added[1:]], dtype=np.int64),
        np.array([len(each[i]) for i in order], dtype=np.int64),
    )


def _shared_prefix(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> int:
    """Tokens that both begin with."""
    most = min(len(first), len(second))
    apart = np.flatnonzero(first[:most] != second[:most])
    return int(apart[0]) if len(apart) else most


@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring tokens of a chunk: ``start`` to ``stop`` in it.

    ``above`` are the places of the first token's ancestors before the block, in the carried path and then the chunk;
    ``sees`` bool[stop - start, len(above) + stop - start] says which of those, and of the block, each token attends to.
    """

    start: int
    stop: int
    above: Ints
    sees: Bools


@dataclass(frozen=True, eq=False)
class Chunk:
    """A part of the stream that goes through the model at once: ``start`` to ``stop``.

    It stands on the ``carried`` tokens of the path that the chunk before it ended with. ``path`` are the places of the
    path that it ends with, in the carried path and then the chunk. ``sequences`` are the ranks of those that end in it,
    and ``paths`` their tokens' places.
    """

    start: int
    stop: int
    carried: int
    blocks: list[Block]
    path: Ints
    sequences: Ints
    paths: list[Ints]


def chunks(stream: Stream, size: int, block: int) -> Iterator[Chunk]:
    """The stream in chunks of at most ``size`` tokens, each in blocks of at most ``block``."""
    carried = done = 0
    total = len(stream.tokens)
    for start in range(0, total, size):
        stop = min(start + size, total)
        depths = stream.depths[start:stop]
        last = np.zeros(stream.longest, dtype=np.int64)  # by depth: the place of the last token there
        last[:carried] = np.arange(carried)
        blocks, sequences, paths = [], [], []
        for first in range(0, stop - start, block):
            end = min(first + block, stop - start)
            own = depths[first:end]
            above = last[: own[0]].copy()
            blocks.append(Block(first, end, above, np.hstack([_sees_above(own, len(above)), _sees_within(own)])))
            at = first
            while done < len(stream.ends) and stream.ends[done] <= start + end:
                upto = max(int(stream.ends[done]) - start, at)  # equal sequences add no token
                last[depths[at:upto]] = carried + np.arange(at, upto)
                sequences.append(done)
                paths.append(last[: stream.lengths[done]].copy())
                at, done = upto, done + 1
            last[depths[at:end]] = carried + np.arange(at, end)
        path = last[: depths[-1] + 1].copy()
        yield Chunk(start, stop, carried, blocks, path, np.array(sequences, dtype=np.int64), paths)
        carried = len(path)


def _sees_above(depths: Ints, above: int) -> Bools:
    """Which of the ``above`` ancestors of a block's first token each of its tokens still stands on."""
    sees: Bools = np.arange(above) < np.minimum.accumulate(depths)[:, None]
    return sees


def _sees_within(depths: Ints) -> Bools:
    """Which tokens of a block each of them attends to: itself, and those that nothing at their depth has followed."""
    n = len(depths)
    later = np.triu(np.ones((n, n), dtype=bool), k=1)  # [j, i]: i comes after j
    lowest = np.minimum.accumulate(np.where(later, depths, np.iinfo(np.int64).max), axis=1)
    sees: Bools = ((lowest > depths[:, None]) & (later | np.eye(n, dtype=bool))).T
    return sees
