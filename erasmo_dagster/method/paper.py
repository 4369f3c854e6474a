"""The first paper's procedure as its authors' code runs it, faults included, to print beside ours.

Read from the code that accompanies arXiv 2410.03738. Where it departs from what the paper says, the code counts:

- Every row's features are shuffled anew at every reading, at the embedding too, so that equal rows get unequal vectors.
- Every row is padded to the longest text that the tokenizer names (1,024 tokens for GPT-2) with the end-of-text token.
- At the embedding no attention mask is given, and the mean is over all positions, padding included.
- The training's labels are the padded row, so that the loss is on padding too. All weights are trained, by AdamW at the
  Trainer's default learning rate of 5e-5, falling linearly, on batches of 8 rows.
- NV replaces every number in the text, those in feature names as well.
- Rows are read one at a time.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster import progress
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.loading import load_base, pick_device
from erasmo_dagster.method.memory import release_memory

if TYPE_CHECKING:
    import torch

PADDED_TO = 1024
BATCH = 8
_LEARNING_RATE = 5e-5
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class PaperResult:
    """Vectors float32[rows, d], and what they took; tokens are with padding, as the code reads it."""

    vectors: npt.NDArray[np.float32]
    train_tokens: int
    embed_tokens: int
    train_seconds: float
    embed_seconds: float


def paper_vectors(
    frame: pl.DataFrame,
    base: LocalModel,
    *,
    steps: int,
    verbalize: bool,
    seed: int,
    padded_to: int = PADDED_TO,
    device: str = "auto",
) -> PaperResult:
    """The vector of every row of ``frame`` (the columns that the method may see), by the authors' procedure.

    ``steps`` optimizer steps of 8 rows each train the model first, 0 leaves it as it is. ``padded_to`` is in tokens.
    The authors seed nothing; here everything follows from ``seed``.
    """
    model = PaperModel(base, verbalize=verbalize, seed=seed, padded_to=padded_to, device=device)
    started = time.monotonic()
    model.train(frame, steps)
    train_seconds, started = time.monotonic() - started, time.monotonic()
    vectors = model.embed(frame)
    del model
    release_memory()
    return PaperResult(
        vectors,
        train_tokens=steps * BATCH * padded_to,
        embed_tokens=frame.height * padded_to,
        train_seconds=train_seconds,
        embed_seconds=time.monotonic() - started,
    )


class PaperModel:
    """A base model in memory that trains on rows and reads them as the authors' code does; ``seed`` is of all chance.

    Raises ErasmoError for damaged model files.
    """

    def __init__(
        self, base: LocalModel, *, verbalize: bool, seed: int, padded_to: int = PADDED_TO, device: str = "auto"
    ) -> None:
        self._place = pick_device(device)
        model, self._tokenizer = load_base(base)
        self._model: Any = model.to(self._place)
        self._rng = np.random.default_rng(seed)
        self._verbalize, self._seed, self._padded_to = verbalize, seed, padded_to

    def train(self, frame: pl.DataFrame, steps: int, batch: int = BATCH) -> None:
        """Train all weights by ``steps`` optimizer steps of ``batch`` rows each."""
        import torch

        with torch.random.fork_rng([torch.cuda.current_device()] if self._place.type == "cuda" else []):
            torch.manual_seed(self._seed)
            self._train(frame, steps, batch)

    def embed(self, frame: pl.DataFrame) -> npt.NDArray[np.float32]:
        """The vector of every row: float32[rows, d]."""
        import torch

        self._model.eval()
        vectors = []
        with torch.inference_mode(), progress.bar("embedding as published", frame.height, "rows") as shown:
            for row in range(frame.height):
                ids = self._read(frame, row)[0]
                states = self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state
                vectors.append(states.float().mean(1)[0].cpu().numpy())
                shown.update(1)
        return np.stack(vectors).astype(np.float32)

    def _read(self, frame: pl.DataFrame, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids int64[1, padded length] of a row, its features shuffled anew, and the mask of the real ones."""
        import torch

        tokenizer = self._tokenizer
        pad = next(i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id, 0) if i is not None)
        ids = tokenizer(_text(frame, row, self._verbalize, self._rng))["input_ids"][: self._padded_to]
        padding = self._padded_to - len(ids)
        mask = torch.tensor([[1] * len(ids) + [0] * padding], device=self._place)
        return torch.tensor([[*ids, *[pad] * padding]], device=self._place), mask

    def _train(self, frame: pl.DataFrame, steps: int, batch: int) -> None:
        import torch

        if not steps:
            return
        model = self._model
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=0.0)
        queue: list[int] = []
        with progress.bar("training as published", steps * batch, "rows") as shown:
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = _LEARNING_RATE * (1 - step / steps)
                for _ in range(batch):
                    queue = queue or self._rng.permutation(frame.height).tolist()
                    ids, mask = self._read(frame, queue.pop())
                    loss = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss
                    (loss / batch).backward()
                    shown.update(1)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)


def _text(frame: pl.DataFrame, row: int, verbalize: bool, rng: np.random.Generator) -> str:
    """One row as the code writes it: Python's own text of every value, in a new order every time."""
    values = frame.row(row)
    order = rng.permutation(len(values)).tolist()
    text = ", ".join(f"{frame.columns[i]} is {str(values[i]).strip()}" for i in order)
    return _NUMBER.sub(_in_words, text) if verbalize else text


def _in_words(match: re.Match[str]) -> str:
    from num2words import num2words

    whole, _, fraction = match.group(0).partition(".")
    words: str = num2words(int(whole))
    return f"{words} point {num2words(int(fraction))}" if fraction else words
