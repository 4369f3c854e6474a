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


_NO_ROOM = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
}


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Say in one line that nothing more can be written in ``folder``; any other error passes."""
    try:
        yield
    except ErasmoError:
        raise
    except Exception as error:  # DuckDB and safetensors have error types of their own for it
        code = getattr(error, "errno", None)
        reason = _NO_ROOM.get(code) if code else next((r for r in _NO_ROOM.values() if r in str(error)), None)
        if reason is None:
            raise
        raise ErasmoError(
            f"Got a full disk writing in {folder} ({reason.lower()})",
            expected="room for what the run writes",
            fix="free some and run again; what was published is as it was",
        ) from error
