"""Runs the suite: every method on every table with every seed; what is done is not done again, what fails is a row."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.quality.judge import judged, same_segment, stability
from benchmarks.quality.memory import Peak
from benchmarks.quality.methods import Fit, Method, Place, code_of_files
from benchmarks.quality.results import Kept, Row
from benchmarks.quality.suite import BadEntry, Drawn, Entry, Source, draw, read_source
from erasmo_dagster import progress
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import agreement, gower
from erasmo_dagster.method.memory import release_memory

Positions = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int64]
Stability = Literal["none", "quick", "all"]
T = TypeVar("T")

CODE = 2  # counts changes of the rows' meaning
_LONGEST = 300  # characters of an error
# A panic inside polars is no Exception.
_FAULTS = (Exception, pl.exceptions.PanicException)


@dataclass(frozen=True)
class Plan:
    """What a run is asked for. ``stability`` says of which methods it is measured: none, all but slow ones, all.

    ``slow_datasets`` are the tables that slow methods run on, None: every one.
    """

    data: Path
    methods: tuple[Method, ...]
    place: Place
    rows: int = 1_000
    seeds: int = 1
    slow_seeds: int = 1
    slow_datasets: frozenset[str] | None = None
    stability: Stability = "quick"

    def jobs(self, entry: Entry | BadEntry) -> list[tuple[Method, int]]:
        """The methods and seeds that a table is due."""
        found: list[tuple[Method, int]] = []
        for method in self.methods:
            if method.slow and self.slow_datasets is not None and entry.name not in self.slow_datasets:
                continue
            seeds = min(self.slow_seeds if method.slow else self.seeds, method.seeds or self.seeds)
            found += [(method, seed) for seed in range(seeds)]
        return found

    def refits(self, method: Method) -> bool:
        """Whether a method is fitted again, for its stability and for another order of the columns."""
        return method.refits and (self.stability == "all" or (self.stability == "quick" and not method.slow))


def run_suite(entries: Sequence[Entry | BadEntry], plan: Plan, kept: Kept) -> Iterator[Row]:
    """The rows of a suite, table by table, as they are found. Nothing that fails on a table stops the others.

    Raises ErasmoError where what is done cannot be kept.
    """
    with progress.bar("quality", sum(len(plan.jobs(entry)) for entry in entries), "fits") as shown:
        live = shown.mininterval < 1  # elsewhere every change would be a line
        for entry in entries:
            table = _Table(entry, plan)
            for method, seed in plan.jobs(entry):
                shown.set_description_str(f"{entry.name}, {method.name}, seed {seed}", refresh=live)
                yield _row(table, method, seed, plan, kept)
                shown.update(1)


def _row(table: _Table, method: Method, seed: int, plan: Plan, kept: Kept) -> Row:
    row = Row(table.name, method.name, seed)
    try:
        drawn = table.drawn(seed)
        row = replace(row, k=drawn.sample.k, n=drawn.sample.frame.height)
        if method.rows is not None and (most := method.rows(plan.place)) < drawn.sample.frame.height:
            chosen = np.random.default_rng(seed).permutation(drawn.sample.frame.height)[:most]
            drawn = drawn.part(np.sort(chosen))
            row = replace(row, n=most)
        measured = plan.refits(method)
        digest = _digest(drawn, method, seed, measured, plan.place)
        if (done := kept.get(digest)) is not None:
            return replace(done, dataset=table.name)
        done = _measured(row, table.fits(method, drawn), drawn, measured).rounded()
    except ErasmoError as error:
        return replace(row, error=str(error))
    except _FAULTS as error:
        text = " ".join(str(error).split())
        return replace(row, error=f"{type(error).__name__}: {text}"[:_LONGEST])
    kept.add(digest, done)
    return done


def _measured(row: Row, fits: _Fits, drawn: Drawn, with_stability: bool) -> Row:
    everything = np.arange(drawn.sample.frame.height)
    own = fits.get(everything, row.seed)
    figures: dict[str, Any] = dict(judged(drawn, own.labels))
    if with_stability:
        figures |= stability(
            lambda rows, seed: fits.get(rows, seed).labels, own.labels, sample_seed=drawn.sample.seed, seed=row.seed
        )
        if row.seed == 0:
            figures["order"] = same_segment(own.labels, lambda: fits.reversed(row.seed))
    return replace(row, **figures, seconds=own.seconds, peak_mb=own.mb)


def _digest(drawn: Drawn, method: Method, seed: int, with_stability: bool, place: Place) -> str:
    """What a row depends on: the rows and their groups, the method, the code that judges."""
    package = Path(gower.__file__).parent
    judges = [Path(__file__).with_name("judge.py"), Path(gower.__file__), Path(agreement.__file__)]
    judges += [package / "measures" / f"{name}.py" for name in ("separation", "silhouette", "rows")]
    judges.append(package / "profiling" / "prepare.py")
    told = {
        "code": CODE,
        "rows": drawn.sample.id,
        "drawn": drawn.sample.seed,
        "k": drawn.sample.k,
        "method": method.name,
        "about": method.about(place),
        "seed": seed,
        "judges": code_of_files(*judges),
        "stability": with_stability,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Timed:
    labels: Labels
    seconds: float
    mb: float


class _Fits:
    """The fits of a method on a sample, each done once; ``known`` is shared by equal samples of several seeds."""

    def __init__(self, method: Method, drawn: Drawn, place: Place, known: dict[Any, _Timed]) -> None:
        method.load()
        self._method, self._drawn, self._place, self._known = method, drawn, place, known
        self._fit: Fit = method.open(drawn.sample, place)

    def reversed(self, seed: int) -> Labels:
        """The labels of all rows with the columns from last to first."""
        sample = self._drawn.sample.reversed(plan=not self._method.canonical)
        fit = self._method.open(sample, self._place)
        return np.asarray(fit(np.arange(sample.frame.height), seed).labels)

    def get(self, rows: Positions, seed: int) -> _Timed:
        """The labels of some rows of the sample, with seconds and memory."""
        key = (self._drawn.sample.id, rows.tobytes(), seed)
        if key not in self._known:
            with Peak() as peak:
                started = time.monotonic()
                found = self._fit(rows, seed)
                seconds = time.monotonic() - started
            labels = np.asarray(found.labels)
            if labels.shape != rows.shape or labels.dtype.kind not in "iu":
                raise ValueError(f"got labels {labels.dtype}{list(labels.shape)} for {len(rows)} rows")
            self._known[key] = _Timed(labels, seconds + found.kept_seconds, max(peak.mb, found.kept_mb))
        return self._known[key]


class _Table:
    """A table of the suite, read and drawn from when it is first asked for; what failed once fails again."""

    def __init__(self, entry: Entry | BadEntry, plan: Plan) -> None:
        self.name, self._entry, self._plan = entry.name, entry, plan
        self._source: Source | BaseException | None = None
        self._drawn: dict[int, Drawn | BaseException] = {}
        self._known: tuple[str, dict[Any, _Timed]] = ("", {})

    def drawn(self, seed: int) -> Drawn:
        """The rows of a seed. Raises what reading or drawing has raised."""
        if seed not in self._drawn:
            self._drawn[seed] = _or_error(lambda: draw(self._read(), self._plan.rows, seed))
        return _unless_error(self._drawn[seed])

    def fits(self, method: Method, drawn: Drawn) -> _Fits:
        """The fits of a method; those of the method before are forgotten."""
        if self._known[0] != method.name:
            self._known = (method.name, {})
            release_memory()  # what the method before has left is not this one's
        return _Fits(method, drawn, self._plan.place, self._known[1])

    def _read(self) -> Source:
        if isinstance(self._entry, BadEntry):
            raise ErasmoError(self._entry.error)
        if self._source is None:
            entry = self._entry
            self._source = _or_error(lambda: read_source(entry, self._plan.data))
        return _unless_error(self._source)


def _or_error(work: Callable[[], T]) -> T | BaseException:
    try:
        return work()
    except _FAULTS as error:
        return error


def _unless_error(found: T | BaseException) -> T:
    if isinstance(found, BaseException):
        raise found
    return found
