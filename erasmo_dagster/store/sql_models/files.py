"""The files of a folder of models: found, read, and their YAML validated with errors in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from erasmo_dagster.errors import ErasmoError

# libyaml reads a long sources.yml in a tenth of the time.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
M = TypeVar("M", bound=BaseModel)


class _UniqueKeys(_Base):  # type: ignore[misc]
    """YAML in which a key given twice is an error: one of the two would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class Folder:
    """A folder of models, which knows how to name its files in errors."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, path: Path) -> str:
        """How errors call a file: the folder's name and the way from there."""
        return f"{self.root.name}/{path.relative_to(self.root).as_posix()}"

    def below(self, folders: Iterable[str], suffixes: tuple[str, ...]) -> list[tuple[Path, Path]]:
        """Every file of these suffixes below the folders, and the folder each was found in, sorted by path."""
        found: dict[Path, Path] = {}
        for name in folders:
            base = self.root / name
            for path in base.rglob("*"):
                # As dbt: what an editor or a version control leaves behind is no model.
                if path.suffix in suffixes and path.name[0] not in ".#~" and path.is_file():
                    found.setdefault(path, base)
        return sorted(found.items())

    def text(self, path: Path) -> str:
        """The text of a file. Raises ErasmoError where it is not UTF-8 or cannot be read."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ErasmoError(
                f"Got {self.shown(path)}, which is not UTF-8 ({error.reason} at byte {error.start})",
                fix="save it as UTF-8",
            ) from None
        except OSError as error:
            raise ErasmoError(
                f"Got {error.strerror!r} for {self.shown(path)}", expected="a file that can be read"
            ) from None
        return text

    def yaml(self, path: Path) -> Any:
        """The content of a YAML file. Raises ErasmoError where it is no YAML, or has a key twice."""
        text = self.text(path)
        try:
            return yaml.load(text, _UniqueKeys)  # noqa: S506 (a SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise ErasmoError(
                f"Got {self.shown(path)}{line}: {error.problem}", expected="YAML", fix="mend that line"
            ) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ErasmoError(
                f"Got {self.shown(path)}: {' '.join(str(error).split())}", expected="YAML", fix="mend that file"
            ) from None


def validated(model: type[M], data: Any, file: str, keys: Mapping[str, type[BaseModel]]) -> M:
    """``data`` as ``model``. Raises ErasmoError that names the file, the place in it and what is expected there.

    ``keys`` tells by the key above which model a mapping is, so that an unknown key is answered with those known.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _told(first, model, data, file, keys) from None


def _told(first: Any, model: type[BaseModel], data: Any, file: str, keys: Mapping[str, type[BaseModel]]) -> ErasmoError:
    where, loc = _where(first["loc"], data), first["loc"]
    place = f" at {where}" if where else ""
    if first["type"] == "extra_forbidden":
        above = [part for part in loc[:-1] if isinstance(part, str)]
        known = keys.get(above[-1], model) if above else model
        names = sorted(field.alias or name for name, field in known.model_fields.items() if name != "kind")
        fix = {
            "tests": "call it data_tests, as dbt does since 1.8",
            "severity": "put it under config",
            "where": "put it under config",
        }.get(str(loc[-1]), "remove it, or move it to where it belongs")
        if loc[-1] in ("values", "quote", "to", "field", "column_name"):
            fix = "put it under arguments, as dbt does since 1.10"
        return ErasmoError(f"Got an unknown key in {file}{place}", expected=f"one of {', '.join(names)}", fix=fix)
    if first["type"] == "missing":
        return ErasmoError(f"Got {file} without {where}", expected=f"{loc[-1]} there", fix="write it down")
    if first["type"] == "value_error":
        raised = first["ctx"]["error"]
        if len(raised.args) == 3:
            got, expected, fix = raised.args
            return ErasmoError(f"Got {got} in {file}{place}", expected=expected, fix=fix)
    got = first["input"]
    shown = f" {got!r}" if isinstance(got, str | int | float | bool | None) else ""
    told = first["msg"].removeprefix("Value error, ").replace("Input should be ", "")
    return ErasmoError(f"Got{shown or ' something else'} in {file}{place}", expected=told, fix="mend that entry")


def _where(loc: tuple[int | str, ...], data: Any) -> str:
    """The way to a place, items of lists by their name where they have one."""
    words = []
    for at, part in enumerate(loc):
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) and part < len(data) else None
            if isinstance(data, dict) and isinstance(data.get("name"), str):
                words.append(data["name"])
            elif isinstance(data, dict) and len(data) == 1 and loc[at - 1] == "data_tests":
                words.append(str(next(iter(data))))
                data = next(iter(data.values()))
            else:
                words.append(data if isinstance(data, str) else f"number {part + 1}")
        else:
            words.append(part)
            data = data.get(part) if isinstance(data, dict) else None
    return " > ".join(words)
