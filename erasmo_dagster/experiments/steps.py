"""The work that cells share: corpora, fitted encoders and vectors, each done once and kept under its id.

A step is a folder of the cache. It is done when ``done.json`` is there, which is written last, so that what a killed
run has left is done again, or gone on with: training from its last checkpoint, embedding from the last vectors kept.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.experiments.cells import Embedding, Table
from erasmo_dagster.experiments.readings import Late, ReadsForAll
from erasmo_dagster.files import whole_file
from erasmo_dagster.method.baselines import baseline_vectors
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.kinds import fit_encoder, open_encoder
from erasmo_dagster.method.endpoints import tell_what_leaves
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.summaries import (
    Summarizer,
    TextRankSummarizer,
    long_texts,
    open_summarizer,
    stays_here,
    summarized_columns,
)
from erasmo_dagster.method.textual import TextPlan, fit_text, shuffle_clauses, write_clauses
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import DatasetSettings, Project, SummarizeSettings
from erasmo_dagster.settings.naming import is_here
from erasmo_dagster.store.summaries import read_summaries, write_summaries
from erasmo_dagster.store.warehouse import open_warehouse

Floats = npt.NDArray[np.float32]
_DONE, _SPENT = "done.json", "spent.json"


@dataclass(frozen=True, eq=False)
class Corpus:
    """A table's rows as clauses, in the rows' order."""

    rows: list[list[str]]
    plan: TextPlan


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors float32[rows, d], and what they took: costs of whole steps, None where nothing was done or counted."""

    vectors: Floats
    train_seconds: float | None
    embed_seconds: float | None
    train_tokens: int | None
    embed_tokens: int | None


class Steps:
    """Does the steps of one run of an experiment. ``now`` is told what is under way, ``on_work`` of work done, by the
    id of the step that it was. ``embeddings`` are all that will be asked for, so that what a model has read serves
    every one of them."""

    def __init__(
        self,
        project: Project,
        now: Callable[[str], None],
        on_work: Callable[[str], None],
        embeddings: Iterable[Embedding] = (),
    ) -> None:
        self.project = project
        self._alike: dict[str, dict[str, Embedding]] = {}
        for one in embeddings:
            if one.reading is not None:
                self._alike.setdefault(one.reading, {})[one.id] = one
        self._now, self._on_work = now, on_work
        self._faults: dict[str, ErasmoError] = {}

    @property
    def folder(self) -> Path:
        """Where the steps are kept; it may be deleted whole, at the price of doing them again."""
        return cache_dir(self.project)

    def is_done(self, step: str) -> bool:
        """Whether a step need not be done."""
        return (self.folder / step / _DONE).is_file()

    def vectors(self, embedding: Embedding) -> Vectors:
        """The vectors of a table's rows. Raises ErasmoError as the encoder does, or has done in this run."""
        if embedding.fault is not None:
            raise embedding.fault
        self._step(embedding.id, embedding, self._embed)
        about = self._told(embedding.id)
        trained = self._told(embedding.learnt) if embedding.learnt else about
        return Vectors(
            _read_vectors(self.folder / embedding.id),
            trained.get("train_seconds"),
            about["embed_seconds"],
            trained.get("train_tokens"),
            about["embed_tokens"],
        )

    def fit(self, embedding: Embedding) -> None:
        """Fit the encoder of an embedding that has one to fit, which :meth:`vectors` does by itself."""
        if embedding.learnt is not None:
            self._step(embedding.learnt, embedding, self._fit)

    def write_corpora(self, embedding: Embedding) -> None:
        """Write the texts of an embedding and of what it is trained on, which the other steps do by themselves."""
        for table, settings, step in (
            (embedding.table, embedding.settings, embedding.corpus),
            (embedding.trained_on, embedding.trained_with, embedding.trained_corpus),
        ):
            if not self.is_done(step):
                self._corpus(table, settings, step)

    def plan(self, embedding: Embedding) -> TextPlan:
        """How the rows of a table become text: what each column is."""
        return self._corpus(embedding.table, embedding.settings, embedding.corpus).plan

    def _step(self, step: str, of: Embedding, work: Callable[[Embedding, Path], dict[str, Any]]) -> None:
        """Do a step unless it is done; one that has failed in this run fails again without being tried."""
        if step in self._faults:
            raise self._faults[step]
        folder = self.folder / step
        if self.is_done(step):
            return
        try:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                told = work(of, folder)
                _write(folder / _DONE, json.dumps(told))
        except ErasmoError as fault:
            self._faults[step] = fault
            raise
        self._on_work(step)

    def _told(self, step: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / step / _DONE).read_text(encoding="utf-8"))
        return told

    def _corpus(self, table: Table, settings: DatasetSettings, step: str) -> Corpus:
        folder = self.folder / step
        if not self.is_done(step):
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                plan = fit_text(table.frame, settings)
                frame = self._summarized(table.frame, plan, settings)
                pl.DataFrame({"clauses": write_clauses(frame, plan)}).write_parquet(folder / "corpus.parquet")
                _write(folder / "plan.json", plan.model_dump_json())
                _write(folder / _DONE, json.dumps({"rows": frame.height}))
        plan = TextPlan.model_validate_json((folder / "plan.json").read_bytes())
        return Corpus(pl.read_parquet(folder / "corpus.parquet", glob=False)["clauses"].to_list(), plan)

    def _fit(self, embedding: Embedding, folder: Path) -> dict[str, Any]:
        table, settings = embedding.trained_on, embedding.trained_with
        assert embedding.about is not None
        corpus = self._corpus(table, settings, embedding.trained_corpus)
        self._now(f"fitting {embedding.arm.name} on {table.dataset}")
        with _stopwatch(folder) as spent:
            told = fit_encoder(
                corpus.rows,
                corpus.plan,
                settings,
                embedding.about,
                models_dir=self.project.models,
                out=folder / "encoder",
                checkpoints=folder / "training",
                provenance={"dataset": table.dataset, "variant": table.variant, "corpus": embedding.trained_corpus},
            )
        release_memory()
        training = told.get("training", {})
        return {"train_seconds": training.get("seconds", spent()), "train_tokens": training.get("tokens"), **told}

    def _embed(self, embedding: Embedding, folder: Path) -> dict[str, Any]:
        corpus = self._corpus(embedding.table, embedding.settings, embedding.corpus)
        arm, settings, about = embedding.arm, embedding.settings, embedding.about
        if about is None:
            return self._baseline(embedding, corpus, folder)
        self.fit(embedding)
        self._now(f"embedding {embedding.table.dataset} with {arm.name}")
        learnt = self.folder / embedding.learnt / "encoder" if embedding.learnt else None
        encoder = Late(lambda: open_encoder(about, settings, learnt, self.project.models))
        if (address := settings.encoder.remote) is not None:
            columns = [column.name for column in corpus.plan.columns]
            tell_what_leaves(address, embedding.table.dataset, len(corpus.rows), columns)
        rows: Sequence[Sequence[str]] = corpus.rows
        if arm.order == "random":
            rng = np.random.default_rng(embedding.seed)
            rows = [shuffle_clauses(row, rng) for row in rows]
        labels = [column.label for column in corpus.plan.columns]
        parts = folder / "parts"
        others = [o for o in self._alike_but(embedding) if not self.is_done(o.id) and o.id not in self._faults]
        with ExitStack() as stack:
            spent = stack.enter_context(_stopwatch(folder))
            cache = stack.enter_context(VectorCache(parts))
            interrupted = len(cache) > 0
            read = partial(
                embed_rows, rows, settings=settings.embedding, seed=embedding.seed, features=labels, cache=cache
            )
            caches = [stack.enter_context(VectorCache(self.folder / other.id / "parts")) for other in others]
            ways = [one.settings.embedding for one in (embedding, *others)]
            try:
                result = read(ReadsForAll(encoder, ways, caches) if others else encoder)
            except ErasmoError:
                if not others:
                    raise
                # Perhaps for one of the others, such as a layer that the model lacks: now for this one alone.
                others, result = [], read(encoder)
        del encoder
        for other in others:
            (self.folder / other.id).mkdir(exist_ok=True)
            _write(self.folder / other.id / _SPENT, json.dumps(spent()))
        release_memory()
        _write_vectors(folder, result.vectors)
        shutil.rmtree(parts, ignore_errors=True)
        tokens = result.tokens if result.tokens and not interrupted else self._tokens_of(embedding)
        return {"embed_seconds": spent(), "embed_tokens": tokens, "truncated_rows": result.truncated_rows}

    def _alike_but(self, embedding: Embedding) -> list[Embedding]:
        alike = self._alike.get(embedding.reading or "", {})
        return [other for other in alike.values() if other.id != embedding.id]

    def _tokens_of(self, embedding: Embedding) -> int | None:
        """The tokens of the pass that these vectors are of, where it was another's."""
        done = (other for other in self._alike_but(embedding) if self.is_done(other.id))
        return next((self._told(other.id)["embed_tokens"] for other in done), None)

    def _baseline(self, embedding: Embedding, corpus: Corpus, folder: Path) -> dict[str, Any]:
        table, options = embedding.table, embedding.arm.peer
        assert options is not None
        self._now(f"embedding {table.dataset} with {embedding.arm.name}")
        result = baseline_vectors(
            table.frame, corpus.plan, options, seed=embedding.seed, models_dir=self.project.models
        )
        _write_vectors(folder, result.vectors)
        return {
            "embed_seconds": result.embed_seconds,
            "embed_tokens": result.embed_tokens or None,
            "train_seconds": result.train_seconds or None,
            "train_tokens": result.train_tokens or None,
        }

    def _summarized(self, frame: pl.DataFrame, plan: TextPlan, settings: DatasetSettings) -> pl.DataFrame:
        """``frame`` with summaries in the place of long texts, where the settings ask for them."""
        how = settings.text.summarize
        if how is None:
            return frame
        private = {*settings.sensitive, *(column.name for column in plan.columns if column.sensitive)}
        for name in summarized_columns(frame, plan, how):
            texts = long_texts(frame[name], how)
            if not texts:
                continue
            self._now(f"summarizing {name}")
            here = stays_here(name, how, private)
            if how.by == "endpoint" and not here and not is_here(how.url or ""):
                progress.note(f"Long texts of the column {name} ({len(texts):,}) go to an endpoint on another machine.")
            summaries = self._summaries(_summarizer(how, self.project.models, here), texts)
            frame = frame.with_columns(frame[name].replace(list(summaries), list(summaries.values())))
        release_memory()
        return frame

    def _summaries(self, summarizer: Summarizer, texts: Sequence[str]) -> dict[str, str]:
        """Text -> summary; what is made is kept in the warehouse chunk by chunk, for datasets and experiments alike."""
        timeout = self.project.settings.lock_timeout
        with open_warehouse(self.project.warehouse, lock_timeout=timeout) as con:
            summaries = read_summaries(con, summarizer.identity, texts)
        missing = [text for text in texts if text not in summaries]
        for start in range(0, len(missing), summarizer.chunk):
            chunk = missing[start : start + summarizer.chunk]
            made = dict(zip(chunk, summarizer.summarize(chunk), strict=True))
            with open_warehouse(self.project.warehouse, lock_timeout=timeout) as con:
                write_summaries(con, summarizer.identity, made)
            summaries |= made
        return summaries


def cache_dir(project: Project) -> Path:
    """Folder of the steps of all experiments of a project."""
    return project.home / "experiments" / "cache"


def _summarizer(how: SummarizeSettings, models: Path, here: bool) -> Summarizer:
    return TextRankSummarizer(how.sentences) if here else open_summarizer(how, models)


@contextmanager
def _stopwatch(folder: Path) -> Iterator[Callable[[], float]]:
    """The seconds of this block, those of interrupted runs before it included."""
    file, started = folder / _SPENT, time.monotonic()
    before = float(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else 0.0
    total = before

    try:
        yield lambda: total
    finally:
        total = before + time.monotonic() - started
        _write(file, json.dumps(total))


def _read_vectors(folder: Path) -> Floats:
    from safetensors.numpy import load_file

    vectors: Floats = load_file(folder / "vectors.safetensors")["vectors"]
    return vectors


def _write_vectors(folder: Path, vectors: Floats) -> None:
    from safetensors.numpy import save_file

    save_file({"vectors": np.ascontiguousarray(vectors, dtype=np.float32)}, folder / "vectors.safetensors")


def _write(file: Path, text: str) -> None:
    with whole_file(file) as written:
        written.write_text(text, encoding="utf-8")
