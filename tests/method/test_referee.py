"""The referee: partitions that tell of the columns save bits, and others cost more than they tell."""

from __future__ import annotations

from math import log2

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.tables.referee import Referee

TOPICS = (
    ["parcel", "late", "box", "torn", "courier", "delivery", "lost", "refund"],
    ["dress", "soft", "green", "fits", "fabric", "colour", "sleeve", "wear"],
)


def plans(**kinds: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=name, label=name, kind=kind, values={}, unit=None, verbalize=False, sensitive=False)
        for name, kind in kinds.items()
    ]


MIXED = {"age": "number", "income": "number", "job": "category"}


def planted(rows: int = 240, groups: int = 3) -> tuple[pl.DataFrame, np.ndarray]:
    """Groups told apart by an age and a job; income says nothing."""
    rng = np.random.default_rng(0)
    group = np.arange(rows) % groups
    job = np.where(rng.random(rows) < 0.9, group, rng.integers(0, groups, rows))
    age = 40 + 12 * group + rng.normal(0, 4, rows)
    return pl.DataFrame({"age": age, "income": rng.normal(size=rows), "job": [f"job {j}" for j in job]}), group


def texts(rows: int = 120) -> tuple[pl.DataFrame, np.ndarray]:
    """Texts about two topics; some are missing."""
    rng = np.random.default_rng(1)
    topic = np.arange(rows) % 2
    notes = [" ".join(rng.choice(TOPICS[t], 5)) for t in topic]
    return pl.DataFrame({"note": [None if i % 20 == 0 else note for i, note in enumerate(notes)]}), topic


def referee(frame: pl.DataFrame, seed: int = 0, **kinds: str) -> Referee:
    return Referee(frame, plans(**(kinds or MIXED)), seed=seed)


def test_the_planted_partition_saves_the_most() -> None:
    frame, groups = planted()
    judge, rng = referee(frame), np.random.default_rng(7)
    planted_bits = judge.bits_saved(groups)
    assert planted_bits > 0.5
    merged, split = np.minimum(groups, 1), np.where((groups == 0) & (rng.random(len(groups)) < 0.5), 3, groups)
    shuffled = [judge.bits_saved(rng.permutation(groups)) for _ in range(20)]
    assert max(shuffled) < 0
    for other in (merged, split):
        assert 0 < judge.bits_saved(other) < planted_bits
    assert planted_bits > judge.bits_saved(np.where(np.arange(len(groups)) < 12, rng.permutation(groups), groups))


def test_one_segment_saves_exactly_nothing() -> None:
    frame, groups = planted()
    assert {referee(frame).bits_saved(np.full(len(groups), label)) for label in (0, 5, -1)} == {0.0}


def test_names_of_segments_say_nothing_and_noise_is_one_of_them() -> None:
    frame, groups = planted()
    judge = referee(frame)
    expected = judge.bits_saved(groups)
    for names in ([2, 0, 1], [-1, 0, 1], [40, 7, 1000]):
        assert judge.bits_saved(np.array(names)[groups]) == pytest.approx(expected, abs=1e-9)


def test_rows_and_columns_in_another_order_have_as_many_bits() -> None:
    frame, groups = planted()
    expected = referee(frame).bits_saved(groups)
    other = Referee(frame.select("job", "income", "age"), plans(**dict(reversed(MIXED.items()))), seed=0)
    assert other.bits_saved(groups) == expected
    order = np.random.default_rng(3).permutation(len(groups))
    assert referee(frame[order]).bits_saved(groups[order]) == pytest.approx(expected, abs=1e-4)


def test_a_segment_for_every_row_costs_far_more_than_it_tells() -> None:
    frame, groups = planted()
    assert referee(frame).bits_saved(np.arange(len(groups))) < -10
    assert referee(frame[:4]).bits_saved(np.arange(4)) < 0


def test_bits_are_those_of_a_likelihood_less_what_its_parameters_cost() -> None:
    """One category: shares within segments, with the prior's five rows of all rows' shares, and BIC's ln n / 2."""
    job = np.repeat([0, 1, 0, 1], [45, 5, 5, 45])
    labels = np.repeat([0, 1], 50)
    frame = pl.DataFrame({"job": np.array(["a", "b"])[job]})

    likely = (45 + 2.5) / 55
    within = 100 * (1 - 0.9 * log2(likely) - 0.1 * log2(1 - likely)) + 0.5 * 3 * log2(100)
    alone = 100 + 0.5 * log2(100)
    saved = referee(frame, job="category").bits_saved(labels)
    assert saved == pytest.approx((alone - within) / 100, abs=1e-9)


def test_texts_count_by_their_words() -> None:
    frame, topics = texts()
    judge = referee(frame, note="text")
    assert judge.bits_saved(topics) > 0.5
    rng = np.random.default_rng(0)
    assert max(judge.bits_saved(rng.permutation(topics)) for _ in range(10)) < 0
    again = referee(frame, note="text").bits_saved(topics)
    assert again == judge.bits_saved(topics)
    assert referee(frame, seed=9, note="text").bits_saved(topics) == pytest.approx(again, rel=0.05)


@pytest.mark.parametrize(
    "notes",
    [
        ["a b", "a b", "c d", "c d"],
        ["only words here", None, "only words here", "more words here"],
        ["...", "!?", "---", "words at last"],
        ["", " ", "one text", "another text"],
    ],
)
def test_few_texts_and_texts_without_words_are_no_fault(notes: list[str | None]) -> None:
    frame = pl.DataFrame({"note": notes, "age": [1.0, 2.0, 30.0, 31.0]})
    judge = referee(frame, note="text", age="number")
    assert np.isfinite(judge.bits_saved(np.array([0, 0, 1, 1])))


def test_missing_values_are_described_by_nothing() -> None:
    frame, groups = planted()
    judge = referee(frame)
    holes = frame.with_columns(
        pl.when(pl.Series(np.arange(240) % 10 == i)).then(None).otherwise(pl.col(name)).alias(name)
        for i, name in enumerate(MIXED)
    )
    assert 0.2 < referee(holes).bits_saved(groups) < judge.bits_saved(groups)


def test_two_correlated_numbers_are_described_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(300) % 2
    along = rng.normal(0, 1, 300)
    frame = pl.DataFrame({"x": along + 4 * groups + rng.normal(0, 0.2, 300), "y": along - 4 * groups})
    judge = referee(frame, x="number", y="number")
    assert judge.bits_saved(groups) > 0.5
    turned = pl.DataFrame({"x": along + 4 * rng.permutation(groups), "y": along})  # not told by one beside the other
    assert referee(turned, x="number", y="number").bits_saved(groups) < 0


def test_what_cannot_be_described_is_said() -> None:
    with pytest.raises(ErasmoError, match="Got no column that tells rows apart"):
        referee(pl.DataFrame({"age": [1.0, 1.0]}), age="number")
    frame, groups = planted()
    with pytest.raises(ValueError, match="got 239 labels for 240 rows"):
        referee(frame).bits_saved(groups[1:])


def test_the_error_is_that_of_the_mean_over_the_rows() -> None:
    frame, groups = planted()
    judge = referee(frame)
    saved = judge.saved(groups)
    assert saved.bits == judge.bits_saved(groups)
    rng = np.random.default_rng(1)
    again = [referee(frame[rows]).bits_saved(groups[rows]) for rows in rng.integers(0, len(frame), (30, len(frame)))]
    assert saved.error == pytest.approx(np.std(again), rel=0.5)
    assert judge.saved(np.zeros(len(groups), np.int64)) == (0.0, 0.0)
