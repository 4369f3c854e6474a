"""The silhouette under Gower distance with its error: exact for small tables, of samples for large ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import gower_distances, gower_silhouette
from erasmo_dagster.method.measures import Estimate, gower_silhouette_of


def plans(**kinds: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=name, label=name, kind=kind, values={}, unit=None, verbalize=False, sensitive=False)
        for name, kind in kinds.items()
    ]


def table(rows: int, seed: int = 0) -> tuple[pl.DataFrame, list[ColumnPlan], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    frame = pl.DataFrame({"x": rng.uniform(0, 2, rows) + labels, "c": np.where(rng.random(rows) < 0.7, labels, 9).astype(str)})  # fmt: skip
    return frame, plans(x="number", c="category"), labels


def test_a_small_table_is_measured_whole() -> None:
    frame, columns, labels = table(80)
    distances = gower_distances(frame, columns)
    assert distances is not None
    exact = gower_silhouette(distances, labels)
    assert gower_silhouette_of(frame, columns, labels, seed=0, rows=80) == Estimate(exact, 0.0, 80)  # type: ignore[arg-type]


def test_noise_neither_counts_nor_widens_a_range() -> None:
    frame, columns, labels = table(80)
    noisy = frame.with_columns(x=pl.Series([*frame["x"][:70], *[1e6] * 10]))
    noise = np.where(np.arange(80) < 70, labels, -1)
    found = gower_silhouette_of(noisy, columns, noise, seed=0)
    assert found is not None
    assert found == gower_silhouette_of(frame[:70], columns, labels[:70], seed=0)
    assert found.rows == 70


def test_samples_of_a_large_table_are_near_the_whole() -> None:
    frame, columns, labels = table(1500)
    whole = gower_silhouette_of(frame, columns, labels, seed=0)
    part = gower_silhouette_of(frame, columns, labels, seed=0, rows=200)
    assert whole is not None
    assert part is not None
    assert (whole.error, part.rows) == (0, 200)
    assert 0 < part.error < 0.03
    assert abs(part.value - whole.value) < 5 * part.error


def test_the_error_is_that_of_drawing_other_rows() -> None:
    frame, columns, labels = table(3000)
    found = [gower_silhouette_of(frame, columns, labels, seed=seed, rows=60, repeats=4) for seed in range(40)]
    values, errors = zip(*[(one.value, one.error) for one in found if one is not None], strict=True)
    assert 0.6 < np.mean(errors) / np.std(values, ddof=1) < 1.6


def test_the_same_seed_gives_the_same_figures() -> None:
    frame, columns, labels = table(300)
    runs = [gower_silhouette_of(frame, columns, labels, seed=seed, rows=100) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_one_sample_tells_no_error() -> None:
    frame, columns, labels = table(300)
    found = gower_silhouette_of(frame, columns, labels, seed=1, rows=100, repeats=1)
    assert found is not None
    assert np.isnan(found.error)


def test_tables_of_texts_are_measured_by_their_words() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    topics = (["waist", "small", "tight"], ["soft", "wool", "itchy"], ["late", "parcel", "courier"])
    frame = pl.DataFrame(
        {
            "title": [" ".join(rng.choice(topics[s], 4)) for s in labels],
            "review": [" ".join(rng.choice(topics[s], 9)) for s in labels],
            "age": rng.normal(size=120),
        }
    )
    columns = plans(title="text", review="text", age="number")
    found = gower_silhouette_of(frame, columns, labels, seed=0)
    without = gower_silhouette_of(frame, columns[2:], labels, seed=0)
    assert found is not None
    assert without is not None
    assert found.value > 0.4 > 0.1 > without.value


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, -1, -1], [0, 0, -1, -1], [0, 1, -1, -1]])
def test_no_segments_to_tell_apart(labels: list[int]) -> None:
    assert gower_silhouette_of(pl.DataFrame({"x": [1, 2, 3, 4]}), plans(x="number"), np.array(labels), seed=0) is None


@pytest.mark.parametrize(("values", "kind"), [([[1], [2], [3]], "nested"), ([None, None, 1], "number")])
def test_no_column_to_compare(values: list[Any], kind: str) -> None:
    assert gower_silhouette_of(pl.DataFrame({"x": values}), plans(x=kind), np.array([0, 0, 1]), seed=0) is None


def test_equal_rows_are_at_no_distance() -> None:
    frame = pl.DataFrame({"x": [1, 1, 2, 2]})
    assert gower_silhouette_of(frame, plans(x="number"), np.array([0, 0, 1, 1]), seed=0) == Estimate(1.0, 0.0, 4)


def test_labels_of_other_rows() -> None:
    with pytest.raises(ValueError, match="for 2 rows"):
        gower_silhouette_of(pl.DataFrame({"x": [1, 2]}), plans(x="number"), np.array([0, 1, 1]), seed=0)


def test_a_million_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 1_000_000)
    frame = pl.DataFrame({"x": rng.random(1_000_000) / 2 + labels})
    found = gower_silhouette_of(frame, plans(x="number"), labels, seed=0, rows=200)
    assert found is not None
    assert found.value > 0.6
    assert 0 < found.error < 0.01
