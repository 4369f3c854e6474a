"""A project: where its files are, its own few settings, and its datasets by name."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings.base import Duration, Settings
from erasmo_dagster.settings.clustering import ON_COLUMNS
from erasmo_dagster.settings.dataset import DatasetSettings
from erasmo_dagster.settings.environment import only_a_variable
from erasmo_dagster.settings.refresh import NotifySettings
from erasmo_dagster.settings.targets import (
    DuckdbTarget,
    ParquetTarget,
    PostgresTarget,
    Targets,
    check_targets,
)

M = TypeVar("M", bound=BaseModel)
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,47}$"


class ProjectSettings(Settings):
    """The project's optional ``erasmo.yaml``."""

    # An address with a password in it, written where it does not belong, stays out of messages.
    model_config = ConfigDict(hide_input_in_errors=True)

    max_concurrent_runs: int = Field(1, ge=1, le=64, description="Runs that Dagster's queue lets go at once.")
    max_model_runs: int = Field(
        1,
        ge=1,
        le=64,
        description="Of those, runs that may train or read with a model at once: as many as the GPU or memory holds.",
    )
    dagster_storage: str | None = Field(
        None,
        description="PostgreSQL database of Dagster's own runs, events and schedules, as the `${VARIABLE}` that holds "
        "its URL, postgresql+psycopg2://…; by default SQLite files in $ERASMO_HOME/dagster.",
    )
    run_retries: int = Field(
        1, ge=0, le=10, description="Times that Dagster starts a run anew whose process died; see also refresh.retries."
    )
    sensor_interval: Duration = Field(
        timedelta(seconds=30), ge=timedelta(seconds=1), description="Time between two looks at the sources."
    )
    retire_after: Duration = Field(
        timedelta(hours=24),
        description="A dataset whose YAML has been absent this long is hidden from the published file.",
    )
    notify: NotifySettings | None = Field(
        None, description="Who is told of a failure, for datasets that do not say it themselves."
    )
    keep_versions: int = Field(
        5, ge=1, description="Versions kept of each dataset, with their adapters; the published one always stays."
    )
    lock_timeout: float = Field(
        120.0, gt=0, description="Seconds that a writer waits for another to finish with the warehouse."
    )
    publish: Targets = Field(
        (DuckdbTarget(),),
        description="Where segments are published: `duckdb`, always, and copies of the file in PostgreSQL and Parquet.",
    )

    @field_validator("dagster_storage", mode="before")
    @classmethod
    def _url_is_in_the_environment(cls, value: object) -> object:
        return None if value is None else only_a_variable(value)

    @field_validator("publish")
    @classmethod
    def _targets_fit(cls, value: Targets) -> Targets:
        return check_targets(value)

    @property
    def copies(self) -> tuple[PostgresTarget | ParquetTarget, ...]:
        """The targets beside the DuckDB file."""
        return tuple(target for target in self.publish if not isinstance(target, DuckdbTarget))


class Project(BaseModel):
    """Where a project's files are.

    ``root`` holds ``datasets/`` and ``workspace.yaml``; ``home`` ($ERASMO_HOME, by default
    ``.erasmo`` beside them) holds everything that a run writes.
    """

    model_config = ConfigDict(frozen=True)

    root: Path
    home: Path
    settings: ProjectSettings = ProjectSettings()

    @property
    def datasets_dir(self) -> Path:
        """Folder of the datasets' YAML files."""
        return self.root / "datasets"

    @property
    def sql_dir(self) -> Path:
        """Folder of the marts' SQL."""
        return self.root / "dbt_like_sql"

    @property
    def warehouse(self) -> Path:
        """The private DuckDB file."""
        return self.home / "warehouse.duckdb"

    @property
    def published(self) -> Path:
        """The DuckDB file that analysts open."""
        return self.home / "published" / "segments.duckdb"

    @property
    def artifacts(self) -> Path:
        """Folder of snapshots, fitted states and adapters."""
        return self.home / "artifacts"

    @property
    def models(self) -> Path:
        """Folder of the base models' weights."""
        return self.home / "models"

    @property
    def dagster_home(self) -> Path:
        """Folder of Dagster's instance."""
        return self.home / "dagster"


def find_project(start: Path | None = None) -> Project:
    """The project of a folder: $ERASMO_PROJECT, else the nearest one upwards with ``datasets/`` and ``workspace.yaml``.

    Raises ErasmoError where there is none, or where ``erasmo.yaml`` is not valid.
    """
    if named := os.environ.get("ERASMO_PROJECT"):
        root = Path(named).expanduser().resolve()
        if not root.is_dir():
            raise ErasmoError(
                f"Got ERASMO_PROJECT={named}", expected="an existing folder", fix="unset it or run `erasmo init` there"
            )
    else:
        here = (start or Path.cwd()).resolve()
        for root in (here, *here.parents):
            if (root / "datasets").is_dir() and (root / "workspace.yaml").is_file():
                break
        else:
            raise ErasmoError(
                f"Got no project in {here} or above it",
                expected="a folder with datasets/ and workspace.yaml",
                fix="run `erasmo init DIR` and work inside DIR, or set ERASMO_PROJECT",
            )
    return open_project(root)


def open_project(root: Path, home: Path | None = None) -> Project:
    """The project in ``root``; ``home`` is by default $ERASMO_HOME, else ``.erasmo`` in it."""
    home = home or Path(os.environ.get("ERASMO_HOME") or root / ".erasmo")
    file = root / "erasmo.yaml"
    settings = validated(ProjectSettings, read_yaml(file), file) if file.is_file() else ProjectSettings()
    return Project(root=root, home=home.expanduser().resolve(), settings=settings)


def check_name(name: str) -> str:
    """The name itself, if it can name a dataset, a folder and a table alike; else ErasmoError."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ErasmoError(
            f"Got dataset name {name!r}",
            expected="a lowercase letter, then at most 47 lowercase letters, digits or underscores",
            fix="rename the file in datasets/, or pass --name",
        )
    return name


@dataclass(frozen=True)
class DatasetScan:
    """What is in ``datasets/``: files by dataset name, and faults by the name of what cannot be a dataset.

    ``readable`` is False where the folder itself cannot be listed.
    """

    files: dict[str, Path]
    faults: dict[str, ErasmoError]
    readable: bool

    @property
    def present(self) -> set[str]:
        """Names that have a file, be it a good one or not."""
        return {*self.files, *self.faults}


def scan_datasets(project: Project) -> DatasetScan:
    """List ``datasets/``, sorted by name. A bad file is a fault of its own and never hides the others."""
    files: dict[str, Path] = {}
    faults: dict[str, ErasmoError] = {}
    try:
        paths = sorted(path for path in project.datasets_dir.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError:
        return DatasetScan({}, {}, readable=False)
    for path in paths:
        name = path.stem
        try:
            check_name(name)
        except ErasmoError as error:
            faults[name] = error
            continue
        if name in files or name in faults:
            faults[name] = ErasmoError(
                f"Got two datasets named {name!r}: {name}.yaml and {name}.yml",
                expected="one file a dataset",
                fix=f"rename or delete one of them in {project.datasets_dir}",
            )
            files.pop(name, None)
        else:
            files[name] = path
    return DatasetScan(files, faults, readable=True)


def dataset_files(project: Project) -> dict[str, Path]:
    """Dataset name -> YAML file, sorted by name, of those whose name can be used."""
    return scan_datasets(project).files


def readable_datasets(project: Project) -> dict[str, DatasetSettings]:
    """The settings of every dataset whose YAML is valid; one with a broken YAML stays published as it was."""
    readable = {}
    for name in dataset_files(project):
        try:
            readable[name] = load_dataset(project, name)
        except ErasmoError:
            continue
    return readable


def load_dataset(project: Project, name: str) -> DatasetSettings:
    """The validated settings of ``datasets/<name>.yaml``. Raises ErasmoError in one line that names file and field."""
    check_name(name)
    scan = scan_datasets(project)
    if name in scan.faults:
        raise scan.faults[name]
    if name not in scan.files:
        known = ", ".join(scan.files) or "none yet"
        raise ErasmoError(
            f"Got dataset {name!r}, which has no file in {project.datasets_dir}",
            expected=f"one of: {known}",
            fix=f"add one with `erasmo add FILE --key COLUMN --name {name}`",
        )
    settings = validated(DatasetSettings, read_yaml(scan.files[name]), scan.files[name])
    return anchored(settings, project)


def anchored(settings: DatasetSettings, project: Project) -> DatasetSettings:
    """The settings with `path:` models taken relative to the project, wherever the process was started."""
    changed: dict[str, Any] = {}
    for part, field in (("adapter", "base_model"), ("encoder", "model")):
        options = getattr(settings, part)
        kind, _, place = str(getattr(options, field, "")).partition(":")
        if kind == "path":
            model = f"path:{project.root / Path(place).expanduser()}"
            changed[part] = options.model_copy(update={field: model})
    summarize = settings.text.summarize
    if summarize is not None and summarize.by == "base_model" and (summarize.model or "").startswith("path:"):
        model = f"path:{project.root / Path((summarize.model or '')[len('path:') :]).expanduser()}"
        own = summarize.model_copy(update={"model": model})
        changed["text"] = settings.text.model_copy(update={"summarize": own})
    clustering = settings.clustering
    if clustering.method in ON_COLUMNS and clustering.text_model.startswith("path:"):
        model = f"path:{project.root / Path(clustering.text_model[len('path:') :]).expanduser()}"
        changed["clustering"] = clustering.model_copy(update={"text_model": model})
    return settings.model_copy(update=changed)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, {} for an empty one. Raises ErasmoError for what does not parse."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise ErasmoError(
            f"Got a byte that is not UTF-8 in {path}", expected="UTF-8 text", fix="save the file as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ErasmoError(
            f"Got YAML that does not parse in {path}{where} ({problem})", expected="valid YAML"
        ) from error


def validated(model: type[M], data: Any, path: Path | str) -> M:
    """The settings in ``data``. Raises ErasmoError in one line that names ``path`` and every field at fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ErasmoError(f"{path}: " + "; ".join(_fault(fault, model) for fault in error.errors())) from error


def _fault(fault: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "the file"
    if fault["type"] == "extra_forbidden":
        known = _fields_at(model, fault["loc"][:-1])
        return f"got unknown key `{where}`, expected " + (f"one of: {', '.join(known)}" if known else "a known one")
    if fault["type"] == "missing":
        return f"got no `{where}`, which is required"
    message = fault["msg"].removeprefix("Value error, ")
    shown = "" if fault["type"] == "value_error" else f" = {fault['input']!r}"[:80]
    return f"got `{where}`{shown}: {message[0].lower() + message[1:]}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    annotation: Any = model
    for part in loc:
        if isinstance(part, int):  # of a list
            annotation = next(iter(get_args(annotation)), None)
        elif (tagged := _tagged(annotation, part)) is not None:
            annotation = tagged
        else:
            field = annotation.model_fields.get(part) if _is_model(annotation) else None
            annotation = field.annotation if field else None
    if not _is_model(annotation):
        return []
    return [field.alias or name for name, field in annotation.model_fields.items()]


def _tagged(annotation: Any, kind: str) -> Any:
    """The model of a union that has ``kind``."""
    union = next(iter(get_args(annotation)), None)
    models = [model for model in get_args(union) if _is_model(model) and "kind" in model.model_fields]
    return next((model for model in models if kind in get_args(model.model_fields["kind"].annotation)), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def dataset_schema() -> str:
    """The JSON Schema of a dataset's YAML, as text."""
    return json.dumps(DatasetSettings.model_json_schema(), indent=2) + "\n"


def write_schema(project: Project) -> Path:
    """Write the JSON Schema beside the datasets, where their first line points editors to."""
    path = project.datasets_dir / ".schema.json"
    path.write_text(dataset_schema())
    return path
