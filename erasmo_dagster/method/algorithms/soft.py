"""Fuzzy c-means and Gaussian mixtures: every row has a membership in each segment."""

from __future__ import annotations

import warnings

import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.algorithms.base import MAX_ITER, Cut, Partitioner, Points, StructureError
from erasmo_dagster.method.segment_model import FuzzyCenter, Mixture
from erasmo_dagster.settings import ClusteringSettings
from erasmo_dagster.settings.clustering import SOFT_DIMENSIONS

# How far the mean largest membership must lie above 1/k, where every row belongs to every segment alike.
LEAST_ABOVE_EVEN = 0.05
_STILL = 1e-5  # change of a membership, root mean square, at which fuzzy c-means has ended
_FLOOR = 1e-6  # of the mean variance, added to every one of a mixture: scikit-learn's default for variances of 1


def fuzzy_cmeans(points: Points, settings: ClusteringSettings, seed: int) -> Partitioner:
    """Fuzzy c-means (Bezdek, 1981), by scikit-fuzzy; of n_init starts the one with the least objective.

    Raises ErasmoError for more dimensions than 16: there every membership ends at 1/k (Winkler, Klawonn and Kruse,
    2012, "Fuzzy C-Means in High Dimensional Spaces").
    """
    if points.shape[1] > SOFT_DIMENSIONS:
        raise ErasmoError(
            f"Got {points.shape[1]} dimensions for clustering.method=fuzzy_cmeans",
            expected=f"at most {SOFT_DIMENSIONS}",
            fix="leave clustering.reduce out, or set its method to pca",
        )
    exact = points.astype(np.float64)
    unit = np.sqrt(np.einsum("ij,ij->", exact, exact) / exact.size)  # its smallest distance is absolute
    data = (exact / unit).T  # its rows are dimensions

    def cut(k: int) -> Cut:
        centers, settled = _best_start(data, k, settings, seed)
        rule = FuzzyCenter(settings.m)
        fitted = np.asarray(centers * unit, dtype=np.float32)
        placed = rule.place(points, fitted)
        largest = float(placed.confidence.mean(dtype=np.float64))
        if largest < 1 / k + LEAST_ABOVE_EVEN:
            raise StructureError(
                f"Got a mean largest membership of {largest:.3f} for k={k} from clustering.method=fuzzy_cmeans: "
                "rows belong to every segment alike",
                expected=f"at least 1/k + {LEAST_ABOVE_EVEN} = {1 / k + LEAST_ABOVE_EVEN:.3f}",
                fix="lower clustering.m towards 1, or choose another clustering.method",
            )
        notes = () if settled else (f"fuzzy_cmeans with k={k} still changed after {MAX_ITER} rounds.",)
        return Cut(placed.labels, soft=(fitted, rule), notes=notes)

    return Partitioner(cut, "memberships")


def _best_start(data: np.ndarray, k: int, settings: ClusteringSettings, seed: int) -> tuple[np.ndarray, bool]:
    """Centres float64[k, p] of the best start, and whether it came to rest."""
    from skfuzzy.cluster import cmeans

    rng = np.random.default_rng(seed)
    best: tuple[float, np.ndarray, bool] | None = None
    for _ in range(settings.n_init):
        start = rng.random((k, data.shape[1]))
        start /= start.sum(axis=0)
        error = _STILL * np.sqrt(start.size)
        centers, _, _, _, objective, rounds, _ = cmeans(data, k, settings.m, error, MAX_ITER, init=start)
        if not np.isfinite(centers).all():
            continue
        if best is None or objective[-1] < best[0]:
            best = (float(objective[-1]), centers, rounds < MAX_ITER)
    if best is None:
        raise StructureError(
            f"Got no finite centre for k={k} and clustering.m={settings.m:g} from clustering.method=fuzzy_cmeans",
            fix="set clustering.m nearer to 2",
        )
    return best[1], best[2]


def gaussian_mixture(points: Points, settings: ClusteringSettings, seed: int) -> Partitioner:
    """A mixture of k Gaussians by expectation maximization (Dempster, Laird and Rubin, 1977), by scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    exact = points.astype(np.float64)
    floor = _FLOOR * float(exact.var(axis=0).mean())

    def cut(k: int) -> Cut:
        mixture = GaussianMixture(
            k,
            covariance_type=settings.covariance,
            reg_covar=floor,
            max_iter=MAX_ITER,
            n_init=settings.n_init,
            random_state=seed,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # told in a note
                mixture.fit(exact)
        except ValueError as error:  # a covariance that is none, for all its floor
            raise StructureError(
                f"Got no mixture of k={k} Gaussians with clustering.covariance={settings.covariance}",
                expected="rows that spread in every dimension",
                fix="set clustering.covariance to diag, or lower clustering.reduce.dimensions",
            ) from error
        rule = Mixture(settings.covariance, mixture.weights_, mixture.precisions_cholesky_)
        centers = np.asarray(mixture.means_, dtype=np.float32)
        notes = () if mixture.converged_ else (f"gaussian_mixture with k={k} still changed after {MAX_ITER} rounds.",)
        return Cut(rule.place(points, centers).labels, soft=(centers, rule), notes=notes)

    return Partitioner(cut, "memberships")
