"""Which rows and columns segments are judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.defs.sampling import (
    SAMPLE_ROWS,
    SnapshotTable,
    columns_of,
    planned_columns_of,
    sampled_rows,
    snapshot_chunks,
)
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.store.sources import ENTITY_KEY


def plans(*names: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=name, label=name, kind="number", values={}, unit=None, verbalize=False, sensitive=False)
        for name in names
    ]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "it's [1]" / "snapshot.parquet"
    path.parent.mkdir()
    keys = [str(i) for i in range(1000)]
    pl.DataFrame({ENTITY_KEY: keys, "x": range(1000), "y": [None, 1] * 500, "kind": keys}).write_parquet(path)
    return path


def rows_of(*keys: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"entity_key": list(keys), "segment_id": [0] * len(keys)}, schema_overrides={"entity_key": pl.String}
    )


def test_the_planned_columns_come_in_the_order_of_the_rows(snapshot: Path) -> None:
    order = [str(i) for i in np.random.default_rng(0).permutation(1000)[:300]]
    frame, found = planned_columns_of(rows_of(*order), snapshot, plans("y", "x"), label=None)
    assert frame.columns == ["y", "x"]
    assert [column.name for column in found] == ["y", "x"]
    assert frame["x"].to_list() == [int(key) for key in order]
    assert frame["y"].to_list() == [int(key) % 2 or None for key in order]
    assert frame.equals(columns_of(rows_of(*order), snapshot, ["y", "x"]))


def test_neither_a_label_nor_a_column_that_is_gone_is_read(snapshot: Path) -> None:
    frame, found = planned_columns_of(rows_of("5", "3"), snapshot, plans("x", "gone", "kind"), label="kind")
    assert frame.to_dict(as_series=False) == {"x": [5, 3]}
    assert [column.name for column in found] == ["x"]


def test_a_row_that_the_source_does_not_have_has_no_values(snapshot: Path) -> None:
    frame, _ = planned_columns_of(rows_of("7", "new"), snapshot, plans("x"), label=None)
    assert frame["x"].to_list() == [7, None]


@pytest.mark.parametrize(("keys", "columns"), [((), ("x",)), (("1", "2"), ())])
def test_no_rows_and_no_columns(snapshot: Path, keys: tuple[str, ...], columns: tuple[str, ...]) -> None:
    frame, found = planned_columns_of(rows_of(*keys), snapshot, plans(*columns), label=None)
    assert frame.shape == (len(keys), len(columns))
    assert len(found) == len(columns)


def test_a_table_comes_in_pieces_and_each_column_of_some_rows_by_itself(snapshot: Path) -> None:
    pieces = list(snapshot_chunks(snapshot, 400))
    assert [piece.height for piece in pieces] == [400, 400, 200]
    assert pl.concat(pieces).equals(pl.read_parquet(snapshot, glob=False))
    table = SnapshotTable(rows_of("7", "999", "0"), snapshot)
    assert (table.columns, table.height) == (["x", "y", "kind"], 3)
    assert [table[name].to_list() for name in ("x", "kind")] == [[7, 999, 0], ["7", "999", "0"]]
    with pytest.raises(ValueError, match="2 rows, of which 1"):
        SnapshotTable(rows_of("7", "new"), snapshot)


def test_the_same_seed_and_keys_give_the_same_rows() -> None:
    rows = rows_of(*(str(i) for i in range(SAMPLE_ROWS + 500)))
    mixed = rows[np.random.default_rng(1).permutation(rows.height)]
    drawn = sampled_rows(rows, seed=3)
    assert drawn.height == drawn["entity_key"].n_unique() == SAMPLE_ROWS
    assert drawn["entity_key"].is_sorted()
    assert drawn.equals(sampled_rows(mixed, seed=3))
    assert not drawn.equals(sampled_rows(rows, seed=4))
    assert sampled_rows(rows, 3, most=10).height == 10
    assert sampled_rows(mixed, 3, most=10_000).equals(rows.sort("entity_key"))
