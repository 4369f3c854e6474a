"""Common procedures without a model of the table, and how rows that they never saw are placed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.peers import PEERS, ROW_TEXTS, by_nearest_row, k_prototypes, peer_steadiness
from erasmo_dagster.method.textual import TextPlan, fit_text
from erasmo_dagster.settings import DatasetSettings


def people() -> pl.DataFrame:
    """Three groups by age and job; income varies a little."""
    rng, group = np.random.default_rng(0), np.arange(90) % 3
    age, income = 20.0 * group + rng.normal(size=90), group + rng.normal(0, 0.1, 90)
    return pl.DataFrame({"age": age, "income": income, "job": [f"job {g}" for g in group]})


def by_jobs(texts: Sequence[str]) -> np.ndarray:
    """Stands in for a sentence encoder: what a text says of jobs."""
    return np.array([[text.count(f"job {g}") for g in range(3)] + [len(text) / 1e3] for text in texts], np.float32)


def plan_of(frame: pl.DataFrame) -> TextPlan:
    return fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "none"}))


def test_peers_tell_plain_groups_apart() -> None:
    frame, group = people(), np.arange(90) % 3
    plan = plan_of(frame)
    for peer in PEERS.values():
        labels = peer(frame, plan, 3, 3, 0, by_jobs)
        assert adjusted_rand_score(group, labels) == 1.0
        assert labels.dtype == np.int64
        with pytest.raises(ErasmoError, match=r"Got 3 rows for "):
            peer(frame[:3], plan, 3, 3, 0, by_jobs)
        np.testing.assert_array_equal(peer(frame, plan, 3, 3, 0, by_jobs), labels)


def test_peers_take_columns_that_no_row_of_the_sample_has() -> None:
    frame = people()
    plan = plan_of(frame)
    holes = frame.with_columns(job=pl.lit(None, pl.String), income=pl.lit(None, pl.Float64))
    for peer in PEERS.values():
        assert len(set(peer(holes, plan, 3, 3, 0, by_jobs).tolist())) == 3


def test_rows_go_with_the_nearest_of_those_that_were_drawn() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1], [4.9], [0.2], [4.0]], dtype=np.float32)
    found = by_nearest_row(points, np.array([0, 1, 3]), np.array([7, 7, 2]))
    assert found.labels.tolist() == [1, 1, 0, 0, 0, 1, 0]
    assert found.model.centers.ravel() == pytest.approx([4.75, 0.1])
    assert found.model.place(np.array([[2.0], [3.0]], dtype=np.float32)).labels.tolist() == [1, 0]
    np.testing.assert_array_equal(found.model.place(points).labels, found.labels)


def test_rows_at_one_point_are_in_the_segment_of_most_of_them() -> None:
    points = np.array([[0.0], [0.0], [0.0], [1.0], [1.0], [3.0]], dtype=np.float32)
    found = by_nearest_row(points, np.arange(6), np.array([0, 1, 1, 0, 2, 2]))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2]
    with pytest.raises(ErasmoError, match="Got one segment"):
        by_nearest_row(points[:3], np.arange(3), np.array([0, 1, 1]))


def test_the_order_of_the_columns_changes_nothing() -> None:
    frame = people().with_columns(age=pl.Series(np.random.default_rng(1).normal(size=90)))
    plan = plan_of(frame)
    turned = plan.model_copy(update={"columns": plan.columns[::-1]})
    for name, peer in PEERS.items():
        expected = peer(frame, plan, 4, 2, 0, by_jobs)
        # A row's text has the plan's order, which is the corpus's, whatever the table's.
        other = plan if name == ROW_TEXTS else turned
        np.testing.assert_array_equal(peer(frame.select("job", "income", "age"), other, 4, 2, 0, by_jobs), expected)


# k-prototypes


def test_k_prototypes_weighs_categories_beside_numbers() -> None:
    """Two groups by a number and two by a category of several columns: four of both."""
    rng = np.random.default_rng(3)
    far, kind = np.arange(80) // 40, np.arange(80) // 20 % 2
    frame = pl.DataFrame(
        {"x": 9.0 * far + rng.normal(size=80)} | {f"c{i}": [("a", "b")[k] for k in kind] for i in range(3)}
    )
    labels = k_prototypes(frame, plan_of(frame), 4, 3, 0, by_jobs)
    assert adjusted_rand_score(2 * far + kind, labels) == 1.0


def test_k_prototypes_of_numbers_alone_and_of_categories_alone() -> None:
    frame, group = people(), np.arange(90) % 3
    twin = pl.col("job").str.replace("job", "trade").alias("twin")
    numbers, names = frame.select("age", "income"), frame.select("job", twin, sex=pl.Series(["m", "f"] * 45))
    for part in (numbers, names):
        labels = k_prototypes(part, plan_of(part), 3, 3, 0, by_jobs)
        assert adjusted_rand_score(group, labels) == 1.0
    np.testing.assert_array_equal(
        k_prototypes(numbers, plan_of(numbers), 3, 3, 0, by_jobs),
        PEERS["one-hot, k-means"](numbers, plan_of(numbers), 3, 3, 0, by_jobs),
    )


def test_k_prototypes_takes_what_is_missing_as_the_mean_and_as_a_value() -> None:
    frame, group = people(), np.arange(90) % 3
    holes = frame.with_columns(
        age=pl.when(pl.int_range(90) % 10 == 0).then(None).otherwise("age"),
        job=pl.when(pl.col("job") == "job 2").then(None).otherwise("job"),
    )
    labels = k_prototypes(holes, plan_of(holes), 3, 3, 0, by_jobs)
    assert adjusted_rand_score(group, labels) > 0.8


def test_k_prototypes_says_what_it_cannot_do() -> None:
    frame = pl.DataFrame({"note": [f"a long remark of many words about nothing, the {i}th of them" for i in range(9)]})
    with pytest.raises(ErasmoError, match="Got a table without numbers, moments, categories or truth values that vary"):
        k_prototypes(frame, plan_of(frame), 2, 1, 0, by_jobs)
    frame = pl.DataFrame({"x": [1.0, 1.0, 2.0, 2.0, 1.0, 2.0], "c": list("aabbab")})
    with pytest.raises(ErasmoError, match="Got 2 different rows for 3 segments"):
        k_prototypes(frame, plan_of(frame), 3, 1, 0, by_jobs)


def test_no_start_with_rows_in_every_segment_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmodes.kprototypes import KPrototypes

    def fit(*_: object, **__: object) -> None:
        raise ValueError("Clustering algorithm could not initialize. Consider assigning the initial clusters manually.")

    monkeypatch.setattr(KPrototypes, "fit", fit)
    with pytest.raises(ErasmoError, match="Got no start of k-prototypes with 3 segments"):
        k_prototypes(people(), plan_of(people()), 3, 1, 0, by_jobs)


def test_what_the_library_warns_of_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmodes import kprototypes

    real = kprototypes.k_prototypes

    def loud(*given: object) -> object:
        warnings.warn("nobody can do anything about this", DeprecationWarning, stacklevel=1)
        return real(*given)

    monkeypatch.setattr(kprototypes, "k_prototypes", loud)
    assert len(set(k_prototypes(people(), plan_of(people()), 3, 1, 0, by_jobs).tolist())) == 3


# Rows as texts


def test_rows_are_read_as_the_corpus_has_them_and_equal_ones_once() -> None:
    frame = pl.DataFrame({"age": [1, 2, 1, 3, 2], "job": ["job 0", None, "job 0", "job 1", None]})
    read: list[str] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        read.extend(texts)
        return by_jobs(texts)

    plan = plan_of(frame)
    labels = PEERS[ROW_TEXTS](frame, plan, 2, 1, 0, encode)
    assert labels[0] == labels[2]
    assert labels[1] == labels[4]
    missing = plan.settings.missing
    assert read == ["age is 1, job is job 0", f"age is 2, job is {missing}", "age is 3, job is job 1"]


# How stable they are


@pytest.mark.parametrize("name", PEERS)
def test_planted_groups_are_found_again_and_noise_is_not(name: str) -> None:
    frame = people()
    plan, points = plan_of(frame), np.column_stack([frame["age"], frame["income"]]).astype(np.float32)
    labels = (np.arange(90) % 3).astype(np.int64)
    found = peer_steadiness(name, frame, plan, points, labels, n_init=2, encode=by_jobs, seed=0, resamples=3)
    assert found is not None
    assert (found.ari, found.seeds, found.rows) == (1.0, 1.0, 90)
    assert len(found.jaccard) == 3
    shuffled = np.random.default_rng(0).permutation(labels)
    other = peer_steadiness(name, frame, plan, points, shuffled, n_init=2, encode=by_jobs, seed=0, resamples=3)
    assert other is not None
    assert other.ari < 0.1
    again = peer_steadiness(name, frame, plan, points, shuffled, n_init=2, encode=by_jobs, seed=0, resamples=3)
    assert again == other
    few = peer_steadiness(name, frame, plan, points, labels, n_init=2, encode=by_jobs, seed=0, rows=40, resamples=2)
    assert few is not None
    assert few.rows == 40


def test_a_part_that_a_peer_can_do_nothing_with_has_found_nothing() -> None:
    """Four rows in two segments: no half has three rows, and few resamples do."""
    frame = people()[:4]
    points = np.arange(4, dtype=np.float32)[:, None]
    labels = np.array([0, 0, 1, 1])
    found = peer_steadiness(
        "one-hot, k-means", frame, plan_of(people()), points, labels, n_init=1, encode=by_jobs, seed=0
    )
    assert found is not None
    assert found.ari < 0.9
    one = np.zeros(4, dtype=np.int64)
    for few, few_labels in ((4, one), (3, labels[:3])):
        nothing = peer_steadiness(
            "k-prototypes",
            frame[:few],
            plan_of(people()),
            points[:few],
            few_labels,
            n_init=1,
            encode=by_jobs,
            seed=0,
        )
        assert nothing is None
