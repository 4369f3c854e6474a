"""Experiments as a job of Dagster's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from erasmo_dagster.defs.assembly import build_definitions
from erasmo_dagster.defs.experiments import JOB
from erasmo_dagster.defs.instance import open_instance
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project
from tests.defs.lineage import published
from tests.experiments.conftest import data, write_grid  # noqa: F401 - fixtures


def execute(project: Project, config: dict[str, Any]) -> dict[str, Any]:
    with open_instance(project) as instance:
        job = build_definitions(project).resolve_job_def(JOB)
        result = job.execute_in_process(instance=instance, run_config={"ops": {"experiment": {"config": config}}})
        (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
        return {name: value.value for name, value in event.event_specific_data.metadata.items()}  # type: ignore[union-attr]


def test_the_job_runs_an_experiment(project: Project, write_grid: Callable[..., Path], data: Path) -> None:  # noqa: F811
    config = {"experiment": str(write_grid(k=[3, 60])), "data": str(data)}
    shown = execute(project, config)
    counts = [shown[name] for name in ("experiment", "cells", "done_before", "done_now", "failed", "dropped")]
    assert counts == ["small", 2, 0, 1, 1, 0]
    assert "TF-IDF" in shown["leaderboard"]
    assert shown["heat_map"].startswith("![ari by encoder and dataset](data:image/png;base64,")
    assert published(project, "SELECT encoder, ari FROM leaderboard WHERE k = 3") == [("TF-IDF", 1.0)]
    assert execute(project, config)["done_before"] == 1


def test_a_run_in_which_nothing_is_done_fails(project: Project, write_grid: Callable[..., Path], data: Path) -> None:  # noqa: F811
    with pytest.raises(ErasmoError, match="Got no cell of small done: Got 60 rows"):
        execute(project, {"experiment": str(write_grid(k=60)), "data": str(data)})
