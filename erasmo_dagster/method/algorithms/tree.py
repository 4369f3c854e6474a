"""Agglomerative hierarchical clustering."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.algorithms import micro
from erasmo_dagster.method.algorithms.base import Cut, Partitioner, Points
from erasmo_dagster.method.threads import one_thread
from erasmo_dagster.settings import ClusteringSettings

Doubles = npt.NDArray[np.float64]
Merges = npt.NDArray[np.int64]

# Of many rows: with more the trees come no nearer to that of all rows, as measured.
GROUPS = 2_000


def agglomerative(points: Points, settings: ClusteringSettings, seed: int) -> Partitioner:
    """Hierarchical clustering: one tree, cut for each k by leaving out its last k - 1 merges.

    Beyond EXACT_ROWS rows the tree is of groups of near rows, each at its mean and weighted by its rows; rows go with
    the nearest group.
    """
    if len(points) > micro.EXACT_ROWS:
        return _of_groups(points, settings, seed)
    from sklearn.cluster import AgglomerativeClustering

    tree = AgglomerativeClustering(2, linkage=settings.linkage, compute_full_tree=True).fit(points)
    return Partitioner(lambda k: Cut(_cut(tree.children_, k)), "rows")


def _of_groups(points: Points, settings: ClusteringSettings, seed: int) -> Partitioner:
    groups = micro.grouped(points, GROUPS, seed)
    with one_thread():  # several threads add up in another order
        merges = weighted_tree(groups.means, groups.sizes, settings.linkage, variances=groups.variances)

    def cut(k: int) -> Cut:
        labels = _cut(merges, k)
        return Cut(labels[groups.which], references=(groups.centers, labels))

    note = (
        f"There are {len(points):,} rows, and agglomerative works on pairs of them up to {micro.EXACT_ROWS:,}: its "
        f"tree is of {len(groups.sizes):,} groups of near rows, weighted by how many these are."
    )
    return Partitioner(cut, "rows", (note,))


def _cut(merges: Merges, k: int) -> npt.NDArray[np.integer]:
    """The parts int[n] of a tree of n leaves that is cut into ``k``; merge i, int[n - 1, 2], makes node n + i.

    Of fewer leaves than ``k`` each is a part.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    leaves = len(merges) + 1
    kept = merges[: max(leaves - k, 0)]
    parents = np.repeat(np.arange(leaves, leaves + len(kept)), 2)
    graph = coo_array((np.ones(len(parents)), (parents, kept.ravel())), shape=(2 * leaves, 2 * leaves))
    return np.asarray(connected_components(graph, directed=False)[1][:leaves])


def weighted_tree(
    means: Points, sizes: npt.NDArray[np.integer], linkage: str, *, variances: Doubles | None = None
) -> Merges:
    """The tree of groups of rows at ``means`` float32[m, p] with ``sizes`` int[m] rows: merges int64[m - 1, 2].

    Merge i makes node m + i, from the nearest to the farthest. Ward's linkage counts every row of a group, as if all
    were at its mean; so does the average one, but for the distances, which are as the groups' ``variances`` float64[m]
    make them on average: of means alone, large groups would be nearer than their rows are, and stray rows a segment.
    The complete one is of the means. By chains of nearest neighbours (Murtagh, 1983,
    "A survey of recent advances in hierarchical clustering algorithms", Computer Journal 26), with the formula of Lance
    and Williams (1967).
    """
    count, weights = len(means), sizes.astype(np.float64)
    apart = _apart(means, weights, linkage, np.zeros(count) if variances is None else variances)
    alive, chain = np.ones(count, dtype=bool), [0]
    pairs, heights = np.empty((count - 1, 2), dtype=np.int64), np.empty(count - 1)
    for step in range(count - 1):
        if not chain:
            chain.append(int(alive.argmax()))
        while True:
            last, before = chain[-1], chain[-2] if len(chain) > 1 else -1
            next_ = int(apart[last].argmin())
            if before >= 0 and apart[last, before] <= apart[last, next_]:
                break
            chain.append(next_)
        del chain[-2:]
        pairs[step], heights[step] = (before, last), apart[last, before]
        merged = _merged(apart, weights, before, last, linkage)
        alive[last] = False
        merged[~alive] = merged[before] = np.inf
        apart[before] = apart[:, before] = merged
        apart[last] = apart[:, last] = np.inf
        weights[before] += weights[last]
    order = np.argsort(heights, kind="stable")
    return _nodes(pairs[order], count)


def _apart(means: Points, weights: Doubles, linkage: str, variances: Doubles) -> Doubles:
    """What it costs to merge each pair, float64[m, m]; inf on the diagonal."""
    exact = means.astype(np.float64)
    lengths = np.einsum("ij,ij->i", exact, exact)
    apart: Doubles = -2 * (exact @ exact.T)
    apart += lengths
    apart += lengths[:, None]
    np.maximum(apart, 0, out=apart)
    if linkage == "ward":
        apart *= 2 / (1 / weights + 1 / weights[:, None])
    else:
        if linkage == "average":
            apart += variances
            apart += variances[:, None]
        np.sqrt(apart, out=apart)
    np.fill_diagonal(apart, np.inf)
    return apart


def _merged(apart: Doubles, weights: Doubles, first: int, second: int, linkage: str) -> Doubles:
    """What it costs to merge each group with the two together, float64[m]."""
    if linkage == "complete":
        return np.asarray(np.maximum(apart[first], apart[second]))
    one, two = weights[first], weights[second]
    if linkage == "average":
        return np.asarray((one * apart[first] + two * apart[second]) / (one + two))
    total = (one + weights) * apart[first] + (two + weights) * apart[second] - weights * apart[first, second]
    return np.asarray(total / (one + two + weights))


def _nodes(pairs: Merges, count: int) -> Merges:
    """Merges of nodes, from merges of any two leaves of what is merged."""
    node = np.arange(count)  # by the leaf that stands for it
    stands = list(range(count))
    merges = np.empty_like(pairs)

    def root(leaf: int) -> int:
        while stands[leaf] != leaf:
            stands[leaf] = leaf = stands[stands[leaf]]
        return leaf

    for step, pair in enumerate(pairs.tolist()):
        first, second = root(pair[0]), root(pair[1])
        merges[step] = node[first], node[second]
        stands[second], node[first] = first, count + step
    return merges
