"""Mixtures of mixed columns: by hand, against scikit-learn, on planted segments, and where there is next to nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from erasmo_dagster.method.tables import mixture, normals
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.mixture import PRIOR_ROWS, Density, Fit, Rows, fit_mixture, responsibilities
from erasmo_dagster.method.tables.normals import Diagonal, Tied
from erasmo_dagster.method.tables.starts import starts

Planted = tuple[np.ndarray, Layout, np.ndarray]


def fit(points: np.ndarray, layout: Layout, k: int, *, count: int = 6, seed: int = 0) -> Fit:
    return fit_mixture(Rows(layout, points), starts(points, layout, k, count=count, seed=seed), k)


def standard(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0), dtype=np.float32)


def one_hot(codes: np.ndarray, width: int) -> np.ndarray:
    """Of codes int[n], -1 where missing."""
    return np.asarray(np.eye(width + 1)[codes][:, :width] * 1.5, dtype=np.float32)


def elongated() -> Planted:
    """Two segments that lie along each other: what they share varies more than what they differ in."""
    rng = np.random.default_rng(0)
    groups = np.arange(240) % 2
    apart = np.where(groups, 1, -1)[:, None] * [1, -1, 1, -1]
    along = rng.normal(0, 1.5, 240)[:, None]
    return standard(along + rng.normal(0, 0.3, (240, 4)) + apart), Layout(4, (), ()), groups


def categories() -> Planted:
    """Two segments in eight categories of three values, none of which says which it is."""
    rng = np.random.default_rng(1)
    groups = np.arange(500) % 2
    shares = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    blocks = [one_hot(np.array([rng.choice(3, p=shares[g]) for g in groups]), 3) for _ in range(8)]
    return np.concatenate(blocks, axis=1), Layout(0, (3,) * 8, ()), groups


def mixed() -> Planted:
    """Three segments: numbers tell the first apart, categories the second."""
    rng = np.random.default_rng(2)
    groups = np.arange(450) % 3
    numbers = standard(rng.normal(size=(450, 3)) + 4 * (groups == 0)[:, None])
    blocks = [one_hot(np.where(rng.random(450) < 0.9, groups == 1, groups != 1).astype(int), 2) for _ in range(5)]
    return np.concatenate([numbers, *blocks], axis=1), Layout(3, (2,) * 5, ()), groups


def dense() -> Planted:
    """Three segments in a block of ten components, beside numbers and a category that say nothing."""
    rng = np.random.default_rng(3)
    groups = np.arange(300) % 3
    block = rng.normal(size=(300, 10)) * 0.4 + rng.normal(size=(3, 10))[groups]
    noise = np.concatenate([rng.normal(size=(300, 2)), one_hot(rng.integers(0, 3, 300), 3)], axis=1)
    return np.concatenate([noise, block], axis=1).astype(np.float32), Layout(2, (3,), (10,)), groups


def without(planted: Planted, share: float, seed: int = 5) -> Planted:
    """The same with some of what the rows have taken away, and a row that lacks everything."""
    points, layout, groups = planted
    points, rng = points.copy(), np.random.default_rng(seed)
    blocks = [slice(i, i + 1) for i in range(layout.numbers)] + [*layout.category_spans, *layout.dense_spans]
    for span in blocks:
        points[rng.random(len(points)) < share, span] = 0
    points[11] = 0
    return points, layout, groups


every_planted = pytest.mark.parametrize(
    "planted", [elongated, categories, mixed, dense], ids=lambda made: made.__name__
)


# What is there is found


@every_planted
def test_planted_segments_are_found(planted: Callable[[], Planted]) -> None:
    points, layout, groups = planted()
    found = fit(points, layout, groups.max() + 1)
    assert adjusted_rand_score(groups, found.labels) > 0.9
    assert found.settled


@every_planted
def test_planted_segments_are_found_where_values_are_missing(planted: Callable[[], Planted]) -> None:
    points, layout, groups = without(planted(), 0.15)
    found = fit(points, layout, groups.max() + 1)
    # Without the block that alone tells segments apart, nothing does.
    assert adjusted_rand_score(groups, found.labels) > (0.6 if layout.dense else 0.75)
    np.testing.assert_allclose(found.responsibilities[11], found.density.shares, rtol=1e-9)  # of a row with nothing


def test_k_means_does_not_find_what_lies_along_each_other() -> None:
    points, layout, groups = elongated()
    assert adjusted_rand_score(groups, KMeans(2, n_init=10, random_state=0).fit(points).labels_) < 0.05
    assert isinstance(fit(points, layout, 2).density.numbers, Tied)


def test_the_structure_of_the_numbers_is_the_one_of_lower_bic() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(600) % 2
    points = standard(rng.normal(size=(600, 4)) * np.where(groups, 1, 4)[:, None])  # apart in variance alone
    found = fit(points, Layout(4, (), ()), 2)
    assert isinstance(found.density.numbers, Diagonal)
    assert adjusted_rand_score(groups, found.labels) > 0.7
    rows, begun = Rows(Layout(4, (), ()), points), starts(points, Layout(4, (), ()), 2, count=6, seed=0)
    both = [mixture._best_run(rows, begun, 2, tied).bic for tied in (False, True)]
    assert found.bic == min(both) == both[0]


# Exactly


@pytest.mark.parametrize("kind", ["tied", "diag"])
def test_without_priors_a_round_is_scikit_learns(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "PRIOR_SHARE", 0.0)
    monkeypatch.setattr(normals, "_LEAST", 0.0)
    rng = np.random.default_rng(0)
    points, weights = rng.normal(size=(80, 3)).astype(np.float32), rng.dirichlet(np.ones(3), 80)
    theirs = GaussianMixture(3, covariance_type=kind, reg_covar=0)
    theirs._initialize(points.astype(np.float64), weights)
    ours = Density.fit(Rows(Layout(3, (), ()), points), weights, tied=kind == "tied")
    found, likelihood = responsibilities(ours.log_joint(Rows(Layout(3, (), ()), points)))
    np.testing.assert_allclose(found, theirs.predict_proba(points.astype(np.float64)), rtol=1e-8)
    assert likelihood == pytest.approx(theirs.score(points.astype(np.float64)) * 80)


def test_categories_by_hand() -> None:
    codes = np.array([0, 0, 1, 2, -1, 1])
    weights = np.eye(2)[[0, 0, 0, 1, 1, 1]]
    rows = Rows(Layout(0, (3,), ()), one_hot(codes, 3))
    density = Density.fit(rows, weights, tied=False)
    overall = np.array([2, 2, 1]) / 5
    first, second = np.array([2, 1, 0]) + PRIOR_ROWS * overall, np.array([0, 1, 1]) + PRIOR_ROWS * overall
    np.testing.assert_allclose(np.exp(density.categories), [first / (3 + PRIOR_ROWS), second / (2 + PRIOR_ROWS)])
    expected = np.log([0.5, 0.5]) + density.categories[:, [0, 0, 1, 2, 0, 1]].T
    expected[4] = np.log([0.5, 0.5])  # what is missing says nothing
    np.testing.assert_allclose(density.log_joint(rows), expected)


def test_columns_of_different_kinds_are_independent_within_a_segment() -> None:
    points, layout, _ = dense()
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 300)
    whole = Density.fit(Rows(layout, points), weights, tied=True)
    joint = whole.log_joint(Rows(layout, points)) - np.log(whole.shares)
    parts = [
        (Layout(2, (), ()), points[:, :2]),
        (Layout(0, (3,), ()), points[:, 2:5]),
        (Layout(0, (), (10,)), points[:, 5:]),
    ]
    for part, own in parts:
        density = Density.fit(Rows(part, own), weights, tied=True)
        joint -= density.log_joint(Rows(part, own)) - np.log(density.shares)
    np.testing.assert_allclose(joint, 0, atol=1e-9)


def test_what_a_fit_costs_by_hand() -> None:
    points, layout, _ = dense()
    rows = Rows(layout, points)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 300)
    block = 3 * 10 + 10 * 11 // 2
    for tied, numbers in ((False, 2 * 3 * 2), (True, 3 * 2 + 3)):
        density = Density.fit(rows, weights, tied=tied)
        assert density.parameters == 2 + numbers + 3 * 2 + block
    found, likelihood = responsibilities(density.log_joint(rows))
    made = Fit(density, found, likelihood, 1, True)
    assert made.bic == pytest.approx(-2 * likelihood + density.parameters * np.log(300))
    assert made.icl == pytest.approx(made.bic - 2 * sum(r * np.log(r) for r in found.ravel() if r > 0))
    assert made.labels.tolist() == found.argmax(axis=1).tolist()


def test_responsibilities_of_rows_far_from_everything() -> None:
    joint = np.array([[-1e9, -1e9 - 1], [-1e300, -np.inf], [0, 0]])
    found, likelihood = responsibilities(joint)
    np.testing.assert_allclose(found, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e)], [1, 0], [0.5, 0.5]])
    assert np.isfinite(likelihood)


def log_prior(density: Density, rows: Rows) -> float:
    """Logarithm of the priors that PRIOR_SHARE and PRIOR_ROWS stand for, but for constants."""
    k = len(density.shares)
    share = mixture.PRIOR_SHARE * len(rows) / k
    found = 0.0
    if isinstance(density.numbers, Diagonal):
        variances = density.numbers.variances
        found -= share / 2 * float((np.log(variances) + 1 / variances).sum())
    blocks = [(density.numbers, 1.0, rows.numbers)] if isinstance(density.numbers, Tied) else []
    blocks += list(zip(density.dense, rows.spreads, rows.dense, strict=True))
    for normal, spread, observed in blocks:
        assert observed is not None
        share = mixture.PRIOR_SHARE * int(observed.present.any(axis=1).sum()) / k
        logdet, inverse = np.linalg.slogdet(normal.covariance)[1], np.linalg.inv(normal.covariance)
        found -= share / 2 * float(logdet + spread * np.trace(inverse))
    start = 0
    for width in density.widths:
        counts = rows.chosen[:, start : start + width].sum(axis=0)
        found += PRIOR_ROWS * float((counts / counts.sum() * density.categories[:, start : start + width]).sum())
        start += width
    return found


@every_planted
@pytest.mark.parametrize("tied", [False, True], ids=["diagonal", "tied"])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_no_round_lowers_the_posterior(
    planted: Callable[[], Planted], tied: bool, missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normals, "_LEAST", 0.0)
    points, layout, _ = without(planted(), missing)
    rows, density = Rows(layout, points), None
    weights = np.random.default_rng(0).dirichlet(np.ones(4), len(points))
    reached = []
    for _ in range(25):
        density = Density.fit(rows, weights, tied=tied, before=density)
        weights, likelihood = responsibilities(density.log_joint(rows))
        reached.append(likelihood + log_prior(density, rows))
    assert (np.diff(reached) > -1e-7 * abs(reached[-1])).all()
    assert reached[-1] > reached[0]


# The same whatever the order, and every time


@every_planted
def test_the_order_of_the_rows_changes_no_segment(planted: Callable[[], Planted]) -> None:
    points, layout, groups = without(planted(), 0.05)
    order = np.random.default_rng(0).permutation(len(points))
    begun = starts(points, layout, groups.max() + 1, count=2, seed=0)
    here = fit_mixture(Rows(layout, points), begun, groups.max() + 1)
    there = fit_mixture(Rows(layout, points[order]), [start[order] for start in begun], groups.max() + 1)
    assert adjusted_rand_score(there.labels, here.labels[order]) == 1  # of equals, the other run may be the best
    assert there.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-9)
    anew = fit(points[order], layout, groups.max() + 1)  # from starts of its own
    assert adjusted_rand_score(anew.labels, here.labels[order]) > 0.97


@every_planted
def test_the_same_seed_gives_the_same_bits(planted: Callable[[], Planted]) -> None:
    points, layout, groups = without(planted(), 0.1)
    kept = points.copy()
    first, second = (fit(points, layout, groups.max() + 1, count=2, seed=3) for _ in range(2))
    assert first.responsibilities.tobytes() == second.responsibilities.tobytes()
    assert first.log_likelihood == second.log_likelihood
    assert points.tobytes() == kept.tobytes()


@every_planted
def test_a_row_alone_is_as_likely_as_among_others(planted: Callable[[], Planted]) -> None:
    points, layout, groups = without(planted(), 0.2)
    density = fit(points, layout, groups.max() + 1, count=2).density
    whole = density.log_joint(Rows(layout, points))
    alone = np.concatenate([density.log_joint(Rows(layout, points[i : i + 1])) for i in range(30)])
    np.testing.assert_allclose(alone, whole[:30], rtol=1e-9)
    assert density.log_joint(Rows(layout, points[:0])).shape == (0, groups.max() + 1)


# Where there is little or nothing


def test_a_category_that_no_row_of_the_sample_has() -> None:
    points, layout, groups = mixed()
    points = points.copy()
    points[:, layout.category_spans[2]] = 0
    found = fit(points, layout, 3)
    assert np.isfinite(found.density.categories).all()
    assert np.isfinite(found.log_likelihood)
    assert adjusted_rand_score(groups, found.labels) > 0.75
    later = points[:2].copy()
    later[0, layout.category_spans[2].start] = 1.5  # a later row has it: it says nothing
    placed, _ = responsibilities(found.density.log_joint(Rows(layout, later)))
    np.testing.assert_allclose(placed, found.responsibilities[:2], rtol=1e-9, atol=1e-12)


def test_numbers_that_no_row_of_the_sample_has() -> None:
    points, layout, groups = mixed()
    points = points.copy()
    points[:, 1] = 0
    assert adjusted_rand_score(groups, fit(points, layout, 3).labels) > 0.75
    points[:, :3] = 0
    assert np.isfinite(fit(points, layout, 3).responsibilities).all()


def test_a_segment_that_a_start_leaves_empty() -> None:
    points, layout, groups = mixed()
    found = fit_mixture(Rows(layout, points), [groups], 5)
    assert found.density.shares[3:].tolist() == [0, 0]
    assert not found.responsibilities[:, 3:].any()
    assert np.isfinite(found.icl)
    assert adjusted_rand_score(groups, found.labels) > 0.9


def test_a_value_that_a_segment_never_has_is_possible_in_it() -> None:
    points, layout, groups = mixed()
    probabilities = np.exp(fit(points, layout, 3).density.categories)
    assert probabilities.min() > PRIOR_ROWS * 0.1 / len(points)
    for span in layout.category_spans:
        here = slice(span.start - layout.numbers, span.stop - layout.numbers)
        np.testing.assert_allclose(probabilities[:, here].sum(axis=1), 1)
    assert len(groups) == len(points)


def test_one_segment_and_one_row() -> None:
    points, layout, _ = dense()
    alone = fit(points, layout, 1, count=1)
    assert not alone.labels.any()
    assert alone.icl == alone.bic
    single = fit(points[:1], layout, 1, count=1)
    assert single.responsibilities.tolist() == [[1]]
    assert np.isfinite(single.bic)


def test_as_many_segments_as_rows_and_more() -> None:
    points, layout, _ = dense()
    for k in (6, 9):
        found = fit(points[:6], layout, k)
        assert np.isfinite(found.responsibilities).all()
        np.testing.assert_allclose(found.responsibilities.sum(axis=1), 1)


def test_duplicate_rows_are_in_one_segment() -> None:
    points, layout, _ = mixed()
    few = np.repeat(points[:3], 40, axis=0)
    found = fit(few, layout, 3)
    assert [len(set(found.labels[i * 40 : i * 40 + 40].tolist())) for i in range(3)] == [1, 1, 1]
    same = fit(np.repeat(points[:1], 40, axis=0), layout, 2)
    assert len(set(same.labels.tolist())) == 1


def test_more_dimensions_than_rows() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(20) % 2
    points = (rng.normal(size=(20, 60)) * 0.2 + rng.normal(size=(2, 60))[groups]).astype(np.float32)
    for layout in (Layout(60, (), ()), Layout(0, (), (60,)), Layout(20, (), (20, 20))):
        assert adjusted_rand_score(groups, fit(points, layout, 2).labels) == 1


def test_a_fit_that_ends_in_its_last_round_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    points, layout, _ = mixed()
    rows, begun = Rows(layout, points), starts(points, layout, 3, count=1, seed=0)[0]
    whole = mixture._run(rows, np.eye(3)[begun], False, 200)
    assert whole.settled
    assert mixture._run(rows, np.eye(3)[begun], False, whole.rounds).settled
    assert not mixture._run(rows, np.eye(3)[begun], False, whole.rounds - 1).settled


def test_points_of_another_layout() -> None:
    with pytest.raises(ValueError, match="got points of 4 dimensions for a layout of 5"):
        Rows(Layout(2, (3,), ()), np.zeros((3, 4), dtype=np.float32))


# Starts


def test_starts_look_at_each_kind_in_turn() -> None:
    points, layout, _ = dense()
    begun = starts(points, layout, 3, count=10, seed=0)
    assert [start.shape for start in begun] == [(300,)] * 10
    assert all(set(start.tolist()) == {0, 1, 2} for start in begun)
    # The third of five views is of the category alone, and tells its values apart.
    for start in (begun[2], begun[7]):
        assert adjusted_rand_score(points[:, 2:5].argmax(axis=1), start) == 1
    assert begun[0].tolist() != begun[5].tolist() or begun[1].tolist() != begun[6].tolist()


def test_segments_along_each_other_are_found_from_whitened_numbers() -> None:
    """Two long clouds side by side, which k-means on the numbers cuts across."""
    rng = np.random.default_rng(0)
    along, groups = rng.normal(size=400), np.arange(400) % 2
    points = np.stack([along, along + 0.5 * groups + 0.05 * rng.normal(size=400)], axis=1)
    points = ((points - points.mean(axis=0)) / points.std(axis=0)).astype(np.float32)
    layout = Layout(2, (), ())
    begun = starts(points, layout, 2, count=4, seed=0)
    scores = [adjusted_rand_score(groups, start) for start in begun]
    assert scores[0] < 0.1
    assert scores[1] > 0.95
    # Fewer than ten rows a segment and number say too little of a covariance.
    few = starts(points[:30], layout, 2, count=2, seed=0)
    assert max(adjusted_rand_score(groups[:30], start) for start in few) < 0.1


def test_a_view_with_fewer_different_points_than_segments() -> None:
    """Which warns of nothing, and the mixture still has as many segments as there are."""
    points, layout, groups = mixed()
    points, layout = points[:, :5], Layout(3, (2,), ())
    begun = starts(points, layout, 4, count=3, seed=0)
    assert [len(set(start.tolist())) for start in begun] == [4, 4, 2]
    found = fit_mixture(Rows(layout, points), begun, 4)
    assert set(found.labels.tolist()) == {0, 1, 2, 3}
    assert len(groups) == len(found.labels)


def test_starts_of_one_kind_are_of_all_there_is() -> None:
    points, layout, _ = categories()
    one, both = starts(points, layout, 2, count=1, seed=7), starts(points, layout, 2, count=2, seed=7)
    assert one[0].tolist() == both[0].tolist()
    wide = Layout(0, (), (points.shape[1],))
    assert [s.tolist() for s in starts(points, wide, 2, count=2, seed=7)] == [s.tolist() for s in both]
