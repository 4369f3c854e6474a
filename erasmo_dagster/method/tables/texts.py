"""The sentence encoder that columns of text are read by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.tables.parts import Floats
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import EmbeddingSettings

# Texts whose vectors are kept from one call to the next: 150 MB in 384 dimensions.
MOST_KEPT = 100_000
_READING = 1  # raised where the same model reads texts otherwise, so that vectors of before are not taken for its own


class TextModelError(ErasmoError):
    """The sentence encoder cannot be fetched or loaded."""

    def __init__(self, model: str, why: ErasmoError) -> None:
        fix = why.fix.replace("adapter.base_model", "clustering.text_model")
        super().__init__(
            f"{why.got} (clustering.text_model is {model})",
            expected=why.expected,
            fix="; ".join(filter(None, [fix, "or set clustering.method to kmeans++, which needs no sentence encoder"])),
        )


class TextEncoder:
    """Texts -> float32[n, w]. Copies and pickles carry neither the model nor the texts.

    What it reads is kept in a folder of the model's own in ``kept``, where one is given, and read there the next time.
    """

    def __init__(self, model: str, models_dir: Path, device: str, kept: Path | None = None) -> None:
        self._given = (model, models_dir, device, kept)
        self._found: LocalModel | None = None
        self._opened: SentenceTransformerEncoder | None = None
        self._known: dict[str, Floats] = {}

    def __call__(self, texts: Sequence[str]) -> Floats:
        """A vector for each of ``texts``; those that it has read lately are not read again.

        Raises TextModelError as fetching and loading raise ErasmoError.
        """
        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if text not in self._known]
        found = {text: self._known[text] for text in distinct if text in self._known}
        if new:
            read = self._read(new)
            found |= zip(new, read, strict=True)
            if len(distinct) <= MOST_KEPT:
                if len(self._known) + len(new) > MOST_KEPT:
                    self._known = {text: vector for text, vector in self._known.items() if text in found}
                # A copy each: one vector that is kept would hold all that were read with it.
                self._known |= {text: vector.copy() for text, vector in zip(new, read, strict=True)}
        return np.stack([found[text] for text in texts])

    def _read(self, texts: list[str]) -> Floats:
        """The vectors of different texts: those on the disk, and what the model reads of the others."""
        kept = self._given[3]
        if kept is None or len(texts) > MOST_KEPT:
            return self._open().encode(texts)
        identity = sha256(f"{_READING} {self._model().revision}".encode()).hexdigest()[:16]
        with VectorCache(kept / identity) as cache:
            if len(cache) > MOST_KEPT:
                cache.remove()
            return assembled(len(texts), self._batches(texts, cache))

    def _batches(self, texts: list[str], cache: VectorCache) -> Iterator[Batch]:
        places, known, _ = cache.known(texts)
        if len(places):
            yield places, known
        lacking = np.setdiff1d(np.arange(len(texts)), places)
        if len(lacking):
            others = [texts[at] for at in lacking.tolist()]
            for batch, vectors in self._open().batches(others):
                cache.keep([others[at] for at in batch.tolist()], vectors)
                yield lacking[batch], vectors

    def _model(self) -> LocalModel:
        if self._found is None:
            model, models_dir = self._given[:2]
            try:
                self._found = resolve(model, models_dir)
            except ErasmoError as error:
                raise TextModelError(model, error) from error
        return self._found

    def _open(self) -> SentenceTransformerEncoder:
        if self._opened is None:
            found = self._model()
            try:
                self._opened = SentenceTransformerEncoder(found, EmbeddingSettings(), self._given[2])
            except ErasmoError as error:
                raise TextModelError(self._given[0], error) from error
        return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


def text_encoder(model: str, models_dir: Path, *, device: str = "auto", kept: Path | None = None) -> TextEncoder:
    """The sentence encoder ``model``, which is fetched and loaded at the first text that it has to read.

    ``kept`` is a folder for the vectors of what it has read, at most about MOST_KEPT texts.
    """
    return TextEncoder(model, models_dir, device, kept)
