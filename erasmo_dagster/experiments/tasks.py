"""The cells of a grid, and the steps that they share, as tasks of a Ray cluster: one a fitting, an embedding, a cell.

The steps are in the same folders as without Ray, which every node sees. Texts are written by the process of the run:
summaries of long ones go to the warehouse, which has one writer, and what asks an endpoint does so from there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from erasmo_dagster.distributed.grids import Task
from erasmo_dagster.experiments.cells import Cell, Embedding
from erasmo_dagster.experiments.results import Judge, done
from erasmo_dagster.experiments.steps import Steps
from erasmo_dagster.settings import LocalModelOptions, Project
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


def cell_tasks(experiment: str, paper: bool, cells: Sequence[Cell], steps: Steps) -> Iterator[Task]:
    """Tasks of ``cells`` by their ids, behind those of the steps that are not done yet, by theirs.

    ``paper`` asks for the first paper's figures. Texts are written when the tasks that read them are asked for.
    """
    begun: set[str] = set()
    readings: dict[str, str] = {}  # embeddings of one reading follow each other: the first reads for all
    for _, group in groupby(cells, key=lambda cell: cell.embedding.table):
        shared = TableCells(experiment, paper, steps.project, tuple(group))
        for index, cell in enumerate(shared.cells):
            own = cell.embedding
            if own.id not in begun:
                yield from _step_tasks(own, shared, index, steps, begun, readings)
            yield Task(cell.id, _segment, shared, index, needs=(own.id,) if own.id in begun else ())


def _step_tasks(
    own: Embedding, shared: TableCells, index: int, steps: Steps, begun: set[str], readings: dict[str, str]
) -> Iterator[Task]:
    """The embedding and the fitting that it needs, where they are not done; ``begun`` has those that were asked for."""
    fault = own.fault or _done_here(own, steps)
    if fault is None and steps.is_done(own.id):
        return
    begun.add(own.id)
    if fault is not None:
        yield Task(own.id, _embed, fault=fault)
        return
    if own.learnt is not None and own.learnt not in begun and not steps.is_done(own.learnt):
        begun.add(own.learnt)
        yield Task(own.learnt, _fit, shared, index, gpu=_on_gpu(own))
    needs = (own.learnt,) if own.learnt in begun else ()
    behind = (readings[own.reading],) if own.reading in readings else ()
    if own.reading is not None:
        readings[own.reading] = own.id
    yield Task(own.id, _embed, shared, index, needs=needs, behind=behind, gpu=_on_gpu(own))


def _done_here(own: Embedding, steps: Steps) -> Exception | None:
    """Do what the process of the run does; what went wrong."""
    try:
        steps.write_corpora(own)
        if own.about is not None and own.settings.encoder.remote is not None:
            steps.vectors(own)
    except Exception as error:
        return error
    return None


def _on_gpu(own: Embedding) -> bool:
    encoder = own.settings.encoder
    return own.about is not None and (encoder.tuned or isinstance(encoder, LocalModelOptions))


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
