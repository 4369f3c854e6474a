"""Connections to PostgreSQL, by a URL from the environment of which no message says anything.

libpq repeats host, user and parts of a malformed URL in what it says, and PostgreSQL cell values. So their texts are
read here and never handed on; the one exception is what the server says of SQL from the settings, before a row is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import expand

# A server that does not answer, or a network that goes away, ends in an error and not in a run that hangs.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "fallback_application_name": "erasmo_dagster",
}
LOCK_WAIT = "10s"  # for another session that alters the table
# What a failed connection is about, by libpq's words; the first that fits.
_REFUSALS = (
    ("password|SCRAM|authentication failed|no pg_hba.conf entry", "user or password that the server refuses"),
    ('database ".*" does not exist', "database that the server does not have"),
    ("translate host name|Name or service not known|resolve", "host that has no address"),
    ("Connection refused|No such file", "host and port where no server listens"),
    ("timeout expired|timed out", "host that does not answer within 10 s"),
    ("SSL|certificate", "way of encryption that the server refuses"),
    ("too many (clients|connections)|remaining connection slots", "server that has no connection left"),
    ("starting up|shutting down|recovery mode", "server that is starting or stopping"),
    ("invalid|missing|unexpected|percent-encoded|'uri'|URI|conninfo", "text that is no PostgreSQL URL"),
)


@contextmanager
def postgres_connection(reference: str, shown: str) -> Iterator[Any]:
    """An ADBC connection in autocommit mode, closed afterwards. ``reference`` is ``${VARIABLE}``, whose value is a
    PostgreSQL URL; ``shown`` names what is read or written there in messages.

    Raises ErasmoError where the driver is not installed, the variable not set or the server not to be reached, without
    a word of the URL.
    """
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise ErasmoError(
            f"Got {shown} without the driver for PostgreSQL", fix='pip install "erasmo-dagster[postgres]"'
        ) from None
    url = with_defaults(expand(reference, f"for {shown}").strip())
    try:
        connection = dbapi.connect(url, autocommit=True)
    except Error as error:
        raise _refused(str(error), reference) from None
    try:
        yield connection
    finally:
        with suppress(Error, OSError):  # a connection that was lost cannot say goodbye
            connection.close()


def with_defaults(url: str) -> str:
    """A URL, or a list of ``keyword=value``, with time limits where it sets none."""
    if "://" not in url:
        missing = [f"{name}={value}" for name, value in _DEFAULTS.items() if not re.search(rf"\b{name}\s*=", url)]
        return " ".join([url, *missing]) if "=" in url else url
    missing = [f"{name}={value}" for name, value in _DEFAULTS.items() if f"{name}=" not in url.partition("?")[2]]
    between = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return f"{url}{between}{'&'.join(missing)}" if missing else url


def _refused(text: str, reference: str) -> ErasmoError:
    what = next((told for words, told in _REFUSALS if re.search(words, text)), "server that cannot be reached")
    return ErasmoError(
        f"Got in {reference} a {what}",
        expected="a URL such as postgresql://user:password@host:5432/database",
        fix=f"mend the variable {reference[2:-1]}, or the server",
    )


def sqlstate(error: Exception) -> str:
    """PostgreSQL's five-character code of an error; empty where the driver does not tell it."""
    return str(getattr(error, "sqlstate", None) or "")


def server_message(error: Exception) -> str:
    """What the server says of SQL that it does not take, without the SQL. Never for errors that arise when rows are
    read or a connection is opened: those repeat cell values, hosts and users."""
    found = re.search(r"(?:ERROR|FATAL):\s+(.*)", str(error))
    return found[1].strip().rstrip(".") if found else "no reason given"
