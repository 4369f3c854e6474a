"""Tables in several files: a row is its key wherever it lies, and a refresh reads the files that changed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import polars as pl

from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.defs.watching import look_around
from erasmo_dagster.settings import Project
from erasmo_dagster.store.artifacts import snapshot_path
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import Run, published, warehouse

# All that a row is in a version.
ROWS = """
select c.entity_key, c.text_hash, e.vector, s.segment_id
from segments s join corpus c using (dataset, version, entity_key)
join stage_outputs o on o.dataset = s.dataset and o.version = s.version and o.stage = 'embeddings'
join embeddings_32 e on e.dataset = s.dataset and e.version = o.output_version and e.entity_key = c.entity_key
where s.dataset = '{}' and s.version = {}
"""


def in_files(write_dataset: DatasetWriter, files: dict[str, pl.DataFrame], name: str = "customers") -> None:
    """A dataset whose rows are in several files, written so long ago that their times can be trusted."""
    file = write_dataset(name)
    (write_dataset.project.root / f"{name}.parquet").unlink()
    file.write_text(file.read_text().replace(f"path: {name}.parquet", f"path: {name}/*.parquet"))
    for part, frame in files.items():
        write(write_dataset.project, name, part, frame)


def write(project: Project, name: str, part: str, frame: pl.DataFrame) -> None:
    path = project.root / name / f"{part}.parquet"
    path.parent.mkdir(exist_ok=True)
    frame.write_parquet(path)
    os.utime(path, (time.time() - 3600,) * 2)


def rows_of(project: Project, name: str, version: int) -> dict[str, Any]:
    return {key: rest for key, *rest in warehouse(project, ROWS.format(name, version))}


def test_the_order_of_rows_and_files_changes_no_segment(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    frame = customers()
    in_files(write_dataset, {"a": frame[:20], "b": frame[20:40], "c": frame[40:]})
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    in_files(write_dataset, {"1": shuffled[:7], "2": shuffled[7:50], "3": shuffled[50:]}, name="shuffled")
    one, other = run("customers"), run("shuffled")
    assert one["source_table"]["fingerprint"] == other["source_table"]["fingerprint"]
    assert one["segments"]["dagster/row_count"] == 60
    first, second = rows_of(project, "customers", 1), rows_of(project, "shuffled", 1)
    assert len(first) == 60
    assert first == second
    wide = "select * exclude (version, assigned_at) from {}_segmented order by id"
    assert published(project, wide.format("customers")) == published(project, wide.format("shuffled"))


def test_a_refresh_reads_the_file_that_changed(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    frame = customers()
    in_files(write_dataset, {"a": frame[:20], "b": frame[20:40], "c": frame[40:]})
    first = run()
    assert first["source_table"]["rows_read"] == 60
    before = rows_of(project, "customers", 1)
    edited = frame[20:40].with_columns(age=pl.when(pl.col("id") == 30).then(99).otherwise("age"))
    write(project, "customers", "b", edited)
    with open_instance(project) as instance:
        (seen,), _ = look_around(project, instance, {})
    assert seen.changed
    second = run()
    assert second["refresh_plan"]["decision"] == "refresh"
    assert second["refresh_plan"]["rows_changed"] == 1
    assert second["embeddings"]["texts_embedded"] == 1
    assert second["source_table"]["rows_read"] == 20
    after = rows_of(project, "customers", 2)
    assert {key for key in after if after[key][0] != before[key][0]} == {"30"}
    assert published(project, "select count(*), count(distinct entity_key), min(version) from segments") == [
        (60, 60, 2)
    ]
    assert published(project, "select age from customers_segmented where id = 30") == [(99,)]
    inodes = [{file.stat().st_ino for file in snapshot(project, version).iterdir()} for version in (1, 2)]
    assert len(inodes[0] & inodes[1]) == 2
    # Nothing changed: the version takes the snapshot over, and has none of its own.
    third = run()
    assert third["source_table"]["rows_read"] == 0
    assert not snapshot(project, 3).exists()


def snapshot(project: Project, version: int) -> Path:
    return snapshot_path(project, "customers", version)
