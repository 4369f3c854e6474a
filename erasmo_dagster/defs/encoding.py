"""Vectors of a corpus: those of texts that the same encoder has read before are taken from the warehouse."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erasmo_dagster import progress
from erasmo_dagster.defs.execution import ray_cluster
from erasmo_dagster.defs.stages import CODE_VERSIONS, StageRun, reading
from erasmo_dagster.distributed.cluster import Cluster
from erasmo_dagster.distributed.embedding import Reader, ReadTexts, part_size, read_parts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import some
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.base import Encoder
from erasmo_dagster.method.encoders.kinds import open_encoder, options_of
from erasmo_dagster.method.endpoints import shown_url, tell_what_leaves
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.store.artifacts import adapter_dir, vectors_dir
from erasmo_dagster.store.corpus import Corpus
from erasmo_dagster.store.vector_parts import VectorParts
from erasmo_dagster.store.vectors import count_cut, cut_unread, export_unread, read_unread
from erasmo_dagster.store.versions import StageOutput, encoded_by, inputs_hash

if TYPE_CHECKING:
    from erasmo_dagster.defs.clusters import RayCluster

CHUNK = 20_000  # texts that are read together: their tokens are in memory, and beginnings are shared within them
_IDENTITY = ("encoder", "options", "base_model", "revision")


@dataclass(frozen=True)
class Reading:
    """What was read of a corpus: its distinct texts that were new, and what they took.

    ``computed`` are the ``tokens`` that went through the model, ``engine`` says how, where the encoder tells.
    ``cluster`` is the Ray cluster that did it, None where this process did.
    """

    texts: int = 0
    tokens: int = 0
    computed: int = 0
    seconds: float = 0.0
    truncated_rows: int = 0
    engine: str | None = None
    cluster: Cluster | None = None

    def details(self) -> dict[str, Any]:
        """As a stage records it."""
        return {
            "texts_embedded": self.texts,
            "tokens": self.tokens,
            "tokens_computed": self.computed,
            "truncated_rows": self.truncated_rows,
            "model_seconds": round(self.seconds, 2),
            "tokens_per_second": round(self.tokens / self.seconds, 1) if self.seconds > 0 else 0.0,
            **({"engine": self.engine} if self.engine else {}),
        }


@dataclass(frozen=True)
class Encoded:
    """Where the vectors of a corpus are: in the versions ``held``, else in the files ``parts``; ``width`` is d.

    ``read`` tells of what had to be read, None where nothing had.
    """

    encoder: str
    width: int
    held: tuple[int, ...]
    parts: tuple[Path, ...]
    read: Reading | None


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


def encode(run: StageRun, adapter: StageOutput, corpus: Corpus, plan: TextPlan, way: Mapping[str, Any]) -> Encoded:
    """See to it that there is a vector for every text of ``corpus``, each distinct one read at most once.

    A text that a kept version has read keeps its vector to the last bit: a model's answer depends in its last digits
    on the texts beside it in a batch. The others are read a chunk at a time, neighbours in the order of texts, and
    what is done is on the disk, beside the versions: no text is read, or paid for, twice, whatever stops the run.
    :func:`~erasmo_dagster.store.vectors.write_joined` takes the vectors from there.
    """
    encoder = encoder_id(adapter, way)
    folder = vectors_dir(run.project, run.dataset, encoder)
    unread, parts = folder / "unread.parquet", VectorParts(folder / "read")
    folder.mkdir(parents=True, exist_ok=True)
    with run.warehouse.get_connection() as con:
        held = encoded_by(con, run.dataset, run.version, encoder)
        texts, rows = export_unread(con, run.dataset, corpus, unread, held=held, parts=parts.files)
    before, done = parts.texts, Reading()
    if texts:
        done = _read(run, adapter, unread, texts, rows, plan, way, parts)
        unread.unlink()
    width = parts.width if parts.width is not None else next(iter(held))
    if held and width not in held:
        forget_unfinished(run, encoder)  # of another encoder than it says
        raise ErasmoError(
            f"Got vectors of {width} dimensions from the encoder {adapter.details['encoder']}",
            expected=f"{min(held)}, as it gave for the rows before",
            fix="see which model it reads with; for another one, name that in `encoder`",
        )
    read = None
    if parts.files:
        with run.warehouse.get_connection() as con:
            # Texts that an interrupted run had read count among them; what they took is not known.
            read = replace(done, texts=before + texts, truncated_rows=count_cut(con, corpus, parts.files))
    return Encoded(encoder, width, tuple(held.get(width, ())), tuple(parts.files), read)


def _read(
    run: StageRun, adapter: StageOutput, unread: Path, texts: int, rows: int, plan: TextPlan, way: Mapping[str, Any],
    parts: VectorParts,
) -> Reading:  # fmt: skip
    """Read the ``texts`` of the file ``unread``, which are those of ``rows`` rows, into ``parts``; what they took."""
    embedding = run.settings.embedding.model_copy(update=way["embedding"])
    reader = Reader(
        about=adapter.details,
        settings=run.settings.model_copy(update={"embedding": embedding}),
        folder=adapter_dir(run.project, run.dataset, adapter.version) if adapter.details["learns"] else None,
        models=run.project.models,
        features=[column.label for column in plan.columns],
        seed=way["seed"] or 0,
    )
    cluster = ray_cluster(run, adapter.details)
    chunks = _read_here(reader, unread, texts) if cluster is None else _read_on_ray(cluster, reader, unread, texts)
    _tell_what_leaves(run, adapter, plan, rows)
    read = Reading(texts)
    with closing(chunks):
        for chunk in chunks:
            parts.add(chunk.hashes, chunk.vectors, chunk.cut)
            read = replace(
                read,
                tokens=read.tokens + chunk.tokens,
                computed=read.computed + chunk.computed,
                seconds=read.seconds + chunk.seconds,
                engine=chunk.engine or read.engine,  # the last knows the longest text
            )
    release_memory()
    return read if cluster is None else replace(read, cluster=cluster.cluster)


def _read_here(reader: Reader, unread: Path, texts: int) -> Generator[ReadTexts]:
    """The texts of the file ``unread``, read in this process; the encoder is open when this returns."""
    return _chunks(open_encoder(reader.about, reader.settings, reader.folder, reader.models), reader, unread, texts)


def _chunks(encoder: Encoder, reader: Reader, unread: Path, texts: int) -> Generator[ReadTexts]:
    with VectorCache(unread.parent) as cache:
        for number, (hashes, clauses) in enumerate(read_unread(unread, CHUNK), start=1):
            with progress.part(number, ceil(texts / CHUNK)):
                done = embed_rows(
                    clauses, encoder, reader.settings.embedding, seed=reader.seed, features=reader.features, cache=cache
                )
            engine = getattr(encoder, "engine", None)
            yield ReadTexts(hashes, done.vectors, done.cut, done.tokens, done.computed, done.seconds, engine)
            cache.forget()  # the chunk is whole


def _read_on_ray(resource: RayCluster, reader: Reader, unread: Path, texts: int) -> Generator[ReadTexts]:
    """The texts of the file ``unread``, read by workers of Ray; parts of it are beside it meanwhile."""
    folder = unread.parent / "parts"
    with resource.attached() as cluster:
        try:
            files = cut_unread(unread, folder, part_size(texts, cluster.workers))
            yield from read_parts(files, texts, reader, cluster)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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
