"""An idea that trains: contrastive tuning of a language model on the rows, k-means on the vectors that it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.peers import Labels, kmeans
from benchmarks.quality.reading import texts_of
from benchmarks.quality.suite import Sample
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.batches import split_by_tokens, tokenize
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.method.textual import join_clauses, shuffle_clauses, write_clauses

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

ROWS_A_STEP = 12
DROPPED = 0.2  # of a row's clauses, in each view
TEMPERATURE = 0.05
RATE = 1e-3
RANK = 8
_TOKENS_AT_ONCE = 4096


def contrasted(sample: Sample, place: Any, seed: int, *, causal: bool) -> Labels:
    """k-means on vectors of a model that was trained to know a row again.

    SimCSE's loss (Gao, Yao and Chen, 2021): two views of a row, each with its columns in an order of its own and a
    fifth of them left out, are to be nearer than views of other rows. Low-rank weights on all linear layers, means over
    tokens, at most ``place.tokens`` tokens of training. ``causal`` is the causal language model, else the sentence
    encoder.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Tuned(place.base_model if causal else place.sentence_model, place, causal=causal)
        model.train(write_clauses(sample.frame, sample.plan).to_list(), place.tokens, seed)
        vectors = model.read(texts_of(sample))
    del model
    release_memory()
    return kmeans(vectors, sample.k, seed)


class Tuned:
    """A language model with low-rank weights of its own; ``steps`` counts those of its training, ``tokens`` what they
    read."""

    def __init__(self, name: str, place: Any, *, causal: bool) -> None:
        from peft import LoraConfig, get_peft_model

        from erasmo_dagster.method.loading import load_base, token_limit

        base = resolve(name, place.models)
        if causal:
            whole, self._tokenizer = load_base(base)
            model = whole.base_model
        else:
            from transformers import AutoModel, AutoTokenizer

            quiet_libraries()

            load: Any = AutoModel.from_pretrained
            model = load(base.path, local_files_only=True, use_safetensors=True)
            self._tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
        self._options = {"use_cache": False} if causal else {}
        self._longest = token_limit(model, self._tokenizer)
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
        self._model: Any = get_peft_model(model, lora)
        self.steps = self.tokens = 0
        self.losses: list[float] = []

    def train(self, rows: Sequence[Sequence[str]], tokens: int, seed: int) -> None:
        """Train on rows, as clauses, until ``tokens`` tokens are read. Raises ErasmoError for less than a step."""
        import torch

        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=RATE)
        self._model.train()
        for batch in _batches(len(rows), np.random.default_rng([seed, 0])):
            rng = np.random.default_rng([seed, 1, self.steps])
            views = [[join_clauses(view(rows[row], rng)) for row in batch] for _ in range(2)]
            read = [self._tokens(texts) for texts in views]
            self.tokens += sum(len(ids) for sequences in read for ids in sequences)
            if self.tokens > tokens:
                break
            first, second = (torch.nn.functional.normalize(self._pooled(ids), dim=-1) for ids in read)
            near = first @ second.T / TEMPERATURE
            own = torch.arange(len(batch))
            loss = (torch.nn.functional.cross_entropy(near, own) + torch.nn.functional.cross_entropy(near.T, own)) / 2
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            self.losses.append(float(loss.detach()))
            self.steps += 1
        if not self.steps:
            raise ErasmoError(f"Got {tokens} tokens to train with", expected=f"at least {self.tokens}, those of a step")

    def read(self, texts: Sequence[str]) -> Floats:
        """The vectors of texts, float32[n, d]."""
        import torch

        self._model.eval()
        distinct = list(dict.fromkeys(texts))
        sequences = self._tokens(distinct)
        found: dict[str, Floats] = {}
        with torch.inference_mode():
            for group in split_by_tokens([len(ids) for ids in sequences], _TOKENS_AT_ONCE):
                vectors = self._pooled([sequences[at] for at in group]).float().numpy()
                found |= {distinct[at]: vector for at, vector in zip(group, vectors, strict=True)}
        return np.stack([found[text] for text in texts])

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids[: self._longest]) for ids in tokenize(self._tokenizer, texts)]

    def _pooled(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Means of the last layer over each text's own tokens."""
        import torch

        from erasmo_dagster.method.batches import padded

        ids, mask = padded(sequences, torch.device("cpu"))
        states = self._model(input_ids=ids, attention_mask=mask, **self._options).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        pooled: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return pooled


def view(clauses: Sequence[str], rng: np.random.Generator) -> list[str]:
    """A row's clauses in a random order, each left out with a chance of a fifth; one stays."""
    shuffled = shuffle_clauses(clauses, rng)
    kept = [clause for clause, drawn in zip(shuffled, rng.random(len(shuffled)), strict=True) if drawn >= DROPPED]
    return kept or shuffled[:1]


def _batches(rows: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Rows of a step, epoch after epoch without end; at least two, as one alone is told from nothing."""
    while True:
        order = rng.permutation(rows)
        for start in range(0, rows, ROWS_A_STEP):
            if len(batch := order[start : start + ROWS_A_STEP].tolist()) > 1:
                yield batch
