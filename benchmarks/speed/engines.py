"""What reads rows into vectors: this project, the first paper's procedure, sentence-transformers with equal weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.encoders.base import BatchEncoder

Floats = npt.NDArray[np.float32]

BATCH = 32  # sentence-transformers' own default


def sentence_transformer(base: LocalModel, max_length: int, device: str) -> Any:
    """The blocks of a causal language model and the mean over each text's own tokens, in sentence-transformers.

    Weights, number format and most tokens are those of this project's encoder on the same device.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from erasmo_dagster.method.loading import pick_device

    place = pick_device(device)
    half = place.type == "cuda" and torch.cuda.is_bf16_supported()
    blocks = Transformer(
        str(base.path),
        model_kwargs={
            "use_safetensors": True,
            "local_files_only": True,
            "dtype": torch.bfloat16 if half else torch.float32,
        },
        max_seq_length=max_length,
        # Said outright: where the tokenizer has a chat template, every text would be put into a chat.
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    if blocks.tokenizer.pad_token is None:  # GPT-2 and its like; padding is masked
        blocks.tokenizer.pad_token = blocks.tokenizer.eos_token
    width = blocks.auto_model.config.get_text_config().hidden_size
    return SentenceTransformer(modules=[blocks, Pooling(width, "mean")], device=str(place))


def blocks_of(model: Any) -> Any:
    """The transformers model within what :func:`sentence_transformer` gives."""
    return model[0].auto_model


class Clock:
    """Seconds of work that is done in parts, with the rows of each part."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rows = 0

    def time(self, rows: int, work: Callable[[], Any]) -> Any:
        """Do the work and count it."""
        started = time.perf_counter()
        found = work()
        self.seconds += time.perf_counter() - started
        self.rows += rows
        return found

    def told(self) -> dict[str, float]:
        """Rows and seconds, for a results file."""
        return {"rows": self.rows, "seconds": round(self.seconds, 4)}


def in_length_order(texts: Sequence[str]) -> list[int]:
    """Positions of ``texts``, longest first: ``encode`` on parts of this order makes the batches of the whole."""
    return sorted(range(len(texts)), key=lambda at: (-len(texts[at]), at))


def woven(encoder: BatchEncoder, texts: Sequence[str], others: Sequence[Callable[[], None]]) -> tuple[Floats, Clock]:
    """The vectors float32[n, d] of ``texts`` and the encoder's own time, with the ``others`` spread evenly between.

    So a machine that is slower for a while is so for all that are compared.
    """
    clock, due = Clock(), list(others)
    vectors = np.zeros((len(texts), 0), dtype=np.float32)
    batches = clock.time(0, lambda: encoder.batches(texts))
    while (batch := clock.time(0, lambda: next(batches, None))) is not None:
        positions, part = batch
        if vectors.shape[1] == 0:
            vectors = np.zeros((len(texts), part.shape[1]), dtype=np.float32)
        vectors[positions] = part
        clock.rows += len(positions)
        while due and clock.rows / len(texts) >= (len(others) - len(due) + 0.5) / len(others):
            due.pop(0)()
    for work in due:
        work()
    return vectors, clock
