"""Secrets and places that settings take from the environment."""

from __future__ import annotations

import os
import re

from erasmo_dagster.errors import ErasmoError

_DATABASE_URL = re.compile(r"\s*postgres(ql)?:", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def expand(text: str, where: str) -> str:
    """``text`` with every ``${VARIABLE}`` replaced from the environment; values are not expanded again.

    Raises ErasmoError for one that is not set, naming the variable and ``where`` it stands, never a value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ErasmoError(
                f"Got ${{{match[1]}}} {where}, which is not set",
                expected="an environment variable",
                fix=f"run `export {match[1]}=…` first",
            )
        return os.environ[match[1]]

    return _VARIABLE.sub(value, text)


def is_database_url(text: str) -> bool:
    """Whether ``text`` begins like the URL of a PostgreSQL database, password and all."""
    return _DATABASE_URL.match(text) is not None


def is_variable(text: str) -> bool:
    """Whether ``text`` is one ``${VARIABLE}`` and nothing else, so that all of it comes from the environment."""
    return _VARIABLE.fullmatch(text) is not None


def only_a_variable(value: object) -> object:
    """For a setting that holds an address with its password: the value, where it is one ``${VARIABLE}``.

    Raises ValueError without a word of any other value, since it is likely to be the address itself.
    """
    if not isinstance(value, str) or not is_variable(value):
        raise ValueError(
            "expected `${VARIABLE}` and nothing else, an environment variable that holds the address, so that no "
            "password is in a file"
        )
    return value
