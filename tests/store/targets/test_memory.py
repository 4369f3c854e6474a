"""A copy holds a few rows at a time, whatever the table's size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.targets.places import Database, own_file

ROWS = 300_000  # of a kilobyte each
MAIN = """
import resource, sys
from pathlib import Path
from erasmo_dagster.settings import ParquetTarget, PostgresTarget
from erasmo_dagster.store.targets.parquet import ParquetPublisher
from erasmo_dagster.store.targets.postgres import PostgresPublisher
from tests.store.targets.places import LAKE, TEAM, opened

folder, kind = Path(sys.argv[1]), sys.argv[2]
target = (
    PostgresPublisher(PostgresTarget.model_validate(TEAM), wait=20)
    if kind == "postgresql"
    else ParquetPublisher(ParquetTarget.model_validate(LAKE), folder)
)
with opened(folder / "few.duckdb", 1) as file:
    target.publish(file)  # loads the libraries
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with opened(folder / "many.duckdb", 2) as file:
    print(target.publish(file).rows)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", [pytest.param("postgresql", marks=pytest.mark.postgres), "parquet"])
def test_memory_does_not_grow_with_rows(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "postgresql":
        database: Database = request.getfixturevalue("database")
    table = "CREATE TABLE t AS SELECT i, repeat(md5(i::VARCHAR), 32) AS text FROM range({}) r(i)"
    own_file(tmp_path / "few.duckdb", [table.format(20_000)])
    own_file(tmp_path / "many.duckdb", [table.format(ROWS)])
    done = subprocess.run([sys.executable, "-c", MAIN, tmp_path, kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows, megabytes = map(int, done.stdout.split())
    assert rows == ROWS
    assert megabytes < 200, "the rows have 300 megabytes"
    if kind == "postgresql":
        query = "select count(*), count(distinct left(text, 32)), min(length(text)) from erasmo.t"
        assert database.rows(query) == [(ROWS, ROWS, 1024)]
