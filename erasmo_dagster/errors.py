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
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


def disk_fault(error: BaseException, folder: Path) -> ErasmoError | None:
    """What to tell of an error met while writing below ``folder``; None where the disk is not the reason.

    DuckDB and safetensors have error types of their own for a full disk, so that their text counts too.
    """
    code = getattr(error, "errno", None)
    if code in _NO_ROOM or any(text in str(error) for text in _NO_ROOM.values()):
        return ErasmoError(
            f"Got no space left on the disk of {folder}",
            expected="room for what is being written there",
            fix="free some space, or set ERASMO_HOME to a folder on another disk, and run again; "
            "what was published is as it was",
        )
    if isinstance(error, OSError) and code in _NO_RIGHT:
        return ErasmoError(
            f"Got {error.strerror!r} for {error.filename or folder}",
            expected="a folder that can be written",
            fix="change its permissions, or set ERASMO_HOME to another folder",
        )
    return None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Tell in one line of a full or read-only disk, met while writing below ``folder``; other errors pass."""
    try:
        yield
    except ErasmoError:
        raise
    except Exception as error:
        if (fault := disk_fault(error, folder)) is None:
            raise
        raise fault from error
