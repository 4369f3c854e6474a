"""What the published file and the warehouse hold, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from benchmarks.faults.scratch import CHANGING, QUIET
from erasmo_dagster import template
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.settings import Project, load_dataset
from erasmo_dagster.store.artifacts import adapter_dir, snapshot_path, state_dir
from erasmo_dagster.store.sources import fingerprint_of
from erasmo_dagster.store.versions import FITTED_STATE, STAGES
from erasmo_dagster.store.watch import look

_TABLES = (
    "segments",
    "segment_sizes",
    "segment_metrics",
    "segment_profile",
    "segment_descriptions",
    "segment_values",
    "segment_memberships",
    "segment_leaderboard",
    "segment_history",
    "segment_transitions",
    "publish_log",
)
# Tables about all of the file, and those that the models of dbt_like_sql become.
_OTHERS = ("mart_tests", "file_info", "experiments")
_MARTS = tuple(sorted(path.stem for path in (Path(template.__file__).parent / "dbt_like_sql" / "marts").glob("*.sql")))
# Each query names what is wrong; no row means that nothing is.
_WHOLE = {
    "rows twice in segments": "SELECT dataset, entity_key FROM segments GROUP BY ALL HAVING count(*) > 1",
    "segment_sizes disagree": """
        SELECT * FROM (SELECT dataset, segment_id, count(*) AS n FROM segments GROUP BY ALL) a
        FULL JOIN segment_sizes b USING (dataset, segment_id) WHERE a.n IS DISTINCT FROM b.rows""",
    "several versions of one dataset": """
        SELECT dataset FROM (
            SELECT dataset, version FROM segments UNION SELECT dataset, version FROM segment_sizes
            UNION SELECT dataset, version FROM segment_metrics
            UNION SELECT dataset, version FROM segment_profile
            UNION SELECT dataset, version FROM segment_descriptions
            UNION SELECT dataset, version FROM segment_overview
            UNION SELECT dataset, arg_max(version, publish_id) FROM publish_log GROUP BY ALL
        ) GROUP BY ALL HAVING count(*) > 1""",
    "segments without a description": """
        SELECT dataset, segment_id FROM segment_sizes EXCEPT SELECT dataset, segment_id FROM segment_descriptions
        UNION ALL (SELECT dataset, segment_id FROM segment_descriptions
            EXCEPT SELECT dataset, segment_id FROM segment_sizes)""",
    "the marts are of other segments": """
        (SELECT dataset, segment_id, rows FROM segment_overview EXCEPT SELECT dataset, segment_id, rows
            FROM segment_sizes)
        UNION ALL (SELECT dataset, segment_id, rows FROM segment_sizes EXCEPT SELECT dataset, segment_id, rows
            FROM segment_overview)""",
    "tests of the marts fail": "SELECT test_name FROM mart_tests WHERE NOT passed AND severity = 'error'",
    "open stays are not the segments": """
        WITH stays AS (
            SELECT dataset, entity_key, segment_id, segment_name FROM segment_history WHERE valid_to IS NULL),
        present AS (SELECT dataset, entity_key, segment_id, segment_name FROM segments)
        (FROM stays EXCEPT ALL FROM present) UNION ALL (FROM present EXCEPT ALL FROM stays)""",
    "overlapping stays": """
        SELECT dataset, entity_key FROM (
            SELECT *, lag(valid_to, 1, valid_from) OVER stay AS before,
            lag(valid_to IS NULL, 1, false) OVER stay AS is_open
            FROM segment_history WINDOW stay AS (PARTITION BY dataset, entity_key ORDER BY valid_from))
        WHERE is_open OR before > valid_from""",
    "transitions do not add up": """
        SELECT publish_id FROM (
            SELECT publish_id, sum(rows) FILTER (to_segment_id IS NOT NULL) AS arrived,
                coalesce(sum(rows) FILTER (from_segment_id IS NOT NULL), 0) AS left_from
            FROM segment_transitions GROUP BY ALL) t
        FULL JOIN (SELECT publish_id, rows, lag(rows, 1, 0) OVER (PARTITION BY dataset ORDER BY publish_id) AS before
            FROM publish_log) l USING (publish_id)
        WHERE arrived IS DISTINCT FROM l.rows OR left_from IS DISTINCT FROM l.before""",
}


@dataclass(frozen=True)
class Content:
    """All rows of the published file by table, and the version and number of publishes of the changing dataset."""

    tables: dict[str, list[Any]]
    version: int
    publishes: int
    wide: pl.DataFrame

    def of_quiet(self) -> list[Any]:
        """Everything that concerns the dataset that nobody touches."""
        found: list[Any] = list(self.tables[f"{QUIET}_segmented"])
        return found + [row for table in _TABLES for row in self.tables[table] if QUIET in row]


def read_published(project: Project) -> tuple[Content | None, list[str]]:
    """The published file's content, and what is wrong with it as a file by itself."""
    try:
        with duckdb.connect(str(project.published), read_only=True) as con:
            names = sorted(name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall())
            expected = sorted([*_TABLES, *_OTHERS, *_MARTS, f"{CHANGING}_segmented", f"{QUIET}_segmented"])
            if names != expected:
                return None, [f"the published file has the tables {names}"]
            tables = {name: con.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for name in names}
            faults = [f"{what} (published)" for what, query in _WHOLE.items() if con.execute(query).fetchall()]
            for dataset in (CHANGING, QUIET):
                both = f"SELECT entity_key, segment_id, version FROM {dataset}_segmented EXCEPT ALL SELECT entity_key, "
                both += f"segment_id, version FROM segments WHERE dataset = '{dataset}'"
                sizes = [
                    con.execute(f"SELECT count(*) FROM {table}").fetchall()
                    for table in (f"{dataset}_segmented", f"(FROM segments WHERE dataset = '{dataset}')")
                ]
                if con.execute(both).fetchall() or sizes[0] != sizes[1]:
                    faults.append(f"{dataset}_segmented is not segments (published)")
            wide = pl.from_arrow(con.sql(f"FROM {CHANGING}_segmented").to_arrow_table())
            assert isinstance(wide, pl.DataFrame)
    except duckdb.Error as error:
        return None, [f"the published file cannot be read: {str(error).splitlines()[0]}"]
    version = next((row[5] for row in tables["segments"] if row[0] == CHANGING), 0)
    publishes = sum(row[1] == CHANGING for row in tables["publish_log"])
    return Content(tables, version, publishes, wide), faults


def holds(content: Content, frame: pl.DataFrame) -> bool:
    """Whether the file has exactly these rows of the source, every cell of them."""
    columns = frame.columns
    return content.wide.select(columns).sort("id").equals(frame.sort("id"))


def warehouse_faults(project: Project, frame: pl.DataFrame, content: Content) -> list[str]:
    """What is wrong in the warehouse, or between it and the published file, once a run has ended well."""
    faults = []
    with duckdb.connect(str(project.warehouse), read_only=True) as con:

        def rows(query: str) -> list[Any]:
            found: list[Any] = con.execute(query).fetchall()
            return found

        tables = [
            name for (name,) in rows("SELECT table_name FROM duckdb_tables() WHERE table_name ~ 'embeddings_[0-9]+'")
        ]
        for table in ("corpus", "segments", *tables):
            if rows(f"SELECT 1 FROM {table} GROUP BY dataset, version, entity_key HAVING count(*) > 1"):
                faults.append(f"rows twice in {table} (warehouse)")
        written = {"corpus": "text_corpus", "segments": "segments", **dict.fromkeys(tables, "embeddings")}
        for table, stage in written.items():
            if rows(
                f"SELECT DISTINCT dataset, version FROM {table} EXCEPT SELECT dataset, version FROM stage_outputs"
                f" WHERE stage IN ('{stage}', 'new_vectors') AND output_version = version"
            ):
                faults.append(f"rows of no recorded stage in {table} (warehouse)")
        ((version, log),) = rows(
            "SELECT version, (SELECT count(*) FROM publish_log l WHERE l.dataset = p.dataset) FROM published_versions p"
            f" WHERE dataset = '{CHANGING}'"
        )
        if (version, log) != (content.version, content.publishes):
            faults.append(
                f"the warehouse says version {version} after {log} publishes, the published file"
                f" {content.version} after {content.publishes}"
            )
        held = dict(
            rows(
                f"SELECT stage, output_version FROM stage_outputs WHERE dataset = '{CHANGING}' AND version = {version}"
            )
        )
        for table, stage in written.items():
            if table in ("corpus", "segments") and stage in held:
                got = rows(f"SELECT entity_key FROM {table} WHERE dataset = '{CHANGING}' AND version = {held[stage]}")
                if sorted(got) != sorted((str(i),) for i in frame["id"]):
                    faults.append(f"keys of {table} are not the source's (warehouse)")
        if rows("SELECT 1 FROM versions GROUP BY dataset, run_id HAVING count(*) > 1"):
            faults.append("two versions of one run (warehouse)")
    faults += [f"the published version lacks {stage}" for stage in (*STAGES, FITTED_STATE) if stage not in held]
    return faults + _file_faults(project, held)


def _file_faults(project: Project, held: dict[str, int]) -> list[str]:
    """What is wrong with the files of the published version, and what killed publishes have left."""
    faults = [f"left behind: {path.name}" for path in project.published.parent.iterdir() if path != project.published]
    if "source_table" in held and not snapshot_path(project, CHANGING, held["source_table"]).is_file():
        faults.append("the published version's snapshot is gone")
    if "adapter" in held and not adapter_dir(project, CHANGING, held["adapter"]).is_dir():
        faults.append("the published version's adapter is gone")
    try:
        if FittedState.load(state_dir(project, CHANGING, held.get("segments", 0))).clustering is None:
            faults.append("the published version's fitted state has no segments")
    except ErasmoError as error:
        faults.append(str(error))
    return faults


def source_digest(project: Project) -> str:
    """Digest of the fingerprint of the changing dataset's source as it is now."""
    return look(CHANGING, load_dataset(project, CHANGING), project, None).fingerprint.digest


def logged_digest(content: Content) -> str:
    """Digest that the last publish of the changing dataset has in the log."""
    last = max((row for row in content.tables["publish_log"] if row[1] == CHANGING), default=None)
    return str(last[4]) if last else ""


def snapshot_digest(project: Project, version: int) -> str:
    """Digest of what the version's snapshot holds, hashed anew from the file."""
    with duckdb.connect(str(project.warehouse), read_only=True) as con:
        row = con.execute(
            "SELECT output_version FROM stage_outputs WHERE dataset = ? AND version = ? AND stage = 'source_table'",
            [CHANGING, version],
        ).fetchone()
    return fingerprint_of(snapshot_path(project, CHANGING, row[0])).digest if row else ""


def decision_of(project: Project, version: int) -> str:
    """What the plan of a version decided; empty where it has none."""
    with duckdb.connect(str(project.warehouse), read_only=True) as con:
        row = con.execute(
            "SELECT details->>'$.plan.decision.mode' FROM stage_outputs"
            " WHERE dataset = ? AND version = ? AND stage = 'refresh_plan'",
            [CHANGING, version],
        ).fetchone()
    return str(row[0]) if row else ""
