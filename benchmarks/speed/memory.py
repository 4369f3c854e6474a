"""Peak resident memory of every stage of the lineage as a table grows, each stage in a process of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.memory import Peak
from benchmarks.speed.setting import Bench
from erasmo_dagster.defs.stages import CODE_VERSIONS
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, open_project
from erasmo_dagster.store.versions import stage_output
from erasmo_dagster.store.warehouse import open_warehouse

DATASET = "people"
SIZES = {"quick": (10_000,), "default": (10_000, 100_000), "full": (10_000, 100_000, 1_000_000)}
STAGES = (*CODE_VERSIONS, "published_segments")
_YAML = """\
source: {{path: {name}.parquet}}
key: id
adapter: {{base_model: "path:{model}", max_tokens: 4000, batch_size: 4, eval_every: 5, eval_rows: 8, device: cpu}}
clustering: {{method: kmeans, k: 5}}
# A random model's segments are as good as chance has it.
gate: {{max_drop: 2}}
"""


def measure(bench: Bench) -> Iterator[dict[str, Any]]:
    """Rows -> stage -> ``peak_mb`` (the process's own code included) and ``seconds``, size by size.

    Quick has 10 thousand rows, default 100 thousand as well, full a million too. The table has six columns,
    every row a text of its own, and the language model has random weights and 32 dimensions: what is measured is all
    that is around it. The checks of a stage are part of it. After the first run come the stages of a refresh, with 1 %
    of the rows changed.
    """
    found: dict[str, Any] = {}
    for rows in SIZES[bench.effort]:
        stages = bench.pieces.measured(partial(measured_stages, rows, bench.seed), part="memory", rows=rows)
        found[str(rows)] = stages
        yield found


def measured_stages(rows: int, seed: int) -> dict[str, dict[str, float]]:
    """Stage -> ``peak_mb`` and ``seconds`` of a table of ``rows`` rows, in the first run and in a refresh.

    Raises ErasmoError where the second run does not refresh.
    """
    with tempfile.TemporaryDirectory(prefix="erasmo-memory-") as folder:
        project = tiny_project(Path(folder))
        table = project.root / f"{DATASET}.parquet"
        write_table(table, rows, seed)
        found = {stage: run_alone(project, stage) for stage in STAGES}
        write_table(table, rows, seed, changed=True)
        for stage in STAGES:
            found[f"refresh: {stage}"] = run_alone(project, stage, begins=stage == STAGES[0])
            if stage == "refresh_plan":
                _check_refresh(project)
        return found


def _check_refresh(project: Project) -> None:
    with open_warehouse(project.warehouse) as con:
        plan = stage_output(con, DATASET, 2, "refresh_plan")
    decision = plan.details["plan"]["decision"] if plan else {"mode": "nothing"}
    if decision["mode"] != "refresh":
        raise ErasmoError(f"Got a {decision['mode']}: {decision}", expected="a refresh, with 1 % of the rows changed")


def tiny_project(folder: Path) -> Project:
    """A project in ``folder`` of one dataset that a random model of 32 dimensions reads."""
    from tests.tiny_models import tiny_causal_lm

    root = folder / "project"
    (root / "datasets").mkdir(parents=True)
    (root / "workspace.yaml").write_text("load_from: []\n")
    model = tiny_causal_lm(folder / "model")
    (root / "datasets" / f"{DATASET}.yaml").write_text(_YAML.format(name=DATASET, model=model))
    return open_project(root, folder / "home")


def write_table(path: Path, rows: int, seed: int, *, changed: bool = False) -> None:
    """A Parquet file of five planted groups: id and six columns of categories, numbers and words.

    With ``changed`` every hundredth row has another number in it.
    """
    import duckdb

    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SELECT setseed(?)", [seed % 1000 / 1000])
        con.execute(
            "COPY (SELECT i AS id, 'sector ' || (i % 5) AS sector, 'region ' || (hash(i) % 12) AS region,"
            " (i % 5 * 12 + 18 + hash(i + 1) % 12)::INTEGER AS age, (hash(i + 2) % 4)::INTEGER AS children,"
            f" round((i % 5 + 1) * 1000 + random() * 900 + (i % 100 = 0)::INTEGER * {int(changed)}, 2) AS income,"
            " 'came ' || (hash(i + 3) % 9) || ' times in ' || (hash(i + 4) % 60 + 1960) AS note"
            f" FROM range({int(rows)}) t(i)) TO '{path}' (FORMAT parquet)"
        )


def run_alone(project: Project, stage: str, *, begins: bool = False) -> dict[str, float]:
    """As :func:`run_stage`, on what the stages before it have left, in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_stage, project.root, project.home, stage, begins=begins).result()


def run_stage(root: Path, home: Path, stage: str, *, begins: bool = False) -> dict[str, float]:
    """Run one stage of the project in this process: ``peak_mb`` and ``seconds``.

    It writes the newest version, where there is one and it does not begin another.
    """
    import dagster as dg

    from erasmo_dagster.defs.assembly import build_definitions
    from erasmo_dagster.defs.instance import open_instance
    from erasmo_dagster.method.quiet import quiet_libraries

    quiet_libraries()
    project, run_id = open_project(root, home), str(uuid.uuid4())
    if not begins:  # Dagster takes no run twice: the newest version becomes this one's
        newest = "(SELECT max(version) FROM versions)"
        with open_warehouse(project.warehouse) as con:
            con.execute(f"UPDATE versions SET run_id = ? WHERE version = {newest}", [run_id])
    job = build_definitions(project).resolve_implicit_global_asset_job_def()
    started = time.monotonic()
    with Peak() as peak, open_instance(project) as instance:
        job.execute_in_process(
            instance=instance,
            partition_key=DATASET,
            asset_selection=[dg.AssetKey(stage)],
            run_id=run_id,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    return {"peak_mb": round(peak.mb, 1), "seconds": round(time.monotonic() - started, 2)}
