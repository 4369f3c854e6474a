"""Rows a second from a table to texts and their hashes, with digits and in words, beside two ways row by row.

The row-by-row ways are timed on a sample: what a row costs them does not depend on how many there are. be_great
shuffles the columns of a row and tokenizes it at once; here it gets a tokenizer that gives the text back, so that only
its text is timed. It has no words for numbers, and where the package is absent there are no figures of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from hashlib import blake2b
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from erasmo_dagster.defs.sampling import CHUNK
from erasmo_dagster.method import verbalize as numbers_in_words
from erasmo_dagster.method import words
from erasmo_dagster.method.textual import TextPlan, fit_text, text_hashes, write_clauses
from erasmo_dagster.settings import DatasetSettings

ROWS = {"quick": 100_000, "default": 300_000, "full": 1_000_000}
ROUNDS = {"quick": 3, "default": 5, "full": 7}
# Rows of the ways row by row; in words they cost ten times as much.
_LOOPED, _SPOKEN = 5_000, 500
_COLUMNS = 16
_OURS = "ours"

Way = Callable[[], int]  # does its work and gives the number of rows


def measure(data: Path, effort: str, seed: int) -> dict[str, Any]:
    """By table ``rows``, ``columns``, ``rows_per_s`` of this project, of a ``loop`` and of ``be_great``, and ratios.

    ``data`` holds bank.parquet, whose rows are repeated; the other tables are made. Rounds of all ways are interleaved
    and the figures are medians. This project writes as many rows at once as a run does, and what it keeps of words for
    a process is cleared before each of its rounds, so that every one puts all numbers in words anew. ``be_great`` at
    the top is the version that was measured, None where it is absent.
    """
    rows = ROWS[effort]
    bank = pl.read_parquet(data / "bank.parquet").drop("y", strict=False)
    many = pl.concat([bank] * -(-rows // bank.height))[:rows]
    decimals = all_decimals(rows, seed)
    cases = {
        "bank": (many, False),
        "bank_in_words": (many, True),
        "sixteen_columns": (sixteen_columns(rows, seed), False),
        "all_decimals": (decimals, False),
        "all_decimals_in_words": (decimals[: rows // 4], True),
    }
    there = find_spec("be_great") is not None
    measured = {
        name: _measure(frame, _ways(frame, verbalize=verbalize, be_great=there), ROUNDS[effort])
        for name, (frame, verbalize) in cases.items()
    }
    return {"be_great": metadata.version("be-great") if there else None, **measured}


def sixteen_columns(rows: int, seed: int) -> pl.DataFrame:
    """Eight columns of categories, four of whole numbers and four of amounts with two decimals."""
    rng = np.random.default_rng([seed, 1])
    words = pl.Series([f"kind {letter}" for letter in "abcdefghij"])
    return pl.DataFrame(
        {f"category_{i}": words.gather(rng.integers(0, len(words), rows)) for i in range(8)}
        | {f"count_{i}": rng.integers(0, 10 ** (i + 1), rows) for i in range(4)}
        | {f"amount_{i}": np.round(rng.gamma(2.0, 500.0, rows), 2) for i in range(4)}
    )


def all_decimals(rows: int, seed: int) -> pl.DataFrame:
    """Sixteen columns of doubles of which no two are alike: nothing that is written once serves another row."""
    rng = np.random.default_rng([seed, 2])
    return pl.DataFrame({f"x{i}": rng.normal(scale=1_000.0, size=rows) for i in range(_COLUMNS)})


def _ways(frame: pl.DataFrame, *, verbalize: bool, be_great: bool) -> dict[str, Way]:
    settings = {"source": {"path": "-"}, "key": "none", "text": {"verbalize": verbalize}}
    plan = fit_text(frame, DatasetSettings.model_validate(settings))
    sample = frame[: _SPOKEN if verbalize else _LOOPED]
    ways: dict[str, Way] = {
        _OURS: lambda: _in_columns(frame, plan),
        "loop": lambda: _row_by_row(sample, verbalize=verbalize),
    }
    if be_great and not verbalize:
        ways["be_great"] = _be_great(sample)
    return ways


def _measure(frame: pl.DataFrame, ways: dict[str, Way], rounds: int) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if name == _OURS:
                forget_words()
            began = time.perf_counter()
            done = way()
            speeds[name].append(done / (time.perf_counter() - began))
    middle = {name: statistics.median(own) for name, own in speeds.items()}
    return {
        "rows": frame.height,
        "columns": frame.width,
        "rows_per_s": round(middle[_OURS]),
        **{f"{name}_rows_per_s": round(speed) for name, speed in middle.items() if name != _OURS},
        # Of each round its own ratio, since the machine is not as fast in every one.
        **{
            f"vs_{name}": round(statistics.median(np.divide(speeds[_OURS], own).tolist()), 2)
            for name, own in speeds.items()
            if name != _OURS
        },
        "rounds": {name: [round(speed) for speed in own] for name, own in speeds.items()},
    }


def forget_words() -> None:
    """Clear what this project keeps in memory of numbers and their words."""
    for module in (words, numbers_in_words):
        for kept in vars(module).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()


def _in_columns(frame: pl.DataFrame, plan: TextPlan) -> int:
    return sum(len(text_hashes(write_clauses(part, plan))) for part in frame.iter_slices(CHUNK))


def _row_by_row(frame: pl.DataFrame, *, verbalize: bool) -> int:
    from num2words import num2words

    hashes = []
    for row in frame.iter_rows():
        clauses = []
        for name, value in zip(frame.columns, row, strict=True):
            if verbalize and isinstance(value, (int, float)):
                text = num2words(float(f"{value:.6g}") if isinstance(value, float) else value)
            else:
                text = f"{value:.6g}" if isinstance(value, float) else str(value)
            clauses.append(f"{name} is {text}")
        hashes.append(blake2b(", ".join(clauses).encode(), digest_size=16).hexdigest())
    return len(hashes)


def _be_great(frame: pl.DataFrame) -> Way:
    dataset = import_module("be_great.great_dataset").GReaTDataset(frame.to_arrow().cast(_arrow_of(frame)))
    dataset.set_tokenizer(lambda text, padding: text)
    return lambda: len([dataset._getitem(row) for row in range(frame.height)])


def _arrow_of(frame: pl.DataFrame) -> Any:
    import pyarrow as pa

    kinds = {name: pa.string() if dtype == pl.String else None for name, dtype in frame.schema.items()}
    return pa.schema([(field.name, kinds[field.name] or field.type) for field in frame.to_arrow().schema])
