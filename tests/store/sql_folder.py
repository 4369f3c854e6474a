"""Small folders of models, and a small published file to build them in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql_models import Build, SqlProject, build_models, load_sql_project

PROJECT = "name: shop\nversion: '1.0'\nprofile: shop\n"
SOURCES = """
version: 2
sources:
  - name: erasmo
    schema: main
    tables:
      - name: segments
        description: One row per entity.
        columns:
          - {name: dataset, description: Name of the dataset., data_type: varchar}
          - {name: entity_key}
      - name: segment_sizes
"""
STAGED = "select * from {{ source('erasmo', 'segments') }}"


def folder(tmp_path: Path, files: Mapping[str, str] | None = None, *, project: str = PROJECT) -> Path:
    """A folder with ``dbt_project.yml``, the sources, and these files."""
    root = tmp_path / "sql"
    written = {"dbt_project.yml": project, "models/sources.yml": SOURCES} | dict(files or {})
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def load(tmp_path: Path, files: Mapping[str, str] | None = None, *, project: str = PROJECT) -> SqlProject:
    """The folder, loaded."""
    loaded = load_sql_project(folder(tmp_path, files, project=project))
    assert loaded is not None
    return loaded


def refused(tmp_path: Path, files: Mapping[str, str], *says: str, project: str = PROJECT) -> ErasmoError:
    """The error that loading the folder gives; its line has each of ``says`` and is told with what to do."""
    with pytest.raises(ErasmoError) as raised:
        load(tmp_path, files, project=project)
    told = str(raised.value)
    assert [text for text in says if text not in told] == [], told
    assert "\n" not in told
    assert raised.value.fix, told
    return raised.value


def published(path: Path) -> Path:
    """A published file: two datasets, six entities, one of them twice."""
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{path}' AS file (STORAGE_VERSION 'v1.0.0'); USE file")
        con.execute("CREATE TABLE segments (dataset VARCHAR, entity_key VARCHAR, segment_id INTEGER)")
        con.execute(
            "INSERT INTO segments VALUES ('a', '1', 0), ('a', '2', 0), ('a', '3', 1), ('b', '1', 0), ('b', '1', 7),"
            " ('b', NULL, NULL)"
        )
        con.execute("CREATE TABLE segment_sizes (dataset VARCHAR, segment_id INTEGER, rows BIGINT)")
        con.execute("INSERT INTO segment_sizes VALUES ('a', 0, 2), ('a', 1, 1), ('b', 0, 1)")
        con.execute("USE memory; DETACH file")
    return path


def build(tmp_path: Path, files: Mapping[str, str], *, project: str = PROJECT) -> Build:
    """The folder, built into ``tmp_path/segments.duckdb``."""
    return build_models(published(tmp_path / "segments.duckdb"), load(tmp_path, files, project=project))


def rows(path: Path, query: str) -> list[Any]:
    """What a query on the built file gives."""
    with duckdb.connect(path, read_only=True) as con:
        return list(con.execute(query).fetchall())
