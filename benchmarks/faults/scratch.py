"""The project that the faults hit: two small datasets with a tiny model, and changes of the first one's table."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import polars as pl

from erasmo_dagster import template
from erasmo_dagster.settings import Project, open_project
from tests.tiny_models import tiny_causal_lm

CHANGING, QUIET = "customers", "staff"
_KINDS = (("technician", 25, "likes short calls"), ("retired", 70, "writes letters"), ("student", 19, "never answers"))
_SEASONS = ("spring", "summer", "autumn", "winter")
_YAML = """\
source: {{path: {name}.parquet}}
key: id
label: kind
drop: email
adapter: {{base_model: "path:{model}", max_tokens: 4000, batch_size: 4, eval_every: 5, eval_rows: 8, device: cpu}}
clustering: {{method: kmeans++, k: 3}}
refresh: {{backoff: 0s, retries: 20}}
# A random model's segments are as good as chance has it; what is tested is whether they arrive.
gate: {{max_drop: 2}}
"""


def make_project(folder: Path, rows: int) -> Project:
    """A project in ``folder`` with ``rows`` rows in the dataset that will change and 60 in the quiet one."""
    root = folder / "project"
    (root / "datasets").mkdir(parents=True)
    (root / "workspace.yaml").write_text("load_from: []\n")
    shutil.copytree(Path(template.__file__).parent / "dbt_like_sql", root / "dbt_like_sql")
    # Few versions, so that publishing has old ones to remove.
    (root / "erasmo.yaml").write_text("keep_versions: 2\nlock_timeout: 30\n")
    model = tiny_causal_lm(folder / "model")
    for name in (CHANGING, QUIET):
        (root / "datasets" / f"{name}.yaml").write_text(_YAML.format(name=name, model=model))
    project = open_project(root, folder / "home")
    write_source(project, _customers(range(60), random.Random(0)), QUIET)
    write_source(project, _customers(range(rows), random.Random(1)))
    return project


def source_path(project: Project, name: str = CHANGING) -> Path:
    """File of a dataset's table."""
    return project.root / f"{name}.parquet"


def write_source(project: Project, frame: pl.DataFrame, name: str = CHANGING) -> None:
    """Replace a dataset's table in one step, as a careful producer does."""
    write_table(frame, source_path(project, name))


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file that appears whole."""
    temporary = path.with_name(f".{path.name}.new")
    frame.write_parquet(temporary)
    temporary.replace(path)


def change(frame: pl.DataFrame, decision: str, random_: random.Random) -> pl.DataFrame:
    """Rows added, changed and removed: a few where it shall ``refresh``, 40 % changed where it shall ``retrain``."""
    ids = frame["id"].to_list()
    gone = set(random_.sample(ids, random_.randint(1, 3)))
    kept = [i for i in ids if i not in gone]
    count = round(0.4 * len(kept)) if decision == "retrain" else random_.randint(1, 4)
    edited = set(random_.sample(kept, count))
    first = max(ids) + 1
    # A new visit reads otherwise than any before, so that every change is one.
    text = pl.format("{} and came {} times", "note", pl.lit(str(random_.randrange(10**6))))
    changed = frame.filter(~pl.col("id").is_in(gone)).with_columns(
        note=pl.when(pl.col("id").is_in(edited)).then(text).otherwise("note").str.slice(-60)
    )
    return pl.concat([changed, _customers(range(first, first + random_.randint(1, 3)), random_)])


def _customers(numbers: range, random_: random.Random) -> pl.DataFrame:
    """Three planted groups, told apart by job, age and a text."""
    kinds = [_KINDS[i % 3] for i in numbers]
    return pl.DataFrame(
        {
            "id": list(numbers),
            "age": [age + random_.randrange(4) for _, age, _ in kinds],
            "job": [job for job, _, _ in kinds],
            "note": [f"{note} in {random_.choice(_SEASONS)}" for _, _, note in kinds],
            "email": [f"person{i}@example.org" for i in numbers],
            "kind": [job[0].upper() for job, _, _ in kinds],
        }
    )
