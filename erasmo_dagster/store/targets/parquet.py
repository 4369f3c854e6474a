"""Parquet in a folder or an object store: a folder for each release, and a file that points to the newest.

A release's folder is whole before ``release.json`` is in it, and ``latest.json`` names it after that: in one rename or
one PUT, so that readers who begin there see one release, all of it. What a killed run has left has no ``release.json``,
and goes with the next publish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import whole_file
from erasmo_dagster.settings import ParquetTarget, expand
from erasmo_dagster.settings.targets import has_user
from erasmo_dagster.store.candidate import sync
from erasmo_dagster.store.targets.base import PublishedFile, Seen, Table, Written
from erasmo_dagster.store.targets.parquet_errors import is_of_the_store, store_fault
from erasmo_dagster.store.targets.parquet_tables import check_digits, select_plain, write_parts

POINTER, MANIFEST = "latest.json", "release.json"
_FOLDER = re.compile(r"release-(\d{8,})")
_PACKAGES = {
    "s3": "'erasmo-dagster[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}

Columns = frozenset[tuple[str, str]]  # names of a table and of a column


@dataclass(frozen=True)
class _Manifest:
    """What publishing goes by in a manifest, or in the pointer."""

    seen: Seen
    columns: Columns


class ParquetPublisher:
    """A target of kind parquet; a relative path is below ``root``, the project's folder."""

    def __init__(self, settings: ParquetTarget, root: Path) -> None:
        self._settings, self._root = settings, root

    def release(self) -> Seen | None:
        """The release that the pointer names; None where there is no pointer."""
        with self._store() as store:
            return store.release()

    def publish(self, file: PublishedFile) -> Written:
        """Write a release's folder, move the pointer to it, and remove old folders."""
        number = file.release.number
        with self._store() as store:
            seen = store.release()
            store.remove_unfinished(None if seen is None else seen.number)
            folder = f"release-{number:08d}"
            store.remove(folder)
            tables = {table.name: _write(store, file, table, folder) for table in file.tables(self._settings.leave_out)}
            told = {
                "release": number,
                "publish_id": file.release.publish_id,
                "digest": file.release.digest,
                "built_at": f"{file.release.built_at.isoformat()}Z",
                "published_at": f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z",
                "folder": folder,
                "tables": tables,
            }
            text = json.dumps(told, indent=2, ensure_ascii=False).encode()
            store.write(f"{folder}/{MANIFEST}", text)
            store.write(POINTER, text)
            notes = store.remove_old(number, _columns(tables), self._settings.keep)
        return Written(sum(table["rows"] for table in tables.values()), len(tables), tuple(notes))

    def tidy(self) -> tuple[str, ...]:
        """Remove old folders that could not be removed before."""
        with self._store() as store:
            told = store.pointer()
            if told is None:
                return ()
            return tuple(store.remove_old(told.seen.number, told.columns, self._settings.keep))

    @contextmanager
    def _store(self) -> Iterator[_Store]:
        where = f"in publish, target {self._settings.name!r}"
        path = expand(self._settings.path, where)
        endpoint = expand(self._settings.endpoint_url, where) if self._settings.endpoint_url else None
        local = "://" not in path
        try:
            yield _open(path, endpoint, self._root)
        except (ErasmoError, duckdb.Error):
            raise
        except Exception as error:
            if not is_of_the_store(error):
                raise
            raise store_fault(error, self._settings.path, local=local) from None


class _Store:
    """A folder on this machine or in an object store; names are relative to it."""

    def __init__(self, fs: Any, root: str, *, local: bool) -> None:
        self._fs, self._base, self._local = fs, root.rstrip("/"), local

    def release(self) -> Seen | None:
        """The release that the pointer names."""
        told = self.pointer()
        return None if told is None else told.seen

    def pointer(self) -> _Manifest | None:
        """What the pointer says; None where there is none."""
        self._fs.invalidate_cache()
        try:
            content = self._fs.cat_file(self._path(POINTER))
        except FileNotFoundError:
            return None
        if (told := _manifest(content)) is None:
            raise ErasmoError(
                f"Got a {POINTER} that names no release", expected="the file that publishing writes", fix="delete it"
            )
        return told

    @contextmanager
    def create(self, name: str) -> Iterator[Any]:
        """A new file, opened for writing; on this machine it is on the disk when the block ends."""
        path = self._path(name)
        if self._local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self._fs.open(path, "wb") as file:
            yield file
        if self._local:
            sync(Path(path))
            sync(Path(path).parent)

    def write(self, name: str, content: bytes) -> None:
        """A small file, there as a whole or not at all."""
        path = self._path(name)
        if not self._local:
            self._fs.pipe_file(path, content)
            return
        with whole_file(Path(path)) as written:
            written.write_bytes(content)
            sync(written)
        sync(Path(path).parent)

    def remove(self, name: str) -> None:
        """Remove a folder and all that is in it, if it is there."""
        self._fs.invalidate_cache()
        if self._fs.exists(self._path(name)):
            self._fs.rm(self._path(name), recursive=True)

    def remove_unfinished(self, current: int | None) -> None:
        """Remove folders that no reader has been shown: those that a killed run has left."""
        for number, folder in self._folders().items():
            shown = current is not None and number <= current
            if not shown or not self._fs.exists(self._path(f"{folder}/{MANIFEST}")):
                self.remove(folder)

    def remove_old(self, current: int, columns: Columns, keep: int) -> list[str]:
        """Remove the folders beyond the newest ``keep``, and those before it that have more than its ``columns``.

        What the newest has not any more may be what nobody is to see. What could not be removed is told.
        """
        notes = []
        before = [folder for number, folder in self._folders().items() if number < current]
        for age, folder in enumerate(before, start=1):
            try:
                if age < keep and self._has_only(columns, folder):
                    continue
                # Without its manifest it is no release any more, whatever stops the rest.
                if self._fs.exists(self._path(f"{folder}/{MANIFEST}")):
                    self._fs.rm_file(self._path(f"{folder}/{MANIFEST}"))
                self.remove(folder)
            except OSError:
                notes.append(f"the folder {folder} stays for now: it could not be removed")
        return notes

    def _has_only(self, columns: Columns, folder: str) -> bool:
        try:
            told = _manifest(self._fs.cat_file(self._path(f"{folder}/{MANIFEST}")))
        except FileNotFoundError:
            return False
        return told is not None and told.columns <= columns

    def _folders(self) -> dict[int, str]:
        """Number -> name of the releases' folders, the newest first."""
        self._fs.invalidate_cache()
        try:
            listed = self._fs.ls(self._base, detail=False)
        except FileNotFoundError:
            return {}
        names = [str(path).rstrip("/").rpartition("/")[2] for path in listed]
        found = {int(match[1]): name for name in names if (match := _FOLDER.fullmatch(name))}
        return dict(sorted(found.items(), reverse=True))

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"


def _open(path: str, endpoint: str | None, root: Path) -> _Store:
    import fsspec

    if has_user(path) or has_user(endpoint or ""):
        raise ErasmoError("Got an address with a user in it", expected="keys in environment variables of their own")
    protocol, marked, _ = path.partition("://")
    if not marked:
        folder = root / Path(path).expanduser()
        return _Store(fsspec.filesystem("file"), str(folder), local=True)
    options = {"endpoint_url": endpoint} if endpoint else {}
    try:
        fs, base = fsspec.url_to_fs(path, **options)
    except ImportError:
        raise ErasmoError(
            f"Got a path of {protocol}:// without the package that reads it",
            fix=f"pip install {_PACKAGES.get(protocol, f'what fsspec needs for {protocol}')}",
        ) from None
    except ValueError:
        raise ErasmoError(
            f"Got a path of {protocol}://", expected="a folder, or an address that fsspec knows, such as s3://"
        ) from None
    return _Store(fs, base, local="file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)))


def _write(store: _Store, file: PublishedFile, table: Table, folder: str) -> dict[str, Any]:
    """Write a table's parts; what the manifest says of it."""
    check_digits(file, table)
    with file.batches(select_plain(table)) as batches:
        schema = batches.schema
        parts = write_parts(batches, lambda part: store.create(f"{folder}/{table.name}/{part}"))
    return {
        "rows": sum(rows for _, rows in parts),
        "files": [f"{folder}/{table.name}/{name}" for name, _ in parts],
        "description": table.comment,
        "columns": [
            {"name": column.name, "type": str(schema.field(i).type), "description": column.comment}
            for i, column in enumerate(table.columns)
        ],
    }


def _manifest(content: bytes) -> _Manifest | None:
    """What is in a manifest or the pointer; None where it is not what publishing writes."""
    try:
        told = json.loads(content)
        return _Manifest(Seen(int(told["release"]), str(told["digest"])), _columns(told["tables"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _columns(tables: Mapping[str, Any]) -> Columns:
    return frozenset((name, column["name"]) for name, table in tables.items() for column in table["columns"])
