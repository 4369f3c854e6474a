"""Runs that are stopped half-way, as a user stops them: within a batch, with a plain line, and nothing lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import Project
from tests.conftest import DatasetWriter, customers
from tests.servers import erasmo, served, wait_for

LAUNCH = """mutation($executionParams: ExecutionParams!) {
  launchPipelineExecution(executionParams: $executionParams) {
    __typename ... on LaunchRunSuccess { run { runId } }
  }
}"""
TERMINATE = "mutation($runId: String!) { terminateRun(runId: $runId) { __typename } }"
ROWS = 20_000
STATUS = "query($runId: ID!) { runOrError(runId: $runId) { ... on Run { status } } }"
ENDLESS = "max_tokens: 100000000, epochs: 100000, patience: 100000"


def long_run(write_dataset: DatasetWriter, *, training: bool) -> Path:
    """A dataset whose training takes for ever, or whose embedding takes a while."""
    rows = 300 if training else ROWS
    notes = pl.Series("note", [f"note number {i} of many words, with a number {i * 7919 % 10007}" for i in range(rows)])
    extra = "refresh: {on_change: false}\n" + ("" if training else "embedding: {batch_tokens: 64}\n")
    file = write_dataset("slow", customers(rows).with_columns(notes), extra=extra)
    if training:
        file.write_text(file.read_text().replace("max_tokens: 300", ENDLESS))
    return file


def checkpoint(project: Project) -> Callable[[], Any]:
    return lambda: list((project.artifacts / "slow" / "training").glob("*/*")) or None


def vectors(project: Project) -> set[Path]:
    """What is kept of an embedding that is under way."""
    return set((project.artifacts / "slow" / "vectors").rglob("*.safetensors"))


def half_written(project: Project) -> list[Path]:
    names = (".tmp", ".partial", ".wal")
    return [file for file in project.home.rglob("*") if file.name.endswith(names) and "dagster" not in file.parts]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "training"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_stopped_run_says_so_and_leaves_nothing_half_done(
    project: Project, write_dataset: DatasetWriter, how: signal.Signals, training: bool
) -> None:
    file = long_run(write_dataset, training=training)
    with erasmo(project, "run", "slow") as running:
        begun = checkpoint(project) if training else lambda: vectors(project) or None
        wait_for("what is kept on the way", begun, each=0.02)
        running.send_signal(how)
        stopped = time.monotonic()
        out, err = running.communicate(timeout=60)
        assert time.monotonic() - stopped < 30  # not the rest of the work
    assert running.returncode == 130, out + err
    assert err.splitlines()[-1] == "interrupted; run the same command again and it goes on from what is done"
    assert "Traceback" not in err
    assert half_written(project) == []
    assert not project.published.exists()
    with open_instance(project) as instance:
        assert [run.status.value for run in instance.get_runs()] == ["FAILURE"]
    if not training:
        (folder,) = {part.parent for part in vectors(project)}
        with VectorCache(folder) as kept:
            assert 0 < len(kept) < ROWS
        return
    file.write_text(file.read_text().replace(ENDLESS, "max_tokens: 300"))
    with erasmo(project, "run", "slow") as again:
        out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err


@pytest.mark.daemon
def test_a_run_that_the_ui_terminates_is_canceled(
    project: Project, write_dataset: DatasetWriter, tmp_path: Path
) -> None:
    long_run(write_dataset, training=True)
    with served(project, tmp_path / "ui.log") as server:
        nodes = server.query("{ assetNodes { assetKey { path } } }")["assetNodes"]
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "erasmo",
            "jobName": "__ASSET_JOB",
            "assetSelection": [node["assetKey"] for node in nodes],
        }
        tags = [{"key": "dagster/partition", "value": "slow"}]
        launched = server.query(LAUNCH, executionParams={"selector": selector, "executionMetadata": {"tags": tags}})
        run = launched["launchPipelineExecution"]["run"]["runId"]
        wait_for("a checkpoint", checkpoint(project))
        assert server.query(TERMINATE, runId=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"

        def ended() -> str | None:
            status: str = server.query(STATUS, runId=run)["runOrError"]["status"]
            return None if status in ("STARTED", "CANCELING") else status

        assert wait_for("the end of the run", ended, seconds=60) == "CANCELED"
    assert half_written(project) == []
    assert checkpoint(project)() is not None
