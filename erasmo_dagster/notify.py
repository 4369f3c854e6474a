"""Word of a failure: a POST to a webhook, JSON on the standard input of a command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import NotifySettings


class Notice(BaseModel):
    """What happened to which dataset; ``message`` is one line, ``at`` UTC."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    event: Literal["blocked", "failed"]
    message: str
    version: int | None
    run_id: str | None
    at: datetime


def notify(settings: NotifySettings, notice: Notice, *, timeout: float = 10.0) -> list[str]:
    """Send a notice to all that ``settings`` name; what went wrong, one line each.

    It never raises for a receiver that fails, and no line shows an address, a header or an answer, which may hold
    secrets. ``timeout`` is in seconds, for each receiver.
    """
    faults = []
    if settings.webhook:
        faults.append(_post(settings, notice, timeout))
    if settings.command:
        faults.append(_pipe(settings.command, notice, timeout))
    return [fault for fault in faults if fault]


def expand(text: str) -> str:
    """``text`` with every ``${VARIABLE}`` replaced from the environment. Raises ErasmoError for one that is not set."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ErasmoError(f"Got ${{{match[1]}}} under `notify`, which is not set", expected="it in the environment")
        return os.environ[match[1]]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value, text)


def _post(settings: NotifySettings, notice: Notice, timeout: float) -> str:
    import requests

    try:
        url = expand(settings.webhook or "")
        headers = {name: expand(value) for name, value in settings.headers.items()}
        if urlsplit(url).scheme not in ("http", "https"):
            return "Got notify.webhook that is neither http nor https"
        answer = requests.post(
            url,
            data=notice.model_dump_json().encode(),
            headers={"Content-Type": "application/json", **headers},
            timeout=timeout,
            allow_redirects=False,  # a secret in a header would go along
        )
    except ErasmoError as error:
        return str(error)
    except (requests.RequestException, ValueError) as error:
        return f"Got no answer from notify.webhook in {timeout:g} s ({type(error).__name__})"
    return "" if answer.status_code < 300 else f"Got HTTP {answer.status_code} from notify.webhook"


def _pipe(command: tuple[str, ...], notice: Notice, timeout: float) -> str:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"Got notify.command that does not start ({type(error).__name__})"
    try:
        process.communicate(notice.model_dump_json().encode(), timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"Got no end of notify.command in {timeout:g} s: it was killed"
    return "" if process.returncode == 0 else f"Got exit status {process.returncode} from notify.command"
