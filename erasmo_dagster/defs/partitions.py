"""One partition a dataset."""

import dagster as dg

from erasmo_dagster.settings import Project, dataset_files

dataset_partitions = dg.DynamicPartitionsDefinition(name="dataset")


def register_datasets(instance: dg.DagsterInstance, project: Project) -> list[str]:
    """Add a partition for every file in ``datasets/`` that has none yet; the names that were added."""
    known = set(instance.get_dynamic_partitions("dataset"))
    new = [name for name in dataset_files(project) if name not in known]
    if new:
        instance.add_dynamic_partitions("dataset", new)
    return new
