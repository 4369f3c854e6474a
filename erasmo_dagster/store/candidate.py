"""The file that is about to take the published one's place, and the warehouse held meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from erasmo_dagster.settings import Project
from erasmo_dagster.store.warehouse import open_warehouse

# Of what is written into a candidate that is built already, which is little.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {"threads": 1, "memory_limit": "512MB"}


@contextmanager
def publishing(project: Project) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """The warehouse, locked and outside a transaction, and a path beside the published file for the one to come.

    Whatever is at that path when the block ends is removed.
    """
    target = project.published
    target.parent.mkdir(parents=True, exist_ok=True)
    candidate = target.with_name(target.name + ".tmp")
    with (
        open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout, transaction=False) as con,
        _candidate_file(candidate),
    ):
        yield con, candidate


@contextmanager
def editing(candidate: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The candidate, open for a small change, which is in that one file when the block ends."""
    with duckdb.connect(candidate, config=_CONFIG) as file:
        yield file
        file.execute("CHECKPOINT")


def put_in_place(candidate: Path, published: Path) -> None:
    """Let the candidate, which must be synced, take the published file's place in one step."""
    candidate.replace(published)
    sync(published.parent)


def sync(path: Path) -> None:
    """Have a file, or a folder's names, on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _candidate_file(candidate: Path) -> Iterator[None]:
    """Remove what a killed publish left, and whatever is left when this one ends."""
    _remove(candidate)
    try:
        yield
    finally:
        _remove(candidate)


def _remove(candidate: Path) -> None:
    candidate.unlink(missing_ok=True)
    candidate.with_name(candidate.name + ".wal").unlink(missing_ok=True)
    shutil.rmtree(candidate.with_name(candidate.name + ".tmp"), ignore_errors=True)  # where DuckDB spills
