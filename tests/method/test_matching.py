"""Which segments continue which, and the ids that they get."""

from __future__ import annotations

from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasmo_dagster.method.matching import LEAST_DICE, SegmentMatch, assign_ids, match_segments

ROWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=30)


def pairs(matches: list[SegmentMatch]) -> dict[int, int]:
    return {match.new: match.published for match in matches}


def rows(*groups: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both versions from (new, published, how many rows)."""
    new = [label for label, _, count in groups for _ in range(count)]
    published = [label for _, label, count in groups for _ in range(count)]
    return np.array(new, dtype=np.int64), np.array(published, dtype=np.int64)


def test_the_same_segments() -> None:
    labels = np.array([2, 0, 0, 1, 1, 1])
    assert match_segments(labels, labels) == [
        SegmentMatch(0, 0, 2, 1.0),
        SegmentMatch(1, 1, 3, 1.0),
        SegmentMatch(2, 2, 1, 1.0),
    ]


def test_segments_with_other_numbers() -> None:
    published = np.random.default_rng(0).integers(0, 5, 200)
    ids = np.array([30, 4, 17, 8, 99])
    matches = match_segments(published, ids[published])
    assert pairs(matches) == dict(enumerate(ids.tolist()))
    assert {match.dice for match in matches} == {1.0}


def test_some_rows_moved() -> None:
    matches = match_segments(*rows((0, 7, 6), (0, 8, 2), (1, 8, 9), (1, 7, 1)))
    assert matches == [SegmentMatch(0, 7, 6, 12 / 15), SegmentMatch(1, 8, 9, 18 / 21)]


def test_the_larger_part_of_a_split_keeps_the_id() -> None:
    assert match_segments(*rows((0, 5, 40), (1, 5, 60))) == [SegmentMatch(1, 5, 60, 120 / 160)]


def test_the_larger_part_of_a_merge_keeps_the_id() -> None:
    assert match_segments(*rows((0, 5, 40), (0, 6, 60))) == [SegmentMatch(0, 6, 60, 120 / 160)]


def test_of_equal_parts_the_first_keeps_the_id() -> None:
    assert pairs(match_segments(*rows((1, 5, 10), (0, 5, 10)))) == {0: 5}
    assert pairs(match_segments(*rows((0, 6, 10), (0, 5, 10)))) == {0: 5}


def test_half_of_the_rows_is_enough_and_less_is_not() -> None:
    assert LEAST_DICE == 0.5
    assert match_segments(*rows((0, 5, 10), (0, -1, 20))) == [SegmentMatch(0, 5, 10, 0.5)]
    assert match_segments(*rows((0, 5, 10), (0, -1, 21))) == []


def test_all_pairs_together_share_the_most() -> None:
    """The pair that shares the most alone is not one of them."""
    assert pairs(match_segments(*rows((0, 0, 5), (0, 1, 4), (1, 0, 4)))) == {0: 1, 1: 0}


def test_scrambled_segments_match_nothing() -> None:
    assert match_segments(*rows(*((new, old, 10) for new in range(4) for old in range(4)))) == []


def test_noise_matches_nothing_but_counts_as_rows() -> None:
    assert match_segments(*rows((-1, -1, 50), (-1, 3, 10), (0, -1, 10))) == []
    assert match_segments(*rows((-1, -1, 50), (0, 3, 10), (-1, 3, 4), (0, -1, 2))) == [SegmentMatch(0, 3, 10, 20 / 26)]


def test_no_common_rows() -> None:
    assert match_segments(np.array([], np.int64), np.array([], np.int64)) == []


def test_more_segments_than_before_and_fewer() -> None:
    assert pairs(match_segments(*rows((0, 9, 5), (1, -1, 5), (2, 4, 5)))) == {0: 9, 2: 4}
    assert pairs(match_segments(*rows((0, 9, 5), (-1, 1, 5), (1, 4, 5)))) == {0: 9, 1: 4}


def test_rows_of_different_versions() -> None:
    with pytest.raises(ValueError, match="same rows"):
        match_segments(np.array([0, 1]), np.array([0]))


@given(ROWS, st.randoms())
def test_matches_are_the_best_of_all_and_do_not_depend_on_the_order(
    both: list[tuple[int, int]], random: Random
) -> None:
    def match(both: list[tuple[int, int]]) -> list[SegmentMatch]:
        return match_segments(np.array([a for a, _ in both], int), np.array([b for _, b in both], int))

    matches = match(both)
    shuffled = list(both)
    random.shuffle(shuffled)
    assert match(shuffled) == matches
    assert len(set(pairs(matches).values())) == len(matches)
    assert [each.new for each in matches] == sorted({each.new for each in matches})
    for each in matches:
        new, old = sum(a == each.new for a, _ in both), sum(b == each.published for _, b in both)
        assert each.shared == both.count((each.new, each.published)) > 0
        assert each.dice == 2 * each.shared / (new + old) >= LEAST_DICE
    # Of one of the pairings that share the most rows, exactly the pairs over the threshold.
    every = [list(enumerate(order)) for order in permutations(range(4))]
    most = max(sum(both.count(pair) for pair in pairing) for pairing in every)
    best = [pairing for pairing in every if sum(both.count(pair) for pair in pairing) == most]

    def over(pair: tuple[int, int]) -> bool:
        total = sum(a == pair[0] for a, _ in both) + sum(b == pair[1] for _, b in both)
        return total > 0 and 2 * both.count(pair) / total >= LEAST_DICE

    assert pairs(matches) in [{a: b for a, b in pairing if over((a, b))} for pairing in best]


# Ids


def test_ids_are_kept_where_matched_and_fresh_elsewhere() -> None:
    matches = [SegmentMatch(1, 4, 10, 1.0), SegmentMatch(3, 0, 10, 1.0)]
    assert assign_ids(5, matches, 7) == (7, 4, 8, 0, 9)
    assert assign_ids(3, [], 0) == (0, 1, 2)
    assert assign_ids(0, [], 5) == ()


@given(ROWS, st.integers(0, 5))
def test_fresh_ids_never_collide(both: list[tuple[int, int]], retired: int) -> None:
    matches = match_segments(np.array([a for a, _ in both], int), np.array([b for _, b in both], int))
    next_id = 4 + retired
    ids = assign_ids(4, matches, next_id)
    assert len(set(ids)) == 4
    kept = pairs(matches)
    assert {segment: ids[segment] for segment in kept} == kept
    fresh = [ids[segment] for segment in range(4) if segment not in kept]
    assert fresh == list(range(next_id, next_id + len(fresh)))


@pytest.mark.parametrize(
    ("matches", "next_id", "message"),
    [
        ([(0, 3)], 3, "next_id 3"),
        ([(0, 3), (1, 3)], 9, "one-to-one"),
        ([(0, 3), (0, 4)], 9, "one-to-one"),
        ([(2, 3)], 9, "expected 0 to 1"),
        ([(-1, 3)], 9, "expected 0 to 1"),
    ],
)
def test_matches_that_cannot_be(matches: list[tuple[int, int]], next_id: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign_ids(2, [SegmentMatch(new, published, 1, 1.0) for new, published in matches], next_id)
