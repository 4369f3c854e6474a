"""The file that analysts open."""

from pathlib import Path

import dagster as dg

from erasmo_dagster.defs.marts import report_marts, report_tests
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import OWNERS, REASON_TAG, root_run
from erasmo_dagster.defs.targets import target_metadata
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.decision import RefreshPlan
from erasmo_dagster.settings import load_dataset, readable_datasets
from erasmo_dagster.store.marts import MartTestError
from erasmo_dagster.store.publish import publish
from erasmo_dagster.store.targets import send
from erasmo_dagster.store.versions import newest_version_with, stage_output, upstream, version_of_run

_NEEDED = ("segments", "segment_metrics", "segment_profile")


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="published",
    kinds={"duckdb"},
    owners=OWNERS,
    code_version="3",
    deps=["source_table", "segments", "segment_metrics", "segment_profile"],
)
def published_segments(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One row per entity of every published dataset, in the DuckDB file that analysts open; swapped in whole.

    The other targets of `erasmo.yaml` get a copy of the file each.
    """
    project, dataset = warehouse.project, context.partition_key
    run = context.run
    with warehouse.get_connection() as con:
        version = version_of_run(con, dataset, root_run(context))
        # A run that made only some of it is told so; one that made none publishes the newest there is.
        if version is None or not any(stage_output(con, dataset, version, stage) for stage in _NEEDED):
            version = newest_version_with(con, dataset, *_NEEDED)
    if version is None:
        raise ErasmoError(f"Got no segments of dataset {dataset!r} to publish", fix=f"run `erasmo run {dataset}`")
    settings = {**readable_datasets(project), dataset: load_dataset(project, dataset)}
    with warehouse.get_connection() as con:
        planned = upstream(con, dataset, version, "refresh_plan")
    plan = RefreshPlan.model_validate(planned.details["plan"])
    reason = f"{run.tags.get(REASON_TAG, 'requested')}; {plan.sentence}"
    try:
        done = publish(project, settings, dataset, version, run_id=run.run_id, reason=reason)
    except MartTestError as failed:
        report_tests(context, project, failed.build)
        raise
    report_marts(context, project, done.marts)
    sent = send(project)
    size = Path(done.path).stat().st_size
    return dg.MaterializeResult(
        metadata={
            "version": done.version,
            "reason": reason,
            "dagster/row_count": done.rows,
            "segments": done.segments,
            "datasets_in_file": ", ".join(done.datasets),
            "marts": len(done.marts.models),
            "failing_tests": ", ".join(test.name for test in done.marts.tests if not test.passed) or "none",
            "file": dg.MetadataValue.path(str(done.path)),
            "bytes": size,
            "query": dg.MetadataValue.md(f"```sql\nselect * from {dataset}_segmented limit 10\n```"),
            "removed_versions": ", ".join(map(str, done.removed_versions)) or "none",
            **target_metadata(sent),
        },
        data_version=dg.DataVersion(str(done.version)),
    )
