"""Write the tables of docs/quality.md from results files: ``python -m docs.make_quality RESULTS.json [MORE.json ...]``.

Machine, versions and settings are told of the first file; of a row that several have, the last file's is taken.
The benchmark must have run (``python -m benchmarks.quality --data DIR --suite SUITE --out RESULTS.json``). A table
stands between the marks ``<!-- NAME -->`` and ``<!-- /NAME -->``; a name without marks is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.results import Row, read_results
from benchmarks.quality.tables import (
    Table,
    ablation,
    by_table,
    duels,
    errors,
    idea_list,
    markdown,
    oracle,
    overall,
    rows_by_table,
    without_ideas,
)
from erasmo_dagster.errors import ErasmoError

PAGE = Path(__file__).parent / "quality.md"
TABLES: dict[str, Callable[[Sequence[Row]], Table]] = {
    "by-table": by_table,
    "means": overall,
    "duels": duels,
    "oracle": oracle,
    "ideas": ablation,
    "errors": errors,
}


def main(*results: Path, page: Path = PAGE) -> None:
    """Write every table of the results files into the page. Raises ErasmoError for others, or without marks."""
    read = [read_results(file) for file in results]
    told = read[0][0]
    rows = list({(row.dataset, row.method, row.seed): row for _, found in read for row in found}.values())
    text = page.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        table = make(rows)
        text = _filled(text, name, markdown(table) if table.rows else "None.", page)
    text = _filled(text, "idea-list", idea_list(), page)
    text = _filled(text, "run", _run(told, without_ideas(rows)), page)
    page.write_text(_filled(text, "machine", _machine(told), page), encoding="utf-8")


def _run(told: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """What was run: the tables with their rows, and the seeds."""
    asked = told.get("settings", {})
    tables = ", ".join(f"{table} ({most:,} rows)" for table, most in rows_by_table(rows).items())
    seeds = len({row.seed for row in rows})
    lines = [f"- Tables: {tables}", f"- Seeds: {seeds}, each for the rows drawn and for the algorithm"]
    if {"erasmo", "erasmo-nv"} & {row.method for row in rows} and "tokens" in asked:
        lines.append(f"- erasmo and erasmo-nv: {asked['tokens']:,} training tokens at most")
    if any(row.method == "paper" for row in rows) and "paper_rows" in asked:
        lines.append(f"- paper: {asked['paper_rows']} rows of each table")
    return "\n".join(lines)


def _machine(told: Mapping[str, Any]) -> str:
    software = ", ".join(f"{name} {number}" for name, number in told.get("versions", {}).items())
    lines = {**told.get("machine", {}), "Software": software}
    return "\n".join(f"- {what}: {text}" for what, text in lines.items())


def _filled(page: str, name: str, text: str, file: Path) -> str:
    mark = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not mark.search(page):
        raise ErasmoError(f"Got no marks <!-- {name} --> in {file}", expected=f"<!-- {name} --> and <!-- /{name} -->")
    return mark.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("Usage: python -m docs.make_quality RESULTS.json [MORE.json ...]")
    try:
        main(*map(Path, sys.argv[1:]))
    except ErasmoError as error:
        raise SystemExit(f"Error: {error}") from None
