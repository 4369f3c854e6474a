"""Whether what analysts see is still what the source says."""

import time
from datetime import UTC

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_check
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.watching import Known, look_at, read_known
from erasmo_dagster.refresh.watching import Memory
from erasmo_dagster.settings import scan_datasets


@dataset_check(
    asset="published_segments",
    description="The source is as it was published, or what is published is younger than refresh.max_age.",
)
def is_fresh(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Look at the source now; a source that cannot be read counts as changed."""
    project, name = warehouse.project, context.partition_key
    known = read_known(project).get(name, Known())
    now = time.time()
    seen = look_at(project, scan_datasets(project), name, known, Memory(), now=now)
    if known.publication is None or seen.published_at is None:
        return _result(False, "nothing is published")
    age = now - seen.published_at
    moment = known.publication.published_at.replace(tzinfo=UTC).isoformat(timespec="seconds")
    if seen.fault is None and not seen.changed:
        return _result(True, f"published {moment}, and the source is as it was then")
    most = seen.settings.max_age.total_seconds() if seen.settings and seen.settings.max_age else None
    why = seen.fault or "the source has changed since"
    if most is None:
        return _result(seen.fault is None, f"published {moment}; {why} (no refresh.max_age is set)")
    return _result(
        age <= most, f"published {moment}, {age / 3600:.1f} h ago (refresh.max_age {most / 3600:g} h); {why}"
    )


def _result(passed: bool, message: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=message)
