"""How compact segments are and how far apart, by the distances of their rows: in 64 bits, some rows at a time.

The figures are those of scikit-learn's functions of the same names, which hold copies of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.neighbors import sums_by

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCKS = 10
_CHUNK = 8192  # rows that are looked at at a time
_PAIRS = 1_000_000  # distances that are held at a time


@dataclass(frozen=True)
class Spread:
    """What tells segments apart by their centres; see :func:`spread`."""

    calinski_harabasz: float
    davies_bouldin: float


def spread(vectors: Floats, codes: Ints) -> Spread:
    """Figures of all ``vectors`` float[n, d] in segments ``codes`` int64[n], 0..k-1 with rows in each, 1 < k < n.

    Caliński and Harabasz (1974), "A dendrite method for cluster analysis"; Davies and Bouldin (1979), "A cluster
    separation measure".
    """
    sizes = np.bincount(codes)
    sums = sums_by(vectors, codes, len(sizes))
    centers, middle = sums / sizes[:, None], sums.sum(axis=0) / len(codes)
    within, reach = 0.0, np.zeros(len(sizes))
    for start in range(0, len(codes), _CHUNK):
        own = codes[start : start + _CHUNK]
        squared = np.square(vectors[start : start + _CHUNK].astype(np.float64) - centers[own]).sum(axis=1)
        within += float(squared.sum())
        reach += np.bincount(own, np.sqrt(squared), len(sizes))
    between = float((sizes * np.square(centers - middle).sum(axis=1)).sum())
    ratio = between * (len(codes) - len(sizes)) / (within * (len(sizes) - 1)) if within > 0 else 1.0
    return Spread(ratio, _davies_bouldin(centers - middle, reach / sizes))


def _davies_bouldin(centers: Doubles, reach: Doubles) -> float:
    from scipy.spatial.distance import cdist

    apart = cdist(centers, centers)
    if np.allclose(reach, 0) or np.allclose(apart, 0):
        return 0.0
    apart[apart == 0] = np.inf
    return float(((reach[:, None] + reach) / apart).max(axis=1).mean())


def silhouette(vectors: Floats, codes: Ints, *, of: int, seed: int) -> tuple[float, float]:
    """Mean silhouette, -1 to 1, of a sample ``vectors`` float[m, d] of ``of`` rows, and its standard error.

    ``codes`` int64[m] are segments 0..k-1 with rows in each, 1 < k < m. Rousseeuw (1987), "Silhouettes". The error is
    that of drawing the rows, whose silhouettes depend on each other: by leaving out one of ten blocks of them at a time
    (delete-a-group jackknife, Kott, 2001, J. Official Statistics 17), and less where the sample is most of the rows. 0
    where it is all of them.
    """
    from sklearn.metrics import euclidean_distances

    rows, k = len(codes), int(codes.max()) + 1
    blocks = min(_BLOCKS, rows) if rows < of else 1
    block = np.random.default_rng([seed, 2]).permutation(rows) % blocks
    groups = codes * blocks + block
    order = np.argsort(groups, kind="stable")  # so that those of a group are added up where they lie
    vectors, codes, block, groups = vectors[order], codes[order], block[order], groups[order]
    held, starts = np.unique(groups, return_index=True)
    counts = np.bincount(groups, minlength=k * blocks).reshape(k, blocks)
    total, left_out = 0.0, np.zeros(blocks)
    step = max(1, _PAIRS // max(rows, k * blocks))
    for start in range(0, rows, step):
        part = np.arange(start, min(start + step, rows))
        apart = euclidean_distances(vectors[part], vectors)
        apart[np.arange(len(part)), part] = 0
        sums = np.zeros((len(part), k * blocks))
        sums[:, held] = np.add.reduceat(apart, starts, axis=1, dtype=np.float64)
        by_block = sums.reshape(len(part), k, blocks)
        whole = by_block.sum(axis=2)
        total += float(_silhouettes(whole, counts.sum(axis=1), codes[part]).sum())
        if blocks > 1:
            for b in range(blocks):
                others = part[block[part] != b]
                kept = whole[others - start] - by_block[others - start, :, b]
                left_out[b] += _silhouettes(kept, counts.sum(axis=1) - counts[:, b], codes[others]).sum()
    if blocks == 1:
        return total / rows, 0.0
    without = left_out / (rows - np.bincount(block, minlength=blocks))
    error = np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum() * (1 - rows / of))
    return total / rows, float(error)


def _silhouettes(sums: Doubles, sizes: npt.NDArray[np.integer], own: Ints) -> Doubles:
    """Silhouettes float64[n] by ``sums`` float64[n, k] of the distances to each segment's rows; 0 for one alone."""
    rows = np.arange(len(own))
    inner = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        outer = np.where(sizes > 0, sums / sizes, np.inf)
    outer[rows, own] = np.inf
    next_ = outer.min(axis=1)
    widest = np.maximum(inner, next_)
    found = np.divide(next_ - inner, widest, out=np.zeros(len(own)), where=(widest > 0) & np.isfinite(widest))
    return np.where(sizes[own] > 1, found, 0.0)
