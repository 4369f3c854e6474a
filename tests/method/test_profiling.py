import datetime as dt
import math
import re
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.method.columns import ColumnPlan, plan_column
from erasmo_dagster.method.profiling import count_values, profile_segments, propose_names
from erasmo_dagster.method.profiling.shown import decimal, percent, shortest_between
from erasmo_dagster.settings import DatasetSettings

quick = settings(max_examples=50)


def plans(frame: pl.DataFrame, sensitive: tuple[str, ...] = (), **columns) -> list[ColumnPlan]:
    made = DatasetSettings.model_validate(
        {"source": {"path": "t.csv"}, "key": "id", "columns": columns, "sensitive": list(sensitive)}
    )
    return [plan_column(frame[name], name.replace("_", " "), made) for name in frame.columns]


def profile(frame, ids, sensitive=(), most_traits=12, max_rows=20_000, seed=0, **columns):
    return profile_segments(
        frame,
        np.asarray(ids),
        plans(frame, sensitive, **columns),
        most_traits=most_traits,
        max_rows=max_rows,
        seed=seed,
    )


def of(table, segment_id):
    return next(segment for segment in table.segments if segment.segment_id == segment_id)


def trait(segment, column, value=None, kind=None):
    found = [
        t
        for t in segment.traits
        if t.column == column and (value is None or t.value == value) and kind in (None, t.kind)
    ]
    assert len(found) == 1, segment.traits
    return found[0]


def planted(rows=400, seed=3):
    """Segment 0 is young and often on Biscoe; 1 lacks incomes and complains of refunds; the colour says nothing."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, rows)
    islands = np.where((ids == 0) & (rng.random(rows) < 0.9), "Biscoe", rng.choice(["Dream", "Torgersen"], rows))
    income = np.where((ids == 1) & (rng.random(rows) < 0.8), np.nan, rng.normal(50, 9, rows))
    words = rng.choice(["blue", "house", "fine", "table", "morning", "river", "stone"], (rows, 9))
    notes = [
        " ".join(row) + (" I want a refund now" if i == 1 else " all was well")
        for row, i in zip(words, ids, strict=True)
    ]
    frame = pl.DataFrame(
        {
            "age": np.where(ids == 0, 25, 55) + rng.integers(-9, 10, rows),
            "island": islands.tolist(),
            "income": income,
            "note": notes,
            "colour": rng.choice(["red", "green"], rows).tolist(),
            "since": [
                dt.date(2020 + 3 * int(i == 2), 1, 1) + dt.timedelta(days=int(d))
                for i, d in zip(ids, rng.integers(0, 300, rows), strict=True)
            ],
        }
    )
    return frame, ids


def test_planted_differences_are_the_traits_and_noise_is_none():
    frame, ids = planted()
    table = profile(frame, ids)
    assert [s.segment_id for s in table.segments] == [0, 1, 2]
    young, refunds, recent = table.segments
    assert {t.column for t in young.traits[:2]} == {"age", "island"}
    assert trait(young, "age").strength < -0.8
    assert trait(young, "island", "Biscoe").in_segment > 0.8
    assert trait(refunds, "note", "refund").in_segment == 1
    assert trait(refunds, "income", kind="missing").in_rest == 0
    assert trait(recent, "since").kind == "moment"
    assert "2023-" in trait(recent, "since").description
    assert not any(t.column == "colour" for s in table.segments for t in s.traits)
    assert "Biscoe" in young.summary
    assert young.typical["island"] == "Biscoe"
    assert refunds.typical["income"] == "missing"
    assert recent.typical["since"].startswith("2023-")
    assert "“refund”" in refunds.typical["note"]
    assert all(s.rule is not None and s.rule.precision > 0.9 and s.rule.coverage > 0.9 for s in table.segments)


def test_figures_of_a_number_are_cohens_d_and_the_point_biserial_correlation():
    values = np.array([5.0, 7.0, 6.0, 1.0, 2.0, 4.0, 3.0, np.nan])
    ids = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    found = trait(of(profile(pl.DataFrame({"x": values}), ids), 0), "x", kind="number")
    inside, rest = values[:3], values[3:7]
    pooled = math.sqrt((2 * inside.var(ddof=1) + 3 * rest.var(ddof=1)) / 5)
    assert found.in_segment == pytest.approx(6)
    assert found.in_rest == pytest.approx(2.5)
    assert found.effect == pytest.approx(3.5 / pooled)
    assert found.strength == pytest.approx(np.corrcoef(values[:7], ids[:7] == 0)[0, 1])
    assert found.effect_kind == "standardised difference"
    assert found.column_association == abs(found.strength)


def test_figures_of_a_category_are_lift_phi_and_cramers_v():
    from scipy.stats.contingency import association

    jobs = ["a"] * 6 + ["b"] * 2 + ["a"] * 2 + ["b"] * 7 + [None] * 3
    ids = np.array([0] * 8 + [1] * 12)
    segment = of(profile(pl.DataFrame({"job": jobs}), ids), 0)
    found = trait(segment, "job")
    has = np.array([job == "a" for job in jobs])
    assert (found.in_segment, found.in_rest) == (6 / 8, 2 / 12)
    assert found.effect == pytest.approx((6 / 8) / (8 / 20))
    assert found.strength == pytest.approx(np.corrcoef(has, ids == 0)[0, 1])
    assert found.column_association == pytest.approx(association([[6, 2, 0], [2, 7, 3]], method="cramer"))
    assert found.description == "job is a in 75 % of rows, 17 % in the rest"


def test_segments_that_are_constant_have_a_finite_difference():
    found = trait(of(profile(pl.DataFrame({"x": [1.0] * 4 + [3.0] * 4}), [0] * 4 + [1] * 4), 0), "x")
    assert found.strength == pytest.approx(-1)
    assert found.effect == pytest.approx(-2 / np.std([1] * 4 + [3] * 4, ddof=1))


def test_codes_are_told_in_human_words():
    frame = pl.DataFrame({"sex": [1, 1, 1, 0, 0, 0], "member": [True, True, True, False, False, None]})
    segment = of(profile(frame, [0, 0, 0, 1, 1, 1], sex={"values": {1: "male", 0: "female"}}), 0)
    assert trait(segment, "sex").value == "male"
    assert trait(segment, "member").value == "yes"
    assert segment.typical == {"sex": "male", "member": "yes"}


def test_a_value_of_one_row_is_no_trait_unless_the_segment_has_one_row():
    frame = pl.DataFrame({"name": ["x", "a", "b", "a", "b", "c"]})
    assert of(profile(frame, [0, 0, 1, 1, 1, 1]), 0).traits == ()
    assert trait(of(profile(frame, [0, 1, 1, 1, 1, 1]), 0), "name").value == "x"
    assert of(profile(frame, [0, 0, 1, 1, 1, 1]), 0).typical == {"name": "various"}


def test_fewer_rows_of_a_value_are_no_trait():
    frame = pl.DataFrame({"job": ["a"] * 8 + ["b"] * 10})
    assert {t.value for t in of(profile(frame, [0] * 6 + [1] * 12), 0).traits} == {"a"}


@pytest.mark.parametrize(("column", "most"), [("job", 3), ("note", 4)])
def test_a_column_has_few_traits(column, most):
    rng = np.random.default_rng(0)
    ids = np.repeat([0, 1], 60)
    jobs = [f"{'abcdef'[i % 6]}{s}" for i, s in enumerate(ids)]
    mine = [["red house", "old oak", "wide river", "grey stone"], ["new car", "tall tower", "lamp post", "hot iron"]]
    notes = [" by the ".join(rng.permutation(mine[s])) for s in ids]
    segment = of(profile(pl.DataFrame({"job": jobs, "note": notes}), ids), 0)
    assert len([t for t in segment.traits if t.column == column]) == most


def test_most_traits_bounds_them_and_the_strongest_come_first():
    frame, ids = planted()
    segment = of(profile(frame, ids, most_traits=2), 0)
    strengths = [abs(t.strength) for t in of(profile(frame, ids), 0).traits]
    assert [abs(t.strength) for t in segment.traits] == strengths[:2]
    assert strengths == sorted(strengths, reverse=True)


@pytest.mark.parametrize("max_rows", [20_000, 150])
def test_the_order_of_rows_and_of_the_frames_columns_changes_nothing(max_rows):
    frame, ids = planted()
    columns = plans(frame)
    first = profile_segments(frame, ids, columns, max_rows=max_rows)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(ids))
        other = frame[order].select(sorted(frame.columns, reverse=seed % 2 == 0))
        assert profile_segments(other, ids[order], columns, max_rows=max_rows).segments == first.segments
        one, two = count_values(frame, ids, columns), count_values(other, ids[order], columns)
        assert one.equals(two)


def test_a_sample_is_drawn_by_the_seed_and_figures_are_of_all_rows():
    frame, ids = planted(2000)
    every, some = profile(frame, ids), profile(frame, ids, max_rows=100)
    for one, other in zip(every.segments, some.segments, strict=True):
        assert [t for t in one.traits if t.kind != "term"] == [t for t in other.traits if t.kind != "term"]
        assert other.segment_id != 1 or trait(other, "note", "refund").in_rest == 0
        assert counted(frame, ids, other.segment_id, other.rule) == pytest.approx(
            (other.rule.precision, other.rule.coverage)
        )


def counted(frame, ids, segment_id, rule):
    """Precision and coverage of a rule's text, read back by a reader of its own."""
    rows = [all(true_of(row, part) for part in split(rule.text)) for row in frame.iter_rows(named=True)]
    held, mine = np.array(rows), ids == segment_id
    assert held.sum() == rule.rows
    return (held & mine).sum() / held.sum(), (held & mine).sum() / mine.sum()


def split(text):
    parts = []
    for part in text.split(" and "):
        if part.startswith(("at most", "before")):
            parts[-1] += f" and {part}"
        else:
            parts.append(part)
    return parts


def same(said, value):
    if isinstance(value, bool):
        return said == ("yes" if value else "no")
    return float(said) == value if isinstance(value, (int, float)) else said == str(value)


def true_of(row, part):
    if "mention" in part:
        column, _, term = part.partition(" does not mention " if "does not" in part else " mentions ")
        return (f" {term.strip('“”')} " in f" {row[column] or ''} ".lower()) != ("does not" in part)
    column, _, said = part.partition(" is ")
    value = row[column]
    absent = value is None or (isinstance(value, float) and math.isnan(value))
    said = said.partition(" or missing")[0]
    if said in ("missing", "not missing"):
        return absent == (said == "missing")
    if said.startswith("not "):
        names = said.removeprefix("not ").split(" or ")
        return value not in names and not (absent and "missing" in part)
    if absent:
        return part.endswith(" or missing")
    for bound in said.split(" and "):
        if bound.startswith("above "):
            true = value > float(bound.removeprefix("above "))
        elif bound.startswith("at most "):
            true = value <= float(bound.removeprefix("at most "))
        elif bound.endswith(" or later"):
            true = value >= dt.date.fromisoformat(bound.removesuffix(" or later"))
        elif bound.startswith("before "):
            true = value < dt.date.fromisoformat(bound.removeprefix("before "))
        else:
            true = same(bound, value)
        if not true:
            return False
    return True


@pytest.mark.parametrize("seed", range(6))
def test_rules_hold_for_the_rows_that_they_say(seed):
    frame, ids = planted(300, seed)
    for segment in profile(frame, ids).segments:
        assert counted(frame, ids, segment.segment_id, segment.rule) == pytest.approx(
            (segment.rule.precision, segment.rule.coverage)
        )


def test_a_rule_says_the_shortest_number_with_its_unit_and_each_column_once():
    frame = pl.DataFrame({"length": [204.2, 205.1, 205.9, 206.84, 207.2, 210.0] * 5})
    rule = of(profile(frame, [0, 0, 0, 1, 1, 1] * 5, length={"unit": "mm"}), 1).rule
    assert (rule.text, rule.precision, rule.coverage, rule.rows) == ("length is above 206 mm", 1, 1, 15)
    middle = pl.DataFrame({"x": list(range(90))})
    assert of(profile(middle, [0] * 30 + [1] * 30 + [0] * 30), 1).rule.text == "x is above 29 and at most 59"


def test_rules_speak_of_values_missing_values_and_days():
    def rule(values, ids, **columns):
        return of(profile(pl.DataFrame({"x": values}), ids, **columns), 0).rule.text

    half = [0] * 8 + [1] * 8
    assert rule(["a"] * 8 + ["b", "c"] * 4, half) == "x is a"
    assert rule(["b", "c"] * 4 + ["a"] * 8, half) == "x is not a"
    assert rule([None] * 8 + ["a", "b"] * 4, half) == "x is missing"
    assert rule([None] * 8 + [1.5, 2.5] * 4, half) == "x is missing"
    assert rule([1.5, 2.5] * 4 + [None] * 8, half) == "x is not missing"
    assert rule([False] * 8 + [True] * 8, half) == "x is no"
    assert rule([dt.date(2024, 3, d) for d in range(1, 17)], half) == "x is before 2024-03-09"
    assert (
        rule([dt.datetime(2024, 3, 1, 8 + h // 8, h) for h in range(16)][::-1], half)
        == "x is 2024-03-01 09:00 or later"
    )


def test_there_is_no_rule_where_nothing_separates():
    frame = pl.DataFrame({"x": [1, 2] * 10, "job": ["a"] * 20})
    assert [s.rule for s in profile(frame, [0, 0, 1, 1] * 5).segments] == [None, None]
    assert [s.summary for s in profile(frame, [0, 0, 1, 1] * 5).segments] == ["no column sets it apart"] * 2


def test_one_segment_has_no_traits_and_no_rule():
    (segment,) = profile(pl.DataFrame({"x": [1, 2, 4], "job": ["a", "a", None]}), [7, 7, 7]).segments
    assert (segment.segment_id, segment.rows, segment.share, segment.traits, segment.rule) == (7, 3, 1.0, (), None)
    assert segment.typical == {"x": "2", "job": "a"}


def test_noise_is_profiled_and_comes_last():
    frame, ids = planted()
    table = profile(frame, np.where(ids == 0, -1, ids))
    assert [s.segment_id for s in table.segments] == [1, 2, -1]
    assert of(table, -1).traits == tuple(
        type(t)(**{**vars(t), "segment_id": -1}) for t in of(profile(frame, ids), 0).traits
    )


def test_sensitive_and_nested_columns_and_those_not_planned_are_nowhere():
    frame = pl.DataFrame(
        {
            "diagnosis": ["flu"] * 5 + ["gout"] * 5,
            "tags": [["secret"]] * 5 + [["hidden"]] * 5,
            "key": [f"customer{i}" for i in range(10)],
            "age": [1] * 5 + [2] * 5,
        }
    )
    ids = np.array([0] * 5 + [1] * 5)
    columns = [plan for plan in plans(frame, ("diagnosis",)) if plan.name != "key"]
    table = profile_segments(frame, ids, columns)
    told = repr(table.segments) + str(count_values(frame, ids, columns).to_dicts()) + repr(propose_names(table, {}))
    assert not [w for w in ("flu", "gout", "diagnosis", "secret", "hidden", "tags", "customer", "key") if w in told]
    assert "age" in told


def test_hostile_values_are_one_short_line():
    wild = "a\x00b\r\n\x1b[31mc\u202ed" + "x" * 10_000
    label = "l\n" * 5000
    frame = pl.DataFrame({"c": [wild] * 4 + ["other"] * 4, "t": [wild + " refund here"] * 4 + ["fine"] * 4})
    columns = plans(frame, t={"kind": "text"}, c={"kind": "category"})
    columns = [column.model_copy(update={"label": f"{label}{column.name}"}) for column in columns]
    ids = np.array([0] * 4 + [1] * 4)
    table = profile_segments(frame, ids, columns)
    counts = count_values(frame, ids, columns)
    texts = [t for s in table.segments for t in (s.summary, *s.typical, *s.typical.values(), s.rule.text)]
    texts += [x for s in table.segments for t in s.traits for x in (t.value or "", t.label, t.description)]
    texts += counts["value"].to_list()
    assert len(texts) > 12
    for text in texts:
        assert text.isprintable()
        assert len(text) < 600


def test_kinds_of_types_are_all_read():
    n = 12
    frame = pl.DataFrame(
        {
            "cat": pl.Series(["u", "v"] * 6, dtype=pl.Categorical),
            "enum": pl.Series(["p"] * 6 + ["q"] * 6, dtype=pl.Enum(["q", "p"])),
            "dec": pl.Series([Decimal("1.10")] * 6 + [Decimal("2.20")] * 6),
            "f32": pl.Series([0.1] * 6 + [0.2] * 6, dtype=pl.Float32),
            "day": [dt.date(2024, 1, 1)] * 6 + [dt.date(2025, 1, 1)] * 6,
            "zoned": pl.Series(
                [dt.datetime(2024, 1, 1, 12)] * 6 + [dt.datetime(2025, 1, 1, 12)] * 6
            ).dt.replace_time_zone("Europe/Berlin"),
            "time": [dt.time(8)] * 6 + [dt.time(20, 30)] * 6,
            "took": [dt.timedelta(hours=1)] * 6 + [dt.timedelta(days=2)] * 6,
            "void": [None] * n,
            "const": [1] * n,
            "u64": pl.Series([1] * 6 + [2**63] * 6, dtype=pl.UInt64),
            "text day": ["2024-01-01"] * 6 + ["2025-06-01T12:00:00"] * 6,
        }
    )
    ids = np.repeat([0, 1], 6)
    segment = of(profile(frame, ids, void={"kind": "number"}, **{"text day": {"kind": "datetime"}}), 0)
    assert segment.typical == {
        "cat": "u",
        "enum": "p",
        "dec": "1.1",
        "f32": "0.1",
        "day": "2024-01-01",
        "zoned": "2024-01-01",
        "time": "08:00",
        "took": "1 hour",
        "void": "missing",
        "const": "1",
        "u64": "1",
        "text day": "2024-01-01",
    }
    told = {t.column: t.description for t in segment.traits}
    assert set(told) == {"enum", "dec", "f32", "day", "zoned", "time", "took", "u64", "text day"}
    assert told["time"] == "time 08:00 on average, 20:30 in the rest"
    assert told["f32"] == "f32 0.1 on average, 0.2 in the rest"
    assert trait(segment, "day").in_segment == dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp()


def test_the_same_values_in_another_categorical_are_the_same_profile():
    ids = np.array([0, 0, 1, 1, 0, 1] * 4)
    values = ["z", "z", "a", "a", "z", "z"] * 4
    tables = [profile(pl.DataFrame({"x": series}), ids) for series in (values, pl.Series(values, dtype=pl.Categorical))]
    assert tables[0].segments == tables[1].segments


def test_infinities_count_as_the_finite_extremes():
    found = trait(of(profile(pl.DataFrame({"x": [math.inf, 4.0, 1.0, -math.inf]}), [0, 0, 1, 1]), 0), "x")
    assert (found.in_segment, found.in_rest) == (4.0, 1.0)


@pytest.mark.parametrize("unit", ["ms", "us", "ns", "date", "zoned", "duration"])
def test_moments_beyond_the_calendar_count_as_the_extremes(unit):
    least, most = (-(2**31), 2**31 - 1) if unit == "date" else (-(2**63) + 1, 2**63 - 1)
    dtype = {"date": pl.Date, "zoned": pl.Datetime("us", "Europe/Berlin"), "duration": pl.Duration("ms")}
    values = pl.Series([most, most, 5, 5, 0, least], dtype=pl.Int32 if unit == "date" else pl.Int64)
    frame = pl.DataFrame({"x": values.cast(dtype.get(unit) or pl.Datetime(unit))})
    ids = np.array([0, 0, 0, 1, 1, 1])
    plan = ColumnPlan(name="x", label="x", kind="datetime", values={}, unit=None, verbalize=False, sensitive=False)
    table = profile_segments(frame, ids, [plan])
    found = trait(of(table, 0), "x")
    assert found.in_segment > found.in_rest
    assert of(table, 1).typical["x"]
    assert count_values(frame, ids, [plan])["rows"].sum() == 6


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e300, 1.7e308])
def test_extreme_numbers_stay_finite(scale):
    frame = pl.DataFrame({"x": [-scale, -scale, scale, scale, 0.0]})
    table = profile(frame, [0, 0, 1, 1, 1])
    for segment in table.segments:
        assert all(math.isfinite(v) for t in segment.traits for v in (t.in_segment, t.in_rest, t.effect, t.strength))
    assert of(table, 0).traits[0].strength < -0.8
    assert of(table, 0).traits[0].in_segment == -scale
    assert of(table, 0).rule.precision == 1


def test_stop_words_go_by_the_language():
    frame = pl.DataFrame({"t": ["and this was the garden"] * 6 + ["but that is a kitchen"] * 6})
    columns = plans(frame, t={"kind": "text"})
    ids = np.repeat([0, 1], 6)
    english = {t.value for t in profile_segments(frame, ids, columns, language="en_GB").segments[0].traits}
    german = {t.value for t in profile_segments(frame, ids, columns, language="de").segments[0].traits}
    assert english == {"garden"}
    assert {"garden"} < german
    assert "and" in " ".join(sorted(german)).split()


def test_terms_are_words_side_by_side():
    frame = pl.DataFrame({"t": ["Good, service! but service-desk closed"] * 5 + ["nothing to tell here"] * 5})
    table = profile(frame, np.repeat([0, 1], 5), t={"kind": "text"})
    values = {t.value for t in of(table, 0).traits}
    assert "good service" not in values
    assert values <= {"good", "service", "service desk", "desk closed", "closed", "desk"}


def test_wrong_lengths_are_refused():
    frame = pl.DataFrame({"x": [1, 2]})
    for call in (profile_segments, count_values):
        with pytest.raises(ValueError, match="for 2 rows"):
            call(frame, np.array([0, 1, 2]), plans(frame))


def test_a_table_without_rows_or_columns_has_an_empty_profile():
    frame = pl.DataFrame({"x": [1, 2]})
    assert profile_segments(frame[:0], np.zeros(0, np.int64), plans(frame)).segments == ()
    assert [s.traits for s in profile_segments(frame, np.array([0, 1]), []).segments] == [(), ()]
    assert count_values(frame, np.array([0, 1]), []).columns == [
        "segment_id",
        "column_name",
        "value",
        "value_order",
        "rows",
    ]


def test_values_are_counted_in_bins_and_words():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "x": [*rng.lognormal(3, 1, 299), None],
            "few": [1, 2, 3] * 100,
            "job": [f"job {i % 60 if i < 120 else 0}" for i in range(300)],
            "note": ["some long text of many words, really long"] * 300,
        }
    )
    ids = np.arange(300) % 3
    counts = count_values(frame, ids, plans(frame))
    assert set(counts["column_name"]) == {"x", "few", "job"}
    sums = counts.group_by("segment_id", "column_name").agg(pl.col("rows").sum())
    assert set(sums["rows"]) == {100}
    assert counts.filter(column_name="few").sort("value_order")["value"].unique(maintain_order=True).to_list() == [
        "1",
        "2",
        "3",
    ]
    bins = counts.filter(column_name="x").select("value", "value_order").unique().sort("value_order")
    assert len(bins) == 11
    assert bins["value"].to_list()[-1] == "(missing)"
    low, high = zip(*[map(float, text.split(" to ")) for text in bins["value"].to_list()[:-1]], strict=True)
    assert low[0] == frame["x"].min()
    assert high[-1] == frame["x"].max()
    assert list(low[1:]) == list(high[:-1])
    per_bin = counts.filter(column_name="x").group_by("value").agg(pl.col("rows").sum())
    assert per_bin.filter(pl.col("value") != "(missing)")["rows"].min() >= 10
    for first, last, text in zip(low, high, bins["value"], strict=False):
        expected = ((frame["x"] > first) & (frame["x"] <= last)).sum() + (first == low[0])
        assert per_bin.filter(value=text)["rows"].item() == expected
    jobs = (
        counts.filter(column_name="job").select("value", "value_order").unique().sort("value_order")["value"].to_list()
    )
    assert jobs[0] == "job 0"
    assert jobs[-1] == "(other)"
    assert len(jobs) == 51


def test_bins_of_days_have_one_to_between_them():
    frame = pl.DataFrame({"d": [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(100)]})
    values = count_values(frame, np.zeros(100, int), plans(frame), bins=4)["value"].to_list()
    assert len(values) == 4
    assert values[0].startswith("2024-01-01 to 2024-01-")


@quick
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(), st.integers(-5, 5).map(float)),
            st.one_of(st.none(), st.sampled_from(["a", "b", "yes", "1", "(missing)"]), st.text(max_size=5)),
            st.one_of(st.none(), st.booleans()),
            st.one_of(st.none(), st.dates()),
            st.one_of(st.none(), st.text(alphabet="ab c'’-|“.", max_size=30)),
            st.integers(-1, 3),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_whatever_the_table_the_profile_is_finite_and_its_names_are_unique(rows):
    frame = pl.DataFrame(
        [row[:5] for row in rows],
        schema={"num": pl.Float64, "cat": pl.String, "bool": pl.Boolean, "day": pl.Date, "txt": pl.String},
        orient="row",
    )
    ids = np.array([row[5] for row in rows])
    columns = plans(frame, txt={"kind": "text"}, cat={"kind": "category"})
    table = profile_segments(frame, ids, columns)
    assert sum(segment.rows for segment in table.segments) == len(rows)
    for segment in table.segments:
        for t in segment.traits:
            assert all(math.isfinite(v) for v in (t.in_segment, t.in_rest, t.effect))
            assert 0.1 <= abs(t.strength) <= 1
            assert 0 <= t.column_association <= 1 + 1e-12
            assert t.kind in ("number", "moment", "missing") or t.effect > 1
        if segment.rule is not None:
            assert segment.share < segment.rule.precision <= 1
            assert 0 < segment.rule.coverage <= 1
            assert segment.rule.precision * segment.rule.rows == pytest.approx(segment.rule.coverage * segment.rows)
    names = propose_names(table, {})
    assert set(names) == set(ids.tolist())
    assert len({name.casefold() for name in names.values()}) == len(names)
    assert all(0 < len(name) <= 60 and re.sub("[\u200c\u200d]", "", name).isprintable() for name in names.values())
    order = np.random.default_rng(0).permutation(len(rows))
    assert profile_segments(frame[order], ids[order], columns).segments == table.segments
    counts = count_values(frame, ids, columns)
    sums = counts.group_by("segment_id", "column_name").agg(pl.col("rows").sum())
    sizes = dict(zip(*np.unique(ids, return_counts=True), strict=True))
    assert all(sizes[row["segment_id"]] == row["rows"] for row in sums.iter_rows(named=True))
    assert not counts.select("segment_id", "column_name", "value").is_duplicated().any()


@quick
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float)),
            st.one_of(st.none(), st.sampled_from(["red", "green", "blue"])),
            st.one_of(st.none(), st.dates(dt.date(1990, 1, 1), dt.date(2030, 1, 1))),
            st.integers(0, 2),
        ),
        min_size=4,
        max_size=40,
    )
)
def test_whatever_the_table_rules_are_literally_true(rows):
    frame = pl.DataFrame(
        [row[:3] for row in rows], schema={"num": pl.Float64, "cat": pl.String, "day": pl.Date}, orient="row"
    )
    ids = np.array([row[3] for row in rows])
    for segment in profile(frame, ids, cat={"kind": "category"}).segments:
        if segment.rule is not None:
            assert counted(frame, ids, segment.segment_id, segment.rule) == pytest.approx(
                (segment.rule.precision, segment.rule.coverage)
            )


@quick
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_lies_between(first, second):
    low, high = sorted((first, second))
    if low < high:
        found = shortest_between(low, high)
        assert low <= float(found) < high
        assert len(found.as_tuple().digits) <= len(Decimal(repr(low)).normalize().as_tuple().digits)


def test_the_shortest_decimal_is_round():
    pairs = ((205.9, 206.84), (-3.0, 2.0), (0.31, 0.349), (40, 41), (1.5e20, 2.5e20), (-0.1, -0.02), (1999, 2011))
    assert [decimal(shortest_between(*pair)) for pair in pairs] == ["206", "0", "0.33", "40", "2e20", "-0.1", "2000"]


def test_shares_are_0_and_100_only_where_they_are():
    assert [percent(share) for share in (0, 1, 0.004, 0.996, 0.00001, 0.99999, 0.5)] == [
        "0 %",
        "100 %",
        "0.4 %",
        "99.6 %",
        "under 0.01 %",
        "over 99.99 %",
        "50 %",
    ]
