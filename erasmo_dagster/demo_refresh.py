"""The demo's second act: a table changes, its segments follow without training, and it changes back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import yaml

from erasmo_dagster.settings import Project, dataset_files, load_dataset, open_project
from erasmo_dagster.show_tables import open_published, print_table
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.versions import published_versions, stage_output
from erasmo_dagster.store.warehouse import open_warehouse

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

NEW, CHANGED, GONE = 12, 6, 3


def show_refresh(out: Console, project: Project, instance: dg.DagsterInstance, name: str) -> None:
    """Change a copy of a published table, refresh, say what happened; then refresh from the table itself again.

    The copy is in a project of its own that shares the home: what is published in the end is true to the real table.
    """
    from erasmo_dagster.defs.instance import run_dataset

    out.rule(f"{name}: the table changes")
    changed = _changed_project(project, name)
    _print(out, project, name, run_dataset(instance, changed, name).metadata)
    out.rule(f"{name}: and changes back")
    _print(out, project, name, run_dataset(instance, project, name).metadata)


def _changed_project(project: Project, name: str) -> Project:
    with open_warehouse(project.warehouse) as con:
        source = stage_output(con, name, published_versions(con)[name], "source_table")
    assert source is not None
    table = pl.read_parquet(snapshot_path(project, name, source.version), glob=False).drop(ENTITY_KEY)
    (project.home / "demo" / "datasets").mkdir(parents=True, exist_ok=True)
    key = load_dataset(project, name).key[0]
    edit(table, key).write_parquet(project.home / "demo" / f"{name}.parquet")
    settings = yaml.safe_load(dataset_files(project)[name].read_text())
    settings["source"] = {"path": f"{name}.parquet"}
    (project.home / "demo" / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    shutil.rmtree(project.home / "demo" / "dbt_like_sql", ignore_errors=True)
    if project.sql_dir.is_dir():
        shutil.copytree(project.sql_dir, project.home / "demo" / "dbt_like_sql")
    return open_project(project.home / "demo", project.home)


def edit(table: pl.DataFrame, key: str, *, seed: int = 0) -> pl.DataFrame:
    """The table with some rows gone, some changed and some new, made from rows that it has; ``key`` is a number."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(table.height)
    gone, changed, models = np.split(rows[: GONE + CHANGED + NEW], [GONE, GONE + CHANGED])
    floats = [name for name, kind in table.schema.items() if kind.is_float()]
    heavier = [(pl.col(name) * 1.05).round(1).alias(name) for name in floats]
    last = int(table[key].cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    keys = pl.Series(key, range(last + 1, last + 1 + NEW), dtype=table.schema[key])
    kept = table.with_row_index("__row").filter(~pl.col("__row").is_in(gone.tolist()))
    edited = pl.concat(
        [
            kept.filter(~pl.col("__row").is_in(changed.tolist())),
            kept.filter(pl.col("__row").is_in(changed.tolist())).with_columns(heavier),
        ]
    )
    return pl.concat([edited.sort("__row").drop("__row"), table[models].with_columns(keys, *heavier)])


def _print(out: Console, project: Project, name: str, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    plan, vectors = metadata["refresh_plan"], metadata["embeddings"]
    seconds = sum(float(stage.get("seconds", 0)) for stage in metadata.values())
    out.print(
        f"changed      {plan.get('rows_new', 0)} rows new, {plan.get('rows_changed', 0)} changed,"
        f" {plan.get('rows_gone', 0)} gone",
        highlight=False,
    )
    out.print(f"decision     {plan['decision']}", highlight=False)
    for reason in str(plan["reasons"]).splitlines():
        out.print(f"             {reason}", highlight=False, markup=False, soft_wrap=True)
    rows = vectors["dagster/row_count"]
    out.print(
        f"re-embedded  {plan.get('texts_embedded', 0)} texts of {rows} rows; the run took {seconds:.0f} s",
        highlight=False,
    )
    with open_published(project) as con:
        moves = con.execute(
            "SELECT coalesce(from_segment_id::VARCHAR, 'new'), coalesce(to_segment_id::VARCHAR, 'gone'), rows"
            " FROM segment_transitions WHERE dataset = ? AND publish_id ="
            " (SELECT max(publish_id) FROM publish_log WHERE dataset = ?)"
            " AND from_segment_id IS DISTINCT FROM to_segment_id ORDER BY ALL",
            [name, name],
        ).fetchall()
    if moves:
        print_table(out, ["who moved: from", "to", "rows"], moves)
    else:
        out.print("who moved    nobody", highlight=False)
