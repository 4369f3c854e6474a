"""Pieces of work that need each other, as tasks of a Ray cluster: Ray places them and repeats what is lost."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from erasmo_dagster import progress
from erasmo_dagster.distributed.cluster import Cluster, begin_worker, ray_errors
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ExecutionSettings


@dataclass(frozen=True)
class Outcome:
    """What a task gave, or the error that it ended with."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """``work(shared, argument)``, a function of a module, in some worker's process.

    It begins when the tasks ``needs`` and ``behind`` have ended, by name; it has the error of one that it needs. Tasks
    of one ``shared`` object send it once. ``gpu`` says that it computes on one, where workers have any. With a
    ``fault`` it has ended before it began.
    """

    name: str
    work: Callable[[Any, Any], Any]
    shared: Any = None
    argument: Any = None
    needs: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    gpu: bool = False
    fault: Exception | None = None


def run_tasks(tasks: Iterable[Task], cluster: Cluster) -> Generator[tuple[str, Outcome]]:
    """Run ``tasks``, each of which comes after those that it names; the outcome of each by its name, as they end.

    They are asked for one by one, while those before them run. A task whose worker is lost is run again, as often as
    ``execution.max_failures`` says; what fails otherwise is not. Closing the iterator ends what runs still.
    """
    import ray

    with _Run(cluster) as run:
        for task in tasks:
            run.begin(task)
            yield from run.ended()
        while run.under_way:
            ray.wait(list(run.under_way), num_returns=1)
            yield from run.ended()


class _Run:
    """The tasks of one run: outcomes, or references to what they will be, by name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._outcomes: dict[str, Any] = {}
        self._shared: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no other object has the id of one
        self._failed: list[str] = []
        self.under_way: dict[Any, str] = {}

    def __enter__(self) -> _Run:
        import ray
        from ray.util.placement_group import placement_group

        worker, asked = self._cluster.worker, self._cluster.settings.workers
        self._attempt = ray.remote(_attempt)
        self._room = None
        if asked is not None:  # Ray runs as many tasks as there is room for; the room is made as large as asked for
            amounts = {"CPU": worker["num_cpus"], "GPU": worker["num_gpus"], "memory": worker.get("memory", 0)}
            bundle = {name: amount for name, amount in amounts.items() if amount}
            self._room = placement_group([bundle] * self._cluster.workers)
        return self

    def __exit__(self, *_: object) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        for ref in self.under_way:
            ray.cancel(ref, force=True)
        if self._room is not None:
            remove_placement_group(self._room)

    def begin(self, task: Task) -> None:
        """Hand a task over to Ray."""
        import ray

        if task.fault is not None:
            self._outcomes[task.name] = Outcome(error=task.fault)
            self._failed.append(task.name)
            return
        if id(task.shared) not in self._shared:
            self._kept.append(task.shared)
            self._shared[id(task.shared)] = ray.put(task.shared)
        shared, cpus = self._shared[id(task.shared)], self._cluster.worker["num_cpus"]
        before = [self._outcomes[name] for name in (*task.needs, *task.behind)]
        remote = self._attempt.options(**self._options(task))
        ref = remote.remote(cpus, len(task.needs), task.work, shared, task.argument, *before)
        self._outcomes[task.name] = ref
        self.under_way[ref] = task.name

    def ended(self) -> Iterator[tuple[str, Outcome]]:
        """The outcomes that are there by now and were not told yet."""
        import ray

        failed, self._failed = self._failed, []
        for name in failed:
            yield name, self._outcomes[name]
        if self.under_way:
            ready, _ = ray.wait(list(self.under_way), num_returns=len(self.under_way), timeout=0)
            for ref in ready:
                yield self.under_way.pop(ref), _outcome(ref, self._cluster.settings)

    def _options(self, task: Task) -> dict[str, Any]:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options: dict[str, Any] = {**self._cluster.worker, "max_retries": self._cluster.settings.max_failures}
        if not (task.gpu and options["num_gpus"]):
            # torch takes a GPU where it sees one, whoever's it is.
            options |= {"num_gpus": 0, "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
        if self._room is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._room)
        return options


def _attempt(cpus: int, needed: int, work: Callable[[Any, Any], Any], shared: Any, argument: Any, *before: Any) -> Any:
    """What a worker runs. An error is an outcome: Ray is to repeat what was lost with a worker, and nothing else."""
    for outcome in before[:needed]:
        if outcome.error is not None:
            return outcome
    begin_worker(cpus)
    with progress.hidden():
        try:
            return Outcome(work(shared, argument))
        except ErasmoError as error:
            return Outcome(error=error)
        except Exception as error:
            return Outcome(error=_sent(error))


def _sent(error: Exception) -> Exception:
    """The error as it can be sent: with its traceback as a note, which would stay behind."""
    from ray import cloudpickle

    note = "In a worker of Ray:\n" + traceback.format_exc()
    error.add_note(note)
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__} in a worker of Ray")
        error.add_note(note)
    return error


def _outcome(ref: Any, settings: ExecutionSettings) -> Outcome:
    """What a task gave; the loss of its worker, too often, is its error."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        with ray_errors(settings):
            try:
                outcome: Outcome = ray.get(ref)
            except RayTaskError as error:  # such as one that got what another task should have given
                raise error.cause or error from error
    except ErasmoError as error:
        return Outcome(error=error)
    return outcome
