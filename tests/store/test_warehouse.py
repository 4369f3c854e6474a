"""The warehouse: one transaction at a time, versioned rows, no duplicates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
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
        wh.write_embeddings(con, "a", 1, keys, first)
        _, vectors = wh.read_embeddings(con, "a", 1, 8)
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, first)
        wh.write_embeddings(con, "a", 1, keys, second)
        assert wh.read_embeddings(con, "a", 1, 8)[1].shape[0] == 0
        assert np.array_equal(wh.read_embeddings(con, "a", 1, 3)[1], second)


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
