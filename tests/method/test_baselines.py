"""Simple peers: one-hot vectors, and the first paper's procedure."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.baselines import BASELINES, baseline_vectors
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import DatasetSettings

SETTINGS = DatasetSettings.model_validate({"source": {"path": "x.csv"}, "key": "id"})
TABLE = pl.DataFrame(
    {
        "id": range(6),
        "size": [1.0, 2.0, None, 3.0, 4.0, 5.0],
        "day": [date(2020, 1, 1 + i) for i in range(6)],
        "colour": ["red", "blue", "red", None, "green", "blue"],
        "round": [True, False, True, False, None, True],
        "story": [f"{i} a long story about a thing that is told at great length to everybody" for i in range(6)],
    }
)


def vectors(frame: pl.DataFrame, name: str, models: Path, seed: int = 0, **options: Any) -> np.ndarray:
    chosen = BASELINES[name][0].model_validate({"name": name, **options})
    return baseline_vectors(frame, fit_text(frame, SETTINGS), chosen, seed=seed, models_dir=models).vectors


def test_one_hot_by_hand(tmp_path: Path) -> None:
    found = vectors(TABLE, "one-hot", tmp_path)
    # Columns by their number of distinct texts: round, colour, day and size (six each, by name).
    assert (found.shape, found.dtype) == ((6, 2 + 3 + 1 + 1), np.float32)
    blocks = np.split(found, [2, 5, 6], axis=1)
    assert blocks[0].tolist() == [[1, 0], [0, 1], [1, 0], [0, 1], [0, 0], [1, 0]]  # true is the more frequent
    assert blocks[1].sum(axis=1).tolist() == [1, 1, 1, 0, 1, 1]
    for block in blocks[2:]:
        present = block[[0, 1, 3, 4, 5], 0]
        assert abs(block.sum()) < 1e-5
        assert (np.diff(present) > 0).all()
    assert blocks[3][2, 0] == 0
    assert blocks[3][[0, 1, 3, 4, 5], 0].std() == pytest.approx(1, abs=1e-5)


def test_rare_categories_have_no_dimension(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": range(5), "letter": list("aabbc")})
    assert vectors(table, "one-hot", tmp_path, categories=2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]


def test_a_table_of_text_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="without numbers, moments, categories or truth values"):
        vectors(TABLE.select("id", "story"), "one-hot", tmp_path)


@pytest.mark.parametrize("steps", [0, 2])
def test_the_papers_procedure(tiny_model: Path, tmp_path: Path, steps: int) -> None:
    options = {"base_model": f"path:{tiny_model}", "steps": steps, "padded_to": 64, "device": "cpu"}
    frame = pl.concat([TABLE.head(3), TABLE.head(3).with_columns(id=pl.col("id") + 3)])
    found = vectors(frame, "paper", tmp_path, **options)
    assert found.shape == (6, 32)
    assert np.array_equal(found, vectors(frame, "paper", tmp_path, **options))
    assert not np.array_equal(found, vectors(frame, "paper", tmp_path, seed=1, **options))
    # Its fault: rows that are equal have vectors that are not.
    assert not np.allclose(found[0], found[3])
