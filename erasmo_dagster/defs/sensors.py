"""What runs by itself: the look at the sources, and the word to those who want to know of failures."""

import time
from typing import Any

import dagster as dg

from erasmo_dagster.defs.freshness import evaluation
from erasmo_dagster.defs.jobs import RETIRE_OP, segment_dataset
from erasmo_dagster.defs.marts import JOB as MARTS_JOB
from erasmo_dagster.defs.notices import ATTEMPT_TAG, LAST_TAG, tell_of_failure
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.runs import end_dead_runs, failure_of
from erasmo_dagster.defs.stages import REASON_TAG
from erasmo_dagster.defs.targets import target_requests
from erasmo_dagster.defs.watching import look_around, read_memory, runs_in_progress, write_memory
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.watching import Start, WatchPlan, plan_watch
from erasmo_dagster.settings import Project, readable_datasets
from erasmo_dagster.store.marts import digest_in_file, models_digest
from erasmo_dagster.store.publish import mend

_RETIRE_AGAIN = 600.0  # seconds


def build_sensors(
    project: Project, retire_dataset: dg.JobDefinition, build_marts: Any, *others: dg.JobDefinition
) -> list[dg.SensorDefinition]:
    """The project's sensors, on from the start, with its interval."""
    interval = max(1, round(project.settings.sensor_interval.total_seconds()))

    @dg.sensor(
        name="source_changes",
        description="Looks at every source and starts a run where it differs from what is published.",
        jobs=[segment_dataset, retire_dataset, build_marts, *others],
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def source_changes(
        context: dg.SensorEvaluationContext, warehouse: WarehouseResource
    ) -> dg.SensorResult | dg.SkipReason:
        return tick(context, warehouse.project)

    @dg.run_failure_sensor(
        name="failure_notices",
        description="Tells those under `notify` of a version that was blocked, and of a last retry that failed.",
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def failure_notices(context: dg.RunFailureSensorContext, warehouse: WarehouseResource) -> None:
        message = failure_of(context.instance, context.dagster_run.run_id)
        for fault in tell_of_failure(warehouse.project, context.dagster_run, message):
            context.log.warning(fault)

    return [source_changes, failure_notices]


def tick(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult | dg.SkipReason:
    """One look at the sources: what is seen goes into a plan, the plan into requests."""
    end_dead_runs(context.instance)
    memory = read_memory(context.cursor)
    now = time.time()
    try:
        if mend(project, readable_datasets(project)):
            context.log.warning("the published file was not what the warehouse says is published: built it anew")
        sql = models_digest(project)
        seen, scan = look_around(project, context.instance, memory, sql=sql, now=now)
    except ErasmoError as error:
        return dg.SkipReason(str(error))
    plan = plan_watch(
        seen,
        memory,
        now=now,
        retire_after=project.settings.retire_after.total_seconds(),
        datasets_readable=scan.readable and bool(scan.present),
    )
    requests = [*map(_run, plan.starts), *_retirements(plan, now), *_marts(context, project, sql)]
    # Whatever runs next completes the targets as well.
    requests = requests or target_requests(context.instance, project, now)
    for name, note in sorted(plan.notes.items()):
        context.log.info(f"{name}: {note}")
    notes = "; ".join(f"{name}: {note}" for name, note in sorted(plan.notes.items()))
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(notes or "no datasets yet: add a YAML to datasets/"),
        dynamic_partitions_requests=[dataset_partitions.build_add_request(plan.register)] if plan.register else None,
        asset_events=[
            evaluation(one, now, plan.memory[one.name].matched_at) for one in seen if one.name in plan.check_freshness
        ],
        cursor=write_memory(plan.memory),
    )


def _run(start: Start) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=segment_dataset.name,
        partition_key=start.dataset,
        run_key=start.run_key,
        tags={REASON_TAG: start.reason, ATTEMPT_TAG: str(start.attempt), LAST_TAG: str(start.last).lower()},
    )


def _marts(context: dg.SensorEvaluationContext, project: Project, wanted: str) -> list[dg.RunRequest]:
    """The marts anew where their SQL has changed, unless a run is about to build the file anyway.

    A change is tried once: what cannot be built waits for the next change, or for whoever starts the job.
    """
    held = digest_in_file(project)
    if held is None or wanted == held or runs_in_progress(context.instance):
        return []
    key = f"marts:{wanted}:{held}:{int(project.published.stat().st_mtime)}"
    return [dg.RunRequest(job_name=MARTS_JOB, run_key=key, tags={REASON_TAG: "the SQL of the marts changed"})]


def _retirements(plan: WatchPlan, now: float) -> list[dg.RunRequest]:
    # Dagster drops a key that it has run, however that ended: one that failed is tried again after a while.
    return [
        dg.RunRequest(
            job_name="retire_dataset",
            run_key=f"retire:{name}:{plan.memory[name].absent_since}:{int(now // _RETIRE_AGAIN)}",
            run_config={"ops": {RETIRE_OP: {"config": {"dataset": name}}}},
        )
        for name in plan.retire
    ]
