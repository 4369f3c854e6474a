"""What a look sets in motion: runs, retries, retirements; dataset by dataset, over many looks."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from erasmo_dagster.refresh.watching import Memory, Seen, Start, WatchPlan, plan_watch
from erasmo_dagster.settings import RefreshSettings
from erasmo_dagster.store.sources import Fingerprint
from erasmo_dagster.store.watch import Sighting

HOUR = 3600.0
RETIRE_AFTER = 2 * HOUR
SETTINGS = RefreshSettings.model_validate({"retries": 2, "backoff": "1m"})


def policy(**options: Any) -> RefreshSettings:
    return RefreshSettings.model_validate({"retries": 2, "backoff": "1m", **options})


def sighting(content: str = "1", at: float = 5.0) -> Sighting:
    fingerprint = Fingerprint(scheme=1, duckdb="2.0.0", schema_={"größe": "BIGINT"}, rows=2, hash=content)
    return Sighting(files=(("/a/t.csv", 3, 9),), fingerprint=fingerprint, hashed_at=at)


class Looks:
    """One dataset, looked at again and again; what a look leaves is what the next remembers."""

    def __init__(self, **facts: Any) -> None:
        self.facts: dict[str, Any] = {"present": True, "settings": SETTINGS, "published_at": 0.0} | facts
        self.memory: dict[str, Memory] = {}
        self.now = 1000.0
        self.plan = WatchPlan()

    def __call__(self, *, later: float = 30.0, readable: bool = True, **facts: Any) -> Start | None:
        """Look again after some seconds; facts stay as they were unless they are given. The run that it starts."""
        self.now += later
        self.facts |= facts
        self.plan = plan_watch(
            [Seen("a", **self.facts)],
            self.memory,
            now=self.now,
            retire_after=RETIRE_AFTER,
            datasets_readable=readable,
        )
        self.memory = self.plan.memory
        assert len(self.plan.starts) <= 1
        return self.plan.starts[0] if self.plan.starts else None

    @property
    def note(self) -> str:
        return self.plan.notes.get("a", "")

    def fail(self) -> None:
        """The run that was started goes on for a look, and has ended by the next one, without a publish."""
        assert self(running=True) is None
        self.facts["running"] = False

    def succeed(self) -> None:
        """The run that was started goes on for a look, and has published the source by the next one."""
        assert self(running=True) is None
        assert self(running=False, changed=False, published_at=self.now, retired=False) is None
        assert self.note == "as published"


# --- what starts a run ---------------------------------------------------------------------------


def test_a_new_yaml_is_registered_and_started() -> None:
    looks = Looks(registered=False, published_at=None, changed=True, state="A")
    assert looks() == Start("a", "a:A:1:1030", "nothing is published yet", attempt=1, last=False)
    assert looks.plan.register == ["a"]
    assert looks(registered=True, running=True) is None
    assert looks.plan.register == []


def test_a_yaml_that_cannot_be_read_is_registered_and_told_of() -> None:
    looks = Looks(registered=False, settings=None, published_at=None)
    assert looks() is None
    assert (looks.plan.register, looks.note) == (["a"], "its YAML cannot be read")
    assert looks(fault="line 3: what?") is None
    assert looks.note == "line 3: what?"


def test_a_change_starts_one_run() -> None:
    looks = Looks(changed=True, state="A", sighting=sighting())
    start = looks()
    assert start == Start("a", "a:A:1:1030", "source changed", attempt=1, last=False)
    assert looks.memory == {
        "a": Memory(sighting=sighting(), starts=1, tried="A", attempts=1, started_at=looks.now, looked_at=looks.now)
    }
    looks.succeed()
    assert [looks() for _ in range(3)] == [None] * 3


def test_a_source_as_published_forgets_what_was_tried() -> None:
    looks = Looks(changed=True, state="A")
    looks()
    looks.fail()
    looks()
    assert looks.memory["a"].next_try is not None
    assert looks(changed=False, state="P", sighting=sighting("2")) is None
    assert looks.memory["a"] == Memory(sighting=sighting("2"), starts=1, matched_at=looks.now, looked_at=looks.now)
    assert looks.note == "as published"
    again = looks(changed=True, state="A")
    assert again is not None
    assert again.attempt == 1


def test_a_burst_of_changes_starts_no_run_beside_the_one_in_progress_and_one_afterwards() -> None:
    looks = Looks(changed=True, state="A")
    assert looks() is not None
    for state in "BCDAE":
        assert looks(running=True, state=state) is None
        assert looks.note == "changed; a run is in progress"
    start = looks(running=False)
    assert start is not None
    assert (start.attempt, start.reason) == (1, "source changed")
    assert start.run_key.startswith("a:E:2:")
    assert looks(running=True) is None


def test_a_run_that_somebody_else_started_is_waited_for() -> None:
    looks = Looks(changed=True, state="A", running=True)
    assert looks() is None
    assert looks.memory["a"].starts == 0
    start = looks(running=False)
    assert start is not None
    assert start.attempt == 1


def test_there_and_back_again_is_two_runs_with_keys_of_their_own() -> None:
    looks = Looks(changed=False, state="A")
    looks()
    keys = []
    for state in "BABA":
        start = looks(changed=True, state=state)
        assert start is not None
        keys.append(start.run_key)
        looks.succeed()
    assert len(set(keys)) == 4


def test_there_and_back_within_one_second_has_keys_of_its_own() -> None:
    looks = Looks(changed=True)
    keys = []
    for state in "ABAB":
        start = looks(later=0.0, state=state)
        assert start is not None
        keys.append(start.run_key)
    assert len(set(keys)) == 4


def test_a_cursor_that_was_reset_gives_another_run_key() -> None:
    looks = Looks(changed=True, state="A")
    first = looks()
    looks.memory = {}
    second = looks(later=1.0)
    assert first is not None
    assert second is not None
    assert first.run_key != second.run_key


def test_runs_are_left_to_the_schedule_where_on_change_is_false() -> None:
    looks = Looks(changed=True, state="A", settings=policy(on_change=False), sighting=sighting())
    assert looks() is None
    assert looks.note == "changed; refresh.on_change is false, so it waits for its schedule"
    assert looks.memory["a"] == Memory(sighting=sighting(), looked_at=looks.now)
    assert looks(settings=SETTINGS) is not None


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
def test_a_failed_run_is_tried_again_after_waits_that_double_and_then_given_up(retries: int) -> None:
    looks = Looks(changed=True, state="A", settings=policy(retries=retries))
    first = looks()
    assert first is not None
    assert (first.attempt, first.last) == (1, retries == 0)
    for attempt in range(2, retries + 2):
        wait = 60.0 * 2 ** (attempt - 2)
        looks.fail()
        assert looks() is None
        assert looks.note.startswith(f"run {attempt - 1} failed; the next one starts in ")
        assert looks(later=wait - 1.0) is None
        start = looks(later=1.0)
        assert start is not None
        assert (start.attempt, start.last) == (attempt, attempt == retries + 1)
        assert start.reason == f"source changed; retry {attempt - 1} of {retries}"
    looks.fail()
    for _ in range(5):
        assert looks(later=100 * HOUR) is None
        assert looks.note == f"gave up after {retries + 1} failed runs; waiting for a change of source or YAML"


def test_the_wait_counts_from_the_first_look_that_finds_the_run_over() -> None:
    looks = Looks(changed=True, state="A")
    looks()
    for _ in range(10):
        assert looks(later=HOUR, running=True) is None
        assert looks.memory["a"].next_try is None
    assert looks(running=False) is None
    assert looks.memory["a"].next_try == looks.now + 60.0
    assert looks.note == "run 1 failed; the next one starts in 60 s"
    assert looks(later=60.0) is not None


@pytest.mark.parametrize(("backoff", "told"), [("89s", "89 s"), ("10m", "10 min"), ("2h", "2 h")])
def test_the_wait_is_told_in_units_that_fit(backoff: str, told: str) -> None:
    looks = Looks(changed=True, state="A", settings=policy(backoff=backoff))
    looks()
    looks.fail()
    looks()
    assert looks.note == f"run 1 failed; the next one starts in {told}"


def test_another_state_of_source_or_yaml_ends_the_waiting_and_the_giving_up() -> None:
    looks = Looks(changed=True, state="A:yaml", settings=policy(retries=0))
    looks()
    looks.fail()
    assert looks() is None
    assert looks.note.startswith("gave up")
    start = looks(state="A:mended")
    assert start is not None
    assert (start.attempt, start.reason) == (1, "source changed")
    looks.fail()
    looks(settings=policy(retries=3))
    assert looks.memory["a"].next_try is not None
    start = looks(later=1.0, state="B:mended")
    assert start is not None
    assert start.attempt == 1


def test_what_was_blocked_at_the_gate_is_not_tried_again_until_the_state_changes() -> None:
    looks = Looks(changed=True, state="A:yaml")
    looks()
    looks(running=True)
    for later in (1.0, HOUR, 1000 * HOUR):
        assert looks(later=later, running=False, blocked=True) is None
        assert looks.note.startswith("a version made from this source was blocked at the gate")
    start = looks(state="A:mended")
    assert start is not None
    assert start.attempt == 1
    looks.fail()
    assert looks() is None
    assert looks(state="B:mended", blocked=False) is not None


def test_what_was_blocked_stays_so_after_a_reset_of_the_cursor() -> None:
    looks = Looks(changed=True, state="A:yaml", blocked=True)
    assert looks() is None
    assert looks(later=HOUR) is None
    assert looks(state="A:mended") is not None


def test_a_blocked_source_that_comes_back_is_not_tried_again() -> None:
    looks = Looks(changed=True, state="B:yaml")
    looks()
    looks(running=True)
    assert looks(running=False, blocked=True) is None
    assert looks(changed=False, state="A:yaml", blocked=False) is None
    assert looks(changed=True, state="B:yaml", blocked=True) is None


def test_a_fault_starts_nothing_and_keeps_what_is_remembered() -> None:
    looks = Looks(changed=True, state="A", sighting=sighting())
    looks()
    remembered = looks.memory["a"]
    for facts in ({"fault": "no file"}, {"fault": None, "settings": None}):
        assert looks(sighting=None, changed=False, state="", **facts) is None
        assert looks.memory == {"a": remembered.model_copy(update={"looked_at": looks.now})}
        assert looks.note in ("no file", "its YAML cannot be read")


def test_a_dataset_to_which_the_look_did_not_come_keeps_its_memory() -> None:
    looks = Looks(changed=True, state="A", sighting=sighting())
    looks()
    remembered = looks.memory
    assert looks(asleep=True, sighting=None, state="", settings=None) is None
    assert looks.memory == remembered
    assert looks.note == "not looked at this time"


# --- YAML files that go and come -----------------------------------------------------------------


def test_a_dataset_is_retired_only_once_its_yaml_has_been_gone_for_long() -> None:
    looks = Looks(changed=False, state="A")
    looks()
    for later in (30.0, RETIRE_AFTER - 1.0):
        assert looks(later=later, present=False, settings=None) is None
        assert looks.plan.retire == []
        assert looks.note.startswith("its YAML is gone: hidden from the published file in ")
    looks(later=1.0)
    assert looks.plan.retire == ["a"]
    looks()  # the retiring failed
    assert looks.plan.retire == ["a"]
    looks(retired=True)
    assert (looks.plan.retire, looks.plan.notes, looks.plan.memory) == ([], {}, {})


def test_the_first_look_without_a_yaml_never_retires() -> None:
    looks = Looks(present=False, settings=None)
    looks(later=1000 * HOUR)
    assert looks.plan.retire == []
    looks(later=RETIRE_AFTER)
    assert looks.plan.retire == ["a"]


@pytest.mark.parametrize(
    "back",
    [
        {"settings": SETTINGS},
        {"settings": None, "fault": "broken"},
        {"settings": None},
        {"settings": SETTINGS, "asleep": True},
        {"settings": SETTINGS, "changed": True, "running": True},
    ],
)
def test_a_yaml_that_comes_back_in_whatever_state_starts_the_waiting_anew(back: dict[str, Any]) -> None:
    looks = Looks()
    looks(present=False, settings=None)
    looks(later=RETIRE_AFTER - 1.0, present=True, **back)
    assert looks.memory["a"].absent_since is None
    looks(later=1.0, present=False)
    assert looks.plan.retire == []
    looks(later=RETIRE_AFTER)
    assert looks.plan.retire == ["a"]


def test_nothing_is_retired_where_the_datasets_cannot_be_listed() -> None:
    looks = Looks(present=False, settings=None)
    for _ in range(5):
        looks(later=RETIRE_AFTER, readable=False)
        assert looks.plan.retire == []
        assert looks.note == "datasets/ is empty or cannot be read, so nothing counts as absent"
        assert looks.memory["a"].absent_since is None
    looks()
    assert looks.plan.retire == []


def test_a_yaml_that_does_not_parse_never_retires() -> None:
    looks = Looks(present=True, settings=None, fault="not YAML")
    for _ in range(5):
        looks(later=RETIRE_AFTER)
        assert looks.plan.retire == []


def test_a_dataset_that_was_never_published_is_forgotten_without_its_yaml() -> None:
    looks = Looks(published_at=None, changed=True, state="A")
    assert looks() is not None
    assert looks(later=RETIRE_AFTER, present=False, settings=None) is None
    assert (looks.plan.retire, looks.plan.memory) == ([], {})


@pytest.mark.parametrize("changed", [False, True])
def test_a_yaml_that_is_back_after_the_retiring_starts_a_run(changed: bool) -> None:
    looks = Looks(changed=False, state="A")
    looks()
    looks(present=False)
    looks(later=RETIRE_AFTER)
    assert looks.plan.retire == ["a"]
    start = looks(present=True, retired=True, changed=changed)
    assert start is not None
    assert (start.attempt, start.reason) == (1, "its YAML is back")
    looks.succeed()
    assert looks() is None


# --- freshness -----------------------------------------------------------------------------------


def test_the_freshness_check_is_asked_for_once_as_a_dataset_becomes_stale_and_once_as_it_no_longer_is() -> None:
    looks = Looks(changed=False, state="A", settings=policy(max_age="1h", on_change=False))
    checks = []
    for later, changed in ((30, False), (9 * HOUR, False), (30, True), (HOUR - 30, True), (1, True), (HOUR, True)):
        looks(later=later, changed=changed)
        checks.append(looks.plan.check_freshness)
    assert checks == [[], [], [], [], ["a"], []]
    known = [looks.memory["a"].stale]
    looks(settings=None, fault="broken")
    assert looks.plan.check_freshness == []
    looks(settings=policy(max_age="1h"), fault=None, changed=False)
    assert looks.plan.check_freshness == ["a"]
    known.append(looks.memory["a"].stale)
    assert known == [True, False]
    looks()
    assert looks.plan.check_freshness == []


def test_a_publish_makes_a_dataset_fresh_though_the_source_has_changed_again() -> None:
    looks = Looks(changed=True, state="A", settings=policy(max_age="1h"), running=True)
    looks(later=2 * HOUR)
    assert looks.plan.check_freshness == ["a"]
    looks(state="B", published_at=looks.now)
    assert looks.plan.check_freshness == ["a"]
    assert not looks.memory["a"].stale


def test_neither_what_was_never_published_nor_what_has_no_limit_is_stale() -> None:
    for facts in ({"published_at": None, "settings": policy(max_age="1h")}, {"settings": policy()}):
        looks = Looks(changed=True, state="A", **facts)
        looks(later=1000 * HOUR)
        assert looks.plan.check_freshness == []
        assert not looks.memory["a"].stale


# --- memory --------------------------------------------------------------------------------------


def test_a_memory_goes_through_json() -> None:
    full = Memory(
        sighting=sighting(),
        starts=7,
        tried="A:ü",
        attempts=2,
        next_try=1.5,
        matched_at=0.1 + 0.2,
        absent_since=1e9 + 0.25,
        stale=True,
    )
    for memory in (full, Memory()):
        assert Memory.model_validate_json(memory.model_dump_json()) == memory
        assert Memory.model_validate_json(memory.model_dump_json(by_alias=True)) == memory
        assert Memory.model_validate(json.loads(json.dumps(memory.model_dump(mode="json", by_alias=True)))) == memory
    assert Memory.model_validate({"starts": 3, "of_a_later_release": 1}) == Memory(starts=3)


# --- one dataset is nothing to another -----------------------------------------------------------

seconds = st.one_of(st.none(), st.floats(0, 10_000))
memories = st.builds(
    Memory,
    sighting=st.one_of(st.none(), st.builds(sighting, st.sampled_from("12"))),
    starts=st.integers(0, 9),
    tried=st.one_of(st.none(), st.sampled_from("AB")),
    attempts=st.integers(0, 5),
    next_try=seconds,
    matched_at=seconds,
    absent_since=seconds,
    stale=st.booleans(),
)
policies = st.builds(
    policy,
    on_change=st.booleans(),
    retries=st.integers(0, 3),
    max_age=st.one_of(st.none(), st.just("1h")),
)


def sights(name: str) -> st.SearchStrategy[Seen]:
    return st.builds(
        Seen,
        name=st.just(name),
        present=st.booleans(),
        settings=st.one_of(st.none(), policies),
        fault=st.one_of(st.none(), st.just("broken")),
        registered=st.booleans(),
        published_at=seconds,
        retired=st.booleans(),
        changed=st.booleans(),
        state=st.sampled_from("AB"),
        blocked=st.booleans(),
        running=st.booleans(),
        asleep=st.booleans(),
        sighting=st.one_of(st.none(), st.builds(sighting, st.sampled_from("12"))),
    )


def shown(plan: WatchPlan, names: set[str]) -> dict[str, Any]:
    """What a plan says of some datasets."""
    return {
        "starts": [start for start in plan.starts if start.dataset in names],
        **{
            what: [name for name in getattr(plan, what) if name in names]
            for what in ("register", "retire", "check_freshness")
        },
        **{
            what: {name: value for name, value in getattr(plan, what).items() if name in names}
            for what in ("notes", "memory")
        },
    }


@examples(max_examples=300)
@given(
    st.tuples(*map(sights, "abc")),
    st.dictionaries(st.sampled_from("abc"), memories),
    st.booleans(),
    st.sampled_from("abc"),
)
def test_what_one_dataset_shows_changes_nothing_for_the_others(
    seen: tuple[Seen, ...], memory: Mapping[str, Memory], readable: bool, other: str
) -> None:
    def plan(some: list[Seen], known: Mapping[str, Memory]) -> WatchPlan:
        return plan_watch(some, known, now=10_000.0, retire_after=RETIRE_AFTER, datasets_readable=readable)

    whole = plan(list(seen), memory)
    rest = set("abc") - {other}
    without = plan([s for s in seen if s.name != other], {n: m for n, m in memory.items() if n != other})
    assert shown(whole, rest) == shown(without, rest) == shown(without, set("abc"))
    faulty = [Seen(**{**vars(s), "fault": "broken", "settings": None}) if s.name == other else s for s in seen]
    assert shown(plan(faulty, memory), rest) == shown(whole, rest)
    assert shown(plan(list(seen)[::-1], memory), {other}) == shown(whole, {other})
    for one in seen:  # whatever is not started or published is explained
        started = one.name in {start.dataset for start in whole.starts}
        if one.present:
            assert (one.name in whole.notes) is not started
        if one.running or not one.present or one.fault or one.asleep:
            assert not started


# --- a world that goes on for hundreds of looks --------------------------------------------------


@dataclass
class Dataset:
    """One dataset of the made-up world."""

    name: str
    content: int = 0
    yaml: int = 0
    policy: RefreshSettings = SETTINGS
    present: bool = True
    parses: bool = True
    readable: bool = True
    registered: bool = False
    published: int | None = None
    published_at: float | None = None
    retired: bool = False
    blocked: int | None = None
    running: int = 0
    gone_at: float | None = None

    @property
    def state(self) -> str:
        return f"{self.content}:{self.yaml}"

    def seen(self, *, asleep: bool) -> Seen:
        facts: dict[str, Any] = {
            "name": self.name,
            "present": self.present,
            "registered": self.registered,
            "published_at": self.published_at,
            "retired": self.retired,
            "running": self.running > 0,
            "asleep": asleep,
        }
        if not self.present or asleep:
            return Seen(**facts)
        if not self.parses or not self.readable:
            return Seen(**facts, fault="broken", settings=self.policy if self.parses else None)
        return Seen(
            **facts,
            settings=self.policy,
            changed=self.content != self.published,
            state=self.state,
            blocked=self.blocked == self.content,
        )


class World:
    """Sources that change, runs that fail, YAML files that go and come; the sensor looks every 30 seconds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.datasets = [Dataset(name, policy=policy(retries=n, max_age="1h")) for n, name in enumerate("abc")]
        self.memory: dict[str, Memory] = {}
        self.now = 1_000_000.0
        self.keys: set[str] = set()
        self.fresh = 100
        self.retirements = 0

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def new_content(self) -> int:
        self.fresh += 1
        return self.fresh

    def disturb(self, one: Dataset) -> None:
        if self.chance(0.10):
            one.content = self.random.choice([1, 2, 3, self.new_content()])
        if self.chance(0.03):
            one.yaml += 1
        if self.chance(0.02 if one.parses else 0.3):
            one.parses = not one.parses
        if self.chance(0.02 if one.readable else 0.3):
            one.readable = not one.readable
        if self.chance(0.01 if one.present else 0.004):
            one.present = not one.present
            one.gone_at = None if one.present else self.now

    def go_on(self, one: Dataset, *, calm: bool) -> None:
        """Runs end, with what the source is at that moment."""
        if not one.running:
            return
        one.running -= 1
        if one.running:
            return
        if calm or self.chance(0.5):
            one.published, one.published_at, one.retired, one.blocked = one.content, self.now, False, None
        elif self.chance(0.3):
            one.blocked = one.content

    def look(self, *, calm: bool = False) -> list[Start]:
        self.now += 30.0
        for one in self.datasets:
            if not calm:
                self.disturb(one)
            self.go_on(one, calm=calm)
        if not calm and self.chance(0.01):
            self.memory = {}
        readable = calm or not self.chance(0.05)
        asleep = {one.name for one in self.datasets if not calm and self.chance(0.05)}
        seen = [one.seen(asleep=one.name in asleep) for one in self.datasets]
        plan = plan_watch(seen, self.memory, now=self.now, retire_after=RETIRE_AFTER, datasets_readable=readable)
        text = {name: memory.model_dump_json() for name, memory in plan.memory.items()}
        self.memory = {name: Memory.model_validate_json(memory) for name, memory in text.items()}
        by_name = {one.name: one for one in self.datasets}
        for name in plan.register:
            assert not by_name[name].registered
            by_name[name].registered = True
        for start in plan.starts:
            self.start(by_name[start.dataset], start)
        for name in plan.retire:
            self.retire(by_name[name], readable=readable)
        return plan.starts

    def start(self, one: Dataset, start: Start) -> None:
        assert one.running == 0, "two runs at a time"
        assert one.present
        assert one.parses
        assert one.readable
        assert one.registered
        assert one.content != one.published or one.retired
        assert start.run_key not in self.keys, "Dagster drops this one"
        self.keys.add(start.run_key)
        assert 1 <= start.attempt <= one.policy.retries + 1
        assert start.last is (start.attempt == one.policy.retries + 1)
        one.running = self.random.randint(1, 6)

    def retire(self, one: Dataset, *, readable: bool) -> None:
        assert readable
        assert not one.present
        assert one.gone_at is not None
        assert self.now - one.gone_at >= RETIRE_AFTER
        one.retired = True
        self.retirements += 1


@pytest.mark.parametrize("seed", range(12))
def test_over_hundreds_of_looks_no_change_is_lost_and_no_run_is_one_too_many(seed: int) -> None:
    world = World(seed)
    started = sum(len(world.look()) for _ in range(1200))
    assert started > 20
    for one in world.datasets:  # all is well again, and every source changes once more
        one.present = one.parses = one.readable = True
        one.gone_at = None
        one.content = world.new_content()
    for _ in range(30):
        world.look(calm=True)
    assert [(one.published == one.content, one.retired, one.running) for one in world.datasets] == [
        (True, False, 0)
    ] * 3
    assert [start for _ in range(100) for start in world.look(calm=True)] == []


def test_the_world_has_seen_retirements() -> None:
    worlds = [World(seed) for seed in range(6)]
    for world in worlds:
        for _ in range(1200):
            world.look()
    assert sum(world.retirements for world in worlds) > 3


@examples(max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=25), st.integers(0, 3))
def test_where_every_run_fails_a_state_that_stands_is_tried_as_often_as_the_settings_say(
    contents: list[int], retries: int
) -> None:
    looks = Looks(changed=True, published_at=None, settings=policy(retries=retries))
    before = None
    for content in contents:
        attempts = []
        for _ in range(30):
            start = looks(later=HOUR, state=str(content))
            if start is not None:
                attempts.append((start.attempt, start.last))
                looks.fail()
        expected = [(n, n == retries + 1) for n in range(1, retries + 2)]
        assert attempts == ([] if content == before else expected)
        before = content


def test_a_blocked_source_is_tried_again_under_another_yaml_even_after_a_match_between() -> None:
    policy = RefreshSettings()

    def seen(**facts: Any) -> Seen:
        return Seen("a", True, policy, published_at=1.0, **facts)

    def look(one: Seen, memory: dict[str, Memory], now: float) -> WatchPlan:
        return plan_watch([one], memory, now=now, retire_after=1e9, datasets_readable=True)

    plan = look(seen(changed=True, state="B:y1"), {}, 10.0)
    assert len(plan.starts) == 1
    plan = look(seen(changed=True, state="B:y1", blocked=True), plan.memory, 20.0)
    assert plan.starts == []
    plan = look(seen(changed=False, state="A:y1"), plan.memory, 30.0)
    plan = look(seen(changed=True, state="B:y2", blocked=True), plan.memory, 40.0)
    assert [start.attempt for start in plan.starts] == [1]


def test_a_run_that_published_another_state_did_not_fail() -> None:
    policy = RefreshSettings(retries=0)
    before = plan_watch(
        [Seen("a", True, policy, published_at=1.0, changed=True, state="B")],
        {},
        now=10.0,
        retire_after=1e9,
        datasets_readable=True,
    )
    assert len(before.starts) == 1
    # It read C, which was published at 15; now the source is B again.
    after = plan_watch(
        [Seen("a", True, policy, published_at=15.0, changed=True, state="B")],
        before.memory,
        now=20.0,
        retire_after=1e9,
        datasets_readable=True,
    )
    assert [start.attempt for start in after.starts] == [1]
    assert after.starts[0].run_key != before.starts[0].run_key


def test_without_a_max_age_nothing_stays_stale() -> None:
    plan = plan_watch(
        [Seen("a", True, RefreshSettings(), published_at=1.0, changed=True, state="B", running=True)],
        {"a": Memory(stale=True)},
        now=20.0,
        retire_after=1e9,
        datasets_readable=True,
    )
    assert plan.check_freshness == ["a"]
    assert not plan.memory["a"].stale
