"""How a row becomes text."""

from __future__ import annotations

from pydantic import Field

from erasmo_dagster.settings.base import Settings


class TextSettings(Settings):
    """Row -> text, "<feature> is <value>" clauses (arXiv 2410.03738, section 3.1)."""

    verbalize: bool = Field(False, description="Numbers in words (ERASMO-NV); false keeps digits (ERASMO base).")
    language: str = Field(
        "en",
        pattern=r"^[a-z]{2}([_-][A-Za-z]{2,3})?$",
        description="Language of the number words, as num2words names it.",
    )
    decimals: int = Field(
        6,
        ge=0,
        le=17,
        description="Significant digits kept of a fractional float; 17 keeps all. Integers and decimals are exact.",
    )
    missing: str | None = Field("missing", description="Word for a missing value; null leaves the clause out.")
