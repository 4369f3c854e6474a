"""The sentence encoder that columns of text are read by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.tables.parts import Encode, Floats
from erasmo_dagster.settings import EmbeddingSettings


def text_encoder(model: str, models_dir: Path, *, device: str = "auto") -> Encode:
    """Distinct texts -> float32[n, w] by the sentence encoder ``model``, which is fetched and loaded at the first text.

    Raises ErasmoError, when called, as fetching and loading do.
    """
    opened: list[SentenceTransformerEncoder] = []
    known: dict[str, Floats] = {}

    def encode(texts: Sequence[str]) -> Floats:
        import numpy as np

        new = [text for text in texts if text not in known]
        if new:
            if not opened:
                opened.append(SentenceTransformerEncoder(resolve(model, models_dir), EmbeddingSettings(), device))
            known.update(zip(new, opened[0].encode(new), strict=True))
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, 1), dtype=np.float32)

    return encode
