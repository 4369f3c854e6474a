"""The tests of a folder: the generic ones of its .yml files, and the singular ones of its tests folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import quote
from erasmo_dagster.store.sql_models.files import Folder
from erasmo_dagster.store.sql_models.generic import generic_sql
from erasmo_dagster.store.sql_models.project_file import ProjectFile, check_config, folder_config
from erasmo_dagster.store.sql_models.properties import (
    GenericTest,
    ModelProperties,
    SingularProperties,
    TableProperties,
)
from erasmo_dagster.store.sql_models.records import Severity, Test
from erasmo_dagster.store.sql_models.render import SOURCE, Renderer
from erasmo_dagster.store.sql_models.statements import one_select


class TestReader:
    """Collects tests by name."""

    __test__ = False

    def __init__(self, folder: Folder, project: ProjectFile, renderer: Renderer) -> None:
        self.folder, self.project = folder, project
        self.renderer = renderer
        self.tests: dict[str, Test] = {}

    def add_generic(
        self, table: ModelProperties | TableProperties, path: Path, *, model: str | None, ways: Sequence[str]
    ) -> None:
        """The tests of a model, or of a source's table where ``model`` is None, and of its columns."""
        for column in table.columns:
            for test in column.data_tests:
                if test.arguments.column_name is not None:
                    raise ErasmoError(
                        f"Got column_name in a test of the column {column.name!r} in {self.folder.shown(path)}",
                        expected="it in tests of a model alone",
                        fix="remove it",
                    )
                self._generic(test, table.name, column.name, quote(column.name), path, model, ways)
        for test in table.data_tests:
            if test.arguments.column_name is None:
                raise ErasmoError(
                    f"Got the test {test.kind!r} of {table.name!r} without a column in {self.folder.shown(path)}",
                    expected="a column",
                    fix="move it to the column's data_tests, or give column_name under arguments",
                )
            self._generic(test, table.name, None, test.arguments.column_name, path, model, ways)

    def add_singular(
        self, name: str, path: Path, ways: Sequence[str], held: tuple[SingularProperties, Path] | None
    ) -> None:
        """A file of the tests folder: one SELECT of the rows that should not be there."""
        file, text = self.folder.shown(path), self.folder.text(path)
        rendered = self.renderer.render(text, file)
        config = folder_config(self.project.data_tests, ways)
        if held is not None:
            check_config(held[0].config, "test", f"{self.folder.shown(held[1])} at data_tests > {name}")
            config |= held[0].config
        check_config(rendered.config, "test", file)
        config |= rendered.config
        self._add(
            Test(
                name=name,
                model=rendered.refs[0] if rendered.refs else None,
                column=None,
                severity=_severity(config),
                sql=one_select(rendered.text, file),
                description=(held[0].description if held else "").strip() or _first_comment(text),
                depends_on=rendered.refs,
                sources=rendered.sources,
                path=path,
            )
        )

    def _generic(
        self,
        test: GenericTest,
        table: str,
        column: str | None,
        expression: str,
        path: Path,
        model: str | None,
        ways: Sequence[str],
    ) -> None:
        place = " > ".join(filter(None, (table, column, test.kind)))
        file = f"{self.folder.shown(path)} at {place}"
        check_config(test.config, "test", file)
        config = folder_config(self.project.data_tests, ways) | test.config
        where = config.get("where")
        made = generic_sql(
            test,
            table,
            expression,
            None if where is None else str(where),
            self.renderer,
            file,
            source=SOURCE if model is None else None,
        )
        own = (model,) if model is not None else ()
        self._add(
            Test(
                name=made.name,
                model=model,
                column=column,
                severity=_severity(config),
                sql=made.sql if made.quoted else one_select(made.sql, file),
                description=made.description,
                depends_on=tuple(dict.fromkeys((*own, *made.refs))),
                sources=tuple(dict.fromkeys((*(() if own else (table,)), *made.sources))),
                path=path,
            )
        )

    def _add(self, test: Test) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]+", test.name):
            raise ErasmoError(
                f"Got the test name {test.name!r} in {self.folder.shown(test.path)}",
                expected="letters, digits and _",
                fix="rename it",
            )
        if test.name in self.tests:
            files = sorted({self.folder.shown(self.tests[test.name].path), self.folder.shown(test.path)})
            raise ErasmoError(
                f"Got two tests named {test.name!r} in {' and '.join(files)}",
                expected="one test of each name",
                fix="remove one, or give it a name of its own (`name:` beside arguments)",
            )
        self.tests[test.name] = test


def _severity(config: Mapping[str, Any]) -> Severity:
    return cast(Severity, str(config.get("severity", "error")).lower())


def _first_comment(sql: str) -> str:
    """The comment that a file begins with, in one line."""
    lines = []
    for line in sql.lstrip().splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.lstrip("-").strip())
    return " ".join(filter(None, lines))
