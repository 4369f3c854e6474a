"""What fewer bits would give: speed, and how much of the segments is left. None of it is offered; this says why."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.reading import texts_of
from benchmarks.speed.setting import Bench
from erasmo_dagster.method.batches import tokenize
from erasmo_dagster.method.engines import PlainEngine
from erasmo_dagster.method.loading import load_model
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.settings import EmbeddingSettings

_ROWS = {"quick": 64, "default": 256, "full": 1_000}
_SEGMENTS = (2, 4, 8)


def measure(bench: Bench) -> Iterator[dict[str, Any]]:
    """Kind of numbers -> ``speed`` over fp32, ``cosine`` of the centred vectors to those of fp32, and ``ari_k`` of the
    k-means segments to those of fp32. ``fp32`` itself has the agreement of two seeds of k-means, for comparison."""
    import torch

    sample = bench.tables.sample("bank", bench.seed, _ROWS[bench.effort])
    found: dict[str, Any] = {}
    loaded = load_model(bench.base(), None, "cpu")
    torch.set_num_threads(bench.threads)
    sequences = tokenize(loaded.tokenizer, texts_of(sample))
    exact, seconds = _read(loaded.model, sequences)
    segments = {k: _segments(exact, k, bench.seed) for k in _SEGMENTS}
    other = {f"ari_{k}": _agreement(segments[k], _segments(exact, k, bench.seed + 1)) for k in _SEGMENTS}
    found[f"fp32 of {bench.tables.called('bank')}"] = {"rows": len(sequences), "speed": 1.0, "cosine": 1.0, **other}
    for kind in ("bf16", "int8"):
        model = loaded.model
        if kind == "bf16":
            model = model.to(torch.bfloat16)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch moves this to another package
                quantize: Any = torch.ao.quantization.quantize_dynamic
                model = quantize(model.float(), {torch.nn.Linear}, dtype=torch.qint8)
        vectors, took = _read(model, sequences)
        found[kind] = {
            "rows": len(sequences),
            "speed": round(seconds / took, 2),
            "cosine": round(_cosine(exact, vectors), 3),
            **{f"ari_{k}": _agreement(segments[k], _segments(vectors, k, bench.seed)) for k in _SEGMENTS},
        }
        if kind == "bf16":
            loaded = load_model(bench.base(), None, "cpu")  # its weights have lost their last bits
        yield found
    del loaded, model
    release_memory()


def _read(model: Any, sequences: list[list[int]]) -> tuple[npt.NDArray[np.float32], float]:
    import torch

    engine = PlainEngine(model, torch.device("cpu"))
    list(engine.read(sequences[:4], [EmbeddingSettings()]))  # what is set up at the first call
    started = time.perf_counter()
    parts = list(engine.read(sequences, [EmbeddingSettings()]))
    seconds = time.perf_counter() - started
    vectors = np.empty((len(sequences), parts[0].vectors[0].shape[1]), dtype=np.float32)
    for part in parts:
        vectors[part.positions] = part.vectors[0]
    return vectors, seconds


def _segments(vectors: npt.NDArray[np.float32], k: int, seed: int) -> npt.NDArray[np.int32]:
    from sklearn.cluster import KMeans

    labels: npt.NDArray[np.int32] = KMeans(k, n_init=10, random_state=seed).fit_predict(vectors)
    return labels


def _agreement(one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return round(float(adjusted_rand_score(one, other)), 3)


def _cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """The mean over rows, of vectors less their mean: what they have in common tells nothing apart."""
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
