"""What segments are called."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from erasmo_dagster.settings.base import Settings

NAME_LENGTH = 60
NOISE_NAME = "noise"
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f]*$")
]


class NamingSettings(Settings):
    """Names of a dataset's segments. A name stays for as long as its segment is matched from version to version."""

    names: dict[Annotated[int, Field(ge=0)], Name] = Field(
        default_factory=dict, description="Names of your own, by segment id: `{3: Big spenders}`."
    )
    by: Literal["profile", "base_model", "endpoint"] = Field(
        "profile",
        description="Who proposes the names of new segments: their `profile` alone, the dataset's `base_model` (a chat "
        "model is best), or an OpenAI-compatible `endpoint`. Models read the profile, never rows.",
    )
    url: str | None = Field(
        None, pattern=r"^https?://", description="Base address of the endpoint, such as `http://127.0.0.1:11434/v1`."
    )
    model: str | None = Field(None, min_length=1, description="Model that the endpoint is asked for.")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the endpoint's key."
    )
    allow_remote: bool = Field(
        False, description="Let the profile (values of columns, no rows, nothing `sensitive`) leave this machine."
    )
    timeout: float = Field(60.0, gt=0, le=3600, description="Seconds that the endpoint may take for an answer.")

    @model_validator(mode="after")
    def _complete(self) -> NamingSettings:
        given = [name.casefold() for name in self.names.values()]
        if NOISE_NAME in given:
            raise ValueError(f"got the name {NOISE_NAME!r}, which is that of rows in no segment")
        if len(set(given)) < len(given):
            raise ValueError("expected every name in `naming.names` once")
        if self.by == "endpoint" and not (self.url and self.model):
            raise ValueError("`by: endpoint` needs `url` and `model`")
        check_keyless(self.url or "")
        if self.by == "endpoint":
            check_allowed(self.url or "", self.allow_remote)
        return self


def check_allowed(url: str, allow_remote: bool) -> None:
    """Raise ValueError for an address of another machine that was not allowed."""
    if not allow_remote and not is_here(url):
        raise ValueError("the endpoint is another machine: expected `allow_remote: true`, or one on 127.0.0.1")


def check_keyless(url: str) -> None:
    """Raise ValueError for an address that holds a password or a query, since settings are kept and shown."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("`url` holds a user or a password: put the key into a variable and name it by api_key_env")
    if parts.query:
        raise ValueError("`url` holds a query (`?…`): give the address alone, and a key by api_key_env")


def is_here(url: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
