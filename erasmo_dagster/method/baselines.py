"""Simple peers: vectors of a table's rows without a language model, and the first paper's procedure as published."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.columns import code_of
from erasmo_dagster.method.gower import measured
from erasmo_dagster.method.paper import PADDED_TO, paper_vectors
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import DEFAULT_MODEL, Settings
from erasmo_dagster.settings.adapter import MODEL_PATTERN

Floats = npt.NDArray[np.float32]
_MEASURED, _NAMED = ("number", "datetime"), ("category", "boolean")


@dataclass(frozen=True, eq=False)
class BaselineResult:
    """Vectors float32[rows, d] of a table's rows, in their order, and what they took."""

    vectors: Floats
    train_seconds: float = 0.0
    embed_seconds: float = 0.0
    train_tokens: int = 0
    embed_tokens: int = 0


class BaselineOptions(Settings):
    """What every baseline's options inherit. ``seeded`` says whether its vectors depend on the seed."""

    seeded: ClassVar[bool] = False

    name: str = Field(min_length=1, description="The baseline's name.")

    def deciding(self, models_dir: Path) -> dict[str, Any]:
        """What the vectors depend on; weights are fetched for it. Raises ErasmoError as that does."""
        return self.model_dump(mode="json")


class OneHotOptions(BaselineOptions):
    """Numbers and moments standardised, categories and truth values one-hot; text and nested values are left out."""

    name: Literal["one-hot"] = "one-hot"
    categories: int = Field(30, ge=1, description="Values of a column that get a dimension, the most frequent ones.")


class PaperOptions(BaselineOptions):
    """The procedure of arXiv 2410.03738 as its code runs it; see :mod:`erasmo_dagster.method.paper`."""

    seeded: ClassVar[bool] = True

    name: Literal["paper"] = "paper"
    base_model: str = Field(DEFAULT_MODEL, pattern=MODEL_PATTERN, description="`hf:<owner>/<model>`, `path:`, `pypi:`.")
    steps: int = Field(0, ge=0, description="Optimizer steps of 8 rows each; 0 leaves the model as it is.")
    verbalize: bool = Field(False, description="Numbers in words (NV), those in feature names as well.")
    padded_to: int = Field(PADDED_TO, ge=8, description="Tokens that every row is padded or cut to.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the model runs.")

    def deciding(self, models_dir: Path) -> dict[str, Any]:
        """The options but for the device, and the weights."""
        told = self.model_dump(mode="json", exclude={"device"})
        return told | {"revision": resolve(self.base_model, models_dir).revision}


Baseline = Callable[[pl.DataFrame, TextPlan, Any, int, Path], BaselineResult]


def one_hot(frame: pl.DataFrame, plan: TextPlan, options: OneHotOptions, seed: int, models_dir: Path) -> BaselineResult:
    """One-hot vectors of the rows of ``frame``, by the kinds that ``plan`` gives its columns.

    A missing number is the column's mean; a missing category, or one beyond the ``categories`` most frequent ones, has
    no dimension. Raises ErasmoError where no column is a number, a moment, a category or a truth value.
    """
    started = time.monotonic()
    blocks: list[npt.NDArray[np.float64]] = []
    for column in plan.columns:
        if column.kind in _MEASURED:
            values = measured(frame[column.name]).astype(np.float64)
            present = values[~np.isnan(values)]
            if len(present) and (spread := present.std()) > 0:
                blocks.append(np.nan_to_num((values - present.mean()) / spread)[:, None])
        elif column.kind in _NAMED:
            codes = pl.Series(
                "code", [None if value is None else code_of(value) for value in frame[column.name].to_list()]
            )
            counts = codes.drop_nulls().value_counts(name="rows").sort(["rows", "code"], descending=[True, False])
            kept = counts["code"].head(options.categories).to_list()
            blocks.append(
                np.stack([(codes == value).fill_null(False).to_numpy() for value in kept], axis=1).astype(float)
            )
    if not blocks:
        raise ErasmoError(
            "Got a table without numbers, moments, categories or truth values",
            expected="at least one for the baseline one-hot",
            fix="leave this dataset out by the arm's `datasets`",
        )
    vectors = np.concatenate(blocks, axis=1).astype(np.float32)
    return BaselineResult(vectors, embed_seconds=time.monotonic() - started)


def as_published(
    frame: pl.DataFrame, plan: TextPlan, options: PaperOptions, seed: int, models_dir: Path
) -> BaselineResult:
    """The first paper's vectors, from the columns that have more than one value."""
    result = paper_vectors(
        frame.select([column.name for column in plan.columns]),
        resolve(options.base_model, models_dir),
        steps=options.steps,
        verbalize=options.verbalize,
        seed=seed,
        padded_to=options.padded_to,
        device=options.device,
    )
    return BaselineResult(
        result.vectors, result.train_seconds, result.embed_seconds, result.train_tokens, result.embed_tokens
    )


# Name -> its options and its function (frame, plan, options, seed, models_dir).
BASELINES: dict[str, tuple[type[BaselineOptions], Baseline]] = {
    "one-hot": (OneHotOptions, one_hot),
    "paper": (PaperOptions, as_published),
}


def baseline_vectors(
    frame: pl.DataFrame, plan: TextPlan, options: BaselineOptions, *, seed: int, models_dir: Path
) -> BaselineResult:
    """The vectors of the baseline that ``options`` name, for the rows of ``frame``. Raises ErasmoError as it does."""
    return BASELINES[options.name][1](frame, plan, options, seed, models_dir)
