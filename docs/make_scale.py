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
from benchmarks.speed.tables import workers
from docs.make_performance import filled, together
from erasmo_dagster.settings import AdapterSettings

PAGE = Path(__file__).parent / "scale.md"
RAY = Path(__file__).parent / "ray.md"
_NIGHT = 10  # hours
_MILLION = "1000000"
_FAR_ROWS, _GPUS = 10_000_000, 8
_TFLOPS = 100.0  # of one GPU on the model's layers: assumed, since none was at hand
_FAR_TABLES = ("bank", "clothing")  # one whose rows begin alike, and one of free text
_AROUND = {
    "source, text": ("source_table", "refresh_plan", "text_corpus"),
    "segments, figures, profiles": ("segments", "segment_metrics", "segment_profile"),
    "published": ("published_segments",),
}
_READ_BY_MODEL = ("adapter", "embeddings", "refresh: adapter", "refresh: refresh_plan", "refresh: embeddings")


def main(*results: Path, page: Path = PAGE, ray: Path = RAY) -> None:
    """Write the tables of the results files into the pages. Raises ErasmoError for others, or without marks."""
    found = together([read_results(file) for file in results])
    tables = {page: {"costs": costs(found), "hours": hours(found), "far": far(found)}, ray: {"workers": workers(found)}}
    for file, own in tables.items():
        text = file.read_text(encoding="utf-8")
        for name, table in own.items():
            text = filled(text, name, markdown(table) if table.rows else "None.", file)
        file.write_text(text, encoding="utf-8")


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


def far(results: Mapping[str, Any]) -> Table:
    """Hours of each stage for ten million rows on eight GPUs, from the measured rates; the GPUs' own is assumed."""
    lines = []
    for name, told in results.get("embedding", {}).items():
        if not isinstance(told, Mapping) or name not in _FAR_TABLES:
            continue
        each = {
            what: sum(piece[what] for piece in told["pieces"]) / sum(piece["ours"]["rows"] for piece in told["pieces"])
            for what in ("operations", "tokens")
        }
        lines += [(name, *line) for line in _far(each["operations"], each["tokens"], results)]
    head = ("table", "what", "rate", "of what", "hours")
    return Table("Ten million rows on eight GPUs", head, tuple(lines))


def _far(operations: float, tokens: float, results: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Each stage's rate, of what, and hours; ``operations`` and ``tokens`` are those of a row."""

    def line(what: str, rate: float, unit: str, amount: float) -> tuple[str, str, str, str]:
        return what, f"{rate:,.0f}", unit, f"{amount / rate / 3600:,.2f}"

    done, clustering = results.get("workers", {}), results.get("memory", {}).get(_MILLION, {})
    yield line("the model, assumed", _GPUS * _TFLOPS, "TFLOP/s of eight", _FAR_ROWS * operations / 1e12)
    if (rate := done.get("tokenizing", {}).get("rate", {}).get("local")) is not None:
        yield line("tokenizing", _GPUS * rate, "tokens a second of eight", _FAR_ROWS * tokens)
    if (rate := done.get("transport", {}).get("rate", {}).get("ray_2")) is not None:
        yield line("vectors through Ray to the disk", rate, "rows a second", _FAR_ROWS)
    for what, stages in _AROUND.items():
        seconds = sum(clustering.get(stage, {}).get("seconds", 0.0) for stage in stages)
        if seconds:
            yield line(what, 1e6 / seconds, "rows a second", _FAR_ROWS)


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
