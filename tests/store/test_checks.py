"""What a version showed at the gate is kept, and says which sources are not tried again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from erasmo_dagster.store.checks import (
    CheckResult,
    blocked_versions,
    failed_gate,
    gate_results,
    read_checks,
    write_check,
)
from erasmo_dagster.store.versions import StageOutput, begin_version, link_stage, record_stage
from erasmo_dagster.store.warehouse import delete_version, open_warehouse


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "w.duckdb") as con:
        yield con


def result(name: str = "floors_hold", *, passed: bool = False, blocking: bool = True, **figures: Any) -> CheckResult:
    return CheckResult(name, passed, blocking, f"{name} says so", figures)


def versions(con: duckdb.DuckDBPyConnection, dataset: str, count: int) -> None:
    for number in range(count):
        begin_version(con, dataset, f"run {number}")


def published(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, seen: int | None, *, retired: bool = False
) -> None:
    con.execute(
        "INSERT OR REPLACE INTO published_versions VALUES (?, ?, now()::TIMESTAMP, ?, ?)",
        [dataset, version, seen, "2026-01-01" if retired else None],
    )


def test_results_come_back_by_name_and_a_later_one_replaces_the_earlier(con: duckdb.DuckDBPyConnection) -> None:
    write_check(con, "a", 1, result("z", passed=True, share=0.25, names=["ü"], none=None))
    write_check(con, "a", 1, result("b"))
    write_check(con, "a", 2, result("other version"))
    write_check(con, "b", 1, result("other dataset"))
    assert read_checks(con, "a", 1) == [result("b"), result("z", passed=True, share=0.25, names=["ü"], none=None)]
    write_check(con, "a", 1, result("b", passed=True, n=1))
    assert read_checks(con, "a", 1)[0] == result("b", passed=True, n=1)
    assert read_checks(con, "c", 1) == []


def test_only_a_blocking_check_that_failed_fails_the_gate(con: duckdb.DuckDBPyConnection) -> None:
    for name, passed, blocking in (("a", True, True), ("b", False, False), ("c", True, False)):
        write_check(con, "a", 1, result(name, passed=passed, blocking=blocking))
    assert failed_gate(con, "a", 1) == []
    write_check(con, "a", 1, result("e"))
    write_check(con, "a", 1, result("d"))
    assert failed_gate(con, "a", 1) == [result("d"), result("e")]
    assert failed_gate(con, "a", 2) == []


def test_the_check_of_a_training_that_an_earlier_version_made_is_that_versions(
    con: duckdb.DuckDBPyConnection,
) -> None:
    loss = "eval_loss_is_finite"
    for version in (1, 2):
        record_stage(con, "a", version, "adapter", inputs_hash="h", details={})
        write_check(con, "a", version, result(loss, passed=True, version=version))
        write_check(con, "a", version, result())
    for version in (3, 4):
        link_stage(con, "a", version, StageOutput("adapter", 1, "h", {}))
    write_check(con, "a", 3, result("b", passed=True))
    assert gate_results(con, "a", 3) == {
        "b": result("b", passed=True),
        loss: result(loss, passed=True, version=1),
    }
    write_check(con, "a", 4, result(loss, version=4))
    assert gate_results(con, "a", 4) == {loss: result(loss, version=4)}
    assert gate_results(con, "a", 2)[loss] == result(loss, passed=True, version=2)
    assert gate_results(con, "b", 3) == {}


def test_the_results_of_a_version_go_with_it(con: duckdb.DuckDBPyConnection) -> None:
    versions(con, "a", 2)
    for version in (1, 2):
        write_check(con, "a", version, result())
    delete_version(con, "a", 1)
    assert read_checks(con, "a", 1) == []
    assert len(read_checks(con, "a", 2)) == 1


def test_the_newest_version_is_blocked_where_it_failed_at_the_gate(con: duckdb.DuckDBPyConnection) -> None:
    versions(con, "a", 2)
    versions(con, "b", 1)
    versions(con, "c", 1)
    for dataset, version in (("a", 2), ("b", 1)):
        write_check(con, dataset, version, result())
        write_check(con, dataset, version, result("passed", passed=True))
    write_check(con, "c", 1, result(blocking=False))
    published(con, "a", 1, 1)
    assert blocked_versions(con) == {"a": 2, "b": 1}


def test_a_version_that_failed_before_a_newer_one_blocks_nothing(con: duckdb.DuckDBPyConnection) -> None:
    versions(con, "a", 2)
    write_check(con, "a", 1, result())
    assert blocked_versions(con) == {}
    write_check(con, "a", 2, result())
    assert blocked_versions(con) == {"a": 2}


@pytest.mark.parametrize(("version", "seen"), [(2, 2), (2, None), (1, 2)])
def test_what_is_published_or_has_been_seen_is_not_blocked(
    con: duckdb.DuckDBPyConnection, version: int, seen: int | None
) -> None:
    versions(con, "a", 2)
    write_check(con, "a", 2, result())  # checked again after its publish, or rolled back from
    published(con, "a", version, seen)
    assert blocked_versions(con) == {}
    begin_version(con, "a", "later")
    write_check(con, "a", 3, result())
    assert blocked_versions(con) == {"a": 3}


def test_a_retired_dataset_can_be_blocked(con: duckdb.DuckDBPyConnection) -> None:
    versions(con, "a", 2)
    published(con, "a", 1, 1, retired=True)
    write_check(con, "a", 2, result())
    assert blocked_versions(con) == {"a": 2}


def test_a_check_that_was_run_again_and_passed_blocks_no_longer(con: duckdb.DuckDBPyConnection) -> None:
    versions(con, "a", 1)
    write_check(con, "a", 1, result())
    write_check(con, "a", 1, result(passed=True))
    assert blocked_versions(con) == {}
