"""Keeps the process quiet after its last word."""

from __future__ import annotations

import atexit
import os
import sys

_registered = False


def quiet_exit() -> None:
    """Drop what C libraries print while the interpreter is torn down.

    With torch loaded, DuckDB's binding lists every asset function that refers to it as leaked, after all handlers have
    run; a user can do nothing about it. Everything that Python itself has to say comes before and is shown.
    """
    global _registered
    if not _registered:
        atexit.register(_silence)
        _registered = True


def _silence() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
