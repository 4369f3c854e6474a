"""Many readers while much is published."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erasmo_dagster import template
from erasmo_dagster.settings import Project
from tests.store.test_publish import prepare, release

READERS, PUBLISHES, QUERIES = 4, 30, 10_000


@pytest.mark.slow
def test_four_readers_are_never_blocked_and_never_see_half_of_a_version(project: Project, tmp_path: Path) -> None:
    shutil.copytree(Path(template.__file__).parent / "dbt_like_sql", project.sql_dir)
    release(project, "a", prepare(project, "a", 100))
    stop = tmp_path / "stop"
    command = [sys.executable, "-m", "tests.store.crowd", str(project.published), str(stop), str(QUERIES // READERS)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(READERS)]
    try:
        for publish in range(PUBLISHES):
            release(project, "a", prepare(project, "a", 101 + publish))
        stop.touch()
        answers = [json.loads(reader.communicate(timeout=300)[0]) for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    assert [answer["faults"] for answer in answers] == [[]] * READERS
    assert sum(answer["asked"] for answer in answers) >= QUERIES
    assert all(answer["versions"] > PUBLISHES / 4 for answer in answers), "they read while it was published"
