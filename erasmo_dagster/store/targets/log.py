"""What was published where, in ``publish_log``: in the warehouse, and in the published file for those who ask it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from erasmo_dagster.settings import Project
from erasmo_dagster.settings.targets import place_digest
from erasmo_dagster.store.candidate import editing, publishing, put_in_place, sync
from erasmo_dagster.store.releases import release_of
from erasmo_dagster.store.targets.base import attached
from erasmo_dagster.store.warehouse import first_row, in_transaction

_LOGGED = "SELECT publish_id, targets FROM publish_log WHERE targets IS NOT NULL"


@dataclass(frozen=True)
class Entry:
    """What became of one target after the publish ``publish_id``: a release that its readers see, or an error.

    ``place`` is a digest of where the target is.
    """

    publish_id: int
    target: str
    kind: str
    place: str
    release: int | None
    published_at: str | None
    error: str | None


@dataclass(frozen=True)
class Standing:
    """A target as the log knows it: what its readers have, whether the file has more, and why that is so."""

    target: str
    kind: str
    release: int | None
    published_at: str | None
    behind: bool
    error: str | None


def write_log(project: Project, entries: Sequence[Entry]) -> None:
    """Write down what became of targets, in the warehouse and in the published file.

    The file is swapped where it says something else than the warehouse: also where an earlier call was stopped between
    the two. The warehouse is held while it is copied.
    """
    with publishing(project) as (con, candidate):
        with in_transaction(con):
            for entry in entries:
                _merge(con, entry)
        if not project.published.is_file():
            return
        held = _in_file(project)
        logged = con.execute(_LOGGED).fetchall()
        new = [(told, number) for number, told in logged if number in held and told != held[number]]
        if not new:
            return
        shutil.copyfile(project.published, candidate)
        with editing(candidate) as file:
            file.executemany("UPDATE publish_log SET targets = ? WHERE publish_id = ?", new)
        sync(candidate)
        put_in_place(candidate, project.published)


def read_standings(project: Project) -> list[Standing]:
    """The targets of ``erasmo.yaml`` beside the file, as its log knows them; no target is asked.

    What went to another place under a target's name is not counted. Of a file that is not there, or cannot be read,
    nothing is known: the list is empty.
    """
    if not project.settings.copies or not project.published.is_file():
        return []
    try:
        with duckdb.connect(project.published, read_only=True) as con:
            release = release_of(con)
            logged = con.execute(f"{_LOGGED} ORDER BY publish_id").fetchall()
    except duckdb.Error:
        return []
    if release is None:
        return []
    places = {target.name: place_digest(target) for target in project.settings.copies}
    known: dict[str, Mapping[str, Any]] = {}
    for _, told in logged:
        for target, entry in json.loads(told).items():
            if entry.get("place") == places.get(target):
                known[target] = {**known.get(target, {}), "error": None, **entry}
    return [
        Standing(
            target=target.name,
            kind=target.kind,
            release=entry.get("release"),
            published_at=entry.get("published_at"),
            behind=entry.get("release") != release.number,
            error=entry.get("error"),
        )
        for target in project.settings.copies
        for entry in (known.get(target.name, {}),)
    ]


def _in_file(project: Project) -> dict[int, str | None]:
    """What the published file says of targets, by publish."""
    with attached(project.published, project.home / "targets" / "spill") as con:
        return dict(con.execute("SELECT publish_id, targets FROM publish_log").fetchall())


def _merge(con: duckdb.DuckDBPyConnection, entry: Entry) -> None:
    """Add an entry to those of its publish."""
    row = first_row(con.execute("SELECT targets FROM publish_log WHERE publish_id = ?", [entry.publish_id]))
    if row is None:  # a file in which nothing is published yet
        return
    told: dict[str, Any] = json.loads(row[0]) if row[0] else {}
    before = told.get(entry.target, {})
    here = {"kind": entry.kind, "place": entry.place}
    if before.get("place") != entry.place:
        before = {}
    if entry.error is not None:  # readers have what they had
        after = {**before, **here, "error": entry.error}
    elif before.get("release") == entry.release:
        after = {name: value for name, value in before.items() if name != "error"}
    else:
        after = {**here, "release": entry.release, "published_at": entry.published_at}
    if after != before:
        told[entry.target] = after
        con.execute("UPDATE publish_log SET targets = ? WHERE publish_id = ?", [json.dumps(told), entry.publish_id])
