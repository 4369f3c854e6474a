"""What is told of candidates: their figures, their order, and whether a language model adds anything."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.method import candidates
from erasmo_dagster.method.candidates import (
    HOW_TO_READ,
    Candidate,
    Measured,
    figure_of,
    language_model_says,
    leaderboard_rows,
)
from erasmo_dagster.method.measures import table_measures
from erasmo_dagster.method.peers import ROW_TEXTS
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import DatasetSettings


def told(**bits: float | tuple[float, str] | None) -> list[Candidate]:
    found = []
    for name, given in bits.items():
        own, refused = given if isinstance(given, tuple) else (given, "")
        found.append(Candidate(ROW_TEXTS if name == "row_texts" else name.replace("_", " "), own, 0.2, 0.1, refused))
    return found


def test_what_is_said_of_the_language_model() -> None:
    for alone in ([], told(vectors=1.0), told(columns=1.0), told(vectors=1.0, row_texts=2.0)):
        assert language_model_says(alone) == ""
    assert language_model_says(told(vectors=1.5, columns=1.0)) == (
        "Reading whole rows as text, as language models do, adds 0.5 bits a row to what the columns alone tell."
    )
    nothing = "Reading whole rows as text, as language models do, adds nothing to what the columns alone tell"
    assert language_model_says(told(vectors=1.0, columns=1.25)) == f"{nothing} (0.25 bits a row less)."
    assert language_model_says(told(vectors=1.0, columns=1.0 + 1e-14)) == f"{nothing} (as many bits)."
    assert language_model_says(told(vectors=(9.0, "tiny"), columns_and_vectors=1.0, columns=1.25)).startswith(nothing)
    assert language_model_says(told(vectors=None, columns=1.0)) == ""
    assert " adds 1 bits a row" in language_model_says(told(vectors=(2.0, "tiny"), columns=1.0))
    assert " adds 2 bits a row" in language_model_says(told(vectors=1.0, row_texts=3.0, columns=1.0))


def test_the_leaderboard_ranks_those_that_may_win() -> None:
    rows = leaderboard_rows(told(columns=2.0, vectors=1.0, odd=(3.0, "tiny"), broken=(None, "no luck")), "columns")
    assert [(row["candidate"], row["chosen"], row["rank"]) for row in rows] == [
        ("columns", True, 1),
        ("vectors", False, 2),
        ("odd", False, None),
        ("broken", False, None),
    ]
    assert [row["bits_saved"] for row in rows] == [2.0, 1.0, 3.0, None]
    assert {row["stability"] for row in rows} == {None}
    assert leaderboard_rows([], "") == []


def test_every_figure_of_the_leaderboard_is_explained_in_a_sentence() -> None:
    words = {"bits_saved", "separation", "gower_silhouette", "tree_accuracy", "stability"}
    assert {sentence.partition(":")[0].lower().replace(" ", "_") for sentence in HOW_TO_READ} == words
    assert words < set(leaderboard_rows(told(columns=1.0), "")[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_no_figure(value: float | None) -> None:
    assert figure_of(lambda: value) is None


def people(rows: int = 80) -> tuple[pl.DataFrame, np.ndarray]:
    group = np.arange(rows) % 2
    age = 30.0 * group + np.random.default_rng(0).normal(size=rows)
    words = [f"likes {('tea', 'coffee')[g]} on day {i} and much else beside it" for i, g in enumerate(group)]
    return pl.DataFrame({"age": age, "job": [f"job {i % 3}" for i in range(rows)], "note": words}), group


def test_figures_are_those_of_the_published_measures() -> None:
    frame, group = people()
    plan = fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "none"}))
    found = Measured(frame, plan.columns, 0).figures(group)
    expected = table_measures(frame, plan.columns, group, seed=0)
    assert found == {name: pytest.approx(expected[name]) for name in found}
    assert found["tree_accuracy"] == 1.0
    one = Measured(frame, plan.columns, 0).figures(np.zeros(80, np.int64))
    assert set(one.values()) == {None}
    nothing = Measured(frame.select(note=pl.lit(None, pl.String)), (), 0).figures(group)
    assert set(nothing.values()) == {None}


def test_distances_are_made_once_and_equal_segments_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, group = people()
    plan = fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "none"}))
    made, real, separate = [], candidates.gower_distances, candidates.separation
    monkeypatch.setattr(candidates, "gower_distances", lambda *given: made.append("apart") or real(*given))
    monkeypatch.setattr(candidates, "separation", lambda *a, **b: made.append("separation") or separate(*a, **b))
    measured = Measured(frame, plan.columns, 0)
    for labels in (group, group.copy(), 1 - group):
        measured.figures(labels)
    assert sorted(made) == ["apart", "separation", "separation"]
