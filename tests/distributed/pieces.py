"""Small pieces of work that workers import; each leaves a trace in the folder that they share."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from erasmo_dagster.errors import ErasmoError


def note(folder: Path, name: str) -> str:
    """Which notes were there before this one."""
    before = ",".join(sorted(file.stem for file in folder.glob("*.note")))
    (folder / f"{name}.note").touch()
    return f"{name} after {before}"


def mend(folder: Path, name: str) -> None:
    raise ErasmoError(f"Got {name}", expected="y", fix="mend it")


def bug(folder: Path, name: str) -> float:
    return 1 / 0


def die(folder: Path, name: str) -> None:
    with (folder / name).open("a") as tries:
        tries.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def tries(folder: Path, name: str) -> int:
    """How often that task was tried."""
    return len((folder / name).read_text())


def crowd(folder: Path, name: str) -> int:
    """How many of its kind were at it when this one was."""
    mine = folder / f"{name}.here"
    mine.touch()
    time.sleep(0.5)
    found = len(list(folder.glob("*.here")))
    mine.unlink()
    return found


def long(folder: Path, name: str) -> None:
    """Takes longer than a test waits for it."""
    (folder / name).write_text(str(os.getpid()))
    time.sleep(60)
