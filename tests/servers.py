"""The real webserver and daemon of a project, for tests: started as `erasmo ui` starts them, ended by process id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from erasmo_dagster.settings import Project

T = TypeVar("T")


def environment(project: Project) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERASMO_", "DAGSTER_"))}
    return kept | {"ERASMO_HOME": str(project.home)}


@contextmanager
def erasmo(project: Project, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, which does not outlive the block."""
    command = [sys.executable, "-m", "erasmo_dagster.cli", *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command, cwd=project.root, env=environment(project), text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, again if need be: Python drops an exception that a signal raises inside a finalizer."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
            return
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("the process goes on after three interrupts")


class Webserver:
    """Speaks GraphQL as the UI does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode(errors="replace")[:4000])
            raise
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 120, each: float = 0.5) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(each)
    raise AssertionError(f"{what} did not come in {seconds:.0f} s")


@contextmanager
def served(project: Project, log: Path) -> Iterator[Webserver]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Webserver(f"http://127.0.0.1:{port}")
    with log.open("w") as output, erasmo(project, "ui", "--port", str(port), stdout=output, stderr=output) as process:

        def answers() -> bool | None:
            assert process.poll() is None, log.read_text()
            try:
                nodes = server.query("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return None
            return bool(nodes["repositoriesOrError"]["nodes"])

        try:
            wait_for("the webserver", answers)
            yield server
        finally:
            tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            _, alive = psutil.wait_procs(tree, timeout=10)
            for straggler in alive:
                straggler.kill()
            assert alive == []
