"""What to tell of an error that a folder or an object store gave.

The texts of the stores' libraries repeat addresses, some of them signed, and whatever the environment put into a path.
So they are never handed on: told are the error's class and its number, or what is known of its class or code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from erasmo_dagster.errors import ErasmoError, disk_fault

_LIBRARIES = {"fsspec", "s3fs", "aiobotocore", "botocore", "aiohttp", "gcsfs", "google", "adlfs", "azure"}
# Classes of errors and codes of S3, by what they mean; the first that fits.
_KNOWN = (
    (r"NoSuchBucket|FileNotFoundError|ResourceNotFoundError", "there is no such bucket or folder"),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|NoCredentialsError|PartialCredentialsError"
        r"|DefaultCredentialsError|ClientAuthenticationError",
        "the credentials are missing, wrong or expired",
    ),
    (r"AccessDenied|AllAccessDisabled|Forbidden|PermissionError", "it may not be written with these credentials"),
    (r"RequestTimeTooSkewed", "the clocks differ"),
    (
        r"EndpointConnectionError|Connect\w*Timeout\w*|ReadTimeoutError|ClientConnector\w*|ConnectionClosedError"
        r"|ConnectionRefusedError|ConnectionResetError|ServiceRequestError|gaierror|TimeoutError",
        "it cannot be reached",
    ),
)


def is_of_the_store(error: Exception) -> bool:
    """Whether an error comes from the disk, the network or the object store, and not from a fault of ours."""
    return isinstance(error, (OSError, pa.ArrowException)) or any(
        name.partition(".")[0] in _LIBRARIES for name in _modules(error.__traceback__)
    )


def store_fault(error: Exception, path: str, *, local: bool) -> ErasmoError:
    """What to tell of an error met while writing to ``path``, which is shown: it is as the settings have it."""
    number = error.errno if isinstance(error, OSError) else None
    plain = error if number is None else OSError(number, os.strerror(number))  # without the file's name
    if local and (fault := disk_fault(plain, Path(path))) is not None:
        return ErasmoError(fault.got, expected=fault.expected, fix="free some space there, or change its permissions")
    said = _known(error) or ("" if number is None else os.strerror(number))
    return ErasmoError(
        f"Got {type(error).__name__} where {path} was to be written" + (f" ({said})" if said else ""),
        expected="a place that can be written",
        fix="see that it is there, and that the credentials in the environment may write it",
    )


def _known(error: BaseException) -> str:
    names = list(_names(error))
    return next((told for words, told in _KNOWN if any(re.fullmatch(words, name) for name in names)), "")


def _names(error: BaseException | None) -> Iterator[str]:
    """Classes, and codes of answers, of an error and of those that led to it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and isinstance(response.get("Error"), dict):
            yield str(response["Error"].get("Code"))
        yield type(error).__name__
        error = error.__cause__ or error.__context__


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
