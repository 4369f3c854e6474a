"""Command line of the fault-injection benchmark."""

from __future__ import annotations

import os

# A tiny model gains nothing from threads; set before torch is loaded, here and in every process that is started.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["POLARS_MAX_THREADS"] = "1"

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from erasmo_dagster.method.quiet import quiet_libraries

quiet_libraries()

from benchmarks.faults.bench import HEADER, Bench  # noqa: E402
from benchmarks.faults.injection import Fault  # noqa: E402
from benchmarks.faults.moments import draw  # noqa: E402

_FULL = [("text_corpus", "warehouse"), ("segments", "folder"), ("published_segments", "published file"),
         ("text_corpus", "every file")]  # fmt: skip


def main() -> int:
    """Run the benchmark; 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=12, help="runs to kill")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of the changes of the table")
    parser.add_argument("--rows", type=int, default=200, help="rows of the table")
    parser.add_argument("--json", type=Path, help="file for the same as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the project, and say where it is")
    arguments = parser.parse_args()
    # Processes are started by a server that has none of this one's import path.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    folder = Path(tempfile.mkdtemp(prefix="erasmo-faults-")).resolve()
    started = time.monotonic()
    try:
        bench = Bench(folder, rows=arguments.rows, seed=arguments.seed, tell=_tell)
        bench.prepare()
        usual = ", ".join(f"a {name} takes {seconds:.1f} s" for name, seconds in bench.usual.items())
        _tell(f"{arguments.rows} rows, seed {arguments.seed}: {usual}")
        _tell(HEADER)
        _run(bench, arguments.kills, arguments.seed)
    finally:
        if arguments.keep:
            _tell(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    lost = [case for case in bench.cases if case.losses]
    seconds = time.monotonic() - started
    if arguments.json:
        total = {"kills": arguments.kills, "seed": arguments.seed, "seconds": round(seconds, 1), "lost": len(lost)}
        arguments.json.write_text(json.dumps({**total, "cases": bench.as_json()}, indent=2) + "\n")
    _tell(
        f"{len(bench.cases)} cases, {arguments.kills} of them kills: {len(lost)} with a loss;"
        f" {bench.reads} reads of the published file meanwhile; {seconds:.0f} s"
    )
    return 1 if lost else 0


def _run(bench: Bench, kills: int, seed: int) -> None:
    for moment in draw(kills, seed):
        bench.kill(moment)
    for stage, what in _FULL:
        bench.strike(f"{stage}: disk full, {what}", "full", Fault("full", stage, what))
    bench.absent("gone before the tick", lambda path: path.unlink())
    bench.absent("half written at the tick", lambda path: path.write_bytes(path.read_bytes()[:-100]))
    for stage, point in (("tick", "open"), ("tick", "read"), ("source_table", "open"), ("source_table", "read")):
        bench.strike(f"{stage}: gone, {point}", "source", Fault("vanish", stage, point))
    for stage, point in (
        ("tick", "open"),
        ("tick", "read"),
        ("tick", "hashed"),
        ("source_table", "open"),
        ("source_table", "read"),
        ("source_table", "hashed"),
    ):
        bench.strike(f"{stage}: replaced, {point}", "source", Fault("replace", stage, point))


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
