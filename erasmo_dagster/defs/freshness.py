"""Whether what analysts see is still what the source says."""

import time
from datetime import UTC, datetime

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_check
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.watching import Known, look_at, read_known
from erasmo_dagster.refresh.watching import Memory, Seen
from erasmo_dagster.settings import scan_datasets

ASSET, NAME = "published_segments", "is_fresh"


@dataset_check(
    asset=ASSET,
    name=NAME,
    description="The source is as it was published, or what is published is younger than refresh.max_age.",
)
def is_fresh(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Look at the source now; a source that cannot be read counts as changed."""
    project, name = warehouse.project, context.partition_key
    now = time.time()
    known = read_known(project).get(name, Known())
    seen = look_at(project, scan_datasets(project), name, known, Memory(), now=now)
    passed, message = judge(seen, now, seen.published_at)
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=message)


def evaluation(seen: Seen, now: float, matched_at: float | None) -> dg.AssetCheckEvaluation:
    """The check's result as the sensor reports it, without a run; it knows when the source was last as published."""
    passed, message = judge(seen, now, max(matched_at or 0.0, seen.published_at or 0.0))
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(ASSET),
        check_name=NAME,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=message,
        blocking=False,
        partition=seen.name,
    )


def judge(seen: Seen, now: float, since: float | None) -> tuple[bool, str]:
    """Whether a dataset is fresh at ``now``, and why; ``since`` is when it last was, as far as is known (seconds)."""
    if seen.published_at is None or since is None:
        return False, "nothing is published"
    moment = datetime.fromtimestamp(seen.published_at, UTC).isoformat(timespec="seconds")
    if seen.fault is None and not seen.changed:
        return True, f"published {moment}, and the source is as it was then"
    why = seen.fault or "the source has changed since"
    if seen.settings is None or seen.settings.max_age is None:
        return seen.fault is None, f"published {moment}; {why} (no refresh.max_age is set)"
    age, most = now - since, seen.settings.max_age.total_seconds()
    limits = f"known to be fresh {age / 3600:.1f} h ago (refresh.max_age {most / 3600:g} h)"
    return age <= most, f"published {moment}, {limits}; {why}"
