"""Clients of OpenAI-compatible endpoints: whose key they send, what they try again, and what they tell of a fault."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings.naming import is_here

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI, OpenAIError

T = TypeVar("T")
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds, where the endpoint does not say how long
_LONGEST_HEEDED = 300.0  # seconds that an endpoint may ask us to wait
_MOST_SHOWN = 200  # characters of an endpoint's own message
_WORTH_A_NOTE = 5.0  # seconds of a wait


def endpoint_key(url: str, api_key_env: str | None) -> str:
    """The key for the endpoint at ``url``: of the environment variable ``api_key_env``, or ``none`` without one.

    Raises ErasmoError where no client could be made: the package openai is not installed, the variable is not set, or
    ``url`` cannot be read. Called early, it tells of that before anything is made for the endpoint.
    """
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise ErasmoError(
            "Got an OpenAI-compatible endpoint without the package openai", fix='pip install "erasmo-dagster[openai]"'
        ) from error
    try:
        shown_url(url)
    except ValueError as error:
        raise ErasmoError("Got an endpoint's `url` that cannot be read", expected="https://host:port/v1") from error
    key = os.environ.get(api_key_env, "").strip() if api_key_env else "none"
    if not key:
        raise ErasmoError(f"Got no value in the environment variable {api_key_env}", fix="set it")
    if not (key.isascii() and key.isprintable()):
        raise ErasmoError(f"Got characters in the environment variable {api_key_env} that no key has", fix="set it")
    return key


def endpoint_client(url: str, api_key_env: str | None, timeout: float, *, max_retries: int = 0) -> OpenAI:
    """A client of the endpoint at ``url``; close it, or use it as a context manager.

    What stays on this machine goes through no proxy, and no redirect is followed. ``timeout`` is in seconds. Raises
    ErasmoError as :func:`endpoint_key` does.
    """
    key = endpoint_key(url, api_key_env)
    from openai import DefaultHttpxClient, OpenAI

    http = DefaultHttpxClient(trust_env=not is_here(url), follow_redirects=False)
    return OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=max_retries, http_client=http)


def with_retries(
    call: Callable[[], T],
    *,
    url: str,
    api_key_env: str | None,
    retries: int,
    pause: Callable[[float], bool | None] = time.sleep,
) -> T:
    """What ``call`` returns, a request through a client that tries nothing again by itself.

    After 429, 5xx, a time-out or a broken connection it is called again, ``retries`` times at most. The waits double
    from one second to a minute, up to a quarter less by chance; an endpoint's Retry-After goes first. ``pause`` waits
    the seconds that it is given; a true answer of it means to give up.

    Raises ErasmoError for everything else that the client raises; the key is in none of them.
    """
    from openai import OpenAIError

    tries = 0
    while True:
        tries += 1
        try:
            return call()
        except OpenAIError as error:
            asked = _asked_wait(error)
            wait = min(_FIRST_WAIT * 2 ** (tries - 1), _LONGEST_WAIT) * random.uniform(0.75, 1)
            fault = _fault(error, url, api_key_env, tries)
            if not _passes(error) or tries > retries or (asked or 0) > _LONGEST_HEEDED:
                raise fault from None
        wait = wait if asked is None else asked
        if wait >= _WORTH_A_NOTE:
            progress.note(f"{fault.got}: trying again in {wait:.0f} s")
        if pause(wait):
            raise fault


def _passes(error: OpenAIError) -> bool:
    """Whether the same request may be answered later."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        if "insufficient_quota" in (error.code, error.type):  # OpenAI's 429 for an account without money
            return False
        return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
    return isinstance(error, APIConnectionError)  # time-outs among them


def _asked_wait(error: OpenAIError) -> float | None:
    """Seconds of the answer's Retry-After, which is a number or a date; None without a usable one."""
    from openai import APIStatusError

    text = error.response.headers.get("retry-after", "") if isinstance(error, APIStatusError) else ""
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if seconds >= 0 else None  # not a number is not either


def _fault(error: OpenAIError, url: str, api_key_env: str | None, tries: int) -> ErasmoError:
    """One line on an error, without the key, which its text may repeat."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    where = f"the endpoint {shown_url(url)}" + (f" after {tries} tries" if tries > 1 else "")
    if isinstance(error, APITimeoutError):
        return ErasmoError(f"Got no answer in time from {where}", fix="raise `timeout`, or ask for less at once")
    if isinstance(error, APIConnectionError):
        return ErasmoError(f"Got no connection to {where}", fix="start it, or change `url`")
    if not isinstance(error, APIStatusError):
        return ErasmoError(f"Got {type(error).__name__} from {where}", expected="an answer as OpenAI's")
    return ErasmoError(
        f"Got status {error.status_code} from {where}{_message(error, api_key_env)}",
        fix=_fix(error.status_code, api_key_env),
    )


def _fix(status: int, api_key_env: str | None) -> str:
    if status in (401, 403):
        return f"check the key in {api_key_env}" if api_key_env else "set `api_key_env` to the variable with the key"
    if status == 404:
        return "check `url`, which ends in /v1 as a rule, and `model`"
    if status == 429:
        return "run again later, or lower `concurrency`"
    if status >= 500 or status in (408, 409, 425):
        return "run again later"
    if 300 <= status < 400:
        return "set `url` to the address that it leads to"
    return "change the option that it objects to, such as `model`"


def _message(error: APIStatusError, api_key_env: str | None) -> str:
    """The endpoint's own words in brackets; none where they are about the key."""
    body = error.body if isinstance(error.body, dict) else {}
    text = body.get("message")
    if error.status_code in (401, 403) or not isinstance(text, str):
        return ""
    if api_key_env and (key := os.environ.get(api_key_env, "").strip()):
        text = text.replace(key, "…")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f" ({text[:_MOST_SHOWN].rstrip('.')})" if text else ""


def shown_url(url: str) -> str:
    """An address without the password and the query that it may carry."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def tell_what_leaves(address: str, dataset: str, rows: int, columns: Iterable[str]) -> None:
    """Say, before anything is sent, which columns go to another machine; nothing where it is this one."""
    if not is_here(address):
        told = f"the text of {rows:,} rows goes to {shown_url(address)}, made of these columns: {', '.join(columns)}"
        progress.note(f"{dataset}: {told}")
