"""The .yml beside the models: what tables and columns are, the sources, and the tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

GENERIC = ("not_null", "unique", "accepted_values", "relationships")
_NEEDS: dict[str, tuple[str, ...]] = {"accepted_values": ("values",), "relationships": ("to", "field")}
_TAKES: dict[str, tuple[str, ...]] = {"accepted_values": ("values", "quote"), "relationships": ("to", "field")}

Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


class _Properties(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Arguments(_Properties):
    """The arguments of a generic test."""

    values: tuple[str | bool | int | float, ...] | None = None
    quote: bool = True
    to: str | None = None
    field: str | None = None
    column_name: str | None = None


class GenericTest(_Properties):
    """One entry of ``data_tests``: a test of a column or of a model."""

    kind: Literal["not_null", "unique", "accepted_values", "relationships"]
    name: str | None = None
    description: Text = ""
    arguments: Arguments = Arguments()
    config: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, entry: Any) -> Any:
        if isinstance(entry, str):
            kind, body = entry, None
        elif isinstance(entry, dict) and len(entry) == 1:
            kind, body = next(iter(entry.items()))
        else:
            raise ValueError("a test that is neither a name nor one name with what belongs to it", _ONE_OF, _WRITE)
        if kind not in GENERIC:
            fix = "write a singular test: a SELECT of the failing rows, in the tests folder"
            raise ValueError(f"the unknown test {kind!r}", _ONE_OF, fix)
        body = {} if body is None else body
        if not isinstance(body, dict):
            raise ValueError(f"the test {kind!r} with something else than keys", "arguments, config, name", _WRITE)
        return {**body, "kind": kind}

    @model_validator(mode="after")
    def _complete(self) -> GenericTest:
        given = self.arguments.model_fields_set
        takes = (*_TAKES.get(self.kind, ()), "column_name")
        if surplus := sorted(given - set(takes)):
            fix = "remove what it does not take"
            raise ValueError(f"{self.kind} with {', '.join(surplus)}", f"{' and '.join(takes)} alone", fix)
        absent = [name for name in _NEEDS.get(self.kind, ()) if not getattr(self.arguments, name)]
        if absent:
            raise ValueError(f"{self.kind} without {', '.join(absent)}", "it under arguments", "write it down")
        return self


_ONE_OF = f"one of {', '.join(GENERIC)}"
_WRITE = "write `- not_null`, or `- accepted_values: {arguments: {values: [a, b]}}`"
Tests = Annotated[tuple[GenericTest, ...], BeforeValidator(lambda value: () if value is None else value)]


class ColumnProperties(_Properties):
    """A column of a model or of a source's table."""

    name: str
    description: Text = ""
    data_type: str | None = None
    data_tests: Tests = ()
    quote: bool | None = None
    config: Any = None
    meta: Any = None
    tags: Any = None


class _Table(_Properties):
    name: str
    description: Text = ""
    columns: tuple[ColumnProperties, ...] = ()
    data_tests: Tests = ()
    docs: Any = None
    meta: Any = None
    tags: Any = None

    @model_validator(mode="after")
    def _columns_are_named_once(self) -> _Table:
        names = [column.name.casefold() for column in self.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the column {twice[0]!r} twice", "it once", "join the two entries")
        return self


class ModelProperties(_Table):
    """A model, whose SQL is in a file of its name."""

    config: dict[str, Any] = {}


class TableProperties(_Table):
    """A published table."""

    config: Any = None


class SourceProperties(_Properties):
    """The published file, the one source there is."""

    name: str
    description: Text = ""
    database: str | None = None
    schema_: Literal["main"] = Field("main", alias="schema")
    tables: tuple[TableProperties, ...] = ()
    config: Any = None
    loader: Any = None
    meta: Any = None
    tags: Any = None


class SingularProperties(_Properties):
    """A singular test, whose SQL is in a file of its name."""

    name: str
    description: Text = ""
    config: dict[str, Any] = {}


class Properties(_Properties):
    """A .yml file."""

    version: Literal[2] = 2
    models: tuple[ModelProperties, ...] = ()
    sources: tuple[SourceProperties, ...] = ()
    data_tests: tuple[SingularProperties, ...] = ()


# The key above a mapping -> what it is. `data_tests` has two meanings; singular tests have fewer keys.
KEYS: dict[str, type[BaseModel]] = {
    "models": ModelProperties,
    "columns": ColumnProperties,
    "sources": SourceProperties,
    "tables": TableProperties,
    "data_tests": GenericTest,
    "arguments": Arguments,
}
