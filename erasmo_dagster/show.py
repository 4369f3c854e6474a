"""What the command line prints, read from the published file, the warehouse and Dagster's instance."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import duckdb
from rich.markup import escape
from rich.table import Table

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, load_dataset
from erasmo_dagster.show_marts import marts_fault
from erasmo_dagster.show_tables import legible, number, open_published, print_table
from erasmo_dagster.show_targets import print_targets
from erasmo_dagster.store.sql import ONE_SELECT, statement_kinds

_WRITE_ELSEWHERE = "write in a database of your own: ATTACH the published file there, read-only"

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console

    from erasmo_dagster.defs.instance import RunReport


def print_query(out: Console, project: Project, query: str, *, format: str, limit: int) -> None:
    """Run one query on the published file and print its rows as a table, CSV or JSON lines."""
    if format not in ("table", "csv", "json"):
        raise ErasmoError(f"Got --format {format}", expected="table, csv or json")
    with open_published(project) as con:
        try:
            _print_rows(out, _selected(con, query), format=format, limit=limit)
        except duckdb.Error as error:
            raise ErasmoError(f"Got a query that fails: {' '.join(str(error).split())}") from error


def _selected(con: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyConnection:
    """Run a query that only reads. Whatever its access, DuckDB lets COPY write over the very file that is open."""
    kinds = statement_kinds(con, query)
    if kinds != ONE_SELECT:
        raise ErasmoError(
            f"Got {' and '.join(kinds) or 'no statement'}",
            expected="one SELECT that only reads (also FROM, WITH, DESCRIBE, SUMMARIZE or SHOW TABLES)",
            fix=_WRITE_ELSEWHERE,
        )
    return con.execute(query)


def _print_rows(out: Console, result: duckdb.DuckDBPyConnection, *, format: str, limit: int) -> None:
    names = [column[0] for column in result.description or []]
    if format == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(names)
        while rows := result.fetchmany(10_000):
            writer.writerows(rows)
    elif format == "json":
        while rows := result.fetchmany(10_000):
            for row in rows:
                sys.stdout.write(json.dumps(dict(zip(names, row, strict=True)), default=str) + "\n")
    else:
        rows = result.fetchmany(limit + 1)
        print_table(out, names, rows[:limit])
        if len(rows) > limit:
            out.print(f"... more than {limit} rows: see --limit, or --format csv for all", highlight=False)


def print_dataset(out: Console, project: Project, name: str) -> None:
    """One dataset: its segments, its figures and how to read them."""
    from erasmo_dagster.method.quality import read_metrics, read_stability

    settings = load_dataset(project, name)
    with open_published(project) as con:
        sizes = con.execute(
            "SELECT segment_id, segment_name, rows, share, version FROM segment_sizes WHERE dataset = ? ORDER BY 1",
            [name],
        ).fetchall()
        told = con.execute(
            "SELECT segment_name, summary, rule, rule_precision, rule_coverage FROM segment_descriptions"
            " WHERE dataset = ? ORDER BY segment_id",
            [name],
        ).fetchall()
        figures = con.execute(
            "SELECT metric, value, description FROM segment_metrics WHERE dataset = ?", [name]
        ).fetchall()
    if not sizes:
        raise ErasmoError(f"Got dataset {name!r}, which is not published yet", fix=f"erasmo run {name}")
    rows = sum(size[2] for size in sizes)
    out.print(f"[bold]{name}[/bold] version {sizes[0][4]}: {rows} rows in {len(sizes)} segments", highlight=False)
    if settings.description:
        out.print(escape(legible(settings.description)), highlight=False)
    bars = Table("segment", "name", "rows", "share", "", box=None, pad_edge=False)
    for segment, label, count, share, _ in sizes:
        bars.add_row(str(segment), escape(legible(label)), str(count), f"{share:.1%}", "█" * max(1, round(30 * share)))
    out.print(bars)
    for label, summary, rule, precision, coverage in told:
        out.print(escape(legible(f"{label}: {summary}" if summary else label)), highlight=False, soft_wrap=True)
        if rule:
            holds = f"    rule: {rule} ({precision:.0%} of such rows are in it, {coverage:.0%} of it are such rows)"
            out.print(escape(legible(holds)), highlight=False, soft_wrap=True)
    print_table(out, ["figure", "value", "how to read it"], [(m, number(v), d) for m, v, d in sorted(figures)])
    told_figures = {metric: value for metric, value, _ in figures}
    for reading in filter(None, (read_metrics(told_figures), read_stability(told_figures))):
        out.print(escape(reading), highlight=False)


def print_run(out: Console, project: Project, name: str, report: RunReport) -> None:
    """What a run did, stage by stage, and what it published."""
    stages = Table("stage", "made by", "seconds", box=None, pad_edge=False)
    for stage, metadata in report.metadata.items():
        stages.add_row(stage, str(metadata.get("made_by", "this run")), str(metadata.get("seconds", "")))
    out.print(f"[bold]{name}[/bold]: run {report.run_id}", highlight=False)
    out.print(stages)
    for note in _notes(report.metadata):
        out.print(note, highlight=False, markup=False)
    print_dataset(out, project, name)
    out.print(f"published in {project.published}", highlight=False, soft_wrap=True)


def _notes(metadata: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a run did that its user should know of."""
    plan, corpus, adapter, vectors, segments = (
        metadata.get(stage, {}) for stage in ("refresh_plan", "text_corpus", "adapter", "embeddings", "segments")
    )
    if plan:
        yield f"{plan['decision']}, since\n{plan['reasons']}"
    if (left_out := corpus.get("left_out", "nothing")) != "nothing":
        yield "columns left out of the text:\n" + str(left_out)
    if cut := adapter.get("truncated_rows"):
        yield f"{cut} rows were cut to adapter.max_length tokens in training"
    if cut := vectors.get("truncated_rows"):
        yield f"{cut} rows were cut to the tokens that the model can take (embedding.max_length)"
    if notes := segments.get("notes"):
        yield str(notes)


def print_status(out: Console, project: Project, instance: dg.DagsterInstance) -> list[str]:
    """One line a dataset: how it is, what is published, what to know. Returns what is wrong, one entry a dataset."""
    from erasmo_dagster.defs.health import WRONG, dataset_health

    published: dict[str, tuple[Any, ...]] = {}
    if project.published.is_file():
        with open_published(project) as con:
            rows = con.execute(
                "SELECT dataset, version, rows, segments, published_at FROM publish_log"
                " QUALIFY row_number() OVER (PARTITION BY dataset ORDER BY publish_id DESC) = 1"
            ).fetchall()
            published = {row[0]: row[1:] for row in rows}
    lines, wrong = [], []
    for health in dataset_health(project, instance):
        version, count, segments, when = published.get(health.name, ("-", "-", "-", "-"))
        lines.append((health.name, health.state, version, count, segments, str(when)[:19], health.note))
        if health.state in WRONG:
            wrong.append(f"{health.name} is {health.state}")
    print_table(out, ["dataset", "state", "version", "rows", "segments", "published (UTC)", "note"], lines)
    if (marts := marts_fault(project)) is not None:
        out.print(f"marts: {marts}", highlight=False, markup=False, soft_wrap=True)
        wrong.append("the marts are failing")
    return [*wrong, *print_targets(out, project)]


def print_models(out: Console, project: Project) -> None:
    """The base models on this machine."""
    from erasmo_dagster.method.base_models import list_models

    found = list_models(project.models)
    if not found:
        out.print(f"no base model in {project.models} yet; a run fetches the one that it needs", highlight=False)
        return
    rows = [
        (m.name, f"{m.size_bytes / 1e6:.0f} MB", "ready" if m.ready else "unfinished", m.revision[:12], m.path)
        for m in found
    ]
    print_table(out, ["model", "size", "state", "revision", "folder"], rows)
