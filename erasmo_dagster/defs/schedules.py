"""A schedule for every dataset that has ``refresh.cron``."""

import dagster as dg

from erasmo_dagster.defs.jobs import segment_dataset
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.stages import REASON_TAG
from erasmo_dagster.settings import Project, RefreshSettings, readable_datasets, scan_datasets


def build_schedules(project: Project) -> list[dg.ScheduleDefinition]:
    """The schedules of the datasets that there are; a later YAML has its own once Dagster reloads the definitions."""
    return [
        _schedule(project, name, settings.refresh)
        for name, settings in readable_datasets(project).items()
        if settings.refresh.cron is not None
    ]


def _schedule(project: Project, name: str, refresh: RefreshSettings) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"refresh_{name}",
        description=f"Runs {name} at the times of refresh.cron in its YAML.",
        job=segment_dataset,
        cron_schedule=refresh.cron or "",
        execution_timezone=refresh.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if name not in scan_datasets(project).files:
            return dg.SkipReason(f"datasets/{name}.yaml is gone")
        if not context.instance.has_dynamic_partition(str(dataset_partitions.name), name):
            context.instance.add_dynamic_partitions(str(dataset_partitions.name), [name])
        return dg.RunRequest(partition_key=name, tags={REASON_TAG: f"schedule {refresh.cron} {refresh.timezone}"})

    return schedule
