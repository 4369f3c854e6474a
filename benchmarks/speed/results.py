"""What a run measures: pieces kept as they come, and the results file with what follows from them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.quality.methods import code_of_files, versions_of
from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.experiments.machine import machine
from erasmo_dagster.files import whole_file

PARTS = ("embedding", "finetuning", "text", "clustering", "memory", "lineage", "precision", "workers")
_PACKAGES = (
    *("erasmo-dagster", "numpy", "polars", "duckdb", "scikit-learn", "scipy", "torch", "transformers", "peft"),
    *("accelerate", "sentence-transformers", "dagster", "be-great"),
)
_HERE = Path(__file__).parent
_PACKAGE = _HERE.parents[1] / "erasmo_dagster"


class Pieces:
    """Measurements in a file of JSON lines beside the results: what an interrupted run goes on from.

    Each is found by all that it depends on, ``about`` what is the same for all of them.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file = file
        self._about = {**about, "code": code_of_files(_HERE, _PACKAGE), "versions": versions_of(*_PACKAGES)}
        self._known: dict[str, dict[str, Any]] = {}
        for line in file.read_bytes().splitlines() if file.is_file() else ():
            try:
                told = json.loads(line)
                self._known[told["digest"]] = dict(told["piece"])
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a killed run

    def get(self, **key: Any) -> dict[str, Any] | None:
        """The piece of this key, if it was measured."""
        return self._known.get(self._digest(key))

    def measured(self, measure: Callable[[], dict[str, Any]], **key: Any) -> dict[str, Any]:
        """The piece of this key, measured now unless it is there. Raises ErasmoError for a full disk."""
        if (found := self.get(**key)) is not None:
            return found
        found = measure()
        digest = self._digest(key)
        self._known[digest] = found
        with disk_errors(self.file.parent):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as out:
                # First the end of the line that a killed run may have left half.
                out.write(b"\n" + json.dumps({"digest": digest, "piece": found}).encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
        return found

    def remove(self) -> None:
        """Forget all of them: the run is done, and the next one measures anew."""
        self.file.unlink(missing_ok=True)

    def _digest(self, key: Mapping[str, Any]) -> str:
        told = json.dumps({**self._about, **key}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def pieces_beside(out: Path, **about: Any) -> Pieces:
    """The pieces that interrupted runs with the same results file have measured."""
    return Pieces(out.with_name(f"{out.name}.partial.jsonl"), about)


def begun(out: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The results to fill: machine, versions and ``asked``; with the parts that ``out`` holds of the same machine.

    So parts that are measured one by one come together in a file. Those of another machine, of other versions or of
    another effort are left out.
    """
    about = {name: text for name, text in machine().items() if name != "Software"}
    fresh = {"machine": about, "versions": versions_of(*_PACKAGES), **asked}
    try:
        before = read_results(out)
    except ErasmoError:
        before = {}
    same = all(before.get(name) == fresh[name] for name in fresh if name != "command")
    kept = {name: before[name] for name in (*PARTS, "runs") if name in before} if same else {}
    return {**fresh, "runs": {}, **kept}


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write the results file, whole or not at all. Raises ErasmoError for a full disk."""
    ordered = {name: results[name] for name in results if name not in PARTS}
    ordered |= {name: results[name] for name in PARTS if name in results}
    with whole_file(out) as file:
        file.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_results(file: Path) -> dict[str, Any]:
    """What is in a results file. Raises ErasmoError for another file."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        told["machine"], told["versions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ErasmoError(f"Got {file}", expected="a results file of `python -m benchmarks.speed`") from error
    return dict(told)


def middle(values: list[float], digits: int) -> float:
    """The median, with no more digits than mean something."""
    return round(float(median(values)), digits)
