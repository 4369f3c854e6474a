"""A Ray cluster for the time of a stage: attached to, or started on this machine and ended again."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import site
import socket
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import erasmo_dagster
from erasmo_dagster.distributed.preflight import check_nodes, first_line
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ExecutionSettings, expand
from erasmo_dagster.settings.execution import is_address

_MIB = 2**20
_HEAD_ANSWERS = 30.0  # seconds
_LOOPBACK = re.compile(r"127\.|localhost:|\[::1\]")
# Where models and their caches are looked for; workers that are on other machines than the driver have it from here.
_PASSED_ON = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM")
_RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # of a worker, as a node calls them


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
    ends. A process that is attached already stays so. Work of any kind may be done there, with GPUs and without.
    Raises ErasmoError where ray is not installed, the cluster cannot be reached or is another one than this process is
    attached to, has no room for one worker, or a node lacks something; errors of Ray within the block are raised as
    :func:`ray_errors` does.
    """
    connection, cluster = connect(settings, shared)
    try:
        with ray_errors(settings):
            yield cluster
    finally:
        disconnect(connection)


def connect(
    settings: ExecutionSettings, shared: Path, *, gpu: bool | None = None, model: str | None = None
) -> tuple[Any, Cluster]:
    """Attach this process, as :func:`attached` does; what :func:`disconnect` takes, and the cluster.

    ``gpu`` says whether the work computes on one where there are any; None: some of it does, and some does not.
    ``model`` is the path of a base model that each worker opens there.
    """
    ray = import_ray()
    if ray.is_initialized():
        _see_that_it_is_the_same(ray, settings)
        connection = None
    else:
        connection = _init(ray, settings)
    try:
        with ray_errors(settings):
            nodes = [node for node in ray.nodes() if node["Alive"]]
            worker = _worker(settings, nodes, gpu is not False)
            workers = _room(settings, nodes, worker)
            check_nodes(_candidates(nodes, worker, gpu=gpu), shared, model)
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
    os.environ["OMP_NUM_THREADS"] = str(cpus)  # for a torch that is still to be loaded, if it ever is
    if (torch := sys.modules.get("torch")) is not None:
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
            f"Got a worker of Ray lost more often than it may be ({first_line(error)})",
            expected=f"at most {settings.max_failures} losses, as `execution.max_failures` says",
            fix="see Ray's dashboard or logs for the reason, mostly memory: take fewer `workers`, or set `memory_mb`; "
            "run again to go on from there",
        ) from error
    except (lost.ObjectLostError, lost.RaySystemError, lost.RpcError) as error:
        raise ErasmoError(
            f"Got the connection to Ray lost ({first_line(error)})",
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
        options["address"] = _address(settings.address)
        _see_whether_somebody_listens(settings.address, options["address"])
    loopback = settings.address is None or _LOOPBACK.match(options["address"])
    own = _own_token() if settings.address is None else nullcontext()
    with _own_signals(), own, _loopback() if loopback else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, on what it will do differently one day
        try:
            return ray.init(**options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _no_connection(settings.address, error) from error


def _address(said: str) -> str:
    """The address that is ``said``, with what the environment has for it: auto, or host:port.

    Raises ErasmoError for anything else, which Ray may take for an order to start a cluster.
    """
    address = expand(said, "in `execution.address`")
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else None
    if not is_address(named or address):
        raise ErasmoError(
            f"Got no address of a Ray cluster in {'RAY_ADDRESS' if named else said}",
            expected="auto or host:port of a cluster that this machine is in",
            fix="correct the environment variable, or leave `execution.address` out: Ray is then started here",
        )
    return named or address


def _see_that_it_is_the_same(ray: Any, settings: ExecutionSettings) -> None:
    """Raise ErasmoError where the cluster that this process is attached to is not the one of ``settings``."""
    address = None if settings.address is None else _address(settings.address)
    if address == "auto":
        return
    here = ray.get_runtime_context().gcs_address
    own = {ray.util.get_node_ip_address(), "127.0.0.1", "::1"}
    if address is None or not _places(address, own) & _places(here, own):
        raise ErasmoError(
            "Got a process that is attached to another Ray cluster already",
            expected=f"the one at {settings.address}" if settings.address else "none: `execution.address` is left out",
            fix="set `execution.address` to that cluster, `auto` will do, or compute in a process of its own",
        )


def _places(address: str, own: Set[str]) -> set[tuple[str, str]]:
    """The addresses of network cards, each with the port, that host:port may be; ``own`` are all of this machine."""
    host, _, port = address.rpartition(":")
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        found = {host}
    return {(place, port) for place in (found | own if found & own else found)}


def _see_whether_somebody_listens(said: str, address: str) -> None:
    """Raise ErasmoError where nobody does: Ray would try for minutes, and heed no interrupt."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_HEAD_ANSWERS).close()
    except (OSError, OverflowError) as error:
        raise _no_connection(said, error) from error


def _no_connection(said: str | None, error: BaseException) -> ErasmoError:
    return ErasmoError(
        f"Got no connection to Ray at {said or 'this machine'} ({first_line(error)})",
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
def _own_token() -> Iterator[None]:
    """Keep to this user, and to the cluster that is started, the token that Ray asks for there.

    Ray keeps it in the user's home, made with the rights that files have by default, and sets RAY_AUTH_MODE for all
    that this process does afterwards. Where the user has set that, it is Ray's as it is.
    """
    kept, before = Path.home() / ".ray" / "auth_token", os.environ.get("RAY_AUTH_MODE")
    with suppress(OSError):
        kept.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            kept.chmod(0o600)
        if before is None:
            os.environ.pop("RAY_AUTH_MODE", None)


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


def _worker(settings: ExecutionSettings, nodes: Sequence[Mapping[str, Any]], gpu: bool) -> dict[str, Any]:
    gpus = settings.gpus_per_worker if gpu else 0
    if gpus is None:
        gpus = 1 if any(node["Resources"].get("GPU") for node in nodes) else 0
    worker: dict[str, Any] = {"num_cpus": settings.cpus_per_worker, "num_gpus": gpus}
    if settings.memory_mb is not None:
        worker["memory"] = settings.memory_mb * _MIB
    return worker


def _room(settings: ExecutionSettings, nodes: Sequence[Mapping[str, Any]], worker: Mapping[str, Any]) -> int:
    """How many workers the nodes have resources for, and no more than the settings allow."""
    room = sum(_room_on(node, worker) for node in nodes)
    if not room:
        have = "; ".join(
            _amounts({option: node["Resources"].get(name, 0) for option, name in _RESOURCES.items()}) for node in nodes
        )
        raise ErasmoError(
            f"Got no node of Ray with room for a worker of {_amounts(worker)} (nodes have {have})",
            expected="at least one",
            fix="lower `cpus_per_worker`, `gpus_per_worker` or `memory_mb` of `execution`, or add nodes",
        )
    return room if settings.workers is None else min(room, settings.workers)


def _candidates(
    nodes: Sequence[Mapping[str, Any]], worker: Mapping[str, Any], *, gpu: bool | None
) -> list[Mapping[str, Any]]:
    """The nodes that work may come to: where a worker fits, be it one without a GPU where ``gpu`` is None."""
    least = {**worker, "num_gpus": 0} if gpu is None else worker
    return [node for node in nodes if _room_on(node, least)]


def _room_on(node: Mapping[str, Any], worker: Mapping[str, Any]) -> int:
    wanted = {_RESOURCES[option]: amount for option, amount in worker.items() if amount}
    room: int = min(math.floor(node["Resources"].get(name, 0) / amount) for name, amount in wanted.items())
    return room


def _amounts(options: Mapping[str, Any]) -> str:
    said = [f"{options['num_cpus']:g} CPU", f"{options['num_gpus']:g} GPU" if options.get("num_gpus") else ""]
    return ", ".join(filter(None, [*said, f"{options['memory'] / _MIB:,.0f} MiB" if options.get("memory") else ""]))
