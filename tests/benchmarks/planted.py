"""Tables with planted groups, and how the benchmark reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.suite import Drawn, Entry, draw, read_source


def planted(rows: int = 90, *, seed: int = 0) -> pl.DataFrame:
    """Three groups, told apart by numbers and categories; ``kind`` is the label, ``leak`` says it in other words."""
    rng = np.random.default_rng(seed)
    group = np.arange(rows) % 3
    return pl.DataFrame(
        {
            "age": np.array([20.0, 45.0, 70.0])[group] + rng.normal(size=rows),
            "balance": np.array([0.0, 900.0, 100.0])[group] + rng.normal(size=rows) * 10,
            "job": np.array(["student", "manager", "retired"])[group].tolist(),
            "city": rng.choice(["Lima", "Oslo"], rows).tolist(),
            "member": [bool(g == 1) for g in group],
            "kind": np.array(["A", "B", "C"])[group].tolist(),
            "leak": group,
        }
    )


def drawn_of(frame: pl.DataFrame, folder: Path, *, rows: int = 1_000, seed: int = 0, **entry: object) -> Drawn:
    """The sample that a suite with this one table gives."""
    frame.write_parquet(folder / "planted.parquet")
    told = {"name": "planted", "file": "planted.parquet", "label": "kind", "drop": ["leak"], **entry}
    return draw(read_source(Entry.model_validate(told), folder), rows, seed)
