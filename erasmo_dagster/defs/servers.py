"""Dagster's own webserver and daemon, on loopback, as one command."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from types import FrameType

import psutil

from erasmo_dagster.defs.instance import dagster_environment, open_instance
from erasmo_dagster.defs.runs import end_dead_runs
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project

_STOP_SECONDS = 30.0


def serve(project: Project, port: int) -> int:
    """Serve the UI on 127.0.0.1 until this process is told to stop; the servers' exit status.

    Raises ErasmoError where the port is taken or the project has no ``workspace.yaml``.
    """
    workspace = project.root / "workspace.yaml"
    if not workspace.is_file():
        raise ErasmoError(f"Got no {workspace}", expected="the file that `erasmo init` writes", fix="restore it")
    _check_port(port)
    with open_instance(project) as instance:
        end_dead_runs(instance)
    command = ["dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    servers = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=project.root, env=dagster_environment(project), start_new_session=True
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return servers.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(servers)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ErasmoError(
                f"Got port {port}, which another program uses",
                expected="a free port",
                fix=f"run `erasmo ui --port {port + 1}` (or `make ui PORT={port + 1}`)",
            ) from error


def _stop(servers: subprocess.Popen[bytes]) -> None:
    """End the servers and everything they started, by process id."""
    try:
        tree = [*psutil.Process(servers.pid).children(recursive=True), psutil.Process(servers.pid)]
    except psutil.NoSuchProcess:
        return
    servers.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=_STOP_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
