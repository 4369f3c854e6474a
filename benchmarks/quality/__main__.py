"""Command line of the quality benchmark."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from erasmo_dagster.method.quiet import quiet_libraries

quiet_libraries()

from benchmarks.quality.ideas import ALL, GROUPS, IDEA_METHODS, ideas_named  # noqa: E402
from benchmarks.quality.methods import METHODS, SLOW, Method, Place, methods_named  # noqa: E402
from benchmarks.quality.results import Row, kept_beside, write_results  # noqa: E402
from benchmarks.quality.run import Plan, Stability, run_suite  # noqa: E402
from benchmarks.quality.suite import BadEntry, Entry, load_suite  # noqa: E402
from benchmarks.quality.tables import all_tables, plain  # noqa: E402
from erasmo_dagster.errors import ErasmoError  # noqa: E402
from erasmo_dagster.settings import DEFAULT_MODEL  # noqa: E402


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where nothing has a result or the suite cannot be read."""
    arguments = _parser().parse_args(given)
    started = time.monotonic()
    try:
        entries = _chosen(load_suite(arguments.suite), _names(arguments.datasets))
        plan = _plan(arguments, entries)
        rows: list[Row] = []
        for row in run_suite(entries, plan, kept_beside(arguments.out)):
            rows.append(row)
        told = {"rows": plan.rows, "seeds": plan.seeds, "slow_seeds": plan.slow_seeds, "stability": plan.stability}
        told |= {"tokens": plan.place.tokens, "paper_rows": plan.place.paper_rows, "suite": arguments.suite.name}
        write_results(arguments.out, rows, told)
    except ErasmoError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(plain(table) for table in all_tables(rows)))
    failed = sum(row.error is not None for row in rows)
    seconds = time.monotonic() - started
    print(f"\n{len(rows)} rows, {failed} of them without a result, in {seconds:,.0f} s: {arguments.out}")
    return int(failed == len(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Segments of labelled tables by this project and by its peers, on the same rows in one process.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the suite's files")
    parser.add_argument("--suite", type=Path, required=True, help="YAML list of tables: name, file, label, drop, k")
    parser.add_argument("--out", type=Path, required=True, help="results file; what is done is kept beside it")
    parser.add_argument(
        "--methods", help=f"by default all but {', '.join(SLOW)}; any of: {', '.join(METHODS)}", metavar="A,B"
    )
    parser.add_argument(
        "--ideas",
        nargs="?",
        const=ALL,
        default="",
        help=f"methods of one idea each as well, slow ones with --full; of groups: {', '.join(GROUPS)} (default: all)",
        metavar="A,B",
    )
    parser.add_argument("--datasets", help="tables of the suite; by default all", metavar="A,B")
    parser.add_argument("--rows", type=_at_least(3), default=1_000, help="rows of a table at most (default: 1000)")
    parser.add_argument("--seeds", type=_at_least(1), default=1, help="S: seeds 0 to S-1, of sample and algorithm")
    parser.add_argument("--full", action="store_true", help="the slow methods as well")
    parser.add_argument("--slow-datasets", help="tables for the slow methods; by default all", metavar="A,B")
    parser.add_argument("--slow-seeds", type=_at_least(1), default=1, help="seeds of the slow methods (default: 1)")
    parser.add_argument("--tokens", type=_at_least(1), default=20_000, help="training tokens of erasmo at most")
    parser.add_argument("--paper-rows", type=_at_least(3), default=40, help="rows of the method paper (default: 40)")
    parser.add_argument("--stability-all", action="store_true", help="stability of the slow methods as well")
    parser.add_argument("--no-stability", action="store_true", help="no stability, a fifth of the time")
    parser.add_argument("--base-model", default=DEFAULT_MODEL, help=f"of erasmo and paper (default: {DEFAULT_MODEL})")
    parser.add_argument("--models", type=Path, help="folder of models ($ERASMO_HOME/models, else the user's cache)")
    parser.add_argument("--cache", type=Path, help="folder of adapters and vectors (default: beside --out)")
    return parser


def _plan(arguments: argparse.Namespace, entries: Sequence[Entry | BadEntry]) -> Plan:
    home = os.environ.get("ERASMO_HOME")
    models = arguments.models or (Path(home) if home else Path("~/.cache/erasmo")) / "models"
    stability: Stability = "none" if arguments.no_stability else "all" if arguments.stability_all else "quick"
    slow = _names(arguments.slow_datasets)
    _check_names(slow, entries)
    if not arguments.data.is_dir():
        raise ErasmoError(f"Got --data {arguments.data}", expected="a folder with the files of the suite")
    return Plan(
        data=arguments.data,
        methods=tuple(_methods(arguments)),
        place=Place(
            models=models.expanduser(),
            cache=arguments.cache or arguments.out.with_name(f"{arguments.out.name}.cache"),
            tokens=arguments.tokens,
            paper_rows=arguments.paper_rows,
            base_model=arguments.base_model,
        ),
        rows=arguments.rows,
        seeds=arguments.seeds,
        slow_seeds=min(arguments.slow_seeds, arguments.seeds),
        slow_datasets=None if slow is None else frozenset(slow),
        stability=stability,
    )


def _methods(arguments: argparse.Namespace) -> list[Method]:
    """The methods asked for, then the ideas."""
    own = methods_named(_names(arguments.methods), full=arguments.full, others=IDEA_METHODS)
    named = [*ideas_named(_names(arguments.ideas) or [], full=arguments.full), *(method.name for method in own)]
    return methods_named(named, others=IDEA_METHODS)


def _chosen(entries: Sequence[Entry | BadEntry], names: list[str] | None) -> list[Entry | BadEntry]:
    _check_names(names, entries)
    return [entry for entry in entries if names is None or entry.name in names]


def _check_names(names: list[str] | None, entries: Sequence[Entry | BadEntry]) -> None:
    known = [entry.name for entry in entries]
    if unknown := [name for name in names or () if name not in known]:
        raise ErasmoError(f"Got table {unknown[0]!r}", expected=f"one of the suite's: {', '.join(known)}")


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"got {value}, expected at least {least}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
