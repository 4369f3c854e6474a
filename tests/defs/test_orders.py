"""Whether rows keep their segments when their columns come in another order, and stability through a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from erasmo_dagster.defs import orders
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.defs.orders import order_figures, other_orders, reordered
from erasmo_dagster.defs.resources import WarehouseResource, project_resources
from erasmo_dagster.defs.stages import CODE_VERSIONS, StageRun
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.auto import TableSegments, segment_table
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.report import make_report
from erasmo_dagster.settings import ClusteringSettings, Project, load_dataset
from erasmo_dagster.store.artifacts import state_dir, text_dir
from erasmo_dagster.store.versions import STAGES, stage_output
from erasmo_dagster.store.warehouse import open_warehouse, read_corpus
from tests.conftest import make_project
from tests.defs.lineage import published

ROWS = 60
KMEANS = ClusteringSettings(method="kmeans++", k=3)


def shoppers(rows: int = ROWS) -> pl.DataFrame:
    group = np.arange(rows) % 3
    return pl.DataFrame(
        {
            "id": [f"{i:03d}" for i in range(1, rows + 1)],
            "spent": np.random.default_rng(0).normal(size=rows).round(2) + 10.0 * group,
            "channel": [("web", "shop", "phone")[g] for g in group],
            "weekday": [("monday", "friday", "sunday")[g] for g in group],
            "kind": [f"g{g}" for g in group],
        }
    )


def write(project: Project, frame: pl.DataFrame, more: str = "") -> None:
    frame.write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\nencoder: {name: tfidf, min_df: 1}\n"
        "refresh: {changed_share: 1.0, psi: 100, beyond_rows: 1000}\n"
        f"clustering: {{method: kmeans++, k: 3}}\n{more}"
    )


FLOORS = "gate: {floors: {stability: 0.5, stability_worst_segment: 0.6, stability_orders: 0.99}}\n"
ran: dict[Path, dict[str, Any]] = {}  # what the run's stages told


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose dataset has run once."""
    project = make_project(tmp_path_factory.mktemp("orders"))
    write(project, shoppers(), FLOORS)
    with open_instance(project) as instance:
        ran[project.root] = run_dataset(instance, project, "customers").metadata
    return project


@pytest.fixture
def stage(done: Project) -> StageRun:
    """The run's stage of segments, as its asset has it."""
    with open_warehouse(done.warehouse) as con:
        inputs = {name: stage_output(con, "customers", 1, name) for name in STAGES["segments"]}
    resource = project_resources(done)["warehouse"]
    assert isinstance(resource, WarehouseResource)
    known = {name: output for name, output in inputs.items() if output is not None}
    settings = load_dataset(done, "customers")
    return StageRun("segments", "customers", 1, settings, done, resource, CODE_VERSIONS["segments"], known)


class FirstClause:
    """An encoder that reads no further than the first clause."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        first = [text.split(", ")[0] for text in texts]
        return np.array([[len(text), sum(map(ord, text)) % 97] for text in first], dtype=np.float32)


def no_texts(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.zeros((len(texts), 1), dtype=np.float32)


def in_vectors(stage: StageRun, encoder: Any) -> TableSegments:
    with open_warehouse(stage.project.warehouse) as con:
        clauses = read_corpus(con, "customers", 1)["clauses"].to_list()
    vectors = encoder.encode([", ".join(row) for row in clauses])
    return TableSegments(cluster(vectors, KMEANS, seed=0), vectors)


def in_columns(stage: StageRun, vectors: npt.NDArray[np.float32] | None = None) -> TableSegments:
    plan = FittedState.load(text_dir(stage.project, "customers", 1)).text
    frame = shoppers().drop("id", "kind")
    if vectors is None:
        return segment_table(frame, plan, ClusteringSettings(method="mixture", k=3), seed=0, models_dir=Path())
    space, points = TableSpace.fit(frame, plan.columns, no_texts, vectors=vectors, seed=0)
    return TableSegments(cluster(points, KMEANS, seed=0), points, space)


# The figure


def test_segments_of_columns_know_no_order(stage: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []
    reading = TableSpace.read

    def recording(space: TableSpace, frame: pl.DataFrame, *given: Any, **options: Any) -> np.ndarray:
        read.append(frame.columns)
        assert frame.height == orders.ROWS < ROWS
        return reading(space, frame, *given, **options)

    monkeypatch.setattr(TableSpace, "read", recording)
    monkeypatch.setattr(orders, "open_encoder", None)  # which is not asked
    assert order_figures(stage, in_columns(stage)) == {"stability_orders": 1.0}
    canonical = [column.name for column in FittedState.load(text_dir(stage.project, "customers", 1)).text.columns]
    assert len({tuple(columns) for columns in (*read, canonical)}) == 3
    assert {frozenset(columns) for columns in read} == {frozenset(canonical)}


def test_the_encoder_of_the_run_reads_other_orders(stage: StageRun, done: Project) -> None:
    fitted = FittedState.load(state_dir(done, "customers", 1)).clustering
    assert fitted is not None
    assert fitted.stability["stability_orders"] == 1.0  # tf-idf counts words and knows no order


def test_an_encoder_that_hangs_on_the_first_column(stage: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other orders begin with another column: its rows go anywhere but where they were."""
    opened: list[Any] = []

    def opening(*given: Any) -> FirstClause:
        opened.append(given)
        return FirstClause()

    monkeypatch.setattr(orders, "open_encoder", opening)
    found = in_vectors(stage, FirstClause())
    share = order_figures(stage, found)["stability_orders"]
    assert 0 <= share < 0.7
    assert len(opened) == 1
    assert order_figures(stage, found) == {"stability_orders": share}
    beside = in_columns(stage, vectors=found.points)
    both = order_figures(stage, beside)["stability_orders"]
    assert share <= both <= 1
    assert len(opened) == 3


def test_no_more_rows_are_read_than_the_sample_has(stage: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    class Counting(FirstClause):
        def encode(self, given: Sequence[str]) -> np.ndarray:
            texts.extend(given)
            return super().encode(given)

    monkeypatch.setattr(orders, "ROWS", 7)
    monkeypatch.setattr(orders, "open_encoder", lambda *given: Counting())
    order_figures(stage, in_vectors(stage, FirstClause()))
    assert 2 <= len(texts) <= 2 * 7
    assert not any("kind is" in text or "g1" in text for text in texts)  # the label


@pytest.mark.parametrize("why", ["remote", "registered", "another encoder", "gone"])
def test_no_figure_where_the_encoder_may_not_or_cannot_read(
    stage: StageRun, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Options:
        name = "own" if why == "registered" else "tfidf"
        remote = "https://example.org" if why == "remote" else None

    def opening(*given: Any) -> Any:
        assert why == "gone"
        raise ErasmoError("Got no encoder")

    monkeypatch.setattr(orders, "options_of", lambda *given: Options())
    monkeypatch.setattr(orders, "open_encoder", opening)
    if why == "another encoder":
        monkeypatch.setattr(orders, "encoder_id", lambda *given: "of another")
    found = in_vectors(stage, FirstClause())
    assert order_figures(stage, found) == {}
    assert order_figures(stage, in_columns(stage, vectors=found.points)) == {}
    assert order_figures(stage, in_columns(stage)) == {"stability_orders": 1.0}


def test_one_column_has_no_other_order(stage: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    found = in_columns(stage)
    state = FittedState.load(text_dir(stage.project, "customers", 1))
    narrow = replace(state, text=state.text.model_copy(update={"columns": state.text.columns[:1]}))
    monkeypatch.setattr(FittedState, "load", lambda folder: narrow)
    assert order_figures(stage, found) == {}


# Orders


def test_orders_are_others_and_all_there_are() -> None:
    assert other_orders(["a", "b"], 0) == [["b", "a"]]
    for seed in range(20):
        found = other_orders(["a", "b", "c"], seed)
        assert len({tuple(order) for order in (*found, ["a", "b", "c"])}) == 3
        assert all(sorted(order) == ["a", "b", "c"] for order in found)
        assert found == other_orders(["a", "b", "c"], seed)


def test_clauses_follow_their_labels_and_some_are_missing() -> None:
    clauses = ["age is 4", "is it is is", "is is yes, age is 9"]
    assert reordered(clauses, ["is", "is it", "age"]) == ["is is yes, age is 9", "is it is is", "age is 4"]
    assert reordered(clauses[:1], ["is", "age"]) == clauses[:1]
    assert reordered([], ["age"]) == []


# Through a run


def test_a_run_says_how_stable_its_segments_are(done: Project) -> None:
    told = stable(done, 1)
    names = ("error", "split_half", "seeds", "worst_segment", "orders")
    assert set(told) == {"stability", *(f"stability_{name}" for name in names)}
    assert told["stability"] == pytest.approx(1.0)
    metadata = ran[done.root]["segment_metrics"]
    shown = [record.data for record in metadata["stability_by_segment"].records]
    ids = {segment for (segment,) in published(done, "select distinct segment_id from segments")}
    assert {row["segment"] for row in shown} == ids
    assert min(row["jaccard"] for row in shown) == pytest.approx(told["stability_worst_segment"], abs=1e-3)
    assert {row["reading"] for row in shown} == {"highly stable"}
    assert metadata["reading_of_stability"].startswith("Stable: ")
    assert dict(published(done, "select metric, value from segment_metrics"))["stability"] == told["stability"]
    page = make_report(done, "customers")
    assert page.count("highly stable (1.00)") == 3
    assert "Stable: resampled rows give much the same segments" in page


def test_a_refresh_carries_the_stability_of_its_training(done: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **options: Any) -> Any:
        raise AssertionError("a refresh fits nothing")

    asset = import_module("erasmo_dagster.defs.assets.segments")
    monkeypatch.setattr(asset, "steadiness", refuse)
    monkeypatch.setattr(asset, "order_figures", refuse)
    changed = pl.concat([shoppers(), shoppers(3).with_columns(id=pl.col("id") + "new")])
    write(done, changed, "gate: {floors: {stability: 0.5, stability_orders: 1.01}}\n")
    with (
        open_instance(done) as instance,
        pytest.raises(ErasmoError, match=r"stability_orders is 1 \(gate.floors at least 1.01\)") as blocked,
    ):
        run_dataset(instance, done, "customers")
    assert "stability is" not in str(blocked.value)
    assert stable(done, 2) == stable(done, 1)
    with open_warehouse(done.warehouse) as con:
        assert con.execute("select count(*) from segments where version = 2").fetchall() == [(ROWS + 3,)]


def stable(project: Project, version: int) -> dict[str, float]:
    query = "select metric, value from segment_metrics where version = ? and metric like 'stability%'"
    with open_warehouse(project.warehouse) as con:
        return dict(con.execute(query, [version]).fetchall())
