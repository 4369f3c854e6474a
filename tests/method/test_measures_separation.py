"""How much of each column segments explain, against scikit-learn, plain formulas and planted groups."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import normalized_mutual_info_score

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.measures import Separation, separation

TOPICS = (["waist", "small", "size", "tight", "length"], ["soft", "wool", "warm", "itchy", "fabric"])


def plans(**kinds: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=name, label=name, kind=kind, values={}, unit=None, verbalize=False, sensitive=False)
        for name, kind in kinds.items()
    ]


def measure(table: dict[str, Any], labels: Any, seed: int = 0, permutations: int = 19, **kinds: str) -> Separation:
    found = separation(pl.DataFrame(table), plans(**kinds), np.asarray(labels), seed=seed, permutations=permutations)
    assert found is not None
    return found


def naive_eta(values: np.ndarray, labels: np.ndarray) -> float:
    values, labels = values[~np.isnan(values)], labels[~np.isnan(values)]
    between = sum((labels == s).sum() * (values[labels == s].mean() - values.mean()) ** 2 for s in np.unique(labels))
    return float(between / ((values - values.mean()) ** 2).sum())


# Each column


def test_numbers_by_hand() -> None:
    found = measure({"x": [0, 1, 10, 11]}, [3, 3, 8, 8], x="number")
    (column,) = found.columns
    assert (column.column, column.measure) == ("x", "eta_squared")
    assert column.share == pytest.approx(100 / 101)
    assert found.share == column.share
    assert found.rows == 4


def test_numbers_and_categories_are_as_defined_where_values_are_missing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    numbers = np.where(rng.random(200) < 0.3, np.nan, rng.normal(labels, 2.0))
    names: list[str | None] = [None if rng.random() < 0.3 else "abcdefg"[(s + n) % 7] for s, n in zip(labels, rng.integers(0, 3, 200), strict=True)]  # fmt: skip
    found = measure({"x": numbers, "c": names}, labels, x="number", c="category")
    present = np.array([name is not None for name in names])
    nmi = normalized_mutual_info_score(labels[present], [name for name in names if name is not None])
    assert [column.share for column in found.columns] == pytest.approx([naive_eta(numbers, labels), nmi])
    assert found.share == pytest.approx((naive_eta(numbers, labels) + nmi) / 2)
    assert [column.measure for column in found.columns] == ["eta_squared", "nmi"]


def test_a_category_of_many_values_is_as_defined() -> None:
    rng = np.random.default_rng(1)
    labels, names = rng.integers(0, 30, 400), rng.integers(0, 300, 400)
    found = measure({"c": names.astype(str)}, labels, c="category")
    assert found.share == pytest.approx(normalized_mutual_info_score(labels, names))


def test_moments_and_truth_values_count() -> None:
    labels = np.arange(20) % 2
    since = [datetime(2024, 1, 1) + timedelta(days=300 * int(s)) for s in labels]
    found = measure({"since": since, "paid": labels == 1}, labels, since="datetime", paid="boolean")
    assert [(column.measure, column.share) for column in found.columns] == [
        ("eta_squared", pytest.approx(1)),
        ("nmi", pytest.approx(1)),
    ]


def test_texts_on_two_topics() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    texts = [" ".join(rng.choice(TOPICS[s], 6)) for s in labels]
    found = measure({"note": texts}, labels, permutations=99, note="text")
    assert found.columns[0].measure == "text"
    assert found.share > 0.4
    assert found.p_value == 0.01
    other = measure({"note": texts}, np.arange(120) // 2 % 2, permutations=99, note="text")
    assert other.share < 0.05
    assert other.p_value > 0.05


def test_texts_of_many_words_are_measured_by_their_leading_components() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    words = rng.integers(0, 500, (150, 12))
    texts = [" ".join(f"word{w}" for w in row) + f" about{s} about{s} thing{s}" for row, s in zip(words, labels, strict=True)]  # fmt: skip
    first, again = (measure({"note": texts}, labels, seed=seed, note="text") for seed in (0, 9))
    assert first.share > 0.15
    # Of all rows, so that a seed changes nothing; nor does the order of the rows.
    assert again.share == pytest.approx(first.share, abs=1e-9)
    turned = measure({"note": texts[::-1]}, labels[::-1], note="text")
    assert turned.share == pytest.approx(first.share, abs=1e-9)
    assert measure({"note": texts}, rng.permutation(labels), note="text").share < 0.05


def test_texts_of_fewer_directions_than_components() -> None:
    long = [" ".join(f"{topic}{i}" for i in range(40)) for topic in "abc"]
    labels = np.arange(90) % 3
    assert measure({"note": [long[s] for s in labels]}, labels, note="text").share == pytest.approx(1)


def test_texts_of_which_no_two_share_a_word() -> None:
    found = measure({"note": ["one two", "three four", "five six", "seven"]}, [0, 0, 1, 1], note="text")
    assert 0 < found.share < 1


def test_missing_texts_do_not_count() -> None:
    texts = ["tea pot", "tea cup", None, "coal mine", "coal pit", " "]
    with_missing = measure({"note": texts}, [0, 0, 1, 1, 1, 0], note="text")
    without = measure({"note": [text for text in texts if text and text.strip()]}, [0, 0, 1, 1], note="text")
    assert with_missing.share == pytest.approx(without.share)


# Invariances


def test_neither_names_of_segments_nor_units_change_a_figure() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 90)
    x = rng.normal(labels)
    plain, other = measure({"x": x}, labels, x="number"), measure({"x": 1e6 - 40 * x}, 7 - 2 * labels, x="number")
    assert plain.share == pytest.approx(other.share)


def test_noise_is_left_out() -> None:
    rng = np.random.default_rng(3)
    labels = np.where(np.arange(100) < 30, -1, np.arange(100) % 3)
    x = rng.normal(labels)
    assert measure({"x": x}, labels, x="number").share == pytest.approx(naive_eta(x[30:], labels[30:]))
    assert measure({"x": x}, labels, x="number").rows == 70


def test_the_same_seed_gives_the_same_figures() -> None:
    rng = np.random.default_rng(4)
    frame = pl.DataFrame({"x": rng.normal(size=300), "c": rng.choice(["a", "b"], 300)})
    labels = rng.integers(0, 3, 300)
    runs = [
        separation(frame, plans(x="number", c="category"), labels, seed=seed, max_rows=100, permutations=49)
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_sensitive_columns_count() -> None:
    frame = pl.DataFrame({"x": [0, 0, 1, 1]})
    (plan,) = plans(x="number")
    found = separation(frame, [plan.model_copy(update={"sensitive": True})], np.array([0, 0, 1, 1]), seed=0)
    assert found is not None
    assert found.share == 1


# Columns and tables of which nothing can be said


def test_columns_that_do_not_vary_are_left_out() -> None:
    table = {"x": [0.0, 1, 5, 6], "same": [7, 7, 7, 7], "key": list("abcd"), "none": [None] * 4, "one": ["a"] * 4, "z": [[1], [2], [3], [4]], "blank": ["", " ", "", "!"]}  # fmt: skip
    found = measure(
        table, [0, 0, 1, 1],
        x="number", same="number", key="category", none="number", one="category", z="nested", blank="text",
    )  # fmt: skip
    assert [column.column for column in found.columns] == ["x"]


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, -1, -1], [0, 0, -1, -1], [0, 1, -1, -1]])
def test_no_segments_to_tell_apart(labels: list[int]) -> None:
    assert separation(pl.DataFrame({"x": [1, 2, 3, 4]}), plans(x="number"), np.array(labels), seed=0) is None


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 1, 1, 1], "number"), ([[1], [2], [3], [4]], "nested"), (["", None, " ", ""], "text")]
)
def test_no_column_that_varies(values: list[Any], kind: str) -> None:
    assert separation(pl.DataFrame({"x": values}), plans(x=kind), np.array([0, 0, 1, 1]), seed=0) is None


def test_labels_of_other_rows() -> None:
    with pytest.raises(ValueError, match="for 2 rows"):
        separation(pl.DataFrame({"x": [1, 2]}), plans(x="number"), np.array([0, 1, 1]), seed=0)


def test_numbers_whose_range_is_no_float_and_infinities() -> None:
    found = measure({"x": [-1e308, -1e308, 1e308, float("inf")]}, [0, 0, 1, 1], x="number")
    assert found.share == pytest.approx(1)


def test_equal_rows() -> None:
    found = measure({"x": [1, 1, 2, 2] * 5, "c": ["a", "a", "b", "b"] * 5}, [0, 0, 1, 1] * 5, x="number", c="category")
    assert [column.share for column in found.columns] == pytest.approx([1, 1])
    assert found.error == pytest.approx(0, abs=1e-9)


def test_a_segment_in_which_a_column_is_missing_throughout() -> None:
    found = measure({"x": [0, 2, 10, 12, None, None]}, [0, 0, 1, 1, 2, 2], x="number")
    assert found.share == pytest.approx(100 / 104)


# Chance


def test_p_values_of_planted_segments_and_of_none() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 200)
    noise = {f"n{i}": rng.normal(size=200) for i in range(30)} | {f"c{i}": rng.choice(list("abcde"), 200) for i in range(30)}  # fmt: skip
    found = measure(
        {"x": rng.normal(labels)} | noise,
        labels,
        permutations=99,
        **{"x": "number"} | {name: "number" if name[0] == "n" else "category" for name in noise},
    )
    p_values = [column.p_value for column in found.columns]
    assert p_values[0] == found.p_value == 0.01
    # Of what chance makes, a tenth lies below 0.1.
    assert 0.02 < np.mean([p <= 0.1 for p in p_values[1:]]) < 0.25
    assert 0.35 < np.mean(p_values[1:]) < 0.65


def test_a_share_that_every_permutation_reaches_has_p_1() -> None:
    # Two rows of each of two values, and segments of which one has a single row: the same share whichever that is.
    assert measure({"c": ["a", "a", "b", "b"]}, [0, 0, 0, 1], permutations=9, c="category").p_value == 1


def test_what_chance_explains_is_told_apart() -> None:
    rng = np.random.default_rng(9)
    labels, names = rng.integers(0, 4, 300), rng.integers(0, 200, 300).astype(str)
    found = measure({"x": rng.normal(size=300), "title": names}, labels, permutations=49, x="number", title="category")
    x, title = found.columns
    assert x.chance < 0.03
    assert title.chance > 0.25
    assert title.share == pytest.approx(title.chance, abs=0.03)
    assert title.p_value > 0.05
    assert found.chance == pytest.approx((x.chance + title.chance) / 2)


def test_no_permutation() -> None:
    with pytest.raises(ValueError, match="got 0 permutations"):
        measure({"x": [1, 2, 3]}, [0, 0, 1], permutations=0, x="number")


def test_the_error_is_that_of_drawing_other_rows() -> None:
    rng = np.random.default_rng(6)
    shares, errors = [], []
    for _ in range(40):
        labels = rng.integers(0, 3, 150)
        found = measure(
            {"x": rng.normal(labels), "c": np.where(rng.random(150) < 0.5, labels, 9).astype(str)}, labels,
            permutations=1, x="number", c="category",
        )  # fmt: skip
        shares.append(found.share)
        errors.append(found.error)
    assert 0.6 < np.mean(errors) / np.std(shares, ddof=1) < 1.6


# Large tables


def test_a_sample_of_a_large_table_is_near_the_whole() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, 20_000)
    frame = pl.DataFrame({"x": rng.normal(labels), "c": np.where(rng.random(20_000) < 0.4, labels, 9).astype(str)})
    columns = plans(x="number", c="category")
    whole = separation(frame, columns, labels, seed=0, permutations=1)
    part = separation(frame, columns, labels, seed=0, permutations=1, max_rows=2_000)
    assert whole is not None
    assert part is not None
    assert (whole.rows, part.rows) == (20_000, 2_000)
    assert abs(part.share - whole.share) < 4 * part.error
    assert part.error < 0.02


def test_a_million_rows_in_bounded_memory() -> None:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 4, 1_000_000).astype(np.int8)
    frame = pl.DataFrame({"x": rng.normal(size=1_000_000), "c": pl.Series(labels).cast(pl.String)})
    tracemalloc.start()
    found = separation(frame, plans(x="number", c="category"), labels, seed=0, max_rows=2_000, permutations=9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None
    assert found.columns[1].share == pytest.approx(1)
    assert peak < 60e6
