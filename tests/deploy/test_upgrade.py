"""A project of the release before goes on in this one: nothing is lost, nothing is trained anew."""

from __future__ import annotations

import tarfile
from pathlib import Path

import duckdb
import polars as pl
import pytest

from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.schema import SCHEMA_VERSION
from tests.conftest import customers
from tests.defs.conftest import run  # noqa: F401
from tests.defs.lineage import Run, published, warehouse
from tests.deploy.make_release import changed

ARCHIVES = sorted(Path(__file__).parent.glob("schema_*.tar.xz"))
SEGMENTS = "select * from segments where dataset = '{}' order by entity_key"
KEPT = ("segment_history", "segment_transitions", "segment_sizes", "segment_metrics", "others_segmented")


@pytest.fixture(params=ARCHIVES, ids=lambda archive: archive.name.partition(".")[0])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    with tarfile.open(request.param) as packed:
        packed.extractall(tmp_path, filter="data")
    return open_project(tmp_path / "project", tmp_path / "home")


def schema_of(project: Project) -> int:
    with duckdb.connect(project.warehouse, read_only=True) as con:
        return int(con.execute("FROM meta").fetchall()[0][0])


def segments(project: Project) -> dict[str, int]:
    return dict(published(project, "select entity_key, segment_id from segments where dataset = 'people'"))


def test_the_archives_are_of_earlier_releases() -> None:
    assert [int(archive.name[7:].partition(".")[0]) for archive in ARCHIVES][-1] == SCHEMA_VERSION - 1


def test_a_warehouse_of_the_release_before_goes_on(project: Project, run: Run) -> None:  # noqa: F811
    assert schema_of(project) < SCHEMA_VERSION
    before = {name: published(project, SEGMENTS.format(name)) for name in ("people", "others")}
    kept = {table: published(project, f"from {table} order by all") for table in KEPT}
    assert published(project, "select distinct version from segments where dataset = 'people'") == [(2,)]
    held = segments(project)
    frame = changed(customers())
    frame = frame.with_columns(age=pl.when(pl.col("id") == 30).then(68).otherwise("age"))
    frame.write_parquet(project.root / "people.parquet")
    metadata = run("people")
    assert schema_of(project) == SCHEMA_VERSION
    assert metadata["published_segments"]["version"] == 3
    # Refreshed with what the release before had learnt: one row is new to it.
    assert metadata["adapter"]["made_by"] == "version 1, reused"
    assert metadata["embeddings"]["texts_embedded"] == 1
    # Whoever did not change stays in the same segment, under its number of before; the history says so too.
    after = segments(project)
    assert after.keys() == held.keys() == {str(key) for key in frame["id"]}
    assert after | {"30": 0} == held | {"30": 0}
    stayed = "select entity_key, segment_id from segment_history where from_version < 3 and valid_to is null and dataset = 'people'"
    assert set(after.items()) - {("30", after["30"])} <= set(published(project, stayed)) <= set(after.items())
    # The other dataset is as it was, and so is all that was written down.
    assert published(project, SEGMENTS.format("others")) == before["others"]
    for table, rows in kept.items():
        if table.startswith("segment_"):
            rows = [row for row in rows if "others" in row]
        found = published(project, f"from {table} order by all")
        assert [row for row in found if "others" in row or table == "others_segmented"] == rows, table
    assert warehouse(project, "select count(*) from publish_log") == [(4,)]
