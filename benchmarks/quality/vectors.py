"""Vectors of rows by an encoder of the project, kept by all that they depend on, with what they took."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.quality.memory import so_far
from erasmo_dagster.errors import disk_errors
from erasmo_dagster.files import whole_file
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.kinds import fit_encoder, identify, open_encoder
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.textual import TextPlan, fit_text, write_clauses
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import DatasetSettings

Floats = npt.NDArray[np.float32]
CODE = 1  # counts changes that make what is kept useless
_DONE, _SPENT = "done.json", "spent.json"


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors float32[n, d]. ``kept_seconds`` is the work that need not be done again, ``peak_mb`` what it held."""

    vectors: Floats
    kept_seconds: float
    peak_mb: float


def embedded(
    frame: pl.DataFrame, settings: DatasetSettings, models: Path, cache: Path, plan: TextPlan | None = None
) -> Embedded:
    """The vector of every row of ``frame``, in canonical column order, by the encoder that ``settings`` name.

    ``plan`` says how the rows become text, by default as fitted on them; a fine-tuned encoder is fitted on them too.
    What is done is kept in ``cache``, an interrupted training or embedding goes on where it stopped.
    """
    about = identify(settings, models)
    plan = fit_text(frame, settings) if plan is None else plan
    clauses: list[list[str]] = write_clauses(frame, plan).to_list()
    kept, peak = 0.0, 0.0
    learnt: Path | None = None
    if about["learns"]:
        trained = settings.adapter.model_dump(mode="json", exclude={"device", "base_model", "forward_tokens"})
        learnt = cache / "encoders" / _digest(about, trained, settings.seed, clauses)

        def fit(folder: Path) -> None:
            fit_encoder(
                clauses,
                plan,
                settings,
                about,
                models_dir=models,
                out=folder / "encoder",
                checkpoints=folder / "training",
                provenance={},
            )

        kept, peak = _once(learnt, fit)
    read = settings.embedding.model_dump(mode="json", include=set(settings.encoder.reads) - {"batch_tokens"})
    home = cache / "vectors" / _digest(about, learnt.name if learnt else None, read, settings.seed, clauses)

    def embed(folder: Path) -> None:
        from safetensors.numpy import save_file

        encoder = open_encoder(about, settings, learnt / "encoder" if learnt else None, models)
        labels = [column.label for column in plan.columns]
        with VectorCache(folder / "parts") as cache:
            result = embed_rows(clauses, encoder, settings.embedding, seed=settings.seed, features=labels, cache=cache)
        save_file({"vectors": np.ascontiguousarray(result.vectors)}, folder / "vectors.safetensors")
        shutil.rmtree(folder / "parts", ignore_errors=True)

    before, most = _once(home, embed)
    from safetensors.numpy import load_file

    vectors: Floats = load_file(home / "vectors.safetensors")["vectors"]
    release_memory()
    return Embedded(vectors, kept + before, max(peak, most))


def _once(folder: Path, work: Callable[[Path], None]) -> tuple[float, float]:
    """Do the work of a folder unless it is done: the seconds spent on it before this call, and the MiB it held then."""
    done = folder / _DONE
    if done.is_file():
        told = json.loads(done.read_text(encoding="utf-8"))
        return told["seconds"], told["peak_mb"]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        before, started = _seconds(folder / _SPENT), time.monotonic()
        try:
            work(folder)
        finally:
            spent = before + time.monotonic() - started
            _write(folder / _SPENT, json.dumps(spent))
        _write(done, json.dumps({"seconds": spent, "peak_mb": so_far()}))
    return before, 0.0


def _seconds(file: Path) -> float:
    return float(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else 0.0


def _write(file: Path, text: str) -> None:
    with whole_file(file) as written:
        written.write_text(text, encoding="utf-8")


def _digest(*parts: Any) -> str:
    told = json.dumps([CODE, *parts], sort_keys=True, ensure_ascii=False)
    return sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]
