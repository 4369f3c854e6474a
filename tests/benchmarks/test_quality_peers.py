from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks.quality.features import MISSING, parts
from benchmarks.quality.peers import PEERS, library
from benchmarks.quality.suite import settings_of
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.textual import TextPlan, fit_text
from tests.benchmarks.planted import planted

GROUPS = np.arange(90) % 3
MIXED = planted().drop("kind", "leak")


def plan_of(frame: pl.DataFrame) -> TextPlan:
    return fit_text(frame, settings_of(frame))


def labels_of(name: str, frame: pl.DataFrame, k: int = 3, seed: int = 0) -> np.ndarray:
    peer, needs = PEERS[name]
    for needed in needs:
        pytest.importorskip(needed)
    return peer(frame, plan_of(frame), k, seed)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(
    "columns", [["age", "balance", "job", "city", "member"], ["age", "balance"], ["job", "member"]]
)
def test_every_peer_finds_planted_groups_in_mixed_tables_numbers_and_categories(name: str, columns: list[str]) -> None:
    labels = labels_of(name, MIXED.select(columns))
    assert labels.dtype == np.int64
    assert adjusted_rand_score(GROUPS, labels) > 0.95


@pytest.mark.parametrize("name", PEERS)
def test_the_seed_decides_and_missing_values_moments_and_equal_rows_are_taken(name: str) -> None:
    rng = np.random.default_rng(1)
    holes = MIXED.with_columns(
        pl.when(pl.Series(rng.random(90) < 0.1)).then(None).otherwise(pl.col(column)).alias(column)
        for column in MIXED.columns
    ).with_columns(since=pl.Series([date(2020, 1, 1) + timedelta(days=int(g) * 400) for g in GROUPS]))
    table = pl.concat([holes, holes[:20], holes.clear(1)])  # the last row has no value at all
    first, second = (labels_of(name, table, seed=3) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(set(first.tolist())) == 3
    assert np.array_equal(first[:20], first[90:110])
    # Average linkage gives the row without any value, at distance 1 from all, a segment of its own.
    assert name == "gower-average" or adjusted_rand_score(GROUPS, first[:90]) > 0.6


@pytest.mark.parametrize("name", ["onehot-kmeans", "famd-kmeans", "kprototypes"])
def test_a_table_of_texts_alone_has_no_column_that_they_can_use(name: str) -> None:
    texts = pl.DataFrame({"note": [f"This is the rather long note number {i} of some person." for i in range(20)]})
    with pytest.raises(ErasmoError, match="no column it can use"):
        labels_of(name, texts)


def test_parts_standardise_numbers_and_give_missing_categories_a_value() -> None:
    frame = pl.DataFrame(
        {
            "x": [1.0, 3.0, None, 2.0],
            "same": [5.0, None, 5.0, 5.0],
            "c": ["a", None, " ", "b"],
            "b": [True, False, None, True],
        }
    )
    own = parts(frame, plan_of(frame))
    assert own.numbers.tolist() == pytest.approx(
        np.array([[-1.0], [1.0], [0.0], [0.0]]) * 1.5**0.5
    )  # `same` varies not
    columns = {tuple(column) for column in own.categories.T.tolist()}
    assert columns == {("a", MISSING, MISSING, "b"), ("true", "false", MISSING, "true")}


def test_famd_tells_columns_apart_whose_names_and_values_join_to_one_text() -> None:
    frame = pl.DataFrame({"x": [float(g) for g in GROUPS], "a": ["b_c", "p"] * 45, "a_b": ["c", "q", "c"] * 30})
    assert len(set(labels_of("famd-kmeans", frame).tolist())) == 3


def test_gower_peers_do_not_depend_on_the_order_of_rows_and_columns() -> None:
    order = np.random.default_rng(0).permutation(90)
    for name in ("gower-average", "gower-spectral"):
        turned = labels_of(name, MIXED[order].select(reversed(MIXED.columns)))
        assert adjusted_rand_score(labels_of(name, MIXED)[order], turned) == 1.0


def test_spectral_clustering_refuses_rows_that_are_all_alike() -> None:
    plan = plan_of(pl.DataFrame({"x": [1, 2, 3, 4]}))
    with pytest.raises(ErasmoError, match="all alike"):
        PEERS["gower-spectral"][0](pl.DataFrame({"x": [1, 1, 1, 1]}), plan, 2, 0)


def test_a_library_that_is_absent_is_named() -> None:
    with pytest.raises(ErasmoError, match=r"Got no no_such_library .*extra `dev`"):
        library("no_such_library.part")
