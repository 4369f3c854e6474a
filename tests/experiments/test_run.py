"""A grid runs cell by cell: nothing twice, nothing lost, failures written down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments import results
from erasmo_dagster.experiments import run as running
from erasmo_dagster.experiments.run import load_results, remove_experiment, run_experiment
from erasmo_dagster.experiments.steps import cache_dir
from erasmo_dagster.settings import Project
from tests.defs.lineage import published
from tests.experiments.conftest import TUNING, Grid, customers_of

TFIDF = {"name": "TF-IDF", "encoder": {"name": "tfidf", "min_df": 1}}
ONE_HOT = {"name": "one-hot", "baseline": "one-hot"}
ALGORITHMS = ["kmeans", {"name": "average", "method": "agglomerative", "linkage": "average"}]


def figures(project: Project, name: str = "small") -> pl.DataFrame:
    """What cells found, without what a clock says."""
    order = ("dataset", "variant", "encoder", "algorithm", "k", "seed")
    frame = load_results(project, name).sort(order)
    return frame.drop("finished_at", *(column for column in frame.columns if column.endswith("_seconds")))


def test_a_grid_is_its_product_and_judged(project: Project, grid: Grid, work: Counter[str]) -> None:
    report = grid(encoders=[TFIDF, ONE_HOT], algorithms=ALGORITHMS, k=["label", 2, "auto"], seeds=[0, 1])
    frame = load_results(project, "small")
    # Of agglomerative one seed: it draws nothing at random, and neither do these arms.
    assert report.cells == report.done == frame.height == 2 * 3 * (2 + 1)
    assert frame.group_by("algorithm").len().sort("algorithm").rows() == [("average", 6), ("kmeans", 12)]
    assert set(frame["k"].to_list()) == {3, 2, None}
    assert (frame["status"] == "done").all()
    assert frame.filter(pl.col("k") == 3)["ari"].min() == 1.0
    assert frame["gower_silhouette"].null_count() == 0
    assert frame["embed_seconds"].null_count() == 0
    assert work == {"fit_encoder": 1, "embed_rows": 1, "write_clauses": 1}


def test_a_finished_cell_is_not_run_again_and_a_changed_one_is(
    project: Project, grid: Grid, work: Counter[str]
) -> None:
    grid(encoders=[TFIDF], algorithms=ALGORITHMS)
    before = figures(project)
    work.clear()
    report = grid(encoders=[TFIDF, ONE_HOT], algorithms=ALGORITHMS)
    assert (report.before, report.done, report.dropped) == (2, 2, 0)
    assert work == {}  # the corpus is the same
    assert figures(project).filter(pl.col("encoder") == "TF-IDF").equals(before)
    changed = {"name": "TF-IDF", "encoder": {"name": "tfidf", "min_df": 2}}
    report = grid(encoders=[changed, ONE_HOT], algorithms=ALGORITHMS)
    assert (report.before, report.done, report.dropped) == (2, 2, 2)
    assert work == {"fit_encoder": 1, "embed_rows": 1}
    assert figures(project).height == 4


def test_a_changed_table_is_run_again(project: Project, grid: Grid, data: Path) -> None:
    grid()
    report = grid(datasets=[customers_of(data, rows=45)])
    assert (report.before, report.done, report.dropped) == (0, 1, 1)
    assert figures(project)["rows"].to_list() == [45]


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_an_interrupted_run_goes_on_where_it_was(
    project: Project, grid: Grid, work: Counter[str], monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    cells: dict[str, Any] = {"encoders": [TFIDF, ONE_HOT], "algorithms": ALGORITHMS, "seeds": [0, 1]}
    real, ended = running.write_cell, []

    def interrupted(con: Any, result: Any) -> None:
        if len(ended) == stop_after:
            raise KeyboardInterrupt
        real(con, result)
        ended.append(result.cell)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(running, "write_cell", interrupted)
        grid(**cells)
    assert work == {"fit_encoder": 1, "embed_rows": 1, "write_clauses": 1}
    report = grid(**cells)
    assert (report.before, report.done) == (stop_after, 6 - stop_after)
    assert work == {"fit_encoder": 1, "embed_rows": 1, "write_clauses": 1}
    grid("whole", **cells)
    assert figures(project).drop("experiment").equals(figures(project, "whole").drop("experiment"))


def test_an_interrupted_step_is_done_again(
    project: Project, grid: Grid, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("erasmo_dagster.experiments.steps._write_vectors", stop)
        grid()
    assert grid().done == 1
    assert work == {"fit_encoder": 1, "embed_rows": 2, "write_clauses": 1}


def test_failures_are_results_and_the_rest_goes_on(project: Project, grid: Grid, work: Counter[str]) -> None:
    none = {"name": "no terms", "encoder": {"name": "tfidf", "min_df": 61}}
    report = grid(encoders=[none, TFIDF], algorithms=ALGORITHMS, k=[3, 60])
    frame = load_results(project, "small")
    assert (report.done, report.failed) == (2, 6)
    assert frame.filter(pl.col("encoder") == "no terms")["status"].to_list() == ["failed"] * 4
    assert work["fit_encoder"] == 2  # a step that has failed is not tried again for the next cell
    (reason,) = frame.filter(pl.col("k") == 60, pl.col("encoder") == "TF-IDF")["error"].unique().to_list()
    assert "60 rows" in reason
    assert reason in report.faults
    assert frame.filter(pl.col("status") == "failed")["ari"].is_null().all()
    # Failed cells are tried again.
    assert grid(encoders=[none, TFIDF], algorithms=ALGORITHMS, k=[3, 60]).failed == 6


def test_a_fault_of_ours_is_kept_for_the_end_and_tells_no_values(
    project: Project, grid: Grid, write_grid: Callable[..., Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = results.cluster

    def broken(vectors: Any, settings: Any, *, seed: int) -> Any:
        if settings.method == "kmeans":
            raise ZeroDivisionError("person1@example.org")
        return real(vectors, settings, seed=seed)

    monkeypatch.setattr(results, "cluster", broken)
    report = run_experiment(project, str(write_grid(algorithms=ALGORITHMS)), data=data)
    assert isinstance(report.unexpected, ZeroDivisionError)
    assert (report.done, report.failed) == (1, 1)
    assert report.faults == ("a fault in the program (ZeroDivisionError)",)


@pytest.mark.slow
def test_an_adapter_is_shared_and_transferred(
    project: Project, grid: Grid, data: Path, work: Counter[str], tiny_model: Path
) -> None:
    adapter = {**TUNING, "base_model": f"path:{tiny_model}"}
    arms = [
        {"name": "own", "encoder": "erasmo", "adapter": adapter},
        {"name": "last", "encoder": "erasmo", "adapter": adapter, "embedding": {"pooling": "last"}},
        {"name": "from two", "encoder": "erasmo", "adapter": adapter, "trained_on": "two"},
        {"name": "untuned", "encoder": {"name": "causal-lm", "model": f"path:{tiny_model}", "device": "cpu"}},
    ]
    datasets = [customers_of(data, name="one"), customers_of(data, rows=45, name="two")]
    report = grid(datasets=datasets, encoders=arms, k=3)
    assert (report.done, report.failed) == (8, 0)
    assert work["fit_encoder"] == 2  # one a dataset
    assert work["embed_rows"] == 4 + 3  # on dataset two, its own adapter is the one from two
    frame = load_results(project, "small")
    tuned, untuned = frame.filter(pl.col("encoder") != "untuned"), frame.filter(pl.col("encoder") == "untuned")
    assert tuned["train_tokens"].min() > 0  # type: ignore[operator]
    assert untuned["train_tokens"].is_null().all()
    costs = frame.filter(dataset="two", encoder="own")["train_seconds"][0]
    assert set(frame.filter(encoder="from two")["train_seconds"].to_list()) == {costs}


def test_each_rows_own_order_is_another_embedding(project: Project, grid: Grid, tiny_model: Path) -> None:
    encoder = {"name": "causal-lm", "model": f"path:{tiny_model}", "device": "cpu"}
    arms = [
        {"name": "canonical", "encoder": encoder},
        {"name": "random", "encoder": encoder, "order": "random"},
    ]
    report = grid(encoders=arms, seeds=[0, 1], algorithms=[ALGORITHMS[1]])
    # The canonical order is the same for every seed, a random one is not.
    assert report.done == 1 + 2
    frame = figures(project)
    assert frame["silhouette"].n_unique() == 3


def test_the_seed_decides(project: Project, grid: Grid) -> None:
    grid(seeds=[0, 1])
    grid("again", seeds=[0, 1])
    assert figures(project).drop("experiment").equals(figures(project, "again").drop("experiment"))


def test_full_runs_are_kept_apart(project: Project, grid: Grid, data: Path) -> None:
    small = {**customers_of(data), "rows": 30, "stratify": True}
    fields: dict[str, Any] = {"datasets": [small], "full": {"seeds": [0, 1]}}
    assert grid(**fields).name == "small"
    report = grid(**fields, run_full=True)
    assert (report.name, report.before, report.done) == ("small-full", 0, 2)
    assert load_results(project, "small")["rows"].to_list() == [30]
    assert load_results(project, "small-full")["rows"].to_list() == [60, 60]


def test_a_part_can_be_run_and_drops_nothing(project: Project, grid: Grid) -> None:
    fields: dict[str, Any] = {"encoders": [TFIDF, ONE_HOT], "algorithms": ALGORITHMS}
    grid(**fields)
    report = grid(**fields, k=2, run_only=["one-hot", "average"])
    assert (report.cells, report.done, report.dropped) == (1, 1, 0)
    assert load_results(project, "small").height == 5
    with pytest.raises(ErasmoError, match=r"--only 'nothing', expected one of: TF-IDF, average, customers, kmeans"):
        grid(**fields, run_only=["nothing"])


def test_a_part_replaces_its_own_older_cells(project: Project, grid: Grid) -> None:
    grid(encoders=[TFIDF, ONE_HOT], algorithms=ALGORITHMS)
    changed = {"name": "TF-IDF", "encoder": {"name": "tfidf", "min_df": 2}}
    report = grid(encoders=[changed, ONE_HOT], algorithms=ALGORITHMS, run_only=["TF-IDF", "kmeans"])
    assert (report.done, report.dropped) == (1, 1)
    assert published(project, "SELECT cells FROM leaderboard WHERE encoder = 'TF-IDF'") == [(1,), (1,)]
    assert figures(project).height == 4


def test_an_experiment_can_be_removed_with_all_that_is_kept_for_it(project: Project, grid: Grid) -> None:
    grid("small", encoders=[TFIDF])
    grid("other", encoders=[TFIDF])
    assert remove_experiment(project, "small") == 1
    assert cache_dir(project).is_dir()
    assert published(project, "SELECT DISTINCT experiment FROM experiments") == [("other",)]
    assert remove_experiment(project, "other") == 1
    assert not cache_dir(project).exists()
    with pytest.raises(ErasmoError, match="no results"):
        remove_experiment(project, "other")


def test_an_arm_waits_for_what_it_needs(project: Project, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [TFIDF, {**ONE_HOT, "needs": "SOME_KEY"}]
    assert grid(encoders=arms).cells == 1
    monkeypatch.setenv("SOME_KEY", "secret")
    assert grid(encoders=arms).cells == 2
    monkeypatch.delenv("SOME_KEY")
    assert grid(encoders=arms).dropped == 0
    assert load_results(project, "small").height == 2


def test_the_published_file_has_cells_and_leaderboard(project: Project, grid: Grid) -> None:
    grid(encoders=[TFIDF, ONE_HOT], seeds=[0, 1], k=[3, 60])
    cells = load_results(project, "small")
    rows = published(project, "SELECT cell, ari, silhouette, options FROM experiments ORDER BY cell")
    assert [row[:3] for row in rows] == cells.sort("cell").select("cell", "ari", "silhouette").rows()
    assert json.loads(rows[0][3])["clustering"]["method"] == "kmeans"
    board = published(
        project,
        "SELECT encoder, k, cells, failed, ari, silhouette, rank_by_silhouette, rank_by_ari FROM leaderboard ORDER BY ALL",
    )
    means = cells.group_by("encoder", "k").agg(pl.col("silhouette").mean()).sort("encoder", "k")["silhouette"].to_list()
    ranks = {value: place + 1 for place, value in enumerate(sorted((means[0], means[2]), reverse=True))}
    assert board == [
        ("TF-IDF", 3, 2, 0, 1.0, pytest.approx(means[0]), ranks[means[0]], 1),
        ("TF-IDF", 60, 0, 2, None, None, None, None),
        ("one-hot", 3, 2, 0, 1.0, pytest.approx(means[2]), ranks[means[2]], 1),
        ("one-hot", 60, 0, 2, None, None, None, None),
    ]
    (comment,) = published(project, "SELECT comment FROM duckdb_views() WHERE view_name = 'leaderboard'")
    assert "ranks" in comment[0]


def test_two_runs_at_once_are_refused(project: Project, grid: Grid) -> None:
    with running._alone(project), pytest.raises(ErasmoError, match="another experiment under way"):
        grid()


def test_results_of_nothing(project: Project) -> None:
    with pytest.raises(ErasmoError, match="'none', of which there are no results"):
        load_results(project, "none")
