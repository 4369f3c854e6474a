"""Write the tables of docs/experiments.md from results: ``python -m docs.make_experiments [NAME ...]``.

The experiments must have run in this project (``erasmo experiment run NAME --data DIR``). A table stands between the
marks ``<!-- NAME -->`` and ``<!-- /NAME -->``; one without results stays as it is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments.machine import machine
from erasmo_dagster.experiments.run import load_results
from erasmo_dagster.experiments.settings import find_experiment
from erasmo_dagster.experiments.tables import COSTS, costs, failures, markdown_tables
from erasmo_dagster.settings import find_project
from erasmo_dagster.show_experiments import ready_settings

PAGE = Path(__file__).parent / "experiments.md"
FIGURES = {
    "paper-1": ("silhouette", "calinski_harabasz", "davies_bouldin", "gower_silhouette", "ari"),
    "ablation": ("ari", "gower_silhouette", "silhouette"),
    "scale-noise": ("ari", "gower_silhouette", "silhouette"),
    "transfer": ("ari", "gower_silhouette", "silhouette"),
    "algorithms": ("ari", "nmi", "accuracy", "gower_silhouette", "silhouette"),
    "sizes": ("ari", "nmi", "gower_silhouette", "silhouette"),
    "paper-2": ("f1_weighted", "ari", "homogeneity", "silhouette", "calinski_harabasz"),
}


def main(names: list[str]) -> None:
    """Write the tables of the experiments that have results."""
    project = find_project()
    page = PAGE.read_text(encoding="utf-8")
    for name in names or list(FIGURES):
        find_experiment(name)
        try:
            frame = load_results(project, name)
        except ErasmoError as error:
            print(f"{name}: {error}")
            continue
        settings = ready_settings(name)
        table = markdown_tables(
            frame, figures=FIGURES.get(name), published=settings.published_figures() if settings else None
        )
        done = frame.filter(pl.col("status") == "done").height
        told = [f"{done} cells done, {frame.height - done} failed.", table.strip(), _costs(frame)]
        told += [
            f"Failed, {f['cells']} cells of {f['encoder']}, {f['algorithm']}: {f['error']}" for f in failures(frame)
        ]
        page = _filled(page, name, "\n\n".join(told) + "\n")
    page = _filled(page, "machine", "\n".join(f"- {what}: {text}" for what, text in machine().items()) + "\n")
    PAGE.write_text(page, encoding="utf-8")


def _filled(page: str, name: str, text: str) -> str:
    mark = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not mark.search(page):
        raise SystemExit(f"Got no marks <!-- {name} --> in {PAGE}")
    return mark.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", page)


def _costs(frame: pl.DataFrame) -> str:
    """What each encoder took on each table, as Markdown; those that read as much in the same seconds are one line."""
    head = ["table", "encoder", "rows", "dimensions", "seconds of training", "of embedding", "of clustering"]
    lines = [
        [
            f"{c['dataset']}, {c['variant']}",
            c["encoder"],
            *("–" if c[name] is None else f"{c[name]:,.0f}" for name in ("rows", "dimensions")),
            *("–" if c[name] is None else f"{c[name]:.1f}" for name in COSTS),
        ]
        for c in _alike(costs(frame))
    ]
    rows = [head, ["---", "---", *["---:"] * 5], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _alike(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        read = tuple(
            line[name] for name in ("dataset", "variant", "rows", "dimensions", "train_tokens", "embed_tokens")
        )
        seconds = tuple(round(line[name] or 0) for name in ("train_seconds", "embed_seconds"))
        found.setdefault((*read, *(seconds if seconds[1] else (line["encoder"],))), []).append(line)
    return [
        {**same[0], "encoder": same[0]["encoder"] + (f" and {len(same) - 1} more alike" if same[1:] else "")}
        for same in found.values()
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
