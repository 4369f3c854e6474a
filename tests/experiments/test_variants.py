"""Samples and changes of tables: seeded, of the size asked for, and never of the label."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasmo_dagster.experiments.settings import Variant
from erasmo_dagster.experiments.variants import Changed, changed, sampled
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import DatasetSettings

N = 400
SETTINGS = DatasetSettings.model_validate(
    {
        "source": {"path": "x.csv"},
        "key": "id",
        "label": "kind",
        "drop": "email",
        "sensitive": "income",
        "columns": {"age": {"name": "years"}},
    }
)


def people() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "id": range(N),
            "kind": ["a" if i % 4 else "b" for i in range(N)],
            "email": [f"{i}@example.org" for i in range(N)],
            "age": rng.integers(18, 90, N),
            "income": rng.lognormal(10, 1, N),
            "price": [Decimal(int(i)) / 4 for i in rng.integers(1, 99, N)],
            "job": rng.choice(["cook", "smith", "nurse"], N),
            "member": rng.random(N) < 0.5,
            "since": [date(2020, 1, 1) + timedelta(days=int(i)) for i in rng.integers(0, 900, N)],
            "story": [f"{i} once upon a time there was somebody who lived in a house by the sea" for i in range(N)],
        }
    )


FEATURES = ["age", "income", "price", "job", "member", "since", "story"]


def apply(variant: dict[str, Any], frame: pl.DataFrame | None = None) -> Changed:
    table = people() if frame is None else frame
    return changed(table, Variant.model_validate(variant), SETTINGS, fit_text(table, SETTINGS))


@pytest.mark.parametrize(
    "variant",
    [
        {"rows": 50},
        {"missing": 0.2},
        {"noise": 0.1},
        {"duplicate_columns": 9},
        {"correlated_columns": 3},
        {"noise": 1, "missing": 0.3, "rows": 99},
    ],
)
def test_changes_are_seeded_and_leave_key_label_and_dropped_alone(variant: dict[str, Any]) -> None:
    one, two = apply(variant), apply(variant)
    assert one.frame.equals(two.frame)
    assert one.settings == two.settings
    rows = one.frame["id"]
    kept = people().filter(pl.col("id").is_in(rows.implode()))
    assert one.frame.select("id", "kind", "email").equals(kept.select("id", "kind", "email"))
    assert one.before.equals(kept)
    assert {name: one.frame.schema[name] for name in FEATURES} == {name: kept.schema[name] for name in FEATURES}
    fit_text(one.frame, one.settings)  # what was added has names that fit


def test_no_change_is_none() -> None:
    assert apply({}).frame.equals(people())


def test_labels_do_not_steer_changes() -> None:
    other = people().with_columns(kind=pl.Series([str(i % 7) for i in range(N)]))
    for variant in ({"noise": 0.3}, {"missing": 0.3}, {"correlated_columns": 2}):
        assert apply(variant).frame.drop("kind").equals(apply(variant, other).frame.drop("kind"))


def test_missing_takes_its_share_away() -> None:
    frame = apply({"missing": 0.25}).frame
    shares = [frame[name].null_count() / N for name in FEATURES]
    assert all(0.18 < share < 0.32 for share in shares)


def test_noise_moves_numbers_and_replaces_the_rest() -> None:
    before, frame = people(), apply({"noise": 0.2}).frame
    for name in ("age", "income"):
        moved = (frame[name] - before[name]).to_numpy().astype(float)
        assert 0.15 < moved.std() / before[name].cast(pl.Float64).to_numpy().std() < 0.25
    assert frame["age"].dtype == before["age"].dtype
    assert frame["price"].cast(pl.Float64).max() <= before["price"].cast(pl.Float64).max()  # type: ignore[operator]
    for name, chance in (("job", 2 / 3), ("since", 1.0), ("member", 1 / 2)):
        assert 0.7 < (frame[name] != before[name]).mean() / (0.2 * chance) < 1.3  # type: ignore[operator]
        assert set(frame[name].to_list()) <= set(before[name].to_list())
    assert frame["story"].equals(before["story"])


def test_missing_values_stay_missing_under_noise() -> None:
    holes = people().with_columns(pl.when(pl.col("id") % 3 != 0).then(pl.col("age", "income", "job", "since")))
    frame = apply({"noise": 0.5}, holes).frame
    for name in ("age", "income", "job", "since"):
        assert frame[name].is_null().equals(holes[name].is_null())


def test_copies_are_columns_of_their_own() -> None:
    done = apply({"duplicate_columns": 8})
    added = [name for name in done.frame.columns if name not in people().columns]
    assert len(added) == 8
    for name in FEATURES:
        assert done.frame[f"{name} again"].equals(people()[name].alias(f"{name} again"))
    assert "income again" in done.settings.sensitive
    assert done.settings.columns["age again"].name == "years again"
    plan = fit_text(done.frame, done.settings)
    assert {column.name for column in plan.columns} == {*FEATURES, *added}


def test_correlated_copies_are_alike_but_not_equal() -> None:
    done = apply({"correlated_columns": 7})
    again = done.frame["income again"].to_numpy()
    assert 0.97 < np.corrcoef(again, people()["income"].to_numpy())[0, 1] < 0.999
    assert done.frame.select(FEATURES).equals(people().select(FEATURES))


@given(st.integers(2, 60), st.lists(st.sampled_from("abc"), min_size=2, max_size=60))
def test_a_stratified_sample_keeps_shares_to_a_row(rows: int, labels: list[str]) -> None:
    frame = pl.DataFrame({"id": range(len(labels)), "kind": labels})
    sample = sampled(frame, rows, "kind")
    assert sample.height == min(rows, len(labels))
    assert sample["id"].is_sorted()
    for label in set(labels):
        expected = labels.count(label) * sample.height / len(labels)
        assert abs((sample["kind"] == label).sum() - expected) <= 1.5


def test_a_sample_is_seeded_and_the_same_for_more_rows_asked() -> None:
    frame = people()
    assert sampled(frame, 100, None).equals(sampled(frame, 100, None))
    assert not sampled(frame, 100, None).equals(sampled(frame, 100, None, seed=1))
    assert sampled(frame, None, None).height == sampled(frame, 10_000, "kind").height == N
    assert set(sampled(frame, 50, None)["id"]) <= set(sampled(frame, 100, None)["id"])
