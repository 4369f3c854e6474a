"""Vectors in the warehouse: joined to rows by their texts, and the parts that an unfinished embedding leaves."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import polars.testing
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.corpus import (
    ClauseRows,
    clause_rows,
    corpus_file,
    corpus_in,
    corpus_of,
    count_rows,
    read_hashes,
)
from erasmo_dagster.store.vector_parts import VectorParts
from erasmo_dagster.store.vectors import (
    count_cut,
    cut_unread,
    export_unread,
    read_embeddings,
    read_unread,
    read_vectors,
    write_joined,
)
from erasmo_dagster.store.vectors import write_embeddings as write
from erasmo_dagster.store.warehouse import open_warehouse, read_corpus, write_corpus


def corpus(*texts: str) -> pl.DataFrame:
    """Rows 0, 1, … of these texts."""
    return pl.DataFrame(
        {
            "entity_key": [f"{i:04}" for i in range(len(texts))],
            "text_hash": [f"h{text}" for text in texts],
            "clauses": [[f"a is {text}", "b is 1"] for text in texts],
        }
    )


def some(n: int, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def test_rows_get_the_vectors_of_their_texts_from_versions_and_parts(tmp_path: Path) -> None:
    old, own, new = some(2, seed=1), some(2, seed=2), some(3, seed=3)
    parts = VectorParts(tmp_path / "parts")
    parts.add(["hd", "hc"], new[:2], np.array([False, True]))
    parts.add(["ha"], new[2:], np.array([False]))  # which a version has
    with open_warehouse(tmp_path / "w.duckdb") as con:
        write(con, "x", 1, corpus("a", "b"), old)
        write(con, "x", 2, corpus("b", "c"), own)
        write(con, "x", 2, corpus("b", "c"), own, kind="points")
        write(con, "y", 3, corpus("z"), own[:1])
        write_corpus(con, "x", 2, corpus("c", "b", "a", "c", "d", "unknown"))
        written = write_joined(con, "x", 2, corpus_of("x", 2), 3, held=[1, 2], parts=parts.files)
        keys, vectors = read_embeddings(con, "x", 2, 3)
        assert (written, keys.to_list()) == (("embeddings_3", 5), ["0000", "0001", "0002", "0003", "0004"])
        np.testing.assert_array_equal(vectors, np.stack([own[1], old[1], old[0], own[1], new[0]]))
        np.testing.assert_array_equal(read_embeddings(con, "x", 1, 3)[1], old)
        assert count_cut(con, corpus_of("x", 2), parts.files) == 2
        assert write_joined(con, "x", 2, corpus_of("x", 2), 3, parts=parts.files) == ("embeddings_3", 4)
        assert read_embeddings(con, "x", 2, 3)[0].to_list() == ["0000", "0002", "0003", "0004"]
        assert len(read_embeddings(con, "x", 2, 3, kind="points")[0]) == 2
        wide = VectorParts(tmp_path / "wide")
        wide.add(["ha"], some(1, 5), np.zeros(1, bool))
        write_joined(con, "x", 2, corpus_of("x", 2), 5, parts=wide.files)
        assert len(read_embeddings(con, "x", 2, 3)[0]) == 0  # none is left in the other dimension


def test_more_vectors_are_read_by_their_texts_than_the_memory_of_duckdb_holds(tmp_path: Path) -> None:
    vectors = some(6_000, 768)  # 18 MB
    keys = pl.DataFrame(
        {"entity_key": [f"{i:04}" for i in range(6_000)], "text_hash": [f"{i:032x}" for i in range(6_000)]}
    )
    with open_warehouse(tmp_path / "w.duckdb") as con:
        write(con, "x", 1, keys, vectors)
    with open_warehouse(tmp_path / "w.duckdb") as con:
        con.execute("SET memory_limit = '32MB'")
        known, read = read_vectors(con, "x", [1], 768, keys["text_hash"].reverse())
    assert known.all()
    np.testing.assert_array_equal(read[::-1], vectors)


def test_texts_without_a_vector_come_once_each_in_the_order_of_their_texts(tmp_path: Path) -> None:
    parts = VectorParts(tmp_path / "parts")
    parts.add(["hb"], some(1), np.zeros(1, bool))
    out = tmp_path / "it's [unread].parquet"
    with open_warehouse(tmp_path / "w.duckdb") as con:
        write(con, "x", 1, corpus("a"), some(1))
        write_corpus(con, "x", 2, corpus("d", "a", "c", "b", "d", "e"))
        own = corpus_of("x", 2)
        assert export_unread(con, "x", own, out, held={3: [1]}, parts=parts.files) == (3, 4)
        chunks = list(read_unread(out, 2))
        assert [hashes for hashes, _ in chunks] == [["hc", "hd"], ["he"]]
        assert chunks[0][1] == [["a is c", "b is 1"], ["a is d", "b is 1"]]
        held = corpus("a", "c", "d", "e")
        write(con, "x", 2, held, some(4))
        assert export_unread(con, "x", own, out, held={3: [1, 2]}, parts=parts.files) == (0, 0)


def test_texts_are_cut_into_files_of_neighbours_and_what_lay_there_is_gone(tmp_path: Path) -> None:
    with open_warehouse(tmp_path / "w.duckdb") as con:
        write_corpus(con, "d", 1, corpus(*(f"{n:05}" for n in range(5000))))
        export_unread(con, "d", corpus_of("d", 1), tmp_path / "unread.parquet", held={})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "000009.parquet").touch()
    files = cut_unread(tmp_path / "unread.parquet", tmp_path / "parts", 4500)  # across the file's groups of rows
    assert [file.name for file in files] == ["000001.parquet", "000002.parquet"]
    assert sorted((tmp_path / "parts").iterdir()) == files
    cut = [pl.read_parquet(file) for file in files]
    assert [part.height for part in cut] == [4500, 500]
    pl.testing.assert_frame_equal(pl.concat(cut), pl.read_parquet(tmp_path / "unread.parquet"))


def test_a_corpus_in_a_file_is_one_like_that_in_the_warehouse(tmp_path: Path) -> None:
    rows = corpus("b", "a", "new")
    beside = tmp_path / "it's [1]"
    with (
        corpus_file((rows[i : i + 1] for i in (2, 0, 1)), beside) as file,
        open_warehouse(tmp_path / "w.duckdb") as con,
    ):
        write_corpus(con, "x", 1, corpus("b", "c", "d", "e"))
        own, before = corpus_in(file), corpus_of("x", 1)
        assert read_hashes(con, own).rows() == [("0000", "hb"), ("0001", "ha"), ("0002", "hnew")]
        assert (count_rows(con, own), count_rows(con, before)) == (3, 4)
        assert count_rows(con, own, without=before, by=("entity_key", "text_hash")) == 2
        assert count_rows(con, before, without=own, by=("entity_key",)) == 1
        assert write_corpus(con, "x", 2, file) == 3
        assert read_corpus(con, "x", 2).equals(rows)
    assert list(beside.iterdir()) == []


@pytest.mark.parametrize("later", ["corpus", "clauses"])
def test_texts_that_a_killed_run_left_on_the_disk_are_removed_by_the_next_that_needs_the_place(
    tmp_path: Path, later: str
) -> None:
    beside = tmp_path / "1"
    with corpus_file([corpus("secret")], beside) as file:
        shutil.copytree(file.parent, tmp_path / "left")
    place = file.parent
    shutil.copytree(tmp_path / "left", place)  # as a kill leaves it
    (place / "clauses.arrow").write_bytes(b"secret")
    with open_warehouse(tmp_path / "w.duckdb") as con:
        write_corpus(con, "x", 1, corpus("b"))
    here = (
        corpus_file([corpus("a")], beside)
        if later == "corpus"
        else clause_rows(lambda: open_warehouse(tmp_path / "w.duckdb"), "x", 1, beside)
    )
    with here:
        assert [path.stem for path in beside.rglob("*.*") if path.is_file()] == [later]
    assert list(beside.iterdir()) == []


@pytest.mark.parametrize("how", ["cut", "flipped", "narrow", "empty"])
def test_parts_that_are_damaged_or_of_other_dimensions_are_removed(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts = VectorParts(tmp_path)
    for number in range(3):
        parts.add([f"h{number}", f"i{number}"], some(2, 300, seed=number), np.zeros(2, bool))
    file = parts.files[1]
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    if how == "narrow":
        VectorParts(tmp_path / "other").add(["x"], some(1, 2), np.zeros(1, bool))
        data = bytearray((tmp_path / "other" / "000001.parquet").read_bytes())
    file.write_bytes({"cut": bytes(data[:900]), "empty": b""}.get(how, bytes(data)))
    (tmp_path / "000009.tmp").write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        again = VectorParts(tmp_path)
    assert [path.name for path in again.files] == ["000001.parquet", "000003.parquet"]
    assert (again.texts, again.width, file.exists(), (tmp_path / "000009.tmp").exists()) == (4, 300, False, False)
    assert "000002.parquet" in caplog.text
    again.add(["new"], some(1, 300), np.zeros(1, bool))
    assert again.files[-1].name == "000004.parquet"
    with pytest.raises(ErasmoError, match=r"Got vectors of 3 dimensions .*expected 300"):
        again.add(["x"], some(1), np.zeros(1, bool))


def test_rows_on_the_disk_are_the_corpus_in_the_order_of_its_keys(tmp_path: Path) -> None:
    written = corpus(*map(str, range(1_000)))
    with open_warehouse(tmp_path / "w.duckdb") as con:
        write_corpus(con, "x", 1, written.sort("text_hash"))
        write_corpus(con, "x", 2, written[:0])
        write_corpus(con, "y", 1, corpus("other"))

    def connect() -> object:
        return open_warehouse(tmp_path / "w.duckdb", lock_timeout=1)

    expected = written["clauses"].to_list()
    with clause_rows(connect, "x", 1, tmp_path / "beside") as rows:  # type: ignore[arg-type]
        with open_warehouse(tmp_path / "w.duckdb", lock_timeout=1):
            pass  # nobody holds it while a model trains
        assert isinstance(rows, ClauseRows)
        assert (len(rows), list(rows)) == (1_000, expected)
        order = np.random.default_rng(0).permutation(1_000).tolist()
        assert [rows[i] for i in order] == [expected[i] for i in order]
        for part in (slice(250, 700), slice(None), slice(999, None), slice(5, 5), slice(-3, None), slice(9, 2, -3)):
            assert rows[part] == expected[part]
        assert rows[-1] == expected[-1]
        with pytest.raises(IndexError):
            rows[1_000]
    assert list((tmp_path / "beside").iterdir()) == []
    with clause_rows(connect, "x", 2, tmp_path / "beside") as rows:  # type: ignore[arg-type]
        assert (len(rows), list(rows), bool(rows)) == (0, [], False)
