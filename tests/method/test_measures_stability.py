"""Whether segments are found again: bootstrap, halves, seeds and orders of columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.measures import Refit, order_agreement, stability

Ints = np.ndarray


def kmeans(points: np.ndarray, k: int) -> Refit:
    def refit(rows: Ints, seed: int) -> Ints:
        return KMeans(k, n_init=1, random_state=seed).fit(points[rows]).predict(points).astype(np.int64)

    return refit


class Recorder:
    """A refit that keeps what it was asked for."""

    def __init__(self, answer: Callable[[Ints, int], Ints]) -> None:
        self.answer, self.calls = answer, list[tuple[Ints, int]]()

    def __call__(self, rows: Ints, seed: int) -> Ints:
        self.calls.append((rows, seed))
        return self.answer(rows, seed)


def test_what_is_always_found_is_stable() -> None:
    labels = np.arange(60) % 3
    found = stability(lambda rows, seed: 5 - labels, labels, seed=0)
    assert (found.ari, found.error, found.split_half, found.seeds) == (1, 0, 1, 1)
    assert found.jaccard == (1, 1, 1)
    assert (found.resamples, found.rows) == (10, 60)


def test_what_has_nothing_to_do_with_the_rows_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    found = stability(lambda rows, seed: rng.integers(0, 3, 600), labels, seed=0)
    assert abs(found.ari) < 0.01
    assert abs(found.split_half) < 0.02
    assert abs(found.seeds) < 0.02
    assert max(found.jaccard) < 0.3
    assert 0 < found.error < 0.01


def test_planted_groups_against_one_cloud() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(150) % 3
    planted, cloud = rng.normal(size=(150, 2)) + 12 * np.eye(3)[truth][:, :2], rng.normal(size=(150, 2))
    groups = stability(kmeans(planted, 3), truth, seed=0)
    pieces = stability(kmeans(cloud, 5), kmeans(cloud, 5)(np.arange(150), 0), seed=0)
    assert min(groups.ari, groups.split_half, groups.seeds, *groups.jaccard) > 0.6
    assert pieces.ari < 0.75
    assert pieces.split_half < groups.split_half
    assert min(pieces.jaccard) < min(groups.jaccard)


def test_the_rows_and_seeds_that_are_asked_for() -> None:
    labels = np.arange(50) % 2
    refit = Recorder(lambda rows, seed: labels)
    stability(refit, labels, seed=7, resamples=4)
    assert len(refit.calls) == 4 + 6 + 3
    for rows, seed in refit.calls[:4]:
        assert seed == 7
        assert np.array_equal(rows, np.unique(rows))
        assert 0.4 < len(rows) / 50 < 0.85  # 1 - 1/e of them, about
    for first, second in zip(refit.calls[4:10:2], refit.calls[5:10:2], strict=True):
        assert np.array_equal(np.sort(np.concatenate([first[0], second[0]])), np.arange(50))
    seeds = [seed for _, seed in refit.calls[10:]]
    assert len({7, *seeds}) == 4
    assert all(np.array_equal(rows, np.arange(50)) for rows, _ in refit.calls[10:])


def test_the_same_seed_asks_for_the_same_rows() -> None:
    labels = np.arange(50) % 2
    recorders = [Recorder(lambda rows, seed: labels) for _ in range(3)]
    for refit, seed in zip(recorders, (1, 1, 2), strict=True):
        stability(refit, labels, seed=seed, resamples=2)
    first, again, other = ([rows.tolist() for rows, _ in refit.calls] for refit in recorders)
    assert first == again != other


def test_jaccard_similarities_by_hand() -> None:
    labels = np.array([4] * 8 + [2] * 4)
    merged = Recorder(lambda rows, seed: np.zeros(12, np.int64))
    found = stability(merged, labels, seed=3, resamples=3)
    shares = [[(labels[rows] == segment).mean() for segment in (2, 4)] for rows, _ in merged.calls[:3]]
    assert found.jaccard == pytest.approx(np.mean(shares, axis=0))  # in the order of their ids
    assert found.ari == found.seeds == 0
    assert found.split_half == 1  # the halves agree that there is one


def test_halves_that_find_nothing_agree_on_nothing() -> None:
    labels = np.arange(40) % 2

    def refit(part: np.ndarray, seed: int) -> np.ndarray:
        return labels if len(part) == len(labels) else np.full(len(labels), -1)

    found = stability(refit, labels, seed=0)
    assert (found.split_half, found.seeds) == (0, 1)


def test_the_best_match_counts_for_a_segment_that_was_split() -> None:
    labels = np.zeros(30, np.int64)
    labels[20:] = 1
    parts = np.array([0] * 15 + [1] * 5 + [2] * 10)
    refit = Recorder(lambda rows, seed: parts)
    found = stability(refit, labels, seed=0, resamples=5)
    kept = [np.bincount(parts[rows], minlength=3) for rows, _ in refit.calls[:5]]
    assert found.jaccard == pytest.approx([np.mean([max(c[0], c[1]) / (c[0] + c[1]) for c in kept]), 1])


def test_noise_of_the_segments_is_left_out() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [-1] * 20)
    elsewhere = np.where(labels < 0, np.arange(40) % 7, labels)  # what is found among the noise
    found = stability(lambda rows, seed: elsewhere, labels, seed=0)
    assert (found.ari, found.split_half, found.jaccard, found.rows) == (1, 1, (1, 1), 20)


def test_noise_that_a_refit_finds_matches_no_segment() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    found = stability(lambda rows, seed: np.where(labels == 0, 0, -1), labels, seed=0)
    assert found.jaccard == (1, 0)
    assert found.ari == 1  # as a group of its own
    nothing = stability(lambda rows, seed: np.full(20, -1), labels, seed=0)
    assert nothing.jaccard == (0, 0)
    assert nothing.ari == 0


def test_one_segment_is_always_the_same() -> None:
    found = stability(lambda rows, seed: np.zeros(8, np.int64), np.zeros(8, np.int64), seed=0)
    assert (found.ari, found.jaccard) == (1, (1,))


def test_a_segment_of_one_row_is_judged_where_it_was_drawn() -> None:
    labels = np.array([0] * 19 + [1])
    assert stability(lambda rows, seed: labels, labels, seed=0).jaccard == (1, 1)


def test_too_few_rows() -> None:
    with pytest.raises(ErasmoError, match="Got 3 rows in segments"):
        stability(lambda rows, seed: np.zeros(9, np.int64), np.array([0, 0, 1, *[-1] * 6]), seed=0)


def test_refits_of_other_rows_and_too_few_resamples() -> None:
    with pytest.raises(ValueError, match="one for each of 6 rows"):
        stability(lambda rows, seed: np.zeros(len(rows), np.int64), np.arange(6) % 2, seed=0)
    with pytest.raises(ValueError, match="at least 2"):
        stability(lambda rows, seed: np.zeros(6, np.int64), np.arange(6) % 2, seed=0, resamples=1)


def test_hundreds_of_thousands_of_rows() -> None:
    labels = np.arange(300_000) % 4
    found = stability(lambda rows, seed: labels, labels, seed=0, resamples=2)
    assert found.jaccard == (1, 1, 1, 1)


# Orders of columns


LABELS = st.integers(2, 12).flatmap(lambda n: st.lists(st.lists(st.integers(0, 4), min_size=n, max_size=n), min_size=2, max_size=4))  # fmt: skip


@given(LABELS)
def test_order_agreement_is_the_mean_of_the_pairs(orders: list[list[int]]) -> None:
    arrays = [np.array(labels) for labels in orders]
    pairs = [adjusted_rand_score(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :]]
    assert order_agreement(arrays) == pytest.approx(np.mean(pairs))


def test_order_agreement_leaves_out_rows_that_both_call_noise() -> None:
    first, second = np.array([0, 0, 1, 1, -1, -1]), np.array([3, 3, 2, 2, -1, -1])
    assert order_agreement([first, second]) == 1
    second[4] = 2
    expected = adjusted_rand_score([0, 0, 1, 1, 9], [3, 3, 2, 2, 2])
    assert order_agreement([first, second]) == pytest.approx(expected)
    assert order_agreement([np.full(3, -1), np.full(3, -1)]) == 1


@pytest.mark.parametrize("orders", [[], [[0, 1]], [[0, 1], [0]]])
def test_orders_that_do_not_compare(orders: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least two of the same length"):
        order_agreement([np.array(labels) for labels in orders])
