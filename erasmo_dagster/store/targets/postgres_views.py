"""The views that readers use, and how all of them move to a new release at once.

A reader waits for the move at most about half a second, and sees no error: whoever moves them takes every lock first,
and lets go of all again before the server would look for a deadlock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.targets.postgres_session import ServerError, Session

_BUSY = {"57014", "55P03", "40P01"}  # a statement ended by its time limit, a lock not had, a deadlock
_PAUSE = (0.2, 1.0)  # seconds


@dataclass(frozen=True)
class View:
    """A view over the table of the same name: its columns with their comments."""

    name: str
    columns: tuple[tuple[str, str | None], ...]
    comment: str | None


@dataclass(frozen=True)
class _There:
    """What has a view's name now; ``shape`` are names and types of its columns."""

    oid: int
    kind: str
    owner: str
    options: str
    shape: tuple[tuple[str, str], ...]


def swap_views(session: Session, schema: str, home: str, views: Sequence[View], ours: set[str], *, wait: float) -> None:
    """Have every view of ``schema`` show its table in ``home``; views of ``ours`` that have no table any more go.

    Belongs in a transaction. Where a view's columns stay, or are added to, it is replaced; else it is made anew, with
    its owner, options and grants. Raises ErasmoError where somebody else has a name, or a view that has to go is used
    by another one, or readers hold one for longer than ``wait`` seconds.
    """
    wanted = {view.name: view for view in views}
    there = _there(session, schema, {*wanted, *ours})
    _check_names(schema, wanted, there, ours)
    old = {name: held for name, held in there.items() if name in ours}
    shapes = _shapes(session, home)
    anew = {n for n, held in old.items() if n in wanted and shapes[n][: len(held.shape)] != held.shape}
    gone = {n for n in old if n not in wanted}
    _check_unused(session, schema, {n: old[n].oid for n in (*anew, *gone)})
    (me,) = session.rows("SELECT current_user::text")[0]
    _lock(session, [_path(schema, name) for name, held in sorted(old.items()) if held.owner == me], wait)
    statements = [f"DROP VIEW {_path(schema, name)}" for name in sorted({*anew, *gone})]
    for name, view in sorted(wanted.items()):
        held = old.get(name)
        statements += _create(schema, home, view, held)
        if held is not None and held.owner != me:
            statements += [
                f"GRANT USAGE ON SCHEMA {quote(home)} TO {quote(held.owner)}",
                f"GRANT SELECT ON {_path(home, name)} TO {quote(held.owner)}",
            ]
    for name in sorted(anew):
        columns = {column for column, _ in wanted[name].columns}
        statements += [_forget_grants(schema, name), *_grants(session, old[name].oid, columns)]
        if old[name].owner != me:
            statements.append(f"ALTER VIEW {_path(schema, name)} OWNER TO {quote(old[name].owner)}")
    # One statement for all: readers wait for it, and not for as many round trips.
    body = "".join(f"{statement};\n" for statement in statements)
    session.run(f"DO {literal(f'DECLARE one text; BEGIN {body} END')}")


def _path(schema: str, name: str) -> str:
    return f"{quote(schema)}.{quote(name)}"


def _there(session: Session, schema: str, names: set[str]) -> dict[str, _There]:
    rows = session.rows(
        "SELECT c.relname::text, c.oid::bigint, c.relkind::text, pg_get_userbyid(c.relowner)::text,"
        " coalesce(array_to_string(c.reloptions, ', '), '') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1",
        schema,
    )
    shapes = _shapes(session, schema)
    return {
        name: _There(oid, kind, owner, options, shapes.get(name, ()))
        for name, oid, kind, owner, options in rows
        if name in names
    }


def _shapes(session: Session, schema: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Name and type of every column of every table and view in a schema."""
    rows = session.rows(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum",
        schema,
    )
    shapes: dict[str, tuple[tuple[str, str], ...]] = {}
    for table, column, kind in rows:
        shapes[table] = (*shapes.get(table, ()), (column, kind))
    return shapes


def _check_names(schema: str, wanted: dict[str, View], there: dict[str, _There], ours: set[str]) -> None:
    foreign = sorted(
        n for n, held in there.items() if (n in wanted and n not in ours) or (n in ours and held.kind != "v")
    )
    if foreign:
        raise ErasmoError(
            f"Got {', '.join(f'{schema}.{name}' for name in foreign)}, which the target has not made",
            expected="names that are free, or views of the target",
            fix="rename them, or give the target another schema",
        )


def _check_unused(session: Session, schema: str, oids: dict[str, int]) -> None:
    """Refuse to drop a view that a user's own one reads: nobody's view is dropped silently."""
    if not oids:
        return
    rows = session.rows(
        "SELECT DISTINCT u.relname::text, format('%I.%I', n.nspname, r.relname) FROM pg_depend d"
        " JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class r ON r.oid = w.ev_class"
        " JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_class u ON u.oid = d.refobjid"
        " WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND r.oid <> d.refobjid"
        f" AND d.refobjid IN ({', '.join(map(str, oids.values()))}) ORDER BY 1, 2"
    )
    if rows:
        used = "; ".join(f"{schema}.{view} by {user}" for view, user in rows)
        raise ErasmoError(
            f"Got views that have to change or go and are used by others ({used})",
            expected="no view on one whose columns change or whose dataset is gone",
            fix="drop the views that use them, run `erasmo build`, and create them again",
        )


def _lock(session: Session, views: list[str], wait: float) -> None:
    """Hold every view, so that no reader has one of them, and none comes in between."""
    if not views:
        return
    (limit,) = session.rows("SELECT setting::integer FROM pg_settings WHERE name = 'deadlock_timeout'")[0]
    until = time.monotonic() + wait
    while True:
        session.run("SAVEPOINT views")
        try:
            session.run(f"SET LOCAL statement_timeout = {max(1, min(600, int(limit * 0.6)))}")
            session.run(f"LOCK TABLE {', '.join(views)} IN ACCESS EXCLUSIVE MODE")
            session.run("SET LOCAL statement_timeout = 0")
            return
        except ServerError as error:
            if error.sqlstate not in _BUSY:
                raise
            session.run("ROLLBACK TO SAVEPOINT views")
        if time.monotonic() > until:
            raise ErasmoError(
                f"Got views that readers have not let go of at once in {wait:g} s",
                expected="transactions that end",
                fix="end those that pg_stat_activity shows to be long, or raise lock_timeout in erasmo.yaml",
            )
        time.sleep(random.uniform(*_PAUSE))


def _create(schema: str, home: str, view: View, held: _There | None) -> Iterator[str]:
    path, columns = _path(schema, view.name), ", ".join(quote(name) for name, _ in view.columns)
    options = f" WITH ({held.options})" if held is not None and held.options else ""
    yield f"CREATE OR REPLACE VIEW {path}{options} AS SELECT {columns} FROM {_path(home, view.name)}"
    yield f"COMMENT ON VIEW {path} IS {_comment(view.comment)}"
    for name, comment in view.columns:
        yield f"COMMENT ON COLUMN {path}.{quote(name)} IS {_comment(comment)}"


def _comment(text: str | None) -> str:
    return "NULL" if text is None else literal(text.replace("\0", ""))


def _forget_grants(schema: str, name: str) -> str:
    """Take from a new view what the schema's default privileges gave: it has the old one's grants, no more."""
    path = _path(schema, name)
    return (
        "FOR one IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'"
        " ELSE quote_ident(pg_get_userbyid(a.grantee)::text) END FROM pg_class c, aclexplode(c.relacl) a"
        f" WHERE c.oid = {literal(path)}::regclass AND a.grantee <> c.relowner"
        f" LOOP EXECUTE {literal(f'REVOKE ALL ON {path} FROM ')} || one; END LOOP"
    )


def _grants(session: Session, oid: int, columns: set[str]) -> Iterator[str]:
    """The grants on a view, and on those of its columns that stay, as statements."""
    to = (
        "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)::text) END,"
        " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END"
    )
    on = f"FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND c.oid = {oid}"
    for (statement,) in session.rows(
        f"SELECT format('GRANT %s ON %I.%I TO %s%s', a.privilege_type, n.nspname, c.relname, {to})"
        f" {on}, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner"
    ):
        yield statement
    for column, statement in session.rows(
        "SELECT t.attname::text, format('GRANT %s (%I) ON %I.%I TO %s%s', a.privilege_type, t.attname, n.nspname,"
        f" c.relname, {to}) {on} JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped,"
        " aclexplode(t.attacl) a"
    ):
        if column in columns:
            yield statement
