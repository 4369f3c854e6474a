"""What is no longer needed: old versions, datasets that are gone, and what killed runs have left."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from erasmo_dagster.files import remove_stale
from erasmo_dagster.settings import Project
from erasmo_dagster.store.artifacts import delete_version_files
from erasmo_dagster.store.backup import working_folders
from erasmo_dagster.store.summaries import forget_summaries
from erasmo_dagster.store.versions import publications, superseded_versions
from erasmo_dagster.store.warehouse import delete_version, in_transaction, open_warehouse


@dataclass
class Collected:
    """What was removed: versions by dataset, whole datasets, and the bytes of files that went with them."""

    versions: dict[str, list[int]] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    freed_bytes: int = 0


def remove_superseded(con: duckdb.DuckDBPyConnection, project: Project, dataset: str) -> list[int]:
    """Delete the versions beyond ``keep_versions`` that nothing needs, rows and files; the numbers of those."""
    removed = superseded_versions(con, dataset, project.settings.keep_versions)
    for version in removed:
        with in_transaction(con):
            delete_version(con, dataset, version)
        delete_version_files(project, dataset, version)
    return removed


def collect(project: Project, *, present: Collection[str], busy: Collection[str]) -> Collected:
    """Remove what no dataset needs any more.

    ``present`` are the datasets that have a YAML: others go whole, with their history, unless they are published still.
    ``busy`` are those with a run in progress, of which nothing is touched. The published file stays as it is.
    """
    done = Collected()
    if not project.warehouse.is_file():
        return done
    before = _size(project.artifacts) + project.warehouse.stat().st_size
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout, transaction=False) as con:
        known = {name for (name,) in con.execute("SELECT DISTINCT dataset FROM versions").fetchall()}
        published = publications(con)
        for name in sorted(known | set(published)):
            if name in busy:
                continue
            publication = published.get(name)
            if name not in present and (publication is None or publication.retired):
                _forget(con, project, name)
                done.datasets.append(name)
            elif removed := remove_superseded(con, project, name):
                done.versions[name] = removed
        kept = {
            (name, str(version)) for name, version in con.execute("SELECT dataset, version FROM versions").fetchall()
        }
        if not busy:  # a run in progress may have some that are in no corpus yet
            forget_summaries(con)
        con.execute("CHECKPOINT")
    _sweep(project.artifacts, kept, busy)
    remove_stale(working_folders(project))
    done.freed_bytes = max(0, before - _size(project.artifacts) - project.warehouse.stat().st_size)
    return done


def _forget(con: duckdb.DuckDBPyConnection, project: Project, dataset: str) -> None:
    """Delete all that is known of a dataset but the log of its publishes."""
    versions = [v for (v,) in con.execute("SELECT version FROM versions WHERE dataset = ?", [dataset]).fetchall()]
    with in_transaction(con):
        for version in versions:
            delete_version(con, dataset, version)
        for table in ("published_versions", "segment_names", "segment_history", "segment_transitions"):
            con.execute(f"DELETE FROM {table} WHERE dataset = ?", [dataset])
    shutil.rmtree(project.artifacts / dataset, ignore_errors=True)


def _sweep(artifacts: Path, kept: Collection[tuple[str, str]], busy: Collection[str]) -> None:
    """Delete folders that no version names: of versions that are gone, unfinished trainings, half-written ones."""
    for dataset in artifacts.iterdir() if artifacts.is_dir() else ():
        if dataset.name in busy or not dataset.is_dir():
            continue
        for folder in dataset.iterdir():
            if (dataset.name, folder.name) not in kept:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for left in folder.glob(".*.tmp-*"):
                shutil.rmtree(left, ignore_errors=True)


def _size(folder: Path) -> int:
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    # Versions share the parts of snapshots that did not change: one file under several names.
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())
