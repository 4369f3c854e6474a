"""Clustering by a mixture of mixed columns: what places rows, the numbers of segments, what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.metrics import adjusted_rand_score

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.algorithms import mixed
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.segment_model import SegmentModel
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.mixture import LEAST_SHARE, Fit, Rows, fit_mixture
from erasmo_dagster.method.tables.rule import MixedRule
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.settings import ClusteringSettings

KINDS = {"age": "number", "income": "number", "job": "category", "city": "category"}


def planted(rows: int = 240, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Three groups by a number and a category each row of which may lie; a number and a category say nothing."""
    rng = np.random.default_rng(seed)
    group = np.sort(np.arange(rows) % 4).clip(0, 2)  # the last holds half of the rows
    job = np.where(rng.random(rows) < 0.95, group, rng.integers(0, 3, rows))
    age = 30 + 15 * group + rng.normal(0, 3, rows)
    age[::11] = np.nan
    columns = {"age": age, "income": rng.normal(size=rows), "job": [f"job {j}" for j in job]}
    return pl.DataFrame({**columns, "city": [("Lima", "Oslo")[c] for c in rng.integers(0, 2, rows)]}), group


def noise(rows: int = 300) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    numbers = {f"n{i}": rng.normal(size=rows) for i in range(3)}
    return pl.DataFrame({**numbers, "c": [f"c{c}" for c in rng.integers(0, 3, rows)]})


def points_of(frame: pl.DataFrame) -> tuple[np.ndarray, Layout]:
    plans = [
        ColumnPlan(
            name=name,
            label=name,
            kind="number" if frame[name].dtype.is_numeric() else "category",
            values={},
            unit=None,
            verbalize=False,
            sensitive=False,
        )
        for name in frame.columns
    ]
    space, points = TableSpace.fit(frame, plans, lambda texts: np.zeros((len(texts), 1), np.float32), seed=0)
    return points, space.layout


def settings(**given: Any) -> ClusteringSettings:
    return ClusteringSettings.model_validate({"method": "mixture", "n_init": 4, **given})


def drawn(frame: pl.DataFrame, seed: int = 0, **given: Any) -> tuple[ClusterResult, np.ndarray]:
    points, layout = points_of(frame)
    return cluster(points, settings(**given), seed=seed, layout=layout), points


def saved_and_loaded(model: SegmentModel, folder: Path) -> SegmentModel:
    save_file({name: np.ascontiguousarray(a) for name, a in model.arrays().items()}, folder / "model.safetensors")
    details = json.loads(json.dumps(model.details(), allow_nan=False))
    return SegmentModel.from_saved(details, load_file(folder / "model.safetensors"))


# Rows and where they go


def test_planted_groups_are_found_and_numbered_by_size() -> None:
    frame, groups = planted()
    found, points = drawn(frame, k=3)
    assert adjusted_rand_score(groups, found.labels) > 0.9
    sizes = np.bincount(found.labels)
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)
    assert found.memberships is not None
    assert found.memberships.shape == (len(frame), 3)
    np.testing.assert_allclose(found.memberships.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.memberships.argmax(axis=1), found.labels)
    np.testing.assert_array_equal(found.memberships.max(axis=1), found.confidence)
    for segment, center in enumerate(found.model.centers):
        np.testing.assert_allclose(center, points[found.labels == segment].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("kind", ["both", "numbers", "categories", "tied"])
def test_the_model_places_rows_as_they_were_also_when_saved(kind: str, tmp_path: Path) -> None:
    frame, _ = planted()
    if kind == "tied":
        along = np.random.default_rng(0).normal(size=240)
        frame = frame.with_columns(income=pl.Series(frame["age"].to_numpy() + 40 * along), debt=pl.Series(along))
    frame = frame.select({"numbers": ["age", "income"], "categories": ["job", "city"]}.get(kind, frame.columns))
    found, points = drawn(frame, k=3)
    again = saved_and_loaded(found.model, tmp_path)
    for model in (found.model, again):
        placed = model.place(points)
        np.testing.assert_array_equal(placed.labels, found.labels)
        assert placed.memberships is not None
        assert found.memberships is not None
        assert placed.memberships.tobytes() == found.memberships.tobytes()
    assert isinstance(again.rule, MixedRule)
    assert again.details() == found.model.details()
    assert again.place(points[:0]).labels.shape == (0,)


def test_a_row_alone_goes_where_it_goes_among_others() -> None:
    found, points = drawn(planted()[0], k=3)
    alone = np.concatenate([found.model.place(points[i : i + 1]).labels for i in range(0, 240, 7)])
    np.testing.assert_array_equal(alone, found.labels[::7])


def test_the_same_rows_give_the_same_bits_whatever_the_order_of_the_columns() -> None:
    frame, _ = planted()
    found, points = drawn(frame, k=3)
    for order in (sorted(KINDS), sorted(KINDS, reverse=True)):
        other, same = drawn(frame.select(order), k=3)
        assert same.tobytes() == points.tobytes()
        assert other.labels.tobytes() == found.labels.tobytes()
        assert other.confidence.tobytes() == found.confidence.tobytes()


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_in_another_order_and_another_seed_give_the_same_groups(seed: int) -> None:
    frame, _ = planted()
    found, _ = drawn(frame, k=3)
    order = np.random.default_rng(seed).permutation(len(frame))
    other, _ = drawn(frame[order], seed=seed, k=3)
    assert adjusted_rand_score(found.labels[order], other.labels) >= 0.9


def test_equal_rows_are_in_one_segment() -> None:
    frame = planted(80)[0]
    found, _ = drawn(pl.concat([frame] * 3), k=3)
    np.testing.assert_array_equal(found.labels[:80], found.labels[80:160])
    np.testing.assert_array_equal(found.labels[:80], found.labels[160:])


def test_a_row_that_lacks_everything_has_the_shares_of_the_segments() -> None:
    frame, _ = planted()
    frame = pl.concat([frame, pl.DataFrame([[None]] * 4, schema=frame.schema)])
    found, _ = drawn(frame, k=3)
    assert found.memberships is not None
    assert isinstance(found.model.rule, MixedRule)
    np.testing.assert_allclose(found.memberships[-1], found.model.rule.density.shares, rtol=1e-5)


def test_a_component_that_no_row_is_in_is_no_segment_and_the_notes_say_so() -> None:
    frame = pl.DataFrame({"a": ["x", "y"] * 40, "b": ["u", "v"] * 40, "c": [*["p", "q"] * 39, "q", "p"]})
    found, points = drawn(frame, k=4)
    assert found.k < 4
    assert sorted(set(found.labels.tolist())) == list(range(found.k))
    assert f"Asked for k=4, mixture told {found.k} segments apart." in found.notes
    assert found.model.k == found.k
    assert found.memberships is not None
    assert found.memberships.shape == (80, found.k)
    np.testing.assert_allclose(found.memberships.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.model.place(points).labels, found.labels)


def test_of_many_rows_some_are_fitted_and_all_are_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def counting(rows: Rows, *args: Any) -> Fit:
        fitted.append(len(rows))
        return fit_mixture(rows, *args)

    monkeypatch.setattr(mixed, "fit_mixture", counting)
    monkeypatch.setattr(mixed, "MOST_ROWS", 200)
    frame, groups = planted(2_000)
    found, points = drawn(frame, k=3)
    assert set(fitted) == {200}
    assert len(found.labels) == 2_000
    assert adjusted_rand_score(groups, found.labels) > 0.85
    np.testing.assert_array_equal(found.model.place(points).labels, found.labels)
    np.testing.assert_array_equal(found.labels, drawn(frame, k=3)[0].labels)


def test_a_value_that_the_sample_lacks_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "MOST_ROWS", 100)
    frame, _ = planted(1_000)
    frame = frame.with_columns(job=pl.Series([*frame["job"][:-2], "rare", "other"]))
    found, _ = drawn(frame, k=3)
    assert np.isfinite(found.confidence).all()


# How many


def test_three_planted_groups_are_three_segments_by_the_bits_that_they_save() -> None:
    found, _ = drawn(planted()[0], k_max=6)
    assert found.k == 3
    assert found.reason.startswith("3 segments save the most bits in describing a row, ") or found.reason.startswith(
        "3 are the fewest segments that save 80% of the bits a row that any number saves: "
    )
    saved = {point.k: point.bits_saved for point in found.sweep}
    assert list(saved) == [2, 3, 4, 5, 6]
    assert all(bits is not None and bits <= saved[3] / 0.8 for bits in saved.values())  # type: ignore[operator]
    assert saved[2] < 0.8 * saved[3]  # type: ignore[operator]


def test_a_number_that_was_swept_gives_the_segments_of_the_number_given() -> None:
    frame, _ = planted()
    swept, given = drawn(frame, k_max=4)[0], drawn(frame, k=3)[0]
    assert swept.labels.tobytes() == given.labels.tobytes()
    assert (given.sweep, given.reason) == ((), "")


def test_no_structure_is_said() -> None:
    found, _ = drawn(noise(), k_max=4)
    assert found.reason == "No number of segments describes the rows more briefly than none does."
    assert found.k == 2
    assert max(point.bits_saved or 0 for point in found.sweep) <= 0


def test_a_few_odd_rows_are_no_reason_for_a_segment_more() -> None:
    frame, groups = planted(600)
    odd = pl.DataFrame({"age": [45.0] * 3, "income": [60.0] * 3, "job": ["job 1"] * 3, "city": ["Oslo"] * 3})
    found, _ = drawn(pl.concat([frame, odd]), k_max=4)
    assert np.bincount(found.labels).min() >= LEAST_SHARE * 603
    assert found.k == 3
    assert adjusted_rand_score(groups, found.labels[:600]) > 0.9


@pytest.mark.parametrize("figure", ["silhouette", "calinski_harabasz", "davies_bouldin"])
def test_other_figures_may_choose(figure: str) -> None:
    found, _ = drawn(planted()[0], k_max=4, choose_by=figure)
    best = (min if figure == "davies_bouldin" else max)(found.sweep, key=lambda point: getattr(point, figure))
    assert found.k == best.k
    assert f"{found.k} segments have the " in found.reason
    assert all(point.bits_saved is not None for point in found.sweep)


# Next to nothing


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pl.DataFrame({"job": ["a", "b"]}), "Got 2 rows for clustering.k=2"),
        (pl.DataFrame({"job": ["a", "b"] * 9}), "Got 2 different vectors in 18 rows for clustering.k=3"),
        (pl.DataFrame({"job": ["a", "a", "b"]}), "Got one segment from clustering.method=mixture, .*: choose another"),
    ],
)
def test_too_little_is_said(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(ErasmoError, match=message):
        drawn(frame, k=3 if frame.height > 3 else 2)


def test_points_without_their_layout_are_refused() -> None:
    points, layout = points_of(planted(60)[0])
    with pytest.raises(ValueError, match=r"got no layout for clustering\.method=mixture"):
        cluster(points, settings(k=2), seed=0)
    with pytest.raises(ValueError, match="dimensions for a layout of"):
        cluster(points[:, 1:], settings(k=2), seed=0, layout=layout)


def test_some_of_the_segments_share_what_all_have() -> None:
    found, points = drawn(planted()[0], k=3)
    rule = found.model.rule
    assert isinstance(rule, MixedRule)
    some = rule.subset(np.array([2, 0]))
    whole, part = rule.place(points, points[:0]).memberships, some.place(points, points[:0]).memberships
    assert whole is not None
    assert part is not None
    kept = whole[:, [2, 0]].astype(np.float64)
    sure = kept.sum(axis=1) > 0.01
    np.testing.assert_allclose(part[sure], (kept / kept.sum(axis=1, keepdims=True))[sure], atol=1e-5)
    assert some.density.shares.sum() == pytest.approx(1)
