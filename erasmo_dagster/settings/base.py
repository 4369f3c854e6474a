"""What every model of settings is built of."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer


class Settings(BaseModel):
    """Frozen, and no key but the declared ones: a misspelt option is an error and not a default.

    Pydantic's own errors, which end up in logs as causes of ours, leave out what was given: it may be a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Strings = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return timedelta(seconds=value)
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d{1,8}(?:\.\d{1,3})?)\s*([smhd])\s*", value)):
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    raise ValueError("expected a duration such as 30s, 15m, 24h or 7d")


def _shown(value: timedelta) -> str:
    seconds = value.total_seconds()
    unit = next((u for u in "dhm" if seconds and seconds % _UNITS[u] == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


# `30s`, `15m`, `24h`, `7d`, or a number of seconds.
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration, json_schema_input_type=str | float),
    PlainSerializer(_shown, return_type=str),
]
