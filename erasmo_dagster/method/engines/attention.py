"""An attention of our own in a model of transformers: what its tokens attend to is said by a layout, not by a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from erasmo_dagster.method.engines.base import rotation_limit

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_NAME = "erasmo_layout"
_SLOT = "_erasmo_slot"
# What an attention may be told beside the scale; anything else that is set would be left out.
_KNOWN = frozenset({"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states"})
_TOLERANCE = 1e-4
_TOLERANCE_HALF = 5e-2


class NotServedError(Exception):
    """A model whose attention is more than a layout can say; the message says what."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What one layer asks of the attention: ``query``, ``key`` and ``value`` are [tokens, heads, d] each.

    Keys and values may have fewer heads than queries, which then share them. ``scaling`` is None for 1 / sqrt(d).
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scaling: float | None
    dropout: float


class Layout(Protocol):
    """What the tokens of one forward pass, without a batch dimension, attend to."""

    longest: int  # tokens of the longest sequence

    def attend(self, asked: Asked) -> torch.Tensor:
        """The attention of every token, [tokens, heads, d]."""
        ...


@dataclass(eq=False)
class Slot:
    """Where a model's attention finds the layout of the pass that is under way."""

    before: str  # the attention that the model had
    limit: int | None  # tokens of a text that the model's positions allow for
    layout: Layout | None = None

    @contextmanager
    def holding(self, layout: Layout) -> Iterator[None]:
        """Let the attention read ``layout`` in the block."""
        self.layout = layout
        try:
            yield
        finally:
            self.layout = None

    def release(self, model: Any) -> None:
        """Give the model its own attention back."""
        model.set_attn_implementation(self.before)


def attach(model: Any, alone: Callable[[], T], apart: Callable[[Slot, T], float]) -> Slot:
    """Have ``model`` attend by layouts, once a trial has shown that it gives what it gave before.

    ``alone`` is what it gives as it is, one sequence at a time, and ``apart`` how far from that it is by layouts: the
    largest difference as a share of the largest value. Raises NotServedError for a model whose attention cannot be
    chosen or says more than a layout can, and for one that gives something else; it is then as it was.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    slot = Slot(_implementation(model), rotation_limit(model))
    try:
        expected = alone()
        for module in model.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, _SLOT, slot)
        model.set_attn_implementation(_NAME)
        if _implementation(model) != _NAME:
            raise NotServedError("its attention cannot be chosen")
        found = apart(slot, expected)
        if not found <= (_TOLERANCE if next(model.parameters()).element_size() >= 4 else _TOLERANCE_HALF):
            raise NotServedError(f"what it gives differs by {found:.1e} from what it gives for one text at a time")
    except NotServedError:
        slot.release(model)
        raise
    except Exception as error:  # models of any making: what they are not made for fails in their own ways
        slot.release(model)
        raise NotServedError(f"{type(error).__name__}: {str(error).strip()[:100]}") from error
    return slot


def _implementation(model: Any) -> str:
    return str(model.config.get_text_config()._attn_implementation)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: [1, heads, tokens, d] to [1, tokens, heads, d].

    Raises NotServedError for what is more than a scaled product over what a layout names.
    """
    slot: Slot | None = getattr(module, _SLOT, None)
    if slot is None or slot.layout is None or attention_mask is not None or len(query) != 1:
        raise NotServedError("it brings a mask of its own")
    if sliding_window is not None and slot.layout.longest > sliding_window:
        raise NotServedError(f"it looks back over {sliding_window} tokens only, and a text has {slot.layout.longest}")
    if slot.limit is not None and slot.layout.longest > slot.limit:
        raise NotServedError(f"its positions turn with texts of more than {slot.limit} tokens")
    if odd := sorted(name for name, given in others.items() if name not in _KNOWN and not _is_unset(given)):
        raise NotServedError(f"its attention has {odd[0]}")
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    return slot.layout.attend(Asked(int(module.layer_idx), q, k, v, scaling, dropout))[None], None


def _is_unset(given: Any) -> bool:
    return given is None or given is False


def trial_sequences(vocabulary: int) -> list[list[int]]:
    """A few short sequences that share prefixes, to see whether a model is served."""
    import numpy as np

    a, b, c = np.random.default_rng(0).integers(0, vocabulary, (3, 9)).tolist()
    return [a, [*a[:4], *b[:5]], [*a[:4], *b[:5], *c[:3]], c[:6], a[:3]]
