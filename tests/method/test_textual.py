import datetime as dt
import json
import math
from decimal import Decimal
from hashlib import blake2b

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import cells, textual, words
from erasmo_dagster.method import verbalize as numbers_in_words
from erasmo_dagster.method.digits import decimal_digits, exact, float_digits, write_digits
from erasmo_dagster.method.distinct import coded, seldom_repeats
from erasmo_dagster.method.textual import (
    fit_text,
    join_clauses,
    sample_texts,
    shuffle_clauses,
    text_hashes,
    write_clauses,
)
from tests.method.small_tables import dataset, frame, people

quick = settings(max_examples=60)


def values_of(series, name="x", **options):
    """The texts of one column, read back from its clauses."""
    table = frame(**{name: series})
    plan = fit_text(table, dataset(**options))
    prefix = f"{plan.columns[0].label} is "
    rows = write_clauses(table, plan).to_list()
    assert all(clause.startswith(prefix) for row in rows for clause in row)
    return [row[0].removeprefix(prefix) if row else None for row in rows]


def test_a_row_is_written_as_clauses_in_canonical_order():
    plan = fit_text(people(), dataset(label="group", columns={"sex": {"values": {1: "male", 0: "female"}}}))
    assert [join_clauses(row) for row in write_clauses(people(), plan)] == [
        "member is yes, note is said hello, sex is male, age years is 41, income is 1200.5, since is 1899-12-31",
        "member is no, note is missing, sex is female, age years is 29, income is missing, since is 2021-03-04",
        "member is yes, note is a, b is c, sex is missing, age years is 60, income is 1e20, since is missing",
        "member is yes, note is missing, sex is male, age years is 35, income is 0.333333, since is 0001-01-01",
    ]


def test_no_word_for_missing_leaves_the_clause_out():
    plan = fit_text(people(), dataset(drop=["age_years"], text={"missing": None}))
    assert write_clauses(people(), plan).to_list()[2] == [
        "group is a",
        "member is yes",
        "note is a, b is c",
        "income is 1e20",
    ]


@pytest.mark.parametrize(
    ("series", "texts"),
    [
        ([10**17 + 1, -1, 0], ["100000000000000001", "-1", "0"]),
        ([41.0, -0.0, 1e15], ["41", "0", "1e15"]),
        ([12345678.9, 1e-7, 999999999999999.0], ["12345679", "1e-7", "999999999999999"]),
        ([math.inf, -math.inf, math.nan], ["infinity", "minus infinity", "missing"]),
        (pl.Series([0.1, 16777216.0], dtype=pl.Float32), ["0.1", "16777216"]),
        (pl.Series([2**64 - 1, 0], dtype=pl.UInt64), ["18446744073709551615", "0"]),
        (pl.Series([2**100, None], dtype=pl.Int128), ["1267650600228229401496703205376", "missing"]),
        (pl.Series([Decimal("1200.50"), Decimal("0.12345678")]), ["1200.5", "0.12345678"]),
        (pl.Series(["b", None, "a"], dtype=pl.Categorical), ["b", "missing", "a"]),
        (["  ", "x\x00\x1f\u2028y\u00a0", "é 👍🏽"], ["missing", "x y", "é 👍🏽"]),
        ([dt.datetime(2021, 3, 4), dt.datetime(1850, 1, 2)], ["2021-03-04", "1850-01-02"]),
        ([dt.datetime(2021, 3, 4), dt.datetime(1, 1, 1, 2, 3, 4, 5)], ["2021-03-04T00:00:00", "0001-01-01T02:03:04.000005"]),
        ([dt.time(0), dt.time(23, 59, 1)], ["00:00:00", "23:59:01"]),
        ([dt.timedelta(1, 7500, 500000), dt.timedelta(0), -dt.timedelta(hours=1)],
         ["1 day 2 hours 5 minutes 0.5 seconds", "0 seconds", "minus 1 hour"]),
        ([[1.0, None, math.nan], [], None], ["[1,null,null]", "[]", "missing"]),
        ([{"z": 1, "a": "x \n y"}, {"z": None, "a": None}], ['{"a":"x y","z":1}', '{"a":null,"z":null}']),
        ([[dt.date(2021, 3, 4)], [dt.date(1, 1, 1)]], ['["2021-03-04"]', '["0001-01-01"]']),
        (pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)), ["[1,2]", "[3,4]"]),
        ([b"text", b"\xff\x00", b""], ["text", "hex ff00", "missing"]),
        (pl.Series([{"k": Decimal("1.5")}, "s", None], dtype=pl.Object), ['{"k":1.5}', "s", "missing"]),
    ],
)  # fmt: skip
def test_each_kind_has_its_rule(series, texts):
    assert values_of(series) == texts


def test_time_zones_stay_with_the_time():
    moments = pl.Series([dt.datetime(2021, 3, 4, 1), dt.datetime(2021, 7, 1)])
    assert values_of(moments.dt.replace_time_zone("UTC")) == ["2021-03-04T01:00:00Z", "2021-07-01T00:00:00Z"]
    berlin = ["2021-03-04T01:00:00+01:00", "2021-07-01T00:00:00+02:00"]
    assert values_of(moments.dt.replace_time_zone("Europe/Berlin")) == berlin


def test_the_kind_can_be_set():
    assert values_of([1.0, 2.0, 1.5], columns={"x": {"kind": "category"}}) == ["1", "2", "1.5"]
    assert values_of([1, 0, 2], columns={"x": {"kind": "boolean"}}) == ["yes", "no", "2"]
    assert values_of(["T", "f", "maybe"], columns={"x": {"kind": "boolean"}}) == ["yes", "no", "maybe"]
    assert values_of(["1.50", "n/a", "7"], columns={"x": {"kind": "number"}}) == ["1.5", "n/a", "7"]
    assert values_of([True, False], columns={"x": {"kind": "number"}}) == ["1", "0"]


def test_units_stand_after_numbers():
    percent = values_of([12.5, 30, None], columns={"x": {"unit": "percent"}})
    assert percent == ["12.5 percent", "30 percent", "missing"]
    assert values_of([12.5, 30, 2.255], columns={"x": {"unit": "EUR"}}) == ["12.50 EUR", "30 EUR", "2.255 EUR"]
    assert values_of(["7", "seven"], columns={"x": {"unit": "kg"}}) == ["7 kg", "seven"]
    with pytest.raises(ErasmoError, match=r"Got unit 'kg' for column 'x', which is read as boolean"):
        values_of([True, False], columns={"x": {"unit": "kg"}})


def test_coded_values_and_units_on_columns_that_are_long_or_empty():
    huge = pl.Series([Decimal(10**37 + 1), Decimal(2)], dtype=pl.Decimal(38, 0))
    assert values_of(huge, columns={"x": {"values": {2: "two"}}}) == [str(10**37 + 1), "two"]
    plan = fit_text(frame(x=[None, None], y=[1, 2]), dataset(columns={"x": {"unit": "kg"}}))
    assert list(plan.dropped) == ["x"]


@pytest.mark.parametrize("series", [[1, 0, 2], [1.0, 0.0, 2.0], ["1", "0", "2"], [Decimal(1), Decimal(0), Decimal(2)]])
def test_coded_values_match_whatever_the_type(series):
    assert values_of(series, columns={"x": {"values": {1: "male", "0": "female"}}}) == ["male", "female", "2"]
    assert values_of(series, columns={"x": {"values": {1.0: "male"}}}) == ["male", "0", "2"]


def test_coded_values_match_truth_values():
    assert values_of([True, False, None], columns={"x": {"values": {True: "ja"}}}) == ["ja", "no", "missing"]


def test_verbalized_columns():
    table = frame(
        age=[41, -1, 2**40],
        share=[0.05, 12.5, None],
        price=[2.5, 30.0, 1.0],
        code=["B2B 10", "mp3", "25% off"],
        born=[dt.date(2021, 3, 4), dt.date(1850, 1, 2), None],
        wait=[dt.timedelta(hours=25), dt.timedelta(0), None],
        tags=[[1.0, 2.5], [], None],
        plain=[1, 2, 3],
        room_2=[1, 2, 3],
    )
    columns = {
        "share": {"unit": "percent"},
        "price": {"unit": "EUR"},
        "plain": {"verbalize": False},
        "room_2": {"values": {1: "room 1"}},
    }
    plan = fit_text(table, dataset(columns=columns, text={"verbalize": True}))
    first = dict(clause.split(" is ", 1) for clause in write_clauses(table, plan).to_list()[0])
    assert first == {
        "age": "forty-one",
        "share": "zero point zero five percent",
        "price": "two euro, fifty cents",
        "code": "B2B ten",
        "born": "the fourth of March twenty twenty-one",
        "wait": "one day one hour",
        "tags": '["one","two point five"]',
        "plain": "1",
        "room 2": "room one",
    }
    only_one = fit_text(table, dataset(columns={"age": {"verbalize": True}}))
    assert [column.name for column in only_one.columns if column.verbalize] == ["age"]


def test_distinct_values_are_verbalized_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        numbers_in_words, "whole", lambda value, *rest: asked.append(value) or words.whole(value, *rest)
    )
    monkeypatch.setattr(cells, "verbalize_text", lambda text, language: asked.append(text) or text)
    table = frame(x=[1, 2, 3, 2, 1] * 100, y=[0.5, 0.5, 0.5, 0.5, 1.5] * 100, z=["b 2", "b", "b", "b", "a"] * 100)
    plan = fit_text(table, dataset(text={"verbalize": True}))
    assert asked == []
    assert write_clauses(table, plan).len() == 500
    assert sorted(asked, key=str) == [0, 1, 1, 2, 3, "b 2"]


def test_words_can_be_in_another_language():
    options = {"text": {"verbalize": True, "language": "pt_BR"}, "columns": {"x": {"unit": "BRL"}}}
    assert values_of([1.0, 30.5], **options) == ["um real", "trinta reais e cinquenta centavos"]


def test_a_later_table_may_have_new_values_and_types():
    table = frame(age=[41, 29], day=[dt.datetime(2021, 3, 4), dt.datetime(2021, 3, 5)], job=["a", "b"], m=[True, False])
    plan = fit_text(table, dataset())
    later = pl.DataFrame(
        {
            "extra": [1],
            "age": ["41 or so"],
            "m": [1],
            "job": pl.Series(["never seen"], dtype=pl.Categorical),
            "day": [dt.datetime(2022, 1, 1, 6, 30)],
        }
    )
    assert write_clauses(later, plan).to_list() == [
        ["age is 41 or so", "day is 2022-01-01T06:30:00", "job is never seen", "m is yes"]
    ]
    nothing = later.with_columns(pl.lit(None).alias(name) for name in ("age", "m", "job", "day"))
    assert set(write_clauses(nothing, plan).to_list()[0]) == {
        f"{name} is missing" for name in ("age", "day", "job", "m")
    }
    assert write_clauses(table.clear(), plan).to_list() == []


def test_a_later_table_without_a_planned_column_is_refused():
    plan = fit_text(people(), dataset())
    with pytest.raises(ErasmoError, match=r"Got a table without 'member'.*or retrain"):
        write_clauses(people().drop("member"), plan)


def test_hashes_tell_rows_apart_and_do_not_change():
    clauses = pl.Series([["a is 1", "b is 2"], ["a is 1, b is 2"], ["a is 1", "b is 2"], []], dtype=pl.List(pl.String))
    hashes = text_hashes(clauses).to_list()
    assert hashes[0] == hashes[2] == "bd8c06f626fa8137dcf24726d96e4dce"
    assert len(set(hashes)) == 3
    assert text_hashes(clauses.clear()).to_list() == []


def test_a_table_in_pieces_is_written_as_in_one(monkeypatch):
    table = pl.concat([people().drop("id")] * 3).with_row_index("id").with_columns(pl.col("age_years") + pl.col("id"))
    options = dataset(text={"missing": None})
    plan = fit_text(table, options)
    rows = write_clauses(table, plan)
    for small in ("_PIECE", "_ROWS", "_HASHED"):
        monkeypatch.setattr(textual, small, 5)
    assert fit_text(table, options) == fit_text(table.lazy(), options) == plan
    assert write_clauses(table, plan).to_list() == rows.to_list()
    hashes = [blake2b("\x1f".join(row).encode(), digest_size=16).hexdigest() for row in rows]
    assert text_hashes(rows).to_list() == hashes


def test_samples_hide_sensitive_columns():
    table = frame(name=["Ada Secret", "Bob Secret", None], age=[1, 2, 3])
    plan = fit_text(table, dataset(sensitive=["name"], text={"missing": None}))
    assert sample_texts(table, plan, 5, 0) == [
        "age is 1, name is ***",
        "age is 2, name is ***",
        "age is 3, name is ***",
    ]
    assert "Secret" in str(write_clauses(table, plan).to_list())
    assert "Secret" not in plan.model_dump_json()
    assert sample_texts(table, plan, 1, 3) == sample_texts(table, plan, 1, 3)
    assert len({tuple(sample_texts(table, plan, 1, seed)) for seed in range(20)}) == 3
    assert sample_texts(table.clear(), plan, 3, 0) == []


def test_a_text_that_is_the_only_column_stands_alone():
    notes = ["a dog of some age, not of this house", None, "  two\n lines of it, a cat is mentioned here "]
    table = frame(note=notes)
    for shown in ({}, {"columns": {"note": {"name": "remark", "kind": "text"}}}):
        plan = fit_text(table, dataset(**shown))
        rows = write_clauses(table, plan).to_list()
        assert rows == [
            ["a dog of some age, not of this house"],
            ["missing"],
            ["two lines of it, a cat is mentioned here"],
        ]
        assert [shuffle_clauses(row, np.random.default_rng(1)) for row in rows] == rows
        assert sample_texts(table, plan, 3, 0) == [row[0] for row in rows]
    left_out = fit_text(table, dataset(text={"missing": None}))
    assert write_clauses(table, left_out).to_list()[1] == []
    masked = fit_text(table, dataset(sensitive="note"))
    assert sample_texts(table, masked, 3, 0) == ["***"] * 3
    # A category, and a text beside another column, say what they are.
    as_category = fit_text(table, dataset(columns={"note": {"kind": "category"}}))
    assert write_clauses(table, as_category).to_list()[1] == ["note is missing"]
    beside = table.with_columns(age=pl.Series([1, 2, 3]))
    assert write_clauses(beside, fit_text(beside, dataset())).to_list()[1] == ["age is 2", "note is missing"]


def test_cells_of_100_000_characters_are_never_cut():
    cell = "word 7\n" * 15_000
    table = frame(x=[cell, cell + "end", "short"])
    for verbalize in (False, True):
        clauses = write_clauses(table, fit_text(table, dataset(text={"verbalize": verbalize}))).to_list()
        word = "seven" if verbalize else "7"
        assert clauses[0] == [" ".join(["word", word] * 15_000)]
        assert clauses[1][0].endswith(f"{word} end")


numbers = st.integers(-(2**63), 2**63 - 1) | st.none()
floats = st.floats() | st.none()
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30) | st.none()
moments = st.datetimes() | st.none()
truths = st.booleans() | st.none()
nested = st.lists(st.integers(0, 9), max_size=3) | st.none()


@st.composite
def tables(draw):
    height = draw(st.integers(2, 6))
    kinds = {
        "number": (numbers, pl.Int64),
        "float": (floats, pl.Float64),
        "text": (texts, pl.String),
        "moment": (moments, pl.Datetime("us")),
        "truth": (truths, pl.Boolean),
        "list": (nested, pl.List(pl.Int64)),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, unique=True))
    columns = {"id": pl.Series(range(height))}
    for name in chosen:
        strategy, dtype = kinds[name]
        columns[name] = pl.Series(draw(st.lists(strategy, min_size=height, max_size=height)), dtype=dtype)
    columns["always"] = pl.Series(range(height))
    return pl.DataFrame(columns)


def is_visible(character):
    return not character.isspace() and not (ord(character) < 32 or 127 <= ord(character) < 160)


def is_missing(value):
    blank = isinstance(value, str) and not any(map(is_visible, value))
    return value is None or blank or (isinstance(value, float) and math.isnan(value))


def gives_back(name, value, text):
    """Whether the text of a value that is not missing leads back to it."""
    if name == "float" and math.isinf(value):
        return text == ("infinity" if value > 0 else "minus infinity")
    if name == "float":
        return Decimal(text) == exact(value, 6)
    if name == "moment":
        return dt.datetime.fromisoformat(text) == value
    if name == "text":
        return "".join(filter(is_visible, text)) == "".join(filter(is_visible, value)) and "  " not in text
    if name == "truth":
        return text == ("yes" if value else "no")
    return json.loads(text) == value


def digits_of(values, decimals):
    return [
        write_digits(value, decimals) if text is None else text
        for value, text in zip(values, float_digits(pl.Series(values, dtype=pl.Float64), decimals), strict=True)
    ]


near_a_tie = st.integers(-(10**9), 10**9).flatmap(lambda n: st.integers(0, 9).map(lambda k: (2 * n + 1) / (2 * 10**k)))


@quick
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e6, 1e6) | near_a_tie, min_size=1),
    st.sampled_from([0, 1, 3, 6, 9, 15, 16, 17]),
)
def test_columns_of_floats_are_written_as_each_float_is(values, decimals):
    assert digits_of(values, decimals) == [write_digits(value, decimals) for value in values]


def test_most_floats_are_written_by_columns():
    values = np.random.default_rng(0).normal(scale=1_000.0, size=5_000)
    column = pl.Series(np.append(values, [0.0, -0.0, 999999.5, 99999.95, 1e-5, 999999999999999.0]))
    written = float_digits(column, 6)
    assert written.null_count() < 5
    assert digits_of(column.to_list(), 6) == [write_digits(value, 6) for value in column]
    assert float_digits(pl.Series([None, math.nan, math.inf, 1e15, 9e-6]), 6).null_count() == 5


@quick
@given(st.lists(st.decimals(-(10**9), 10**9, places=4) | st.none(), min_size=1))
def test_columns_of_decimals_are_written_as_each_decimal_is(values):
    texts = decimal_digits(pl.Series(values, dtype=pl.Decimal(38, 4)))
    assert texts.to_list() == [None if value is None else write_digits(value, 6) for value in values]


def test_a_column_that_hardly_repeats_is_written_as_one_that_does():
    numbers = np.round(np.random.default_rng(0).normal(size=5_000), 7)
    table = frame(x=numbers, note=[f" n {i}\t" for i in range(5_000)], money=numbers, i=range(5_000))
    plan = fit_text(table, dataset(columns={"money": {"unit": "EUR"}}))
    assert all(seldom_repeats(table[column.name]) for column in plan.columns)
    rows = write_clauses(table, plan).to_list()
    assert rows[::100] == [write_clauses(row, plan).to_list()[0] for row in table[::100].iter_slices(1)]


def test_distinct_values_of_any_type_and_their_places():
    for values in (["a", None, "a", "b"], [[1, None], None, [1, None]], [{"a": b"x"}, {"a": None}, {"a": b"x"}]):
        series = pl.Series(values)
        distinct, codes = coded(series)
        assert distinct.gather(codes).to_list() == values
        assert len(distinct) == series.n_unique()
    assert len(coded(pl.Series([0.0, -0.0, math.nan, math.nan, None]))[0]) == 3


@quick
@given(tables())
def test_no_value_is_lost(table):
    plan = fit_text(table, dataset())
    for row, clauses in zip(table.to_dicts(), write_clauses(table, plan).to_list(), strict=True):
        assert len(clauses) == len(plan.columns)
        for column, clause in zip(plan.columns, clauses, strict=True):
            prefix = f"{column.label} is "
            assert clause.startswith(prefix)
            value, text = row[column.name], clause.removeprefix(prefix)
            assert text == "missing" if is_missing(value) else gives_back(column.name, value, text)


@quick
@given(tables(), st.booleans(), st.data())
def test_a_row_depends_on_itself_and_the_plan_alone(table, verbalize, data):
    plan = fit_text(table, dataset(text={"verbalize": verbalize}))
    start = data.draw(st.integers(0, table.height - 1))
    rows = write_clauses(table, plan).to_list()
    assert write_clauses(table[start : start + 1], plan).to_list() == rows[start : start + 1]
    assert write_clauses(table.reverse(), plan).to_list() == rows[::-1]


@quick
@given(st.lists(st.text(max_size=5)), st.integers(0, 2**31 - 1))
def test_a_shuffle_is_a_permutation_and_repeats_with_its_seed(clauses, seed):
    shuffled = shuffle_clauses(clauses, np.random.default_rng(seed))
    assert sorted(shuffled) == sorted(clauses)
    assert shuffle_clauses(clauses, np.random.default_rng(seed)) == shuffled


def test_every_row_and_epoch_gets_a_shuffle_of_its_own():
    rng = np.random.default_rng(0)
    clauses = [f"c{i} is {i}" for i in range(8)]
    epochs = [[tuple(shuffle_clauses(clauses, rng)) for _ in range(20)] for _ in range(2)]
    assert len({*epochs[0], *epochs[1]}) > 35
    assert clauses == [f"c{i} is {i}" for i in range(8)]
    assert {row[0] for epoch in epochs for row in epoch} == set(clauses)
