"""Texts -> vectors by a language model: each text is read once on a machine, and kept with what it took."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quality.memory import so_far
from benchmarks.quality.suite import Sample
from erasmo_dagster.errors import disk_errors
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.textual import join_clauses, write_clauses
from erasmo_dagster.settings import EmbeddingSettings

Floats = npt.NDArray[np.float32]
Batches = Iterator[tuple[npt.NDArray[np.intp], Floats]]
# Texts -> their vectors, batch by batch; the model is loaded by the call.
Load = Callable[[Sequence[str]], Batches]
# Where a model's vectors are kept, and how they are read; the model is fetched by the call.
Open = Callable[[], tuple[Path, Load]]

CODE = 1  # counts changes that make what is kept useless
MIDDLE, LAST = 0, 1  # the two layers of a causal language model that are kept
_ASKED_AT_ONCE = 500


@dataclass(eq=False)
class Reader:
    """A model that reads texts, fetched at the first one; the vectors float32[d] of what it has read are kept.

    Called, it is what columns of text are encoded by: float32[n, d]. ``kept_seconds`` is what the texts asked for took
    that it had read before, each counted once, and ``kept_mb`` the most memory held meanwhile. The model itself is let
    go after every call, so that it is in no other method's memory.
    """

    open: Open
    kept_seconds: float = 0.0
    kept_mb: float = 0.0
    _known: dict[str, Floats] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str]) -> Floats:
        """A vector for each of ``texts``. Raises ErasmoError as fetching and loading do."""
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            file, load = self.open()
            with disk_errors(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(file, timeout=300)) as kept:
                kept.execute("CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, v BLOB, seconds REAL, mb REAL)")
                self._read(load, kept, self._taken(kept, new))
        return np.stack([self._known[text] for text in texts])

    def _taken(self, kept: sqlite3.Connection, texts: Sequence[str]) -> list[str]:
        """Take the vectors that are kept; gives the texts without one."""
        keys = {_key(text): text for text in texts}
        every = list(keys)
        for start in range(0, len(every), _ASKED_AT_ONCE):
            part = every[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(part))
            for key, vector, seconds, mb in kept.execute(f"SELECT * FROM texts WHERE key IN ({marks})", part):
                self._known[keys[key]] = np.frombuffer(vector, dtype=np.float32)
                self.kept_seconds += seconds
                self.kept_mb = max(self.kept_mb, mb)
        return [text for text in texts if text not in self._known]

    def _read(self, load: Load, kept: sqlite3.Connection, texts: Sequence[str]) -> None:
        if not texts:
            return
        read, started = 0, time.monotonic()
        for positions, vectors in load(texts):
            seconds = (time.monotonic() - started) / len(positions)
            for at, vector in zip(positions.tolist(), vectors, strict=True):
                self._known[texts[at]] = vector
                kept.execute(
                    "INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?)",
                    (_key(texts[at]), vector.astype(np.float32).tobytes(), seconds, so_far()),
                )
            read, started = read + len(positions), time.monotonic()
            kept.commit()
        if read < len(texts):
            raise ValueError(f"got vectors of {read} texts, expected {len(texts)}")
        release_memory()


def sentence_reader(model: str, models: Path, cache: Path) -> Reader:
    """Texts by the sentence encoder ``model``, as it pools and scales them."""

    def opened() -> tuple[Path, Load]:
        base = resolve(model, models)

        def load(texts: Sequence[str]) -> Batches:
            from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder

            return SentenceTransformerEncoder(base, EmbeddingSettings()).batches(texts)

        return _file(cache, base), load

    return Reader(opened)


def causal_reader(model: str, models: Path, cache: Path) -> Reader:
    """Texts by the causal language model ``model`` as it is: means over the tokens, of the middle and the last layer.

    Both side by side, as :func:`layer_of` takes them apart.
    """

    def opened() -> tuple[Path, Load]:
        base = resolve(model, models)

        def load(texts: Sequence[str]) -> Batches:
            from transformers import AutoConfig

            from erasmo_dagster.method.encoders.causal_lm import CausalLMEncoder

            layers = int(AutoConfig.from_pretrained(base.path, local_files_only=True).num_hidden_layers)
            ways = [EmbeddingSettings(layer=layers // 2), EmbeddingSettings()]
            for positions, (middle, last) in CausalLMEncoder(base, None, ways[1]).batches_of_ways(texts, ways):
                yield positions, np.concatenate([middle, last], axis=1)

        return _file(cache, base), load

    return Reader(opened)


def layer_of(vectors: Floats, layer: int) -> Floats:
    """The half of :func:`causal_reader`'s vectors that is of a layer: MIDDLE or LAST."""
    return np.split(vectors, 2, axis=1)[layer]


def texts_of(sample: Sample) -> list[str]:
    """Every row as text, its columns in the order of the sample's plan."""
    return [join_clauses(clauses) for clauses in write_clauses(sample.frame, sample.plan).to_list()]


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _file(cache: Path, base: LocalModel) -> Path:
    name = hashlib.sha256(f"{CODE}\n{base.name}\n{base.revision}".encode()).hexdigest()[:24]
    return cache / "texts" / f"{name}.sqlite"
