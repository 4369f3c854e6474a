"""The built wheel, installed away from the checkout, makes a project that works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import customers
from tests.test_architecture import HEAVY

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's files; the dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Built from a copy: the build leaves folders in the tree that it builds.
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True
    ).stdout.split("\n")
    for name in filter(None, files):
        if (CHECKOUT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((CHECKOUT / name).read_bytes())
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.mark.slow
def test_init_add_run_and_query_outside_the_checkout(installed: Path, tmp_path: Path, tiny_model: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERASMO_", "DAGSTER_"))}
    environment = kept | {"PYTHONPATH": str(installed), "COLUMNS": "200"}

    def erasmo(*arguments: str, cwd: Path) -> str:
        command = [sys.executable, "-m", "erasmo_dagster.cli", *arguments]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import erasmo_dagster as e; print(e.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout
    assert where.startswith(str(installed))
    erasmo("init", "mine", cwd=tmp_path)
    project = tmp_path / "mine"
    assert {"datasets", "dbt_like_sql", "workspace.yaml"} <= {p.name for p in project.iterdir()}
    customers().write_csv(project / "people.csv")
    erasmo("add", "people.csv", "--key", "id", cwd=project)
    file = project / "datasets" / "people.yaml"
    file.write_text(
        file.read_text() + f"\nadapter: {{base_model: 'path:{tiny_model}', max_tokens: 200, device: cpu}}\n"
    )
    erasmo("run", "people", cwd=project)
    answer = erasmo("sql", "select count(*) n from people_segmented", "--format", "json", cwd=project)
    assert answer == '{"n": 60}\n'


SPY = """
import pathlib, sys

class Spy:
    def find_spec(self, name, path=None, target=None):
        # Of what is only looked for, as polars does with pandas, no module within is.
        top, _, within = name.partition(".")
        if within and top in %r:
            with pathlib.Path(%r).open("a") as told:
                told.write(f"{top} in {sys.argv}\\n")

sys.meta_path.insert(0, Spy())
"""


def test_the_workspace_file_loads_in_dagster_without_the_models_libraries(installed: Path, tmp_path: Path) -> None:
    told = tmp_path / "imported.txt"
    (tmp_path / "spy").mkdir()
    # Every process of the command has it: the definitions are loaded in a server of their own.
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY % (HEAVY | {"erasmo_dagster"}, str(told)))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'spy'}{os.pathsep}{installed}"}
    for name in ("ERASMO_PROJECT", "ERASMO_HOME", "DAGSTER_HOME"):
        environment.pop(name, None)
    subprocess.run(
        [sys.executable, "-m", "erasmo_dagster.cli", "init", "mine"], cwd=tmp_path, env=environment, check=True
    )
    told.unlink()
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    done = subprocess.run(command, cwd=tmp_path / "mine", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "erasmo" in done.stdout + done.stderr
    assert {line.split()[0] for line in told.read_text().splitlines()} == {"erasmo_dagster"}


def test_help_imports_nothing_that_takes_long() -> None:
    slow = {"dagster", "duckdb", "polars", "numpy", "pyarrow"} | HEAVY
    code = "import sys, erasmo_dagster.cli as cli\nsys.argv[1:] = ['--help']\ntry:\n    cli.main()\nfinally:\n" + (
        f"    print(sorted({slow!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Segments from tables" in done.stdout
    assert done.stderr.strip() == "[]"
