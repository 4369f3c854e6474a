"""A folder of models read as dbt reads it, without a database: nothing is kept from one reading to the next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql_models.files import Folder, validated
from erasmo_dagster.store.sql_models.order import build_order
from erasmo_dagster.store.sql_models.project_file import (
    PROJECT_FILE,
    ProjectFile,
    check_config,
    folder_config,
    read_project_file,
)
from erasmo_dagster.store.sql_models.properties import (
    KEYS,
    ColumnProperties,
    ModelProperties,
    Properties,
    SingularProperties,
    TableProperties,
)
from erasmo_dagster.store.sql_models.read_tests import TestReader
from erasmo_dagster.store.sql_models.records import Column, Model, Source, SqlProject, Test
from erasmo_dagster.store.sql_models.render import SOURCE, Names, Renderer, nearest
from erasmo_dagster.store.sql_models.statements import one_select

# What the file has beside the models; that list and the code that writes those tables are held together by a test.
PUBLISHED = frozenset(
    {
        "segments",
        "segment_profile",
        "segment_descriptions",
        "segment_values",
        "segment_memberships",
        "segment_sizes",
        "segment_metrics",
        "segment_leaderboard",
        "segment_history",
        "segment_transitions",
        "publish_log",
        "experiments",
        "leaderboard",
        "mart_tests",
        "file_info",
    }
)
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
P = TypeVar("P", ModelProperties, SingularProperties, TableProperties)


@dataclass
class Described:
    """What all .yml files say, by name, and the file that says it."""

    models: dict[str, tuple[ModelProperties, Path]] = field(default_factory=dict)
    tables: dict[str, tuple[TableProperties, Path]] = field(default_factory=dict)
    singular: dict[str, tuple[SingularProperties, Path]] = field(default_factory=dict)


def load_sql_project(root: Path) -> SqlProject | None:
    """The models, tests and sources of a folder; None where there is none, or no ``dbt_project.yml`` in it.

    Raises ErasmoError, which names the file, for whatever dbt would refuse, and for what needs dbt itself.
    """
    if not (root / PROJECT_FILE).is_file():
        return None
    folder = Folder(root)
    project = read_project_file(folder)
    models = _stems(folder, folder.below(project.model_paths, (".sql",)), "models")
    singular = _stems(folder, folder.below(project.test_paths, (".sql",)), "tests")
    described = _described(folder, project)
    _check_names(folder, models, described.tables)
    _check_described(folder, described.models, models, "model")
    _check_described(folder, described.singular, singular, "singular test")
    names = Names(project.name, models.keys(), described.tables.keys(), project.variables())
    renderer = Renderer(names)
    built = {
        name: _model(folder, project, renderer, name, *place, described.models.get(name))
        for name, place in models.items()
    }
    order = build_order(
        {name: model.refs for name, model in built.items()},
        {name: folder.shown(model.path) for name, model in built.items()},
    )
    reader = TestReader(folder, project, renderer)
    for name, (model, file) in described.models.items():
        reader.add_generic(model, file, model=name, ways=_ways(project, name, *models[name]))
    for table, file in described.tables.values():
        reader.add_generic(table, file, model=None, ways=(project.name, SOURCE, table.name))
    for name, (path, base) in singular.items():
        reader.add_singular(name, path, _ways(project, name, path, base), described.singular.get(name))
    tests: Iterable[Test] = sorted(reader.tests.values(), key=lambda test: test.name)
    sources = tuple(
        Source(table.name, table.description, _columns(table.columns))
        for table, _ in sorted(described.tables.values(), key=lambda held: held[0].name)
    )
    return SqlProject(root, tuple(built[name] for name in order), tuple(tests), sources)


def _stems(folder: Folder, found: list[tuple[Path, Path]], what: str) -> dict[str, tuple[Path, Path]]:
    places: dict[str, tuple[Path, Path]] = {}
    for path, base in found:
        if path.stem in places:
            raise ErasmoError(
                f"Got two {what} named {path.stem!r}: {folder.shown(places[path.stem][0])} and {folder.shown(path)}",
                expected="one file of each name",
                fix="rename one of them",
            )
        places[path.stem] = (path, base)
    return places


def _described(folder: Folder, project: ProjectFile) -> Described:
    described = Described()
    renderer = Renderer(Names(project.name, (), (), project.variables()))
    for path, _ in folder.below((*project.model_paths, *project.test_paths), (".yml", ".yaml")):
        file = folder.shown(path)
        content = renderer.values(folder.yaml(path) or {}, file)
        read = validated(Properties, content, file, KEYS)
        _gather(folder, described.models, read.models, path, "model")
        _gather(folder, described.singular, read.data_tests, path, "test")
        for source in read.sources:
            if source.name != SOURCE:
                raise ErasmoError(
                    f"Got the source {source.name!r} in {file}",
                    expected=f"the source {SOURCE!r}, which is the published file",
                    fix=f"call it {SOURCE}",
                )
            _gather(folder, described.tables, source.tables, path, "table")
    return described


def _gather(folder: Folder, known: dict[str, tuple[P, Path]], found: Iterable[P], path: Path, what: str) -> None:
    for entry in found:
        if entry.name in known:
            files = sorted({folder.shown(known[entry.name][1]), folder.shown(path)})
            raise ErasmoError(
                f"Got the {what} {entry.name!r} described twice in {' and '.join(files)}",
                expected="one description",
                fix="remove one of them",
            )
        known[entry.name] = (entry, path)


def _check_described(
    folder: Folder, described: Mapping[str, tuple[Any, Path]], files: Mapping[str, Any], what: str
) -> None:
    for name, (_, path) in described.items():
        if name not in files:
            raise ErasmoError(
                f"Got the {what} {name!r} in {folder.shown(path)}, for which there is no {name}.sql",
                expected="a file of that name",
                fix=nearest(name, files) or f"write {name}.sql, or remove the entry",
            )


def _check_names(folder: Folder, models: Mapping[str, tuple[Path, Path]], tables: Iterable[str]) -> None:
    taken = PUBLISHED | {table.casefold() for table in tables}
    for name, (path, _) in models.items():
        if not _NAME.fullmatch(name):
            raise ErasmoError(
                f"Got the model {name!r} ({folder.shown(path)})",
                expected="a name of a-z, 0-9 and _ that does not begin with a digit",
                fix="rename the file",
            )
        if name in taken or name.endswith("_segmented"):
            raise ErasmoError(
                f"Got a model named like the published table {name!r} ({folder.shown(path)})",
                expected="a name that no published table has, and that does not end in _segmented",
                fix="rename the file",
            )


def _ways(project: ProjectFile, name: str, path: Path, base: Path) -> tuple[str, ...]:
    """The way to a node as dbt counts it: the project, the folders below the one that is searched, the name."""
    return (project.name, *path.relative_to(base).parent.parts, name)


def _model(
    folder: Folder,
    project: ProjectFile,
    renderer: Renderer,
    name: str,
    path: Path,
    base: Path,
    held: tuple[ModelProperties, Path] | None,
) -> Model:
    file = folder.shown(path)
    rendered = renderer.render(folder.text(path), file, this=name)
    ways = _ways(project, name, path, base)
    check_config(rendered.config, "model", file)
    config = folder_config(project.models, ways)
    if held is not None:
        check_config(held[0].config, "model", f"{folder.shown(held[1])} at models > {name}")
        config |= held[0].config
    config |= rendered.config
    group = ways[1] if len(ways) > 2 else base.name
    return Model(
        name=name,
        path=path,
        description=held[0].description.strip() if held else "",
        columns=_columns(held[0].columns) if held else (),
        materialized=config.get("materialized", "view"),
        sql=one_select(rendered.text, file),
        refs=rendered.refs,
        sources=rendered.sources,
        folder=re.sub(r"[^A-Za-z0-9_]", "_", group) or "models",
    )


def _columns(columns: Iterable[ColumnProperties]) -> tuple[Column, ...]:
    return tuple(Column(column.name, column.description.strip(), column.data_type) for column in columns)
