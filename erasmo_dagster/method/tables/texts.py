"""The sentence encoder that columns of text are read by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.tables.parts import Floats
from erasmo_dagster.settings import EmbeddingSettings

# Texts whose vectors are kept from one call to the next: 150 MB in 384 dimensions.
MOST_KEPT = 100_000


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
    """Texts -> float32[n, w]. Copies and pickles carry neither the model nor the texts."""

    def __init__(self, model: str, models_dir: Path, device: str) -> None:
        self._given = (model, models_dir, device)
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
            read = self._open().encode(new)
            found |= zip(new, read, strict=True)
            if len(distinct) <= MOST_KEPT:
                if len(self._known) + len(new) > MOST_KEPT:
                    self._known = {text: vector for text, vector in self._known.items() if text in found}
                # A copy each: one vector that is kept would hold all that were read with it.
                self._known |= {text: vector.copy() for text, vector in zip(new, read, strict=True)}
        return np.stack([found[text] for text in texts])

    def _open(self) -> SentenceTransformerEncoder:
        if self._opened is None:
            model, models_dir, device = self._given
            try:
                self._opened = SentenceTransformerEncoder(resolve(model, models_dir), EmbeddingSettings(), device)
            except ErasmoError as error:
                raise TextModelError(model, error) from error
        return self._opened

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


def text_encoder(model: str, models_dir: Path, *, device: str = "auto") -> TextEncoder:
    """The sentence encoder ``model``, which is fetched and loaded at the first text."""
    return TextEncoder(model, models_dir, device)
