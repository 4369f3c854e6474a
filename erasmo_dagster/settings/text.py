"""How a row becomes text."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from erasmo_dagster.settings.adapter import DEFAULT_MODEL, MODEL_PATTERN
from erasmo_dagster.settings.base import Settings, Strings
from erasmo_dagster.settings.naming import check_allowed, check_keyless

# Options of `summarize` that not every `by` has.
_SUMMARIZERS: dict[str, frozenset[str]] = {
    "textrank": frozenset(),
    "base_model": frozenset({"model", "device"}),
    "endpoint": frozenset({"model", "url", "api_key_env", "allow_remote", "timeout"}),
}
_ELSEWHERE = ("url", "api_key_env", "allow_remote", "timeout", "device")  # where a summary is made, and not which


class SummarizeSettings(Settings):
    """Long texts -> summaries of a few sentences, before they are encoded (as in arXiv 2403.15112)."""

    by: Literal["textrank", "base_model", "endpoint"] = Field(
        description="`textrank` keeps the text's own most central sentences; `base_model` (a chat model on this "
        "machine) and an OpenAI-compatible `endpoint` write new ones."
    )
    columns: Strings = Field((), description="Columns to summarize; by default every one of kind `text`.")
    sentences: int = Field(3, ge=1, le=50, description="Sentences of a summary at most.")
    longer_than: int = Field(60, ge=0, description="Words from which on a text is long; others stay as they are.")
    model: str | None = Field(
        None,
        min_length=1,
        description=f"Of `base_model`: `hf:<owner>/<model>`, `path:` or `pypi:`, by default {DEFAULT_MODEL}. "
        "Of `endpoint`: the model that it is asked for.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the `base_model` runs.")
    url: str | None = Field(
        None, pattern=r"^https?://", description="Base address of the endpoint, such as `http://127.0.0.1:11434/v1`."
    )
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the endpoint's key."
    )
    allow_remote: bool = Field(
        False, description="Let the long texts leave this machine; those of `sensitive` columns never do."
    )
    timeout: float = Field(120.0, gt=0, le=3600, description="Seconds that the endpoint may take for an answer.")

    @model_validator(mode="before")
    @classmethod
    def _model_by_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("by") == "base_model" and data.get("model") is None:
            return {**data, "model": DEFAULT_MODEL}
        return data

    @model_validator(mode="after")
    def _options_that_are_heeded(self) -> SummarizeSettings:
        own = _SUMMARIZERS[self.by]
        for option in sorted(frozenset().union(*_SUMMARIZERS.values()) - own):
            # By value: what is kept of a dataset names every option.
            if getattr(self, option) != type(self).model_fields[option].default:
                known = ", ".join(["columns", "sentences", "longer_than", *sorted(own)])
                raise ValueError(f"`by: {self.by}` has no option `{option}`, its options: {known}")
        return self

    @model_validator(mode="after")
    def _complete(self) -> SummarizeSettings:
        if self.by == "base_model" and not (self.model or "").startswith(("hf:", "path:", "pypi:")):
            raise ValueError(f"got model {self.model!r}, expected {MODEL_PATTERN}")
        if self.by == "endpoint" and not (self.url and self.model):
            raise ValueError("`by: endpoint` needs `url` and `model`")
        check_keyless(self.url or "")
        if self.by == "endpoint":
            check_allowed(self.url or "", self.allow_remote)
        return self


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
    summarize: SummarizeSettings | None = Field(
        None, description="Summaries in the place of long texts, before they are encoded. null: texts as they are."
    )

    def deciding(self) -> dict[str, Any]:
        """The settings that the rows' texts depend on, as JSON: all but those of where summaries are made."""
        left_out: dict[str, Any] = {"summarize": True if self.summarize is None else set(_ELSEWHERE)}
        return self.model_dump(mode="json", exclude=left_out)
