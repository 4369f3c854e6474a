"""How texts become vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from erasmo_dagster.settings.base import Settings


class EmbeddingSettings(Settings):
    """Text -> one vector a row (arXiv 2410.03738, section 3.3)."""

    pooling: Literal["mean", "last", "mean_layers"] = Field(
        "mean",
        description="`mean` over the real tokens of one layer, `last` real token of it, "
        "or `mean_layers`: mean over tokens and over all layers.",
    )
    layer: int = Field(
        -1, description="Layer read by `mean` and `last`: -1 the last, 0 the token embeddings, 1 the first block."
    )
    normalize: bool = Field(False, description="Scale every vector to length 1.")
    permutations: int = Field(
        0,
        ge=0,
        le=64,
        description="0 embeds the canonical column order; n averages over n seeded orders, the same for all rows.",
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of a row at most; null takes what the model can. Cut rows are counted and reported.",
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description="Tokens that go through the model at once, padding included. null: what suits the model's device; "
        "fewer where a GPU's memory is too small.",
    )
