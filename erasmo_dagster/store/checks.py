"""What a version showed at the gate: results of the checks between a run and the published file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import duckdb

from erasmo_dagster.store.versions import stage_output
from erasmo_dagster.store.warehouse import now

# Every one of these must have passed before a version is published.
GATE = (
    "eval_loss_is_finite",
    "every_row_has_one_segment",
    "segments_are_large_enough",
    "floors_hold",
    "no_worse_than_published",
)


# Checks of what a stage made, whichever version uses it.
_OF_ITS_MAKER = {"eval_loss_is_finite": "adapter"}


@dataclass(frozen=True)
class CheckResult:
    """One check of one version: ``figures`` are what it measured, ``message`` says it in a sentence."""

    name: str
    passed: bool
    blocking: bool
    message: str
    figures: dict[str, Any]


def write_check(con: duckdb.DuckDBPyConnection, dataset: str, version: int, result: CheckResult) -> None:
    """Write a check's result down, in the place of an earlier one of the same version."""
    con.execute(
        "INSERT OR REPLACE INTO check_results VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            dataset,
            version,
            result.name,
            result.passed,
            result.blocking,
            result.message,
            json.dumps(result.figures),
            now(con),
        ],
    )


def read_checks(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> list[CheckResult]:
    """The results of a version's checks, by name."""
    rows = con.execute(
        "SELECT check_name, passed, blocking, message, figures FROM check_results"
        " WHERE dataset = ? AND version = ? ORDER BY check_name",
        [dataset, version],
    ).fetchall()
    return [
        CheckResult(name, passed, blocking, message, json.loads(figures))
        for name, passed, blocking, message, figures in rows
    ]


def gate_results(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> dict[str, CheckResult]:
    """The results of a version's checks by name; that of a training which an earlier version made is that version's."""
    results = {result.name: result for result in read_checks(con, dataset, version)}
    for name, stage in _OF_ITS_MAKER.items():
        output = stage_output(con, dataset, version, stage)
        if name not in results and output is not None and output.version != version:
            results |= {r.name: r for r in read_checks(con, dataset, output.version) if r.name == name}
    return results


def failed_gate(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> list[CheckResult]:
    """The blocking checks that a version has failed."""
    return [result for result in read_checks(con, dataset, version) if result.blocking and not result.passed]


def blocked_versions(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Dataset -> its newest version, where that one is newer than what is published and failed at the gate."""
    rows = con.execute(
        "SELECT v.dataset, v.version FROM"
        " (SELECT dataset, max(version) AS version FROM versions GROUP BY dataset) v"
        " LEFT JOIN published_versions p ON p.dataset = v.dataset"
        " WHERE (p.version IS NULL OR v.version > greatest(p.version, coalesce(p.seen_version, 0)))"
        " AND EXISTS (FROM check_results c WHERE c.dataset = v.dataset AND c.version = v.version"
        " AND c.blocking AND NOT c.passed) ORDER BY v.dataset"
    ).fetchall()
    return dict(rows)
