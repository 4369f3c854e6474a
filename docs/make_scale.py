"""Write the tables of docs/scale.md from results files: ``python -m docs.make_scale RESULTS.json [MORE ...]``.

The files are those of ``python -m benchmarks.speed``; see :mod:`docs.make_performance`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.quality.tables import Table, markdown
from benchmarks.speed.results import read_results
from docs.make_performance import filled, together
from erasmo_dagster.settings import AdapterSettings

PAGE = Path(__file__).parent / "scale.md"
_NIGHT = 10  # hours
_MILLION = "1000000"
_READ_BY_MODEL = ("adapter", "embeddings", "refresh: adapter", "refresh: refresh_plan", "refresh: embeddings")


def main(*results: Path, page: Path = PAGE) -> None:
    """Write the tables of the results files into the page. Raises ErasmoError for others, or without marks."""
    found = together([read_results(file) for file in results])
    text = page.read_text(encoding="utf-8")
    for name, table in (("costs", costs(found)), ("hours", hours(found))):
        text = filled(text, name, markdown(table) if table.rows else "None.", page)
    page.write_text(text, encoding="utf-8")


def costs(results: Mapping[str, Any]) -> Table:
    """What each measured stage takes: a rate, or the seconds of a million rows."""
    return Table("What a stage costs", ("stage", "cost", "of what"), tuple(_costs(results)))


def hours(results: Mapping[str, Any]) -> Table:
    """Rows of each table that are embedded in an hour and in a night."""
    lines = []
    for name, told in results.get("embedding", {}).items():
        if isinstance(told, Mapping):
            rate, rows = told["rows_per_s"], told["rows"]
            tokens, distinct = told["tokens"] / rows, told["distinct_tokens"] / rows
            lines.append((name, f"{tokens:.0f}", f"{distinct:.0f}", *(_many(rate * 3600 * n) for n in (1, _NIGHT))))
    head = ("table", "tokens a row", "of distinct prefixes", "rows an hour", "rows a night")
    return Table("In an hour and in a night", head, tuple(lines))


def _costs(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, told in results.get("text", {}).items():
        if isinstance(told, Mapping) and "rows_per_s" in told:
            yield f"text, {name.replace('_', ' ')}", f"{told['rows_per_s']:,.0f} rows a second", "rows x columns"
    if (rate := results.get("finetuning", {}).get("tokens_per_s")) is not None:
        budget = AdapterSettings().max_tokens or 0
        yield "fine-tuning", f"{rate:,.0f} tokens a second", f"its budget: {budget / rate / 60:.0f} min for {budget:,}"
    for name, told in results.get("embedding", {}).items():
        if isinstance(told, Mapping):
            yield f"embedding, {name}", f"{told['distinct_tokens_per_s']:,.0f} tokens a second", "distinct prefixes"
    for name, told in results.get("clustering", {}).get("scale", {}).items():
        if found := told.get(_MILLION):
            yield f"clustering, {name}", f"{found['seconds']:,.0f} s, {found['peak_mb']:,.0f} MB", "a million rows x 64"
    for stage, found in results.get("memory", {}).get(_MILLION, {}).items():
        if stage not in _READ_BY_MODEL:  # a random model's speed tells nothing
            yield f"stage {stage}", f"{found['seconds']:,.0f} s, {found['peak_mb']:,.0f} MB", "a million rows x 6"


def _many(rows: float) -> str:
    return f"{rows / 1e6:,.1f} million" if rows >= 1e6 else f"{round(rows, -3):,.0f}"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("Usage: python -m docs.make_scale RESULTS.json [MORE.json ...]")
    main(*map(Path, sys.argv[1:]))
