"""Segment ids that mean the same from version to version: a new segment takes the id of the one whose rows it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]

# A segment keeps its id where the rows in both versions are at least half of its size, taken as the mean of the two
# sizes: with fewer, more of it is new than known. Of a split or a merge only the part with the most rows can keep the
# id. Tracking clusters by the overlap of their rows, with a threshold: Spiliopoulou et al. (2006), "MONIC: Modeling and
# Monitoring Cluster Transitions", KDD.
LEAST_DICE = 0.5


@dataclass(frozen=True)
class SegmentMatch:
    """A ``new`` segment that continues a ``published`` one: rows in both, and Dice's coefficient, 0.5 to 1."""

    new: int
    published: int
    shared: int
    dice: float


def match_segments(new: Labels, published: Labels) -> list[SegmentMatch]:
    """The new segments that continue a published one, by ``new``.

    ``new`` and ``published`` int[n] are segments of the same rows, those that both versions have, in the same order.
    One-to-one, so that the pairs share the most rows (Kuhn 1955, "The Hungarian Method for the Assignment Problem", by
    SciPy); of these pairs those whose Dice coefficient 2 shared / (rows of new + rows of published) is at least
    ``LEAST_DICE``. Negative labels are noise and match nothing, but rows of a segment that are noise in the other
    version count as its rows. The answer does not depend on the order of the rows.

    Raises ValueError for arrays of different lengths.
    """
    from scipy.optimize import linear_sum_assignment

    if new.ndim != 1 or new.shape != published.shape:
        raise ValueError(f"got shapes {new.shape} and {published.shape}, expected both for the same rows")
    new_ids, new_sizes = np.unique(new[new >= 0], return_counts=True)
    old_ids, old_sizes = np.unique(published[published >= 0], return_counts=True)
    known = (new >= 0) & (published >= 0)
    shared = np.zeros((len(new_ids), len(old_ids)), np.int64)
    np.add.at(shared, (np.searchsorted(new_ids, new[known]), np.searchsorted(old_ids, published[known])), 1)
    matches = []
    # Both sides go in order of their ids, so that of equal solutions the same one is found.
    for row, column in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        both = int(shared[row, column])
        dice = 2 * both / int(new_sizes[row] + old_sizes[column])
        if dice >= LEAST_DICE:
            matches.append(SegmentMatch(int(new_ids[row]), int(old_ids[column]), both, dice))
    return sorted(matches, key=lambda match: match.new)


def assign_ids(k: int, matches: Sequence[SegmentMatch], next_id: int) -> tuple[int, ...]:
    """The ids of new segments 0..k-1: the published one where matched, else ``next_id`` and on, in order.

    ``next_id`` is greater than any id in use before, so that no id comes back with another meaning. Raises ValueError
    where it is not greater than those of ``matches``, where these are not one-to-one, or not of segments 0..k-1.
    """
    kept = {match.new: match.published for match in matches}
    if len(kept) < len(matches) or len(set(kept.values())) < len(matches):
        raise ValueError("got matches that are not one-to-one")
    if kept and not 0 <= min(kept) <= max(kept) < k:
        raise ValueError(f"got matches of segments {min(kept)} to {max(kept)}, expected 0 to {k - 1}")
    if kept and next_id <= max(kept.values()):
        raise ValueError(f"got next_id {next_id}, expected more than the published id {max(kept.values())}")
    ids = []
    for segment in range(k):
        ids.append(kept.get(segment, next_id))
        next_id += segment not in kept
    return tuple(ids)
