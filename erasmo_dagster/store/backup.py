"""A copy of all that cannot be made again, and the way back.

What a backup holds: the warehouse as one transaction left it, and the files of every version that it names. What it
leaves out can be had again: base models are fetched, the published file is built from the warehouse, unfinished
trainings and embeddings begin anew.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.files import checksums, copy_linked, damaged, link_or_copy, whole_folder
from erasmo_dagster.settings import Project
from erasmo_dagster.store.artifacts import version_dir
from erasmo_dagster.store.schema import SCHEMA_VERSION
from erasmo_dagster.store.versions import published_versions
from erasmo_dagster.store.warehouse import open_warehouse, writer_lock

MANIFEST = "backup.json"
_WAREHOUSE, _ARTIFACTS = "warehouse.duckdb", "artifacts"
_WORKING = (".backup-", ".restore-")  # folders in the home that are gone when the work ends


class Backup(BaseModel):
    """What a backup holds; ``backup.json`` in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_at: datetime
    schema_version: int
    versions: dict[str, list[int]]  # by dataset
    published: dict[str, int]
    software: dict[str, str]
    files: dict[str, str]  # SHA-256 by path


def back_up(project: Project, folder: Path) -> Backup:
    """Write a backup to ``folder``, which must not exist yet and appears whole.

    Runs may go on: only while the warehouse's file is copied they wait to write. Raises ErasmoError where there is no
    warehouse, ``folder`` exists or the disk is full.
    """
    if not project.warehouse.is_file():
        raise ErasmoError(f"Got no warehouse in {project.home} to back up", fix="erasmo run NAME")
    if folder.exists():
        raise ErasmoError(f"Got {folder}, which exists", expected="a folder that a backup can make")
    if folder.resolve().is_relative_to(project.home.resolve()):
        raise ErasmoError(f"Got {folder} within {project.home}", expected="a place that is not lost with what it saves")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Links hold what a publish deletes meanwhile; nothing of a version's files is changed in place.
    with _working_folder(project, _WORKING[0]) as held, whole_folder(folder) as out:
        versions, published = _copy_warehouse(project, out / _WAREHOUSE, held)
        with disk_errors(folder):
            copy_linked(held, out / _ARTIFACTS)
        backup = Backup(
            made_at=datetime.now(UTC),
            schema_version=SCHEMA_VERSION,
            versions=versions,
            published=published,
            software={name: version(name) for name in ("erasmo-dagster", "duckdb")},
            files=checksums(out),
        )
        (out / MANIFEST).write_text(backup.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return backup


def restore(project: Project, folder: Path, *, replace: bool = False) -> tuple[Backup, Path | None]:
    """Put a backup in the place of the project's warehouse and artifacts; the backup, and where the old ones are.

    With ``replace`` what is there is set aside in a folder within the home; without, it is an error. Nothing is touched
    before every file of the backup is found as it was written, and what fails later leaves all as it was. No run may be
    going on: the caller sees to that. The published file is what it was until
    :func:`~erasmo_dagster.store.publish.publish_anew` builds it from the warehouse. Raises ErasmoError for a folder
    that is no backup or damaged, and for one of a later release.
    """
    backup = _read(folder)
    if backup.schema_version > SCHEMA_VERSION:
        raise ErasmoError(
            f"Got a backup of schema version {backup.schema_version} in {folder}",
            expected=f"version {SCHEMA_VERSION} or an earlier one",
            fix=f"install erasmo-dagster {backup.software.get('erasmo-dagster', '')} or a later release",
        )
    if (name := damaged(folder, backup.files)) is not None:
        raise ErasmoError(f"Got {folder / name}, which is missing or damaged", expected="a whole backup")
    if (there := _there(project)) and not replace:
        raise ErasmoError(
            f"Got {there[0]}, which exists", fix="give --replace to set it aside, or restore into another ERASMO_HOME"
        )
    project.home.mkdir(parents=True, exist_ok=True)
    with disk_errors(project.home), _working_folder(project, _WORKING[1]) as fresh:
        copy_linked(folder, fresh)
        (fresh / _ARTIFACTS).mkdir(exist_ok=True)
        with writer_lock(project.warehouse, project.settings.lock_timeout):
            return backup, _swap(project, fresh)


def working_folders(project: Project) -> Iterator[Path]:
    """Folders in the home that a backup or a restore works in, or has left where it was killed."""
    for prefix in _WORKING:
        yield from project.home.glob(f"{prefix}*")


@contextmanager
def _working_folder(project: Project, prefix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=prefix, dir=project.home, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _copy_warehouse(project: Project, out: Path, held: Path) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Copy the file while nobody writes it, and link the files of its versions; what versions and which are published.

    The warehouse is brought to this release's tables first, as any command does.
    """
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout, transaction=False) as con:
        versions = _by_dataset(con.execute("SELECT dataset, version FROM versions ORDER BY ALL").fetchall())
        published = published_versions(con)
        con.execute("CHECKPOINT")
        con.close()  # no second file beside it now, and the lock is still ours
        for dataset, numbers in versions.items():
            for number in numbers:
                _link(version_dir(project, dataset, number), held / dataset / str(number))
        with disk_errors(out.parent.parent):  # and not the warehouse's
            shutil.copyfile(project.warehouse, out)
    return versions, published


def _by_dataset(rows: list[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for dataset, number in rows:
        found.setdefault(dataset, []).append(number)
    return found


def _link(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        own = file.relative_to(source)
        if file.is_file() and not any(part.startswith(".") for part in own.parts):  # a hidden one is half-written
            (target / own).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, target / own)  # unless a run has just finished with it


def _read(folder: Path) -> Backup:
    try:
        return Backup.model_validate(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise ErasmoError(f"Got {folder}, which is no backup", expected=f"a folder with {MANIFEST}") from error


def _there(project: Project) -> list[Path]:
    log = project.warehouse.with_name(project.warehouse.name + ".wal")
    return [path for path in (project.warehouse, log, project.artifacts) if path.exists()]


def _swap(project: Project, fresh: Path) -> Path | None:
    """Set aside what is there and put what is fresh in its place, or leave all as it was; where the old is."""
    aside = project.home / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    there = _there(project)
    moves = [(path, aside / path.name) for path in there]
    # The warehouse comes last: it names the others.
    moves += [(fresh / _ARTIFACTS, project.artifacts), (fresh / _WAREHOUSE, project.warehouse)]
    done: list[tuple[Path, Path]] = []
    if there:
        aside.mkdir()
    try:
        for path, to in moves:
            path.replace(to)
            done.append((path, to))
    except BaseException:
        for path, to in reversed(done):
            to.replace(path)
        if there:
            aside.rmdir()
        raise
    return aside if there else None
