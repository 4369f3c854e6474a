"""Files and folders that are whole or absent, and the checksums that tell a damaged file."""

from __future__ import annotations

import hashlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from erasmo_dagster.errors import disk_errors

_STALE = 24 * 3600.0  # seconds after which nobody is working in a folder any more
_LEFT = 3600.0  # seconds after which nobody is writing a temporary file any more


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``final`` that takes its place when the block ends well, and is removed otherwise.

    One writer at a time: what an interrupted one left beside ``final`` is removed first. Raises ErasmoError when the
    disk is full.
    """
    for stale in final.parent.glob(f".{escape(final.name)}.tmp-*"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = final.parent / f".{final.name}.tmp-{uuid.uuid4().hex[:8]}"
    with disk_errors(final):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            if final.exists():
                old = temporary.with_name(f"{temporary.name}-old")
                final.rename(old)
                temporary.rename(final)
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """Yield a path beside ``final``, whose file takes its place when the block ends well, and is removed otherwise.

    Of several writers the last one's stays. What a killed one left beside ``final`` an hour ago or more is removed. The
    folder is made where there is none. Raises ErasmoError when the disk is full.
    """
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        for stale in final.parent.glob(f".{escape(final.name)}.*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - stale.stat().st_mtime > _LEFT:
                    stale.unlink()
        try:
            yield temporary
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def link_or_copy(file: Path, to: Path) -> bool:
    """Have a file that nobody changes at another path too, as a hard link where the disk has them.

    False where the file is gone, or is deleted meanwhile. Raises FileExistsError where ``to`` exists.
    """
    try:
        to.hardlink_to(file)
    except FileNotFoundError:
        return False
    except FileExistsError:  # perhaps a link itself, and what it shares must not be written over
        raise
    except OSError:  # another disk, or one without hard links
        try:
            shutil.copyfile(file, to)
        except FileNotFoundError:
            return False
    return True


def copy_linked(folder: Path, to: Path) -> None:
    """Copy a folder. Files that are one under several names are one in the copy too, where its disk has links."""
    made: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.rglob("*")):
        copy = to / path.relative_to(folder)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        stat = path.stat()
        first = made.setdefault((stat.st_dev, stat.st_ino), copy)
        if first is copy or not link_or_copy(first, copy):
            shutil.copy2(path, copy)


def remove_stale(folders: Iterable[Path]) -> None:
    """Delete folders that a process which was killed has left: those that were made more than a day ago."""
    for folder in folders:
        with suppress(FileNotFoundError):  # its owner is just done with it
            if time.time() - folder.stat().st_mtime > _STALE:
                shutil.rmtree(folder, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its path relative to it."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def damaged(folder: Path, expected: Mapping[str, str]) -> str | None:
    """Name of the first file that is missing or whose checksum differs; None where all are as they were written."""
    for name, sha256 in expected.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            return name
    return None
