"""Who was where, when: the tables against a plain model of stays, over random publishes, rollbacks and retirements."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from erasmo_dagster.settings import Project
from erasmo_dagster.store.publish import retire, rollback
from erasmo_dagster.store.warehouse import open_warehouse
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


def test_a_segment_that_is_named_anew_begins_new_stays(project: Project) -> None:
    for name in ("segment 0", "families"):
        release(project, "a", prepare(project, "a", 0, segments={"1": (0, name)}))
    assert read(project, "select segment_name, from_version, to_version from segment_history order by 2") == [
        ("segment 0", 1, 2),
        ("families", 2, None),
    ]


def test_other_datasets_keep_their_history(project: Project) -> None:
    release(project, "a", prepare(project, "a", 3))
    before = read(project, "select * from segment_history where dataset = 'a' order by all")
    for rows in (4, 2):
        release(project, "b", prepare(project, "b", rows))
    retire(project, {}, "b", reason="gone")
    assert read(project, "select * from segment_history where dataset = 'a' order by all") == before
