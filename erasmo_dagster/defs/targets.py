"""The targets beside the DuckDB file, as Dagster sees them: what they have, and the job that completes them."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from erasmo_dagster.defs.pictures import table
from erasmo_dagster.defs.resources import WarehouseResource, project_resources
from erasmo_dagster.defs.stages import REASON_TAG
from erasmo_dagster.defs.watching import runs_in_progress
from erasmo_dagster.settings import Project
from erasmo_dagster.store.releases import release_in
from erasmo_dagster.store.targets import Sent, read_standings, send

JOB = "complete_targets"
_AGAIN = 600.0  # seconds


@dg.op(name="send_to_targets")
def _send(context: dg.OpExecutionContext, warehouse: WarehouseResource) -> None:
    """Copy the published file to every target that has not its release."""
    sent = send(warehouse.project)
    context.add_output_metadata(target_metadata(sent))


@dg.graph(name="send_to_all_targets")
def _graph() -> None:
    _send()


def targets_jobs(project: Project) -> list[dg.JobDefinition]:
    """The job that completes targets which are behind, where there are any beside the DuckDB file."""
    if not project.settings.copies:
        return []
    job = _graph.to_job(
        name=JOB,
        description="Copy the published file to every target that has not its release.",
        resource_defs=project_resources(project),
    )
    return [job]


def target_requests(instance: dg.DagsterInstance, project: Project, now: float) -> list[dg.RunRequest]:
    """A run where a target is behind, unless one is going on that may be about to complete it; again after a while."""
    behind = [standing.target for standing in read_standings(project) if standing.behind]
    release = release_in(project.published) if behind else None
    if release is None or runs_in_progress(instance):
        return []
    return [
        dg.RunRequest(
            job_name=JOB,
            run_key=f"targets:{release.number}:{','.join(behind)}:{int(now // _AGAIN)}",
            tags={REASON_TAG: f"behind: {', '.join(behind)}"},
        )
    ]


def target_metadata(sent: Sequence[Sent]) -> dict[str, Any]:
    """What became of every target, for an asset's metadata; nothing where there is none beside the DuckDB file."""
    if not sent:
        return {}
    rows = [
        {
            "target": one.target,
            "kind": one.kind,
            "release": one.release,
            "rows": one.rows,
            "tables": one.tables,
            "seconds": one.seconds,
            "note": "; ".join(one.notes) or ("" if one.tables else "it had this release"),
        }
        for one in sent
    ]
    return {"targets": table(rows)}
