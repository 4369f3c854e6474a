"""The next-token loss of many sequences: packed, and without the logits of all tokens at once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from erasmo_dagster import progress
from erasmo_dagster.method.batches import IGNORED, Sequences, padded
from erasmo_dagster.method.engines.attention import NotServedError, Slot, attach, trial_sequences
from erasmo_dagster.method.engines.rows import pack

if TYPE_CHECKING:
    import torch

# What some models do to their logits after the product; by their names in the configuration.
_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
_CHUNK = 256  # tokens whose logits are in memory at once: 50 MB over 49,152 words
_WORDS = 2048  # words of the vocabulary at a time: a matrix product of like sides is faster than a very wide one


class PaddedLoss:
    """Cross-entropy of every next token, summed, from the model's own logits; padding counts nothing."""

    pads = True

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model, self._device = model, device

    def backward(self, sequences: Sequences, share: float) -> float:
        """The summed loss; ``share`` of it goes back into the gradients."""
        loss = self._loss(sequences)
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def value(self, sequences: Sequences) -> float:
        """The summed loss, without gradients."""
        import torch

        with torch.no_grad():
            return float(self._loss(sequences))

    def _loss(self, sequences: Sequences) -> torch.Tensor:
        import torch

        ids, mask = padded(sequences, self._device)
        logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        # Each position predicts the next one; the labels move instead of the far larger logits, which a cut would copy.
        labels = torch.full_like(ids, IGNORED)
        labels[:, :-1] = torch.where(mask[:, 1:] == 1, ids[:, 1:], IGNORED)
        return torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), labels.view(-1), ignore_index=IGNORED, reduction="sum"
        )


class PackedLoss:
    """As :class:`PaddedLoss`, of sequences one after the other without padding, with the logits in chunks.

    No sequence sees another one. Logits and their gradient are computed for a few tokens at a time and only where there
    is a token to predict. Raises NotServedError for a model that gives another loss this way, as a trial shows; the
    model is then as it was.
    """

    pads = False

    def __init__(self, model: Any, device: torch.device) -> None:
        self._whole = model.get_base_model() if hasattr(model, "peft_config") else model
        self._device = device
        self._scratch: torch.Tensor | None = None
        self._blocks, self._head = self._whole.base_model, self._whole.get_output_embeddings()
        _check_head(self._whole, self._head)
        trial = trial_sequences(int(self._whole.config.get_text_config().vocab_size))
        training = model.training
        model.eval()
        try:
            self._slot = attach(
                self._whole,
                lambda: _logits_alone(model, trial, device),
                lambda slot, given: self._apart(slot, trial, given),
            )
        finally:
            model.train(training)

    def release(self) -> None:
        """Give the model back as it was."""
        self._slot.release(self._whole)

    def _apart(self, slot: Slot, sequences: Sequences, expected: torch.Tensor) -> float:
        """The largest difference of the logits from those expected, as a share of the largest."""
        import torch

        rows = pack(sequences, self._device)
        with torch.no_grad(), slot.holding(rows):
            states = self._blocks(input_ids=rows.ids, position_ids=rows.positions, use_cache=False).last_hidden_state
            found = self._head(states[0]).float()
        return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))

    def backward(self, sequences: Sequences, share: float) -> float:
        """The summed loss; ``share`` of it goes back into the gradients."""
        rows = pack(sequences, self._device)
        with self._slot.holding(rows):  # also on the way back, where parts may be computed again
            loss = self._loss(rows)
            (loss * share).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def value(self, sequences: Sequences) -> float:
        """The summed loss, without gradients."""
        import torch

        rows = pack(sequences, self._device)
        with torch.no_grad(), self._slot.holding(rows):
            return float(self._loss(rows))

    def _loss(self, rows: Any) -> torch.Tensor:
        import torch

        out = self._blocks(input_ids=rows.ids, position_ids=rows.positions, use_cache=False)
        starts = torch.nn.functional.pad(rows.positions[0], (0, 1))[1:] == 0
        at = (~starts).nonzero()[:, 0]  # the last token of a sequence has nothing to predict
        states, labels = out.last_hidden_state[0].index_select(0, at), rows.ids[0].index_select(0, at + 1)
        if torch.is_autocast_enabled(self._device.type):
            states = states.to(torch.get_autocast_dtype(self._device.type))
        if self._scratch is None or self._scratch.dtype != states.dtype:
            # One for all chunks and steps: fresh memory of this size costs more than what is written into it.
            self._scratch = states.new_empty(_CHUNK, len(self._head.weight))
        weight, bias = self._head.weight, self._head.bias
        wanted = torch.is_grad_enabled()
        found: torch.Tensor = _chunked().apply(states, weight, bias, labels, self._scratch, wanted)
        return found


class TokenLoss:
    """The summed loss of ``model``: packed, or padded from where on that does not serve it, which is said.

    ``name`` is what the model is called.
    """

    def __init__(self, model: Any, device: torch.device, name: str) -> None:
        self._model, self._device, self._name = model, device, name
        self._loss: PackedLoss | PaddedLoss
        try:
            self._loss = PackedLoss(model, device)
        except NotServedError as unserved:
            self._loss = self._padded(unserved)

    @property
    def pads(self) -> bool:
        """Whether sequences take the room of the longest beside them."""
        return self._loss.pads

    def backward(self, sequences: Sequences, share: float) -> float:
        """The summed loss; ``share`` of it goes back into the gradients."""
        try:
            return self._loss.backward(sequences, share)
        except NotServedError as unserved:  # on the way forward, told by a long text: no gradient was added
            return self._fallen_back(unserved).backward(sequences, share)

    def value(self, sequences: Sequences) -> float:
        """The summed loss, without gradients."""
        try:
            return self._loss.value(sequences)
        except NotServedError as unserved:
            return self._fallen_back(unserved).value(sequences)

    def _fallen_back(self, unserved: NotServedError) -> PaddedLoss:
        assert isinstance(self._loss, PackedLoss)
        self._loss.release()
        self._loss = self._padded(unserved)
        return self._loss

    def _padded(self, unserved: NotServedError) -> PaddedLoss:
        progress.note(f"Fine-tuning in padded batches, since packed ones do not serve {self._name}: {unserved}")
        return PaddedLoss(self._model, self._device)


def _check_head(model: Any, head: Any) -> None:
    """Raise NotServedError for an output layer that is more than a product with a matrix."""
    from torch.nn import Linear

    if type(head) is not Linear:
        raise NotServedError(f"its output layer is a {type(head).__name__}")
    config = model.config.get_text_config()
    if odd := [name for name in _SCALED if getattr(config, name, None) not in (None, 1.0)]:
        raise NotServedError(f"its logits have {odd[0]}")


def _logits_alone(model: Any, sequences: Sequences, device: torch.device) -> torch.Tensor:
    """The model's own logits [tokens, words] of every sequence, one at a time."""
    import torch

    with torch.no_grad():
        ids = (torch.tensor([list(sequence)], device=device) for sequence in sequences)
        return torch.cat([model(input_ids=each, use_cache=False).logits[0].float() for each in ids])


@cache
def _chunked() -> Any:
    """The differentiable loss; torch is not imported before it is needed."""
    import torch

    class ChunkedLoss(torch.autograd.Function):
        """Summed cross-entropy of ``states @ weight'``: the gradients are made beside the loss, chunk by chunk."""

        @staticmethod
        def forward(ctx: Any, states: Any, weight: Any, bias: Any, labels: Any, scratch: Any, wanted: bool) -> Any:
            back = [bool(needed and wanted) for needed in ctx.needs_input_grad[:3]]
            own = (states, weight, bias)
            grads: list[Any] = [torch.zeros_like(x) if n else None for x, n in zip(own, back, strict=True)]
            total = states.new_zeros((), dtype=torch.float32)
            with torch.autocast(states.device.type, enabled=False):
                w = weight.to(states.dtype)
                b = None if bias is None else bias.to(states.dtype)
                for start in range(0, len(states), _CHUNK):
                    part, aims = states[start : start + _CHUNK], labels[start : start + _CHUNK, None]
                    logits = scratch.narrow(0, 0, len(part))
                    for words in range(0, len(w), _WORDS):
                        torch.mm(part, w[words : words + _WORDS].t(), out=logits[:, words : words + _WORDS])
                    if b is not None:
                        logits += b
                    p = logits.float()
                    highest, where = p.max(1, keepdim=True)
                    aimed = p.gather(1, aims)
                    torch.softmax(p, 1, out=p)
                    total += (highest - p.gather(1, where).log() - aimed).sum()
                    if not any(back):
                        continue
                    p.scatter_add_(1, aims, p.new_full(aims.shape, -1.0))
                    p = p.to(states.dtype)
                    if back[0]:
                        torch.mm(p, w, out=grads[0][start : start + _CHUNK])
                    if back[1]:
                        grads[1].addmm_(p.t().to(grads[1].dtype), part.to(grads[1].dtype))
                    if back[2]:
                        grads[2] += p.sum(0)
            ctx.save_for_backward(*grads)
            return total

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (share,) = gradients
            states, weight, bias = (None if each is None else each * share for each in ctx.saved_tensors)
            return states, weight, bias, None, None, None

    return ChunkedLoss
