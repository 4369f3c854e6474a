"""Mean ranks are right, and a test is made only where it says something."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare

from erasmo_dagster.experiments.ranks import rank_arms
from tests.experiments.frames import failed, grid


def of_table(values: list[list[float | None]]) -> pl.DataFrame:
    """Cells of blocks x arms, each block a dataset."""
    names = [f"arm {i}" for i in range(len(values[0]))]
    table = {(f"d{i}", name): value for i, row in enumerate(values) for name, value in zip(names, row, strict=True)}
    return grid(
        [f"d{i}" for i in range(len(values))],
        names,
        seeds=[0],
        change=lambda row: {**row, "ari": table[row["dataset"], row["encoder"]]},
    )


# Demšar (2006), table 6: AUC of C4.5 with four settings on fourteen data sets.
DEMSAR = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975],
    [0.957, 0.978, 0.946, 0.970],
]


def test_ranks_are_those_of_the_paper() -> None:
    """The mean ranks and the critical difference that Demšar prints in sections 3.1.3 and 3.2.2."""
    ranking = rank_arms(of_table(DEMSAR), "ari")
    found = dict(zip(ranking.arms, ranking.mean_ranks, strict=True))
    assert found == pytest.approx({"arm 0": 3.143, "arm 1": 2.000, "arm 2": 2.893, "arm 3": 1.964}, abs=5e-4)
    assert ranking.critical_difference == pytest.approx(1.25, abs=0.01)
    assert ranking.p_value == pytest.approx(friedmanchisquare(*np.array(DEMSAR).T).pvalue)
    assert ranking.p_value is not None
    assert ranking.p_value < 0.05
    assert (ranking.blocks, ranking.datasets, ranking.left_out) == (14, 14, 0)
    assert "not independent" not in ranking.remark
    assert ranking.pairwise is not None
    pairs = np.array(ranking.pairwise)
    assert np.allclose(pairs, pairs.T)
    # The pair that differ by less than the critical difference is not told apart.
    for i, j in np.ndindex(pairs.shape):
        apart = abs(ranking.mean_ranks[i] - ranking.mean_ranks[j])
        assert (pairs[i, j] < 0.05) == (apart > ranking.critical_difference)


@given(st.data(), st.integers(1, 7), st.integers(1, 6))
@settings(max_examples=60)
def test_ranks_add_up(data: st.DataObject, blocks: int, arms: int) -> None:
    value = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, math.nan, 1.0]))
    values = data.draw(st.lists(st.lists(value, min_size=arms, max_size=arms), min_size=blocks, max_size=blocks))
    ranking = rank_arms(of_table(values), "ari")
    known = [[v is not None and not math.isnan(v) for v in row] for row in values]
    lost = {f"arm {i}" for i in range(arms) if not any(row[i] for row in known)}
    assert set(ranking.arms_left_out) == lost
    assert set(ranking.arms) == {f"arm {i}" for i in range(arms)} - lost
    left = len(ranking.arms)
    assert ranking.blocks == sum(all(row[int(a.split()[1])] for a in ranking.arms) for row in known if left)
    if ranking.blocks:
        assert sum(ranking.mean_ranks) == pytest.approx(left * (left + 1) / 2)
        assert list(ranking.mean_ranks) == sorted(ranking.mean_ranks)
        assert sum(ranking.wins) >= ranking.blocks
    assert (ranking.p_value is None) == (left < 3 or ranking.blocks < 5)
    assert ranking.p_value is None or 0 <= ranking.p_value <= 1


def test_lower_is_better_for_davies_bouldin() -> None:
    frame = grid()
    assert rank_arms(frame, "davies_bouldin").arms == rank_arms(frame, "ari").arms == ("ERASMO", "TF-IDF", "one-hot")
    with pytest.raises(ValueError, match="better direction"):
        rank_arms(frame, "rows")


def test_a_block_that_lacks_an_arm_is_left_out_and_said() -> None:
    def lost(row: dict[str, Any]) -> dict[str, Any]:
        return failed(row) if (row["dataset"], row["encoder"]) == ("zoo", "TF-IDF") else row

    ranking = rank_arms(grid([f"d{i}" for i in range(6)] + ["zoo"], change=lost), "ari")
    assert (ranking.blocks, ranking.left_out) == (6, 1)


def test_seeds_are_averaged_and_do_not_make_blocks() -> None:
    assert rank_arms(grid(seeds=range(9)), "ari").blocks == 2
    half = grid(
        seeds=[0, 1], change=lambda row: failed(row) if row["seed"] == 1 and row["encoder"] == "ERASMO" else row
    )
    assert rank_arms(half, "ari").blocks == 2


def test_few_blocks_or_arms_get_no_test() -> None:
    for frame in (grid(), grid([f"d{i}" for i in range(9)], ["a", "b"])):
        ranking = rank_arms(frame, "ari")
        assert ranking.p_value is ranking.pairwise is ranking.critical_difference is None
        assert ranking.remark.startswith("No test")


def test_equal_arms_do_not_differ() -> None:
    ranking = rank_arms(of_table([[0.5, 0.5, 0.5]] * 6), "ari")
    assert ranking.p_value == 1.0
    assert ranking.mean_ranks == (2.0, 2.0, 2.0)
    assert ranking.wins == (6, 6, 6)
    assert "do not differ" in ranking.remark


def test_algorithms_of_one_dataset_are_no_independent_blocks() -> None:
    ranking = rank_arms(grid(["zoo"], algorithms=[f"a{i}" for i in range(6)]), "ari")
    assert (ranking.blocks, ranking.datasets) == (6, 1)
    assert "not independent" in ranking.remark


def test_arms_may_be_called_like_columns_and_be_pairs() -> None:
    frame = grid([f"d{i}" for i in range(5)], ["k", "dataset", "#0"], ["arm", "variant"])
    assert rank_arms(frame, "ari").arms == ("k", "dataset", "#0")
    pairs = rank_arms(frame, "ari", arm=["encoder", "algorithm"])
    assert len(pairs.arms) == 6
    assert set(pairs.arms[:2]) == {"k / arm", "k / variant"}


def test_nothing_that_ran_gives_no_rank() -> None:
    ranking = rank_arms(grid(change=failed), "ari")
    assert ranking.arms == ranking.mean_ranks == ()
    assert set(ranking.arms_left_out) == {"ERASMO", "TF-IDF", "one-hot"}


def test_cells_without_a_number_of_segments_are_blocks_too() -> None:
    frame = grid([f"d{i}" for i in range(5)], change=lambda row: {**row, "k": None})
    assert rank_arms(frame, "ari").blocks == 5
