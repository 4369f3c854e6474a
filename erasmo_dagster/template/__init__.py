"""What ``erasmo init`` puts into a new project folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import open_project, write_schema

_HERE = Path(__file__).parent
# Python's own, and what dbt leaves behind.
_NOT_COPIED = shutil.ignore_patterns("__init__.py", "__pycache__", "target", "logs", "dbt_packages", "*.duckdb*")


def create_project(folder: Path) -> Path:
    """Make a project in ``folder``, which must be empty or absent; its path.

    The two demo datasets come along as examples to read, to run and to delete.
    """
    root = folder.expanduser().resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ErasmoError(
            f"Got {root}, which is not empty", expected="an empty or absent folder", fix="name another one"
        )
    # Made whole beside its place, so that a failure leaves no half of a project.
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = root.with_name(f".{root.name}.init")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        shutil.copytree(_HERE, staging, ignore=_NOT_COPIED)
        (staging / ".gitignore").write_text(".erasmo/\n")
        write_schema(open_project(staging))
        if root.exists():
            root.rmdir()
        staging.rename(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return root
