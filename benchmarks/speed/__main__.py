"""Command line of the speed benchmark."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from erasmo_dagster.method.quiet import quiet_libraries

quiet_libraries()

from benchmarks.quality.tables import plain  # noqa: E402
from benchmarks.speed.data import open_tables  # noqa: E402
from benchmarks.speed.results import PARTS, begun, pieces_beside, write_results  # noqa: E402
from benchmarks.speed.setting import Bench, Effort  # noqa: E402
from benchmarks.speed.tables import all_tables  # noqa: E402
from erasmo_dagster import progress  # noqa: E402
from erasmo_dagster.errors import ErasmoError  # noqa: E402
from erasmo_dagster.method.cores import usable_cores  # noqa: E402
from erasmo_dagster.settings import DEFAULT_MODEL  # noqa: E402

INTERRUPTED = 130
# Seconds of each part with --quick; that of the embedding is a limit, the others' are what their sizes were chosen by.
QUICK = 600.0
BUDGETS = {
    "embedding": 150.0,
    "finetuning": 90.0,
    "text": 40.0,
    "clustering": 80.0,
    "memory": 130.0,
    "lineage": 90.0,
    "precision": 30.0,
    "workers": 120.0,
}


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where a part has no result, 130 after Ctrl-C, and what was measured is written."""
    arguments = _parser().parse_args(given)
    started = time.monotonic()
    try:
        parts = _parts(arguments.only)
        asked = _asked(arguments, given)
        results = begun(arguments.out, asked)
        with open_tables(arguments.data, arguments.seed) as tables:
            about = {name: asked[name] for name in asked if name != "command"}
            pieces = pieces_beside(arguments.out, **about, folder=str(arguments.data))
            bench = Bench(
                tables=tables,
                models=_models(arguments.models),
                base_model=arguments.base_model,
                effort=_effort(arguments),
                seed=arguments.seed,
                device=arguments.device,
                threads=arguments.threads,
                pieces=pieces,
            )
            try:
                failed = [name for name in parts if not _run_part(name, bench, results, arguments.out, started)]
            except KeyboardInterrupt:
                write_results(arguments.out, results)
                print(f"\ninterrupted; what was measured is in {arguments.out}", file=sys.stderr)
                print("run the same command again and it goes on from there", file=sys.stderr)
                return INTERRUPTED
            if not failed:
                pieces.remove()
    except ErasmoError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(plain(table) for table in all_tables(results)))
    print(f"\n{time.monotonic() - started:,.0f} s: {arguments.out}")
    return int(bool(failed))


def _run_part(name: str, bench: Bench, results: dict[str, Any], out: Path, began: float) -> bool:
    """Measure a part and write down what is known after each step of it; whether it went well."""
    started = time.monotonic()
    quick = bench.effort == "quick"
    progress.note(f"{name} ({BUDGETS[name]:.0f} s at most)" if quick else name)
    error = None
    try:
        if quick and (spent := started - began) + BUDGETS[name] / 2 > QUICK:
            raise ErasmoError(f"Got no time left after {spent:.0f} s", fix=f"run it alone: --quick --only {name}")
        for found in _steps(name, bench):
            results[name] = found
            write_results(out, results)
    except ErasmoError as fault:
        error = str(fault)
    except Exception as fault:  # one part that fails stops no other
        error = f"{type(fault).__name__}: {' '.join(str(fault).split())}"[:500]
    seconds = time.monotonic() - started
    if error is not None:
        progress.note(f"{name}: {error}")
        results[name] = {**results.get(name, {}), "error": error}
    results["runs"] = {**results.get("runs", {}), name: {"seconds": round(seconds, 1)}}
    write_results(out, results)
    return error is None


def _steps(name: str, bench: Bench) -> Iterator[dict[str, Any]]:
    """The figures of a part, more of them with every step. What a part needs is imported here."""
    part = import_module(f"benchmarks.speed.{name}")
    given: dict[str, tuple[Any, ...]] = {
        "text": (bench.tables.folder,),
        "lineage": (bench.tables.folder, bench.models),
    }
    if name in ("embedding", "finetuning", "memory", "precision", "workers"):
        yield from part.measure(replace(bench, seconds=BUDGETS[name] if bench.effort == "quick" else None))
    else:
        arguments = (*given.get(name, ()), bench.effort, bench.seed)
        yield bench.pieces.measured(lambda: dict(part.measure(*arguments)), part=name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description="How fast this project is beside others, on the same rows in one process, woven into each other.",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with bank.parquet and others; without it tables are made"
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="small samples, ten minutes in all")
    effort.add_argument(
        "--full", action="store_true", help="whole tables for sentence-transformers too, a million rows"
    )
    parser.add_argument("--only", help=f"parts of: {', '.join(PARTS)} (default: all)", metavar="PART,…")
    parser.add_argument("--out", type=Path, default=Path("results.json"), help="results file (default: results.json)")
    parser.add_argument("--models", type=Path, help="folder of models ($ERASMO_HOME/models, else the user's cache)")
    parser.add_argument("--base-model", default=DEFAULT_MODEL, help=f"of embedding and training ({DEFAULT_MODEL})")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--threads", type=_positive, default=usable_cores(), help="of every engine (all cores)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and of all chance (default: 0)")
    return parser


def _asked(arguments: argparse.Namespace, given: Sequence[str] | None) -> dict[str, Any]:
    """What the results depend on beside machine and versions, and the command without this machine's paths."""
    words = list(sys.argv[1:] if given is None else given)
    for option, shown in (("--data", "DIR"), ("--models", "DIR"), ("--out", "results.json")):
        words = [shown if at and words[at - 1] == option else word for at, word in enumerate(words)]
    return {
        "command": " ".join(["python -m benchmarks.speed", *words]),
        "effort": _effort(arguments),
        "data": "synthetic" if arguments.data is None else "real",
        "seed": arguments.seed,
        "base_model": arguments.base_model,
        "device": _device(arguments.device),
        "threads": arguments.threads,
    }


def _device(wanted: str) -> str:
    """The accelerator's name where one is used, else the kind of device."""
    import torch

    from erasmo_dagster.method.loading import pick_device

    place = pick_device(wanted)
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def _effort(arguments: argparse.Namespace) -> Effort:
    return "quick" if arguments.quick else "full" if arguments.full else "default"


def _parts(only: str | None) -> list[str]:
    names = [name.strip() for name in only.split(",") if name.strip()] if only else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        raise ErasmoError(f"Got part {unknown[0]!r}", expected=f"one of: {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def _models(given: Path | None) -> Path:
    home = os.environ.get("ERASMO_HOME")
    return (given or (Path(home) if home else Path("~/.cache/erasmo")) / "models").expanduser().resolve()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
