"""A Ray cluster for the time of a stage: attached to, or started on this machine and ended again."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import site
import socket
import sysconfig
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import erasmo_dagster
from erasmo_dagster.distributed.preflight import check_nodes
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ExecutionSettings, expand

_MIB = 2**20
_SECONDS = 30.0  # for the head to answer
_LOOPBACK = re.compile(r"127\.|localhost:|\[::1\]")
# Where models and their caches are looked for; workers that are on other machines than the driver have it from here.
_PASSED_ON = ("HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM")


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is attached to, and what of it the settings ask for.

    ``workers`` is how many are to be used, ``worker`` what each of them takes, as Ray's options (num_cpus, num_gpus,
    memory). ``started`` says that it ends with the stage. ``dashboard`` is a URL, None where there is none.
    """

    nodes: int
    workers: int
    worker: Mapping[str, Any]
    started: bool
    dashboard: str | None
    settings: ExecutionSettings

    @property
    def sentence(self) -> str:
        """What it is, for a log."""
        count = f"{self.workers} worker{'s' if self.workers > 1 else ''} of {_amounts(self.worker)}"
        nodes = f"{self.nodes} node{'s' if self.nodes > 1 else ''}"
        made = "started on this machine" if self.started else f"attached to, with {nodes}"
        return f"Ray cluster {made}: {count}" + (f"; dashboard {self.dashboard}" if self.dashboard else "")


@contextmanager
def attached(settings: ExecutionSettings, shared: Path) -> Iterator[Cluster]:
    """Be attached to the cluster that ``settings`` name; ``shared`` is a folder that each of its nodes must see.

    What was started ends with the block, whatever ends it; of a cluster that was there before, this process's work
    ends. A process that is attached already stays so. Raises ErasmoError where ray is not installed, the cluster
    cannot be reached, has no room for one worker, or a node lacks something; errors of Ray within the block are raised
    as :func:`ray_errors` does.
    """
    connection, cluster = connect(settings, shared)
    try:
        with ray_errors(settings):
            yield cluster
    finally:
        disconnect(connection)


def connect(settings: ExecutionSettings, shared: Path) -> tuple[Any, Cluster]:
    """Attach this process, as :func:`attached` does; what :func:`disconnect` takes, and the cluster."""
    ray = import_ray()
    connection = None if ray.is_initialized() else _init(ray, settings)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        worker = _worker(settings, nodes)
        workers = _room(settings, nodes, worker)
        check_nodes(nodes, worker["num_cpus"], shared)
    except BaseException:
        disconnect(connection)
        raise
    started = connection is not None and settings.address is None
    url = getattr(connection, "dashboard_url", None)
    dashboard = f"http://{url}" if url and "://" not in url else url
    return connection, Cluster(len(nodes), workers, worker, started, dashboard or None, settings)


def disconnect(connection: Any) -> None:
    """End what :func:`connect` began; None, for a process that was attached before, is left alone."""
    if connection is not None:
        connection.disconnect()


def import_ray() -> Any:
    """The module ray, which sends no usage statistics. Raises ErasmoError where it is not installed."""
    # Read by Ray when it starts; never by a cluster that runs already.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with installed():
        import ray
    return ray


@contextmanager
def installed() -> Iterator[None]:
    """Say in one line which package of the extra ray an import did not find."""
    try:
        yield
    except ImportError as error:
        raise ErasmoError(
            f"Got `engine: ray`, and {error.name or 'ray'} is not installed",
            expected="the packages of the extra ray",
            fix="pip install 'erasmo-dagster[ray]', or set `engine: local`",
        ) from error


def begin_worker(cpus: int) -> None:
    """Called first in a worker's process: as many threads as it has cores, and no word but its errors."""
    from erasmo_dagster.method.quiet import quiet_libraries

    quiet_libraries()
    import torch

    torch.set_num_threads(cpus)


@contextmanager
def ray_errors(settings: ExecutionSettings) -> Iterator[None]:
    """Raise a worker's ErasmoError as it was, and the loss of workers or of the cluster as one; other errors pass."""
    from ray import exceptions as lost

    try:
        yield
    except lost.RayTaskError as error:
        if isinstance(cause := getattr(error, "cause", None), ErasmoError):
            raise cause from None
        raise
    except (lost.RayActorError, lost.WorkerCrashedError, lost.OutOfMemoryError, lost.NodeDiedError) as error:
        if getattr(error, "actor_init_failed", False):
            raise
        raise ErasmoError(
            f"Got a worker of Ray lost more often than it may be ({_first_line(error)})",
            expected=f"at most {settings.max_failures} losses, as `execution.max_failures` says",
            fix="see Ray's dashboard or logs for the reason, mostly memory: take fewer `workers`, or set `memory_mb`; "
            "run again to go on from there",
        ) from error
    except (lost.ObjectLostError, lost.RaySystemError, lost.RpcError) as error:
        raise ErasmoError(
            f"Got the connection to Ray lost ({_first_line(error)})",
            expected="a cluster that stays up while a stage computes",
            fix="see whether its head still runs; run again to go on from there",
        ) from error


def _init(ray: Any, settings: ExecutionSettings) -> Any:
    """Start a cluster on this machine, or attach to one."""
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": _environment(settings)},
        "logging_level": logging.ERROR,
        "log_to_driver": False,
    }
    if settings.address is None:
        options |= {
            "address": "local",
            "include_dashboard": settings.dashboard,
            "dashboard_host": "127.0.0.1",
        }
        if settings.object_store_mb is not None:
            options["object_store_memory"] = settings.object_store_mb * _MIB
    else:
        options["address"] = expand(settings.address, "in `execution.address`")
        _see_whether_somebody_listens(settings.address, options["address"])
    loopback = settings.address is None or _LOOPBACK.match(options["address"])
    with _own_signals(), _loopback() if loopback else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, on what it will do differently one day
        try:
            return ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _no_connection(settings.address, error) from error


def _see_whether_somebody_listens(said: str, address: str) -> None:
    """Raise ErasmoError where nobody does: Ray would try for minutes, and heed no interrupt."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_connection(said, error) from error


def _no_connection(said: str | None, error: BaseException) -> ErasmoError:
    return ErasmoError(
        f"Got no connection to Ray at {said or 'this machine'} ({_first_line(error)})",
        expected="a cluster with the Python and Ray of this environment, of which this machine is a node",
        fix="see `ray status`; `ray start --address=HOST:PORT --num-cpus=0` makes this machine a node without work",
    )


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray take 127.0.0.1 for what it is, as it does on systems that it forms no clusters on.

    On others it makes an address of it that other machines reach, and its servers listen to them.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray would replace by an exit without a word to Dagster."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # None: it was not set by Python
            signal.signal(signal.SIGTERM, before)


def _environment(settings: ExecutionSettings) -> dict[str, str]:
    """What the processes of workers have in their environment; nothing secret."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # A worker that asks for no GPU sees none; without the second, it would see all of them.
    own = {"OMP_NUM_THREADS": str(settings.cpus_per_worker), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    found = {**own, **passed}
    package = Path(erasmo_dagster.__file__).resolve().parent.parent
    places = {Path(path).resolve() for path in (*site.getsitepackages(), sysconfig.get_path("purelib"))}
    if package not in places:  # a checkout: workers import the same files, where they see them
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    return found


def _worker(settings: ExecutionSettings, nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1 if any(node["Resources"].get("GPU") for node in nodes) else 0
    worker: dict[str, Any] = {"num_cpus": settings.cpus_per_worker, "num_gpus": gpus}
    if settings.memory_mb is not None:
        worker["memory"] = settings.memory_mb * _MIB
    return worker


def _room(settings: ExecutionSettings, nodes: Sequence[Mapping[str, Any]], worker: Mapping[str, Any]) -> int:
    """How many workers the nodes have resources for, and no more than the settings allow."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    wanted = {names[option]: amount for option, amount in worker.items() if amount}
    room: int = sum(
        min(math.floor(node["Resources"].get(name, 0) / amount) for name, amount in wanted.items()) for node in nodes
    )
    if not room:
        have = "; ".join(
            _amounts({option: node["Resources"].get(name, 0) for option, name in names.items()}) for node in nodes
        )
        raise ErasmoError(
            f"Got no node of Ray with room for a worker of {_amounts(worker)} (nodes have {have})",
            expected="at least one",
            fix="lower `cpus_per_worker`, `gpus_per_worker` or `memory_mb` of `execution`, or add nodes",
        )
    return room if settings.workers is None else min(room, settings.workers)


def _amounts(options: Mapping[str, Any]) -> str:
    said = [f"{options['num_cpus']:g} CPU", f"{options['num_gpus']:g} GPU" if options.get("num_gpus") else ""]
    return ", ".join(filter(None, [*said, f"{options['memory'] / _MIB:,.0f} MiB" if options.get("memory") else ""]))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
