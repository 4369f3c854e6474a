"""A dataset whose YAML says nothing of clustering, from the table to the published file, without a network."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.settings import Project
from tests.defs.lineage import Run, published

ROWS = 45


def visitors() -> pl.DataFrame:
    """Three planted groups, told apart by two numbers that go along with each other, and by a category; no text."""
    rng = np.random.default_rng(0)
    group, along = np.arange(ROWS) % 3, rng.normal(size=ROWS)
    return pl.DataFrame(
        {
            "id": range(ROWS),
            "spent": 50 + 10 * along,
            "visits": 3 * along + 4.0 * group + rng.normal(0, 0.3, ROWS),
            "channel": [("web", "shop", "phone")[g] for g in group],
            "kind": [f"g{g}" for g in group],
        }
    )


def write(project: Project, clustering: str = "") -> None:
    visitors().write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\nencoder: {name: tfidf, min_df: 1}\n"
        f"gate: {{min_segment_size: 2}}\n{clustering}"
    )


@pytest.fixture(autouse=True)
def _without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def test_a_dataset_that_says_nothing_of_clustering_gets_the_best_of_several_ways(project: Project, run: Run) -> None:
    write(project)
    told = run()["segments"]
    assert told["chosen"] in ("columns, mixture", "columns and vectors, mixture", "columns, k-means")
    rows = [record.data for record in told["leaderboard"].records]
    refused = next(row["refused"] for row in rows if "rows as text, k-means" in row.values())
    assert "clustering.text_model" in refused
    reading = str(told["reading"])
    assert "bits" in reading
    assert "nothing to what the columns" in reading or "bits a row to what the columns" in reading
    assert told["k_reason"]
    assert published(project, "select count(distinct segment_id) from segments") == [(3,)]
    assert dict(published(project, "select metric, value from segment_metrics"))["ari"] == 1.0


@pytest.mark.slow
def test_segments_of_the_default_before_are_drawn_anew(project: Project, run: Run) -> None:
    write(project, "clustering: {method: kmeans++}\n")
    assert "leaderboard" not in run()["segments"]
    write(project)
    plan = run()["refresh_plan"]
    assert (plan["decision"], "settings of clustering changed" in plan["reasons"]) == ("retrain", True)
    assert run()["refresh_plan"]["decision"] == "refresh"
