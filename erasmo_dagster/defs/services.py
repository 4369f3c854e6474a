"""Dagster's webserver, daemon and code location as services of systemd, each a unit of its own."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from erasmo_dagster.defs.instance import dagster_environment, open_instance
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.files import whole_file
from erasmo_dagster.settings import Project

_UNIT = """\
[Unit]
Description=ERASMO: {about} of {root}
After=network-online.target{after}
Wants=network-online.target

[Service]
Type=exec
User={user}
WorkingDirectory={root}
EnvironmentFile={folder}/erasmo.env
# Secrets, such as the variables that datasets and erasmo.yaml name; readable by this user alone (chmod 600).
EnvironmentFile=-{folder}/secrets.env
ExecStart={command}
Restart=always
RestartSec=5
# A run that is told to stop keeps what is done.
KillMode=mixed
TimeoutStopSec=90
NoNewPrivileges=true
# No PrivateTmp: a Ray cluster on this machine is found by its sockets in /tmp/ray.

[Install]
WantedBy=multi-user.target
"""
_NAMES = ("DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY", "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "ERASMO_PROJECT",
          "ERASMO_HOME")  # fmt: skip


def write_services(project: Project, folder: Path, *, port: int, code_port: int) -> list[Path]:
    """Write the units, their environment and the workspace that finds the code location; the files.

    The webserver listens on 127.0.0.1:``port``, the code location on 127.0.0.1:``code_port``. No secret is written.
    Dagster's tables are made where there are none: the services begin at once, and each would make them.

    Raises ErasmoError where a path has a character that a unit cannot hold as it is, and as
    :func:`~erasmo_dagster.defs.instance.open_instance` does.
    """
    folder = folder.expanduser().resolve()
    python = sys.executable
    for path in (project.root, project.home, folder, python):
        if unfit := set(str(path)) & set(" \t\n\"'\\%$"):
            raise ErasmoError(
                f"Got {str(path)!r} with {min(unfit)!r}", expected="a path that a unit of systemd can hold"
            )
    with open_instance(project):
        pass  # whose tables are there from now on
    workspace = folder / "workspace.yaml"
    server = f"{python} -m dagster code-server start -h 127.0.0.1 -p {code_port}"
    commands = {
        "code": ("code location", f"{server} -m erasmo_dagster.definitions"),
        "webserver": ("webserver", f"{python} -m dagster_webserver -h 127.0.0.1 -p {port} -w {workspace}"),
        "daemon": ("daemon", f"{python} -m dagster._daemon run -w {workspace}"),
    }
    files = {
        "erasmo.env": _environment(dagster_environment(project)),
        "workspace.yaml": "load_from:\n  - grpc_server: {host: 127.0.0.1, "
        f"port: {code_port}, location_name: erasmo}}\n",
    }
    for name, (about, command) in commands.items():
        files[f"erasmo-{name}.service"] = _UNIT.format(
            about=about,
            root=project.root,
            after="" if name == "code" else " erasmo-code.service",
            user=getpass.getuser(),
            folder=folder,
            command=command,
        )
    for name, text in files.items():
        with whole_file(folder / name) as written:
            written.write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def _environment(environment: Mapping[str, str]) -> str:
    """What the project's processes need beside the secrets."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    return "".join(f"{name}={environment[name]}\n" for name in _NAMES) + f"PATH={path}\n"
