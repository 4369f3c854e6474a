"""Vectors of a corpus: those of texts that the same encoder has read before are taken from the warehouse."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.defs.stages import CODE_VERSIONS, StageRun, reading
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import some
from erasmo_dagster.method.embedding import EmbeddingResult, embed_rows
from erasmo_dagster.method.encoders.kinds import open_encoder, options_of
from erasmo_dagster.method.endpoints import shown_url, tell_what_leaves
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.store.artifacts import adapter_dir, vectors_dir
from erasmo_dagster.store.versions import StageOutput, encoded_by, inputs_hash
from erasmo_dagster.store.warehouse import read_vectors

_IDENTITY = ("encoder", "options", "base_model", "revision")


@dataclass(frozen=True, eq=False)
class Encoded:
    """``vectors`` float32[n, d] in the corpus's order; ``fresh`` bool[n] says whose texts the model had to read.

    ``run`` tells of that reading, None where there was none.
    """

    vectors: npt.NDArray[np.float32]
    fresh: npt.NDArray[np.bool_]
    encoder: str
    run: EmbeddingResult | None


def way_of_reading(run: StageRun, standing: StageOutput | None) -> dict[str, Any]:
    """How texts are read in this run: as the vectors of the ``standing`` version were, where there is one.

    Rows are put into segments that stand by vectors of the same kind, whatever the YAML says by now.
    """
    if standing is None:
        return reading(run.settings)
    way: dict[str, Any] = standing.details["reading"]
    return way


def encoder_id(adapter: StageOutput, way: Mapping[str, Any]) -> str:
    """What vectors depend on beside their text: the encoder, what it has learnt, and how it reads."""
    about = adapter.details
    learnt = adapter.version if about["learns"] else {name: about.get(name) for name in _IDENTITY}
    return inputs_hash(learnt, CODE_VERSIONS["embeddings"], way)


def encode(
    run: StageRun, adapter: StageOutput, corpus: pl.DataFrame, plan: TextPlan, way: Mapping[str, Any]
) -> Encoded:
    """The vector of every row of ``corpus`` (text_hash, clauses), each distinct text read at most once.

    A text that a kept version has read keeps its vector to the last bit: a model's answer depends in its last digits
    on the texts beside it in a batch.
    """
    encoder = encoder_id(adapter, way)
    hashes = corpus.select("text_hash")
    with run.warehouse.get_connection() as con:
        held = encoded_by(con, run.dataset, run.version, encoder)
        found = [read_vectors(con, run.dataset, versions, width, hashes) for width, versions in held.items()]
    known = pl.concat(found) if found else None
    if known is None:
        fresh = np.ones(corpus.height, dtype=bool)
    else:
        fresh = ~hashes["text_hash"].is_in(known["text_hash"].implode()).to_numpy()
    if not fresh.any() and known is not None:
        return Encoded(_looked_up(hashes, known), fresh, encoder, None)
    unread = corpus.filter(pl.Series(fresh))
    result = _read(run, adapter, unread["clauses"].to_list(), plan, way)
    if held and (width := result.vectors.shape[1]) not in held:
        forget_unfinished(run, encoder)  # of another encoder than it says
        raise ErasmoError(
            f"Got vectors of {width} dimensions from the encoder {adapter.details['encoder']}",
            expected=f"{min(held)}, as it gave for the rows before",
            fix="see which model it reads with; for another one, name that in `encoder`",
        )
    column = pl.Series("vector", result.vectors, dtype=pl.Array(pl.Float32, result.vectors.shape[1]))
    made = unread.select("text_hash").with_columns(column).unique("text_hash", maintain_order=True)
    known = made if known is None else pl.concat([known, made])
    return Encoded(_looked_up(hashes, known), fresh, encoder, result)


def _looked_up(hashes: pl.DataFrame, known: pl.DataFrame) -> npt.NDArray[np.float32]:
    position = hashes.join(known.select("text_hash").with_row_index("at"), on="text_hash", maintain_order="left")["at"]
    return np.ascontiguousarray(known["vector"].to_numpy()[position.to_numpy()], dtype=np.float32)


def _read(
    run: StageRun, adapter: StageOutput, rows: list[list[str]], plan: TextPlan, way: Mapping[str, Any]
) -> EmbeddingResult:
    folder = adapter_dir(run.project, run.dataset, adapter.version) if adapter.details["learns"] else None
    embedding = run.settings.embedding.model_copy(update=way["embedding"])
    settings = run.settings.model_copy(update={"embedding": embedding})
    encoder = open_encoder(adapter.details, settings, folder, run.project.models)
    _tell_what_leaves(run, adapter, plan, len(rows))
    labels = [column.label for column in plan.columns]
    # What is done is kept beside the versions until this one has it all: no text is read, or paid for, twice.
    with VectorCache(vectors_dir(run.project, run.dataset, encoder_id(adapter, way))) as cache:
        result = embed_rows(rows, encoder, embedding, seed=way["seed"] or 0, features=labels, cache=cache)
    del encoder
    release_memory()
    return result


def _tell_what_leaves(run: StageRun, adapter: StageOutput, plan: TextPlan, rows: int) -> None:
    """Say once, before anything is sent, which columns go to another machine.

    Raises ErasmoError where one of them is sensitive by now: texts that stand may be of a time when it was not.
    """
    address = options_of(adapter.details, run.settings).remote
    if address is None:
        return
    columns = [column.name for column in plan.columns]
    if private := sorted(set(columns) & set(run.settings.sensitive)):
        raise ErasmoError(
            f"Got texts for {shown_url(address)} with what is sensitive by now: {some(private)}",
            expected="nothing of `sensitive` in what goes to an endpoint",
            fix="run again with --retrain, which writes the texts without it",
        )
    tell_what_leaves(address, run.dataset, rows, columns)


def forget_unfinished(run: StageRun, encoder: str) -> None:
    """Remove what an embedding keeps while it is under way, once the warehouse has its vectors."""
    shutil.rmtree(vectors_dir(run.project, run.dataset, encoder), ignore_errors=True)
