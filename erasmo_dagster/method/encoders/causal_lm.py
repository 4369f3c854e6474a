"""The encoder that reads a causal language model's hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from erasmo_dagster import progress
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.batches import Sequences, tokenize
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.engines import Engine, NotServedError, PlainEngine, SharedPrefixEngine
from erasmo_dagster.method.loading import load_model
from erasmo_dagster.settings import EmbeddingSettings

_TOKENIZED = 1_000  # texts that are made tokens together


class CausalLMEncoder:
    """Hidden states of a causal language model, pooled over each text's own tokens (arXiv 2410.03738, section 3.3).

    A text's vector does not depend on the texts beside it, up to rounding. Prefixes that texts share are computed once
    (:class:`~erasmo_dagster.method.engines.SharedPrefixEngine`); a model that cannot be read so is read in padded
    batches, and ``engine`` says which it is. After ``encode``, ``truncated`` tells for each text whether it was longer
    than the model or ``settings.max_length`` takes, ``truncated_rows`` counts those, ``tokens`` counts the texts'
    tokens, and ``distinct_tokens`` those that were computed.
    """

    def __init__(
        self, base: LocalModel, adapter: Path | None, settings: EmbeddingSettings, device: str = "auto"
    ) -> None:
        self.settings = settings
        self._loaded = load_model(base, adapter, device)
        self.max_length = min(settings.max_length or self._loaded.max_length, self._loaded.max_length)
        self.truncated = np.zeros(0, dtype=bool)
        self.tokens = self.distinct_tokens = 0
        self._name = base.name
        self.engine = "shared prefixes"
        self._engine: Engine
        try:
            self._engine = SharedPrefixEngine(self._loaded.model, self._loaded.device, settings.batch_tokens)
        except NotServedError as unserved:
            self._engine = self._plain(unserved)

    @property
    def truncated_rows(self) -> int:
        """Texts of the last call that were cut."""
        return int(self.truncated.sum())

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One float32 vector a text: [n, hidden size]. Raises ErasmoError for a layer that the model lacks."""
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """As ``encode``, batch by batch."""
        for positions, (vectors,) in self.batches_of_ways(texts, [self.settings]):
            yield positions, vectors

    def batches_of_ways(
        self, texts: Sequence[str], ways: Sequence[EmbeddingSettings]
    ) -> Iterator[tuple[npt.NDArray[np.intp], list[np.ndarray]]]:
        """As ``batches``, under each of several settings of pooling, layer and length: every text is read once."""
        sequences = self._sequences(texts)
        if isinstance(self._engine, SharedPrefixEngine):
            try:
                yield from self._read(self._engine, sequences, ways)
                return
            except NotServedError as unserved:  # before the first vector: it is told by the longest text
                self._engine.release()
                self._engine = self._plain(unserved)
        yield from self._read(self._engine, sequences, ways)

    def _read(
        self, engine: Engine, sequences: Sequences, ways: Sequence[EmbeddingSettings]
    ) -> Iterator[tuple[npt.NDArray[np.intp], list[np.ndarray]]]:
        self.distinct_tokens = engine.tokens(sequences)
        with progress.bar("embedding", self.distinct_tokens, "tokens") as shown:
            for part in engine.read(sequences, ways):
                yield part.positions, part.vectors
                shown.update(part.tokens)

    def _plain(self, unserved: NotServedError) -> PlainEngine:
        """Padded batches, and why."""
        self.engine = f"padded batches, since shared prefixes do not serve {self._name}: {unserved}"
        progress.note(f"Embedding by {self.engine}")
        return PlainEngine(self._loaded.model, self._loaded.device, self.settings.batch_tokens)

    def _sequences(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        sequences: list[npt.NDArray[np.int32]] = []
        self.truncated = np.zeros(len(texts), dtype=bool)
        # A few at a time: as lists of Python's numbers, tokens take ten times the memory.
        for start in range(0, len(texts), _TOKENIZED):
            for ids in tokenize(self._loaded.tokenizer, texts[start : start + _TOKENIZED]):
                self.truncated[len(sequences)] = len(ids) > self.max_length
                sequences.append(np.array(ids[: self.max_length] or [self._stand_in()], dtype=np.int32))
        self.tokens = sum(map(len, sequences))
        return sequences

    def _stand_in(self) -> int:
        """The token that stands for a text of none."""
        tokenizer = self._loaded.tokenizer
        known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        return next((int(token) for token in known if token is not None), 0)
