"""What the command line prints of a dataset's versions: which there are, and how two of them differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.refresh.decision import RefreshPlan
from erasmo_dagster.settings import Project, check_name
from erasmo_dagster.show_tables import number, print_table
from erasmo_dagster.store.checks import read_checks
from erasmo_dagster.store.corpus import corpus_of, read_hashes
from erasmo_dagster.store.versions import STAGES, publications, stage_output
from erasmo_dagster.store.warehouse import (
    open_warehouse,
    read_metrics_of,
    read_names,
    read_segments,
)

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

_FIGURES = (
    *("separation", "gower_silhouette", "tree_accuracy", "stability"),
    *("silhouette", "calinski_harabasz", "davies_bouldin", "ari", "nmi"),
)


def print_versions(out: Console, project: Project, name: str) -> None:
    """A line a version: what was decided and why, what came out, and whether it passed its gate."""
    with _warehouse(project, name) as con:
        published = publications(con).get(name)
        versions = con.execute(
            "SELECT version, created_at FROM versions WHERE dataset = ? ORDER BY version DESC", [name]
        ).fetchall()
        lines, reasons = [], []
        for version, created in versions:
            planned = stage_output(con, name, version, "refresh_plan")
            decision = RefreshPlan.model_validate(planned.details["plan"]).decision if planned else None
            segments = stage_output(con, name, version, "segments")
            figures = read_metrics_of(con, name, version)
            lines.append(
                (
                    version,
                    str(created)[:19],
                    _standing(published, version),
                    decision.mode if decision else "",
                    segments.details["rows"] if segments else None,
                    segments.details["k"] if segments else None,
                    figures.get("gower_silhouette"),
                    figures.get("silhouette"),
                    figures.get("stability"),
                    _gate(con, name, version),
                )
            )
            if decision:
                reasons.append(f"{version} {decision.mode}: {'; '.join(decision.reasons)}")
    head = ["version", "made (UTC)", "", "decision", "rows", "segments", "gower", "silhouette", "stability", "gate"]
    print_table(out, head, lines)
    for reason in reasons:
        out.print(reason, highlight=False, markup=False, soft_wrap=True)


def _standing(published: Any, version: int) -> str:
    if published is None or published.version != version:
        return ""
    return "retired" if published.retired else "published"


def _gate(con: duckdb.DuckDBPyConnection, name: str, version: int) -> str:
    results = read_checks(con, name, version)
    failed = [result.name for result in results if not result.passed and result.blocking]
    warned = [result.name for result in results if not result.passed and not result.blocking]
    if failed:
        return f"blocked by {', '.join(failed)}"
    if not results or stage_output(con, name, version, "segment_metrics") is None:
        return "unfinished"
    return f"passed, warned by {', '.join(warned)}" if warned else "passed"


def print_diff(out: Console, project: Project, name: str, first: int, second: int) -> None:
    """How two versions differ: rows that came, went and changed, who moved between segments, figures side by side."""
    with _warehouse(project, name) as con:
        for version in (first, second):
            if any(stage_output(con, name, version, stage) is None for stage in STAGES):
                known = con.execute(
                    "SELECT version FROM versions WHERE dataset = ? ORDER BY version", [name]
                ).fetchall()
                raise ErasmoError(
                    f"Got version {version} of {name!r}, which is not kept whole",
                    expected=f"one of: {', '.join(str(v) for (v,) in known)}",
                    fix=f"erasmo versions {name}",
                )
        texts = [read_hashes(con, corpus_of(name, _held(con, name, v, "text_corpus"))) for v in (first, second)]
        rows = [read_segments(con, name, _held(con, name, v, "segments")) for v in (first, second)]
        called = [read_names(con, name, _held(con, name, v, "segment_profile")) for v in (first, second)]
        figures = [read_metrics_of(con, name, _held(con, name, v, "segment_metrics")) for v in (first, second)]
        same_adapter = len({_held(con, name, v, "adapter") for v in (first, second)}) == 1
    came = texts[1].join(texts[0], on="entity_key", how="anti").height
    went = texts[0].join(texts[1], on="entity_key", how="anti").height
    otherwise = texts[1].join(texts[0], on=["entity_key", "text_hash"], how="anti").height - came
    out.print(
        f"[bold]{escape(name)}[/bold] version {first} to {second}: {texts[0].height} to {texts[1].height} rows;"
        f" {came} new, {otherwise} changed, {went} gone; "
        + ("one training" if same_adapter else "trained anew: silhouettes of their vectors do not compare"),
        highlight=False,
    )
    pairs = rows[0].join(rows[1], on="entity_key", how="full", suffix="_now", coalesce=True)
    moves = pairs.group_by("segment_id", "segment_id_now").len().sort("segment_id", "segment_id_now", nulls_last=True)
    moved = pairs.filter(pairs["segment_id"] != pairs["segment_id_now"]).height
    out.print(f"{moved} rows of both moved to another segment", highlight=False)
    print_table(
        out,
        ["from", "name", "to", "name", "rows"],
        [
            ("new" if f is None else f, called[0].get(f, ""), "gone" if t is None else t, called[1].get(t, ""), n)
            for f, t, n in moves.iter_rows()
        ],
    )
    names = [n for n in _FIGURES if n in figures[0] or n in figures[1]]
    print_table(
        out,
        ["figure", f"version {first}", f"version {second}"],
        [(n, *(number(f.get(n)) for f in figures)) for n in names],
    )


def _held(con: duckdb.DuckDBPyConnection, name: str, version: int, stage: str) -> int:
    output = stage_output(con, name, version, stage)
    assert output is not None
    return output.version


@contextmanager
def _warehouse(project: Project, name: str) -> Iterator[duckdb.DuckDBPyConnection]:
    check_name(name)
    never = ErasmoError(f"Got dataset {name!r}, which has never run", fix=f"erasmo run {name}")
    if not project.warehouse.is_file():
        raise never
    with open_warehouse(project.warehouse, lock_timeout=project.settings.lock_timeout) as con:
        if con.execute("SELECT count(*) FROM versions WHERE dataset = ?", [name]).fetchall() == [(0,)]:
            raise never
        yield con
