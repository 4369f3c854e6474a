"""Runs an experiment cell by cell: what is done is not done again, what fails is written down and the rest goes on."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from erasmo_dagster import progress
from erasmo_dagster.distributed.cluster import Cluster, attached
from erasmo_dagster.distributed.grids import run_tasks
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments.cells import Cell, Embedding, plan_cells, read_tables
from erasmo_dagster.experiments.results import Judge, done, failed
from erasmo_dagster.experiments.settings import ExperimentSettings, find_experiment, load_experiment, with_execution
from erasmo_dagster.experiments.steps import Steps, Vectors, cache_dir
from erasmo_dagster.experiments.tasks import cell_tasks, done_here
from erasmo_dagster.settings import LocalModelOptions, Project, readable_datasets
from erasmo_dagster.settings.clustering import ON_COLUMNS
from erasmo_dagster.store.experiments import (
    CellResult,
    experiment_counts,
    finished_cells,
    forget_cells,
    forget_replaced,
    read_cells,
    write_cell,
)
from erasmo_dagster.store.publish import refresh_marts
from erasmo_dagster.store.targets import send
from erasmo_dagster.store.warehouse import open_warehouse


@dataclass(frozen=True)
class ExperimentReport:
    """How a run ended: cells of the grid, those done before, done now and failed now, and old ones that were dropped.

    ``faults`` has each reason of a failure once. ``unexpected`` is the first failure that is a fault of ours.
    ``cluster`` is what cells were computed on, None for this process.
    """

    name: str
    settings: ExperimentSettings
    cells: int
    before: int
    done: int
    failed: int
    dropped: int
    faults: tuple[str, ...]
    unexpected: Exception | None
    cluster: Cluster | None = None

    @property
    def nothing_done(self) -> bool:
        """Whether every cell has failed."""
        return self.before + self.done == 0


def run_experiment(
    project: Project,
    experiment: str,
    *,
    full: bool = False,
    data: Path | None = None,
    only: Collection[str] = (),
    execution: Mapping[str, Any] | None = None,
) -> ExperimentReport:
    """Run what is not done yet of an experiment, by its file or the name of a ready-made one, and publish the results.

    Every cell is written down as it ends, so that an interrupted run goes on where it was. A cell that fails has its
    reason written down, and is tried again by the next run; one that fails by a fault of ours too, and the report
    holds the first of those. A run of the whole file (no ``only``) drops cells that the file no longer asks for; one of
    a part drops those that its own replace.

    ``execution`` has settings that come before those of the file: where cells are computed, which none is changed by.

    Raises ErasmoError for a file that is not valid, a source that cannot be read, and where another run of an
    experiment is under way; nothing is run then.
    """
    file = find_experiment(experiment)
    name, settings = load_experiment(file, full=full, data=data)
    settings = with_execution(settings, execution or {})
    with _alone(project):
        tables = read_tables(settings, project, cache_dir(project), file)
        cells = plan_cells(settings, tables, project, only)
        with _warehouse(project) as con:
            finished = finished_cells(con, name)
        todo = [cell for cell in cells if cell.id not in finished]
        faults: list[str] = []
        unexpected: list[Exception] = []
        with (
            _Progress(project, todo) as shown,
            _cluster(settings, project, todo) as cluster,
            closing(_results(name, settings, todo, shown, cluster)) as results,
        ):
            for result, error in results:
                with _warehouse(project) as con:
                    write_cell(con, result)
                if result.error is not None:
                    faults.append(result.error)
                if error is not None and not isinstance(error, ErasmoError):
                    unexpected.append(error)
        with _warehouse(project) as con:
            ids = [cell.id for cell in cells]
            if only:
                dropped = forget_replaced(con, name, ids)
            else:
                dropped = forget_cells(con, name, ids, [arm.name for arm in settings.encoders if arm.lacks])
    refresh_marts(project, readable_datasets(project))
    send(project)
    return ExperimentReport(
        name=name,
        settings=settings,
        cells=len(cells),
        before=len(cells) - len(todo),
        done=len(todo) - len(faults),
        failed=len(faults),
        dropped=dropped,
        faults=tuple(dict.fromkeys(faults)),
        unexpected=unexpected[0] if unexpected else None,
        cluster=cluster,
    )


def load_results(project: Project, experiment: str) -> pl.DataFrame:
    """An experiment's cells, one row each, with a column for every figure. Raises ErasmoError where there are none."""
    if project.warehouse.is_file():
        with _warehouse(project) as con:
            frame = read_cells(con, experiment)
        if not frame.is_empty():
            return frame
    raise ErasmoError(
        f"Got experiment {experiment!r}, of which there are no results", fix=f"erasmo experiment run {experiment}"
    )


def remove_experiment(project: Project, experiment: str) -> int:
    """Delete an experiment's cells; their number. The steps are shared by all experiments, and go with the last one.

    Raises ErasmoError where it has no results, or a run is under way.
    """
    load_results(project, experiment)
    with _alone(project), _warehouse(project) as con:
        gone = forget_cells(con, experiment, [])
        if experiment_counts(con).is_empty():
            shutil.rmtree(cache_dir(project), ignore_errors=True)
    refresh_marts(project, readable_datasets(project))
    send(project)
    return gone


def _warehouse(project: Project) -> Any:
    return open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout)


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    """One run at a time: two would do the same steps in the same folders."""
    folder = cache_dir(project)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name("run.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ErasmoError("Got another experiment under way in this project", fix="wait for it to end") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _cluster(settings: ExperimentSettings, project: Project, cells: Sequence[Cell]) -> Iterator[Cluster | None]:
    """The Ray cluster that ``cells`` are computed on; none where that is this process, or there are none."""
    if settings.execution.engine == "local" or not cells:
        yield None
        return
    with attached(settings.execution, project.home) as cluster:
        progress.note(cluster.sentence)
        yield cluster


def _results(
    name: str, settings: ExperimentSettings, cells: Sequence[Cell], shown: _Progress, cluster: Cluster | None
) -> Generator[tuple[CellResult, Exception | None]]:
    """The results of cells as they end, and the error of one that failed."""
    if cluster is None:
        return _results_here(name, settings, cells, shown)
    return _results_on_ray(name, settings, cells, shown, cluster)


def _results_here(
    name: str, settings: ExperimentSettings, cells: Sequence[Cell], shown: _Progress
) -> Generator[tuple[CellResult, Exception | None]]:
    """By this process, in their order."""
    judge = Judge(settings.paper_figures)
    for _, group in groupby(cells, key=lambda cell: cell.embedding.id):
        vectors: Vectors | None = None
        for cell in group:
            error: Exception | None = None
            try:
                vectors = vectors or shown.steps.vectors(cell.embedding)
                shown.now(f"clustering {cell.embedding.table.dataset} by {cell.algorithm.name}")
                result = done(name, cell, vectors, judge, shown.steps)
            except Exception as fault:
                error, result = fault, failed(name, cell, fault)
            yield result, error
            shown.cell_ended(cell)


def _results_on_ray(
    name: str, settings: ExperimentSettings, cells: Sequence[Cell], shown: _Progress, cluster: Cluster
) -> Generator[tuple[CellResult, Exception | None]]:
    """By tasks of a Ray cluster, in no order."""
    by_id = {cell.id: cell for cell in cells}
    tasks = cell_tasks(name, settings.paper_figures, cells, shown.steps, done_here(cells, shown.steps))
    with closing(run_tasks(tasks, cluster)) as ended:
        shown.now("computing on Ray")
        for task, outcome in ended:
            if (cell := by_id.get(task)) is not None:
                error = outcome.error
                yield (failed(name, cell, error) if error else outcome.value), error
                shown.cell_ended(cell)
            elif outcome.error is None:
                shown.step_done(task)
            shown.now("computing on Ray")


class _Progress:
    """One bar over all cells, by the work that they are expected to be; its time to go is the rest of that work."""

    def __init__(self, project: Project, cells: Sequence[Cell]) -> None:
        self.steps = Steps(project, self.now, self.step_done, [cell.embedding for cell in cells])
        self._cells, self._ended = len(cells), 0
        self._steps: dict[str, int] = {}
        for embedding in {cell.embedding.id: cell.embedding for cell in cells}.values():
            for step, work in _work(embedding):
                if not self.steps.is_done(step):
                    self._steps[step] = round(work)
        self._own = {cell.id: _clustering_work(cell) for cell in cells}
        self._left = sum(self._steps.values()) + sum(self._own.values())

    def __enter__(self) -> _Progress:
        self._bar = progress.bar("experiment", self._left, "")
        self._bar.bar_format = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
        self.now("reading")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def now(self, what: str) -> None:
        """Say what is under way."""
        live = self._bar.mininterval < 1  # elsewhere every change would be a line
        self._bar.set_description_str(f"{self._ended} of {self._cells} cells, {what}", refresh=live)

    def step_done(self, step: str) -> None:
        """Count a step that cells share."""
        self._bar.update(self._steps.pop(step, 0))

    def cell_ended(self, cell: Cell) -> None:
        """Count a cell; what a failed one leaves undone is no longer to come."""
        self._ended += 1
        self._bar.update(self._own.pop(cell.id, 0))
        if self._ended == self._cells:
            self.now("all ended")
            self._bar.update(sum(self._steps.values()))
            self._steps.clear()


def _work(embedding: Embedding) -> Iterator[tuple[str, float]]:
    """The steps of an embedding and what each is expected to cost, in tokens of a causal language model.

    Rough: seven tokens a clause; training a token costs five times reading it, a small sentence encoder a third.
    """
    tokens = 7.0 * embedding.table.frame.height * embedding.table.frame.width
    encoder = embedding.settings.encoder
    if (peer := embedding.arm.peer) is not None:
        yield embedding.id, 20 * tokens if peer.seeded else tokens / 100
    elif encoder.tuned:
        trained = embedding.trained_on.frame
        adapter = embedding.trained_with.adapter
        passes = 7.0 * trained.height * trained.width * adapter.epochs
        yield embedding.learnt or "", 5 * min(passes, adapter.max_tokens or passes)
        yield embedding.id, tokens
    else:
        yield embedding.id, tokens * (1 if encoder.name == "causal-lm" else 0.3 if _reads(encoder) else 0.01)


def _reads(encoder: Any) -> bool:
    return isinstance(encoder, LocalModelOptions) or encoder.remote is not None


def _clustering_work(cell: Cell) -> int:
    rows = cell.embedding.table.frame.height
    linear = cell.algorithm.method.startswith("kmeans") or cell.algorithm.method in ON_COLUMNS
    return 50 + (rows // 10 if linear else rows**2 // 10_000)
