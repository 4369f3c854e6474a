"""Which rows of a corpus stand: what reads as before keeps its segment, whatever the order and the rows beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erasmo_dagster.store.corpus import corpus_file, corpus_in, corpus_of
from erasmo_dagster.store.standing import Matched, match_rows
from erasmo_dagster.store.versions import FITTED_STATE, link_stage, record_stage
from erasmo_dagster.store.warehouse import open_warehouse, write_corpus, write_memberships, write_segments

MOMENT = datetime(2026, 1, 2)
STANDING, RUN = 2, 3  # versions; the training is version 1

Row = tuple[str, str, int, float]  # key, text, segment, confidence


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb") as con:
        yield con


def corpus(con: duckdb.DuckDBPyConnection, version: int, texts: dict[str, str], dataset: str = "a") -> None:
    schema = {"entity_key": pl.String, "text_hash": pl.String, "clauses": pl.List(pl.String)}
    rows = {"entity_key": list(texts), "text_hash": list(texts.values()), "clauses": [["a is b"]] * len(texts)}
    write_corpus(con, dataset, version, pl.DataFrame(rows, schema=schema))


def stand(con: duckdb.DuckDBPyConnection, version: int, rows: Sequence[Row]) -> None:
    """A version's rows with their segments; what was trained with them, where it is version 1, else in version 1."""
    corpus(con, version, {key: text for key, text, _, _ in rows})
    schema = {"entity_key": pl.String, "segment_id": pl.Int32, "confidence": pl.Float32, "assigned_at": pl.Datetime}
    placed = pl.DataFrame([(key, *told, MOMENT) for key, _, *told in rows], schema=schema, orient="row")
    write_segments(con, "a", version, placed)
    for stage in ("text_corpus", "segments"):
        record_stage(con, "a", version, stage, inputs_hash="", details={})
    if version == 1:
        link_stage(con, "a", STANDING, record_stage(con, "a", 1, FITTED_STATE, inputs_hash="", details={}))


def match(
    con: duckdb.DuckDBPyConnection, texts: dict[str, str], before: Sequence[Row], trained: Sequence[Row] | None = None
) -> Matched:
    stand(con, 1, before if trained is None else trained)
    stand(con, STANDING, before)
    corpus(con, RUN, texts)
    return match_rows(con, "a", STANDING, corpus_of("a", RUN))


def test_a_row_that_reads_as_before_keeps_its_segment(con: duckdb.DuckDBPyConnection) -> None:
    got = match(con, {"2": "b", "1": "a"}, [("1", "a", 7, 0.25), ("2", "b", 2, 0.5)])
    assert got.segment_ids.tolist() == [7, 2]
    assert got.confidence.tolist() == [0.25, 0.5]
    assert got.assigned_at.to_list() == [MOMENT, MOMENT]
    assert not got.new.any()
    assert got.changed.is_empty()
    arrays = (got.segment_ids, got.confidence, got.new, got.since)
    assert [str(array.dtype) for array in arrays] == ["int32", "float32", "bool", "bool"]


def test_a_row_with_another_text_is_new(con: duckdb.DuckDBPyConnection) -> None:
    got = match(con, {"1": "changed", "2": "b", "3": "x"}, [("1", "a", 7, 0.9), ("2", "b", 31, 0.5)])
    assert got.new.tolist() == [True, False, True]
    assert got.segment_ids.tolist() == [0, 31, 0]
    assert got.assigned_at.to_list() == [None, MOMENT, None]
    assert got.changed.rows() == [("1", "changed", True, True), ("3", "x", True, True)]


def test_a_row_that_reads_like_one_that_stands_goes_where_that_one_is(con: duckdb.DuckDBPyConnection) -> None:
    got = match(con, {"2": "a", "new": "a"}, [("1", "a", 7, 0.25), ("2", "b", 2, 0.5)])
    assert got.segment_ids.tolist() == [7, 7]
    assert got.confidence.tolist() == [0.25, 0.25]
    assert got.assigned_at.to_list() == [None, None]
    assert got.changed.rows() == [("2", "a", False, True), ("new", "a", False, True)]


def test_a_tie_between_twins_goes_to_the_lower_segment_but_rows_that_stand_keep_their_own(
    con: duckdb.DuckDBPyConnection,
) -> None:
    before = [("1", "a", 31, 0.1), ("2", "a", 7, 0.3), ("3", "a", 31, 0.2), ("4", "a", 7, 0.4)]
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [3, 1, 0, 2]):
        got = match(con, {"1": "a", "3": "a", "new": "a"}, [before[i] for i in order])
        assert got.segment_ids.tolist() == [31, 31, 7]
        assert got.confidence.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_noise_stays_noise(con: duckdb.DuckDBPyConnection) -> None:
    got = match(con, {"1": "a", "like 1": "a"}, [("1", "a", -1, 0.0)])
    assert got.segment_ids.tolist() == [-1, -1]
    assert not got.new.any()


def test_a_row_of_the_training_that_went_and_comes_back_is_where_it_was(con: duckdb.DuckDBPyConnection) -> None:
    trained: list[Row] = [("1", "before", 7, 0.1), ("2", "b", 2, 0.2), ("3", "c", 31, 0.3)]
    standing: list[Row] = [("1", "now", 2, 0.4), ("2", "b", 2, 0.5)]
    got = match(con, {"1": "before", "2": "b", "3": "c", "4": "now"}, standing, trained)
    assert got.segment_ids.tolist() == [7, 2, 31, 2]
    assert got.confidence.tolist() == pytest.approx([0.1, 0.5, 0.3, 0.4])
    assert got.since.tolist() == [False, False, False, True]
    assert not got.new.any()


def test_memberships_go_with_the_segment(con: duckdb.DuckDBPyConnection) -> None:
    for dataset, version, shares in (("a", 1, (0.9, 0.1)), ("a", STANDING, (0.6, 0.4)), ("b", STANDING, (0.5, 0.5))):
        told = {"entity_key": ["1", "1", "2", "2"], "segment_id": [2, 7] * 2, "membership": [*shares, *shares[::-1]]}
        write_memberships(con, dataset, version, pl.DataFrame(told))
    trained: list[Row] = [("1", "a", 2, 0.9), ("2", "b", 7, 0.9)]
    got = match(con, {"2": "b", "like 1": "a", "new": "x"}, [("1", "a", 2, 0.6)], trained)
    assert got.memberships["entity_key"].to_list() == ["2", "2", "like 1", "like 1"]
    assert got.memberships["segment_id"].to_list() == [2, 7, 2, 7]
    assert got.memberships["membership"].to_list() == pytest.approx([0.1, 0.9, 0.6, 0.4])


def test_another_dataset_and_a_corpus_in_a_file(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for version in (1, STANDING):
        corpus(con, version, {"1": "a", "3": "c"}, dataset="b")
        placed = {"entity_key": ["1", "3"], "segment_id": [9, 9], "confidence": [1.0, 1.0], "assigned_at": [MOMENT] * 2}
        write_segments(con, "b", version, pl.DataFrame(placed))
    stored = match(con, {"1": "a", "3": "c"}, [("1", "a", 7, 0.25)])
    assert (stored.segment_ids.tolist(), stored.new.tolist()) == ([7, 0], [False, True])
    rows = {"entity_key": ["3", "1"], "text_hash": ["c", "a"], "clauses": [["a is b"]] * 2}
    with corpus_file([pl.DataFrame(rows)], tmp_path) as file:
        told = match_rows(con, "a", STANDING, corpus_in(file))
    assert told.changed.rows() == stored.changed.rows() == [("3", "c", True, True)]
    assert told.segment_ids.tolist() == [7, 0]


def test_no_row_and_nothing_standing(con: duckdb.DuckDBPyConnection) -> None:
    none = match(con, {}, [("1", "a", 7, 0.5)])
    assert (len(none.segment_ids), len(none.confidence), len(none.new), len(none.since)) == (0, 0, 0, 0)
    assert match(con, {"1": "a", "2": "a"}, []).new.tolist() == [True, True]


def naive(rows: dict[str, str], before: list[Row]) -> list[int | None]:
    placed: list[int | None] = []
    for key, text in sorted(rows.items()):
        own = [segment for other, read, segment, _ in before if (other, read) == (key, text)]
        twins = [segment for _, read, segment, _ in before if read == text]
        placed.append(own[0] if own else min(twins, default=None))
    return placed


texts = st.sampled_from("abcde")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from("123456789"), texts, min_size=1),
    st.dictionaries(st.sampled_from("123456789"), st.tuples(texts, st.sampled_from((7, 2, 31)))),
)
def test_a_row_stands_alike_in_any_order_and_beside_any_others(
    con: duckdb.DuckDBPyConnection, rows: dict[str, str], before: dict[str, tuple[str, int]]
) -> None:
    stood: list[Row] = [(key, text, segment, 0.5) for key, (text, segment) in before.items()]
    got = match(con, rows, stood)
    found = [None if new else int(segment) for segment, new in zip(got.segment_ids, got.new, strict=True)]
    assert found == naive(rows, stood)
    again = match(con, dict(reversed(rows.items())), stood[::-1])
    assert np.array_equal(again.segment_ids, got.segment_ids)
    assert np.array_equal(again.new, got.new)
