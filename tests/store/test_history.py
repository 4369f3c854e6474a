"""Who was in which segment when, against a plain model: what SQL does with joins is done here key by key."""

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

Segments = dict[str, tuple[int, str]]
START = datetime(2026, 1, 1)
STAYS = "select dataset, entity_key, segment_id, segment_name, from_version, valid_from, to_version, valid_to from {}"
MOVES = "select publish_id, dataset, from_version, version, from_segment_id, to_segment_id, rows from {}"


class Model:
    """The stays of all datasets and the rows that went from segment to segment, one publish after the other."""

    def __init__(self) -> None:
        self.open: dict[str, dict[str, tuple[int, str, int, datetime]]] = {}
        self.ended: list[tuple[Any, ...]] = []
        self.moves: list[tuple[Any, ...]] = []
        self.published: dict[str, int] = {}

    def move(self, publish_id: int, dataset: str, version: int, rows: Segments | None, moment: datetime) -> None:
        """``rows`` are what is published from ``moment`` on, None where the dataset is hidden."""
        stays, after = self.open.setdefault(dataset, {}), rows or {}
        counts = Counter(
            (stays[key][0] if key in stays else None, after[key][0] if key in after else None)
            for key in stays.keys() | after.keys()
        )
        before = self.published.pop(dataset, None)
        self.moves += [(publish_id, dataset, before, version, *pair, n) for pair, n in counts.items()]
        for key in [key for key, stay in stays.items() if after.get(key) != stay[:2]]:
            self.ended.append((dataset, key, *stays.pop(key), version, moment))
        for key, segment in after.items():
            if key not in stays:
                stays[key] = (*segment, version, moment)
        if rows is not None:
            self.published[dataset] = version

    def stays(self) -> list[tuple[Any, ...]]:
        lasting = [(name, key, *stay, None, None) for name, stays in self.open.items() for key, stay in stays.items()]
        return ordered(self.ended + lasting)


def ordered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


def draw(rng: random.Random) -> Segments:
    """Some of few entities, in some of few segments; now and then a segment has another name."""
    keys = rng.sample("abcdefghij", rng.randint(1, 8))
    names = {i: f"segment {i}" if rng.random() < 0.8 else f"renamed {rng.randint(0, 1)}" for i in range(-1, 3)}
    return {key: (i, names[i]) for key in keys for i in [rng.randint(-1, 2)]}


# --- the module by itself ------------------------------------------------------------------------


class History:
    """Publishes in a warehouse without files."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con, self.model, self.publishes = con, Model(), 0

    def write(self, dataset: str, version: int, rows: Segments) -> None:
        frame = pl.DataFrame(
            {
                "entity_key": list(rows),
                "segment_id": [segment for segment, _ in rows.values()],
                "segment_name": [name for _, name in rows.values()],
                "confidence": 0.5,
                "assigned_at": pl.Series([None] * len(rows), dtype=pl.Datetime("us")),
            },
            schema_overrides={"entity_key": pl.String, "segment_id": pl.Int32, "segment_name": pl.String},
        )
        write_segments(self.con, dataset, version, frame)

    def publish(self, dataset: str, version: int, rows: Segments | None, *, commit: bool = True) -> None:
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
        "select segment_id, segment_name, from_version, to_version from segment_history where entity_key = ?"
        " order by valid_from",
        [key],
    ).fetchall()
    return rows


def test_a_stay_lasts_through_versions_until_the_segment_is_another(history: History) -> None:
    for version, segment in enumerate([0, 0, 1, 1, 0], start=1):
        rows = {"a": (segment, f"segment {segment}"), "b": (1, "segment 1")}
        history.write("d", version, rows)
        history.publish("d", version, rows)
    assert stays_of(history, "a") == [(0, "segment 0", 1, 3), (1, "segment 1", 3, 5), (0, "segment 0", 5, None)]
    assert stays_of(history, "b") == [(1, "segment 1", 1, None)]


def test_a_segment_that_is_renamed_begins_another_stay(history: History) -> None:
    for version, name in enumerate(["old", "new"], start=1):
        history.write("d", version, {"a": (0, name)})
        history.publish("d", version, {"a": (0, name)})
    assert stays_of(history, "a") == [(0, "old", 1, 2), (0, "new", 2, None)]


def test_what_was_hidden_and_comes_back_stays_anew(history: History) -> None:
    rows = {"a": (0, "segment 0")}
    history.write("d", 1, rows)
    history.publish("d", 1, rows)
    history.publish("d", 1, None)
    history.publish("d", 1, rows)
    assert stays_of(history, "a") == [(0, "segment 0", 1, 1), (0, "segment 0", 1, None)]
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
    written: dict[str, list[Segments]] = {"d": [], "other": []}
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


# --- through publish -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_published_file_has_the_history_of_every_publish(project: Project, seed: int) -> None:
    project = project.model_copy(update={"settings": ProjectSettings(keep_versions=50)})
    rng = random.Random(seed)
    model = Model()
    versions: dict[str, list[Segments]] = {"d": [], "other": []}
    done: dict[str, set[int]] = {"d": set(), "other": set()}
    kinds: Counter[str] = Counter()
    for _ in range(18):
        dataset = rng.choice(["d", "d", "other"])
        held, chance = versions[dataset], rng.random()
        if chance < 0.2 and dataset in model.published:
            version, rows, kind = model.published[dataset], None, "retire"
            assert retire(project, {}, dataset, reason="gone")
        elif chance < 0.5 and done[dataset]:
            version, kind = rng.choice(sorted(done[dataset])), "rollback"
            rows = held[version - 1]
            rollback(project, {}, dataset, version, reason="back")
        elif chance < 0.6 and dataset in model.published:
            release(project, dataset, model.published[dataset])  # once more, which is no publish
            kinds["again"] += 1
            continue
        else:
            held.append(draw(rng))
            version, rows, kind = prepare(project, dataset, 0, segments=held[-1]), held[-1], "publish"
            if rng.random() < 0.15:
                continue  # never published
            release(project, dataset, version)
            done[dataset].add(version)
        kinds[kind] += 1
        ((publish_id, moment),) = read(
            project, "select publish_id, published_at from publish_log order by publish_id desc limit 1"
        )
        model.move(publish_id, dataset, version, rows, moment)
        assert ordered(read(project, STAYS.format("segment_history"))) == model.stays()
        assert ordered(read(project, MOVES.format("segment_transitions"))) == ordered(model.moves)
        with open_warehouse(project.warehouse) as con:
            assert ordered(con.execute(STAYS.format("segment_history")).fetchall()) == model.stays()
        now = read(project, "select dataset, entity_key, segment_id, segment_name from segments")
        lasting = "select dataset, entity_key, segment_id, segment_name from segment_history where valid_to is null"
        assert ordered(now) == ordered(read(project, lasting))
    assert min(kinds[kind] for kind in ("publish", "rollback", "retire")) > 0


def test_a_stay_outlives_the_versions_that_it_was_in(project: Project) -> None:
    project = project.model_copy(update={"settings": ProjectSettings(keep_versions=1)})
    for segment in (0, 1, 2, 2):
        removed = release(project, "a", prepare(project, "a", 0, segments={"k": (segment, f"segment {segment}")}))
    assert removed.removed_versions == (3,)
    stays = read(project, "select segment_id, from_version, to_version from segment_history order by valid_from")
    assert stays == [(0, 1, 2), (1, 2, 3), (2, 3, None)]
