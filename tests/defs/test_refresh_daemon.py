"""Nobody clicks: a table changes three times under the real daemon and webserver, and two readers never notice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl
import pytest

from erasmo_dagster.settings import Project, open_project
from tests.conftest import DatasetWriter, customers
from tests.defs.lineage import published
from tests.servers import Webserver, served, wait_for

pytestmark = pytest.mark.daemon

# One opens the file anew for every query, the other keeps its connection and attaches the file again and again.
READER = """
import sys, time, pathlib, duckdb
path, stop, keep = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == "keep"
query = '''select count(*), count(distinct entity_key), count(distinct version), (select sum(rows) from {0}segment_sizes),
    (select count(*) from {0}customers_segmented), (select count(*) from {0}segment_history where valid_to is null)
    from {0}segments'''
con, looks, seen = duckdb.connect() if keep else None, 0, set()
while not stop.exists():
    if keep:
        con.execute(f"attach '{path}' as published (read_only)")
        rows, entities, versions, sizes, wide, open_stays = con.execute(query.format("published.")).fetchall()[0]
        con.execute("detach published")
    else:
        with duckdb.connect(path, read_only=True) as con:
            rows, entities, versions, sizes, wide, open_stays = con.execute(query.format("")).fetchall()[0]
    assert rows == entities == sizes == wide == open_stays and versions == 1, (rows, entities, versions, sizes, wide)
    seen.add(rows)
    looks += 1
    time.sleep(0.02)
print(looks, *sorted(seen))
"""
TICKS = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__", repositoryLocationName: "erasmo",
  sensorName: "source_changes"}) { ... on Sensor { sensorState { status ticks(limit: 50) { status error { message } } } } } }"""


@contextmanager
def reader(project: Project, stop: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", READER, str(project.published), str(stop), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def publishes(project: Project) -> list[tuple[int, int, str]]:
    if not project.published.is_file():
        return []
    return published(project, "select version, rows, reason from publish_log order by publish_id")


def test_a_table_that_changes_three_times(project: Project, write_dataset: DatasetWriter, tmp_path: Path) -> None:
    (project.root / "erasmo.yaml").write_text("sensor_interval: 2s\n")
    project = open_project(project.root, project.home)
    write_dataset()
    stop = tmp_path / "stop"
    with served(project, tmp_path / "ui.log") as server, ExitStack() as readers:
        wait_for("the first version", lambda: len(publishes(project)) >= 1, seconds=180)
        processes = [readers.enter_context(reader(project, stop, mode)) for mode in ("open", "keep")]
        changes = [customers(66), customers(), customers().with_columns(city=pl.format("town {}", pl.col("id") % 5))]
        for number, frame in enumerate(changes, start=2):
            write_dataset(frame=frame)
            wait_for(f"version {number}", lambda number=number: len(publishes(project)) >= number, seconds=180)
        stop.touch()
        for process in processes:
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
            looks, *rows = map(int, out.split())
            assert looks > 50
            assert rows == [60, 66]
        _check_ticks(server)
    log = publishes(project)
    assert [(version, rows) for version, rows, _ in log] == [(1, 60), (2, 66), (3, 60), (4, 60)]
    first, added, back, column = (reason for _, _, reason in log)
    assert first.startswith("nothing is published yet; retrained: nothing of this dataset has been published yet")
    assert added.startswith("source changed; refreshed with the training of version 1: 6 new rows")
    assert back.startswith("source changed; refreshed with the training of version 1: 6 gone rows")
    assert column.startswith("source changed; retrained: column added: city (VARCHAR)")


def _check_ticks(server: Webserver) -> None:
    state = server.query(TICKS)["sensorOrError"]["sensorState"]
    assert state["status"] == "RUNNING"
    assert [tick["error"] for tick in state["ticks"] if tick["status"] == "FAILURE"] == []
