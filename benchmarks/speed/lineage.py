"""The whole lineage on rows of bank, from the run's first step to published: a first run, and a refresh."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from erasmo_dagster.settings import Project, open_project

DATASET = "bank"
ROWS = {"quick": 300, "default": 2_000, "full": 10_000}
CHANGED = 0.01  # of the rows, in the refresh
_QUICK = "adapter: {max_tokens: 4000}\n"
_YAML = "source: {path: bank.parquet}\nkey: row\nlabel: y\n"


def measure(data: Path, models: Path, effort: str, seed: int) -> dict[str, Any]:
    """Seconds of a first run (``first_s``) and of one after 1 % of the rows changed (``refresh_s``), their ``ratio``.

    ``data`` has bank.parquet, ``models`` the base models' folder. ``effort`` is quick (300 rows, 4,000 training
    tokens), default (2,000 rows) or full (10,000 rows); but for that the settings are those of a new dataset. Each run
    is one of ``erasmo run``, in a process of its own, timed from its first step to published; ``stages`` has both runs'
    seconds by stage, and ``decision`` what the second one decided, which is to refresh: nothing is trained.
    """
    with tempfile.TemporaryDirectory(prefix="erasmo-lineage-") as folder:
        project = _project(Path(folder), models, _YAML + (_QUICK if effort == "quick" else ""))
        table = _rows(data, ROWS[effort], seed)
        return {"rows": table.height, **measure_table(project, table, seed)}


def measure_table(project: Project, table: pl.DataFrame, seed: int) -> dict[str, Any]:
    """As :func:`measure`, of a table with the columns ``row`` (its key), ``balance`` and more in a project of one."""
    file = project.root / f"{DATASET}.parquet"
    table.write_parquet(file)
    first = _alone(project)
    changed(table, seed).write_parquet(file)
    second = _alone(project)
    stages = {name: {"first_s": first[1].get(name), "refresh_s": seconds} for name, seconds in second[1].items()}
    return {
        "first_s": first[0],
        "refresh_s": second[0],
        "ratio": round(second[0] / first[0], 4),
        "decision": second[2],
        "texts_embedded": second[3],
        "stages": stages,
    }


def changed(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The table with another row's ``balance``, and 1 more, in 1 % of its rows: new texts, and no new kind of row."""
    rng = np.random.default_rng([seed, 1])
    count = max(1, round(CHANGED * table.height))
    rows, others = rng.permutation(table.height)[:count], rng.permutation(table.height)[:count]
    balance = table["balance"].to_numpy().copy()
    balance[rows] = balance[others] + 1
    return table.with_columns(pl.Series("balance", balance, dtype=table.schema["balance"]))


def _project(folder: Path, models: Path, settings: str) -> Project:
    root, home = folder / "project", folder / "home"
    (root / "datasets").mkdir(parents=True)
    home.mkdir()
    (root / "workspace.yaml").write_text("load_from: []\n")
    (root / "datasets" / f"{DATASET}.yaml").write_text(settings)
    (home / "models").symlink_to(models.resolve(), target_is_directory=True)
    return open_project(root, home)


def _rows(data: Path, count: int, seed: int) -> pl.DataFrame:
    table = pl.read_parquet(data / f"{DATASET}.parquet").with_row_index("row")
    chosen = np.random.default_rng(seed).permutation(table.height)[:count]
    return table[np.sort(chosen)]


def _alone(project: Project) -> tuple[float, dict[str, float], str, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, project.root, project.home).result()


def _run(root: Path, home: Path) -> tuple[float, dict[str, float], str, int]:
    """Run the dataset as ``erasmo run`` does: seconds, those of each stage, the decision, and texts embedded for it."""
    from erasmo_dagster.defs.instance import open_instance, run_dataset
    from erasmo_dagster.method.quiet import quiet_libraries

    quiet_libraries()
    project = open_project(root, home)
    with open_instance(project) as instance:
        started = time.monotonic()
        found = run_dataset(instance, project, DATASET).metadata
        seconds = time.monotonic() - started
    stages = {name: float(told["seconds"]) for name, told in found.items() if "seconds" in told}
    plan = found["refresh_plan"]
    return round(seconds, 2), stages, str(plan["decision"]), int(plan.get("texts_embedded", 0))
