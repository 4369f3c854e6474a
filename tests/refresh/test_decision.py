"""Refresh or retrain: every ground, every threshold to the row, every policy."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasmo_dagster.refresh.decision import (
    Decision,
    Drift,
    Grounds,
    Mode,
    RefreshPlan,
    RowChanges,
    decide_by_drift,
    decide_by_grounds,
    decide_by_rows,
)
from erasmo_dagster.settings import RefreshSettings

Policy = Literal["always", "drift", "never"]
POLICIES: tuple[Policy, ...] = ("always", "drift", "never")
REFRESH = Decision(mode="refresh", reasons=())
RETRAIN = Decision(mode="retrain", reasons=("said before",))


def policy(retrain: Policy = "drift", **options: Any) -> RefreshSettings:
    return RefreshSettings.model_validate({"retrain": retrain, **options})


def changes(rows: int = 10, *, new: int = 0, changed: int = 0, gone: int = 0, since_training: int = 0) -> RowChanges:
    return RowChanges(rows=rows, new=new, changed=changed, gone=gone, since_training=since_training)


def drift(psi: float = 0.0, new_rows: int = 0, beyond: float = 0.0) -> Drift:
    return Drift(psi=psi, new_rows=new_rows, beyond=beyond)


# --- what is known at once -----------------------------------------------------------------------


@pytest.mark.parametrize("retrain", POLICIES)
@pytest.mark.parametrize("forced", [False, True])
def test_where_nothing_stands_there_is_a_training_whatever_the_policy(retrain: Policy, forced: bool) -> None:
    grounds = Grounds(stands=False, why_not="nothing yet", forced=forced, source_changed=False, settings=("text",))
    assert decide_by_grounds(grounds, policy(retrain)) == Decision(mode="retrain", reasons=("nothing yet",))


@pytest.mark.parametrize("retrain", POLICIES)
def test_a_retraining_that_is_asked_for_needs_no_other_reason(retrain: Policy) -> None:
    grounds = Grounds(stands=True, forced=True, source_changed=False)
    assert decide_by_grounds(grounds, policy(retrain)) == Decision(mode="retrain", reasons=("asked for by --retrain",))


@pytest.mark.parametrize("source_changed", [False, True])
@pytest.mark.parametrize(
    ("differing", "reasons"),
    [
        ({"settings": ("adapter", "text")}, ("settings of adapter changed", "settings of text changed")),
        ({"schema": ("column added: a (DATE)",)}, ("column added: a (DATE)",)),
        (
            {"settings": ("text",), "schema": ("column dropped: b (DATE)",)},
            ("settings of text changed", "column dropped: b (DATE)"),
        ),
    ],
)
def test_other_settings_or_columns_retrain_unless_the_policy_is_never(
    differing: dict[str, tuple[str, ...]], reasons: tuple[str, ...], source_changed: bool
) -> None:
    grounds = Grounds(stands=True, source_changed=source_changed, **differing)  # type: ignore[arg-type]
    for retrain in ("always", "drift"):
        assert decide_by_grounds(grounds, policy(retrain)) == Decision(mode="retrain", reasons=reasons)
    overruled = [f"{reason}, but refresh.retrain is never" for reason in reasons]
    unchanged = [] if source_changed else ["the source is as it was"]
    assert decide_by_grounds(grounds, policy("never")) == Decision(mode="refresh", reasons=(*unchanged, *overruled))


def test_always_retrains_only_a_source_that_changed() -> None:
    changed, unchanged = (Grounds(stands=True, source_changed=value) for value in (True, False))
    assert decide_by_grounds(changed, policy("always")) == Decision(
        mode="retrain", reasons=("the source changed, and refresh.retrain is always",)
    )
    for retrain in POLICIES:
        assert decide_by_grounds(unchanged, policy(retrain)) == Decision(
            mode="refresh", reasons=("the source is as it was",)
        )


@pytest.mark.parametrize("retrain", ["drift", "never"])
def test_a_changed_source_alone_is_a_refresh_so_far(retrain: Policy) -> None:
    assert decide_by_grounds(Grounds(stands=True), policy(retrain)) == REFRESH


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "least"), [(5, 1), (10, 2), (15, 3), (35, 7), (1000, 200), (999_995, 199_999)])
def test_a_share_of_exactly_the_threshold_retrains_and_one_row_less_does_not(rows: int, least: int) -> None:
    at = decide_by_rows(REFRESH, changes(rows, since_training=least), policy())
    assert at == Decision(
        mode="retrain",
        reasons=("20.0% of rows are new or changed since the last training (refresh.changed_share 20.0%)",),
    )
    assert decide_by_rows(REFRESH, changes(rows, since_training=least - 1), policy()).mode == "refresh"


def test_all_rows_may_be_asked_for() -> None:
    assert decide_by_rows(REFRESH, changes(3, since_training=2), policy(changed_share=1)).mode == "refresh"
    assert decide_by_rows(REFRESH, changes(3, since_training=3), policy(changed_share=1)).mode == "retrain"


def test_what_counts_is_the_change_since_the_training_and_not_the_last_one() -> None:
    assert decide_by_rows(REFRESH, changes(new=9, changed=1, gone=9, since_training=1), policy()).mode == "refresh"
    assert decide_by_rows(REFRESH, changes(new=1, since_training=9), policy()).mode == "retrain"


def test_never_keeps_the_training_and_says_how_much_changed() -> None:
    before = Decision(mode="refresh", reasons=("first",))
    got = decide_by_rows(before, changes(10, new=6, since_training=6), policy("never"))
    assert got == Decision(
        mode="refresh",
        reasons=(
            "first",
            "6 new rows",
            "60.0% of rows are new or changed since the last training (refresh.changed_share 20.0%)",
        ),
    )


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({}, "no row reads otherwise"),
        ({"new": 2}, "2 new rows"),
        ({"gone": 12345}, "12,345 gone rows"),
        ({"new": 2, "changed": 3}, "2 new and 3 changed rows"),
        ({"changed": 3, "gone": 4}, "3 changed and 4 gone rows"),
        ({"new": 2, "changed": 3, "gone": 4}, "2 new, 3 changed and 4 gone rows"),
    ],
)
def test_row_changes_are_told_in_a_sentence(counts: dict[str, int], sentence: str) -> None:
    assert changes(99_999, **counts).sentence == sentence


# --- drift ---------------------------------------------------------------------------------------

STABLE = "population stability index of the segment sizes 0.200 (refresh.psi 0.2)"
UNSTABLE = "population stability index of the segment sizes 0.201 (refresh.psi 0.2)"


def beyond_told(share: str, rows: int) -> str:
    return f"{share} of {rows} new rows lie beyond their segment (refresh.beyond_share 5.0%, from 50 rows on)"


def test_a_stability_index_of_exactly_the_threshold_stands() -> None:
    got = decide_by_drift(REFRESH, drift(psi=0.2), policy())
    assert got == Decision(mode="refresh", reasons=(STABLE,))  # of no new rows there is nothing to say


def test_a_stability_index_above_the_threshold_retrains() -> None:
    assert decide_by_drift(REFRESH, drift(psi=0.201), policy()) == Decision(mode="retrain", reasons=(UNSTABLE,))
    assert decide_by_drift(REFRESH, drift(psi=float("inf")), policy()).mode == "retrain"


@pytest.mark.parametrize(
    ("new_rows", "beyond", "mode"),
    [(49, 1.0, "refresh"), (50, 0.06, "retrain"), (50, 0.05, "refresh"), (51, 0.0501, "retrain"), (0, 0.0, "refresh")],
)
def test_rows_beyond_count_from_a_number_of_rows_on(new_rows: int, beyond: float, mode: Mode) -> None:
    assert decide_by_drift(REFRESH, drift(new_rows=new_rows, beyond=beyond), policy()).mode == mode


def test_only_what_passed_its_threshold_is_a_reason_to_retrain() -> None:
    before = Decision(mode="refresh", reasons=("first",))
    beyond = decide_by_drift(before, drift(0.2, 60, 0.1), policy())
    assert beyond == Decision(mode="retrain", reasons=(beyond_told("10.0%", 60),))
    both = decide_by_drift(before, drift(0.201, 60, 0.1), policy())
    assert both.reasons == (UNSTABLE, beyond_told("10.0%", 60))


def test_never_keeps_the_training_and_says_how_far_it_has_drifted() -> None:
    before = Decision(mode="refresh", reasons=("first",))
    assert decide_by_drift(before, drift(0.201, 60, 0.1), policy("never")) == Decision(
        mode="refresh", reasons=("first", UNSTABLE, beyond_told("10.0%", 60))
    )


def test_the_thresholds_are_those_of_the_settings() -> None:
    strict = policy(psi=0.01, beyond_rows=1, beyond_share=0.5)
    assert decide_by_drift(REFRESH, drift(psi=0.011), strict).mode == "retrain"
    assert decide_by_drift(REFRESH, drift(new_rows=1, beyond=0.51), strict).mode == "retrain"
    assert decide_by_drift(REFRESH, drift(psi=0.01, new_rows=1, beyond=0.5), strict).mode == "refresh"


def test_once_it_is_a_retraining_nothing_is_added() -> None:
    for retrain in POLICIES:
        assert decide_by_rows(RETRAIN, changes(since_training=10), policy(retrain)) is RETRAIN
        assert decide_by_drift(RETRAIN, drift(psi=9), policy(retrain)) is RETRAIN


@given(
    st.integers(1, 10**9).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(0, rows))),
    st.floats(0, 10),
    st.integers(0, 10**6),
    st.floats(0, 1),
)
def test_never_never_retrains_what_stands(counts: tuple[int, int], psi: float, new_rows: int, beyond: float) -> None:
    rows, since_training = counts
    for settings, schema, source_changed in product([(), ("text",)], [(), ("column added: a (DATE)",)], [True, False]):
        grounds = Grounds(stands=True, settings=settings, schema=schema, source_changed=source_changed)
        never = policy("never")
        first = decide_by_grounds(grounds, never)
        second = decide_by_rows(first, changes(rows, since_training=since_training), never)
        last = decide_by_drift(second, drift(psi, new_rows, beyond), never)
        assert {first.mode, second.mode, last.mode} == {"refresh"}
        assert last.reasons[: len(second.reasons)] == second.reasons
        assert second.reasons[: len(first.reasons)] == first.reasons


# --- the plan ------------------------------------------------------------------------------------


def plan(decision: Decision) -> RefreshPlan:
    return RefreshPlan(
        decision=decision,
        forced=False,
        standing=4,
        fitted=2,
        settings={"text": "d"},
        changes=changes(new=1),
        drift=drift(0.1, 3, 0.5),
        embedded=3,
    )


def test_a_plan_says_what_happens_and_why() -> None:
    assert (
        plan(Decision(mode="refresh", reasons=("a", "b"))).sentence == "refreshed with the training of version 2: a; b"
    )
    assert plan(Decision(mode="retrain", reasons=("a",))).sentence == "retrained: a"


def test_a_plan_goes_through_json() -> None:
    made = plan(Decision(mode="refresh", reasons=("a", "b")))
    assert RefreshPlan.model_validate_json(made.model_dump_json()) == made
    assert RefreshPlan.model_validate(made.model_dump(mode="json")) == made
