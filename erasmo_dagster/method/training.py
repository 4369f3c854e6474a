"""The training loop: next-token loss on shuffled rows, a budget, early stopping, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.batches import TrainingTexts, dropout_seed, split_by_tokens
from erasmo_dagster.method.budget import Budget, StoppedBy, rate_factor
from erasmo_dagster.method.checkpoints import Checkpoints
from erasmo_dagster.method.losses import TokenLoss
from erasmo_dagster.method.parallel import Alone, Workers
from erasmo_dagster.settings import AdapterSettings

if TYPE_CHECKING:
    import torch

_CLIP = 1.0
_FORWARD_TOKENS = {"cpu": 768}
_FORWARD_TOKENS_ELSEWHERE = 16_384


class LossPoint(BaseModel):
    """Losses (nats a token) after ``step`` optimizer steps and ``tokens`` training tokens."""

    model_config = ConfigDict(frozen=True)

    step: int
    tokens: int
    train_loss: float | None = Field(description="Mean over the steps since the last point; none before training.")
    eval_loss: float | None = Field(description="On the held-out rows, where they were looked at.")


class TrainingResult(BaseModel):
    """What a fine-tuning did; ``training.json`` beside the weights."""

    model_config = ConfigDict(frozen=True)

    steps: int = Field(description="Optimizer steps.")
    epochs: float = Field(description="Passes over the training rows.")
    tokens: int = Field(description="Tokens trained on, padding not counted.")
    rows: int = Field(description="Rows to train on.")
    eval_rows: int = Field(description="Rows held out.")
    truncated_rows: int = Field(description="Rows seen that were cut to max_length tokens.")
    loss_curve: tuple[LossPoint, ...]
    first_eval_loss: float | None = Field(description="Eval loss of the base model; none where no row is held out.")
    eval_loss: float | None = Field(description="Eval loss of the weights that were kept.")
    best_step: int = Field(description="Step of the weights that were kept: the best by eval loss, else the last.")
    stopped_by: StoppedBy
    seconds: float = Field(description="Wall time of training and evaluation, over all runs that it took.")
    resumed_from: int | None = Field(description="Step of the checkpoint that the last run went on from.")
    trainable_parameters: int
    device: str


@dataclass
class TrainingState:
    """Where a training is; all that a checkpoint holds beside weights and optimizer."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # steps done in this epoch
    rows: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    stopped_by: StoppedBy | None = None
    curve: list[LossPoint] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "curve": [point.model_dump() for point in self.curve]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingState:
        """From what ``to_json`` gave; other keys are left out."""
        own = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(**{**own, "curve": [LossPoint(**point) for point in own["curve"]]})


class Training:
    """One training of ``model``'s trainable weights on ``texts``, from its last checkpoint or from the start.

    Every random choice follows from ``seed`` and the step, so a training that was interrupted and taken up again
    ends with the same weights as one that was not. Of several ``workers`` each computes its share of every step, and
    all take the same steps: the weights are those of one worker but for rounding, and for the units that are dropped
    where ``lora.dropout`` is more than 0, which each worker draws for its own share.
    """

    def __init__(
        self,
        model: Any,
        texts: TrainingTexts,
        settings: AdapterSettings,
        *,
        seed: int,
        device: torch.device,
        checkpoints: Checkpoints,
        loss: TokenLoss,
        workers: Workers | None = None,
    ) -> None:
        import torch

        self.model, self.texts, self.settings, self.seed = model, texts, settings, seed
        self.device, self.checkpoints, self._loss, self._workers = device, checkpoints, loss, workers or Alone()
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.budget = Budget(settings, len(texts.train))
        self.state = TrainingState()
        self.resumed_from: int | None = None
        self._forward_tokens = settings.forward_tokens or _FORWARD_TOKENS.get(device.type, _FORWARD_TOKENS_ELSEWHERE)
        self._held_out: list[list[int]] = []
        self._clocked = time.monotonic()
        self._since_point = [0.0, 0]  # sum of losses and number of targets since the last point of the curve

    def run(self) -> TrainingState:
        """Train to the end of the budget and leave the best weights in the model.

        Raises ErasmoError where the loss is not finite, or where no row has a token to predict.
        """
        self._held_out = [s for s in self.texts.held_out_sequences() if len(s) > 1]
        self._resume()
        rows_a_step = self.settings.batch_size * self.settings.gradient_accumulation
        sample = next(self.texts.steps(0, rows_a_step), [])
        total = self.budget.expected_tokens(sample)
        with self._workers.bar("fine-tuning", total, "tokens", done=min(self.state.tokens, total)) as shown:
            if not self.state.curve:
                self._evaluate()
            while self.state.stopped_by is None:
                self._epoch(shown, rows_a_step)
            if self._held_out and not self._evaluated():
                self._evaluate()
        self._clock()
        if self.state.best_step not in (None, self.state.step):
            self._load(self.state.best_step)
        return self.state

    def _epoch(self, shown: Any, rows_a_step: int) -> None:
        settings, state = self.settings, self.state
        for index, sequences in enumerate(self.texts.steps(state.epoch, rows_a_step)):
            if index < state.position:
                continue
            loss = self._step(sequences)
            shown.set_postfix(loss=f"{loss:.3f}", refresh=False)
            shown.update(min(state.tokens, shown.total) - shown.n)
            state.stopped_by = self.budget.exhausted(state.step, state.tokens)
            if state.step % settings.eval_every == 0:
                self._evaluate()
            elif state.step % max(1, settings.eval_every // 10) == 0:
                self._add_point(None)
            if state.stopped_by is not None:
                return
        if state.step == 0:
            raise ErasmoError(
                "Got rows without a word to learn from", expected="texts of at least two tokens", fix="check `drop`"
            )
        state.epoch, state.position = state.epoch + 1, 0
        if state.epoch >= settings.epochs:
            state.stopped_by = "epochs"

    def _step(self, sequences: Sequence[Sequence[int]]) -> float:
        """One optimizer step; its mean loss a target token."""
        import torch

        state = self.state
        tokens, targets = sum(map(len, sequences)), sum(len(s) - 1 for s in sequences)
        before = self.budget.spent(state.step, state.rows, state.tokens)
        after = self.budget.spent(state.step + 1, state.rows + len(sequences), state.tokens + tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate_factor(before, after)
        self.model.train()
        torch.manual_seed(dropout_seed(self.seed, state.step, self._workers.rank))
        total = 0.0
        for part in self._parts(self._workers.share(sequences), self.settings.batch_size):
            with self._autocast():
                total += self._loss.backward(part, 1 / targets)
        total = self._workers.total(total)
        self._workers.add_gradients(list(self.weights.values()))
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), _CLIP)
        self._check_finite(total, "loss")
        self._check_finite(float(norm), "gradient")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step, state.position = state.step + 1, state.position + 1
        state.rows, state.tokens = state.rows + len(sequences), state.tokens + tokens
        self._since_point[0] += total
        self._since_point[1] += targets
        return total / targets

    def _parts(self, sequences: Sequence[Sequence[int]], max_rows: int | None = None) -> Iterator[list[Sequence[int]]]:
        """The sequences, longest first, in parts that go through the model at once."""
        for part in split_by_tokens(list(map(len, sequences)), self._forward_tokens, max_rows, pads=self._loss.pads):
            yield [sequences[i] for i in part]

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _evaluate(self) -> None:
        """Loss on the held-out rows, if any; then a checkpoint."""

        state = self.state
        eval_loss = None
        if self._held_out:
            self.model.eval()
            total, targets = 0.0, sum(len(s) - 1 for s in self._held_out)
            for part in self._parts(self._workers.share(self._held_out)):
                with self._autocast():
                    total += self._loss.value(part)
            total = self._workers.total(total)
            self._check_finite(total, "loss on the held-out rows")
            eval_loss = total / targets
            if state.best_loss is None or eval_loss < state.best_loss:
                state.best_loss, state.best_step, state.since_best = eval_loss, state.step, 0
            else:
                state.since_best += 1
                if state.since_best >= self.settings.patience and state.stopped_by is None:
                    state.stopped_by = "patience"
        self._add_point(eval_loss)
        state.cut = sorted(self.texts.cut)
        self._clock()
        weights = {name: p.detach().cpu().contiguous() for name, p in self.weights.items()}
        self.checkpoints.save(state.to_json(), weights, self.optimizer)
        self._workers.tell(state.curve[-1].model_dump())

    def _clock(self) -> None:
        """Add the time since the last call to the state's seconds."""
        now = time.monotonic()
        self.state.seconds += now - self._clocked
        self._clocked = now

    def _evaluated(self) -> bool:
        """Whether the held-out rows were looked at since the last step."""
        last = self.state.curve[-1]
        return last.step == self.state.step and last.eval_loss is not None

    def _add_point(self, eval_loss: float | None) -> None:
        state = self.state
        loss, targets = self._since_point
        train_loss = loss / targets if targets else None
        if state.curve and state.curve[-1].step == state.step:  # it had its training loss only
            train_loss = state.curve.pop().train_loss
        state.curve.append(LossPoint(step=state.step, tokens=state.tokens, train_loss=train_loss, eval_loss=eval_loss))
        self._since_point = [0.0, 0]

    def _resume(self) -> None:
        found = self.checkpoints.latest()
        if found is None:
            return
        self.state = TrainingState.from_json(found)
        self.texts.cut |= set(self.state.cut)
        self._load(self.state.step)
        self.checkpoints.restore_optimizer(self.state.step, self.optimizer)
        self.resumed_from = self.state.step

    def _load(self, step: int | None) -> None:
        import torch

        assert step is not None
        saved = self.checkpoints.weights(step)
        with torch.no_grad():
            for name, parameter in self.weights.items():
                parameter.copy_(saved[name])

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise ErasmoError(
                f"Got a {what} of {value} in step {self.state.step + 1} of the training",
                expected="a finite number",
                fix=f"lower `adapter.learning_rate` (it is {self.settings.learning_rate:g}) and run again",
            )
