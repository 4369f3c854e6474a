"""Faults strike where rows are written, whichever function writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.faults import injection
from erasmo_dagster.store.corpus import corpus_of
from erasmo_dagster.store.vectors import write_embeddings, write_joined
from erasmo_dagster.store.versions import record_stage
from erasmo_dagster.store.warehouse import write_corpus, write_metrics, write_segments

ROWS = pl.DataFrame({"entity_key": ["1", "2"], "text_hash": ["a", "b"], "clauses": [["x is y"]] * 2})
SEGMENTS = pl.DataFrame(
    {
        "entity_key": ["1", "2"],
        "segment_id": 0,
        "confidence": 1.0,
        "assigned_at": pl.Series([None] * 2, dtype=pl.Datetime),
    }
)
METRICS = pl.DataFrame({"metric": ["silhouette"], "value": [0.5], "description": ["how"]})
VECTORS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("write", "strikes"),
    [
        (lambda con: write_corpus(con, "a", 2, ROWS), 1),
        (lambda con: write_joined(con, "a", 2, corpus_of("a", 1), 3, held=[1]), 1),
        (lambda con: write_embeddings(con, "a", 2, ROWS, VECTORS, kind="points"), 1),
        (lambda con: write_segments(con, "a", 2, SEGMENTS), 1),
        (lambda con: write_metrics(con, "a", 2, METRICS), 1),
        (lambda con: record_stage(con, "a", 2, "segments", inputs_hash="", details={}), 0),
    ],
)
def test_every_insert_of_a_versions_rows_is_struck(
    write: Callable[[Any], Any], strikes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped: list[Any] = []
    monkeypatch.setattr(injection, "_wrap", lambda _, wrapper: wrapped.append(wrapper))
    struck: list[str] = []
    injection._around_inserts(before=lambda: struck.append("before"), after=lambda: struck.append("after"))
    with injection.warehouse.open_warehouse(tmp_path / "warehouse.duckdb") as con:
        write_corpus(con, "a", 1, ROWS)
        write_embeddings(con, "a", 1, ROWS, VECTORS)
    with wrapped[0](tmp_path / "warehouse.duckdb") as con:
        write(con)
    assert struck == ["before", "after"] * strikes
