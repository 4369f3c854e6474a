import math

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import ordering
from erasmo_dagster.method.textual import TextPlan, fit_text, join_clauses, write_clauses
from tests.method.small_tables import dataset, frame, people


@pytest.mark.parametrize(
    ("series", "kind"),
    [
        (["red", "dark blue", None], "category"),
        (["x" * 40, "y" * 40], "category"),
        (["x" * 41, "y" * 41], "text"),
        (["a b c d e", "a b c d f"], "category"),
        (["a b c d e f", "a b c d e g"], "text"),
        (["a", *["a"] * 50, "long " * 20], "text"),
    ],
)
def test_strings_are_text_when_their_distinct_values_are_long(series, kind):
    assert fit_text(frame(x=series), dataset()).columns[0].kind == kind


def test_columns_that_say_nothing_are_left_out_with_the_reason():
    table = frame(
        x=[1, 2], empty=[None, None], blank=["", " "], nan=[math.nan] * 2, same=["a", " a "], half=["a", None]
    )
    plan = fit_text(table, dataset())
    assert [column.name for column in plan.columns] == ["half", "x"]
    missing = "every value is missing"
    assert plan.dropped == {"blank": missing, "empty": missing, "nan": missing, "same": "one value in every row"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            frame(x=[1, 1], y=[None, None]),
            r"Got no column .*'x' \(one value in every row\), 'y' \(every value is missing",
        ),
        (pl.DataFrame({"id": [1, 2]}), "Got no column .*there are no others"),
        (frame(x=[1]), "Got no column .*one value in every row"),
        (frame(x=[1]).clear(), "Got a table without rows"),
    ],
)
def test_a_table_without_anything_to_say_is_refused(table, message):
    with pytest.raises(ErasmoError, match=message) as caught:
        fit_text(table, dataset())
    assert "\n" not in str(caught.value)


def test_the_label_is_not_looked_at():
    table, options = people(), dataset(label="group", drop=["note"], columns={"group": {"name": "age years"}})
    shuffled = table.with_columns(group=pl.Series(["b", "a", "c", None]), id=pl.Series([9, 8, 7, 6]))
    plan = fit_text(table, options)
    for other in (shuffled, table.drop("group"), table.drop("group", "note", "id")):
        assert fit_text(other, options).model_dump_json() == plan.model_dump_json()
        assert write_clauses(other, plan).to_list() == write_clauses(table, plan).to_list()


def test_the_order_of_columns_in_the_source_makes_no_difference():
    table = people()
    plan = fit_text(table, dataset())
    turned = table.select(reversed(table.columns))
    assert fit_text(turned, dataset()).model_dump_json() == plan.model_dump_json()
    assert write_clauses(turned, plan).to_list() == write_clauses(table, plan).to_list()


def test_columns_with_fewer_values_come_first():
    table = frame(c=[1, 2, 3, 4], z=[1, 1, 2, 2], b=["a", "b", "c", "c"], a=[True, True, False, None])
    assert [column.name for column in fit_text(table, dataset()).columns] == ["z", "a", "b", "c"]


def test_columns_are_ordered_so_that_rows_share_more():
    rng = np.random.default_rng(0)
    shop, colour = rng.integers(30, size=600), rng.integers(28, size=600)
    table = frame(
        colour=colour, shop=[f"the shop {i}" for i in shop], town=[f"the town {i}" for i in shop], n=range(600)
    )
    plain = ["colour", "shop", "town", "n"]
    plan = fit_text(table, dataset())
    assert [column.name for column in plan.columns] == ["shop", "town", "colour", "n"]
    assert fit_text(table.select(reversed(table.columns)), dataset()) == plan
    assert fit_text(table.reverse(), dataset()) == plan
    # Where less is saved than the estimate is good for, and in small tables, those with fewer values come first.
    apart = frame(a=rng.integers(10, size=600), b=rng.integers(12, size=600), c=rng.integers(14, size=600))
    assert [column.name for column in fit_text(apart, dataset()).columns] == ["a", "b", "c"]
    assert [column.name for column in fit_text(table[:300], dataset()).columns] == plain


def test_the_order_is_found_on_the_same_rows_in_whatever_order_they_come(monkeypatch):
    monkeypatch.setattr(ordering, "_SAMPLED", 500)
    monkeypatch.setattr(ordering, "_PIECE", 300)
    rng = np.random.default_rng(0)
    hashes = rng.integers(2**64, size=900, dtype=np.uint64)[rng.integers(900, size=3_000)]
    for rows in (hashes, hashes[::-1]):
        places = ordering.sample_rows(rows, columns=4)
        assert np.sort(rows[places]).tolist() == np.unique(hashes)[:500].tolist()
        assert (np.diff(places) > 0).all()
    base = rng.integers(40, size=1_500)
    strays = rng.integers(40, size=(8, 1_500))
    table = frame(**{f"c{i}": np.where(rng.random(1_500) < 0.1, strays[i], base * (i + 1) % 41) for i in range(8)})
    plans = [fit_text(table.sample(fraction=1, shuffle=True, seed=seed), dataset()) for seed in range(5)]
    assert all(plan == plans[0] == fit_text(table.lazy(), dataset()) for plan in plans)


def test_of_many_columns_not_all_are_tried_at_each_step(monkeypatch):
    monkeypatch.setattr(ordering, "_TRIED", 600)
    tried = []
    longer = ordering._Beginnings.longer
    monkeypatch.setattr(ordering._Beginnings, "longer", lambda at, column: tried.append(column) or longer(at, column))
    rng = np.random.default_rng(0)
    same = rng.integers(30, size=600)
    table = frame(**{f"c{i}": (same + i) % 29 if i % 9 == 0 else rng.random(600) < 0.02 for i in range(60)})
    order = [column.name for column in fit_text(table, dataset()).columns]
    assert sorted(order) == sorted(table.columns[1:])
    assert order != sorted(order, key=lambda name: (table[name].n_unique(), name))
    assert len(tried) <= (2 * 10 + 4) * 60


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "quote\"d 'twice'",
        "select",
        "👍",
        "n" * 200,
        "line\nbreak\tand  more",
        "a,b",
        "_",
        "1",
        "is",
        "value",
    ],
)
def test_any_column_name_works(name):
    table = frame(**{name: [1, 2]})
    label = " ".join(name.replace("_", " ").split()) or name
    assert [join_clauses(row) for row in write_clauses(table, fit_text(table, dataset()))] == [
        f"{label} is 1",
        f"{label} is 2",
    ]


def test_names_in_the_text():
    table = frame(bill_length=[1, 2], other=[3, 4], a_b=[5, 6], **{"a b": [7, 8]})
    plan = fit_text(table, dataset(columns={"other": {"name": "bill  length"}}))
    names = {column.name: column.label for column in plan.columns}
    assert names == {"bill_length": "bill_length", "other": "bill length", "a_b": "a_b", "a b": "a b"}


@pytest.mark.parametrize("columns", [{"x": {"name": "y"}}, {"x": {"name": "same"}, "y": {"name": " same"}}])
def test_two_columns_with_one_name_are_refused(columns):
    with pytest.raises(ErasmoError, match=r"Got columns 'x' and 'y' with one name in the text.*columns.<name>.name"):
        fit_text(frame(x=[1, 2], y=[3, 4]), dataset(columns=columns))


def test_settings_for_a_column_that_is_not_there_are_refused():
    table = frame(**{f"column {i}": [1, 2] for i in range(30)})
    with pytest.raises(ErasmoError, match=r"Got columns with 'colunm 1'.*'column 0'.*'column 8' and 21 more") as caught:
        fit_text(table, dataset(columns={"colunm 1": {"kind": "text"}}))
    assert "column 20" not in str(caught.value)
    with pytest.raises(ErasmoError, match="Got sensitive with 'nmae'"):
        fit_text(table, dataset(sensitive=["nmae"]))


def test_an_unknown_language_is_refused_when_it_is_needed():
    fit_text(people(), dataset(text={"language": "xx"}))
    with pytest.raises(ErasmoError, match="Got language 'xx'"):
        fit_text(people(), dataset(text={"language": "xx", "verbalize": True}))


def test_a_plan_survives_json():
    plan = fit_text(people(), dataset(columns={"sex": {"values": {1: "male"}}}, sensitive=["note"]))
    assert TextPlan.model_validate_json(plan.model_dump_json()) == plan
