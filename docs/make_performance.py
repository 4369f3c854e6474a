"""Write the tables of docs/performance.md from results files: ``python -m docs.make_performance FILE.json [MORE ...]``.

The benchmark must have run (``python -m benchmarks.speed --data DIR --out RESULTS.json``). Of a part that several files
have, the last one's is taken; machine, versions and command are told of each file. A table stands between the marks
``<!-- NAME -->`` and ``<!-- /NAME -->``; a name without marks is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.tables import Table, markdown
from benchmarks.speed import tables
from benchmarks.speed.results import PARTS, read_results
from erasmo_dagster.errors import ErasmoError

PAGE = Path(__file__).parent / "performance.md"
TABLES: dict[str, Callable[[Mapping[str, Any]], Table]] = {
    "targets": tables.targets,
    "embedding": tables.embedding,
    "rates": tables.rates,
    "finetuning": tables.finetuning,
    "text": tables.listed("text"),
    "clustering": tables.clustering,
    "closeness": tables.closeness,
    "memory": tables.memory,
    "lineage": tables.listed("lineage"),
    "precision": tables.listed("precision"),
    "errors": tables.errors,
}


def main(*results: Path, page: Path = PAGE) -> None:
    """Write every table of the results files into the page. Raises ErasmoError for others, or without marks."""
    read = [read_results(file) for file in results]
    found = together(read)
    text = page.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        table = make(found)
        text = filled(text, name, markdown(table) if table.rows else "None.", page)
    page.write_text(filled(text, "run", _runs(read), page), encoding="utf-8")


def _runs(read: Sequence[Mapping[str, Any]]) -> str:
    """By what commands, and on what, each file was measured: what several have in common is told once."""
    commands: dict[str, list[str]] = {}
    for told in read:
        parts = ", ".join(name for name in PARTS if name in told)
        command = told.get("command", "python -m benchmarks.speed")
        commands.setdefault(_setting(told), []).append(f"- `{command}`: {parts or 'nothing'}")
    return "\n\n".join("\n".join([*own, setting]) for setting, own in commands.items())


def _setting(told: Mapping[str, Any]) -> str:
    """What a file was measured on."""
    software = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    device = told.get("device", "cpu")
    lines = {
        "Tables": "made ones of like shape" if told.get("data") == "synthetic" else "real ones",
        **told["machine"],
        **({} if device == "cpu" else {"Accelerator": device}),
        "Threads": f"{told['threads']} for every engine" if "threads" in told else "",
        "Base model": told.get("base_model", ""),
        "Software": software,
    }
    return "\n".join(f"- {what}: {text}" for what, text in lines.items() if text)


def together(read: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts of several results; of one that several have, the last."""
    return {name: told[name] for told in read for name in PARTS if name in told}


def filled(page: str, name: str, text: str, file: Path) -> str:
    """The page with ``text`` between the marks of ``name``. Raises ErasmoError where it has none."""
    mark = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not mark.search(page):
        raise ErasmoError(f"Got no marks <!-- {name} --> in {file}", expected=f"<!-- {name} --> and <!-- /{name} -->")
    return mark.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def _told(arguments: Sequence[str]) -> None:
    if not arguments:
        raise SystemExit("Usage: python -m docs.make_performance RESULTS.json [MORE.json ...]")
    try:
        main(*map(Path, arguments))
    except ErasmoError as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    _told(sys.argv[1:])
