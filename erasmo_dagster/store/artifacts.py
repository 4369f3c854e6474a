"""Where a version's files are: the source snapshot, the fitted state and the adapter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from erasmo_dagster.settings import Project, check_name


def version_dir(project: Project, dataset: str, version: int) -> Path:
    """Folder of one version's files."""
    return project.artifacts / check_name(dataset) / str(int(version))


def snapshot_path(project: Project, dataset: str, version: int) -> Path:
    """Parquet file of the source rows that the version was made from; of a source in parts, a folder of such files.

    polars reads either as it stands; for DuckDB, ``parts.snapshot_files`` names the files.
    """
    return version_dir(project, dataset, version) / "source.parquet"


def snapshots(project: Project, dataset: str) -> Iterator[Path]:
    """Where the snapshots of a dataset's versions are, or were, the newest version first."""
    folder = project.artifacts / check_name(dataset)
    versions = [int(one.name) for one in folder.iterdir() if one.name.isdecimal()] if folder.is_dir() else []
    for version in sorted(versions, reverse=True):
        yield snapshot_path(project, dataset, version)


def text_dir(project: Project, dataset: str, version: int) -> Path:
    """Folder of the text's part of what was fitted, on which training goes on."""
    return version_dir(project, dataset, version) / "text"


def state_dir(project: Project, dataset: str, version: int) -> Path:
    """Folder of all that was fitted from the data (``FittedState``), once there are segments."""
    return version_dir(project, dataset, version) / "state"


def adapter_dir(project: Project, dataset: str, version: int) -> Path:
    """Folder of the fine-tuned weights."""
    return version_dir(project, dataset, version) / "adapter"


def checkpoint_dir(project: Project, dataset: str, inputs_hash: str) -> Path:
    """Folder of an unfinished training; a later run with the same inputs goes on from it."""
    return project.artifacts / check_name(dataset) / "training" / inputs_hash


def vectors_dir(project: Project, dataset: str, encoder: str) -> Path:
    """Folder of an unfinished embedding by one encoder; a later run with the same encoder goes on from it."""
    return project.artifacts / check_name(dataset) / "vectors" / encoder


def delete_version_files(project: Project, dataset: str, version: int) -> None:
    """Delete one version's files."""
    shutil.rmtree(version_dir(project, dataset, version), ignore_errors=True)
