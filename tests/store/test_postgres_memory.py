"""Reading a table holds a few chunks at a time, whatever the table's size."""

from __future__ import annotations

import subprocess
import sys

import pytest

from erasmo_dagster.settings import Project
from tests.postgres_server import PostgresServer
from tests.store.postgres_reader import PostgresReader

pytestmark = pytest.mark.postgres
ROWS = 300_000  # of a kilobyte each
MAIN = """
import resource, sys, tempfile
from pathlib import Path
import pyarrow.parquet as pq
from erasmo_dagster.settings import Project, TableSettings
from erasmo_dagster.store.paths import locate
from erasmo_dagster.store.postgres_source import stage_postgres
from erasmo_dagster.store.types import TextRules

root = Path(sys.argv[1])

def read(name):
    table = TableSettings(path="${CRM_DATABASE_URL}", format="postgresql", table=name)
    location = locate(table, Project(root=root, home=root / "home"))
    with tempfile.TemporaryDirectory() as folder:
        (file,) = stage_postgres(location, table, Path(folder), TextRules()).files
        return pq.read_metadata(file).num_rows

read("few")  # loads the libraries
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(read("many"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_rows(
    project: Project, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm = PostgresReader(project, postgres, monkeypatch)
    rows = "SELECT i AS id, repeat(md5(i::text), 32) AS text FROM generate_series(1, {}) i"
    crm.sql(f"CREATE TABLE few AS {rows.format(20_000)}", f"CREATE TABLE many AS {rows.format(ROWS)}")
    done = subprocess.run([sys.executable, "-c", MAIN, project.root], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found, megabytes = map(int, done.stdout.split())
    assert found == ROWS
    assert megabytes < 150, "the rows have 300 megabytes"
