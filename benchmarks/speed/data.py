"""The tables that are measured: Parquet files of a folder, or others of like shape made on the spot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from benchmarks.quality.suite import Entry, Sample, draw, read_source
from erasmo_dagster.errors import ErasmoError

ENTRIES = {
    "bank": Entry(name="bank", file="bank.parquet", label="y", rows=5_000),
    "mushroom": Entry(name="mushroom", file="mushroom.parquet", label="class", rows=8_124),
    "german_credit": Entry(name="german_credit", file="german_credit.parquet", label="class", rows=1_000),
    "clothing": Entry(
        name="clothing",
        file="clothing.parquet",
        label="Department Name",
        drop=("Clothing ID", "Division Name", "Class Name"),
        rows=1_000,
    ),
}
_ROWS = {"bank": 45_211, "mushroom": 8_124, "german_credit": 1_000, "clothing": 2_000}


@dataclass(frozen=True)
class Tables:
    """A folder with the Parquet files of ENTRIES; ``made`` says that they were made and are nobody's data."""

    folder: Path
    made: bool

    def called(self, name: str) -> str:
        """What the results call a table."""
        return f"synthetic-{name}" if self.made else name

    def sample(self, name: str, seed: int, rows: int | None = None) -> Sample:
        """The rows of a table that are measured, drawn by ``seed``: as many as its entry says, or ``rows``.

        Label and dropped columns are left out. Raises ErasmoError for a file that cannot be read.
        """
        entry = ENTRIES[name]
        most = entry.rows or 1_000
        return draw(read_source(entry, self.folder), min(rows or most, most), seed).sample


@contextmanager
def open_tables(folder: Path | None, seed: int) -> Iterator[Tables]:
    """The tables in ``folder``; without one, made ones that are gone afterwards.

    Raises ErasmoError where a file is not there.
    """
    if folder is not None:
        if absent := [entry.file for entry in ENTRIES.values() if not (folder / entry.file).is_file()]:
            raise ErasmoError(
                f"Got --data {folder} without {absent[0]}",
                expected=", ".join(entry.file for entry in ENTRIES.values()),
                fix="leave --data out: tables of like shape are then made",
            )
        yield Tables(folder, made=False)
        return
    with TemporaryDirectory(prefix="erasmo-speed-") as made:
        for name, rows in _ROWS.items():
            make_table(name, rows, seed).write_parquet(Path(made) / ENTRIES[name].file)
        yield Tables(Path(made), made=True)


def make_table(name: str, rows: int, seed: int) -> pl.DataFrame:
    """Rows of a table like ``name``: its columns, as many values in each, texts of as many words; no real data.

    Each row is near one of a few prototypes, so that rows share values as real ones do.
    """
    categories, numbers, texts, prototypes, noise = _SHAPES[name]
    rng = np.random.default_rng([seed, rows, len(categories)])
    near = rng.integers(prototypes, size=rows)
    columns: dict[str, pl.Series] = {}
    for column, values in categories.items():
        named = values if isinstance(values, Sequence) else [chr(97 + i) for i in range(values)]
        weights = 1.0 / np.arange(1, len(named) + 1)
        own = rng.choice(len(named), size=prototypes, p=weights / weights.sum())[near]
        other = rng.choice(len(named), size=rows, p=weights / weights.sum())
        codes = np.where(rng.random(rows) < noise, other, own)
        columns[column] = pl.Series(column, [named[code] for code in codes.tolist()])
    for column, (low, middle, high) in numbers.items():
        if middle == low:  # most rows have the least
            drawn = np.where(rng.random(rows) < 0.8, low, rng.integers(low, high + 1, size=rows))
        else:
            drawn = np.clip(rng.gamma(2.0, (middle - low) / 2.0, size=rows) + low, low, high).astype(np.int64)
        columns[column] = pl.Series(column, drawn.astype(np.int64))
    for column, (fewest, most) in texts.items():
        lengths = rng.integers(fewest, most + 1, size=rows).tolist()
        ranks = 1.0 / np.arange(1, len(_WORDS) + 1)
        drawn = rng.choice(len(_WORDS), size=sum(lengths), p=ranks / ranks.sum())
        words = iter(_WORDS[at] for at in drawn.tolist())
        columns[column] = pl.Series(column, [" ".join(next(words) for _ in range(length)) for length in lengths])
    return pl.DataFrame(columns)


_YES = ("no", "yes")
_MONTHS = ("may", "jul", "aug", "jun", "nov", "apr", "feb", "jan", "oct", "sep", "mar", "dec")
_JOBS = (
    *("blue-collar", "management", "technician", "admin.", "services", "retired"),
    *("self-employed", "entrepreneur", "unemployed", "housemaid", "student", "unknown"),
)
_TEXT = """
the i it is and a this to in of but dress for my was top fit size with that on so very not love color great as have
like at just are be fabric look they wear small perfect too soft quality large comfortable bought sweater jeans shirt
beautiful length would ordered really well waist medium sleeves pretty little nice long short summer style material
because bit through loose when returned black model flattering petite blouse skirt tight pockets pattern sizes usually
casual online store washed thin lovely neckline texture bright oversized
"""
_WORDS = _TEXT.split()
_Categories = Mapping[str, int | Sequence[str]]
_Numbers = Mapping[str, tuple[int, int, int]]  # least, usual, most; the least for most rows where both are the same
# Columns of categories (their values, or how many), of numbers, of texts (words at least and at most), prototypes, and
# the share of cells that are not their prototype's.
_SHAPES: dict[str, tuple[_Categories, _Numbers, Mapping[str, tuple[int, int]], int, float]] = {
    "bank": (
        {
            "job": _JOBS,
            "marital": ("married", "single", "divorced"),
            "education": ("secondary", "tertiary", "primary", "unknown"),
            "default": _YES,
            "housing": _YES,
            "loan": _YES,
            "contact": ("cellular", "unknown", "telephone"),
            "month": _MONTHS,
            "poutcome": ("unknown", "failure", "other", "success"),
            "y": _YES,
        },
        {
            "age": (18, 40, 95),
            "balance": (-800, 1_300, 60_000),
            "day": (1, 15, 31),
            "duration": (1, 250, 3_000),
            "campaign": (1, 1, 40),
            "pdays": (-1, -1, 800),
            "previous": (0, 0, 30),
        },
        {},
        400,
        0.3,
    ),
    "mushroom": (
        {
            **{"cap-shape": 6, "cap-surface": 4, "cap-color": 10, "bruises?": 2, "odor": 9, "gill-attachment": 2},
            **{"gill-spacing": 2, "gill-size": 2, "gill-color": 12, "stalk-shape": 2, "stalk-root": 5},
            **{"stalk-surface-above-ring": 4, "stalk-surface-below-ring": 4, "stalk-color-above-ring": 9},
            **{"stalk-color-below-ring": 9, "veil-type": 1, "veil-color": 4, "ring-number": 3, "ring-type": 5},
            **{"spore-print-color": 9, "population": 6, "habitat": 7, "class": 2},
        },
        {},
        {},
        24,
        0.03,
    ),
    "german_credit": (
        {
            "checking_status": ("no checking", "<0", "0<=X<200", ">=200"),
            "credit_history": ("existing paid", "critical/other existing credit", "delayed previously", "all paid"),
            "purpose": ("radio/tv", "new car", "furniture/equipment", "used car", "business", "education", "repairs"),
            "savings_status": ("<100", "no known savings", "100<=X<500", "500<=X<1000", ">=1000"),
            "employment": ("1<=X<4", ">=7", "4<=X<7", "<1", "unemployed"),
            "personal_status": ("male single", "female div/dep/mar", "male mar/wid", "male div/sep"),
            "other_parties": ("none", "guarantor", "co applicant"),
            "property_magnitude": ("car", "real estate", "life insurance", "no known property"),
            "other_payment_plans": ("none", "bank", "stores"),
            "housing": ("own", "rent", "for free"),
            "job": ("skilled", "unskilled resident", "high qualif/self emp/mgmt", "unemp/unskilled non res"),
            "own_telephone": ("none", "yes"),
            "foreign_worker": ("yes", "no"),
            "class": ("good", "bad"),
        },
        {
            "duration": (4, 20, 72),
            "credit_amount": (250, 3_200, 18_000),
            "installment_commitment": (1, 3, 4),
            "residence_since": (1, 3, 4),
            "age": (19, 35, 75),
            "existing_credits": (1, 1, 4),
            "num_dependents": (1, 1, 2),
        },
        {},
        100,
        0.3,
    ),
    "clothing": (
        {
            "Division Name": ("General", "General Petite", "Initmates"),
            "Department Name": ("Tops", "Dresses", "Bottoms", "Intimate", "Jackets", "Trend"),
            "Class Name": ("Dresses", "Knits", "Blouses", "Sweaters", "Pants", "Jeans", "Jackets", "Skirts"),
        },
        {
            "Clothing ID": (0, 900, 1_205),
            "Age": (18, 43, 99),
            "Rating": (1, 4, 5),
            "Recommended IND": (0, 1, 1),
            "Positive Feedback Count": (0, 0, 122),
        },
        {"Title": (1, 6), "Review Text": (20, 105)},
        100,
        0.3,
    ),
}
