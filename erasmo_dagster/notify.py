"""Word of a failure: a POST to a webhook, JSON on the standard input of a command."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import NotifySettings, expand

_WHERE = "under `notify`"


class Notice(BaseModel):
    """What happened to which dataset; ``message`` is one line, ``at`` UTC."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    event: Literal["blocked", "failed"]
    message: str
    version: int | None
    run_id: str | None
    at: AwareDatetime


def notify(settings: NotifySettings, notice: Notice, *, timeout: float = 10.0) -> list[str]:
    """Send a notice to all that ``settings`` name; what went wrong, one line each.

    It never raises for a receiver that fails, and no line shows an address, a header, an answer or what a command
    printed, which may hold secrets. ``timeout`` is in seconds, for each receiver: the whole run of the command; the
    connection and each wait for the webhook's answer.
    """
    faults = []
    if settings.webhook:
        faults.append(_post(settings.webhook, settings.headers, notice, timeout))
    if settings.command:
        faults.append(_pipe(settings.command, notice, timeout))
    return [fault for fault in faults if fault]


def _post(webhook: str, headers: dict[str, str], notice: Notice, timeout: float) -> str:
    import requests

    try:
        url = expand(webhook, _WHERE)
        sent = {"Content-Type": "application/json", **{name: expand(value, _WHERE) for name, value in headers.items()}}
        if urlsplit(url).scheme not in ("http", "https"):
            return "Got notify.webhook that is neither http nor https"
        answer = requests.post(
            url,
            data=notice.model_dump_json().encode(),
            headers=sent,
            timeout=timeout,
            allow_redirects=False,  # a secret in a header would go along
            stream=True,  # the answer's body is of no use and may be long or have no end
        )
    except ErasmoError as error:
        return str(error)
    except requests.Timeout as error:
        return f"Got no answer from notify.webhook in {timeout:g} s ({type(error).__name__})"
    except (OSError, ValueError) as error:  # of requests too; others come from a header or a host that cannot be sent
        return f"Got no answer from notify.webhook ({type(error).__name__})"
    answer.close()
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
    with process:
        try:
            process.communicate(notice.model_dump_json().encode(), timeout=timeout)
        except BaseException as error:  # an interrupt too leaves nothing behind
            with suppress(ProcessLookupError, PermissionError):  # it has ended by itself meanwhile
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"Got no end of notify.command in {timeout:g} s: it was killed"
    return "" if process.returncode == 0 else f"Got exit status {process.returncode} from notify.command"
