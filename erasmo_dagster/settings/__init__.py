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
from erasmo_dagster.settings.encoders import (
    MPNET,
    CausalLMOptions,
    EncoderOptions,
    ErasmoOptions,
    LocalModelOptions,
    MpnetDiceOptions,
    OpenAIOptions,
    SentenceTransformerOptions,
    TfidfOptions,
    encoder_names,
    options_class,
)
from erasmo_dagster.settings.environment import expand
from erasmo_dagster.settings.execution import ExecutionSettings
from erasmo_dagster.settings.naming import NAME_LENGTH, NOISE_NAME, NamingSettings
from erasmo_dagster.settings.project import (
    NAME_PATTERN,
    DatasetScan,
    Project,
    ProjectSettings,
    anchored,
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
from erasmo_dagster.settings.targets import CopyTarget, DuckdbTarget, ParquetTarget, PostgresTarget
from erasmo_dagster.settings.text import SummarizeSettings, TextSettings

__all__ = [
    "DEFAULT_MODEL",
    "MPNET",
    "NAME_LENGTH",
    "NAME_PATTERN",
    "NOISE_NAME",
    "AdapterSettings",
    "CausalLMOptions",
    "ClusteringSettings",
    "ColumnSettings",
    "CopyTarget",
    "DatasetScan",
    "DatasetSettings",
    "DuckdbTarget",
    "Duration",
    "EmbeddingSettings",
    "EncoderOptions",
    "ErasmoOptions",
    "ExecutionSettings",
    "Format",
    "GateSettings",
    "LocalModelOptions",
    "LoraSettings",
    "MpnetDiceOptions",
    "NamingSettings",
    "NotifySettings",
    "OpenAIOptions",
    "ParquetTarget",
    "PostgresTarget",
    "Project",
    "ProjectSettings",
    "PublishSettings",
    "RefreshSettings",
    "SentenceTransformerOptions",
    "Settings",
    "SourceSettings",
    "SummarizeSettings",
    "TableSettings",
    "TextSettings",
    "TfidfOptions",
    "anchored",
    "check_name",
    "dataset_files",
    "dataset_schema",
    "encoder_names",
    "expand",
    "find_project",
    "load_dataset",
    "open_project",
    "options_class",
    "readable_datasets",
    "scan_datasets",
    "write_schema",
]
