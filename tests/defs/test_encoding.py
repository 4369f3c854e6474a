"""Embedding a chunk of texts at a time: what is done outlives a stop, and no text is read twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from erasmo_dagster.defs import encoding
from erasmo_dagster.defs.execution import ExecutionConfig
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import StageRun, reading
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.encoders.base import Batch
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.refresh.decision import Decision, RefreshPlan
from erasmo_dagster.settings import Project, TextSettings, load_dataset
from erasmo_dagster.store.artifacts import text_dir
from erasmo_dagster.store.corpus import corpus_of
from erasmo_dagster.store.vectors import read_embeddings, write_joined
from erasmo_dagster.store.versions import StageOutput, record_stage
from erasmo_dagster.store.warehouse import write_corpus

embeddings_asset = import_module("erasmo_dagster.defs.assets.embeddings")  # the package has the asset by this name
ABOUT = {"encoder": "erasmo", "options": {}, "learns": False, "base_model": "tiny", "revision": "1"}
ADAPTER = StageOutput("adapter", 1, "a", ABOUT)
PLAN = TextPlan(columns=(), dropped={}, settings=TextSettings())


class Letters:
    """Counts letters, two texts a batch, and stops after ``allowed`` batches of its life."""

    def __init__(self, allowed: int = 1000) -> None:
        self.allowed, self.given = allowed, []  # type: ignore[var-annotated]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        self.truncated = np.array(["7" in text for text in texts])
        self.tokens = len(texts)
        for start in range(0, len(texts), 2):
            if self.allowed == 0:
                raise KeyboardInterrupt
            self.allowed -= 1
            some = texts[start : start + 2]
            self.given += some
            vectors = [[text.count(letter) / 7 for letter in "aeio0123456789"] for text in some]
            yield np.arange(start, start + len(some)), np.array(vectors, dtype=np.float32)


@pytest.fixture
def run(project: Project, monkeypatch: pytest.MonkeyPatch) -> StageRun:
    (project.datasets_dir / "people.yaml").write_text("source: {path: people.parquet}\nkey: id\n")
    monkeypatch.setattr(encoding, "CHUNK", 6)
    resource = WarehouseResource(
        database=str(project.warehouse), project_root=str(project.root), erasmo_home=str(project.home)
    )
    found = StageRun("embeddings", "people", 1, load_dataset(project, "people"), project, resource, "3", {})
    with resource.get_connection() as con:
        write_corpus(con, "people", 1, rows(range(20)))
    return found


def rows(numbers: Sequence[int]) -> pl.DataFrame:
    """Two rows a text, in no order of their texts."""
    texts = [(n * 7) % 20 for n in numbers for _ in range(2)]
    return pl.DataFrame(
        {
            "entity_key": [f"{i:02}" for i in range(len(texts))],
            "text_hash": [f"hash {n}" for n in texts],
            "clauses": [[f"age is {n}", "job is cook"] for n in texts],
        }
    )


def read(run: StageRun, monkeypatch: pytest.MonkeyPatch, encoder: Letters) -> encoding.Encoded:
    monkeypatch.setattr(encoding, "open_encoder", lambda *_: encoder)
    return encoding.encode(run, ADAPTER, corpus_of("people", run.version), PLAN, reading(run.settings))


def written(run: StageRun, encoded: encoding.Encoded) -> np.ndarray:
    with run.warehouse.get_connection() as con:
        corpus = corpus_of("people", run.version)
        write_joined(con, "people", run.version, corpus, encoded.width, held=encoded.held, parts=encoded.parts)
        details = {"width": encoded.width, "encoder": encoded.encoder}
        record_stage(con, "people", run.version, "embeddings", inputs_hash="h", details=details)
        keys, vectors = read_embeddings(con, "people", run.version, encoded.width)
    assert keys.to_list() == sorted(keys.to_list())
    encoding.forget_unfinished(run, encoded.encoder)
    return vectors


def test_an_embedding_that_is_stopped_goes_on_from_the_text_where_it_was(
    run: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Letters()
    expected = written(run, read(run, monkeypatch, whole))
    assert len(whole.given) == 20
    assert whole.given == sorted(whole.given)  # neighbours in the order of texts share their beginnings
    np.testing.assert_array_equal(expected[::2], expected[1::2])  # equal texts, equal vectors
    with run.warehouse.get_connection() as con:
        con.execute("DELETE FROM stage_outputs")
    stopped, again = Letters(allowed=5), Letters()  # within the second chunk
    with pytest.raises(KeyboardInterrupt):
        read(run, monkeypatch, stopped)
    encoded = read(run, monkeypatch, again)
    assert sorted(stopped.given + again.given) == whole.given
    assert encoded.read is not None
    assert (encoded.read.texts, encoded.read.truncated_rows) == (20, 4)  # of 2 texts, whichever run has read them
    np.testing.assert_array_equal(written(run, encoded), expected)


def test_texts_that_a_version_has_keep_their_vectors_and_the_rest_alone_is_read(
    run: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(run, read(run, monkeypatch, Letters()))
    later = StageRun(**{**vars(run), "version": 2})
    with run.warehouse.get_connection() as con:
        con.execute("UPDATE embeddings_14 SET vector = list_transform(vector, lambda x: x + 1e-6)::FLOAT[14]")
        new = rows(range(21, 23)).with_columns(pl.format("new {}", "entity_key").alias("entity_key"))
        fresh = new.with_columns(text_hash=pl.lit("new"), clauses=pl.lit(["age is 99"]))
        write_corpus(con, "people", 2, pl.concat([rows(range(20)), fresh]))
    encoder = Letters()
    vectors = written(later, read(later, monkeypatch, encoder))
    assert encoder.given == ["age is 99"]
    np.testing.assert_array_equal(vectors[:40], before + np.float32(1e-6))
    assert vectors[40:, -1].tolist() == pytest.approx([2 / 7] * 4)
    none = Letters()
    encoded = read(later, monkeypatch, none)
    assert (none.given, encoded.read, encoded.held) == ([], None, (1, 2))


def test_other_dimensions_than_before_are_refused_and_nothing_of_them_is_kept(
    run: StageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(run, read(run, monkeypatch, Letters()))
    later = StageRun(**{**vars(run), "version": 2})
    with run.warehouse.get_connection() as con:
        write_corpus(con, "people", 2, rows([0]).with_columns(text_hash=pl.lit("new")))

    class Short(Letters):
        def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
            for positions, vectors in super().batches(texts):
                yield positions, vectors[:, :3]

    with pytest.raises(ErasmoError, match=r"3 dimensions .*expected 14"):
        read(later, monkeypatch, Short())
    assert not list((run.project.artifacts / "people" / "vectors").glob("*"))


def test_rows_without_a_vector_are_told_and_nothing_is_written(run: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    FittedState(text=PLAN, clustering=None).save(text_dir(run.project, "people", 1))
    plan = RefreshPlan(
        decision=Decision(mode="retrain", reasons=("new",)), forced=False, standing=None, fitted=None, settings={}
    )
    inputs = {
        "adapter": ADAPTER,
        "text_corpus": StageOutput("text_corpus", 1, "t", {"rows": 40, "distinct_texts": 20}),
        "refresh_plan": StageOutput("refresh_plan", 1, "p", {"plan": plan.model_dump(mode="json")}),
    }
    stage = StageRun(**{**vars(run), "inputs": inputs})
    monkeypatch.setattr(embeddings_asset, "begin_stage", lambda *_: stage)
    monkeypatch.setattr(encoding, "open_encoder", lambda *_: Letters())

    def one_part_less(*given: Any) -> encoding.Encoded:
        encoded = encoding.encode(*given)
        return replace(encoded, parts=encoded.parts[1:])

    monkeypatch.setattr(embeddings_asset, "encode", one_part_less)
    context = dg.build_asset_context(partition_key="people")
    with pytest.raises(ErasmoError, match=r"no vector for 12 of 40 rows.*run again"):
        embeddings_asset.embeddings(context, config=ExecutionConfig(), warehouse=run.warehouse)
    with run.warehouse.get_connection() as con:
        assert con.execute("SELECT * FROM duckdb_tables() WHERE table_name = 'embeddings_14'").fetchall() == []
    monkeypatch.setattr(embeddings_asset, "encode", encoding.encode)
    result = embeddings_asset.embeddings(context, config=ExecutionConfig(), warehouse=run.warehouse)
    assert (result.metadata["dagster/row_count"], result.metadata["table"]) == (40, "embeddings_14")
