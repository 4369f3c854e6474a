"""A real Ray cluster on loopback: a head without cores and workers, each node by processes of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from erasmo_dagster.settings import ExecutionSettings
from tests.servers import wait_for

# `ray start` makes a loopback address one that other machines reach, and its servers then listen to them.
_RAY = (
    "from ray._private import services; services.get_node_ip_address = lambda address=None: '127.0.0.1'; "
    "from ray.scripts.scripts import main; main()"
)
_STORE = 80 * 2**20  # bytes of a node's object store, near the least that Ray takes
_MARK = "ERASMO_TEST_CLUSTER"
# A machine that is busy is no fault: Ray gives its own processes half a minute to start.
_PATIENCE = {
    "RAY_raylet_start_wait_time_s": "900",
    "RAY_agent_register_timeout_ms": "900000",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_gcs_rpc_server_connect_timeout_s": "600",
    "RAY_raylet_client_num_connect_attempts": "900",  # one a second
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_worker_niceness": "0",
    # A node that is gone refuses at once, one that is slow has a minute for each of five answers.
    "RAY_health_check_initial_delay_ms": "30000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
}


@dataclass
class RayNodes:
    """The cluster's processes, in ``folder``; ``head`` serves at ``port``, and Ray's client at ``client_port``."""

    folder: Path
    port: int
    client_port: int
    environment: dict[str, str]
    head: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def settings(self, **more: Any) -> ExecutionSettings:
        """To compute on this cluster."""
        return ExecutionSettings(**{"engine": "ray", "address": self.address, **more})

    def start_head(self) -> None:
        """It has no cores, so that no work is lost with it; nor a dashboard."""
        self.head = self._started(
            "head", "--head", f"--port={self.port}", f"--ray-client-server-port={self.client_port}",
            f"--temp-dir={self.folder}", "--num-cpus=0", "--include-dashboard=false", f"--dashboard-port={_free_port()}",
        )  # fmt: skip

    def add_worker(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """A node more; it has joined when this returns. Two that start at once would take the same socket."""
        self.workers.append(self._started("worker", f"--address={self.address}", f"--num-cpus={cpus}"))
        return self.workers[-1]

    def kill_worker(self, node: subprocess.Popen[bytes]) -> None:
        """A machine that is gone: all of a node's processes at once, without a word."""
        _end(node)
        self.workers.remove(node)

    def processes(self) -> list[psutil.Process]:
        """All that belongs to the cluster, whoever its parent is by now."""
        own = [node for node in (self.head, *self.workers) if node is not None]
        trees = {child.pid: child for node in own for child in _tree(node)}
        marked = {process.pid: process for process in psutil.process_iter() if self._is_marked(process)}
        return list((trees | marked).values())

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == str(self.folder) and process.pid != os.getpid()
        except (psutil.Error, OSError):
            return False

    def stop(self) -> list[str]:
        """End it as `ray stop` does; what had to be killed in the end."""
        everything = self.processes()
        for node in (*self.workers, self.head):
            if node is not None:
                node.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(everything, timeout=120)
        left = [_title(process) for process in alive]
        for process in {*alive, *self.processes()}:
            _kill(process)
        for node in (*self.workers, self.head):
            if node is not None:
                node.wait(60)
        return left

    def _started(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        # Given, since nodes of one machine would take the same, and a node waits half a minute for those it does not know.
        agents = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
        ports = [f"--{agent}-port={_free_port()}" for agent in agents]
        number = len(list(self.folder.glob("*.log")))
        log = self.folder / f"{name}{number}.log"
        with log.open("w") as output:
            node = subprocess.Popen(
                [sys.executable, "-c", _RAY, "start", *options, *ports, "--node-ip-address=127.0.0.1",
                 f"--object-store-memory={_STORE}", "--disable-usage-stats", "--block"],
                stdout=output, stderr=output, cwd=self.folder, env=self.environment, start_new_session=True,
            )  # fmt: skip

        def joined() -> bool:
            assert node.poll() is None, log.read_text()
            return "Ray runtime started" in log.read_text()

        try:
            wait_for(f"Ray's {name}", joined, seconds=900)
        except BaseException:
            _end(node)
            raise
        return node


@contextmanager
def ray_nodes(workers: int = 2) -> Iterator[RayNodes]:
    """Start a head and ``workers`` nodes of one core; end them, and see that nothing is left.

    This process has the cluster's token and patience in its environment meanwhile.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets may have 107 characters
    root = Path(__file__).parents[1]
    own = {
        **_PATIENCE,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # a node that is stopped has nothing to hand over
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (folder / "site", root))),  # encoders of tests, and this very package
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    nodes = RayNodes(folder, _free_port(), _free_port(), {**os.environ, _MARK: str(folder)})
    try:
        nodes.start_head()
        for _ in range(workers):
            nodes.add_worker()
        yield nodes
    finally:
        left = nodes.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)
    assert left == []


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _tree(node: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        parent = psutil.Process(node.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return ""


def _end(node: subprocess.Popen[bytes]) -> None:
    for process in _tree(node):
        _kill(process)
    node.wait(60)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
