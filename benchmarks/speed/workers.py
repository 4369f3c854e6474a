"""One worker of Ray and two: how much faster two are, what a cluster costs beside the work, and in what memory.

Every worker has one core. Beside them stand this project's own process with one thread, and two such processes side by
side, which share nothing: what the machine itself gives for a second core.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from benchmarks.quality.memory import Peak
from benchmarks.speed.setting import Bench
from erasmo_dagster import progress
from erasmo_dagster.distributed.cluster import Cluster, attached
from erasmo_dagster.distributed.embedding import Reader, part_size, read_parts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.encoders.kinds import identify
from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.method.textual import write_clauses
from erasmo_dagster.settings import AdapterSettings, DatasetSettings, ExecutionSettings
from erasmo_dagster.store.vector_parts import VectorParts
from erasmo_dagster.store.vectors import cut_unread

TABLE = "bank"
STORE_MB = 128  # what Ray's object store is asked to keep to
_FEW = 16  # texts, which take what a cluster costs and next to nothing beside
# Vectors as wide as the default model's, by an encoder that computes nothing.
_FREE = """
import numpy as np
from erasmo_dagster.settings import EncoderOptions

class Free:
    class Options(EncoderOptions):
        name: str = "free"
    def __init__(self, options):
        pass
    def encode(self, texts):
        return np.ones((len(texts), 576), np.float32)
"""
_BATCH = 32  # rows of an optimizer step: sixteen for each of two workers
_TOKENIZING = 3.0  # seconds
_LOOK = 0.5  # seconds between two looks at the memory of Ray's processes
_MIB = 2**20

Clauses = list[list[str]]


@dataclass(frozen=True)
class _Plan:
    """Rows to embed, tokens to train on, and rows of vectors that cost nothing, which show what Ray itself takes."""

    rows: int
    tokens: int
    free_rows: int


_PLANS = {
    "quick": _Plan(rows=160, tokens=2_000, free_rows=2_000),
    "default": _Plan(rows=1_000, tokens=8_000, free_rows=200_000),
    "full": _Plan(rows=5_000, tokens=40_000, free_rows=1_000_000),
}


@dataclass(frozen=True)
class _Asked:
    """What a measurement is made of; all of it goes to another process."""

    models: Path
    base_model: str
    seed: int


def measure(bench: Bench) -> Iterator[dict[str, Any]]:
    """The figures after every measurement, by ``embedding``, ``tokenizing``, ``transport`` and ``finetuning``.

    Each has, by way of computing (``local``, ``side_by_side``, ``ray_1``, ``ray_2``), the ``seconds`` of the work, from
    the cluster being attached to the last result, and the ``work`` done in them. Of Ray also ``start_s`` until it is
    attached, ``few_s``, which is what sixteen texts take (workers, model and all), and MiB at the peak: of the run's
    own process, of the largest worker, and of all other processes of Ray together.
    """
    plan = _PLANS[bench.effort]
    asked = _Asked(bench.models, bench.base_model, bench.seed)
    sample = bench.tables.sample(TABLE, bench.seed, plan.rows)
    texts = sorted(write_clauses(sample.frame, sample.plan).to_list())
    half = len(texts) // 2
    training = bench.tables.sample(TABLE, bench.seed, plan.tokens // 40)
    rows = write_clauses(training.frame, training.plan).to_list()
    free = [[f"row is {number:07}"] for number in range(plan.free_rows)]
    work: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        ("embedding", "local", partial(_locally, asked, [texts])),
        ("embedding", "side_by_side", partial(_locally, asked, [texts[:half], texts[half:]])),
        *(("embedding", f"ray_{n}", partial(_alone, _embed_on_ray, asked, texts, n)) for n in (1, 2)),
        ("tokenizing", "local", partial(_alone, _tokenize, asked, texts)),
        *(("transport", f"ray_{n}", partial(_alone, _carry, asked, free, n)) for n in (1, 2)),
        ("finetuning", "local", partial(_alone, _train, asked, rows, plan.tokens, 0)),
        *(("finetuning", f"ray_{n}", partial(_alone, _train, asked, rows, plan.tokens, n)) for n in (1, 2)),
    ]
    found: dict[str, Any] = {}
    with progress.bar("workers", len(work), "measurements") as shown:
        for what, way, measured in work:
            key = {"part": "workers", "what": what, "way": way, "rows": sample.id, "plan": repr(plan)}
            found.setdefault(what, {})[way] = bench.pieces.measured(measured, **key)
            shown.update(1)
            yield {name: {**ways, **figures_of(ways)} for name, ways in found.items()}


def figures_of(ways: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``rate`` of each way without what sixteen texts take, and ``speedup``, ``machine`` and ``overhead`` by them.

    Where the work takes no longer than those, it is part of the rate: too little was left to tell them apart.
    """
    rate = {way: told["work"] / _seconds(told) for way, told in ways.items()}
    figures: dict[str, Any] = {"rate": {way: round(value, 2) for way, value in rate.items()}}
    if {"ray_1", "ray_2"} <= rate.keys():
        figures["speedup"] = round(rate["ray_2"] / rate["ray_1"], 3)
        figures["speedup_whole"] = round(_whole(ways["ray_1"]) / _whole(ways["ray_2"]), 3)
    if {"local", "side_by_side"} <= rate.keys():
        figures["machine"] = round(rate["side_by_side"] / rate["local"], 3)
    if {"local", "ray_1"} <= rate.keys():
        figures["overhead"] = round(rate["local"] / rate["ray_1"] - 1, 4)
    return figures


def _seconds(told: Mapping[str, Any]) -> float:
    seconds, few = float(told["seconds"]), float(told.get("few_s", 0.0))
    return seconds - few if seconds > 2 * few else seconds


def _whole(told: Mapping[str, Any]) -> float:
    return float(told["start_s"] + told["seconds"])


# --- in processes of their own -------------------------------------------------------------------


def _alone(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_quietly, work, *given).result()


def _quietly(work: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    quiet_libraries()
    with progress.hidden():
        return work(*given)


def _locally(asked: _Asked, parts: Sequence[Clauses]) -> dict[str, Any]:
    """Each part read by a process of one thread, all at the same time; the seconds are the slowest one's."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(parts), mp_context=context) as pool:
        ready = manager.Barrier(len(parts))
        done = [pool.submit(_quietly, _read, asked, part, ready) for part in parts]
        told = [one.result() for one in done]
    return {
        "work": sum(one["work"] for one in told),
        "seconds": max(one["seconds"] for one in told),
        "tokens_computed": sum(one["tokens_computed"] for one in told),
        "driver_mb": max(one["driver_mb"] for one in told),
    }


def _read(asked: _Asked, texts: Clauses, ready: Any) -> dict[str, Any]:
    import torch

    from erasmo_dagster.method.embedding import embed_rows
    from erasmo_dagster.method.encoders.kinds import open_encoder

    torch.set_num_threads(1)
    reader = _causal_lm(asked)
    with Peak() as peak:
        encoder = open_encoder(reader.about, reader.settings, reader.folder, reader.models)
        read = partial(
            embed_rows, encoder=encoder, settings=reader.settings.embedding, seed=0, features=reader.features
        )
        read(texts[:2])  # what is set up at the first call
        ready.wait()
        started = time.monotonic()
        done = read(texts)
        seconds = time.monotonic() - started
    return _told(len(texts), seconds, tokens_computed=done.computed, driver_mb=peak.mb)


def _tokenize(asked: _Asked, texts: Clauses) -> dict[str, Any]:
    """Tokens that one core makes of the texts, over and over for some seconds."""
    from erasmo_dagster.method.base_models import resolve
    from erasmo_dagster.method.batches import tokenize
    from erasmo_dagster.method.loading import load_tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    base = resolve(asked.base_model, asked.models)
    tokenizer = load_tokenizer(base.path, base.name, "")
    written = [", ".join(clauses) for clauses in texts]
    tokens, started = 0, time.monotonic()
    while time.monotonic() - started < _TOKENIZING:
        tokens += sum(map(len, tokenize(tokenizer, written)))
    return _told(tokens, time.monotonic() - started)


def _embed_on_ray(asked: _Asked, texts: Clauses, workers: int) -> dict[str, Any]:
    return _read_on_ray(_causal_lm(asked), texts, workers)


def _carry(asked: _Asked, texts: Clauses, workers: int) -> dict[str, Any]:
    """Vectors of the usual width that cost nothing: what is left is all that is around a model."""
    with tempfile.TemporaryDirectory(prefix="erasmo-speed-") as name:
        info = Path(name) / "free_encoder-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: free-encoder\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[erasmo_dagster.encoders]\nfree = free_encoder:Free\n")
        (Path(name) / "free_encoder.py").write_text(_FREE)
        sys.path.insert(0, name)
        # Ray's processes find it as if it were installed.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [name, os.environ.get("PYTHONPATH")]))
        return _read_on_ray(_reader(asked.models, {"name": "free"}), texts, workers)


def _read_on_ray(reader: Reader, texts: Clauses, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="erasmo-speed-") as name, Peak() as peak, _memory() as memory:
        folder, began = Path(name), time.monotonic()
        with attached(_execution(workers), folder) as cluster:
            attached_s = time.monotonic() - began
            few_s, _ = _stream(reader, texts[:_FEW], cluster, folder / "few")
            seconds, computed = _stream(reader, texts, cluster, folder / "all")
    more = {"start_s": round(attached_s, 2), "few_s": round(few_s, 2), "driver_mb": peak.mb, **memory}
    return _told(len(texts), seconds, tokens_computed=computed, **more)


def _stream(reader: Reader, texts: Clauses, cluster: Cluster, folder: Path) -> tuple[float, int]:
    folder.mkdir()
    unread = folder / "unread.parquet"
    hashes = [f"{number:012}" for number in range(len(texts))]
    pl.DataFrame({"text_hash": hashes, "clauses": texts}).write_parquet(unread)
    started, rows, computed = time.monotonic(), 0, 0
    files = cut_unread(unread, folder / "parts", part_size(len(texts), cluster.workers))
    kept = VectorParts(folder / "read")
    for part in read_parts(files, len(texts), reader, cluster):
        kept.add(part.hashes, part.vectors, part.cut)
        rows, computed = rows + len(part.hashes), computed + part.computed
    if rows != len(texts):
        raise ErasmoError(f"Got {rows} vectors of {len(texts)} texts from Ray")
    return time.monotonic() - started, computed


def _train(asked: _Asked, rows: Clauses, tokens: int, workers: int) -> dict[str, Any]:
    """The same training by one process (``workers`` 0) or by workers of Ray, a step's rows being divided among them."""
    import torch

    from erasmo_dagster.distributed.training import fine_tune_on_ray
    from erasmo_dagster.method.adapter import fine_tune
    from erasmo_dagster.method.base_models import resolve

    torch.set_num_threads(1)
    base: LocalModel = resolve(asked.base_model, asked.models)
    settings = AdapterSettings(
        max_tokens=tokens, batch_size=_BATCH, eval_fraction=0.0, eval_every=1_000_000, device="cpu"
    )
    with tempfile.TemporaryDirectory(prefix="erasmo-speed-") as name, Peak() as peak, _memory() as memory:
        folder, began = Path(name), time.monotonic()
        given: dict[str, Any] = {
            "seed": asked.seed,
            "out": folder / "adapter",
            "checkpoints": folder / "training",
            "provenance": {},
        }
        if workers:
            attach = partial(attached, _execution(workers), folder)
            result = fine_tune_on_ray(rows, base, settings, attach=attach, **given)
        else:
            result = fine_tune(rows, base, settings, **given)
        whole = time.monotonic() - began
    more = {"start_s": round(whole - result.seconds, 2), "steps": result.steps, "driver_mb": peak.mb, **memory}
    return _told(result.tokens, result.seconds, **more)


def _told(work: int, seconds: float, **more: Any) -> dict[str, Any]:
    rounded = {name: round(value, 1) if name.endswith("_mb") else value for name, value in more.items()}
    return {"work": work, "seconds": round(seconds, 3), **rounded}


def _causal_lm(asked: _Asked) -> Reader:
    return _reader(asked.models, {"name": "causal-lm", "model": asked.base_model})


def _reader(models: Path, encoder: dict[str, Any]) -> Reader:
    settings = DatasetSettings.model_validate({"source": {"path": "t.csv"}, "key": "id", "encoder": encoder})
    return Reader(identify(settings, models), settings, None, models, [], 0)


def _execution(workers: int) -> ExecutionSettings:
    return ExecutionSettings(engine="ray", workers=workers, object_store_mb=STORE_MB, dashboard=False)


@contextmanager
def _memory() -> Iterator[dict[str, float]]:
    """Fill in ``worker_mb`` and ``ray_mb`` at the end: what Ray's processes hold of their own, at the most."""
    peaks, over = {"worker_mb": 0.0, "ray_mb": 0.0}, threading.Event()

    def look() -> None:
        while not over.wait(_LOOK):
            workers, others = 0.0, 0.0
            for process in psutil.Process().children(recursive=True):
                try:
                    held, title = process.memory_full_info().uss / _MIB, " ".join(process.cmdline())
                except psutil.Error:
                    continue
                if any(name in title for name in ("MapWorker", "PartReader", "RayTrainWorker")):
                    workers = max(workers, held)
                else:
                    others += held
            peaks["worker_mb"], peaks["ray_mb"] = max(peaks["worker_mb"], workers), max(peaks["ray_mb"], others)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield peaks
    finally:
        over.set()
        looking.join()
        if peaks["worker_mb"] == peaks["ray_mb"] == 0.0:
            peaks.clear()
