"""Rows of a table as points: the same for any order of columns, alone and among others, now and when read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.parts import CategoryPart, DensePart, NumberPart
from erasmo_dagster.method.tables.space import TableSpace

KINDS = {"age": "number", "since": "datetime", "rooms": "number", "job": "category", "paid": "boolean", "note": "text"}


def plans(values: dict[str, str] | None = None, **kinds: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=name, label=name, kind=kind, values=values or {}, unit=None, verbalize=False, sensitive=False)
        for name, kind in kinds.items()
    ]


def encode(texts: Sequence[str]) -> np.ndarray:
    """A vector for each text, of its own letters alone."""
    seeds = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") for text in texts]
    return np.stack([np.random.default_rng(seed).normal(size=24) for seed in seeds]).astype(np.float32)


def never(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError(f"asked for {texts}")


def table(n: int = 120, seed: int = 0) -> pl.DataFrame:
    """Every kind of column, a tenth of each missing, and rows that lack everything."""
    rng = np.random.default_rng(seed)
    day = datetime(2020, 1, 1)
    columns: dict[str, list[Any]] = {
        "age": rng.normal(40, 12, n).tolist(),
        "since": [day + timedelta(minutes=int(m)) for m in rng.integers(0, 10**6, n)],
        "rooms": rng.integers(1, 6, n).tolist(),
        "job": [f"job {i}" for i in rng.integers(0, 5, n)],
        "paid": (rng.random(n) < 0.4).tolist(),
        "note": [f"text {i}" for i in rng.integers(0, 50, n)],
    }
    for values in columns.values():
        for i in rng.choice(n, n // 10, replace=False):
            values[i] = None
        values[7] = None
    return pl.DataFrame(columns)


def fitted(frame: pl.DataFrame | None = None, **kinds: str) -> tuple[TableSpace, np.ndarray]:
    return TableSpace.fit(table() if frame is None else frame, plans(**(kinds or KINDS)), encode, seed=0)


def test_parts_are_numbers_then_categories_then_texts_each_by_name() -> None:
    space, points = fitted()
    assert [(part.kind, part.column) for part in space.parts] == [
        ("number", "age"),
        ("number", "since"),
        ("category", "job"),
        ("category", "paid"),
        ("category", "rooms"),  # at most a dozen different numbers
        ("dense", "note"),
    ]
    assert points.shape == (120, space.dimensions)
    assert points.dtype == np.float32
    assert space.layout == Layout(2, (5, 2, 5), (24,))
    assert space.layout.width == space.dimensions
    assert [span.stop - span.start for span in space.spans] == [part.width for part in space.parts]
    assert space.spans[2:5] == space.layout.category_spans
    assert space.spans[5:] == space.layout.dense_spans
    assert space.needs_texts
    assert not space.needs_vectors


def test_the_order_of_the_columns_changes_no_bit() -> None:
    frame = table()
    space, points = fitted(frame)
    for order in (sorted(KINDS), sorted(KINDS, reverse=True)):
        other, same = TableSpace.fit(frame.select(order), plans(**{c: KINDS[c] for c in order}), encode, seed=0)
        assert same.tobytes() == points.tobytes()
        assert other.details() == space.details()
        assert other.read(frame.select(order), encode).tobytes() == points.tobytes()


def test_the_order_of_the_rows_changes_points_by_rounding_alone() -> None:
    frame, order = table(), np.random.default_rng(0).permutation(120)
    np.testing.assert_allclose(fitted(frame[order])[1], fitted(frame)[1][order], atol=1e-5)


def test_a_column_that_is_not_planned_is_not_looked_at() -> None:
    frame = table()
    with_label = frame.with_columns(label=pl.Series(range(120)))
    assert fitted(with_label)[1].tobytes() == fitted(frame)[1].tobytes()


def test_what_a_row_lacks_is_zero_and_nothing_else_is() -> None:
    frame = table()
    space, points = fitted(frame)
    for part, span in zip(space.parts, space.spans, strict=True):
        missing = frame[part.column].is_null().to_numpy()
        assert missing.any()
        assert ((points[:, span] == 0).all(axis=1) == missing).all()
    assert not points[7].any()


def test_every_part_is_balanced_by_its_own_variance() -> None:
    frame = table(2000).drop_nulls()
    space, points = fitted(frame)
    variances = [points[:, span].astype(np.float64).var(axis=0).sum() for span in space.spans]
    assert variances[:5] == pytest.approx([1] * 5, rel=1e-4)
    assert 1 < variances[5] <= 24  # as many columns as the components are effectively


def test_a_row_alone_has_the_bits_it_has_in_the_whole_table() -> None:
    frame = table().with_columns(age=pl.Series([*[float("inf")] * 2, -float("inf"), *table()["age"][3:]]))
    space, points = fitted(frame)
    assert space.read(frame, encode).tobytes() == points.tobytes()
    for i in range(0, 120, 7):
        assert space.read(frame[i], encode).tobytes() == points[i].tobytes()
    assert space.read(frame[:0], encode).shape == (0, space.dimensions)


def test_duplicate_rows_are_at_one_point() -> None:
    frame = table(40)
    _, points = fitted(pl.concat([frame] * 3))
    assert points[:40].tobytes() == points[40:80].tobytes() == points[80:].tobytes()


def test_saved_and_read_again_bit_for_bit(tmp_path: Path) -> None:
    frame = table()
    vectors = encode([str(i) for i in range(120)])
    space, points = TableSpace.fit(frame, plans(**KINDS), encode, vectors=vectors, seed=0)
    save_file(space.arrays(), tmp_path / "space.safetensors")
    details = json.loads(json.dumps(space.details(), allow_nan=False))
    again = TableSpace.from_saved(details, load_file(tmp_path / "space.safetensors"))
    assert again.parts[:-2] == space.parts[:-2]
    assert again.read(frame, encode, vectors=vectors).tobytes() == points.tobytes()
    assert again.details() == space.details()
    assert again.layout == space.layout
    assert {name: array.tobytes() for name, array in again.arrays().items()} == {
        name: array.tobytes() for name, array in space.arrays().items()
    }


def test_more_than_ten_parts_keep_their_own_arrays() -> None:
    names = [f"t{i:02}" for i in range(12)]
    frame = pl.DataFrame({name: [f"{name} {i}" for i in range(30)] for name in names})
    space, points = fitted(frame, **dict.fromkeys(names, "text"))
    assert TableSpace.from_saved(space.details(), space.arrays()).read(frame, encode).tobytes() == points.tobytes()


def test_what_is_no_space() -> None:
    with pytest.raises(KeyError):
        TableSpace.from_saved([{"kind": "rope"}], {})
    with pytest.raises(TypeError):
        TableSpace.from_saved([{"kind": "number"}], {})


def test_the_encoder_is_asked_once_for_each_distinct_text() -> None:
    asked: list[list[str]] = []

    def listening(texts: Sequence[str]) -> np.ndarray:
        asked.append(list(texts))
        return encode(texts)

    frame = pl.DataFrame({"note": ["b", " a", "a ", None, "", "b", "c"]})
    space, _ = TableSpace.fit(frame, plans(note="text"), listening, seed=0)
    space.read(frame[:2], listening)
    assert asked == [["a", "b", "c"], ["a", "b"]]
    no_text = {name: kind for name, kind in KINDS.items() if kind != "text"}
    space, _ = TableSpace.fit(table(), plans(**no_text), never, seed=0)
    assert not space.needs_texts
    space.read(table(), never)


def test_later_rows_without_a_text_ask_for_nothing() -> None:
    space, points = fitted()
    later = table().with_columns(note=pl.lit(None))
    read = space.read(later, never)
    assert not read[:, space.spans[-1]].any()
    assert read[:, : space.spans[-1].start].tobytes() == points[:, : space.spans[-1].start].tobytes()


def test_later_rows_that_lack_whole_columns() -> None:
    space, _ = fitted()
    nothing = pl.DataFrame({name: [None, None] for name in KINDS})
    assert not space.read(nothing, never).any()


def test_later_rows_of_other_types_are_the_same_points() -> None:
    frame = table()
    space, points = fitted(frame)
    later = frame.with_columns(
        pl.col("age").cast(pl.String),
        pl.col("since").cast(pl.Datetime("ns")),
        pl.col("rooms").cast(pl.Float32),
        pl.col("job").cast(pl.Categorical),
        pl.col("paid").cast(pl.Int8),
        pl.col("note").cast(pl.Enum(frame["note"].drop_nulls().unique())),
    )
    assert space.read(later, encode).tobytes() == points.tobytes()
    as_text = frame.with_columns(pl.col("since").dt.to_string("%Y-%m-%dT%H:%M:%S"), pl.col("paid").cast(pl.String))
    assert space.read(as_text, encode).tobytes() == points.tobytes()


def test_few_moments_are_values_of_a_category() -> None:
    days = [date(2024, 1, 1), date(2024, 2, 1), None] * 5
    space, points = fitted(pl.DataFrame({"day": days}), day="datetime")
    (part,) = space.parts
    assert isinstance(part, CategoryPart)
    assert part.width == 2
    later = pl.DataFrame({"day": [datetime(2024, 1, 1), datetime(2024, 1, 30), None]})
    assert space.read(later, never).tobytes() == points[[0, 1, 2]].tobytes()
    written = pl.DataFrame({"day": ["2024-01-01", "2024-01-30", "soon"]})
    assert space.read(written, never).tobytes() == points[[0, 1, 2]].tobytes()


def test_a_column_of_moments_in_strings_is_one_of_moments() -> None:
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(20)]
    written, _ = fitted(pl.DataFrame({"day": [str(day) for day in days]}), day="datetime")
    typed, points = fitted(pl.DataFrame({"day": days}), day="datetime")
    assert isinstance(written.parts[0], NumberPart)
    assert written.read(pl.DataFrame({"day": days}), never).tobytes() == points.tobytes()
    assert typed.parts[0] == written.parts[0]


def test_infinities_among_few_numbers() -> None:
    inf = float("inf")
    frame = pl.DataFrame({"x": [0.0, 1.0, inf, -inf, None], "y": [inf, inf, -inf, -inf, 1e999]})
    space, points = fitted(frame, x="number", y="number")
    assert space.layout == Layout(0, (2, 2), ())
    x, y = (points[:, span] != 0 for span in space.spans)
    assert x.tolist() == [[True, False], [False, True], [False, True], [True, False], [False, False]]
    assert y[0].tolist() == y[1].tolist() == y[4].tolist() != y[2].tolist()
    for i in range(5):
        assert space.read(frame[i], never).tobytes() == points[i].tobytes()


def test_truth_values_spelled_in_many_ways() -> None:
    space, points = fitted(pl.DataFrame({"paid": ["yes", "No", "Y", "true", "0", None]}), paid="boolean")
    assert space.dimensions == 2
    assert (points != 0).tolist() == [[True, False], [False, True], [True, False], [True, False], [False, True], [False, False]]  # fmt: skip


def test_coded_numbers_are_categories() -> None:
    frame = pl.DataFrame({"grade": [float(i) for i in range(20)]})
    (part,) = TableSpace.fit(frame, plans({"1": "good"}, grade="number"), never, seed=0)[0].parts
    assert isinstance(part, CategoryPart)
    assert part.levels is None


def test_lists_and_others_with_their_kind_set() -> None:
    frame = pl.DataFrame({"tags": [["a"], ["b"], ["a"], None], "raw": [b"x", b"\xff", b"x", None]})
    space, points = fitted(frame, tags="category", raw="category")
    assert space.dimensions == 4
    assert points[0].tobytes() == points[2].tobytes()
    space, points = fitted(frame, tags="text", raw="text")
    assert points[0].tobytes() == points[2].tobytes() != points[1].tobytes()


def test_columns_that_say_nothing_are_left_out() -> None:
    frame = pl.DataFrame(
        {
            "constant": [1.0] * 20,
            "empty": [None] * 20,
            "one": ["a", None] * 10,
            "same": ["a text"] * 20,
            "nested": [[i] for i in range(20)],
            "x": range(20),
        }
    )
    kinds = {"constant": "number", "empty": "number", "one": "category", "same": "text", "nested": "nested"}
    space, _ = fitted(frame, **kinds, x="number")
    assert [part.column for part in space.parts] == ["x"]
    with pytest.raises(ErasmoError, match=r"^Got no column that tells rows apart by its values: 'constant', 'empty'"):
        fitted(frame, **kinds)
    with pytest.raises(ErasmoError, match="Got no column that tells rows apart"):
        fitted(frame[:0], x="number")


def test_a_nearly_constant_column_counts_as_any_other() -> None:
    frame = pl.DataFrame({"x": [1e9 + i * 1e-6 for i in range(50)], "y": [0.0] * 37 + [1e-300 * i for i in range(13)]})
    _, points = fitted(frame, x="number", y="number")
    assert points[:, 0].std() == pytest.approx(1, rel=1e-3)
    assert np.isfinite(points).all()


def test_rows_have_vectors_of_their_own() -> None:
    frame = table()
    vectors = encode([str(i) for i in range(120)])
    space, points = TableSpace.fit(frame, plans(**KINDS), encode, vectors=vectors, seed=0)
    assert space.needs_vectors
    assert space.layout.dense == (24, 24)
    assert isinstance(space.parts[-1], DensePart)
    assert points[:, :-24].tobytes() == fitted(frame)[1].tobytes()
    assert space.read(frame, encode, vectors=vectors).tobytes() == points.tobytes()
    assert points[7, -24:].any()  # what lacks everything else
    with pytest.raises(ValueError, match="got no vectors"):
        space.read(frame, encode)
    with pytest.raises(ValueError, match="got 119 vectors for 120 rows"):
        space.read(frame, encode, vectors=vectors[1:])
    with pytest.raises(ValueError, match="got 119 vectors for 120 rows"):
        TableSpace.fit(frame, plans(**KINDS), encode, vectors=vectors[1:], seed=0)
    with pytest.raises(ErasmoError, match=r"Got vectors of 20 dimensions for the rows, expected 24"):
        space.read(frame, encode, vectors=vectors[:, :20])
    vectors = vectors.copy()
    vectors[3, 2] = np.nan
    for call in (
        lambda: space.read(frame, encode, vectors=vectors),
        lambda: TableSpace.fit(frame, plans(**KINDS), encode, vectors=vectors, seed=0),
    ):
        with pytest.raises(ErasmoError, match="Got NaN or infinity in the vectors of 1 of 120 rows"):
            call()


def test_vectors_alone_are_enough() -> None:
    vectors = encode([str(i) for i in range(30)])
    frame = pl.DataFrame({"c": [1] * 30})
    space, _ = TableSpace.fit(frame, plans(c="number"), never, vectors=vectors, seed=0)
    assert space.layout == Layout(0, (), (24,))
    with pytest.raises(ErasmoError, match="Got no column"):
        TableSpace.fit(frame, plans(c="number"), never, vectors=vectors[:1].repeat(30, axis=0), seed=0)


def test_what_cannot_be_read() -> None:
    space, _ = fitted()
    with pytest.raises(ErasmoError, match=r"^Got a table without 'job', 'note', expected the columns"):
        space.read(table().drop("job", "note"), encode)
    with pytest.raises(ErasmoError, match=r"^Got vectors of 10 dimensions for 'note', expected 24"):
        space.read(table(), lambda texts: encode(texts)[:, :10])


def test_the_seed_gives_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"note": [f"text {i}" for i in range(700)]})
    vectors = {f"text {i}": row for i, row in enumerate(rng.normal(size=(700, 600)).astype(np.float32))}

    def wide(texts: Sequence[str]) -> np.ndarray:
        return np.stack([vectors[text] for text in texts])

    first, second = (TableSpace.fit(frame, plans(note="text"), wide, seed=4)[1] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_layout_by_hand() -> None:
    layout = Layout(2, [3, 1], [4, 2])  # type: ignore[arg-type]
    assert layout == Layout(2, (3, 1), (4, 2))
    assert layout.width == 12
    assert layout.category_spans == (slice(2, 5), slice(5, 6))
    assert layout.dense_spans == (slice(6, 10), slice(10, 12))
    assert (Layout(0, (), ()).width, Layout(0, (), ()).dense_spans) == (0, ())
