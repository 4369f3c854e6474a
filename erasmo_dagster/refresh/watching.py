"""Which datasets a look at the sources sets in motion: a pure plan, from what is seen and what is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from erasmo_dagster.settings import RefreshSettings
from erasmo_dagster.store.watch import Sighting


class Memory(BaseModel):
    """What is remembered of a dataset from one look to the next; times are epoch seconds.

    ``tried`` names the state of source and YAML for which ``attempts`` runs were started, ``started_at`` when the last
    of them was, ``next_try`` when the next may be (None until that one is seen to have ended), ``refused`` the state
    that was last stopped at the gate. ``starts`` counts all runs ever started, so that a source which changes from A to
    B and back to A is two changes. ``matched_at`` is when the source was last as published, ``absent_since`` when the
    YAML was first missing, ``stale`` whether the last freshness check found so, ``looked_at`` when the source was last
    looked at, whatever came of it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sighting: Sighting | None = None
    starts: int = 0
    tried: str | None = None
    attempts: int = 0
    next_try: float | None = None
    started_at: float | None = None
    refused: str | None = None
    matched_at: float | None = None
    absent_since: float | None = None
    stale: bool = False
    looked_at: float = 0.0


@dataclass(frozen=True)
class Seen:
    """One dataset as a look finds it.

    ``present`` says whether it has a YAML; ``settings`` is None where that cannot be read, and ``fault`` then says
    why, as it does for a source that cannot be read. ``changed`` compares the source with what is published (True
    where nothing is), ``state`` names this state of source and YAML. ``blocked`` says that a version made from this
    very source was stopped at the gate. ``asleep`` is a dataset to which this look did not come.
    """

    name: str
    present: bool
    settings: RefreshSettings | None = None
    fault: str | None = None
    registered: bool = True
    published_at: float | None = None
    retired: bool = False
    changed: bool = False
    state: str = ""
    blocked: bool = False
    running: bool = False
    asleep: bool = False
    sighting: Sighting | None = None


@dataclass(frozen=True)
class Start:
    """A run to start: ``attempt`` 1 is the first for this state, ``last`` the one that is not tried again."""

    dataset: str
    run_key: str
    reason: str
    attempt: int
    last: bool


@dataclass(frozen=True)
class WatchPlan:
    """What to do, and what to remember; ``notes`` says for every dataset without a run why it has none."""

    starts: list[Start] = field(default_factory=list)
    register: list[str] = field(default_factory=list)
    retire: list[str] = field(default_factory=list)
    check_freshness: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)


def plan_watch(
    seen: list[Seen], memory: Mapping[str, Memory], *, now: float, retire_after: float, datasets_readable: bool
) -> WatchPlan:
    """Decide for every dataset by itself; nothing that one shows changes what happens to another.

    ``datasets_readable`` is False where the folder of the YAML files is empty or cannot be listed: then nothing counts
    as absent.
    """
    plan = WatchPlan()
    for dataset in seen:
        before = memory.get(dataset.name, Memory())
        if not dataset.present:
            after = _absent(dataset, before, plan, now=now, retire_after=retire_after, counts=datasets_readable)
        else:
            if not dataset.registered:
                plan.register.append(dataset.name)
            after = _present(dataset, before.model_copy(update={"absent_since": None}), plan, now)
        if after is not None:
            plan.memory[dataset.name] = after if dataset.asleep else after.model_copy(update={"looked_at": now})
    return plan


def _absent(
    dataset: Seen, before: Memory, plan: WatchPlan, *, now: float, retire_after: float, counts: bool
) -> Memory | None:
    if dataset.published_at is None or dataset.retired:
        return None
    if not counts:
        plan.notes[dataset.name] = "datasets/ is empty or cannot be read, so nothing counts as absent"
        return before
    since = before.absent_since if before.absent_since is not None else now
    if now - since >= retire_after:
        plan.retire.append(dataset.name)
        plan.notes[dataset.name] = "its YAML is gone: hidden from the published file"
    else:
        left = retire_after - (now - since)
        plan.notes[dataset.name] = f"its YAML is gone: hidden from the published file in {_span(left)}"
    return before.model_copy(update={"absent_since": since})


def _present(dataset: Seen, before: Memory, plan: WatchPlan, now: float) -> Memory:
    if dataset.asleep:
        plan.notes[dataset.name] = "not looked at this time"
        return before
    if dataset.fault is not None or dataset.settings is None:
        plan.notes[dataset.name] = dataset.fault or "its YAML cannot be read"
        return before
    policy = dataset.settings
    update: dict[str, object] = {"sighting": dataset.sighting}
    if not dataset.changed and not dataset.retired:
        update |= {"matched_at": now, "tried": None, "attempts": 0, "next_try": None, "started_at": None}
        plan.notes[dataset.name] = "as published"
        after = before.model_copy(update=update)
    else:
        after = _changed(dataset, policy, before.model_copy(update=update), plan, now)
    return _freshness(dataset, policy, after, plan, now)


def _freshness(dataset: Seen, policy: RefreshSettings, memory: Memory, plan: WatchPlan, now: float) -> Memory:
    """Have the freshness check say so when a dataset becomes stale, and when it no longer is."""
    if policy.max_age is None or dataset.published_at is None:
        if memory.stale:
            plan.check_freshness.append(dataset.name)
        return memory.model_copy(update={"stale": False})
    known = max(memory.matched_at or 0.0, dataset.published_at)
    stale = dataset.changed and now - known > policy.max_age.total_seconds()
    if stale != memory.stale:
        plan.check_freshness.append(dataset.name)
    return memory.model_copy(update={"stale": stale})


def _changed(dataset: Seen, policy: RefreshSettings, memory: Memory, plan: WatchPlan, now: float) -> Memory:
    notes, name = plan.notes, dataset.name
    if not policy.on_change:
        notes[name] = "changed; refresh.on_change is false, so it waits for its schedule"
        return memory
    if dataset.running:
        notes[name] = "changed; a run is in progress"
        return memory
    # What was published since the run began was another state of the source, and this one is a new change.
    served = memory.started_at is not None and (dataset.published_at or 0.0) > memory.started_at
    known = memory.tried == dataset.state and memory.attempts > 0 and not served
    first_seen = memory.tried is None and memory.refused is None
    if dataset.blocked and (known or first_seen or memory.refused == dataset.state):
        notes[name] = "a version made from this source was blocked at the gate; waiting for a change of source or YAML"
        return memory.model_copy(update={"refused": dataset.state})
    if not known:
        what = "nothing is published yet" if dataset.published_at is None else "source changed"
        if dataset.retired:
            what = "its YAML is back"
        return _start(dataset, policy, memory, plan, now, attempt=1, reason=what)
    # A run was started for this state, is over, and what is published is still another.
    if memory.attempts > policy.retries:
        notes[name] = f"gave up after {memory.attempts} failed runs; waiting for a change of source or YAML"
        return memory
    waiting = memory
    if waiting.next_try is None:
        wait = policy.backoff.total_seconds() * 2 ** (memory.attempts - 1)
        waiting = memory.model_copy(update={"next_try": now + wait})
    if waiting.next_try is not None and now < waiting.next_try:
        notes[name] = f"run {memory.attempts} failed; the next one starts in {_span(waiting.next_try - now)}"
        return waiting
    attempt = memory.attempts + 1
    reason = f"source changed; retry {memory.attempts} of {policy.retries}"
    return _start(dataset, policy, memory, plan, now, attempt=attempt, reason=reason)


def _start(
    dataset: Seen, policy: RefreshSettings, memory: Memory, plan: WatchPlan, now: float, *, attempt: int, reason: str
) -> Memory:
    starts = memory.starts + 1
    # The time as well: a cursor that was reset counts from 1 again, and Dagster drops a key that it has seen.
    key = f"{dataset.name}:{dataset.state}:{starts}:{int(now)}"
    plan.starts.append(Start(dataset.name, key, reason, attempt, last=attempt > policy.retries))
    return memory.model_copy(
        update={
            "starts": starts,
            "started_at": now,
            "tried": dataset.state,
            "attempts": attempt,
            "next_try": None,
        }
    )


def _span(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
