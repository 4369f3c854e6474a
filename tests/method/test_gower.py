"""Gower's distances against a plain reading of the definition, pair by pair."""

from __future__ import annotations

import math
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given
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


def naive(table: dict[str, list[Any]], kinds: dict[str, str]) -> list[list[float]]:
    """The definition, of plain values: None is missing, numbers are finite."""
    rows = len(next(iter(table.values())))
    cosines = {name: naive_cosines(values) for name, values in table.items() if kinds[name] == "text"}
    answer = [[0.0] * rows for _ in range(rows)]
    for i in range(rows):
        for j in range(rows):
            parts = []
            for name, values in table.items():
                a, b = values[i], values[j]
                if kinds[name] == "nested" or a is None or b is None:
                    continue
                if kinds[name] == "text":
                    parts.append(1 - cosines[name][i, j])
                    continue
                if kinds[name] in ("number", "datetime"):
                    known = [value for value in values if value is not None]
                    spread = max(known) - min(known)
                    parts.append(abs(a - b) / spread if spread else 0.0)
                else:
                    parts.append(float(a != b))
            if i != j:
                answer[i][j] = sum(parts) / len(parts) if parts else 1.0
    return answer


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
    assert distances == pytest.approx(np.array(naive(table, kinds)), abs=1e-6)
    assert len(np.unique(distances)) > 100


VALUES = st.lists(
    st.tuples(st.none() | st.floats(-1e308, 1e308, width=64), st.none() | st.sampled_from("ab")), min_size=1, max_size=8
)


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
    expected = [[0, 0.75, 1, 0], [0.75, 0, 0.5, 1], [1, 0.5, 0, 1], [0, 1, 1, 0]]  # row 2 has no c, row 3 no x
    assert distances.tolist() == expected


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
    assert distances.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 0]]


def test_missing_is_left_out_and_not_a_difference() -> None:
    frame = pl.DataFrame({"x": [0.0, 1.0, math.nan], "c": ["a", "a", "a"], "d": ["", " ", "q"]})
    distances = gower_distances(frame, plans(x="number", c="category", d="category"))
    assert distances is not None
    assert distances.tolist() == [[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]]


def test_text_that_reads_as_no_number_is_missing() -> None:
    frame = pl.DataFrame({"x": ["0", "10", "many", ""], "c": ["a", "a", "a", "a"]})
    distances = gower_distances(frame, plans(x="number", c="category"))
    assert distances is not None
    assert distances.tolist() == [[0, 0.5, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_infinities_are_the_finite_extremes() -> None:
    distances = one([0.0, 4.0, 1.0, math.inf, -math.inf], "number")
    assert distances is not None
    assert distances[2].tolist() == [0.25, 0.75, 0, 0.75, 0.25]


def test_infinities_alone_differ_by_their_sign() -> None:
    distances = one([math.inf, -math.inf, math.inf, None], "number")
    assert distances is not None
    assert distances.tolist() == [[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


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
    # Neither a missing text nor one without a word is compared.
    assert distances[4, :4].tolist() == distances[5, :4].tolist() == [1, 1, 1, 1]
    assert np.array_equal(distances, distances.T)


def test_a_text_that_is_missing_does_not_count_for_the_pair() -> None:
    frame = pl.DataFrame({"t": ["one two", None, "three"], "c": ["a", "a", "b"]})
    distances = gower_distances(frame, plans(t="text", c="category"))
    assert distances is not None
    assert distances.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


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
    # Segments 0 and 1 are perfect; the rows of 2 are as far from each other as from all.
    assert gower_silhouette(distances, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(4 / 6)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, -1, -1], [0, 0, -1, -1], [0, 1, -1, -1]])
def test_no_silhouette_without_segments_to_tell_apart(labels: list[int]) -> None:
    assert gower_silhouette(1 - np.eye(4, dtype=np.float32), np.array(labels)) is None


def test_distances_of_other_rows() -> None:
    with pytest.raises(ValueError, match="for 3 labels"):
        gower_silhouette(np.zeros((4, 4), np.float32), np.array([0, 0, 1]))
