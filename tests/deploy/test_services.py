"""The units that `erasmo services` writes, run here as processes: PostgreSQL keeps Dagster's record, runs wait in line."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import socket
import subprocess
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from erasmo_dagster.defs.instance import write_instance_config
from erasmo_dagster.defs.services import write_services
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, open_project
from tests.conftest import DatasetWriter
from tests.postgres_server import PASSWORD, PostgresServer
from tests.servers import Webserver, wait_for

UNITS = ("code", "webserver", "daemon")
LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
RUNS = "{ runsOrError { ... on Runs { results { status startTime endTime tags { key value } } } } }"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unit(file: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file)
    return parser["Service"]


@contextmanager
def as_process(file: Path, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What systemd does with a unit: its command, in its folder, with the variables of its files and no others."""
    service = unit(file)
    with log.open("w") as output:
        process = subprocess.Popen(
            shlex.split(service["ExecStart"]), cwd=service["WorkingDirectory"], env=environment, stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        yield process
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=30)
        for straggler in alive:
            straggler.kill()
        process.wait(timeout=10)


def variables(*files: Path) -> dict[str, str]:
    lines = [line for file in files for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {"HOME": os.environ["HOME"]} | dict(line.split("=", 1) for line in lines)


@pytest.mark.postgres
def test_the_services_run_datasets_one_at_a_time(
    project: Project, write_dataset: DatasetWriter, postgres: PostgresServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (project.root / "erasmo.yaml").write_text(
        "sensor_interval: 2s\nmax_concurrent_runs: 4\nmax_model_runs: 1\ndagster_storage: ${TEAM_DAGSTER_URL}\n"
    )
    database = postgres.new_database()
    url = database.replace("postgresql://", "postgresql+psycopg2://")
    monkeypatch.setenv("TEAM_DAGSTER_URL", url)
    project = open_project(project.root, project.home)
    names = ("clients", "members", "people")
    for name in names:
        write_dataset(name)
    folder, port = tmp_path / "services", free_port()
    written = write_services(project, folder, port=port, code_port=free_port())
    assert PASSWORD not in "".join(file.read_text() for file in [*written, project.dagster_home / "dagster.yaml"])
    secrets = folder / "secrets.env"
    secrets.write_text(f"TEAM_DAGSTER_URL={url}\n")
    environment = variables(folder / "erasmo.env", secrets)
    server = Webserver(f"http://127.0.0.1:{port}")

    def answers() -> bool | None:
        try:
            return bool(server.query(LOADED)["repositoriesOrError"]["nodes"])
        except (urllib.error.URLError, ConnectionError, TimeoutError, KeyError):
            return None

    def ended() -> list[dict[str, object]] | None:
        runs = [run for run in server.query(RUNS)["runsOrError"]["results"] if run["status"] in ("SUCCESS", "FAILURE")]
        return runs if len(runs) >= len(names) else None

    with ExitStack() as services:
        for name in UNITS:
            file, log = folder / f"erasmo-{name}.service", tmp_path / f"{name}.log"
            services.enter_context(as_process(file, environment, log))
        try:
            wait_for("the webserver with its code location", answers, seconds=180)
            runs = wait_for("a run of every dataset", ended, seconds=420, each=2)
        except (AssertionError, OSError) as error:
            logs = {log.name: log.read_text()[-3000:].replace(PASSWORD, "…") for log in tmp_path.glob("*.log")}
            raise AssertionError("\n".join(f"{name}: {text}" for name, text in logs.items())) from error
    assert [run["status"] for run in runs] == ["SUCCESS"] * len(names)
    times = sorted((run["startTime"], run["endTime"]) for run in runs)
    assert all(end <= start for (_, end), (start, _) in pairwise(times)), times
    # The record is in PostgreSQL, and in no file.
    assert postgres.execute("SELECT count(*) FROM runs", database) == [(len(runs),)]
    assert not list(project.dagster_home.rglob("*.db"))
    for log in tmp_path.glob("*.log"):
        assert PASSWORD not in log.read_text(), log.name


def test_systemd_takes_the_units(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "services"
    write_services(project, folder, port=3000, code_port=4266)
    for name in UNITS:
        service = unit(folder / f"erasmo-{name}.service")
        assert "127.0.0.1" in service["ExecStart"] or name == "daemon"
        assert service["WorkingDirectory"] == str(project.root)
        assert Path(shlex.split(service["ExecStart"])[0]).is_file()
        assert "privatetmp" not in {option.lower() for option in service}, "a Ray cluster's sockets are in /tmp/ray"
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")

    def verified() -> list[str]:
        units = [str(folder / f"erasmo-{name}.service") for name in UNITS]
        done = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True)
        return [line for line in done.stderr.splitlines() if "erasmo-" in line]

    assert verified() == []
    with (folder / "erasmo-code.service").open("a") as file:
        file.write("\n[Service]\nRestartTheService=always\n")
    assert len(verified()) == 1, "it does read them"


def test_a_folder_that_a_unit_cannot_name_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="a path that a unit of systemd can hold"):
        write_services(project, tmp_path / "my services", port=3000, code_port=4266)


def test_a_storage_without_its_variable(project: Project, tmp_path: Path) -> None:
    (project.root / "erasmo.yaml").write_text("dagster_storage: ${NOT_SET_ANYWHERE}\n")
    with pytest.raises(ErasmoError, match="NOT_SET_ANYWHERE"):
        write_services(open_project(project.root, project.home), tmp_path / "services", port=3000, code_port=4266)


def test_a_storage_that_a_dagster_yaml_of_ones_own_leaves_out_is_told_of(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (project.root / "erasmo.yaml").write_text("dagster_storage: ${TEAM_DAGSTER_URL}\n")
    monkeypatch.setenv("TEAM_DAGSTER_URL", "postgresql+psycopg2://me:hush@127.0.0.1/runs")
    project = open_project(project.root, project.home)
    file = write_instance_config(project) / "dagster.yaml"
    assert caplog.text == ""
    own = file.read_text().partition("\n")[2]
    file.write_text(own)
    write_instance_config(project)
    assert caplog.text == ""
    file.write_text(own.partition("storage:")[0])
    write_instance_config(project)
    assert f"{file}, your own, does not name" in caplog.text
    assert file.read_text() == own.partition("storage:")[0]


def test_a_database_that_is_away_is_told_of_without_its_address(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (project.root / "erasmo.yaml").write_text("dagster_storage: ${TEAM_DAGSTER_URL}\n")
    monkeypatch.setenv("TEAM_DAGSTER_URL", "postgresql+psycopg2://me:hush@127.0.0.1:1/runs")
    with pytest.raises(ErasmoError, match=r"cannot be used .*TEAM_DAGSTER_URL") as caught:
        write_services(open_project(project.root, project.home), tmp_path / "services", port=3000, code_port=4266)
    printed = capfd.readouterr()
    assert not any("hush" in text for text in (str(caught.value), *printed))
    assert "127.0.0.1" not in str(caught.value)
    assert not (tmp_path / "services").exists()


def test_an_address_that_names_no_driver_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.root / "erasmo.yaml").write_text("dagster_storage: ${TEAM_DAGSTER_URL}\n")
    monkeypatch.setenv("TEAM_DAGSTER_URL", "postgresql://me:hush@127.0.0.1/runs")
    with pytest.raises(ErasmoError, match=r"begins with postgresql\+psycopg2://") as caught:
        write_services(open_project(project.root, project.home), tmp_path / "services", port=3000, code_port=4266)
    assert "hush" not in str(caught.value)


def test_a_url_in_the_file_is_refused_and_not_shown(project: Project) -> None:
    (project.root / "erasmo.yaml").write_text("dagster_storage: postgresql://me:hush@127.0.0.1/runs\n")
    with pytest.raises(ErasmoError) as caught:
        open_project(project.root, project.home)
    assert "hush" not in str(caught.value)
