"""The warehouse: one transaction at a time, versioned rows, no duplicates."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store import vectors as ve
from erasmo_dagster.store import warehouse as wh


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


def corpus(*keys: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"entity_key": keys, "text_hash": [f"h{k}" for k in keys], "clauses": [[f"a is {k}"] for k in keys]}
    )


def test_rows_come_back_by_key_and_a_rewrite_replaces_them(path: Path) -> None:
    with wh.open_warehouse(path) as con:
        wh.write_corpus(con, "a", 1, corpus("2", "1"))
        wh.write_corpus(con, "b", 1, corpus("9"))
    with wh.open_warehouse(path) as con:
        wh.write_corpus(con, "a", 1, corpus("3", "2"))
        assert wh.read_corpus(con, "a", 1)["entity_key"].to_list() == ["2", "3"]
        assert wh.read_corpus(con, "b", 1)["clauses"].to_list() == [["a is 9"]]


def test_a_corpus_comes_from_a_file_too_and_nothing_is_told_in_place_of_an_error(path: Path) -> None:
    file = path.parent / "it's [rows].parquet"
    pl.concat([corpus("2", "1", "3"), corpus("4").with_columns(text_hash=pl.lit("h1"))]).write_parquet(file)
    with wh.open_warehouse(path) as con:
        assert wh.write_corpus(con, "a", 1, file) == 3
        assert wh.read_corpus(con, "a", 1)["entity_key"].to_list() == ["1", "2", "3", "4"]
    with pytest.raises(duckdb.ConstraintException, match="NOT NULL"), wh.open_warehouse(path) as con:
        wh.write_corpus(con, "a", 1, corpus("5").with_columns(text_hash=pl.lit(None, pl.String)))
    with wh.open_warehouse(path) as con:
        assert wh.read_corpus(con, "a", 1).height == 4


def test_an_error_rolls_back_and_frees_the_file(path: Path) -> None:
    with wh.open_warehouse(path) as con:
        wh.write_corpus(con, "a", 1, corpus("1"))
    with pytest.raises(RuntimeError, match="stop"), wh.open_warehouse(path) as con:
        wh.write_corpus(con, "a", 1, corpus("2"))
        raise RuntimeError("stop")
    with wh.open_warehouse(path) as con:
        assert wh.read_corpus(con, "a", 1)["entity_key"].to_list() == ["1"]


def test_vectors_round_trip_bit_equal_and_leave_no_copy_in_another_dimension(path: Path) -> None:
    keys = corpus("1", "2")
    first, second = np.random.default_rng(0).normal(size=(2, 8)).astype("f4"), np.ones((2, 3), "f4")
    with wh.open_warehouse(path) as con:
        ve.write_embeddings(con, "a", 1, keys, first)
        _, vectors = ve.read_embeddings(con, "a", 1, 8)
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, first)
        ve.write_embeddings(con, "a", 1, keys, second)
        assert ve.read_embeddings(con, "a", 1, 8)[1].shape[0] == 0
        assert np.array_equal(ve.read_embeddings(con, "a", 1, 3)[1], second)


def segments(assigned_at: datetime | None, *keys: str) -> pl.DataFrame:
    moments = pl.Series([assigned_at] * len(keys), dtype=pl.Datetime("us"))
    return pl.DataFrame({"entity_key": keys, "segment_id": 3, "confidence": 0.5, "assigned_at": moments})


def test_a_segment_keeps_the_moment_that_it_was_assigned_at_and_gets_this_one_where_it_has_none(path: Path) -> None:
    earlier = datetime(2026, 1, 2, 3, 4, 5, 678901)
    with wh.open_warehouse(path) as con:
        before = wh.now(con)
        wh.write_segments(con, "a", 1, pl.concat([segments(earlier, "1"), segments(None, "2", "3")]))
        moments = wh.read_segments(con, "a", 1)["assigned_at"].to_list()
        assert moments[0] == earlier
        assert before <= moments[1] == moments[2] <= wh.now(con)
        wh.write_segments(con, "a", 1, wh.read_segments(con, "a", 1))
        assert wh.read_segments(con, "a", 1)["assigned_at"].to_list() == moments


def test_vectors_are_read_by_text(path: Path) -> None:
    keys = pl.DataFrame({"entity_key": ["1", "2", "3"], "text_hash": ["y", "x", "y"]})
    with wh.open_warehouse(path) as con:
        ve.write_embeddings(con, "a", 1, keys, np.array([[1, 2], [3, 4], [1, 2]], np.float32))
        ve.write_embeddings(con, "a", 2, keys, np.zeros((3, 2), np.float32))

        def found(versions: list[int], *texts: str) -> list[tuple[str, list[float]]]:
            known, vectors = ve.read_vectors(con, "a", versions, 2, pl.Series(texts, dtype=pl.String))
            assert known.shape == (len(texts),)
            assert not vectors[~known].any()
            return [(texts[i], vectors[i].tolist()) for i in np.flatnonzero(known)]

        assert found([1], "y", "absent", "x", "y") == [("y", [1, 2]), ("x", [3, 4]), ("y", [1, 2])]
        assert found([2, 1], "x") == [("x", [3, 4])]  # from the first version that has it
        assert found([2], "x", "x") == [("x", [0, 0])] * 2
        assert found([], "x") == found([1]) == []


def test_figures_that_are_no_number_are_left_out(path: Path) -> None:
    frame = pl.DataFrame({"metric": ["b", "a", "c"], "value": [0.5, None, -1.0], "description": "d"})
    with wh.open_warehouse(path) as con:
        wh.write_metrics(con, "a", 1, frame)
        assert wh.read_metrics_of(con, "a", 1) == {"b": 0.5, "c": -1.0}


def test_strays_are_counted_of_each_kind(path: Path) -> None:
    snapshot = path.with_name("[source].parquet")
    pl.DataFrame({"__entity_key": ["1", "2", "3", "4"]}).write_parquet(snapshot)
    with wh.open_warehouse(path) as con:
        wh.write_segments(con, "a", 1, segments(None, "1", "1", "2", "8", "9", "9"))
        wh.write_segments(con, "a", 2, segments(None, "1", "2", "3", "4"))
        strays = list(wh.count_strays(con, "a", 1, snapshot).values())
        assert strays == [2, 2, 2]
        assert set(wh.count_strays(con, "a", 2, snapshot).values()) == {0}


def test_a_second_process_waits_for_the_lock_and_says_who_has_it(path: Path) -> None:
    with wh.open_warehouse(path):
        code = (
            "from pathlib import Path; from erasmo_dagster.store.warehouse import open_warehouse\n"
            f"with open_warehouse(Path({str(path)!r}), lock_timeout=0.3): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode == 1
    assert "another process is writing it" in other.stderr
    with wh.open_warehouse(path, lock_timeout=0.3):
        pass


def test_a_foreign_or_newer_file_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.duckdb"
    with duckdb.connect(foreign) as con:
        con.execute("create table t (a int)")
    with pytest.raises(ErasmoError, match="schema version unknown"), wh.open_warehouse(foreign):
        pass
    newer = tmp_path / "newer.duckdb"
    with wh.open_warehouse(newer) as con:
        con.execute("update meta set schema_version = 99")
    with pytest.raises(ErasmoError, match="schema version 99"), wh.open_warehouse(newer):
        pass


def test_a_killed_writer_leaves_what_was_committed(path: Path) -> None:
    with wh.open_warehouse(path) as con:
        wh.write_corpus(con, "a", 1, corpus("1"))
    code = (
        "import os, signal; from pathlib import Path; import polars as pl\n"
        "from erasmo_dagster.store import warehouse as wh\n"
        f"with wh.open_warehouse(Path({str(path)!r})) as con:\n"
        "    con.execute('delete from corpus'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with wh.open_warehouse(path, lock_timeout=2) as con:
        assert wh.read_corpus(con, "a", 1).height == 1


def candidate(name: str, rank: int | None, **figures: float | None) -> dict[str, object]:
    given = {"bits_saved": 1.5, "separation": 0.2, "gower_silhouette": None, "tree_accuracy": 0.9, "stability": None}
    return {
        "candidate": name,
        "chosen": rank == 1,
        "rank": rank,
        **given,
        "smallest": 0.25,
        "seconds": 1.0,
        "refused": "" if rank else "too small",
        **figures,
    }


def test_candidates_are_those_of_the_last_write_and_go_with_their_version(path: Path) -> None:
    query = "SELECT version, candidate, chosen, rank, bits_saved, stability FROM segment_candidates ORDER BY ALL"
    with wh.open_warehouse(path) as con:
        wh.write_candidates(con, "a", 1, [candidate("x", 1), candidate("old", 2)])
        wh.write_candidates(con, "a", 1, [candidate("x", 1, stability=0.5), candidate("y", None, bits_saved=None)])
        wh.write_candidates(con, "a", 2, [candidate("x", 1)])
        wh.write_candidates(con, "a", 3, [])
        assert con.execute(query).fetchall() == [
            (1, "x", True, 1, 1.5, 0.5),
            (1, "y", False, None, None, None),
            (2, "x", True, 1, 1.5, None),
        ]
        wh.delete_version(con, "a", 1)
        assert {row[0] for row in con.execute(query).fetchall()} == {2}
        wh.write_candidates(con, "a", 2, [])  # the version is drawn anew, by a method that compares nothing
        assert con.execute(query).fetchall() == []
