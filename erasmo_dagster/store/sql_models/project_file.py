"""``dbt_project.yml``: names, folders, variables, and what models and tests are by their folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql_models.files import Folder, validated

PROJECT_FILE = "dbt_project.yml"
MATERIALIZED = ("view", "table")
# What dbt writes down and what changes nothing here.
_NOTES = {"tags", "meta", "docs", "persist_docs", "description"}
MODEL_CONFIG = {"materialized", "enabled"} | _NOTES
TEST_CONFIG = {"severity", "where", "enabled"} | _NOTES


def _inside(paths: list[str]) -> list[str]:
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise ValueError(f"the folder {path!r}", "a folder within this one", "move the files here")
    return paths


Folders = Annotated[list[str], AfterValidator(_inside)]
Tree = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]


class ProjectFile(BaseModel):
    """What is read of ``dbt_project.yml``. The keys of type ``Any`` are dbt's own and mean nothing here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z_]\w*$")
    version: str | int | float | None = None
    config_version: Literal[2] = Field(2, alias="config-version")
    profile: str | None = None
    model_paths: Folders = Field(["models"], alias="model-paths")
    test_paths: Folders = Field(["tests"], alias="test-paths")
    vars: Tree = {}
    models: Tree = {}
    data_tests: Tree = {}
    analysis_paths: Any = Field(None, alias="analysis-paths")
    macro_paths: Any = Field(None, alias="macro-paths")
    seed_paths: Any = Field(None, alias="seed-paths")
    snapshot_paths: Any = Field(None, alias="snapshot-paths")
    docs_paths: Any = Field(None, alias="docs-paths")
    asset_paths: Any = Field(None, alias="asset-paths")
    target_path: Any = Field(None, alias="target-path")
    log_path: Any = Field(None, alias="log-path")
    clean_targets: Any = Field(None, alias="clean-targets")
    packages_install_path: Any = Field(None, alias="packages-install-path")
    require_dbt_version: Any = Field(None, alias="require-dbt-version")
    flags: Any = None
    query_comment: Any = Field(None, alias="query-comment")

    def variables(self) -> dict[str, Any]:
        """The variables by name; those under the project's own name go before the flat ones, as in dbt."""
        own = self.vars.get(self.name)
        flat = {name: value for name, value in self.vars.items() if name != self.name or not isinstance(own, dict)}
        return flat | (own if isinstance(own, dict) else {})


def read_project_file(folder: Folder) -> ProjectFile:
    """The folder's ``dbt_project.yml``. Raises ErasmoError where it is not valid, or asks for what dbt alone has."""
    path = folder.root / PROJECT_FILE
    file = folder.shown(path)
    read = validated(ProjectFile, folder.yaml(path) or {}, file, {})
    _check_tree(read.models, "model", f"{file} at models")
    _check_tree(read.data_tests, "test", f"{file} at data_tests")
    return read


def folder_config(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What the project file says of a node by the way to it: the project, its folders, its name. The nearest wins."""
    found: dict[str, Any] = {}
    level: Any = tree
    for name in (None, *names):
        if name is not None:
            level = level.get(name)
            if not isinstance(level, dict):
                break
        found |= {key.removeprefix("+"): value for key, value in level.items() if _is_config(key, value)}
    return found


def check_config(config: Mapping[str, Any], kind: Literal["model", "test"], where: str) -> None:
    """Raise ErasmoError for a setting that is not known here, or a value that only dbt knows."""
    known = MODEL_CONFIG if kind == "model" else TEST_CONFIG
    for key, value in config.items():
        if key not in known:
            raise ErasmoError(
                f"Got the setting {key!r} of a {kind} in {where}",
                expected=f"one of {', '.join(sorted(known))}",
                fix="remove it, or run the folder with dbt",
            )
        if key == "materialized" and value not in MATERIALIZED:
            raise ErasmoError(
                f"Got materialized {value!r} in {where}",
                expected="'view' or 'table'",
                fix="make it a table: every publish builds it anew",
            )
        if key == "enabled" and value is not True:
            raise ErasmoError(
                f"Got enabled {value!r} in {where}", expected="true", fix="move the file out of the folder instead"
            )
        if key == "severity" and str(value).lower() not in ("error", "warn"):
            raise ErasmoError(f"Got severity {value!r} in {where}", expected="'error' or 'warn'", fix="choose one")


def _is_config(key: str, value: Any) -> bool:
    return key.startswith("+") or not isinstance(value, dict)


def _check_tree(tree: Mapping[str, Any], kind: Literal["model", "test"], where: str) -> None:
    for key, value in tree.items():
        if _is_config(str(key), value):
            check_config({str(key).removeprefix("+"): value}, kind, where)
        else:
            _check_tree(value, kind, f"{where} > {key}")
