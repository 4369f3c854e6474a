"""Bringing every target to the newest release, each on its own: one that fails holds up no other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ParquetTarget, PostgresTarget, Project
from erasmo_dagster.settings.targets import place_digest
from erasmo_dagster.store.releases import Release, release_in, release_of
from erasmo_dagster.store.targets.base import PublishedFile, Seen, Target, Written, attached
from erasmo_dagster.store.targets.log import Entry, write_log
from erasmo_dagster.store.targets.parquet import ParquetPublisher
from erasmo_dagster.store.targets.postgres import PostgresPublisher

# A copy of many rows takes minutes, and one that waits for it copies what is newest by then.
_PATIENCE = 3600.0  # seconds


@dataclass(frozen=True)
class Sent:
    """What became of one target: the release that its readers see now, or ``error`` where it failed.

    ``rows`` of all tables, ``tables`` and ``seconds`` are of the copy; 0 where the target had the release already.
    """

    target: str
    kind: str
    publish_id: int
    release: int | None
    rows: int = 0
    tables: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None


class TargetError(ErasmoError):
    """Targets that could not be brought to the newest release; ``sent`` has what became of all of them."""

    def __init__(self, sent: Sequence[Sent]) -> None:
        self.sent = tuple(sent)
        failed = "; ".join(f"{one.target}: {(one.error or '').rstrip('.')}" for one in sent if one.error)
        reached = ["duckdb", *(one.target for one in sent if not one.error)]
        super().__init__(
            f"Got targets that were not published to ({failed}), while {', '.join(reached)}"
            f" {'has' if len(reached) == 1 else 'have'} the newest release",
            expected="all of them to be reached",
            fix="mend what is named; the next run completes them, and so does `erasmo build`",
        )


def send(project: Project) -> tuple[Sent, ...]:
    """Copy the published file to every other target that has not its release; what became of each.

    The warehouse is free while targets are written to: a publish may go on, and is copied next. It is held for as long
    as it takes to write down in ``publish_log`` what was published where, with a copy of the published file. Raises
    TargetError once all have been tried, where any failed; what is no fault of a user stays in its chain.
    """
    newest = release_in(project.published) if project.settings.copies else None
    if newest is None:
        return ()
    unexpected: list[Exception] = []
    sent = [_send(project, settings, newest, unexpected) for settings in project.settings.copies]
    moment = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    entries = [
        Entry(one.publish_id, one.target, one.kind, place_digest(settings), one.release, moment, one.error)
        for settings, one in zip(project.settings.copies, sent, strict=True)
    ]
    write_log(project, entries)
    if any(one.error for one in sent):
        raise TargetError(sent) from (unexpected[0] if unexpected else None)
    return tuple(sent)


def _send(
    project: Project, settings: PostgresTarget | ParquetTarget, newest: Release, unexpected: list[Exception]
) -> Sent:
    """Bring one target to the newest release, which by now may be a later one than ``newest``."""
    name, kind = settings.name, settings.kind
    began, publish_id = time.perf_counter(), newest.publish_id
    try:
        with _alone(project, name), _opened(project) as file:
            publish_id = file.release.publish_id
            written = _copy(_target(project, settings), file, settings)
            seconds = round(time.perf_counter() - began, 3) if written.tables else 0.0
            return Sent(
                name, kind, publish_id, file.release.number, written.rows, written.tables, seconds, written.notes
            )
    except ErasmoError as error:
        return Sent(name, kind, publish_id, None, error=str(error))
    except Exception as error:
        unexpected.append(error)
        return Sent(name, kind, publish_id, None, error=f"Got an unexpected {type(error).__name__}")


def _copy(target: Target, file: PublishedFile, settings: PostgresTarget | ParquetTarget) -> Written:
    seen, release = target.release(), file.release
    if seen == Seen(release.number, release.digest):
        return Written(0, 0, target.tidy())
    if seen is not None and seen.number >= release.number:
        raise ErasmoError(
            f"Got release {release.number} for a target that is at "
            + (f"release {seen.number}" if seen.number > release.number else "another release of that number"),
            expected="a target that no other project writes to, and a warehouse that was not restored",
            fix=f"give the target another {'schema' if settings.kind == 'postgresql' else 'path'}, or, after the"
            f" warehouse was restored, run `erasmo build --above {seen.number}`",
        )
    return target.publish(file)


def _target(project: Project, settings: PostgresTarget | ParquetTarget) -> Target:
    if isinstance(settings, PostgresTarget):
        return PostgresPublisher(settings, wait=project.settings.lock_timeout)
    return ParquetPublisher(settings, project.root)


@contextmanager
def _alone(project: Project, target: str) -> Iterator[None]:
    """One process of the project at a time copies to a target."""
    path = project.home / "targets" / f"{target}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise ErasmoError(
            f"Got no access to the target in {_PATIENCE:g} s: another process is publishing to it",
            fix="wait for it to end, or end it",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _opened(project: Project) -> Iterator[PublishedFile]:
    """The published file of this moment."""
    with attached(project.published, project.home / "targets" / "spill") as con:
        release = release_of(con)
        if release is None:
            raise ErasmoError(f"Got a file without a release in {project.published}", fix="run `erasmo build`")
        yield PublishedFile(con, release)
