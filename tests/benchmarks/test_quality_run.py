from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.methods import Fit, Fitted, Method, Place
from benchmarks.quality.results import Kept, Row, kept_beside
from benchmarks.quality.run import Plan, run_suite
from benchmarks.quality.suite import BadEntry, Entry, Sample
from erasmo_dagster.errors import ErasmoError
from tests.benchmarks.planted import planted


class Counting:
    """A method that finds the planted groups, and notes what it was given."""

    def __init__(
        self, name: str = "counting", *, slow: bool = False, version: int = 1, most: int | None = None
    ) -> None:
        self.calls: list[tuple[int, int]] = []
        self.columns: set[str] = set()
        self.method = Method(
            name,
            self._open,
            lambda _: {"version": version},
            slow=slow,
            rows=None if most is None else lambda _: most,
        )

    def _open(self, sample: Sample, place: Place) -> Fit:
        self.columns |= {*sample.frame.columns, *(column.name for column in sample.plan.columns)}

        def fit(rows: np.ndarray, seed: int) -> Fitted:
            self.calls.append((len(rows), seed))
            return Fitted(
                (sample.frame["age"].to_numpy()[rows] // 25).astype(np.int64), kept_seconds=100.0, kept_mb=1e6
            )

        return fit


def failing(error: Exception | None = None, labels: np.ndarray | None = None) -> Method:
    def fit(rows: np.ndarray, seed: int) -> Fitted:
        if error is not None:
            raise error
        assert labels is not None
        return Fitted(labels)

    return Method("failing", lambda sample, place: fit, lambda _: {})


ENTRY = Entry(name="planted", file="planted.parquet", label="kind", drop=("leak",))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    planted().write_parquet(tmp_path / "planted.parquet")
    return Plan(tmp_path, (), Place(tmp_path / "models", tmp_path / "cache"), stability="none")


def run(
    plan: Plan, *methods: Method, kept: Kept | None = None, entries: Sequence[Entry | BadEntry] = (ENTRY,)
) -> list[Row]:
    kept = kept or Kept(plan.data / "partial.jsonl")
    return list(run_suite(entries, replace(plan, methods=methods), kept))


def test_a_method_sees_the_features_alone_and_is_judged_by_the_label(plan: Plan) -> None:
    counting = Counting()
    (row,) = run(plan, counting.method)
    assert counting.columns == {"age", "balance", "job", "city", "member"}
    assert (row.dataset, row.method, row.seed, row.k, row.n, row.error) == ("planted", "counting", 0, 3, 90, None)
    assert (row.ari, row.nmi, row.acc, row.stability) == (1.0, 1.0, 1.0, None)
    assert row.seconds is not None
    assert 100 <= row.seconds < 101  # what was kept from before counts
    assert row.peak_mb == 1e6


def test_every_seed_draws_its_rows_and_is_the_algorithms(plan: Plan) -> None:
    counting = Counting()
    rows = run(replace(plan, rows=30, seeds=3), counting.method)
    assert [(row.seed, row.n) for row in rows] == [(0, 30), (1, 30), (2, 30)]
    assert counting.calls == [(30, 0), (30, 1), (30, 2)]


def test_equal_samples_share_the_fits_of_the_stability(plan: Plan) -> None:
    counting = Counting()
    rows = run(replace(plan, seeds=3, stability="quick"), counting.method)
    assert [row.stability for row in rows] == [1.0] * 3
    assert [row.seeds for row in rows] == [1.0] * 3
    whole = [seed for size, seed in counting.calls if size == 90]
    assert sorted(whole) == [0, 0, 1, 2, 3, 4]  # seed 0 with the columns in another order as well
    assert sorted(seed for size, seed in counting.calls if size == 72) == [0, 0, 1, 1, 2, 2]


def test_what_is_done_is_not_done_again(plan: Plan, tmp_path: Path) -> None:
    first, second, other = Counting(), Counting(), Counting(version=2)
    kept = kept_beside(tmp_path / "out.json")
    rows = run(plan, first.method, kept=kept)
    with kept.file.open("a") as file:
        file.write('{"digest": "of a run that was killed wh')
    again = kept_beside(tmp_path / "out.json")
    assert run(plan, second.method, kept=again) == rows
    assert second.calls == []
    assert run(plan, other.method, kept=again)[0].ari == 1.0
    assert len(other.calls) == 1  # another version of the method
    rest = Counting()
    assert [row.seed for row in run(replace(plan, seeds=2), rest.method, kept=kept_beside(tmp_path / "out.json"))] == [
        0,
        1,
    ]
    assert rest.calls == [(90, 1)]  # after half a line, what is added is read again


def test_the_first_seed_is_fitted_with_its_columns_from_last_to_first(plan: Plan) -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def ready(sample: Sample, place: Place) -> Fit:
        asked.append((sample.frame.columns, [column.name for column in sample.plan.columns]))
        first = sample.frame.columns[0] == "age"

        def fit(rows: np.ndarray, seed: int) -> Fitted:
            groups = (sample.frame["age"].to_numpy()[rows] // 25).astype(np.int64)
            return Fitted(groups if first else np.where(rows < 9, 0, (groups + 1) % 3))

        return fit

    method = Method("first", ready, lambda _: {})
    rows = run(replace(plan, seeds=2, stability="quick"), method)
    assert [row.order for row in rows] == [pytest.approx(84 / 90), None]
    (table, read), (other, reread) = asked[:2]
    assert (other, reread) == (table[::-1], read[::-1])
    asked.clear()
    run(replace(plan, stability="quick"), replace(method, name="own order", canonical=True))
    assert asked[1] == (table[::-1], read)
    asked.clear()
    (alone,) = run(replace(plan, stability="quick"), replace(method, name="alone", refits=False))
    assert (alone.order, alone.stability, alone.seeds) == (None, None, None)
    assert len(asked) == 1


def test_a_method_may_have_fewer_seeds_than_asked_for(plan: Plan) -> None:
    few, slow = Counting("few"), Counting("slow", slow=True)
    rows = run(
        replace(plan, seeds=3, slow_seeds=2), replace(few.method, seeds=2), replace(slow.method, seeds=1), few.method
    )
    assert [(row.method, row.seed) for row in rows] == [
        *(("few", 0), ("few", 1), ("slow", 0), ("few", 0), ("few", 1), ("few", 2)),
    ]


@pytest.mark.parametrize("change", ["rows", "label", "values", "stability"])
def test_rows_of_other_data_are_measured_anew(plan: Plan, change: str) -> None:
    kept = Kept(plan.data / "partial.jsonl")
    run(plan, Counting().method, kept=kept)
    counting, entry = Counting(), ENTRY
    if change == "rows":
        plan = replace(plan, rows=60)
    elif change == "stability":
        plan = replace(plan, stability="all")
    elif change == "label":
        entry = Entry(name="planted", file="planted.parquet", label="kind", drop=("leak",), label_rule="kind = 'A'")
    else:
        planted(seed=1).write_parquet(plan.data / "planted.parquet")
    run(plan, counting.method, kept=kept, entries=[entry])
    assert counting.calls


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (failing(ErasmoError("Got nothing", expected="something")), "Got nothing, expected something."),
        (failing(ValueError("a fault\n of theirs" + "x" * 900)), "ValueError: a fault of theirs"),
        (failing(MemoryError()), "MemoryError"),
        (failing(labels=np.zeros(3, np.int64)), "ValueError: got labels int64[3] for 90 rows"),
        (failing(labels=np.zeros(90)), "ValueError: got labels float64[90]"),
        (replace(failing(), needs=("no_such_library",)), "Got no no_such_library"),
    ],
)
def test_what_fails_is_a_row_and_the_rest_goes_on(plan: Plan, method: Method, told: str) -> None:
    kept = Kept(plan.data / "partial.jsonl")
    bad, good = run(plan, method, Counting().method, kept=kept)
    assert bad.error is not None
    assert bad.error.startswith(told)
    assert len(bad.error) <= 300
    assert (bad.ari, bad.seconds, bad.n) == (None, None, 90)
    assert good.ari == 1.0
    assert len(kept.file.read_text().splitlines()) == 1  # failures are tried again


def test_a_panic_inside_polars_is_a_row_too(plan: Plan) -> None:
    def fit(rows: np.ndarray, seed: int) -> Fitted:
        raise pl.exceptions.PanicException("index out of bounds")

    (row,) = run(plan, Method("panicking", lambda sample, place: fit, lambda _: {}))
    assert row.error == "PanicException: index out of bounds"


def test_a_table_that_fails_is_a_row_for_each_method_and_seed(plan: Plan) -> None:
    entries = [BadEntry("wrong", "`k`: too few"), Entry(name="gone", file="gone.parquet", label="y"), ENTRY]
    rows = run(replace(plan, seeds=2), Counting("one").method, Counting("two").method, entries=entries)
    assert [row.dataset for row in rows] == ["wrong"] * 4 + ["gone"] * 4 + ["planted"] * 4
    assert {row.error for row in rows[:4]} == {"`k`: too few."}
    assert all("gone.parquet" in (row.error or "") for row in rows[4:8])
    assert all(row.ari == 1.0 for row in rows[8:])


def test_slow_methods_have_their_own_seeds_and_tables_and_no_stability(plan: Plan) -> None:
    slow, quick = Counting("slow", slow=True, most=20), Counting("quick")
    other = ENTRY.model_copy(update={"name": "other"})
    plan = replace(plan, seeds=3, slow_datasets=frozenset({"other"}), stability="quick")
    rows = run(plan, slow.method, quick.method, entries=[ENTRY, other])
    assert [(row.dataset, row.seed, row.n, row.stability) for row in rows if row.method == "slow"] == [
        ("other", 0, 20, None)
    ]
    assert len([row for row in rows if row.method == "quick"]) == 6
    everything = run(replace(plan, stability="all"), slow.method, entries=[other])
    assert everything[0].stability == 1.0


def test_a_cap_on_rows_judges_those_that_were_fitted(plan: Plan) -> None:
    counting = Counting(most=20)
    rows = run(replace(plan, seeds=2), counting.method)
    assert [(row.n, row.ari) for row in rows] == [(20, 1.0)] * 2
    assert counting.calls == [(20, 0), (20, 1)]
