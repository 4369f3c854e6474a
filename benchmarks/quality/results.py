"""What a run finds: a row for each table, method and seed, kept as they come, and the file of all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.quality.methods import DEFAULT, versions_of
from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.experiments.machine import machine
from erasmo_dagster.files import whole_file

FIGURES = ("ari", "nmi", "acc", "gower_silhouette", "eta2", "stability", "seeds", "order")
COSTS = ("seconds", "peak_mb")
_DIGITS = {**dict.fromkeys(FIGURES, 6), "seconds": 3, "peak_mb": 1}
_PACKAGES = (
    *("erasmo-dagster", "numpy", "polars", "scikit-learn", "scipy", "torch", "transformers", "peft"),
    *("sentence-transformers", "pandas", "prince", "kmodes", "skrub"),
)


@dataclass(frozen=True)
class Row:
    """One method on one table with one seed. ``k`` is the number of segments asked for, ``n`` the rows.

    ``seconds`` are those of the fit, what was kept from before included; ``peak_mb`` is the most that the process held
    meanwhile. ``stability`` and ``seeds`` are as :func:`~benchmarks.quality.judge.stability` gives them; ``order`` is
    the share of rows in the same segment when the columns come from last to first, of the first seed alone. A row with
    ``error`` has no figures.
    """

    dataset: str
    method: str
    seed: int
    k: int | None = None
    n: int | None = None
    ari: float | None = None
    nmi: float | None = None
    acc: float | None = None
    gower_silhouette: float | None = None
    eta2: float | None = None
    stability: float | None = None
    seeds: float | None = None
    order: float | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    error: str | None = None

    def rounded(self) -> Row:
        """With no more digits than mean something."""
        told = asdict(self)
        return Row(**told | {name: round(told[name], d) for name, d in _DIGITS.items() if told[name] is not None})


class Kept:
    """The rows that are done, in a file of JSON lines beside the results: what an interrupted run goes on from.

    Each is found by a digest of all that it depends on. Rows with an error are not kept, so that they are tried again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._rows: dict[str, Row] = {}
        known = {field.name for field in fields(Row)}
        for line in file.read_bytes().splitlines() if file.is_file() else ():
            try:
                told = json.loads(line)
                if set(told["row"]) == known:
                    self._rows[told["digest"]] = Row(**told["row"])
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a killed run

    def get(self, digest: str) -> Row | None:
        """The row, if it is done."""
        return self._rows.get(digest)

    def add(self, digest: str, row: Row) -> None:
        """Keep a row that is done. Raises ErasmoError for a full disk."""
        self._rows[digest] = row
        with disk_errors(self.file.parent):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"digest": digest, "row": asdict(row)}, ensure_ascii=False)
            with self.file.open("a+b") as out:
                # A killed run may have left half a line.
                out.seek(0, os.SEEK_END)
                if out.tell():
                    out.seek(-1, os.SEEK_END)
                    line = line if out.read(1) == b"\n" else "\n" + line
                out.write(line.encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())


def kept_beside(out: Path) -> Kept:
    """The rows that earlier runs with the same results file have done."""
    return Kept(out.with_name(f"{out.name}.partial.jsonl"))


def means(rows: Iterable[Row]) -> dict[str, dict[str, float | int | None]]:
    """Method -> the mean of every figure: over the seeds of a table, then over tables.

    A figure counts where it is defined; ``datasets`` is the number of tables with a result.
    """
    by_method: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        tables = by_method.setdefault(row.method, {})
        if row.error is None:
            tables.setdefault(row.dataset, []).append(row)
    return {
        method: {
            **{name: mean(table_means(tables, name).values(), _DIGITS[name]) for name in (*FIGURES, *COSTS)},
            "datasets": len(tables),
        }
        for method, tables in by_method.items()
    }


def table_means(tables: Mapping[str, Sequence[Row]], figure: str) -> dict[str, float]:
    """Table -> the mean of a figure over its rows that have it; tables without one are left out."""
    found = {name: [getattr(row, figure) for row in rows] for name, rows in tables.items()}
    return {name: fmean(known) for name, v in found.items() if (known := [x for x in v if x is not None])}


def mean(values: Iterable[float], digits: int) -> float | None:
    """The mean, None of nothing."""
    known = list(values)
    return round(fmean(known), digits) if known else None


def write_results(out: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the results file, whole or not at all, and give what is in it. Raises ErasmoError for a full disk."""
    about = {name: text for name, text in machine().items() if name != "Software"}
    results = {
        "machine": about,
        "versions": versions_of(*_PACKAGES),
        "default": DEFAULT,
        "settings": dict(settings),
        "rows": [asdict(row) for row in rows],
        "means": means(rows),
    }
    with whole_file(out) as file:
        file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def read_results(file: Path) -> tuple[dict[str, Any], list[Row]]:
    """A results file and its rows. Raises ErasmoError for another file."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return told, [Row(**row) for row in told["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ErasmoError(f"Got {file}", expected="a results file of `python -m benchmarks.quality`") from error
