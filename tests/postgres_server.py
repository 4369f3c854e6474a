"""A real PostgreSQL server on loopback, of a folder of its own, with a password; ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

USER, PASSWORD = "erasmo", "a-secret-of-the-tests"
_BINARIES = "/usr/lib/postgresql"  # where Debian keeps them, a folder a release


@dataclass(frozen=True)
class PostgresServer:
    """Where the server listens; ``USER`` is its superuser."""

    port: int
    pid: int
    host: str = "127.0.0.1"
    user: str = USER
    password: str = PASSWORD

    def url(self, database: str = "postgres", user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{database}"

    def new_database(self) -> str:
        """An empty database of its own; its URL."""
        name = f"test_{uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Run one statement outside a transaction; the rows it gives."""
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(url or self.url(), autocommit=True) as con, con.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server of the newest PostgreSQL on the machine; stop it at the end, and remove its folder."""
    binaries = _binaries()
    # PostgreSQL refuses root, and an unprivileged user may not enter pytest's own folders.
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="erasmo-postgres-"))
    process = None
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if as_user:
            for path in (folder, secret):
                shutil.chown(path, "postgres", "postgres")
        data, environment = folder / "data", {**os.environ, "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"],
            check=True, capture_output=True, cwd=folder, env=environment, **as_user,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1",
                 "-c", "fsync=off", "-c", "max_connections=40"],
                stdout=log, stderr=log, cwd=folder, env=environment, **as_user,
            )  # fmt: skip
        server = PostgresServer(port, process.pid)
        _wait_for(server, process, folder / "log")
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # closes the connections that are left
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    releases = sorted(Path(_BINARIES).glob("*/bin/initdb"), key=lambda found: int(found.parts[-3]))
    if releases:
        return releases[-1].parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise FileNotFoundError("got no PostgreSQL server: apt-get install postgresql")


def _wait_for(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            server.execute("SELECT 1")
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.1)
