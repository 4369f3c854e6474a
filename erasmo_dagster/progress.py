"""Progress bars for long work: on a terminal a live bar, elsewhere a line now and then."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

_terminal: TextIO | None = None


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


def note(text: str) -> None:
    """A line beside the bars, on stderr."""
    from tqdm import tqdm

    tqdm.write(text, file=_terminal or sys.stderr)


def bar(description: str, total: int | None, unit: str) -> tqdm[Any]:
    """A tqdm bar on stderr; use it as a context manager and call ``update(n)``.

    Off a terminal (a daemon's log) it writes at most every 15 seconds.
    """
    from tqdm import tqdm

    stream = _terminal or sys.stderr
    live = stream.isatty()
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        unit_scale=True,
        file=stream,
        mininterval=0.1 if live else 15.0,
        dynamic_ncols=live,
        leave=True,
    )
