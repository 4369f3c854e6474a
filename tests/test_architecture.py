"""Imports run one way, and listing definitions stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import erasmo_dagster

PACKAGE = Path(erasmo_dagster.__file__).parent
LEAVES = {"settings", "errors", "files", "progress", "rows", "wheels"}
# Room -> what it may import of this package, and which libraries never.
RULES = {
    "method": (LEAVES | {"method"}, {"dagster", "dagster_duckdb", "duckdb"}),
    "store": (LEAVES | {"store"}, {"dagster", "dagster_duckdb", "torch", "transformers", "peft"}),
    "refresh": (LEAVES | {"refresh", "store"}, {"dagster", "dagster_duckdb", "torch", "transformers", "peft"}),
    "report": (LEAVES | {"report", "store", "method"}, {"dagster", "dagster_duckdb", "typer", "torch", "transformers"}),
    "experiments": (
        LEAVES | {"experiments", "store", "method", "report", "distributed"},
        {"dagster", "dagster_duckdb", "typer", "torch", "transformers", "peft"},
    ),
    "distributed": (LEAVES | {"distributed", "method"}, {"dagster", "dagster_ray", "dagster_duckdb", "duckdb"}),
    "defs": (
        LEAVES | {"defs", "store", "method", "refresh", "notify", "experiments", "distributed"},
        {"typer", "torch", "transformers", "peft"},
    ),
}
HEAVY = {
    *("torch", "transformers", "peft", "sentence_transformers", "sklearn", "scipy", "matplotlib", "networkx"),
    *("skfuzzy", "kmodes", "scikit_posthocs", "umap", "openai", "pandas", "ray", "dagster_ray", "dagster_postgres"),
    *("adbc_driver_manager", "adbc_driver_postgresql", "psycopg2", "s3fs"),
}

# A class that inherits from another library's needs it; its module is loaded when it is asked for.
LOADED_LATE = {"method/estimator.py": {"sklearn"}, "defs/clusters.py": {"dagster_ray"}}


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports; type-checking blocks run nowhere, so they do not count."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", RULES)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed, forbidden = RULES[room]
    faults = []
    for path in modules(room):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "erasmo_dagster" and len(parts) > 1 and parts[1] not in allowed | {"__version__"}:
                faults.append(f"{path.name} imports {name}")
            if parts[0] in forbidden:
                faults.append(f"{path.name} imports {name}")
    assert faults == []


def test_there_are_rooms_to_check() -> None:
    assert all(len(modules(room)) > 2 for room in RULES)


def test_heavy_libraries_are_imported_inside_functions() -> None:
    faults = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in HEAVY - LOADED_LATE.get(path.relative_to(PACKAGE).as_posix(), set())
    }
    assert faults == set()


def test_files_can_be_read_in_one_sitting() -> None:
    long = {
        str(p.relative_to(PACKAGE)): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 450
    }
    assert long == {}


def test_definitions_load_without_the_models_libraries(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    code = (
        f"import sys; from erasmo_dagster.definitions import defs; defs()\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_pickles_or_trusts_remote_code() -> None:
    words = ("import pickle", "import joblib", "torch.load(", "torch.save(", "trust_remote_code=True")
    faults = {f"{p.name}: {w}" for p in PACKAGE.rglob("*.py") for w in words if w in p.read_text()}
    assert faults == set()
