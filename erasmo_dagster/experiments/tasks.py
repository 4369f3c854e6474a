"""The cells of a grid, and the steps that they share, as tasks of a Ray cluster: one a fitting, an embedding, a cell.

The steps are in the same folders as without Ray, which every node sees. Texts are written by the process of the run:
summaries of long ones go to the warehouse, which has one writer, and what asks an endpoint does so from there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from erasmo_dagster.distributed.grids import Task
from erasmo_dagster.experiments.cells import Cell, Embedding
from erasmo_dagster.experiments.results import Judge, done
from erasmo_dagster.experiments.steps import Steps
from erasmo_dagster.method.baselines import PaperOptions
from erasmo_dagster.settings import LocalModelOptions, Project
from erasmo_dagster.settings.clustering import ON_COLUMNS
from erasmo_dagster.store.experiments import CellResult


@dataclass(frozen=True, eq=False)
class TableCells:
    """The cells of one table, which are sent to workers together with it."""

    experiment: str
    paper: bool
    project: Project
    cells: tuple[Cell, ...]

    @property
    def steps(self) -> Steps:
        """The steps of these cells, in a worker's process."""
        return Steps(self.project, lambda _: None, lambda _: None, [cell.embedding for cell in self.cells])


def done_here(cells: Sequence[Cell], steps: Steps) -> dict[str, Exception]:
    """Do what the process of the run does for ``cells``; the errors of those embeddings that it went wrong for, by id.

    It comes before the first task: while a long text is summarized or an endpoint asked, nobody would write down what
    workers have found, and an interrupt would lose it.
    """
    faults: dict[str, Exception] = {}
    for own in {cell.embedding.id: cell.embedding for cell in cells}.values():
        try:
            if own.fault is not None:
                raise own.fault
            steps.write_corpora(own)
            if own.about is not None and own.settings.encoder.remote is not None:
                steps.vectors(own)
        except Exception as error:
            faults[own.id] = error
    return faults


def cell_tasks(
    experiment: str, paper: bool, cells: Sequence[Cell], steps: Steps, faults: Mapping[str, Exception]
) -> Iterator[Task]:
    """Tasks of ``cells`` by their ids, behind those of the steps that are not done yet, by theirs.

    ``paper`` asks for the first paper's figures; ``faults`` is of :func:`done_here`.
    """
    begun: set[str] = set()
    readings: dict[str, str] = {}  # embeddings of one reading follow each other: the first reads for all
    for _, group in groupby(cells, key=lambda cell: cell.embedding.table):
        shared = TableCells(experiment, paper, steps.project, tuple(group))
        for index, cell in enumerate(shared.cells):
            own = cell.embedding
            if own.id in faults:
                yield Task(cell.id, _segment, fault=faults[own.id])
                continue
            if own.id not in begun and not steps.is_done(own.id):
                yield from _step_tasks(own, shared, index, steps, begun, readings)
            needs = (own.id,) if own.id in begun else ()
            yield Task(cell.id, _segment, shared, index, needs=needs, gpu=_clusters_on_gpu(cell))


def _step_tasks(
    own: Embedding, shared: TableCells, index: int, steps: Steps, begun: set[str], readings: dict[str, str]
) -> Iterator[Task]:
    """The embedding and the fitting that it needs, where that is not done; ``begun`` has those that were asked for."""
    begun.add(own.id)
    if own.learnt is not None and own.learnt not in begun and not steps.is_done(own.learnt):
        begun.add(own.learnt)
        yield Task(own.learnt, _fit, shared, index, gpu=_on_gpu(own))
    needs = (own.learnt,) if own.learnt in begun else ()
    behind = (readings[own.reading],) if own.reading in readings else ()
    if own.reading is not None:
        readings[own.reading] = own.id
    yield Task(own.id, _embed, shared, index, needs=needs, behind=behind, gpu=_on_gpu(own))


def _on_gpu(own: Embedding) -> bool:
    """Whether a model of this machine reads the texts, or is tuned on them."""
    if own.about is None:
        return isinstance(own.arm.peer, PaperOptions)
    return own.settings.encoder.tuned or isinstance(own.settings.encoder, LocalModelOptions)


def _clusters_on_gpu(cell: Cell) -> bool:
    """Whether the clustering has a model read texts: `auto` those of whole rows as well, `mixture` those of columns."""
    method, columns = cell.clustering.method, cell.embedding.table.plan.columns
    return method == "auto" or (method in ON_COLUMNS and any(column.kind == "text" for column in columns))


def _fit(shared: TableCells, index: int) -> None:
    shared.steps.fit(shared.cells[index].embedding)


def _embed(shared: TableCells, index: int) -> None:
    shared.steps.vectors(shared.cells[index].embedding)


def _segment(shared: TableCells, index: int) -> CellResult:
    cell, steps = shared.cells[index], shared.steps
    return done(shared.experiment, cell, steps.vectors(cell.embedding), _judge(shared.paper), steps)


@lru_cache(maxsize=1)
def _judge(paper: bool) -> Judge:
    """One a process: it keeps the distances in the last table."""
    return Judge(paper)
