"""Who is told of what: a version that was blocked, the last retry that failed, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg
import pytest

from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.defs.notices import LAST_TAG, notify_settings, tell_of_failure
from erasmo_dagster.defs.watching import PARTITION_TAG
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.publish import mend
from tests.conftest import DatasetWriter
from tests.defs.lineage import Run, published


@pytest.fixture
def told(project: Project) -> Path:
    """Where the project's command writes what it is told."""
    told = project.root / "told.jsonl"
    script = project.root / "tell.py"
    script.write_text(f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')")
    (project.root / "erasmo.yaml").write_text(json.dumps({"notify": {"command": [sys.executable, str(script)]}}))
    return told


def notices(told: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []


def test_a_blocked_version_is_told_once(project: Project, write_dataset: DatasetWriter, told: Path) -> None:
    project = open_project(project.root, project.home)
    write_dataset(extra="gate: {min_segment_size: 30}\n")
    with open_instance(project) as instance:
        with pytest.raises(ErasmoError, match="blocked at the gate"):
            run_dataset(instance, project, "customers")
        (notice,) = notices(told)
        assert (notice["dataset"], notice["event"], notice["version"]) == ("customers", "blocked", 1)
        assert "segments_are_large_enough" in str(notice["message"])
        # The daemon does not run again what a person has seen fail.
        assert instance.get_runs(limit=1)[0].tags["dagster/will_retry"] == "false"
        assert notice["run_id"] == instance.get_runs(limit=1)[0].run_id


def test_only_the_last_retry_is_told(project: Project, write_dataset: DatasetWriter, told: Path) -> None:
    project = open_project(project.root, project.home)
    write_dataset()
    with open_instance(project) as instance:
        for tags in ({}, {LAST_TAG: "false"}, {LAST_TAG: "true", "dagster/will_retry": "true"}):
            run = dg.DagsterRun("segment_dataset", tags={PARTITION_TAG: "customers", **tags})
            assert tell_of_failure(project, run, "it failed") == []
            assert notices(told) == []
        run = dg.DagsterRun("segment_dataset", tags={PARTITION_TAG: "customers", LAST_TAG: "true"})
        assert tell_of_failure(project, run, "it\nfailed") == []
        (notice,) = notices(told)
        assert (notice["event"], notice["message"]) == ("failed", "it failed")
        assert instance.get_runs() == []


def test_a_dataset_may_name_others(project: Project, write_dataset: DatasetWriter, told: Path) -> None:
    project = open_project(project.root, project.home)
    file = write_dataset(extra="notify: {webhook: 'http://127.0.0.1:9/${TOKEN}'}\n")
    settings = notify_settings(project, "customers")
    assert settings is not None
    assert settings.webhook == "http://127.0.0.1:9/${TOKEN}"
    file.write_text("source: [")
    settings = notify_settings(project, "customers")
    assert settings is not None
    assert settings.command


@pytest.mark.slow
def test_a_file_that_is_not_what_was_published_is_built_anew(
    project: Project, write_dataset: DatasetWriter, run: Run
) -> None:
    write_dataset()
    run()
    first = project.published.read_bytes()
    run()
    everything = "select * from segment_history order by all"
    second = (
        published(project, everything),
        published(project, "from publish_log"),
        published(project, "from segments"),
    )
    for left in (first, b"", None):
        project.published.unlink()
        if left is not None:
            project.published.write_bytes(left)
        assert mend(project, {})
        assert second == (
            published(project, everything),
            published(project, "from publish_log"),
            published(project, "from segments"),
        )
        assert not mend(project, {})
    assert not list(project.published.parent.glob("*.tmp*"))
