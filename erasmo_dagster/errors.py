"""The one error type that users see."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ErasmoError(Exception):
    """A fault that the user can mend: what was got, what was expected, what to change.

    The command line prints it as one line and exits with status 1; Dagster shows it as the
    step's error. Anything else that escapes is a fault of ours and keeps its traceback.

    >>> str(ErasmoError("Got k=1", expected="at least 2", fix="set clustering.k"))
    'Got k=1, expected at least 2: set clustering.k.'
    """

    def __init__(self, got: str, *, expected: str = "", fix: str = "") -> None:
        self.got, self.expected, self.fix = got, expected, fix
        message = got
        if expected:
            message += f", expected {expected}"
        if fix:
            message += f": {fix}"
        super().__init__(message if message.endswith((".", "!", "?")) else message + ".")


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Say in one line that the disk of ``folder`` is full; any other error passes."""
    try:
        yield
    except Exception as error:  # DuckDB and safetensors have error types of their own for it
        if getattr(error, "errno", None) != errno.ENOSPC and "No space left" not in str(error):
            raise
        raise ErasmoError(
            f"Got no space left on the disk of {folder}",
            expected="room for what the run writes",
            fix="free some and run again; what was published is as it was",
        ) from error
