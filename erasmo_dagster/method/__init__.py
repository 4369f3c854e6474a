"""ERASMO itself: tables in, arrays and named results out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erasmo_dagster.method.estimator import Erasmo

__all__ = ["Erasmo"]


def __getattr__(name: str) -> Any:
    """``Erasmo`` inherits from scikit-learn, which is not loaded before it is asked for."""
    if name == "Erasmo":
        from erasmo_dagster.method.estimator import Erasmo

        return Erasmo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
