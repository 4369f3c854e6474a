"""Versions and the outputs that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
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
    con.execute("insert into published_versions values ('a', 3, now()::timestamp, 3, null)")
    assert v.superseded_versions(con, "a", keep=2) == [4, 1]
    con.execute("update published_versions set seen_version = 4, retired_at = now()::timestamp")
    assert v.superseded_versions(con, "a", keep=2) == [1]
    assert v.superseded_versions(con, "b", keep=0) == []


def test_a_retired_dataset_is_no_longer_published_but_known(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "insert into published_versions values ('a', 3, '2026-01-02', 4, null), ('b', 2, '2026-01-02', null, null),"
        " ('c', 1, '2026-01-02', 1, '2026-01-03')"
    )
    moment = datetime(2026, 1, 2)
    assert v.published_versions(con) == {"a": 3, "b": 2}
    assert v.publications(con) == {
        "a": v.Publication(3, 4, moment, retired=False),
        "b": v.Publication(2, 2, moment, retired=False),
        "c": v.Publication(1, 1, moment, retired=True),
    }


def test_segments_that_are_adopted_bring_the_training_that_they_are_of(con: duckdb.DuckDBPyConnection) -> None:
    record(con, 1, *v.STAGES, v.FITTED_STATE)
    v.upstream(con, "a", 2, "segments")
    linked = v.stage_output(con, "a", 2, v.FITTED_STATE)
    assert linked is not None
    assert linked.version == 1
    v.upstream(con, "a", 3, "embeddings")
    assert v.stage_output(con, "a", 3, v.FITTED_STATE) is None


def test_a_stage_that_is_dropped_is_gone_from_its_version_alone(con: duckdb.DuckDBPyConnection) -> None:
    record(con, 1, "adapter", "embeddings")
    record(con, 2, "adapter")
    v.drop_stage(con, "a", 1, "adapter")
    assert v.stage_output(con, "a", 1, "adapter") is None
    assert v.stage_output(con, "a", 1, "embeddings") is not None
    assert v.stage_output(con, "a", 2, "adapter") is not None


def test_vectors_of_an_encoder_are_told_by_dimension_and_version(con: duckdb.DuckDBPyConnection) -> None:
    def put(version: int, stage: str, encoder: str, dataset: str = "a", width: int = 8) -> None:
        v.record_stage(con, dataset, version, stage, inputs_hash="h", details={"encoder": encoder, "width": width})

    put(1, "embeddings", "e")
    put(2, "embeddings", "e")
    put(2, v.NEW_VECTORS, "e")
    put(3, v.NEW_VECTORS, "e")
    put(4, "embeddings", "e", width=16)
    put(3, "embeddings", "other")
    put(3, "embeddings", "e", dataset="b")
    assert v.encoded_by(con, "a", 3, "e") == {8: [1, 2, 3]}
    assert v.encoded_by(con, "a", 5, "e") == {8: [1, 2, 3], 16: [4]}
    assert v.encoded_by(con, "a", 5, "unknown") == {}


def test_hashes_tell_settings_apart(con: duckdb.DuckDBPyConnection) -> None:
    assert v.inputs_hash({"a": 1, "b": 2}) == v.inputs_hash({"b": 2, "a": 1})
    assert v.inputs_hash({"a": 1}) != v.inputs_hash({"a": 2})
