"""Tasks and experiment grids on a real cluster: the figures of the local engine, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from erasmo_dagster.distributed.cluster import Cluster, attached
from erasmo_dagster.distributed.grids import Outcome, Task, run_tasks
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments import run as running
from erasmo_dagster.experiments.cells import plan_cells, read_tables
from erasmo_dagster.experiments.run import ExperimentReport, load_results, run_experiment
from erasmo_dagster.experiments.settings import load_experiment, with_execution
from erasmo_dagster.experiments.steps import Steps, cache_dir
from erasmo_dagster.experiments.tasks import cell_tasks
from erasmo_dagster.settings import Project
from erasmo_dagster.store.experiments import write_cell
from tests.conftest import make_project
from tests.defs.test_experiments import execute
from tests.distributed import pieces
from tests.distributed.encoders import Gate, install_encoders, is_ended
from tests.distributed.test_training import meanwhile, until
from tests.experiments.conftest import TUNING, customers_of, data, write_grid  # noqa: F401 - fixtures
from tests.ray_cluster import RayNodes

pytestmark = pytest.mark.ray

TFIDF = {"name": "TF-IDF", "encoder": {"name": "tfidf", "min_df": 1}}
ONE_HOT = {"name": "one-hot", "baseline": "one-hot"}
ALGORITHMS = ["kmeans", {"name": "average", "method": "agglomerative", "linkage": "average"}]


def outcomes(tasks: list[Task], nodes: RayNodes, shared: Path, **settings: Any) -> dict[str, Outcome]:
    with attached(nodes.settings(**settings), shared) as cluster:
        return dict(run_tasks(tasks, cluster))


def test_tasks_come_after_what_they_need(nodes: RayNodes, tmp_path: Path) -> None:
    found = outcomes(
        [
            Task("a", pieces.note, tmp_path, "a"),
            Task("mend", pieces.mend, tmp_path, "x"),
            Task("b", pieces.note, tmp_path, "b", needs=("a",), behind=("mend",)),
            Task("bug", pieces.bug, tmp_path, "x"),
            Task("known", pieces.note, tmp_path, "never", fault=ErasmoError("Got nothing")),
            *(
                Task(f"after {name}", pieces.note, tmp_path, "never", needs=(name,))
                for name in ("mend", "bug", "known")
            ),
        ],
        nodes,
        tmp_path,
    )
    assert len(found) == 8
    assert found["b"] == Outcome("b after a")
    for name in ("mend", "after mend"):
        assert isinstance(found[name].error, ErasmoError)
        assert str(found[name].error) == "Got x, expected y: mend it."
    for name in ("bug", "after bug"):
        assert isinstance(found[name].error, ZeroDivisionError)
        assert "pieces.py" in "".join(found[name].error.__notes__)  # type: ignore[union-attr]
    assert str(found["after known"].error) == "Got nothing."
    assert not (tmp_path / "never.note").exists()


def test_no_more_run_at_once_than_there_are_to_be_workers(nodes: RayNodes, tmp_path: Path) -> None:
    tasks = [Task(str(n), pieces.crowd, tmp_path, str(n)) for n in range(6)]
    found = outcomes(tasks, nodes, tmp_path, workers=1)
    assert [found[str(n)].value for n in range(6)] == [1] * 6


def test_a_task_that_ends_its_worker_is_repeated_and_then_told(nodes: RayNodes, tmp_path: Path) -> None:
    tasks = [
        Task("dies", pieces.die, tmp_path, "dies"),
        Task("after", pieces.note, tmp_path, "never", needs=("dies",)),
        Task("behind", pieces.tries, tmp_path, "dies", behind=("dies",)),
        Task("other", pieces.note, tmp_path, "other"),
    ]
    found = outcomes(tasks, nodes, tmp_path, max_failures=1)
    assert found["behind"] == Outcome(2)
    for name in ("dies", "after"):
        assert isinstance(found[name].error, ErasmoError)
        assert "lost more often" in str(found[name].error)
    assert found["other"].value == "other after "


def test_an_interrupt_is_heeded_while_tasks_run(nodes: RayNodes, tmp_path: Path) -> None:
    class InterruptedError(BaseException):
        """What Dagster's handler raises is its own, which Ray drops."""

    def handler(*_: object) -> None:
        raise InterruptedError

    def interrupt() -> None:
        until((tmp_path / "long").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in both]
    try:
        with (
            attached(nodes.settings(), tmp_path) as cluster,
            meanwhile(interrupt),
            pytest.raises(KeyboardInterrupt),
            closing(run_tasks([Task("long", pieces.long, tmp_path, "long")], cluster)) as ended,
        ):
            list(ended)
        assert [signal.getsignal(number) for number in both] == [handler, handler]
    finally:
        for number, was in zip(both, before, strict=True):
            signal.signal(number, was)
    until(lambda: is_ended(int((tmp_path / "long").read_text())))


class Runner:
    """Runs the same grid in a project of its own, here or on the cluster."""

    def __init__(self, write: Callable[..., Path], data: Path, nodes: RayNodes) -> None:  # noqa: F811
        self._write, self._data, self._nodes = write, data, nodes

    def __call__(self, project: Project, *, ray: bool, **fields: Any) -> ExperimentReport:
        execution = {"engine": "ray", "address": self._nodes.address, "max_failures": 2} if ray else None
        return run_experiment(project, str(self._write(execution=execution, **fields)), data=self._data)


@pytest.fixture
def grid(write_grid: Callable[..., Path], data: Path, nodes: RayNodes) -> Runner:  # noqa: F811
    return Runner(write_grid, data, nodes)


def figures(project: Project) -> pl.DataFrame:
    """What cells found, without what a clock says."""
    frame = load_results(project, "small").sort("dataset", "variant", "encoder", "algorithm", "k", "seed")
    return frame.drop("finished_at", *(column for column in frame.columns if column.endswith("_seconds")))


def test_a_grid_on_ray_has_the_figures_of_one_without(
    grid: Runner,
    tmp_path: Path,
    tiny_model: Path,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = f"path:{tiny_model}"
    arms: list[dict[str, Any]] = [
        TFIDF,
        ONE_HOT,
        {"name": "own", "encoder": "erasmo", "adapter": {**TUNING, "base_model": model}},
        {"name": "last", "encoder": "erasmo", "adapter": {**TUNING, "base_model": model}, "embedding": {"pooling": "last"}},
        {"name": "untuned", "encoder": {"name": "causal-lm", "model": model, "device": "cpu"}},
        {"name": "nowhere", "encoder": {"name": "causal-lm", "model": f"path:{tmp_path / 'absent'}", "device": "cpu"}},
        {"name": "no layer", "encoder": {"name": "causal-lm", "model": model, "device": "cpu"}, "embedding": {"layer": 9}},
        {"name": "no terms", "encoder": {"name": "tfidf", "min_df": 61}},
    ]  # fmt: skip
    asked: dict[str, Any] = {"encoders": arms, "algorithms": ALGORITHMS, "k": [3, 60], "datasets": [customers_of(data)]}
    here, there = make_project(tmp_path / "here"), make_project(tmp_path / "ray")
    alone = grid(here, ray=False, **asked)
    texts: list[Path] = []

    def begun(tasks: Iterable[Task], cluster: Cluster) -> Any:
        texts.extend(cache_dir(there).glob("*/corpus.parquet"))
        return run_tasks(tasks, cluster)

    with monkeypatch.context() as patch:
        patch.setattr(running, "_results_here", None)
        patch.setattr(running, "run_tasks", begun)
        together = grid(there, ray=True, **asked)
    assert (
        set(texts) == set(cache_dir(there).glob("*/corpus.parquet")) != set()
    )  # all were written before the first task
    assert alone.failed > 0
    assert (together.done, together.failed) == (alone.done, alone.failed)
    assert sorted(together.faults) == sorted(fault.replace(str(here.home), str(there.home)) for fault in alone.faults)
    expected, found = figures(here), figures(there)
    exact = [name for name, kind in expected.schema.items() if kind != pl.Float64 and name != "error"]
    assert found.select(exact).equals(expected.select(exact))
    for name in (name for name, kind in expected.schema.items() if kind == pl.Float64):
        here_is, there_is = (frame[name].fill_null(float("nan")).to_list() for frame in (expected, found))
        assert there_is == pytest.approx(here_is, rel=1e-4, abs=1e-6, nan_ok=True), name
    # By the other engine nothing is to be done again but what failed.
    again = grid(there, ray=False, **{**asked, "encoders": arms[:5], "k": 3})
    assert (again.before, again.done) == (again.cells, 0)


def test_a_worker_that_is_killed_loses_no_cell(grid: Runner, project: Project, nodes: RayNodes, tmp_path: Path) -> None:
    install_encoders(nodes)
    gate = Gate(tmp_path / "gate")

    def kill() -> None:
        os.kill(gate.waiting(), signal.SIGKILL)
        gate.open()

    arm = {"name": "gated", "encoder": {"name": "gated", "gate": str(gate.folder)}}
    # The word at which the encoder waits comes by the name of a value.
    table = {**customers_of(tmp_path / "data"), "columns": {"job": {"values": {"retired": "wait"}}}}
    with meanwhile(kill):
        report = grid(project, ray=True, encoders=[TFIDF, arm], datasets=[table], algorithms=ALGORITHMS, k=3)
    assert (report.done, report.failed) == (4, 0)
    assert len(list(gate.folder.glob("*.waits"))) >= 1
    assert set(figures(project)["status"].to_list()) == {"done"}


def test_faults_of_ours_are_kept_and_an_interrupted_grid_goes_on(
    grid: Runner, project: Project, nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_encoders(nodes)
    gate = Gate(tmp_path / "gate")
    arm = {"name": "gated", "encoder": {"name": "gated", "gate": str(gate.folder)}}
    table = {**customers_of(tmp_path / "data"), "columns": {"job": {"values": {"retired": "bug"}}}}
    asked: dict[str, Any] = {"encoders": [TFIDF, ONE_HOT, arm], "datasets": [table], "algorithms": ALGORITHMS, "k": 3}
    ended: list[str] = []

    def interrupted(con: Any, result: Any) -> None:
        if len(ended) == 2:
            raise KeyboardInterrupt
        write_cell(con, result)
        ended.append(result.status)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(running, "write_cell", interrupted)
        grid(project, ray=True, **asked)
    report = grid(project, ray=True, **asked)
    assert report.before == ended.count("done")
    assert (report.before + report.done, report.failed) == (4, 2)
    assert isinstance(report.unexpected, ValueError)
    assert report.faults == ("a fault in the program (ValueError)",)


def test_the_job_of_dagster_takes_the_engine_from_its_config(
    write_grid: Callable[..., Path],  # noqa: F811
    data: Path,  # noqa: F811
    project: Project,
    nodes: RayNodes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"experiment": str(write_grid(k=3)), "data": str(data), "engine": "ray", "address": nodes.address}
    with monkeypatch.context() as patch:
        patch.setattr(running, "_results_here", None)
        shown = execute(project, config)
    assert [shown[name] for name in ("done_now", "failed")] == [1, 0]
    assert "attached to, with 3 nodes: 2 workers of 1 CPU" in shown["computed_on"]
    assert "computed_on" not in execute(project, config)  # nothing was left to compute


def test_what_a_model_reads_is_read_on_a_gpu(
    write_grid: Callable[..., Path],  # noqa: F811
    data: Path,  # noqa: F811
    project: Project,
    tiny_model: Path,
) -> None:
    model = f"path:{tiny_model}"
    paper: dict[str, Any] = {"name": "paper", "baseline": "paper", "options": {"base_model": model}}
    arms = [TFIDF, ONE_HOT, paper, {"name": "lm", "encoder": {"name": "causal-lm", "model": model}}]
    tables = [customers_of(data), {**customers_of(data, name="texts"), "columns": {"note": {"kind": "text"}}}]
    file = write_grid(datasets=tables, encoders=arms, algorithms=["kmeans", "auto", "mixture"], k=3)
    _, settings = load_experiment(file, data=data)
    cells = plan_cells(settings, read_tables(settings, project, cache_dir(project), file), project)
    steps = Steps(project, lambda _: None, lambda _: None)
    on_gpu = {task.name: task.gpu for task in cell_tasks("small", False, cells, steps, {})}
    by_model = {cell.embedding.arm.name for cell in cells if on_gpu[cell.embedding.id]}
    assert by_model == {"paper", "lm"}
    read = {(cell.embedding.table.dataset, cell.algorithm.name) for cell in cells if on_gpu[cell.id]}
    assert read == {("customers", "auto"), ("texts", "auto"), ("texts", "mixture")}


def test_what_is_given_comes_before_the_file(write_grid: Callable[..., Path], data: Path) -> None:  # noqa: F811
    file = write_grid(execution={"engine": "ray", "address": "head:6379", "workers": 4})
    _, settings = load_experiment(file, data=data)
    assert settings.execution.workers == 4
    assert with_execution(settings, {"workers": 2, "address": None}).execution.model_dump(exclude_defaults=True) == {
        "engine": "ray", "address": "head:6379", "workers": 2,
    }  # fmt: skip
    assert with_execution(settings, {"engine": "local"}).execution.engine == "local"
    assert with_execution(settings, {}).execution == settings.execution
    with pytest.raises(ErasmoError, match=r"^Got execution\.workers: .*greater than or equal to 1"):
        with_execution(settings, {"workers": 0})
    _, plain = load_experiment(write_grid(execution=None), data=data)
    with pytest.raises(ErasmoError, match=r"^Got execution: .*`execution.workers` is read by the engine ray alone"):
        with_execution(plain, {"workers": 2})
