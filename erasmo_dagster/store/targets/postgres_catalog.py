"""What PostgreSQL says of the views that are there: their columns, owners and grants, and who uses them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.targets.postgres_session import Session

# Names and types of a table's or a view's columns, in order.
Shape = tuple[tuple[str, str], ...]
_GRANTEE = "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)::text) END"


@dataclass(frozen=True)
class There:
    """What has a view's name now.

    ``homes`` are the schemas of the tables that it reads; a view that is ``by_row`` reads one of its own schema too.
    """

    oid: int
    kind: str
    owner: str
    options: str
    shape: Shape
    homes: frozenset[str]
    by_row: bool


def home_of(schema: str, number: int) -> str:
    """The schema of a release's tables."""
    return f"{schema}_r{number}"


def number_of(schema: str, home: str) -> int | None:
    """The release whose tables are in the schema ``home``; None where its name is not one of a release."""
    match = re.fullmatch(f"{re.escape(schema)}_r([0-9]{{1,9}})", home)
    return int(match[1]) if match else None


def read_there(session: Session, schema: str, names: Set[str]) -> dict[str, There]:
    """What is in a schema under these names."""
    rows = session.rows(
        "SELECT c.relname::text, c.oid::bigint, c.relkind::text, pg_get_userbyid(c.relowner)::text,"
        " coalesce(array_to_string(c.reloptions, ', '), ''), array(SELECT DISTINCT h.nspname::text FROM pg_rewrite w"
        " JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid"
        " AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid"
        " JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace h ON h.oid = t.relnamespace"
        " WHERE w.ev_class = c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1",
        schema,
    )
    shapes = read_shapes(session, schema)
    return {
        name: There(oid, kind, owner, options, shapes.get(name, ()), frozenset(homes) - {schema}, schema in homes)
        for name, oid, kind, owner, options, homes in rows
        if name in names
    }


def read_shapes(session: Session, schema: str) -> dict[str, Shape]:
    """The columns of every table and view in a schema."""
    rows = session.rows(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum",
        schema,
    )
    shapes: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in rows:
        shapes.setdefault(table, []).append((column, kind))
    return {table: tuple(columns) for table, columns in shapes.items()}


def check_names(schema: str, wanted: Set[str], there: Mapping[str, There], ours: Set[str]) -> None:
    """Refuse names that somebody else has."""
    foreign = sorted(
        n for n, held in there.items() if (n in wanted and n not in ours) or (n in ours and held.kind != "v")
    )
    if foreign:
        raise ErasmoError(
            f"Got {', '.join(f'{schema}.{name}' for name in foreign)}, which the target has not made",
            expected="names that are free, or views of the target",
            fix="rename them, or give the target another schema",
        )


def check_unused(session: Session, schema: str, views: Mapping[str, There]) -> None:
    """Refuse to drop views that others read: nobody's own view is dropped silently."""
    if not views:
        return
    rows = session.rows(
        "SELECT DISTINCT u.relname::text, format('%I.%I', n.nspname, r.relname) FROM pg_depend d"
        " JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class r ON r.oid = w.ev_class"
        " JOIN pg_namespace n ON n.oid = r.relnamespace JOIN pg_class u ON u.oid = d.refobjid"
        " WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND r.oid <> d.refobjid"
        f" AND d.refobjid IN ({', '.join(str(view.oid) for view in views.values())}) ORDER BY 1, 2"
    )
    if rows:
        used = "; ".join(f"{schema}.{view} by {user}" for view, user in rows)
        raise ErasmoError(
            f"Got views that have to change or go and are used by others ({used})",
            expected="no view on one whose columns change or whose dataset is gone",
            fix="drop the views that use them, run `erasmo build`, and create them again",
        )


def grants(session: Session, oid: int, shape: Shape) -> Iterator[str]:
    """The grants on a view, and on those of its columns that are in ``shape``, as statements."""
    to = f"{_GRANTEE}, CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END"
    on = f"FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND c.oid = {oid}"
    for (statement,) in session.rows(
        f"SELECT format('GRANT %s ON %I.%I TO %s%s', a.privilege_type, n.nspname, c.relname, {to})"
        f" {on}, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner"
    ):
        yield statement
    columns = {column for column, _ in shape}
    for column, statement in session.rows(
        "SELECT t.attname::text, format('GRANT %s (%I) ON %I.%I TO %s%s', a.privilege_type, t.attname, n.nspname,"
        f" c.relname, {to}) {on} JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped,"
        " aclexplode(t.attacl) a"
    ):
        if column in columns:
            yield statement


def forget_grants(path: str) -> str:
    """Take from a new view what the schema's default privileges gave: it gets the old one's grants, no more.

    A statement of PL/pgSQL, with ``one`` declared as text.
    """
    return (
        f"FOR one IN SELECT DISTINCT {_GRANTEE} FROM pg_class c, aclexplode(c.relacl) a"
        f" WHERE c.oid = {literal(path)}::regclass AND a.grantee <> c.relowner"
        f" LOOP EXECUTE {literal(f'REVOKE ALL ON {path} FROM ')} || one; END LOOP"
    )


def drop_release(session: Session, home: str) -> None:
    """Drop a release with its own tables alone: what others have built on it is in the way, and stays."""
    tables = session.rows("SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1", home)
    if tables:
        session.run(f"DROP TABLE {', '.join(f'{quote(home)}.{quote(name)}' for (name,) in tables)}")
    session.run(f"DROP SCHEMA {quote(home)}")
