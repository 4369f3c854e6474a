"""Where segments are published beside the DuckDB file: PostgreSQL, and Parquet in a folder or an object store."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from erasmo_dagster.settings.base import Settings, Strings
from erasmo_dagster.settings.environment import only_a_variable

_NAME = r"^[a-z][a-z0-9_]{0,47}$"
# A release adds `_r` and its number, and PostgreSQL cuts names after 63 bytes.
_SCHEMA = r"^[a-z_][a-z0-9_]{0,47}$"
_CONTAINERS = ("abfs", "abfss", "az")  # whose addresses may be of the form container@account
_KINDS = ("duckdb", "postgresql", "parquet")


class DuckdbTarget(Settings):
    """The DuckDB file, which is always published, and of which the other targets are copies."""

    kind: Literal["duckdb"] = "duckdb"
    name: Literal["duckdb"] = "duckdb"


class CopyTarget(Settings):
    """What a target has that gets a copy of the DuckDB file."""

    leave_out: Strings = Field(
        ("stg_*",),
        description="Tables and views of the published file that are not copied, by name or pattern. By default the "
        "staging models, which repeat other tables.",
    )


class PostgresTarget(CopyTarget):
    """A schema in PostgreSQL: views with stable names over a schema for each release."""

    kind: Literal["postgresql"]
    name: str = Field("postgresql", pattern=_NAME, description="What the log and `erasmo status` call the target.")
    url: str = Field(
        description="`${VARIABLE}` of the environment that holds the address, such as "
        "postgresql://user:password@host:5432/database."
    )
    schema_name: str = Field(
        "erasmo",
        alias="schema",
        pattern=_SCHEMA,
        description="Schema that readers use. Releases are in schemas of the same name with `_r` and a number.",
    )
    keep: int = Field(2, ge=1, le=100, description="Releases kept, the one that readers see among them.")

    @field_validator("url", mode="before")
    @classmethod
    def _url_is_in_the_environment(cls, value: Any) -> Any:
        return only_a_variable(value)

    @field_validator("schema_name")
    @classmethod
    def _schema_is_nobodys(cls, value: str) -> str:
        if value.startswith("pg_"):
            raise ValueError("got a name that begins with pg_, which PostgreSQL keeps for itself")
        return value


class ParquetTarget(CopyTarget):
    """A folder for each release below a path, and a file that points to the newest."""

    kind: Literal["parquet"]
    name: str = Field("parquet", pattern=_NAME, description="What the log and `erasmo status` call the target.")
    path: str = Field(
        min_length=1,
        description="Folder, relative to the project, or an address that fsspec knows, such as s3://bucket/segments. "
        "`${VARIABLE}` is taken from the environment.",
    )
    endpoint_url: str | None = Field(
        None, description="Address of an S3-compatible server that is not Amazon's. Keys come from AWS_… variables."
    )
    keep: int = Field(
        2, ge=2, le=1000, description="Releases kept, the newest among them; what reads the one before may end."
    )

    @field_validator("path", "endpoint_url")
    @classmethod
    def _no_secret_in_it(cls, value: str | None) -> str | None:
        if value is not None and has_user(value):
            raise ValueError("got an address with a user in it, expected keys in environment variables alone")
        return value


TargetSettings = Annotated[DuckdbTarget | PostgresTarget | ParquetTarget, Field(discriminator="kind")]


def _as_target(value: Any) -> Any:
    """``duckdb`` for ``{kind: duckdb}``. What is wrong is told without the value, which may hold a password."""
    if isinstance(value, (DuckdbTarget, CopyTarget)):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, dict) or value.get("kind") not in _KINDS:
        raise ValueError(f"expected `duckdb`, or a mapping with `kind`, one of {', '.join(_KINDS)}")
    return value


def _as_targets(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise ValueError("expected a list of targets, such as [duckdb]")
    return value


def check_targets(targets: tuple[TargetSettings, ...]) -> tuple[TargetSettings, ...]:
    """The targets themselves. Raises ValueError where the file is not among them, or two are the same."""
    names = [target.name for target in targets]
    if "duckdb" not in names:
        raise ValueError("expected `duckdb` among them: the file is always published, the other targets are its copies")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"got several targets named {', '.join(twice)}, expected a `name` of its own for each")
    places = [_place(target) for target in targets]
    if len(set(places)) < len(places):
        raise ValueError("got two targets that write to one place, expected another `schema` or `path`")
    return targets


def has_user(address: str) -> bool:
    """Whether there is a user or a password in an address; in one of Azure's, a container may stand in their place."""
    scheme, _, rest = address.rpartition("://") if "::" in address else address.partition("://")
    user, found, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    return bool(found) and (":" in user or scheme.rpartition("::")[2] not in _CONTAINERS)


def place_digest(target: TargetSettings) -> str:
    """A short digest of where a target is, by which what was published elsewhere under its name is told apart.

    A ``${VARIABLE}`` counts by its name: its value may be a password.
    """
    return hashlib.sha256(json.dumps([target.kind, *_place(target)]).encode()).hexdigest()[:12]


def _place(target: TargetSettings) -> tuple[str, ...]:
    if isinstance(target, PostgresTarget):
        return target.url, target.schema_name
    if isinstance(target, ParquetTarget):
        return target.path.rstrip("/"), target.endpoint_url or ""
    return (target.name,)


Targets = Annotated[
    tuple[Annotated[TargetSettings, BeforeValidator(_as_target)], ...],
    BeforeValidator(_as_targets),
]
