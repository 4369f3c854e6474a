"""The real webserver and daemon: partitions materialized as the UI's buttons do it, and two runs at once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.settings import Project
from erasmo_dagster.show_tables import open_published
from erasmo_dagster.store.versions import stage_output
from erasmo_dagster.store.warehouse import open_warehouse
from tests.conftest import DatasetWriter, customers
from tests.servers import Webserver, erasmo, interrupt, served, wait_for

pytestmark = pytest.mark.daemon

ASSETS = "{ assetNodes { assetKey { path } groupName partitionKeys dependencyKeys { path } } }"
MATERIALIZE = """mutation($executionParams: ExecutionParams!) {
  launchPipelineExecution(executionParams: $executionParams) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
BACKFILL = """mutation($backfillParams: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfillParams) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"


def assets(server: Webserver) -> dict[str, dict[str, Any]]:
    return {node["assetKey"]["path"][-1]: node for node in server.query(ASSETS)["assetNodes"]}


def finished_runs(server: Webserver, count: int) -> list[dict[str, Any]] | None:
    runs = server.query(RUNS)["runsOrError"]["results"]
    ended = [run for run in runs if run["status"] in ("SUCCESS", "FAILURE", "CANCELED")]
    return ended if len(ended) >= count else None


def partition(run: dict[str, Any]) -> str:
    return next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition")


@pytest.fixture
def server(project: Project, write_dataset: DatasetWriter, tmp_path: Path) -> Iterator[Webserver]:
    by_hand = "refresh: {on_change: false}\n"  # only what the test starts
    write_dataset("one", extra=by_hand)
    write_dataset("two", customers(30), extra=by_hand)
    with served(project, tmp_path / "ui.log") as server:
        yield server


def test_one_partition_then_all_without_run_config(project: Project, server: Webserver) -> None:
    nodes = assets(server)
    assert nodes["segments"]["partitionKeys"] == ["one", "two"]
    assert {key["path"][-1] for key in nodes["embeddings"]["dependencyKeys"]} == {
        "text_corpus",
        "adapter",
        "refresh_plan",
    }
    keys = [{"path": [name]} for name in nodes]
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "erasmo",
        "jobName": "__ASSET_JOB",
        "assetSelection": keys,
    }
    tags = [{"key": "dagster/partition", "value": "one"}]
    launched = server.query(MATERIALIZE, executionParams={"selector": selector, "executionMetadata": {"tags": tags}})
    assert launched["launchPipelineExecution"]["__typename"] == "LaunchRunSuccess", launched
    (run,) = wait_for("the run", lambda: finished_runs(server, 1))
    assert (run["status"], partition(run)) == ("SUCCESS", "one")

    started = server.query(BACKFILL, backfillParams={"assetSelection": keys, "partitionNames": ["one", "two"]})
    assert started["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", started
    runs = wait_for("the backfill", lambda: finished_runs(server, 3), seconds=180)
    assert sorted((partition(run), run["status"]) for run in runs) == [
        ("one", "SUCCESS"),
        ("one", "SUCCESS"),
        ("two", "SUCCESS"),
    ]
    with open_published(project) as con:
        counts = con.execute("select dataset, count(*) from segments group by all order by all").fetchall()
    assert counts == [("one", 60), ("two", 30)]


def test_one_dataset_trains_while_another_publishes(project: Project, write_dataset: DatasetWriter) -> None:
    slow = write_dataset("slow", customers(200))
    slow.write_text(
        slow.read_text().replace("max_tokens: 300", "max_tokens: 100000000, epochs: 100000, patience: 100000")
    )
    write_dataset("fast", customers(30))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with erasmo(project, "run", "slow", **quiet) as training:
        checkpoints = project.artifacts / "slow" / "training"
        wait_for("a checkpoint", lambda: list(checkpoints.glob("*/*")) or None)
        with erasmo(project, "run", "fast") as other:
            out, err = other.communicate(timeout=120)
        assert other.returncode == 0, out + err
        assert training.poll() is None, "the slow run was to be training still"
        with open_published(project) as con:
            assert con.execute("select distinct dataset from segments").fetchall() == [("fast",)]
        interrupt(training)
        assert training.returncode == 130


def test_an_interrupted_run_goes_on_from_its_checkpoint(project: Project, write_dataset: DatasetWriter) -> None:
    file = write_dataset("slow", customers(200))
    file.write_text(file.read_text().replace("max_tokens: 300", "max_tokens: 300000, epochs: 400, patience: 100000"))
    checkpoints = project.artifacts / "slow" / "training"
    with erasmo(project, "run", "slow") as training:
        wait_for("a checkpoint", lambda: list(checkpoints.glob("*/*")) or None)
        time.sleep(0.5)
        interrupt(training)
        out, err = training.communicate()
    assert training.returncode == 130, out + err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not project.published.exists()
    with erasmo(project, "run", "slow") as again:
        out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err
    with erasmo(project, "status") as status:
        assert " ok " in status.communicate()[0]
    with open_warehouse(project.warehouse) as con:
        adapter = stage_output(con, "slow", 2, "adapter")
    assert adapter is not None
    assert adapter.details["training"]["resumed_from"] > 0
    assert not list(checkpoints.glob("*/*"))
