"""Which versions a dataset has, and which outputs each of them is made of.

A run writes one new version. For each stage ``stage_outputs`` names the version whose rows and files it uses: its own,
or an earlier one whose inputs were the same, or, where a run materializes only some stages, the newest there is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.warehouse import first_row, now, one_row

# Stage -> the stages whose outputs it reads.
STAGES: dict[str, tuple[str, ...]] = {
    "source_table": (),
    "refresh_plan": ("source_table",),
    "text_corpus": ("source_table", "refresh_plan"),
    "adapter": ("text_corpus", "refresh_plan"),
    "embeddings": ("text_corpus", "adapter", "refresh_plan"),
    "segments": ("embeddings", "text_corpus", "source_table", "refresh_plan"),
    "segment_metrics": ("segments", "embeddings", "text_corpus", "source_table"),
    "segment_profile": ("segments", "embeddings", "text_corpus", "source_table"),
}

# What a stage leaves beside its own output: the version of the training whose segments these are.
FITTED_STATE = "fitted_state"
# Vectors of new and changed rows, made while it is decided whether the training still stands.
NEW_VECTORS = "new_vectors"
_COMPANIONS = {"segments": (FITTED_STATE,)}


@dataclass(frozen=True)
class StageOutput:
    """What a stage left: ``version`` is the one whose rows and files hold it."""

    stage: str
    version: int
    inputs_hash: str
    details: dict[str, Any]


def inputs_hash(*parts: Any) -> str:
    """A short, stable hash of everything that an output depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def version_of_run(con: duckdb.DuckDBPyConnection, dataset: str, run_id: str) -> int | None:
    """The version that a run writes, if it has begun one."""
    row = first_row(
        con.execute("SELECT max(version) FROM versions WHERE dataset = ? AND run_id = ?", [dataset, run_id])
    )
    return int(row[0]) if row and row[0] is not None else None


def begin_version(con: duckdb.DuckDBPyConnection, dataset: str, run_id: str) -> int:
    """The version that a run writes: a new one at its first call, the same one at every later call."""
    version = version_of_run(con, dataset, run_id)
    if version is None:
        (last,) = one_row(con.execute("SELECT coalesce(max(version), 0) FROM versions WHERE dataset = ?", [dataset]))
        version = int(last) + 1
        con.execute("INSERT INTO versions VALUES (?, ?, ?, ?)", [dataset, version, run_id, now(con)])
    return version


def record_stage(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str, *, inputs_hash: str, details: dict[str, Any]
) -> StageOutput:
    """Write down that ``version`` holds this stage's output itself."""
    return link_stage(con, dataset, version, StageOutput(stage, version, inputs_hash, details))


def link_stage(con: duckdb.DuckDBPyConnection, dataset: str, version: int, output: StageOutput) -> StageOutput:
    """Write down that ``version`` uses an output, its own or an earlier one's."""
    con.execute(
        "INSERT OR REPLACE INTO stage_outputs VALUES (?, ?, ?, ?, ?, ?, ?)",
        [dataset, version, output.stage, output.version, output.inputs_hash, json.dumps(output.details), now(con)],
    )
    return output


def drop_stage(con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str) -> None:
    """Forget that ``version`` has an output of ``stage``; its rows are the caller's."""
    con.execute("DELETE FROM stage_outputs WHERE dataset = ? AND version = ? AND stage = ?", [dataset, version, stage])


def stage_output(con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str) -> StageOutput | None:
    """The output of ``stage`` that ``version`` uses, or None."""
    row = first_row(
        con.execute(
            "SELECT output_version, inputs_hash, details FROM stage_outputs"
            " WHERE dataset = ? AND version = ? AND stage = ?",
            [dataset, version, stage],
        )
    )
    return StageOutput(stage, int(row[0]), row[1], json.loads(row[2])) if row else None


def newest_version_with(con: duckdb.DuckDBPyConnection, dataset: str, *stages: str) -> int | None:
    """The newest version that has an output of every one of ``stages``."""
    row = first_row(
        con.execute(
            "SELECT max(version) FROM (SELECT version FROM stage_outputs WHERE dataset = ?"
            " AND list_contains(?, stage) GROUP BY version HAVING count(DISTINCT stage) = ?)",
            [dataset, list(stages), len(stages)],
        )
    )
    return int(row[0]) if row and row[0] is not None else None


def upstream(con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str) -> StageOutput:
    """The output of ``stage`` for a run that writes ``version``: its own, else the newest there is.

    What is taken from an earlier version comes with everything that it was made from, unless this version has its own.
    """
    if own := stage_output(con, dataset, version, stage):
        return own
    donor = newest_version_with(con, dataset, stage)
    if donor is None:
        raise ErasmoError(
            f"Got no {stage} of dataset {dataset!r}",
            expected="it to be materialized first",
            fix=f"materialize {stage} in the UI, or run `erasmo run {dataset}`",
        )
    for name in (stage, *_COMPANIONS.get(stage, ()), *_ancestors(stage)):
        found = stage_output(con, dataset, donor, name)
        if found and stage_output(con, dataset, version, name) is None:
            link_stage(con, dataset, version, found)
    output = stage_output(con, dataset, version, stage)
    assert output is not None
    return output


def _ancestors(stage: str) -> list[str]:
    direct = STAGES[stage]
    companions = (c for d in direct for c in _COMPANIONS.get(d, ()))
    return list(dict.fromkeys([*direct, *companions, *(a for d in direct for a in _ancestors(d))]))


def find_reusable(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str, inputs_hash: str
) -> StageOutput | None:
    """The newest output, this version's or an earlier one's, made from the same inputs; None where there is none."""
    row = first_row(
        con.execute(
            "SELECT max(version) FROM stage_outputs"
            " WHERE dataset = ? AND stage = ? AND inputs_hash = ? AND version <= ?",
            [dataset, stage, inputs_hash, version],
        )
    )
    return stage_output(con, dataset, int(row[0]), stage) if row and row[0] is not None else None


def encoded_by(con: duckdb.DuckDBPyConnection, dataset: str, version: int, encoder: str) -> dict[int, list[int]]:
    """Where vectors of one encoder are: dimensions -> the versions that hold them, ``version`` itself included."""
    rows = con.execute(
        "SELECT DISTINCT (details->>'width')::INTEGER, output_version FROM stage_outputs"
        " WHERE dataset = ? AND stage IN ('embeddings', ?) AND details->>'encoder' = ? AND output_version <= ?"
        " ORDER BY 1, 2",
        [dataset, NEW_VECTORS, encoder, version],
    ).fetchall()
    found: dict[int, list[int]] = {}
    for width, holder in rows:
        found.setdefault(int(width), []).append(int(holder))
    return found


def trained_with(con: duckdb.DuckDBPyConnection, dataset: str, training: int, version: int) -> list[int]:
    """The versions whose segments are those of the training of version ``training``, and ``version``, ascending."""
    rows = con.execute(
        "SELECT DISTINCT version FROM stage_outputs WHERE dataset = ? AND stage = ? AND output_version = ?",
        [dataset, FITTED_STATE, training],
    ).fetchall()
    return sorted({version, *(int(held) for (held,) in rows)})


def published_versions(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Dataset -> the version that analysts see; a retired dataset has none."""
    return dict(
        con.execute(
            "SELECT dataset, version FROM published_versions WHERE retired_at IS NULL ORDER BY dataset"
        ).fetchall()
    )


@dataclass(frozen=True)
class Publication:
    """What is published of a dataset, or was when it was retired; ``seen_version`` has the newest source known."""

    version: int
    seen_version: int
    published_at: datetime
    retired: bool


def publications(con: duckdb.DuckDBPyConnection) -> dict[str, Publication]:
    """Dataset -> what was last published of it, retired ones included."""
    rows = con.execute(
        "SELECT dataset, version, coalesce(seen_version, version), published_at, retired_at IS NOT NULL"
        " FROM published_versions ORDER BY dataset"
    ).fetchall()
    return {name: Publication(*row) for name, *row in rows}


def superseded_versions(con: duckdb.DuckDBPyConnection, dataset: str, keep: int) -> list[int]:
    """Versions beyond the newest ``keep`` that are neither published nor hold an output that a kept one uses."""
    versions = [
        v
        for (v,) in con.execute(
            "SELECT version FROM versions WHERE dataset = ? ORDER BY version DESC", [dataset]
        ).fetchall()
    ]
    kept = set(versions[:keep])
    if (published := publications(con).get(dataset)) is not None:
        kept |= {published.version, published.seen_version}
    used = con.execute(
        "SELECT DISTINCT version, output_version FROM stage_outputs WHERE dataset = ?", [dataset]
    ).fetchall()
    kept |= {output for version, output in used if version in kept}
    return [v for v in versions if v not in kept]
