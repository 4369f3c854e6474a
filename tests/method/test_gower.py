"""Gower's distances against a plain reading of the definition, pair by pair."""

from __future__ import annotations

import math
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score

from erasmo_dagster.method.columns import ColumnPlan, Kind
from erasmo_dagster.method.gower import gower_distances, gower_silhouette, text_columns, text_weights

KINDS: tuple[str, ...] = get_args(Kind)


def plans(**kinds: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=name, label=name, kind=kind, values={}, unit=None, verbalize=False, sensitive=False)
        for name, kind in kinds.items()
    ]


def one(values: Any, kind: str, dtype: Any = None) -> np.ndarray | None:
    return gower_distances(pl.DataFrame({"a": pl.Series(values, dtype=dtype)}), plans(a=kind))


def naive(table: dict[str, list[Any]], kinds: dict[str, str]) -> np.ndarray:
    """The definition, of plain values: None is missing, numbers are finite; every column has two values or more."""
    rows = len(next(iter(table.values())))
    parts = []
    for name, values in table.items():
        if kinds[name] == "nested":
            continue
        cosines = naive_cosines(values) if kinds[name] == "text" else None
        known = [value for value in values if value is not None]
        apart = {}
        for i, j in permutations(range(rows), 2):
            a, b = values[i], values[j]
            if a is None or b is None:
                continue
            if cosines is not None:
                apart[i, j] = 1 - cosines[i, j]
            elif kinds[name] in ("number", "datetime"):
                apart[i, j] = abs(a - b) / (max(known) - min(known))
            else:
                apart[i, j] = float(a != b)
        mean = sum(apart.values()) / len(apart)
        parts.append([[apart.get((i, j), mean) if i != j else 0.0 for j in range(rows)] for i in range(rows)])
    return np.asarray(np.mean(parts, axis=0))


def naive_cosines(texts: list[str | None]) -> np.ndarray:
    """Cosines of TF-IDF vectors, of texts of words and spaces."""
    words = [[] if text is None else text.lower().split() for text in texts]
    present = sum(text is not None for text in texts)
    vectors = []
    for of_row in words:
        vector = {}
        for word in of_row:
            holding = sum(word in other for other in words)
            vector[word] = (1 + math.log(of_row.count(word))) * (1 + math.log((1 + present) / (1 + holding)))
        length = math.sqrt(sum(value**2 for value in vector.values())) or 1.0
        vectors.append({word: value / length for word, value in vector.items()})
    return np.array([[sum(value * b.get(word, 0) for word, value in a.items()) for b in vectors] for a in vectors])


def test_mixed_columns_with_missing_values_are_as_defined() -> None:
    random = np.random.default_rng(0)

    def some(values: list[Any]) -> list[Any]:
        return [None if random.random() < 0.4 else value for value in values]

    table = {
        "age": some(random.normal(40, 10, 40).tolist()),
        "visits": some(random.integers(0, 5, 40).tolist()),
        "plan": some(random.choice(["free", "team", "firm"], 40).tolist()),
        "paid": some(random.choice([True, False], 40).tolist()),
        "since": some([datetime(2024, 1, 1) + timedelta(hours=int(h)) for h in random.integers(0, 9999, 40)]),
        "note": some([" ".join(random.choice(["calls", "Calls", "late", "never", "pays"], 5)) for _ in range(40)]),
    }
    kinds = {
        "age": "number", "visits": "number", "plan": "category", "paid": "boolean", "since": "datetime", "note": "text",
    }  # fmt: skip
    distances = gower_distances(pl.DataFrame(table), plans(**kinds))
    assert distances is not None
    assert distances.dtype == np.float32
    assert distances == pytest.approx(naive(table, kinds), abs=1e-6)
    assert len(np.unique(distances)) > 100


VALUES = st.lists(
    st.tuples(st.none() | st.floats(-1e308, 1e308, width=64), st.none() | st.sampled_from("ab")), min_size=1, max_size=8
)


@settings(deadline=None)
@given(VALUES)
def test_distances_are_symmetric_and_from_0_to_1(rows: list[tuple[float | None, str | None]]) -> None:
    frame = pl.DataFrame(rows, schema={"x": pl.Float64, "c": pl.String}, orient="row")
    distances = gower_distances(frame, plans(x="number", c="category"))
    if distances is None:
        assert all(sum(row[i] is not None for row in rows) < 2 for i in (0, 1))
        return
    assert np.array_equal(distances, distances.T)
    assert not distances.diagonal().any()
    assert distances.min() >= 0
    assert distances.max() <= 1


def test_by_hand() -> None:
    frame = pl.DataFrame({"x": [0.0, 5.0, 10.0, None], "c": ["a", "b", "", "a"], "z": [[1], [2], [3], [4]]})
    distances = gower_distances(frame, plans(x="number", c="category", z="nested"))
    assert distances is not None
    # Row 2 has no c and row 3 no x. The three pairs that have x are 1/2, 1 and 1/2 apart; those that have c, 1, 0 and 1.
    mean = 2 / 3
    expected = [
        [0, (0.5 + 1) / 2, (1 + mean) / 2, (mean + 0) / 2],
        [(0.5 + 1) / 2, 0, (0.5 + mean) / 2, (mean + 1) / 2],
        [(1 + mean) / 2, (0.5 + mean) / 2, 0, mean],
        [(mean + 0) / 2, (mean + 1) / 2, mean, 0],
    ]
    assert distances == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        ([1, 2, 5], "number", pl.Int8),
        ([True, False, True], "number", None),
        ([Decimal("0.10"), Decimal("0.20"), Decimal("0.50")], "number", None),
        ([" 1", "2.0", "5 "], "number", None),
        (["1", "2", "5"], "number", pl.Categorical),
        (["1", "2", "5"], "number", pl.Enum(["5", "1", "2"])),
        ([date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 5)], "datetime", None),
        ([datetime(2024, 1, d, tzinfo=UTC) for d in (1, 2, 5)], "datetime", None),
        ([time(1), time(2), time(5)], "datetime", None),
        ([timedelta(days=-3), timedelta(days=-2), timedelta(days=1)], "datetime", None),
        ([timedelta(1), timedelta(2), timedelta(5)], "number", None),
        # A microsecond among those since 1970, of which 32 bits hold none.
        ([datetime(2024, 1, 1) + timedelta(microseconds=n) for n in (1, 2, 5)], "datetime", None),
        ([-1e308, -5e307, 1e308], "number", None),  # the range is no float
    ],
)
def test_what_is_measured(values: list[Any], kind: str, dtype: Any) -> None:
    distances = one(values, kind, dtype)
    expected = [1.0, 0.0] if isinstance(values[0], bool) else [0.25, 1.0]
    assert distances is not None
    assert distances[0, 1:] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", "a", "b", " ", None], None),
        (["a", "a", "b", "\n", None], pl.Categorical),
        (["x", " x", "y", "", None], None),
        ([1.0, 1.0, 2.0, math.nan, math.nan], None),
        ([True, True, False, None, None], None),
        ([[1], [1], [2], None, None], None),
        (["nan", "nan", "b", "\t", None], None),  # a word as any other
    ],
)
@pytest.mark.parametrize("kind", ["category", "boolean"])
def test_what_is_named(values: list[Any], dtype: Any, kind: str) -> None:
    distances = one(values, kind, dtype)
    assert distances is not None
    assert distances[:3, :3].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert distances[3:] == pytest.approx(np.array([[2 / 3] * 3 + [0, 2 / 3], [2 / 3] * 4 + [0]]))


def test_a_column_that_no_two_rows_have_does_not_count() -> None:
    frame = pl.DataFrame(
        {"c": ["a", "b", "a"], "d": ["", " ", "q"], "x": [math.nan, 1.0, None], "t": [None, "one", "!"]}
    )
    distances = gower_distances(frame, plans(c="category", d="category", x="number", t="text"))
    assert distances is not None
    assert distances.tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_text_that_reads_as_no_number_is_missing() -> None:
    frame = pl.DataFrame({"x": ["0", "10", "many", ""], "c": ["a", "a", "a", "a"]})
    distances = gower_distances(frame, plans(x="number", c="category"))
    assert distances is not None
    assert np.array_equal(distances, (1 - np.eye(4)) / 2)  # the one pair that has x differs by all of the range


def test_a_row_that_lacks_all_is_as_far_from_all_as_rows_are_on_average() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"x": [*rng.normal(size=20).tolist(), None, None], "c": [*rng.choice(list("ab"), 20), None, ""]}
    )
    distances = gower_distances(frame, plans(x="number", c="category"))
    assert distances is not None
    usual = distances[:20, :20][np.triu_indices(20, 1)].mean()
    assert distances[20:, :20] == pytest.approx(usual)
    assert distances[20, 21] == pytest.approx(usual)


@pytest.mark.parametrize(("kind", "values"), [("text", "a word or two of many"), ("category", "name"), ("number", "")])
def test_segments_of_what_is_missing_are_neither_good_nor_bad(kind: str, values: str) -> None:
    """Left out of the pair, a text in which nearly all rows differ made rows without it near to everything: -0.3."""
    rng = np.random.default_rng(0)
    has = np.arange(120) % 2 == 0
    told = [f"{i if kind == 'number' else f'{values} w{i} v{i} u{i}'}" if has[i] else None for i in range(120)]
    distances = gower_distances(pl.DataFrame({"t": told, "x": rng.normal(size=120)}), plans(t=kind, x="number"))
    assert distances is not None
    found = gower_silhouette(distances, has.astype(int))
    assert found is not None
    assert abs(found) < 0.06


def test_the_order_of_rows_changes_no_distance() -> None:
    rng = np.random.default_rng(1)
    frame = pl.DataFrame(
        {
            "x": [None if i % 7 == 0 else v for i, v in enumerate(rng.normal(size=50))],
            "c": rng.choice(["a", "b", ""], 50),
        }
    )
    order = rng.permutation(50)
    before, after = (gower_distances(rows, plans(x="number", c="category")) for rows in (frame, frame[order]))
    assert before is not None
    assert after is not None
    assert after == pytest.approx(before[np.ix_(order, order)], abs=1e-7)


def test_missing_values_take_no_more_memory() -> None:
    frame = pl.DataFrame({f"x{j}": [None if (i + j) % 3 == 0 else i % 97 for i in range(1500)] for j in range(6)})
    tracemalloc.start()
    distances = gower_distances(frame, plans(**dict.fromkeys(frame.columns, "number")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert distances is not None
    assert peak < 3.5 * 1500**2 * 4


def test_infinities_are_the_finite_extremes() -> None:
    distances = one([0.0, 4.0, 1.0, math.inf, -math.inf], "number")
    assert distances is not None
    assert distances[2].tolist() == [0.25, 0.75, 0, 0.75, 0.25]


def test_infinities_alone_differ_by_their_sign() -> None:
    distances = one([math.inf, -math.inf, math.inf, None], "number")
    assert distances is not None
    assert distances[:3].tolist() == [[0, 1, 0, mean := np.float32(2 / 3)], [1, 0, 1, mean], [0, 1, 0, mean]]


def test_a_constant_column_says_that_rows_are_alike() -> None:
    distances = one([7, 7, 7], "number")
    assert distances is not None
    assert not distances.any()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "category"),
        (["a"], "category"),
        ([None, None], "number"),
        ([math.nan, 1.0], "number"),
        (["a", "b"], "number"),
        (["2024-01-01", "2024-01-02"], "datetime"),
        (["", " "], "category"),
        ([[1], [2]], "number"),
        ([{"a": 1}, {"a": 2}], "number"),
        ([b"1", b"2"], "number"),
        (["!", "?"], "text"),
        (["a", None], "text"),
        (["", " "], "text"),
        ([[1], [2]], "nested"),
    ],
)
def test_no_column_to_compare(values: list[Any], kind: str) -> None:
    assert one(values, kind) is None


def test_every_kind_is_either_compared_or_not() -> None:
    compared = {kind for kind in KINDS if one([1, 2], kind) is not None}
    assert compared == {"number", "datetime", "category", "boolean", "text"}


# Free text


def test_texts_are_as_far_apart_as_their_words() -> None:
    distances = one(["The cat sat.", "sat, the CAT", "the dog sat", "dogs bark", None, "..."], "text")
    assert distances is not None
    assert distances[0, 1] == 0
    assert 0 < distances[0, 2] < distances[0, 3] == 1
    # A missing text, and one without a word, is as far from all as they are from each other.
    mean = distances[:4, :4][np.triu_indices(4, 1)].mean()
    assert distances[4:, :4] == pytest.approx(mean)
    assert distances[4, 5] == pytest.approx(mean)
    assert np.array_equal(distances, distances.T)


def test_a_text_that_is_missing_counts_with_the_mean() -> None:
    frame = pl.DataFrame({"t": ["one two", None, "three"], "c": ["a", "a", "b"]})
    distances = gower_distances(frame, plans(t="text", c="category"))
    assert distances is not None
    assert distances.tolist() == [[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]]


def test_a_rare_word_tells_more_than_a_frequent_one() -> None:
    distances = one(["note tea", "note", "tea"] + ["note"] * 20, "text")
    assert distances is not None
    assert distances[0, 2] < distances[0, 1]


def test_scripts_without_spaces_are_compared_by_pairs_of_characters() -> None:
    distances = one(["我喜欢喝绿茶", "他喜欢喝咖啡", "明天会下雨"], "text")
    assert distances is not None
    assert 0 < distances[0, 1] < 1
    assert distances[0, 2] == 1


def test_categories_as_text_and_sensitive_texts_count() -> None:
    frame = pl.DataFrame({"t": pl.Series(["red box", "red box", "blue hat"], dtype=pl.Categorical)})
    (plan,) = plans(t="text")
    distances = gower_distances(frame, [plan.model_copy(update={"sensitive": True})])
    assert distances is not None
    assert distances.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_texts_of_two_topics_have_a_silhouette_above_that_of_others() -> None:
    """Where nearly every pair differed by 1, one number that says nothing would have decided."""
    random = np.random.default_rng(0)
    topics = (["fit", "waist", "small", "size", "tight"], ["soft", "wool", "warm", "itchy", "fabric"])
    truth = np.arange(80) % 2
    frame = pl.DataFrame(
        {"review": [" ".join(random.choice(topics[t], 6)) for t in truth], "age": random.normal(size=80)}
    )
    distances = gower_distances(frame, plans(review="text", age="number"))
    assert distances is not None
    found, other = (gower_silhouette(distances, labels) for labels in (truth, np.arange(80) // 2 % 2))
    assert found is not None
    assert other is not None
    assert found > 0.25
    assert abs(other) < 0.05


def test_long_texts_are_read_in_bounded_memory_and_time() -> None:
    words = np.random.default_rng(0).integers(0, 5000, (100, 50))
    texts = [" ".join(f"w{w}" for w in row) + " x" * 50_000 for row in words]  # ten million characters
    tracemalloc.start()
    distances = one(texts, "text")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert distances is not None
    assert distances.max() > 0.5
    assert peak < 100e6


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    frame = pl.DataFrame({"t": ["  " + "a " * 2000 + "tail", "b"]})
    assert text_columns(frame, plans(t="text"))["t"].to_list() == ["a " * 2000, "b"]
    short = pl.DataFrame({"t": ["x" * 500] * 20_000, "n": [1] * 20_000})
    cut = text_columns(short, plans(t="text", n="number"))
    assert cut["t"].str.len_chars().unique().to_list() == [400]
    assert cut["n"].to_list() == short["n"].to_list()


def test_rare_terms_are_left_out_unless_all_are() -> None:
    words = pl.Series([" tea pot ", " tea cup ", None, " | "])
    assert text_weights(words).shape == (4, 3)
    weights = text_weights(words, least=2)
    assert weights.toarray().tolist() == [[1], [1], [0], [0]]
    assert text_weights(words[:1], least=2).shape == (1, 2)
    assert text_weights(words[2:], least=2).nnz == 0


# Silhouettes


def test_the_silhouette_by_hand() -> None:
    distances = np.array([[0, 0.2, 0.8, 0.8], [0.2, 0, 0.8, 0.8], [0.8, 0.8, 0, 0.4], [0.8, 0.8, 0.4, 0]], np.float32)
    assert gower_silhouette(distances, np.array([0, 0, 1, 1])) == pytest.approx((0.75 + 0.75 + 0.5 + 0.5) / 4)
    assert gower_silhouette(distances, np.array([0, 1, 0, 1])) == pytest.approx(
        ((0.5 - 0.8) / 0.8 + (0.5 - 0.8) / 0.8 + (0.6 - 0.8) / 0.8 + (0.6 - 0.8) / 0.8) / 4
    )


def test_noise_is_left_out() -> None:
    x = np.random.default_rng(0).normal(size=30)
    distances, labels = np.abs(x[:, None] - x), np.arange(30) % 3
    noisy = np.where(np.arange(30) < 7, -1, labels)
    expected = silhouette_score(x[7:, None], labels[7:], metric="cityblock")
    assert gower_silhouette(distances, noisy) == pytest.approx(expected)
    assert gower_silhouette(distances, labels) != pytest.approx(expected)


def test_distances_of_rows_without_values_have_a_silhouette() -> None:
    distances = one(["a", "a", "b", "b", None, None], "category")
    assert distances is not None
    # Segments 0 and 1 are perfect; the rows of 2 are as far from each other as from all, 2/3.
    assert gower_silhouette(distances, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(4 / 6)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, -1, -1], [0, 0, -1, -1], [0, 1, -1, -1]])
def test_no_silhouette_without_segments_to_tell_apart(labels: list[int]) -> None:
    assert gower_silhouette(1 - np.eye(4, dtype=np.float32), np.array(labels)) is None


def test_distances_of_other_rows() -> None:
    with pytest.raises(ValueError, match="for 3 labels"):
        gower_silhouette(np.zeros((4, 4), np.float32), np.array([0, 0, 1]))
