"""Every setting, declared once: a dataset's YAML, the project's ``erasmo.yaml``, and where things are."""

from erasmo_dagster.settings.adapter import DEFAULT_MODEL, AdapterSettings, LoraSettings
from erasmo_dagster.settings.base import Duration, Settings
from erasmo_dagster.settings.clustering import ClusteringSettings
from erasmo_dagster.settings.dataset import (
    ColumnSettings,
    DatasetSettings,
    Format,
    PublishSettings,
    SourceSettings,
    TableSettings,
)
from erasmo_dagster.settings.embedding import EmbeddingSettings
from erasmo_dagster.settings.environment import expand
from erasmo_dagster.settings.naming import NAME_LENGTH, NOISE_NAME, NamingSettings
from erasmo_dagster.settings.project import (
    NAME_PATTERN,
    DatasetScan,
    Project,
    ProjectSettings,
    check_name,
    dataset_files,
    dataset_schema,
    find_project,
    load_dataset,
    open_project,
    readable_datasets,
    scan_datasets,
    write_schema,
)
from erasmo_dagster.settings.refresh import GateSettings, NotifySettings, RefreshSettings
from erasmo_dagster.settings.text import TextSettings

__all__ = [
    "DEFAULT_MODEL",
    "NAME_LENGTH",
    "NAME_PATTERN",
    "NOISE_NAME",
    "AdapterSettings",
    "ClusteringSettings",
    "ColumnSettings",
    "DatasetScan",
    "DatasetSettings",
    "Duration",
    "EmbeddingSettings",
    "Format",
    "GateSettings",
    "LoraSettings",
    "NamingSettings",
    "NotifySettings",
    "Project",
    "ProjectSettings",
    "PublishSettings",
    "RefreshSettings",
    "Settings",
    "SourceSettings",
    "TableSettings",
    "TextSettings",
    "check_name",
    "dataset_files",
    "dataset_schema",
    "expand",
    "find_project",
    "load_dataset",
    "open_project",
    "readable_datasets",
    "scan_datasets",
    "write_schema",
]
