"""Faults that strike at one exact point, by wrapping the package's functions in the process that shall be hit."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from erasmo_dagster import files
from erasmo_dagster.defs import stages
from erasmo_dagster.method import training
from erasmo_dagster.settings import Project
from erasmo_dagster.store import (
    artifacts,
    checks,
    history,
    publish,
    published_file,
    sources,
    tables,
    upkeep,
    versions,
    warehouse,
)
from erasmo_dagster.store.sql_models import build

_HALF_THE_MARTS = 8  # models that are built by then
# Tables of the warehouse whose rows are a version's own; stages and versions are told in others.
_ROWS = re.compile(r"INSERT INTO (corpus|embeddings_\d+|points_\d+|segments|segment_(?!names|history)\w+) ")

Kind = Literal["kill", "full", "vanish", "replace"]


@dataclass(frozen=True)
class Fault:
    """``kind`` strikes in ``stage`` (``tick`` is the look at the source) at ``point``, which first passes ``skip``
    times. ``source`` is the table that vanishes or is replaced by the file ``other``; ``limit`` is how many bytes a
    file may have where the disk is full."""

    kind: Kind
    stage: str
    point: str
    skip: int = 0
    source: Path | None = None
    other: Path | None = None
    limit: int = 0


@dataclass
class _Present:
    """Where the process is: the stage, how often the point has passed, and whether the stage's output is recorded."""

    stage: str = ""
    passed: int = 0
    recorded: bool = False


_present = _Present()


def now_in(stage: str) -> None:
    """Say which stage the process is in."""
    _present.stage, _present.recorded = stage, False


def inject(fault: Fault, project: Project) -> None:
    """Let ``fault`` strike in this process."""
    _follow_stages(fault)
    match fault.kind:
        case "kill":
            _strike_at(fault, project, _die)
        case "full":
            _fill(fault, project)
        case "vanish" | "replace":
            _spoil(fault)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(original: Any, wrapper: Any) -> None:
    """Put ``wrapper`` wherever the package has imported ``original``."""
    found = 0
    for name, module in list(sys.modules.items()):
        if name.startswith("erasmo_dagster") and module is not None:
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, wrapper)
                    found += 1
    assert found, f"nobody uses {original}"


def _wrapped(
    original: Any, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None
) -> None:
    """Call ``before`` and ``after`` with the arguments of ``original`` around each call of it."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args, **kwargs)
        return result

    _wrap(original, wrapper)


def _follow_stages(fault: Fault) -> None:
    def begin(context: Any, *_: Any) -> None:
        now_in(context.asset_key.path[-1])

    def record(_con: Any, _dataset: str, _version: int, output: Any) -> None:
        _present.recorded |= output.stage == fault.stage == _present.stage

    _wrapped(stages.begin_stage, before=begin)
    _wrapped(publish.publish, before=lambda *_, **__: now_in("published_segments"))
    _wrapped(versions.link_stage, after=record)


def _strike_at(fault: Fault, project: Project, strike: Callable[[], None]) -> None:
    """Call ``strike`` at the fault's point."""

    def here(*_: Any, **__: Any) -> None:
        if _present.stage == fault.stage:
            _present.passed += 1
            if _present.passed > fault.skip:
                strike()

    match fault.point:
        case "begin":
            _wrapped(stages.begin_stage, after=here)
        case "write" if fault.stage == "source_table":
            _around_method(sources.Reading, "write", after=here)
        case "write":
            _around_inserts(after=here)
        case "folder" | "checkpoint":
            _around_folders(fault.point, here)
        case "between renames":
            _around_method(Path, "rename", before=lambda path, to: here() if _is_second_rename(path, to) else None)
        case "step":
            _around_method(training.Training, "_step", after=here)
        case "gate":
            # Its results are written once the stage is done.
            _wrapped(checks.write_check, before=here)
        case "half the file":
            published_file._TABLES = _Halfway(published_file._TABLES, here)
        case "half the marts":
            passed = iter(range(1_000))
            _wrapped(build._build, after=lambda *_, **__: here() if next(passed) == _HALF_THE_MARTS else None)
        case "whole file":
            _wrapped(published_file.build_file, after=here)
        case "before commit" | "after commit" if fault.stage != "published_segments":
            _around_commits(fault.point, here)
        case "before commit":
            _wrapped(history.commit_history, after=here)
        case "between commit and rename":
            _around_method(Path, "replace", before=lambda _, to: here() if to == project.published else None)
        case "after rename":
            _around_method(Path, "replace", after=lambda _, to: here() if to == project.published else None)
        case "removal":
            _wrapped(artifacts.delete_version_files, before=here)
            _wrapped(upkeep.remove_superseded, after=here)  # where there was nothing to remove
        case _:
            raise ValueError(fault.point)


def _is_second_rename(path: Path, to: Path) -> bool:
    """Whether a new folder is about to take the place of one that has just been moved aside."""
    aside = path.with_name(f"{path.name}-old")
    return path.name.startswith(f".{to.name}.tmp-") and aside.exists()


def _around_method(
    owner: type, name: str, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None
) -> None:
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args)
        return result

    setattr(owner, name, wrapper)


def _around_inserts(*, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
    """Call ``before`` and ``after`` around each insert of a version's rows, which is the middle of a transaction."""
    original = warehouse.open_warehouse

    class Connection:
        def __init__(self, con: Any) -> None:
            self._con = con

        def __getattr__(self, name: str) -> Any:
            return getattr(self._con, name)

        def execute(self, query: str, *args: Any) -> Any:
            rows = _ROWS.match(query) is not None
            if rows and before is not None:
                before()
            result = self._con.execute(query, *args)
            if rows and after is not None:
                after()
            return result

    @contextmanager
    def open_warehouse(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with original(*args, **kwargs) as con:
            yield Connection(con)

    _wrap(original, open_warehouse)


def _around_folders(point: str, here: Callable[[], None]) -> None:
    original = files.whole_folder

    @contextmanager
    def whole_folder(final: Path) -> Iterator[Path]:
        with original(final) as temporary:
            yield temporary
            if (final.parent.parent.name == "training") == (point == "checkpoint"):
                here()

    _wrap(original, whole_folder)


def _around_commits(point: str, here: Callable[[], None]) -> None:
    original = warehouse.open_warehouse

    @contextmanager
    def open_warehouse(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with original(*args, **kwargs) as con:
            yield con
            if point == "before commit" and _present.recorded:
                here()
        if point == "after commit" and _present.recorded:
            here()

    _wrap(original, open_warehouse)


class _Halfway(dict[str, str]):
    """The published file's tables, with a call after half of them."""

    def __init__(self, tables: dict[str, str], here: Callable[[], None]) -> None:
        super().__init__(tables)
        self.here = here

    def items(self) -> Any:
        for number, item in enumerate(super().items()):
            if number == len(self) // 2:
                self.here()
            yield item


def _fill(fault: Fault, project: Project) -> None:
    """No file grows any more from the point on, until the transaction, the folder or the publish is over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*_: Any, **__: Any) -> None:
        if _present.stage == fault.stage:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, hard))

    def room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    original: Any
    match fault.point:
        case "warehouse":
            _around_inserts(before=full)
            original = warehouse.open_warehouse
        case "folder":
            original = files.whole_folder
        case "published file":
            _wrapped(published_file.build_file, before=full)
            original = warehouse.open_warehouse
        case "every file":
            # Dagster's own records and ours; it stays so until the process ends.
            _wrapped(stages.begin_stage, after=full)
            return
        case _:
            raise ValueError(fault.point)

    @contextmanager
    def until_closed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            with original(*args, **kwargs) as opened:
                if fault.point == "folder":
                    full()
                yield opened
        finally:
            room()

    _wrap(original, until_closed)


def _spoil(fault: Fault) -> None:
    """The source goes, or becomes another, once: before it is opened, or before or after its rows are read."""

    def spoil(*_: Any, **__: Any) -> None:
        if _present.stage != fault.stage or _present.passed:
            return
        _present.passed = 1
        assert fault.source is not None
        if fault.kind == "vanish":
            fault.source.unlink()
        else:
            assert fault.other is not None
            temporary = fault.source.with_name(f".{fault.source.name}.other")
            shutil.copyfile(fault.other, temporary)
            temporary.replace(fault.source)

    match fault.point:
        case "open":
            _wrapped(tables.open_source, before=spoil)
        case "read":
            _around_method(sources.Reading, "write", before=spoil)
        case "hashed":
            _around_method(sources.Reading, "write", after=spoil)
        case _:
            raise ValueError(fault.point)
