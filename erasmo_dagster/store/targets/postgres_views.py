"""The views that readers use, and how all of them move to a new release at once.

Before the move every view is made to show two releases, of which the row in the table ``release`` lets one through. To
change that row moves all views at once, for each query by what it sees of the table: no lock on a view is needed, and a
query that joins two views has both of one release. Once every transaction has ended that may see the row as it was, the
views are made plain again. Until then a view keeps every release that it shows, whatever is published meanwhile. Who
sees the row of yet another one gets an error, and never a view without rows. A view whose columns change is made anew
in the move itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.targets.postgres_catalog import (
    Shape,
    There,
    check_names,
    check_unused,
    forget_grants,
    grants,
    home_of,
    number_of,
    read_shapes,
    read_there,
)
from erasmo_dagster.store.targets.postgres_session import ServerError, Session

RELEASE = "release"  # the table beside the views
BUSY = {"57014", "55P03", "40P01"}  # a statement ended by its time limit, a lock not had, a deadlock
_PAUSE = (0.1, 0.5)  # seconds
_BRIEF = 500  # milliseconds that readers wait behind us, at most
_GRACE = 30.0  # seconds that other transactions have to end; views that are not plain yet are so after the next move


class HeldError(ErasmoError):
    """Readers have not let go of a view in time."""


@dataclass(frozen=True)
class View:
    """A view over the table of the same name: its columns with their comments."""

    name: str
    columns: tuple[tuple[str, str | None], ...]
    comment: str | None


@dataclass(frozen=True)
class _Plan:
    """A move to the release ``number``: what is wanted, what is there, and the tables' columns by release.

    Views of ``stay`` can be replaced, those of ``change`` have to go, or to go and come back.
    """

    number: int
    wanted: dict[str, View]
    held: dict[str, There]
    shapes: Mapping[int, Mapping[str, Shape]]
    stay: list[str]
    change: dict[str, There]


class Views:
    """The views of one schema; ``ours`` are those that the target has made, ``wait`` is in seconds for each of them."""

    def __init__(self, session: Session, schema: str, ours: Iterable[str], *, wait: float) -> None:
        self._session, self._schema, self._wait = session, schema, wait
        self._ours = set(ours)
        (self._me,) = session.rows("SELECT current_user::text")[0]

    def settle(self, current: int) -> None:
        """Let no view show a release after the current one, so that what a killed run has left can go."""
        held = self._held()
        shapes = self._shapes({current}, held)
        for name, there in sorted(held.items()):
            shown = self._shown(there)
            if name in shapes[current] and max(shown, default=current) > current:
                kept = {number for number in shown if number < current} | {current}
                branches = {number: shapes[number][name] for number in kept if name in shapes[number]}
                self._replace(self._definition(name, there.shape, branches, there.options, by_row=True))

    def check(self, current: int | None, number: int, views: Sequence[View]) -> None:
        """Raise ErasmoError where somebody else has a name, or uses a view that has to change or go."""
        plan = self._plan(current, number, views)
        check_names(self._schema, set(plan.wanted), plan.held, self._ours)
        check_unused(self._session, self._schema, plan.change)

    def move(self, current: int | None, number: int, views: Sequence[View], write: Callable[[], None]) -> None:
        """Have readers see the release ``number``, whose tables are there; ``write`` changes the row that says so.

        Raises ErasmoError where readers do not let go of a view; they then see what they saw.
        """
        plan = self._plan(current, number, views)
        self._let_owners_read(plan)
        for name in plan.stay:
            self._replace(self._double(plan, name))
        with self._session.transaction():
            self._hold(plan.change)
            write()
            self._run_all(self._changes(plan))
        self._ours = set(plan.wanted)
        self._run_all(statement for name in plan.stay for statement in self._comments(plan.wanted[name]))
        self.make_plain(number)

    def make_plain(self, current: int) -> None:
        """Let every view show the current release alone, as soon as no transaction sees an older one.

        What readers hold for long stays as it is until the next time.
        """
        shapes = read_shapes(self._session, self._home(current))
        double = {
            name: there
            for name, there in sorted(self._held().items())
            if name in shapes and (there.by_row or self._shown(there) != {current})
        }
        if not double or not self._others_have_ended():
            return
        for name, there in double.items():
            try:
                self._replace(self._definition(name, there.shape, {current: shapes[name]}, there.options))
            except HeldError:
                return

    def _home(self, number: int) -> str:
        return home_of(self._schema, number)

    def _shown(self, there: There) -> set[int]:
        """The releases whose tables a view reads."""
        return {number for home in there.homes if (number := number_of(self._schema, home)) is not None}

    def _shapes(self, numbers: Iterable[int], held: Mapping[str, There]) -> dict[int, dict[str, Shape]]:
        """Columns of the tables of these releases and of all that views show."""
        shown = {number for there in held.values() for number in self._shown(there)}
        return {number: read_shapes(self._session, self._home(number)) for number in sorted({*numbers, *shown})}

    def _held(self, names: Iterable[str] = ()) -> dict[str, There]:
        return read_there(self._session, self._schema, {*names, *self._ours})

    def _path(self, name: str) -> str:
        return f"{quote(self._schema)}.{quote(name)}"

    def _plan(self, current: int | None, number: int, views: Sequence[View]) -> _Plan:
        wanted, held = {view.name: view for view in views}, self._held(view.name for view in views)
        shapes = self._shapes({number} if current is None else {number, current}, held)
        before, after = {} if current is None else shapes[current], shapes[number]
        stay = [
            name
            for name in sorted(wanted)
            if name in held and name in before and after[name][: len(held[name].shape)] == held[name].shape
        ]
        change = {name: there for name, there in held.items() if name not in stay}
        return _Plan(number, wanted, held, shapes, stay, change)

    def _double(self, plan: _Plan, name: str) -> str:
        """A view that shows what it has shown or the new release, as the row says."""
        held = plan.held.get(name)
        numbers = {plan.number} | (self._shown(held) if held is not None else set())
        branches = {number: plan.shapes[number][name] for number in numbers if name in plan.shapes[number]}
        options = held.options if held is not None else ""
        return self._definition(name, plan.shapes[plan.number][name], branches, options, by_row=True)

    def _definition(
        self, name: str, shape: Shape, branches: dict[int, Shape], options: str, *, by_row: bool = False
    ) -> str:
        """A view of ``shape`` over its tables in these releases, each ``by_row`` only where the row names it.

        A column that a release has not, or has of another type, is null there.
        """
        row = self._row(branches)
        selects = []
        for number, there in sorted(branches.items()):
            columns = ", ".join(
                quote(column) if (column, kind) in there else f"NULL::{kind} AS {quote(column)}"
                for column, kind in shape
            )
            where = f" WHERE ({row}) = {number}" if by_row else ""
            selects.append(f"SELECT {columns} FROM {quote(self._home(number))}.{quote(name)}{where}")
        given = f" WITH ({options})" if options else ""
        return f"CREATE OR REPLACE VIEW {self._path(name)}{given} AS {' UNION ALL '.join(selects)}"

    def _row(self, numbers: Iterable[int]) -> str:
        """A query of the release that the row names, which is one of these, or else an error.

        The error is a number that is none: an error that PostgreSQL raises only where it comes to that.
        """
        told = literal("a release that is gone, begin another transaction: ")
        return (
            f"SELECT CASE WHEN max(release) IN ({', '.join(map(str, sorted(numbers)))}) THEN max(release)"
            f" ELSE ({told}::text || coalesce(max(release), 0)::text)::integer END FROM {self._path(RELEASE)}"
        )

    def _let_owners_read(self, plan: _Plan) -> None:
        """A view reads its tables by the rights of its owner, who may be somebody else by now."""
        for name, there in sorted(plan.held.items()):
            if name not in plan.wanted or there.owner == self._me:
                continue
            owner = quote(there.owner)
            for number in sorted({plan.number, *self._shown(there)}):
                home = quote(self._home(number))
                self._session.run(f"GRANT USAGE ON SCHEMA {home} TO {owner}")
                self._session.run(f"GRANT SELECT ON {home}.{quote(name)}, {self._path(RELEASE)} TO {owner}")

    def _changes(self, plan: _Plan) -> Iterator[str]:
        """Views that go, are new, or are made anew with their owner, options and grants."""
        kept = {
            name: list(grants(self._session, there.oid, plan.shapes[plan.number][name]))
            for name, there in plan.change.items()
            if name in plan.wanted
        }
        for name in sorted(plan.change):
            yield f"DROP VIEW {self._path(name)}"
        for name in sorted(set(plan.wanted) - set(plan.stay)):
            yield self._double(plan, name)
            yield from self._comments(plan.wanted[name])
            if (old := plan.change.get(name)) is not None:
                yield forget_grants(self._path(name))
                yield from kept[name]
                if old.owner != self._me:
                    yield f"ALTER VIEW {self._path(name)} OWNER TO {quote(old.owner)}"

    def _comments(self, view: View) -> Iterator[str]:
        yield f"COMMENT ON VIEW {self._path(view.name)} IS {_comment(view.comment)}"
        for name, comment in view.columns:
            yield f"COMMENT ON COLUMN {self._path(view.name)}.{quote(name)} IS {_comment(comment)}"

    def _run_all(self, statements: Iterable[str]) -> None:
        """Run statements as one: readers may wait for it, and not for as many round trips."""
        if body := "".join(f"{statement};\n" for statement in statements):
            self._session.run(f"DO {literal(f'DECLARE one text; BEGIN {body} END')}")

    def _replace(self, definition: str) -> None:
        """Replace one view, in a transaction of its own: who holds a single lock is in nobody's way for good."""

        def work() -> None:
            with self._session.transaction():
                self._session.run(f"SET LOCAL lock_timeout = {_BRIEF}")
                self._session.run(definition)

        self._patiently(work)

    def _others_have_ended(self) -> bool:
        """Wait for the transactions of this moment to end, for a while; whether they have.

        A query may have begun before the move and be about to look a view up: it must find the release that it sees.
        """
        others = (
            "SELECT l.virtualxid FROM pg_locks l JOIN pg_stat_activity s ON s.pid = l.pid"
            " WHERE l.locktype = 'virtualxid' AND l.granted AND l.mode = 'ExclusiveLock' AND l.pid <> pg_backend_pid()"
            " AND s.datname = current_database()"
        )
        left = {number for (number,) in self._session.rows(others)}
        until = time.monotonic() + _GRACE
        while left and time.monotonic() < until:
            time.sleep(_PAUSE[0])
            left &= {number for (number,) in self._session.rows(others)}
        return not left

    def _hold(self, views: dict[str, There]) -> None:
        """Hold several views until the transaction ends, so that no reader has one, and none comes in between.

        A reader may hold one of them and wait for another. All are let go of before the server looks for a deadlock,
        which it would end by an error of whoever waits the longest. They are held by giving each to the owner that it
        has: LOCK TABLE would hold what they read as well, and all readers need the table of the row.
        """
        if not views:
            return
        held = [f"ALTER VIEW {self._path(name)} OWNER TO {quote(there.owner)}" for name, there in sorted(views.items())]
        (limit,) = self._session.rows("SELECT setting::integer FROM pg_settings WHERE name = 'deadlock_timeout'")[0]
        self._session.run("SAVEPOINT held")

        def work() -> None:
            try:
                self._session.run(f"SET LOCAL statement_timeout = {max(1, min(_BRIEF, int(limit * 0.6)))}")
                self._run_all(held)
                self._session.run("SET LOCAL statement_timeout = 0")
            except ServerError:
                self._session.run("ROLLBACK TO SAVEPOINT held")
                raise

        self._patiently(work)

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do what readers may hold up, again and again until they let go."""
        until = time.monotonic() + self._wait
        while True:
            try:
                work()
                return
            except ServerError as error:
                if error.sqlstate not in BUSY:
                    raise
            if time.monotonic() > until:
                raise HeldError(
                    f"Got views of {self._schema} that readers have not let go of in {self._wait:g} s",
                    expected="transactions that end",
                    fix="end those that pg_stat_activity shows to be long, or raise lock_timeout in erasmo.yaml",
                )
            time.sleep(random.uniform(*_PAUSE))


def _comment(text: str | None) -> str:
    return "NULL" if text is None else literal(text.replace("\0", ""))
