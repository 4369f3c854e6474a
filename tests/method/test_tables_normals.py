"""Normal densities of rows that lack some dimensions, against SciPy, scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.mixture import GaussianMixture

from erasmo_dagster.method.tables import normals
from erasmo_dagster.method.tables.normals import Diagonal, Observed, Tied


def rows_of(values: np.ndarray) -> Observed:
    """Rows float64[n, p] with NaN where something is missing."""
    present = ~np.isnan(values)
    return Observed.of(np.where(present, values, 0), present)


def table(n: int = 60, p: int = 4, missing: float = 0.3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) / p**0.5 + rng.normal(size=p)
    values[rng.random((n, p)) < missing] = np.nan
    return np.asarray(values)


def weights_of(n: int, k: int = 3, seed: int = 1) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).dirichlet(np.ones(k), n))


def some_tied(k: int = 3, p: int = 4, seed: int = 2) -> Tied:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(p, p))
    return Tied(rng.normal(size=(k, p)), half @ half.T + 0.3 * np.eye(p))


# What rows have


@pytest.mark.parametrize("p", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("missing", [0.0, 0.2, 0.9])
def test_every_row_with_something_is_in_the_pattern_of_what_it_has(p: int, missing: float) -> None:
    values = table(300, p, missing)
    rows = rows_of(values)
    found = []
    for masks, who in rows.patterns:
        assert len(masks) == len(who)
        assert len(set(masks.sum(axis=1).tolist())) == 1
        for mask, members in zip(masks, who, strict=True):
            assert (~np.isnan(values[members]) == mask).all()
            found.extend(members.tolist())
    assert sorted(found) == np.flatnonzero(~np.isnan(values).all(axis=1)).tolist()
    masks = np.concatenate([masks for masks, _ in rows.patterns])
    assert len(np.unique(masks, axis=0)) == len(masks)


def test_patterns_come_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    values, tied, weights = table(200, 5), some_tied(p=5), weights_of(200)
    whole = Tied.fit(rows_of(values), weights, 0.1, before=tied)
    monkeypatch.setattr(normals, "_MOST_NUMBERS", 60)
    portions = rows_of(values)
    assert max(len(masks) for masks, _ in portions.patterns) == 2
    np.testing.assert_allclose(Tied.fit(portions, weights, 0.1, before=tied).covariance, whole.covariance, rtol=1e-12)
    np.testing.assert_allclose(tied.log_density(portions), tied.log_density(rows_of(values)), rtol=1e-12)


def test_no_rows_and_rows_with_nothing() -> None:
    assert rows_of(np.empty((0, 3))).patterns == ()
    nothing = rows_of(np.full((4, 3), np.nan))
    assert nothing.patterns == ()
    assert nothing.spread == 1
    for fitted in (Tied.fit(nothing, weights_of(4), 0.1), Diagonal.fit(nothing, weights_of(4), 0.1)):
        assert np.isfinite(fitted.means).all()
        assert fitted.log_density(nothing).tolist() == [[0] * 3] * 4
    assert some_tied().log_density(rows_of(np.empty((0, 4)))).shape == (0, 3)


def test_spread_is_the_mean_variance_of_what_is_there() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 5.0]])
    assert rows_of(values).spread == pytest.approx((1 + 0) / 2)
    assert rows_of(np.ones((5, 2))).spread == 1


# Densities


def test_a_density_of_what_is_there_is_scipys() -> None:
    values, tied = table(), some_tied()
    values[0], values[1, 1:] = np.nan, np.nan
    expected = np.zeros((len(values), 3))
    for i, row in enumerate(values):
        has = ~np.isnan(row)
        for segment, mean in enumerate(tied.means):
            if has.any():
                own = multivariate_normal(mean[has], tied.covariance[np.ix_(has, has)])
                expected[i, segment] = own.logpdf(row[has])
    np.testing.assert_allclose(tied.log_density(rows_of(values)), expected, rtol=1e-10, atol=1e-10)


def test_a_diagonal_density_of_what_is_there_is_scipys() -> None:
    values = table()
    rng = np.random.default_rng(0)
    diagonal = Diagonal(rng.normal(size=(3, 4)), rng.uniform(0.2, 2, size=(3, 4)))
    each = norm(diagonal.means[None], diagonal.variances[None] ** 0.5).logpdf(values[:, None, :])
    np.testing.assert_allclose(diagonal.log_density(rows_of(values)), np.nansum(each, axis=2), rtol=1e-10, atol=1e-10)


def test_a_row_far_away_has_a_density() -> None:
    far = np.array([[1e8, 0.5, -1e8, np.nan]])
    for density in (some_tied().log_density(rows_of(far)), Diagonal(np.zeros((2, 4)), np.ones((2, 4))).log_density(rows_of(far))):  # fmt: skip
        assert np.isfinite(density).all()
        assert (density < -1e10).all()


def test_dimensions_independent_within_segments_are_both() -> None:
    values, means = table(), some_tied().means
    tied = Tied(means, np.diag([0.5, 1, 2, 3.0]))
    diagonal = Diagonal(means, np.tile([0.5, 1, 2, 3.0], (3, 1)))
    np.testing.assert_allclose(tied.log_density(rows_of(values)), diagonal.log_density(rows_of(values)), rtol=1e-10)


# Fitting


@pytest.mark.parametrize("kind", ["tied", "diag"])
def test_without_a_prior_it_is_scikit_learns(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normals, "_LEAST", 0.0)
    values, weights = table(missing=0), weights_of(60)
    theirs = GaussianMixture(3, covariance_type=kind, reg_covar=0)
    theirs._initialize(values, weights)
    ours = (Tied if kind == "tied" else Diagonal).fit(rows_of(values), weights, 0.0)
    np.testing.assert_allclose(ours.means, theirs.means_, rtol=1e-10)
    found = ours.covariance if isinstance(ours, Tied) else ours.variances
    np.testing.assert_allclose(found, theirs.covariances_, rtol=1e-10)
    np.testing.assert_allclose(ours.log_density(rows_of(values)), theirs._estimate_log_prob(values), rtol=1e-9)


def test_variances_are_drawn_towards_one_by_hand() -> None:
    values = np.array([[1.0], [3.0], [np.nan], [10.0]])
    weights = np.array([[1, 0], [1, 0], [1, 0], [0, 1.0]])
    found = Diagonal.fit(rows_of(values), weights, 0.5)  # as 0.5 x 4 / 2 = 1 row with variance 1
    assert found.means.tolist() == [[2], [10]]
    assert found.variances[:, 0].tolist() == pytest.approx([(2 * 1 + 1) / 3 + 1e-6, (1 * 0 + 1) / 2 + 1e-6])
    tied = Tied.fit(rows_of(values), weights, 0.5, spread=4.0)
    assert tied.means.tolist() == [[2], [10]]
    # Three rows have it; as 0.5 x 3 / 2 rows with variance 4.
    assert tied.covariance.item() == pytest.approx((2 + 0.75 * 4) / (3 + 0.75) + 4e-6)


def test_what_is_missing_is_expected_as_in_the_textbook() -> None:
    """Row by row and segment by segment: conditional means, and the covariance that is left."""
    values, weights, before = table(), weights_of(60), some_tied()
    values[3] = np.nan
    k, p = before.means.shape
    totals, sums, second = np.zeros(k), np.zeros((k, p)), np.zeros((p, p))
    for row, shares in zip(values, weights, strict=True):
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        if not len(o):
            continue
        cov = before.covariance
        lead = cov[np.ix_(m, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        for s in range(k):
            full = row.copy()
            full[m] = before.means[s, m] + lead @ (row[o] - before.means[s, o])
            rest = np.zeros((p, p))
            rest[np.ix_(m, m)] = cov[np.ix_(m, m)] - lead @ cov[np.ix_(o, m)]
            totals[s] += shares[s]
            sums[s] += shares[s] * full
            second += shares[s] * (np.outer(full, full) + rest)
    means = sums / totals[:, None]
    within = second - (means * totals[:, None]).T @ means
    share = 0.1 * totals.sum() / k
    expected = (within + share * np.eye(p)) / (totals.sum() + share) + 1e-6 * np.eye(p)
    found = Tied.fit(rows_of(values), weights, 0.1, before=before)
    np.testing.assert_allclose(found.means, means, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9)


def test_first_what_is_missing_is_0_with_variance_1() -> None:
    values, weights = table(), weights_of(60)
    start = Tied(np.zeros((3, 4)), np.eye(4))
    first, told = Tied.fit(rows_of(values), weights, 0.1), Tied.fit(rows_of(values), weights, 0.1, before=start)
    assert first.covariance.tobytes() == told.covariance.tobytes()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_segment_without_rows(missing: float) -> None:
    values = table(missing=missing)
    weights = np.concatenate([weights_of(60), np.zeros((60, 1))], axis=1)
    diagonal = Diagonal.fit(rows_of(values), weights, 0.1)
    assert diagonal.means[3].tolist() == [0] * 4
    np.testing.assert_allclose(diagonal.variances[3], 1 + 1e-6)
    tied = Tied.fit(rows_of(values), weights, 0.1, before=Tied.fit(rows_of(values), weights, 0.1))
    assert tied.means[3].tolist() == [0] * 4
    for found in (diagonal, tied):
        assert np.isfinite(found.log_density(rows_of(values))).all()


def test_more_dimensions_than_rows_and_constant_ones() -> None:
    values = np.random.default_rng(0).normal(size=(5, 30))
    values[:, 3] = 2.0
    values[:, 4] = np.nan
    values[:, 6] = values[:, 5]
    weights = np.eye(2)[[0, 0, 1, 1, 1]]
    tied = None
    for _ in range(5):
        tied = Tied.fit(rows_of(values), weights, 0.1, before=tied)
        assert np.linalg.eigvalsh(tied.covariance).min() > 0.01
        assert np.isfinite(tied.log_density(rows_of(values))).all()
    assert tied is not None
    assert tied.covariance.tolist() == tied.covariance.T.tolist()


def test_the_order_of_rows_and_dimensions_changes_nothing() -> None:
    values, weights, before = table(), weights_of(60), some_tied()
    rows, dims = np.random.default_rng(0).permutation(60), np.array([2, 0, 3, 1])
    found = Tied.fit(rows_of(values), weights, 0.1, before=before)
    moved = Tied(before.means[:, dims], before.covariance[np.ix_(dims, dims)])
    other = Tied.fit(rows_of(values[rows][:, dims]), weights[rows], 0.1, before=moved)
    np.testing.assert_allclose(other.covariance, found.covariance[np.ix_(dims, dims)], rtol=1e-10)
    np.testing.assert_allclose(
        other.log_density(rows_of(values[rows][:, dims])), found.log_density(rows_of(values))[rows], rtol=1e-10
    )


def test_parameters_by_hand() -> None:
    assert some_tied(k=3, p=4).parameters == 3 * 4 + 4 * 5 // 2
    assert Diagonal(np.zeros((3, 4)), np.ones((3, 4))).parameters == 2 * 3 * 4


def test_thousands_of_patterns_take_no_time() -> None:
    values = table(4000, 30, missing=0.2)
    rows, weights = rows_of(values), weights_of(4000, 4)
    assert sum(len(masks) for masks, _ in rows.patterns) > 3900
    tied = Tied.fit(rows, weights, 0.1)
    entries = len(rows.patterns)
    assert entries < 40  # worked on together: a round is a few matrix products
    assert np.isfinite(Tied.fit(rows, weights, 0.1, before=tied).log_density(rows)).all()


def test_a_million_rows_are_grouped_in_bounded_memory() -> None:
    import tracemalloc

    present = np.random.default_rng(0).random((1_000_000, 2)) > 0.1
    values = present.astype(np.float64)
    tracemalloc.start()
    rows = Observed.of(values, present)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows.patterns) == 3
    assert peak < 100e6
