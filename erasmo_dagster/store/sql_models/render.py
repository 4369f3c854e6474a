"""Jinja as models and tests use it: ref, source, var, config and this, in a sandbox."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import quote

SOURCE = "erasmo"
_WHOLE = "ref, source, var, config, this and Jinja's own if, for and set"
_VARIABLES = "var and Jinja's own if, for and set"
_PLAIN = "write it in plain SQL; macros, packages and incremental models need dbt"


class _RefusedError(Exception):
    """What a function of ours refuses; the renderer adds the file and the line."""

    def __init__(self, got: str, expected: str, fix: str) -> None:
        super().__init__(got)
        self.got, self.expected, self.fix = got, expected, fix


@dataclass(frozen=True)
class Rendered:
    """A text without its Jinja, what it refers to in the order of mention, and its own settings."""

    text: str
    refs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """What a project's Jinja may name."""

    project: str
    models: Collection[str]
    sources: Collection[str]
    variables: Mapping[str, Any]


def relation(name: str) -> str:
    """A table of the file, as models write it: without the file's own name, which changes."""
    return f'"main".{quote(name)}'


class Renderer:
    """Renders the Jinja of one project; nothing in it reaches Python, files or the environment."""

    def __init__(self, names: Names) -> None:
        self.names = names
        # `do` is the one extension that dbt turns on.
        self._environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, extensions=["jinja2.ext.do"], keep_trailing_newline=True
        )
        self._expressions: dict[str, Rendered] = {}
        own = ("range", "dict", "namespace")
        self._environment.globals = {name: self._environment.globals[name] for name in own}

    def render(self, text: str, file: str, *, this: str | None = None) -> Rendered:
        """Render the SQL of ``file``; ``this`` is the model it makes. Raises ErasmoError with file and line."""
        refs: dict[str, None] = {}
        sources: dict[str, None] = {}
        config: dict[str, Any] = {}

        def ref(*names: str) -> str:
            name = self._model(*names)
            refs[name] = None
            return relation(name)

        def source(*names: str) -> str:
            name = self._source(*names)
            sources[name] = None
            return relation(name)

        def settings(*given: Mapping[str, Any], **more: Any) -> str:
            for mapping in (*given, more):
                config.update(mapping)
            return ""

        context: dict[str, object] = {"ref": ref, "source": source, "config": settings, "var": self._variable}
        if this is not None:
            context["this"] = relation(this)
        done = self._run(text, file, context, _WHOLE if this is not None else _WHOLE.replace(", this", ""))
        return Rendered(done, tuple(refs), tuple(sources), config)

    def expression(self, text: str, file: str) -> Rendered:
        """What a Jinja expression such as ``ref('x')`` gives. Many tests have the same one."""
        if text not in self._expressions:
            self._expressions[text] = self.render("{{ " + text + " }}", file)
        return self._expressions[text]

    def values(self, content: Any, file: str) -> Any:
        """The content of a YAML file with the Jinja in its texts rendered; only ``var`` is known there."""
        if isinstance(content, dict):
            return {key: self.values(value, file) for key, value in content.items()}
        if isinstance(content, list):
            return [self.values(value, file) for value in content]
        if isinstance(content, str) and any(mark in content for mark in ("{{", "{%", "{#")):
            return self._run(content, file, {"var": self._variable}, _VARIABLES)
        return content

    def _run(self, text: str, file: str, context: dict[str, object], available: str) -> str:
        try:
            code = self._environment.compile(text, filename=file)
            return Template.from_code(self._environment, code, self._environment.make_globals(None)).render(context)
        except TemplateSyntaxError as error:
            raise ErasmoError(
                f"Got {file}, line {error.lineno}: {error.message}", expected=f"of Jinja only {available}", fix=_PLAIN
            ) from None
        except _RefusedError as error:
            place = f"{file}{_line(error.__traceback__, file)}"
            raise ErasmoError(f"Got {error.got} in {place}", expected=error.expected, fix=error.fix) from None
        except (UndefinedError, SecurityError) as error:
            place = f"{file}{_line(error.__traceback__, file)}"
            raise ErasmoError(
                f"Got {place}: {_one_line(error)}", expected=f"of Jinja only {available}", fix=_PLAIN
            ) from None
        except Exception as error:  # whatever a template's own expressions raise
            place = f"{file}{_line(error.__traceback__, file)}"
            told = f"{type(error).__name__}: {_one_line(error)}"
            raise ErasmoError(
                f"Got {place}: {told}", expected=f"Jinja that renders, of {available}", fix="mend that line"
            ) from None

    def _model(self, *names: str) -> str:
        if len(names) == 2 and names[0] == self.names.project:
            names = names[1:]
        shown = f"ref({', '.join(map(repr, names))})"
        if len(names) != 1 or not isinstance(names[0], str):
            raise _RefusedError(shown, "the name of one model", "write ref('name')")
        if names[0] not in self.names.models:
            if names[0] in self.names.sources:
                fix = f"write source('{SOURCE}', {names[0]!r})"
            else:
                fix = nearest(names[0], self.names.models) or "write the model, or mend the name"
            raise _RefusedError(f"{shown}, which is no model", _listed("one of", self.names.models, "a model"), fix)
        return names[0]

    def _source(self, *names: str) -> str:
        shown = f"source({', '.join(map(repr, names))})"
        if len(names) != 2 or names[0] != SOURCE:
            raise _RefusedError(shown, f"the source {SOURCE!r} and a table", f"write source('{SOURCE}', 'segments')")
        if names[1] not in self.names.sources:
            fix = nearest(names[1], self.names.sources) or "add the table to the sources in a .yml"
            expected = _listed("one of the tables", self.names.sources, "a table that a .yml has under sources")
            raise _RefusedError(f"{shown}, which is in no .yml", expected, fix)
        return names[1]

    def _variable(self, name: str, *default: Any, **named: Any) -> Any:
        given = [*default, *named.values()]
        if len(given) > 1 or set(named) - {"default"}:
            raise _RefusedError(f"var({name!r}) with {len(given)} defaults", "one", "write var('name', default)")
        if name in self.names.variables:
            return self.names.variables[name]
        if given:
            return given[0]
        raise _RefusedError(
            f"var({name!r}), which has no value",
            _listed("one of", self.names.variables, "a variable of dbt_project.yml"),
            nearest(name, self.names.variables) or f"give {name} a value under vars in dbt_project.yml, or a default",
        )


def nearest(name: Any, known: Collection[str]) -> str:
    """A question that names what may have been meant; empty where nothing is near."""
    near = get_close_matches(str(name), list(known), 2, 0.7)
    return f"did you mean {' or '.join(map(repr, near))}" if near else ""


def _listed(what: str, known: Collection[str], otherwise: str) -> str:
    return f"{what} {', '.join(sorted(known))}" if known else otherwise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _line(traceback: TracebackType | None, file: str) -> str:
    """Where in the template an error arose: Jinja gives its lines to the frames."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f", line {line}" if line else ""
