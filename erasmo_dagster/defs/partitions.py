"""One partition a dataset."""

import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster import PreviewWarning

from erasmo_dagster.settings import Project, dataset_files

dataset_partitions = dg.DynamicPartitionsDefinition(name="dataset")


def register_datasets(instance: dg.DagsterInstance, project: Project) -> list[str]:
    """Add a partition for every file in ``datasets/`` that has none yet; the names that were added."""
    known = set(instance.get_dynamic_partitions("dataset"))
    new = [name for name in dataset_files(project) if name not in known]
    if new:
        instance.add_dynamic_partitions("dataset", new)
    return new


def dataset_check(**options: Any) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """``dagster.asset_check`` with a result for every dataset."""

    def decorate(function: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            # Partitioned checks may yet change; this release is pinned, and tests would tell.
            warnings.simplefilter("ignore", PreviewWarning)
            return dg.asset_check(partitions_def=dataset_partitions, **options)(function)

    return decorate
