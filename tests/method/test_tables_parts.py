"""One column as dimensions: numbers, moments, categories, truth values, texts, of every type and with every fault."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.decomposition import PCA

from erasmo_dagster.method.tables.parts import (
    FARTHEST,
    FEW_NUMBERS,
    MOST_VALUES,
    TEXT_DIMENSIONS,
    CategoryPart,
    DensePart,
    NumberPart,
    codes_of,
    few_numbers,
    number_codes,
    numbers_of,
    texts_of,
    truths_of,
)

NAN, INF = float("nan"), float("inf")


def number(values: Any) -> NumberPart:
    part = NumberPart.fit("x", np.asarray(values, dtype=np.float64))
    assert part is not None
    return part


def category(codes: list[str | None]) -> CategoryPart:
    part = CategoryPart.fit("c", pl.Series("code", codes, dtype=pl.String))
    assert part is not None
    return part


def texts(count: int, width: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, width)) * np.linspace(2, 0.1, width) + 5).astype(np.float32)


# Numbers


def test_a_number_is_centred_and_scaled() -> None:
    values = np.array([1.0, 2.0, NAN, 3.0, 6.0])
    part = number(values)
    assert (part.mean, part.scale) == (3.0, np.sqrt(3.5))
    assert part.read(values)[:, 0].tolist() == pytest.approx(
        [-2 / 3.5**0.5, -1 / 3.5**0.5, 0.0, 1e-6, 3 / 3.5**0.5], rel=1e-6
    )


def test_only_what_is_missing_is_zero() -> None:
    values = np.array([-1.0, 0.0, 1.0, NAN])  # the mean itself is there
    read = number(values).read(values)
    assert read.dtype == np.float32
    assert (read[:, 0] != 0).tolist() == [True, True, True, False]


def test_numbers_far_away_count_as_that_far() -> None:
    part = number(np.arange(30.0))
    assert part.read(np.array([1e9, -1e9, 1.7e308, -1.7e308]))[:, 0].tolist() == [FARTHEST, -FARTHEST] * 2


@pytest.mark.parametrize("size", [1e300, 1.7e308, 1e-300, 1.0])
def test_numbers_of_any_size(size: float) -> None:
    """The squares of the largest are more than a float holds, those of the smallest less than it tells from 0."""
    values = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(number(values * size).read(values * size), number(values).read(values), rtol=1e-6)
    part = number((values / 2 + 0.25) * size)
    read = part.read(np.array([-size, size]))[:, 0]
    np.testing.assert_allclose(read, np.array([-1.25, 0.75]) / (values / 2).std(), rtol=1e-6)


def test_units_of_a_power_of_two_change_no_digit() -> None:
    values = np.random.default_rng(0).lognormal(3, 2, 500)
    part = number(values)
    assert (part.mean, part.scale) == (values.mean(), values.std())


def test_infinities_are_read_as_the_finite_extremes_that_were_there() -> None:
    values = np.array([*range(20), INF, -INF], dtype=np.float64)
    part = number(values)
    bounded = values.clip(0, 19)
    assert (part.mean, part.scale) == (bounded.mean(), bounded.std())
    assert part.read(values).tolist() == number(bounded).read(bounded).tolist()
    # Alone as well: an infinity does not depend on the rows beside it.
    assert part.read(values[-2:]).tolist() == part.read(values)[-2:].tolist()
    assert part.read(np.array([25.0])) > part.read(np.array([INF]))


def test_what_does_not_vary_is_no_number() -> None:
    assert NumberPart.fit("x", np.full(5, 3.0)) is None
    assert NumberPart.fit("x", np.full(5, NAN)) is None
    assert NumberPart.fit("x", np.array([INF, -INF, NAN])) is None
    assert NumberPart.fit("x", np.array([4.0])) is None
    assert NumberPart.fit("x", np.array([])) is None


def test_moments_close_together_keep_their_digits() -> None:
    day = datetime(2024, 5, 1)
    moments = pl.Series([day + timedelta(microseconds=i) for i in range(40)], dtype=pl.Datetime("us"))
    read = number(numbers_of(moments)).read(numbers_of(moments))
    np.testing.assert_allclose(np.diff(read[:, 0]), np.diff(read[:, 0]).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pl.Series([1, None, 3], dtype=pl.UInt8), [1, NAN, 3]),
        (pl.Series([2**64 - 1, 0], dtype=pl.UInt64), [2.0**64, 0]),
        (pl.Series([Decimal("1.50"), None]), [1.5, NAN]),
        (pl.Series([1.5, NAN, None, INF, -INF]), [1.5, NAN, NAN, INF, -INF]),
        (pl.Series([" 4 ", "4e2", "four", "", None, "nan"]), [4, 400, NAN, NAN, NAN, NAN]),
        (pl.Series(["10", "2"], dtype=pl.Categorical), [10, 2]),
        (pl.Series(["10", "2"], dtype=pl.Enum(["2", "10"])), [10, 2]),
        (pl.Series([True, None, False]), [1, NAN, 0]),
        (pl.Series([None, None]), [NAN, NAN]),
        (pl.Series([[1], [2]]), [NAN, NAN]),
        (pl.Series([{"a": 1}]), [NAN]),
        (pl.Series([b"1"]), [NAN]),
        (pl.Series([], dtype=pl.Float64), []),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pl.Series) else "",
)
def test_numbers_of_every_type(series: pl.Series, expected: list[float]) -> None:
    np.testing.assert_array_equal(numbers_of(series), np.array(expected, dtype=np.float64))


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_moments_are_microseconds_whatever_their_type(unit: Any, zone: str | None) -> None:
    """A source that tells the same moments in another unit is read as before."""
    when = datetime(2024, 5, 1, 7, 30, tzinfo=UTC if zone else None)
    moment = pl.Series([when, None]).cast(pl.Datetime(unit, zone))
    microseconds = datetime(2024, 5, 1, 7, 30, tzinfo=UTC).timestamp() * 1e6
    np.testing.assert_array_equal(numbers_of(moment), [microseconds, NAN])
    assert numbers_of(pl.Series([timedelta(hours=1)]).cast(pl.Duration(unit))).tolist() == [3_600e6]
    assert numbers_of(pl.Series([time(1)])).tolist() == [3_600e6]
    day = numbers_of(pl.Series([date(2024, 5, 1)]))
    assert day.tolist() == numbers_of(pl.Series([datetime(2024, 5, 1)]).cast(pl.Datetime(unit))).tolist()


def test_moments_beyond_the_calendar_are_infinities() -> None:
    far = pl.Series([2**63 - 1, -(2**63) + 1, 0]).cast(pl.Datetime("us"))
    assert numbers_of(far).tolist() == [INF, -INF, 0]
    assert numbers_of(pl.Series([2**31 - 1, 0], dtype=pl.Int32).cast(pl.Date)).tolist() == [INF, 0]
    assert numbers_of(pl.Series([datetime(9999, 12, 31, 23, 59, 59)])).tolist() == [253402300799e6]


def test_strings_are_read_as_moments_where_the_column_is_one_of_moments() -> None:
    written = pl.Series(["2024-05-01", " 2024-05-01T02:00:00 ", "2024-05-01T02:00:00+02:00", "soon", "12", None, ""])
    day = datetime(2024, 5, 1, tzinfo=UTC).timestamp() * 1e6
    expected = [day, day + 7_200e6, day, NAN, NAN, NAN, NAN]
    np.testing.assert_array_equal(numbers_of(written, moments=True), expected)
    np.testing.assert_array_equal(numbers_of(written)[:5], [NAN, NAN, NAN, NAN, 12])
    np.testing.assert_array_equal(numbers_of(written[3:4], moments=True), [NAN])


# Few numbers


def test_at_most_a_dozen_numbers_are_codes() -> None:
    few = np.array([*range(FEW_NUMBERS), NAN, 0.0, -0.0])
    assert few_numbers(few) == {str(i): float(i) for i in range(FEW_NUMBERS)}
    assert few_numbers(np.arange(FEW_NUMBERS + 1.0)) is None
    assert few_numbers(np.array([NAN])) == {}
    assert number_codes(np.array([1.0, 2.5, NAN, -0.0])).to_list() == ["1", "2.5", None, "0"]


def test_infinities_among_few_numbers_are_the_extremes() -> None:
    assert few_numbers(np.array([1.0, 3.0, INF, -INF])) == {"1": 1.0, "3": 3.0}
    assert few_numbers(np.array([INF, -INF, NAN])) == {"1": 1.0, "-1": -1.0}


def test_a_number_that_was_not_there_is_read_as_the_nearest() -> None:
    values = np.array([0.0, 10.0, 10.0, -1.7e308, 1.7e308] * 3)
    levels = few_numbers(values)
    part = CategoryPart.fit("x", number_codes(values), levels)
    assert part is not None
    assert part.levels is not None
    later = np.array([4.0, 8.0, INF, -INF, 1.7976e308, NAN])
    read = part.read(number_codes(later), later)
    found = [part.levels[row.argmax()] if row.any() else None for row in read]
    assert found == [0.0, 10.0, 1.7e308, -1.7e308, 1.7e308, None]


# Categories


def test_a_category_by_hand() -> None:
    codes = ["b", "a", "a", None]
    part = category(codes)
    assert part.values == ("a", "b")
    variance = 0.5 * 0.5 + 0.25 * 0.75  # of both indicators, over all rows
    assert part.height == pytest.approx(variance**-0.5)
    read = part.read(pl.Series(codes))
    assert (read / np.float32(part.height)).tolist() == [[0, 1], [1, 0], [1, 0], [0, 0]]
    assert read.var(axis=0).sum() == pytest.approx(1)


def test_the_order_of_the_rows_and_ties_change_no_dimension() -> None:
    codes = [value for value in "dbcadbca" for _ in range(3)] + [None]
    assert category(codes) == category(codes[::-1])
    assert category(codes).values == ("a", "b", "c", "d")


def test_rare_values_share_a_dimension() -> None:
    codes = [f"{i:03}" for i in range(MOST_VALUES + 5) for _ in range(2 if i < MOST_VALUES else 1)]
    part = category(codes)
    assert part.others
    assert part.width == MOST_VALUES + 1
    read = part.read(pl.Series([codes[0], codes[-1], "never seen", None]))
    assert read.argmax(axis=1).tolist() == [0, MOST_VALUES, MOST_VALUES, 0]
    assert read.any(axis=1).tolist() == [True, True, True, False]
    assert part.read(pl.Series(codes)).var(axis=0).sum() == pytest.approx(1, rel=1e-5)


def test_a_value_never_seen_is_missing_where_no_value_is_rare() -> None:
    assert not category(["a", "b"]).read(pl.Series(["z", None])).any()


def test_one_value_is_no_category() -> None:
    assert CategoryPart.fit("c", pl.Series("code", ["a", None, "a"])) is None
    assert CategoryPart.fit("c", pl.Series("code", [None, None], dtype=pl.String)) is None
    assert CategoryPart.fit("c", pl.Series("code", [], dtype=pl.String)) is None


def test_a_later_table_without_a_value() -> None:
    part = category(["a", "b"])
    for series in (pl.Series([None, None]), pl.Series([], dtype=pl.Categorical), pl.Series([], dtype=pl.String)):
        assert part.read(codes_of(series)).shape == (len(series), 2)
        assert not part.read(codes_of(series)).any()


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pl.Series([" a  b\t", "", " ", None, "\x00c"]), ["a b", None, None, None, "c"]),
        (pl.Series(["b", None, "a "], dtype=pl.Categorical), ["b", None, "a"]),
        (pl.Series(["b", None], dtype=pl.Enum(["a", "b"])), ["b", None]),
        (pl.Series([1, None, 1]), ["1", None, "1"]),
        (pl.Series([1.0, 0.5, NAN]), ["1", "0.5", None]),
        (pl.Series([0.1, 1.0, NAN], dtype=pl.Float32), ["0.1", "1", None]),
        (pl.Series([Decimal("2.0"), None]), ["2", None]),
        (pl.Series([True, None, False]), ["true", None, "false"]),
        (pl.Series([date(2024, 5, 1), None]), ["2024-05-01", None]),
        (pl.Series([[1, 2], None, []]), ["[1,2]", None, "[]"]),
        (pl.Series([[1, 2], [1, 2]], dtype=pl.Array(pl.Int64, 2)), ["[1,2]", "[1,2]"]),
        (pl.Series([{"b": 1, "a": None}, None]), ['{"a":null,"b":1}', None]),
        (pl.Series([b"ab", b"\xff", None]), ["ab", "hex ff", None]),
        (pl.Series([["a"], None], dtype=pl.Object), ['["a"]', None]),
        (pl.Series([None, None]), [None, None]),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pl.Series) else "",
)
def test_codes_of_every_type(series: pl.Series, expected: list[str | None]) -> None:
    codes = codes_of(series)
    assert codes.to_list() == expected
    assert (codes.name, codes.dtype) == ("code", pl.String)


def test_truth_values_are_read_in_any_spelling() -> None:
    part = category(["true", "false", "true", None])
    written = pl.Series(["T", "no", "1", "Yes", "maybe", None, "FALSE"])
    assert part.read(written).argmax(axis=1).tolist() == [0, 1, 0, 0, 0, 0, 1]
    assert part.read(written).any(axis=1).tolist() == [True, True, True, True, False, False, True]
    assert truths_of(pl.Series(["Y", "n", "x", None])).to_list() == ["true", "false", "x", None]
    assert truths_of(pl.Series("code", [None], dtype=pl.String)).to_list() == [None]


def test_letters_that_may_be_truth_values_are_not_read_as_such_among_others() -> None:
    part = category(["f", "m"])
    assert not part.read(pl.Series(["0", "no", "true"])).any()


# Texts


def test_texts_of_every_type() -> None:
    assert texts_of(pl.Series([" a\n b ", "", None, "\x00"])).to_list() == ["a b", None, None, None]
    assert texts_of(pl.Series(["b", None], dtype=pl.Categorical)).to_list() == ["b", None]
    assert texts_of(pl.Series([None, None])).to_list() == [None, None]
    assert texts_of(pl.Series([["a", "b"], None])).to_list() == ['["a","b"]', None]
    assert texts_of(pl.Series([{"a": 1}])).to_list() == ['{"a":1}']
    assert texts_of(pl.Series([b"a", b"\xff", None])).to_list() == ["a", "hex ff", None]
    assert texts_of(pl.Series([timedelta(days=1), None])).to_list() == ["1 day", None]
    assert texts_of(pl.Series([1.5, NAN, None])).to_list() == ["1.5", None, None]


@pytest.mark.parametrize("rows", [60, 500], ids=["fewer", "more"])
def test_a_text_is_its_principal_components(rows: int) -> None:
    """Both ways to find them: of few rows, and of ten times as many as dimensions."""
    vectors = texts(rows, 45)
    part = DensePart.fit("t", vectors, seed=0)
    assert part is not None
    assert part.width == TEXT_DIMENSIONS
    read = part.read(vectors, np.ones(rows, dtype=bool)).astype(np.float64)
    pca = PCA(TEXT_DIMENSIONS, svd_solver="full").fit(vectors.astype(np.float64))
    theirs = pca.transform(vectors.astype(np.float64))
    effective = pca.explained_variance_.sum() ** 2 / (pca.explained_variance_**2).sum()
    theirs *= np.sqrt(effective / pca.explained_variance_.sum())
    signs = np.sign((read * theirs).sum(axis=0))
    np.testing.assert_allclose(read[:, :8], (theirs * signs)[:, :8], atol=0.02)  # the last ones are alike in size
    assert read.var(axis=0, ddof=1).sum() == pytest.approx(effective, rel=1e-3)
    largest = np.abs(part.components).argmax(axis=1)
    assert (part.components[np.arange(part.width), largest] > 0).all()


def test_fewer_texts_than_dimensions() -> None:
    part = DensePart.fit("t", texts(3), seed=0)
    assert part is not None
    assert part.width == 2  # three points are in a plane
    assert DensePart.fit("t", texts(1), seed=0) is None
    assert DensePart.fit("t", np.zeros((0, 1), dtype=np.float32), seed=0) is None
    assert DensePart.fit("t", np.repeat(texts(1), 50, axis=0), seed=0) is None
    assert DensePart.fit("t", np.repeat(texts(1, 2), 50, axis=0), seed=0) is None


def test_a_text_that_is_the_mean_is_no_missing_one() -> None:
    vectors = np.array([[1, 0], [-1, 0], [0, 0]], dtype=np.float32)
    part = DensePart.fit("t", vectors, seed=0)
    assert part is not None
    read = part.read(vectors, np.array([True, False, True, True]))
    assert read.any(axis=1).tolist() == [True, False, True, True]
    assert read[1].tolist() == [0] * part.width


@pytest.mark.parametrize("width", [1, 2, 3, 40])
def test_a_text_alone_has_the_bits_it_has_among_many(width: int) -> None:
    vectors = texts(2500, width)
    part = DensePart.fit("t", vectors[:200], seed=0)
    assert part is not None
    present = np.arange(5000) % 2 == 0
    whole = part.read(vectors, present)
    for i in (0, 1, 2047, 2048, 2499):
        alone = part.read(vectors[i : i + 1], np.array([True]))
        assert alone.tobytes() == whole[2 * i].tobytes()
    assert not whole[1::2].any()
    assert part.read(vectors[:0], np.array([False])).tolist() == [[0] * part.width]


def test_many_texts_are_fitted_and_read_without_a_copy_in_64_bits() -> None:
    import tracemalloc

    vectors = np.tile(texts(100, 200), (300, 1))
    tracemalloc.start()
    part = DensePart.fit("t", vectors, seed=0)
    assert part is not None
    part.read(vectors, np.ones(len(vectors), dtype=bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < vectors.nbytes  # the points are a sixth of it, a copy would be twice as much
