"""Progress bars for long work: on a terminal a live bar, elsewhere a line now and then."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

_terminal: TextIO | None = None
_hidden = False
_part = ""


@contextmanager
def on_terminal() -> Iterator[None]:
    """Keep the bars on today's stderr, even while Dagster sends a step's output to its log files."""
    global _terminal
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace") as stream:
        _terminal = stream
        try:
            yield
        finally:
            _terminal = None


@contextmanager
def hidden() -> Iterator[None]:
    """Show no bar that begins meanwhile: whoever measures what is within has one of their own."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


@contextmanager
def part(number: int, count: int) -> Iterator[None]:
    """Say of the bars that begin meanwhile which part of ``count`` they are of; nothing where there is but one."""
    global _part
    before, _part = _part, f" {number} of {count}" if count > 1 else ""
    try:
        yield
    finally:
        _part = before


def note(text: str) -> None:
    """A line beside the bars, on stderr."""
    from tqdm import tqdm

    tqdm.write(text, file=_terminal or sys.stderr)


def bar(description: str, total: int | None, unit: str, *, done: int = 0) -> tqdm[Any]:
    """A tqdm bar on stderr; use it as a context manager and call ``update(n)``.

    The time to go is right where ``n`` counts work that costs alike: tokens to compute, and not texts. ``done`` of
    ``total`` was there before: it counts in the share and not in the speed. Work that ends before its total by itself,
    as a training that stops early, is shown as whole. Off a terminal (a daemon's log) there is a line every 15 seconds
    at most.
    """
    stream = _Nowhere() if _hidden else _terminal or sys.stderr
    live = stream.isatty()
    return _bar_class()(
        desc=description + _part,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=True,
        file=stream,
        mininterval=0.1 if live else 15.0,
        miniters=1,  # tqdm would guess how many updates to pass over, and be wrong where batches shrink
        # The mean since the start: where a batch takes seconds, the speed of the last ones swings with each of them.
        smoothing=0,
        dynamic_ncols=live,
        leave=True,
    )


@cache
def _bar_class() -> type[tqdm[Any]]:
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]  # generic for type checkers alone
        def __exit__(self, kind: type[BaseException] | None, *more: Any) -> None:
            if kind is None and self.total is not None and self.n < self.total:
                self.total = self.n
            super().__exit__(kind, *more)

    return Bar


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)
