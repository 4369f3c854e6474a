"""Versions and the outputs that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store import versions as v
from erasmo_dagster.store.warehouse import open_warehouse


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "w.duckdb") as con:
        yield con


def record(con: duckdb.DuckDBPyConnection, version: int, *stages: str, dataset: str = "a") -> None:
    for stage in stages:
        v.record_stage(con, dataset, version, stage, inputs_hash=f"{stage}-{version}", details={"n": version})


def test_a_run_has_one_version_and_datasets_count_apart(con: duckdb.DuckDBPyConnection) -> None:
    assert [v.begin_version(con, "a", run) for run in ("r1", "r1", "r2")] == [1, 1, 2]
    assert v.begin_version(con, "b", "r2") == 1
    assert v.version_of_run(con, "b", "r1") is None


def test_upstream_is_the_runs_own_before_the_newest(con: duckdb.DuckDBPyConnection) -> None:
    record(con, 1, "source_table", "text_corpus")
    record(con, 2, "source_table")
    assert v.upstream(con, "a", 2, "source_table").version == 2
    assert v.upstream(con, "a", 3, "text_corpus").version == 1


def test_an_adopted_output_brings_what_it_was_made_from(con: duckdb.DuckDBPyConnection) -> None:
    record(con, 1, "source_table", "text_corpus", "adapter", "embeddings")
    record(con, 2, "source_table")  # a later run that failed after reading the source
    v.upstream(con, "a", 3, "embeddings")
    used = {
        stage: v.stage_output(con, "a", 3, stage) for stage in ("source_table", "text_corpus", "adapter", "embeddings")
    }
    assert {stage: output and output.version for stage, output in used.items()} == dict.fromkeys(used, 1)


def test_a_missing_upstream_says_what_to_do(con: duckdb.DuckDBPyConnection) -> None:
    record(con, 1, "source_table", dataset="b")
    with pytest.raises(ErasmoError, match="erasmo run a"):
        v.upstream(con, "a", 1, "source_table")


def test_reuse_needs_equal_inputs_of_the_same_dataset(con: duckdb.DuckDBPyConnection) -> None:
    record(con, 1, "adapter")
    found = v.find_reusable(con, "a", 2, "adapter", "adapter-1")
    assert found is not None
    assert (found.version, found.details) == (1, {"n": 1})
    assert v.find_reusable(con, "a", 2, "adapter", "other") is None
    assert v.find_reusable(con, "b", 2, "adapter", "adapter-1") is None


def test_old_versions_go_but_not_what_is_published_or_used(con: duckdb.DuckDBPyConnection) -> None:
    for number in range(1, 7):
        v.begin_version(con, "a", f"r{number}")
    record(con, 2, "adapter")
    v.link_stage(con, "a", 6, v.find_reusable(con, "a", 6, "adapter", "adapter-2"))  # type: ignore[arg-type]
    con.execute("insert into published_versions values ('a', 3, now())")
    assert v.superseded_versions(con, "a", keep=2) == [4, 1]


def test_hashes_tell_settings_apart(con: duckdb.DuckDBPyConnection) -> None:
    assert v.inputs_hash({"a": 1, "b": 2}) == v.inputs_hash({"b": 2, "a": 1})
    assert v.inputs_hash({"a": 1}) != v.inputs_hash({"a": 2})
