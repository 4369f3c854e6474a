"""Who was where, when: the tables against a plain model of stays, over random publishes, rollbacks and retirements."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from erasmo_dagster.settings import Project, ProjectSettings
from erasmo_dagster.store.history import commit_history, prepared_history, unchanged_history
from erasmo_dagster.store.publish import retire, rollback
from erasmo_dagster.store.warehouse import open_warehouse, write_segments
from tests.store.test_publish import prepare, read, release

Rows = dict[str, tuple[int, str]]


class Stays:
    """Every stay as [key, segment, from_version, to_version], and what every publish moved."""

    def __init__(self) -> None:
        self.stays: list[list[Any]] = []
        self.moves: list[tuple[Any, ...]] = []
        self.now: Rows = {}
        self.version: int | None = None

    def publish(self, version: int, rows: Rows, *, hidden: bool = False) -> None:
        later = {} if hidden else rows
        for stay in self.stays:
            if stay[3] is None and later.get(stay[0]) != self.now[stay[0]]:
                stay[3] = version
        for key, segment in later.items():
            if self.now.get(key) != segment:
                self.stays.append([key, segment[0], version, None])
        number = 1 + max((move[0] for move in self.moves), default=0)
        pairs = Counter((self.now.get(key, (None,))[0], later.get(key, (None,))[0]) for key in {*self.now, *later})
        self.moves += [(number, self.version, version, *pair, count) for pair, count in pairs.items()]
        self.now, self.version = later, None if hidden else version


def random_rows(rng: random.Random) -> Rows:
    keys = rng.sample(range(12), rng.randint(1, 12))
    return {str(key): (segment, f"segment {segment}") for key in keys for segment in [rng.randrange(3)]}


@pytest.mark.parametrize("seed", range(4))
def test_history_and_transitions_follow_every_move(project: Project, seed: int) -> None:
    rng = random.Random(seed)
    model = Stays()
    published: dict[int, Rows] = {}
    for _ in range(10):
        move = rng.choice(["publish", "publish", "publish", "rollback", "retire"])
        if move == "rollback" and len(published) > 1:
            with open_warehouse(project.warehouse) as con:
                kept = {v for (v,) in con.execute("select version from versions").fetchall()}
            version = rng.choice(sorted(kept & set(published)))
            rollback(project, {}, "a", version, reason="back")
            model.publish(version, published[version])
        elif move == "retire" and model.version is not None:
            hidden = model.version
            assert retire(project, {}, "a", reason="gone")
            model.publish(hidden, {}, hidden=True)
        else:
            rows = random_rows(rng)
            version = prepare(project, "a", 0, segments=rows)
            release(project, "a", version)
            published[version] = rows
            model.publish(version, rows)
        stays = read(
            project, "select entity_key, segment_id, from_version, to_version from segment_history order by all"
        )
        assert sorted(map(str, stays)) == sorted(str(tuple(stay)) for stay in model.stays)
        moves = read(
            project,
            "select publish_id, from_version, version, from_segment_id, to_segment_id, rows from segment_transitions",
        )
        assert sorted(map(str, moves)) == sorted(map(str, model.moves))
        # The open stays are what is published.
        open_stays = "select entity_key, segment_id from segment_history where valid_to is null order by all"
        assert read(project, open_stays) == read(project, "select entity_key, segment_id from segments order by all")


def test_a_stay_begins_and_ends_with_a_publish(project: Project) -> None:
    for rows in ({"1": (0, "segment 0")}, {"2": (0, "segment 0")}):
        release(project, "a", prepare(project, "a", 0, segments=rows))
    log = dict(read(project, "select version, published_at from publish_log"))
    assert read(project, "select entity_key, valid_from, valid_to from segment_history order by 1") == [
        ("1", log[1], log[2]),
        ("2", log[2], None),
    ]


def test_a_segment_that_is_named_anew_is_the_same_segment(project: Project) -> None:
    release(project, "a", prepare(project, "a", 0, segments={"1": (0, "old name"), "2": (1, "other")}))
    release(project, "a", prepare(project, "a", 0, segments={"1": (0, "families"), "3": (0, "families")}))
    names = "select entity_key, segment_name, from_version, to_version from segment_history order by 1"
    assert read(project, names) == [("1", "families", 1, None), ("2", "other", 1, 2), ("3", "families", 2, None)]


def test_other_datasets_keep_their_history(project: Project) -> None:
    release(project, "a", prepare(project, "a", 3))
    before = read(project, "select * from segment_history where dataset = 'a' order by all")
    for rows in (4, 2):
        release(project, "b", prepare(project, "b", rows))
    retire(project, {}, "b", reason="gone")
    assert read(project, "select * from segment_history where dataset = 'a' order by all") == before


def test_a_stay_outlives_the_versions_that_it_was_in(project: Project) -> None:
    project = project.model_copy(update={"settings": ProjectSettings(keep_versions=1)})
    for segment in (0, 1, 2, 2):
        removed = release(project, "a", prepare(project, "a", 0, segments={"k": (segment, f"segment {segment}")}))
    assert removed.removed_versions == (3,)
    stays = read(project, "select segment_id, from_version, to_version from segment_history order by valid_from")
    assert stays == [(0, 1, 2), (1, 2, 3), (2, 3, None)]


# --- the module by itself: several datasets, names and moments, what is only prepared --------------

START = datetime(2026, 1, 1)
STAYS = "select dataset, entity_key, segment_id, from_version, valid_from, to_version, valid_to from {}"
MOVES = "select publish_id, dataset, from_version, version, from_segment_id, to_segment_id, rows from {}"


class Model:
    """The stays of all datasets and the rows that went from segment to segment, one publish after the other."""

    def __init__(self) -> None:
        self.open: dict[str, dict[str, tuple[int, int, datetime]]] = {}
        self.ended: list[tuple[Any, ...]] = []
        self.moves: list[tuple[Any, ...]] = []
        self.published: dict[str, int] = {}

    def move(self, publish_id: int, dataset: str, version: int, rows: Rows | None, moment: datetime) -> None:
        """``rows`` are what is published from ``moment`` on, None where the dataset is hidden."""
        stays, after = self.open.setdefault(dataset, {}), rows or {}
        counts = Counter(
            (stays[key][0] if key in stays else None, after[key][0] if key in after else None)
            for key in stays.keys() | after.keys()
        )
        before = self.published.pop(dataset, None)
        self.moves += [(publish_id, dataset, before, version, *pair, n) for pair, n in counts.items()]
        for key in [key for key, stay in stays.items() if after.get(key, (None,))[0] != stay[0]]:
            self.ended.append((dataset, key, *stays.pop(key), version, moment))
        for key, segment in after.items():
            if key not in stays:
                stays[key] = (segment[0], version, moment)
        if rows is not None:
            self.published[dataset] = version

    def stays(self) -> list[tuple[Any, ...]]:
        lasting = [(name, key, *stay, None, None) for name, stays in self.open.items() for key, stay in stays.items()]
        return ordered(self.ended + lasting)


def ordered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


def draw(rng: random.Random) -> Rows:
    """Some of few entities, in some of few segments."""
    keys = rng.sample("abcdefghij", rng.randint(1, 8))
    return {key: (i, f"segment {i}") for key in keys for i in [rng.randint(-1, 2)]}


class History:
    """Publishes in a warehouse without files."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con, self.model, self.publishes = con, Model(), 0

    def write(self, dataset: str, version: int, rows: Rows) -> None:
        frame = pl.DataFrame(
            {
                "entity_key": list(rows),
                "segment_id": [segment for segment, _ in rows.values()],
                "confidence": 0.5,
                "assigned_at": pl.Series([None] * len(rows), dtype=pl.Datetime("us")),
            },
            schema_overrides={"entity_key": pl.String, "segment_id": pl.Int32},
        )
        write_segments(self.con, dataset, version, frame)

    def publish(self, dataset: str, version: int, rows: Rows | None, *, commit: bool = True) -> None:
        """Publish rows that are written as ``version``, or hide the dataset; without ``commit`` only prepare it."""
        moment = START + timedelta(hours=self.publishes)
        publish_id = self.publishes + 1
        held = None if rows is None else version
        before = self.tables("segment_history", "segment_transitions")
        with prepared_history(self.con, dataset, version, held, publish_id, moment):
            shown = self.tables("next_history", "next_transitions")
            assert self.tables("segment_history", "segment_transitions") == before
            if commit:
                self.con.execute(
                    "insert or replace into published_versions values (?, ?, ?, ?, ?)",
                    [dataset, version, moment, version, moment if rows is None else None],
                )
                commit_history(self.con)
        after = self.tables("segment_history", "segment_transitions")
        if not commit:
            assert after == before
            return
        assert shown == after, "the file shows what the warehouse then has"
        self.publishes += 1
        self.model.move(publish_id, dataset, version, rows, moment)

    def tables(self, stays: str, moves: str) -> list[list[tuple[Any, ...]]]:
        return [ordered(self.con.execute(query).fetchall()) for query in (STAYS.format(stays), MOVES.format(moves))]

    def check(self) -> None:
        stays, moves = self.tables("segment_history", "segment_transitions")
        assert stays == self.model.stays()
        assert moves == ordered(self.model.moves)


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with open_warehouse(tmp_path / "w.duckdb", transaction=False) as con:
        yield History(con)


def stays_of(history: History, key: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = history.con.execute(
        "select segment_id, from_version, to_version from segment_history where entity_key = ? order by valid_from",
        [key],
    ).fetchall()
    return rows


def test_a_stay_lasts_through_versions_until_the_segment_is_another(history: History) -> None:
    for version, segment in enumerate([0, 0, 1, 1, 0], start=1):
        rows = {"a": (segment, f"segment {segment}"), "b": (1, "segment 1")}
        history.write("d", version, rows)
        history.publish("d", version, rows)
    assert stays_of(history, "a") == [(0, 1, 3), (1, 3, 5), (0, 5, None)]
    assert stays_of(history, "b") == [(1, 1, None)]


def test_what_was_hidden_and_comes_back_stays_anew(history: History) -> None:
    rows = {"a": (0, "segment 0")}
    history.write("d", 1, rows)
    history.publish("d", 1, rows)
    history.publish("d", 1, None)
    history.publish("d", 1, rows)
    assert stays_of(history, "a") == [(0, 1, 1), (0, 1, None)]
    moves = history.con.execute(MOVES.format("segment_transitions") + " order by publish_id").fetchall()
    assert moves == [(1, "d", None, 1, None, 0, 1), (2, "d", 1, 1, 0, None, 1), (3, "d", None, 1, None, 0, 1)]


def test_without_a_publish_the_history_is_shown_as_it_is(history: History) -> None:
    history.write("d", 1, {"a": (0, "segment 0")})
    history.publish("d", 1, {"a": (0, "segment 0")})
    with unchanged_history(history.con):
        shown = history.tables("next_history", "next_transitions")
    assert shown == history.tables("segment_history", "segment_transitions")
    assert shown != [[], []]
    history.publish("d", 1, None)  # nothing of it is left in the way


@pytest.mark.parametrize("seed", range(6))
def test_any_publishes_rollbacks_and_retirements_give_the_stays_of_the_model(history: History, seed: int) -> None:
    rng = random.Random(seed)
    written: dict[str, list[Rows]] = {"d": [], "other": []}
    for _ in range(40):
        dataset = rng.choice(["d", "d", "other"])
        versions = written[dataset]
        if dataset in history.model.published and rng.random() < 0.15:
            history.publish(dataset, history.model.published[dataset], None)
        elif versions and rng.random() < 0.3:
            version = rng.randint(1, len(versions))
            history.publish(dataset, version, versions[version - 1])
        else:
            versions.append(draw(rng))
            history.write(dataset, len(versions), versions[-1])
            if rng.random() < 0.1:  # is blocked at the gate, or fails
                history.publish(dataset, len(versions), versions[-1], commit=False)
                continue
            history.publish(dataset, len(versions), versions[-1])
        history.check()
    assert len(history.model.ended) > 40
