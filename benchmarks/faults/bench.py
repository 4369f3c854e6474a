"""The cases: each changes the table, lets a fault strike, looks at what analysts see, and lets the next tick finish."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from benchmarks.faults import scratch
from benchmarks.faults.child import SETTLED, Order, work
from benchmarks.faults.injection import Fault
from benchmarks.faults.moments import CLOCK, Moment
from benchmarks.faults.state import (
    Content,
    decision_of,
    holds,
    logged_digest,
    read_published,
    snapshot_digest,
    source_digest,
    warehouse_faults,
)

_LOOK = 0.3  # seconds between two looks of another reader
_LIMIT = 120.0  # seconds after which a process counts as hung


@dataclass
class Case:
    """One line of the table; ``losses`` are the reasons for which it is none that analysts can live with."""

    number: int
    kind: str
    moment: str
    decision: str = ""
    file: str = ""
    ticks: int = 0
    seconds: float = 0.0
    version: int = 0
    retried: str = ""
    losses: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """The case as a line of the table."""
        told = "ok" if not self.losses else "LOSS: " + "; ".join(self.losses)
        return (
            f"{self.kind:7} {self.number:3d}  {self.moment:45} {self.decision:8} {self.file:11}"
            f" {self.ticks:2d} ticks {self.seconds:5.1f} s  v{self.version:<4d} {self.retried:10} {told}"
        )


HEADER = (
    f"{'case':11}  {'moment':45} {'decision':8} {'then':11} {'until it is published':17} {'':4} {'retry':10} verdict"
)


@dataclass
class Outcome:
    """How a process ended: ``report`` is what it wrote at its end, None where it was killed before."""

    seconds: float
    report: dict[str, Any] | None
    faults: list[str]


class Bench:
    """One scratch project, hit by one fault after another."""

    def __init__(self, folder: Path, *, rows: int, seed: int, tell: Callable[[str], None]) -> None:
        self.folder, self.tell, self.random = folder, tell, random.Random(seed)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["benchmarks.faults.preload"])
        self.project = scratch.make_project(folder, rows)
        self.frame = pl.read_parquet(scratch.source_path(self.project))
        self.usual = {"refresh": 0.0, "retrain": 0.0}  # seconds that a whole run takes
        self.quiet: list[Any] = []
        self.cases: list[Case] = []
        self.reads = 0
        self._jobs = 0

    def prepare(self) -> None:
        """Publish both datasets and measure how long a refresh and a retraining take. Raises RuntimeError."""
        for decision in ("", "refresh", "retrain"):
            if decision:
                self.frame = scratch.change(self.frame, decision, self.random)
                scratch.write_source(self.project, self.frame)
            done = self.run(Order(self.project.root, self.project.home, *self._papers()))
            content, faults = read_published(self.project)
            if content is None or faults or not holds(content, self.frame):
                raise RuntimeError(f"nothing to hit: {faults} {done.report}")
            self.quiet = content.of_quiet()
            if decision:
                self.usual[decision] = done.seconds

    def kill(self, moment: Moment) -> None:
        """Kill a run at a moment."""
        case = Case(moment.number, "kill", moment.name)
        fault = Fault("kill", moment.stage, moment.point, moment.skip) if moment.stage != CLOCK else None
        share = moment.share
        # A run that was faster than the clock is no kill: then again, with another change and an earlier moment.
        for _ in range(5):
            before, old = self._changed(case, moment.decision)
            delay = share * self.usual[moment.decision] if fault is None else None
            done = self.run(self._order(fault), kill_after=delay)
            if done.report is None or fault is not None:
                break
            share *= 0.6
        case.losses += done.faults
        if done.report is not None:
            case.losses.append(f"the moment never came ({done.report})")
        case.retried = "retry" if moment.retried else ""
        self._after(case, before, old, may_be_new=True)
        self._finish(case, before, retried=moment.retried)
        self.add(case)

    def strike(self, moment: str, kind: str, fault: Fault) -> None:
        """Let a fault other than a kill strike."""
        case = Case(len(self.cases) + 1, kind, moment)
        before, old = self._changed(case, "retrain" if self.random.random() < 0.5 else "refresh")
        new = self.frame
        if fault.kind == "replace":
            self.frame = scratch.change(self.frame, "refresh", self.random)
            other = self.folder / "other.parquet"
            self.frame.write_parquet(other)
            fault = replace(fault, other=other)
        # One tick: what a fault leaves to do is the next one's.
        done = self.run(self._order(replace(fault, source=scratch.source_path(self.project)), ticks=1))
        case.losses += done.faults
        if fault.kind == "replace":
            self._after_replaced(case, old, new)
        else:
            if done.report is not None and any(run["success"] for run in done.report["runs"]):
                case.losses.append("the run succeeded, so that the fault did not strike")
            self._after(case, before, old, may_be_new=False)
        if fault.kind == "vanish":
            self._expect_a_reason(case)
            scratch.write_source(self.project, self.frame)
        self._finish(case, before, publishes=2 if fault.kind == "replace" else 1)
        self.add(case)

    def absent(self, moment: str, spoil: Callable[[Path], object]) -> None:
        """The source cannot be read when the tick looks: it says so, starts nothing, and goes on when it is back."""
        case = Case(len(self.cases) + 1, "source", moment)
        before, old = self._changed(case, "refresh")
        spoil(scratch.source_path(self.project))
        self._expect_a_reason(case)
        self._after(case, before, old, may_be_new=False)
        scratch.write_source(self.project, self.frame)
        self._finish(case, before)
        self.add(case)

    def run(self, order: Order, kill_after: float | None = None) -> Outcome:
        """Let a process carry out an order while another reader opens the published file again and again."""
        started = time.monotonic()
        process = self.context.Process(target=work, args=(order,))
        process.start()
        faults: list[str] = []
        looked = started
        try:
            while process.is_alive():
                gone = time.monotonic() - started
                if kill_after is not None and gone >= kill_after:
                    process.kill()
                elif gone > _LIMIT:
                    faults.append(f"hung for {_LIMIT:.0f} s")
                    process.kill()
                left = 0.1 if kill_after is None else max(0.0, min(0.1, kill_after - gone))
                process.join(left)
                if time.monotonic() - looked >= _LOOK:
                    looked = time.monotonic()
                    faults += self._read()
        finally:
            if process.is_alive():
                process.kill()
            process.join()
        report = _report(order.report)
        if report is None and process.exitcode not in (-9, 0) and order.fault is None:
            faults.append(f"the process ended with status {process.exitcode}, see {order.log}")
        return Outcome(time.monotonic() - started, report, list(dict.fromkeys(faults)))

    def _read(self) -> list[str]:
        """Open the published file as an analyst does, at whatever moment this is."""
        if not self.quiet:  # nothing is published yet
            return []
        self.reads += 1
        query = """SELECT count(*), count(DISTINCT entity_key), count(DISTINCT version),
            (SELECT sum(rows) FROM segment_sizes WHERE dataset = ?) FROM segments WHERE dataset = ?"""
        try:
            with duckdb.connect(str(self.project.published), read_only=True, config={"threads": 1}) as con:
                ((rows, keys, versions, sizes),) = con.execute(query, [scratch.CHANGING] * 2).fetchall()
        except duckdb.Error as error:
            return [f"a reader met {str(error).splitlines()[0]}"]
        whole = rows == keys == sizes and versions == 1
        return [] if whole else [f"a reader saw {rows} rows of {keys} keys, {versions} versions, sizes of {sizes}"]

    def _changed(self, case: Case, decision: str) -> tuple[Content, pl.DataFrame]:
        """Change the table; what is published before, and the table before."""
        before, faults = read_published(self.project)
        case.losses += faults
        assert before is not None
        old = self.frame
        self.frame = scratch.change(old, decision, self.random)
        scratch.write_source(self.project, self.frame)
        return before, old

    def _after(self, case: Case, before: Content, old: pl.DataFrame, *, may_be_new: bool) -> None:
        """What analysts see after the fault: all of the old, or all of the new."""
        now, faults = read_published(self.project)
        case.losses += faults
        if now is None:
            case.file = "unreadable"
            return
        if now.of_quiet() != self.quiet:
            case.losses.append(f"{scratch.QUIET} is not as it was")
        if now.tables == before.tables:
            case.file = "old, whole"
            if not holds(now, old):
                case.losses.append("the file was not the old table's even before")
        elif may_be_new and holds(now, self.frame) and now.publishes == before.publishes + 1:
            case.file = "new, whole"
        else:
            case.file = "neither"
            case.losses.append("the published file is neither the old nor the new one")

    def _after_replaced(self, case: Case, old: pl.DataFrame, new: pl.DataFrame) -> None:
        """What was published is one of the three tables whole, and its fingerprint that of its own snapshot."""
        now, faults = read_published(self.project)
        case.losses += faults
        if now is None:
            return
        tables = {"old": old, "first": new, "second": self.frame}
        found = [name for name, frame in tables.items() if holds(now, frame)]
        case.file = f"{found[0]}, whole" if found else "neither"
        if not found:
            case.losses.append("the published file mixes two states of the source")
        if snapshot_digest(self.project, now.version) != logged_digest(now):
            case.losses.append("the fingerprint in the log is not that of the snapshot")

    def _expect_a_reason(self, case: Case) -> None:
        done = self.run(self._order(None, ticks=1))
        case.losses += done.faults
        if done.report is None or done.report["runs"] or scratch.CHANGING not in done.report["ticks"][0]:
            case.losses.append(f"a tick without a source did {done.report}")

    def _finish(self, case: Case, before: Content, *, retried: bool = False, publishes: int = 1) -> None:
        """Let the next ticks finish, without any fault, and compare the file with the source."""
        done = self.run(self._order(None, retried=retried))
        case.losses += done.faults
        case.seconds = done.seconds
        if done.report is None:
            case.losses.append("the next tick did not end well")
        else:
            case.ticks = len(done.report["ticks"])
            again = [run for run in done.report["runs"] if run.get("retried")]
            if retried:
                case.retried = "none" if not again else "retry ok" if again[0]["success"] else "retry fails"
            for run in done.report["runs"]:
                if not run["success"] and not run.get("retried"):
                    case.losses.append(f"a run after the fault failed: {run['fault'][:200]}")
                elif not run["success"]:
                    self.tell(f"        note: Dagster's retry failed: {run['fault'][:300]}")
            if SETTLED not in done.report["ticks"][-1]:
                case.losses.append(f"not settled after {case.ticks} ticks: {done.report['ticks'][-1][:200]}")
        now, faults = read_published(self.project)
        case.losses += faults
        if now is None:
            return
        case.version = now.version
        case.decision = decision_of(self.project, now.version)
        if now.of_quiet() != self.quiet:
            case.losses.append(f"{scratch.QUIET} is not as it was")
        if not holds(now, self.frame):
            case.losses.append("the published rows are not the source's")
        if logged_digest(now) != source_digest(self.project):
            case.losses.append("the fingerprint in the log is not the source's")
        if not 1 <= now.publishes - before.publishes <= publishes:
            case.losses.append(f"{now.publishes - before.publishes} publishes of one change")
        case.losses += warehouse_faults(self.project, self.frame, now)
        if not case.losses and case.decision in self.usual and done.report and len(done.report["runs"]) == 1:
            self.usual[case.decision] = done.seconds

    def add(self, case: Case) -> None:
        """Tell of a finished case and keep it."""
        case.losses = list(dict.fromkeys(case.losses))
        self.cases.append(case)
        self.tell(case.line)
        if case.losses:
            # One change without a fault, so that what this case lost is not counted again.
            self.frame = scratch.change(self.frame, "refresh", self.random)
            scratch.write_source(self.project, self.frame)
            self.run(self._order(None))

    def _order(self, fault: Fault | None, *, ticks: int = 5, retried: bool = False) -> Order:
        return Order(self.project.root, self.project.home, *self._papers(), ticks=ticks, fault=fault, retried=retried)

    def _papers(self) -> tuple[Path, Path]:
        """Where the next process reports, and where it prints."""
        self._jobs += 1
        papers = self.folder / "processes"
        papers.mkdir(exist_ok=True)
        return papers / f"{self._jobs}.json", papers / f"{self._jobs}.log"

    def as_json(self) -> list[dict[str, Any]]:
        """All cases as plain values."""
        return [asdict(case) for case in self.cases]


def _report(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None
