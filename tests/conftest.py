"""What tests share: a project in a temporary folder, a table with planted groups, a tiny random-weight model."""

from __future__ import annotations

import os

# Tiny models gain nothing from threads, and lose much where something else uses the cores. Set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import hypothesis
import polars as pl
import pytest

from erasmo_dagster.method.quiet import quiet_libraries
from erasmo_dagster.settings import Project, open_project
from tests.postgres_server import PostgresServer, postgres_server
from tests.tiny_models import tiny_causal_lm

quiet_libraries()
# No test asserts a time: a machine that is busy is no fault.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing may be missing (CI), a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("ERASMO_FAIL_ON_SKIP") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_project_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ERASMO_PROJECT", "ERASMO_HOME", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch with one thread: two processes run the tests, and sums come out the same everywhere."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_causal_lm(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of the group; each takes a database of its own."""
    with postgres_server() as server:
        yield server


def make_project(folder: Path) -> Project:
    """A project without datasets; its home lies beside it."""
    root = folder / "project"
    (root / "datasets").mkdir(parents=True)
    (root / "workspace.yaml").write_text(
        "load_from:\n  - python_module: {module_name: erasmo_dagster.definitions, location_name: erasmo}\n"
    )
    return open_project(root, folder / "home")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def customers(rows: int = 60) -> pl.DataFrame:
    """Three planted groups of customers, told apart by job, age and a text."""
    kinds = [
        ("technician", 25, "likes short calls"),
        ("retired", 70, "writes letters"),
        ("student", 19, "never answers"),
    ]
    return pl.DataFrame(
        {
            "id": list(range(1, rows + 1)),
            "age": [kinds[i % 3][1] + i % 4 for i in range(rows)],
            "job": [kinds[i % 3][0] for i in range(rows)],
            "note": [f"{kinds[i % 3][2]} in {'spring' if i % 2 else 'autumn'}" for i in range(rows)],
            "email": [f"person{i}@example.org" for i in range(rows)],
            "kind": [kinds[i % 3][0][0].upper() for i in range(rows)],
        }
    )


class DatasetWriter:
    """Writes a table and its YAML into a project; segments are k-means of the vectors unless told otherwise."""

    def __init__(self, project: Project, model: Path) -> None:
        self.project, self.model = project, model

    def __call__(
        self,
        name: str = "customers",
        frame: pl.DataFrame | None = None,
        extra: str = "",
        clustering: str = "{method: kmeans++, k: 3}",
    ) -> Path:
        table = self.project.root / f"{name}.parquet"
        (customers() if frame is None else frame).write_parquet(table)
        file = self.project.datasets_dir / f"{name}.yaml"
        settings = f"""\
            source: {{path: {table.name}}}
            key: id
            label: kind
            drop: email
            adapter: {{base_model: "path:{self.model}", max_tokens: 300, batch_size: 4, eval_every: 5, device: cpu}}
            clustering: {clustering}
        """
        file.write_text(dedent(settings) + dedent(extra))
        return file


@pytest.fixture
def write_dataset(project: Project, tiny_model: Path) -> DatasetWriter:
    return DatasetWriter(project, tiny_model)


@pytest.fixture
def sql(project: Project) -> Path:
    """A folder with one mart of all rows, and no test."""
    folder = project.sql_dir
    for name in ("marts", "tests"):
        (folder / name).mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(
        "name: own\nversion: '1.0.0'\nprofile: own\nmodel-paths: [marts]\ntest-paths: [tests]\n"
        "models:\n  +materialized: table\n"
    )
    (folder / "marts" / "sources.yml").write_text(
        "version: 2\nsources:\n  - name: erasmo\n    schema: main\n    tables: [{name: segments}]\n"
    )
    (folder / "marts" / "people.sql").write_text("select dataset, entity_key from {{ source('erasmo', 'segments') }}\n")
    return folder


def write_test(sql: Path, query: str, *, severity: str = "error", name: str = "own_rule") -> None:
    (sql / "tests" / f"{name}.sql").write_text(f"{{{{ config(severity='{severity}') }}}}\n{query}\n")
