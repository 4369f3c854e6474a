"""The measures by the names under which they are kept."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.method.columns import ColumnPlan, plan_column
from erasmo_dagster.method.measures import Stability, measure_table, stability_measures, table_measures
from erasmo_dagster.method.quality import METRICS
from erasmo_dagster.settings import DatasetSettings
from tests.conftest import customers

TABLE = {
    *("separation", "separation_error", "separation_p", "gower_silhouette", "gower_silhouette_error"),
    *("tree_accuracy", "tree_accuracy_error", "tree_baseline"),
}


def plans(frame: pl.DataFrame) -> list[ColumnPlan]:
    settings = DatasetSettings.model_validate({"source": {"path": "t.csv"}, "key": "id"})
    return [plan_column(frame[name], name, settings) for name in frame.columns]


def test_every_figure_of_planted_segments_is_known_and_good() -> None:
    frame = customers(90).select("age", "job", "note")
    figures = table_measures(frame, plans(frame), np.arange(90) % 3, seed=0)
    assert set(figures) == TABLE
    assert all(METRICS[name].low <= value <= METRICS[name].high for name, value in figures.items())
    assert figures["separation"] > 0.6
    assert figures["separation_p"] == 1 / 200
    assert figures["gower_silhouette"] > 0.5
    assert figures["gower_silhouette_error"] == 0
    assert figures["tree_accuracy"] == 1
    assert figures["tree_baseline"] == pytest.approx(1 / 3)


def test_segments_at_random_are_told_from_planted_ones() -> None:
    frame = customers(90).select("age", "job", "note")
    figures = table_measures(frame, plans(frame), np.arange(90) // 3 % 3, seed=0)
    assert figures["separation"] < 0.1
    assert figures["separation_p"] > 0.05
    assert figures["gower_silhouette"] < 0.05
    assert figures["tree_accuracy"] < 0.6


@pytest.mark.parametrize("labels", [np.zeros(12, int), np.full(12, -1), np.arange(12)])
def test_what_is_not_defined_is_not_there(labels: np.ndarray) -> None:
    frame = customers(12).select("age", "job")
    assert table_measures(frame, plans(frame), labels, seed=0) == {}


def test_columns_of_which_nothing_can_be_said() -> None:
    frame = pl.DataFrame({"same": [1] * 9, "list": [[1]] * 9})
    # Rows that are all alike have distances, all 0.
    assert set(table_measures(frame, plans(frame), np.arange(9) % 2, seed=0)) <= {
        "gower_silhouette",
        "gower_silhouette_error",
    }


def test_the_figures_are_those_of_what_was_measured() -> None:
    frame = customers(90).select("age", "job", "note")
    measures = measure_table(frame, plans(frame), np.arange(90) % 3, seed=0, permutations=19)
    assert measures.separation is not None
    assert measures.silhouette is not None
    assert measures.explained is not None
    assert [column.column for column in measures.separation.columns] == ["age", "job", "note"]
    assert len(measures.explained.rules) >= 3
    figures = measures.figures()
    assert figures["separation"] == measures.separation.share
    assert figures["gower_silhouette"] == measures.silhouette.value
    assert figures["tree_accuracy"] == measures.explained.accuracy
    # Fewer permutations change the p-value alone.
    assert figures["separation_p"] == 1 / 20
    assert figures == table_measures(frame, plans(frame), np.arange(90) % 3, seed=0) | {"separation_p": 1 / 20}


def test_a_figure_that_is_no_number_is_not_there() -> None:
    frame = customers(12).select("age", "job")
    measures = measure_table(frame, plans(frame), np.arange(12) % 2, seed=0, permutations=9)
    assert measures.separation is not None
    unknown = replace(measures, separation=replace(measures.separation, error=math.nan))
    assert set(measures.figures()) - set(unknown.figures()) == {"separation_error"}


def test_figures_of_stability() -> None:
    found = Stability(0.8, 0.02, 0.7, 0.9, (0.95, 0.4, 0.8), resamples=10, rows=500)
    figures = stability_measures(found)
    assert figures == {
        "stability": 0.8,
        "stability_error": 0.02,
        "stability_split_half": 0.7,
        "stability_seeds": 0.9,
        "stability_worst_segment": 0.4,
    }
    assert set(figures) < set(METRICS)
