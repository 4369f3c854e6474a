"""How long a training lasts, and the learning rate on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from erasmo_dagster.settings import AdapterSettings

StoppedBy = Literal["tokens", "steps", "epochs", "patience"]
_WARM_UP = 0.1


@dataclass(frozen=True)
class Budget:
    """Limits in tokens, optimizer steps and passes over ``rows`` training rows; the first one reached ends it."""

    settings: AdapterSettings
    rows: int

    def spent(self, steps: int, rows: int, tokens: int) -> float:
        """Share of the budget that is gone after so many steps, rows and tokens; 0 to 1."""
        shares = [rows / (self.settings.epochs * self.rows)]
        if self.settings.max_steps is not None:
            shares.append(steps / self.settings.max_steps)
        if self.settings.max_tokens is not None:
            shares.append(tokens / self.settings.max_tokens)
        return min(1.0, max(shares))

    def exhausted(self, steps: int, tokens: int) -> StoppedBy | None:
        """Which limit in tokens or steps is reached, if one is."""
        if self.settings.max_tokens is not None and tokens >= self.settings.max_tokens:
            return "tokens"
        if self.settings.max_steps is not None and steps >= self.settings.max_steps:
            return "steps"
        return None

    def expected_tokens(self, step: Sequence[Sequence[Any]]) -> int:
        """Tokens of the whole training, judged by those of one step."""
        in_step = sum(map(len, step))
        bounds = [in_step / max(1, len(step)) * self.rows * self.settings.epochs]
        if self.settings.max_steps is not None:
            bounds.append(in_step * self.settings.max_steps)
        if self.settings.max_tokens is not None:
            bounds.append(self.settings.max_tokens)
        return max(1, round(min(bounds)))


def rate_factor(before: float, after: float) -> float:
    """Factor of the peak learning rate in a step that takes the spent share from ``before`` to ``after``.

    Linear warm-up over the first tenth of the budget, then a linear fall; no step has rate 0.
    """
    return min(1.0, after / _WARM_UP, (1 - before) / (1 - _WARM_UP))
