"""Pieces of work that need each other, as tasks of a Ray cluster: Ray places them and repeats what is lost."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from erasmo_dagster import progress
from erasmo_dagster.distributed.cluster import Cluster, begin_worker, ray_errors
from erasmo_dagster.distributed.interrupts import heeding_interrupts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ExecutionSettings

_AT_ONCE = 1000  # tasks that Ray has at a time: every look at them is at all of them


@dataclass(frozen=True)
class Outcome:
    """What a task gave, or the error that it ended with."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """``work(shared, argument)``, a function of a module, in some worker's process.

    It begins when the tasks ``needs`` and ``behind`` have ended, by name, and has the error of one that it needs. Tasks
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

    A task whose worker is lost is run again, as often as ``execution.max_failures`` says; what fails otherwise is not.
    Closing the iterator ends what runs still.
    """
    with _Run(cluster) as run:
        for task in tasks:
            run.add(task)
        while found := run.ended():
            yield from found


class _Run:
    """The tasks of one run. Ray has those that need not wait for others, and no more of them than ``_AT_ONCE``."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._followers: dict[str, list[Task]] = {}  # those that wait for a task, by its name
        self._awaited: dict[str, int] = {}  # how many tasks a task waits for, by its name
        self._ready: deque[Task] = deque()
        self._under_way: dict[Any, str] = {}
        self._over: list[tuple[str, Outcome]] = []  # what was not told yet
        self._errors: dict[str, Exception | None] = {}  # of what is over
        self._shared: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no other object has the id of one

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

        for ref in self._under_way:
            ray.cancel(ref, force=True)
        if self._room is not None:
            remove_placement_group(self._room)

    def add(self, task: Task) -> None:
        """Take a task, after those that it names."""
        names = {*task.needs, *task.behind}
        for name in names:
            self._followers[name].append(task)
        self._followers[task.name] = []
        self._awaited[task.name] = len(names)
        if not names:
            self._ready.append(task)

    def ended(self) -> list[tuple[str, Outcome]]:
        """The outcomes that have come, one of which is waited for; none when all were told."""
        self._begin()
        if self._under_way and not self._over:
            self._wait()
            self._begin()  # now, so that workers need not wait until these outcomes were looked at
        told, self._over = self._over, []
        return told

    def _begin(self) -> None:
        """Hand over to Ray what is ready."""
        while self._ready and len(self._under_way) < _AT_ONCE:
            task = self._ready.popleft()
            error = task.fault or next(filter(None, (self._errors[name] for name in task.needs)), None)
            if error is not None:
                self._end(task.name, Outcome(error=error))
            else:
                self._under_way[self._sent(task)] = task.name

    def _sent(self, task: Task) -> Any:
        """A reference to what Ray will have of it."""
        import ray

        if id(task.shared) not in self._shared:
            self._kept.append(task.shared)
            self._shared[id(task.shared)] = ray.put(task.shared)
        remote = self._attempt.options(**self._options(task))
        return remote.remote(self._cluster.worker["num_cpus"], task.work, self._shared[id(task.shared)], task.argument)

    def _wait(self) -> None:
        import ray

        refs = list(self._under_way)
        with heeding_interrupts():
            ray.wait(refs, num_returns=1)
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in ready:
                self._end(self._under_way.pop(ref), _outcome(ref, self._cluster.settings))

    def _end(self, name: str, outcome: Outcome) -> None:
        self._over.append((name, outcome))
        self._errors[name] = outcome.error
        for task in self._followers.pop(name):
            self._awaited[task.name] -= 1
            if not self._awaited[task.name]:
                self._ready.append(task)

    def _options(self, task: Task) -> dict[str, Any]:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options: dict[str, Any] = {**self._cluster.worker, "max_retries": self._cluster.settings.max_failures}
        if not (task.gpu and options["num_gpus"]):
            # torch takes a GPU where it sees one, whoever's it is.
            options |= {"num_gpus": 0, "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}
        if self._room is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(self._room)
        return options


def _attempt(cpus: int, work: Callable[[Any, Any], Any], shared: Any, argument: Any) -> Outcome:
    """What a worker runs. An error is an outcome: Ray is to repeat what was lost with a worker, and nothing else."""
    begin_worker(cpus)
    with progress.hidden():
        try:
            return Outcome(work(shared, argument))
        except ErasmoError as error:
            return Outcome(error=error)
        except Exception as error:
            return Outcome(error=_portable(error))


def _portable(error: Exception) -> Exception:
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
            except RayTaskError as error:  # such as one whose arguments are lost
                raise error.cause or error from error
    except ErasmoError as error:
        return Outcome(error=error)
    return outcome
