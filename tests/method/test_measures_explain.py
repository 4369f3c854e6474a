"""A small tree that tells segments apart: how well on rows it has not seen, and what it says."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.measures import Explained, explain


def plans(sensitive: tuple[str, ...] = (), **kinds: str) -> list[ColumnPlan]:
    return [
        ColumnPlan(name=n, label=n.replace("_", " "), kind=k, values={}, unit=None, verbalize=False, sensitive=n in sensitive)  # type: ignore[arg-type]
        for n, k in kinds.items()
    ]  # fmt: skip


def told(table: dict[str, Any], labels: Any, sensitive: tuple[str, ...] = (), depth: int = 4, seed: int = 0, **kinds: str) -> Explained:  # fmt: skip
    found = explain(pl.DataFrame(table), plans(sensitive, **kinds), np.asarray(labels), seed=seed, depth=depth)
    assert found is not None
    return found


def people(rows: int = 240) -> tuple[dict[str, Any], np.ndarray]:
    """Segment 2 is above 41 and a technician; 0 is younger; 5 is the rest."""
    rng = np.random.default_rng(0)
    age = rng.permutation(np.arange(rows) % 60 + 12)
    job = rng.choice(["technician", "student"], rows)
    labels = np.where(age <= 41, 0, np.where(job == "technician", 2, 5))
    return {"age": age, "job": job, "luck": rng.normal(size=rows)}, labels


def test_planted_segments_and_their_rules() -> None:
    table, labels = people()
    found = told(table, labels, age="number", job="category", luck="number")
    assert found.accuracy > 0.97
    assert found.error < 0.02
    assert found.baseline == 0.5
    assert found.rows == 240
    assert found.depth == 2
    counts = {segment: int((labels == segment).sum()) for segment in (0, 2, 5)}
    assert found.rules[0] == "segment 0: age is at most 41 (100 %, 120 rows)"
    assert set(found.rules[1:]) == {
        f"segment 2: age is above 41 and job is technician (100 %, {counts[2]} rows)",
        f"segment 5: age is above 41 and job is student (100 %, {counts[5]} rows)",
    }


def test_segments_that_have_nothing_to_do_with_the_columns() -> None:
    table, _ = people()
    labels = np.random.default_rng(1).permutation(np.arange(240) % 3)
    found = told(table, labels, age="number", job="category", luck="number")
    assert abs(found.accuracy - 1 / 3) < 0.1
    assert found.baseline == pytest.approx(1 / 3)
    assert 0 < found.error < 0.1


def test_every_leaf_has_a_line_and_every_row_a_leaf() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 500)
    x = np.where(rng.random(500) < 0.2, np.nan, rng.normal(labels))
    names = np.array([None, *"abcdefgh"])[(labels + rng.integers(0, 5, 500)) % 9]
    notes = [f"about topic{s if rng.random() < 0.7 else 9}" for s in labels]
    found = told({"x": x, "c": names, "note": notes}, labels, x="number", c="category", note="text")
    assert 2 <= len(found.rules) <= 8
    rows = [int(m[1]) for rule in found.rules if (m := re.search(r"(\d+) rows?\)$", rule))]
    assert sum(rows) == 500
    assert rows == sorted(rows, reverse=True)


def test_depth_and_leaves_are_bounded() -> None:
    table, labels = people()
    flat, deep = (told(table, labels, depth=depth, age="number", job="category", luck="number") for depth in (1, 2))
    assert (flat.depth, len(flat.rules)) == (1, 2)
    assert flat.accuracy < 0.8 < deep.accuracy
    steps = np.random.default_rng(3).permutation(256)
    assert len(told({"x": steps}, steps // 8 % 2, depth=8, x="number").rules) == 4  # two a segment


def test_missing_values_tell_of_segments() -> None:
    labels = np.arange(60) % 2
    found = told({"x": np.where(labels == 0, np.nan, np.arange(60))}, labels, x="number")
    assert found.accuracy == 1
    assert set(found.rules) == {"segment 0: x is missing (100 %, 30 rows)", "segment 1: x is not missing (100 %, 30 rows)"}  # fmt: skip
    named = told({"c": [None if s else "ab"[i % 4 // 2] for i, s in enumerate(labels)]}, labels, c="category")
    assert named.accuracy == 1
    assert "segment 1: c is missing (100 %, 30 rows)" in named.rules


def test_moments_infinities_and_numbers_beyond_32_bits() -> None:
    labels = np.arange(40) % 2
    since = [datetime(2024, 1, 1, 12) + timedelta(seconds=int(s)) for s in labels]
    wide = np.where(labels == 0, -1e308, np.where(np.arange(40) % 4 == 1, 1e308, np.inf))
    near = 1e15 + labels
    for values, kind in ((since, "datetime"), (wide, "number"), (near, "number")):
        found = told({"x": values}, labels, x=kind)
        assert found.accuracy == 1, kind
        assert sum(int(re.search(r"(\d+) rows?\)$", rule)[1]) for rule in found.rules) == 40  # type: ignore[index]


def test_words_tell_of_segments() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(90) % 3
    fillers = ["was", "the", "very", "house", "river", "stone"]
    notes = [" ".join(rng.permutation([*rng.choice(fillers, 5), ("refund", "praise", "delay")[s]])) for s in labels]
    found = told({"my_note": notes}, labels, my_note="text")
    assert found.accuracy == 1
    assert any("my note mentions “" in rule for rule in found.rules)


def test_words_are_chosen_without_the_rows_that_are_judged() -> None:
    """Among thousands of words some fit any labels; chosen by all rows they would tell of rows not seen."""
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.arange(80) % 2)
    notes = [" ".join(f"word{w}" for w in np.flatnonzero(rng.random(3000) < 0.3)) for _ in range(80)]
    assert told({"note": notes}, labels, note="text").accuracy < 0.68


# Sensitive columns


def test_sensitive_columns_count_and_are_in_no_rule() -> None:
    table, labels = people()
    kinds = {"age": "number", "job": "category", "luck": "number"}
    found = told(table, labels, sensitive=("age",), **kinds)
    assert found.accuracy > 0.97
    assert found.rules
    assert not any("age" in rule for rule in found.rules)
    assert told(table, labels, sensitive=("age", "job", "luck"), **kinds).rules == ()


# Edges


def test_noise_is_left_out() -> None:
    table, labels = people()
    noisy = np.where(np.arange(240) < 40, -1, labels)
    found = told(table, noisy, age="number", job="category")
    rest = told({name: values[40:] for name, values in table.items()}, labels[40:], age="number", job="category")
    assert (found.rows, found.baseline) == (rest.rows, rest.baseline) == (200, (labels[40:] == 0).mean())
    assert sorted(found.rules) == sorted(rest.rules)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, -1, -1], [0, 0, -1, -1], [0, 1, -1, -1]])
def test_no_segments_to_tell_apart(labels: list[int]) -> None:
    assert explain(pl.DataFrame({"x": [1, 2, 3, 4]}), plans(x="number"), np.array(labels), seed=0) is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1] * 4, "number"), ([[1], [2], [3], [4]], "nested"), (["a b", "c d", "e f", None], "text"), (["x"] * 4, "text")],
)
def test_no_column_that_varies(values: list[Any], kind: str) -> None:
    assert explain(pl.DataFrame({"x": values}), plans(x=kind), np.array([0, 0, 1, 1]), seed=0) is None


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 2, 3]])
def test_tiny_tables(labels: list[int]) -> None:
    table = {"x": np.array(labels) * 2.0, "c": [None, *"aabbb"[: len(labels) - 1]], "t": ["one word"] * len(labels)}
    found = told(table, labels, x="number", c="category", t="text")
    assert 0 <= found.accuracy <= 1
    assert found.rows == len(labels)
    assert found.baseline == np.bincount(labels).max() / len(labels)


def test_a_value_that_only_a_fold_has() -> None:
    x = np.full(30, np.nan)
    x[3] = 1.0
    found = told({"x": x, "y": np.arange(30) % 2}, np.arange(30) % 2, x="number", y="number")
    assert found.accuracy == 1


def test_more_values_than_questions() -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(2000) % 2
    names = np.where(labels == 0, "home", rng.integers(0, 200, 2000).astype(str))
    found = told({"c": names}, labels, c="category")
    assert found.accuracy == 1
    assert "segment 0: c is home (100 %, 1000 rows)" in found.rules


def test_the_same_seed_gives_the_same_tree() -> None:
    rng = np.random.default_rng(7)
    frame = pl.DataFrame({"x": rng.normal(size=300), "y": rng.normal(size=300)})
    labels = rng.integers(0, 3, 300)
    runs = [explain(frame, plans(x="number", y="number"), labels, seed=s, max_rows=150) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_labels_of_other_rows_and_settings_out_of_bounds() -> None:
    frame = pl.DataFrame({"x": [1, 2]})
    with pytest.raises(ValueError, match="for 2 rows"):
        explain(frame, plans(x="number"), np.array([0, 1, 1]), seed=0)
    for settings in ({"folds": 1}, {"depth": 0}):
        with pytest.raises(ValueError, match="expected at least 2 and 1"):
            explain(frame, plans(x="number"), np.array([0, 1]), seed=0, **settings)


def test_a_million_rows() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 1_000_000)
    frame = pl.DataFrame({"x": labels * 2.5, "c": pl.Series(labels).cast(pl.String)})
    found = explain(frame, plans(x="number", c="category"), labels, seed=0, max_rows=3_000)
    assert found is not None
    assert (found.accuracy, found.rows) == (1, 3_000)
