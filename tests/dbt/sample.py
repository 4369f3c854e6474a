"""A small published file: two datasets in three publishes, and a third that was hidden again.

Each table is filled by hand or by a plain model of stays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

_DDL = """
CREATE TABLE segments (dataset VARCHAR, entity_key VARCHAR, segment_id INTEGER, segment_name VARCHAR, confidence FLOAT,
    version INTEGER, assigned_at TIMESTAMP);
CREATE TABLE segment_memberships (dataset VARCHAR, entity_key VARCHAR, segment_id INTEGER, segment_name VARCHAR,
    membership FLOAT, version INTEGER);
CREATE TABLE segment_sizes (dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR, rows BIGINT,
    share DOUBLE);
CREATE TABLE segment_metrics (dataset VARCHAR, version INTEGER, metric VARCHAR, value DOUBLE, description VARCHAR);
CREATE TABLE segment_leaderboard (dataset VARCHAR, version INTEGER, candidate VARCHAR, chosen BOOLEAN, rank INTEGER,
    bits_saved DOUBLE, separation DOUBLE, gower_silhouette DOUBLE, tree_accuracy DOUBLE, stability DOUBLE,
    smallest DOUBLE, seconds DOUBLE, refused VARCHAR);
CREATE TABLE segment_history (dataset VARCHAR, entity_key VARCHAR, segment_id INTEGER, segment_name VARCHAR,
    from_version INTEGER, valid_from TIMESTAMP, to_version INTEGER, valid_to TIMESTAMP);
CREATE TABLE segment_transitions (publish_id INTEGER, dataset VARCHAR, from_version INTEGER, version INTEGER,
    from_segment_id INTEGER, to_segment_id INTEGER, rows BIGINT);
CREATE TABLE publish_log (publish_id INTEGER, dataset VARCHAR, version INTEGER, run_id VARCHAR, fingerprint VARCHAR,
    rows BIGINT, segments INTEGER, published_at TIMESTAMP, reason VARCHAR, figures JSON, targets JSON);
CREATE TABLE segment_profile (dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR,
    trait_rank INTEGER, column_name VARCHAR, kind VARCHAR, value VARCHAR, in_segment DOUBLE, in_rest DOUBLE,
    effect DOUBLE, effect_kind VARCHAR, strength DOUBLE, column_association DOUBLE, description VARCHAR);
CREATE TABLE segment_descriptions (dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR,
    rows BIGINT, share DOUBLE, summary VARCHAR, rule VARCHAR, rule_precision DOUBLE, rule_coverage DOUBLE,
    typical_row JSON, central_members VARCHAR[], doubtful_members VARCHAR[]);
CREATE TABLE segment_values (dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR,
    column_name VARCHAR, value VARCHAR, value_order INTEGER, rows BIGINT);
"""

NAMES = {
    ("animals", -1): "noise",
    ("animals", 0): "on four legs",
    ("animals", 1): "on two legs",
    ("plants", 0): "trees",
    ("plants", 1): "grasses",
    ("stones", 0): "pebbles",
}
DAY = datetime(2026, 1, 1, 12)


@dataclass(frozen=True)
class Publish:
    """One publish: which entity is in which segment, and how clearly."""

    dataset: str
    version: int
    members: dict[str, tuple[int, float]]
    figures: dict[str, float]


# In the third publish a4 moves from 0 to 1, a8 leaves the noise for 0, a7 goes, a9 and a10 are new.
PUBLISHES = (
    Publish(
        "animals",
        1,
        {
            "a1": (0, 0.9),
            "a2": (0, 0.8),
            "a3": (0, 0.7),
            "a4": (0, 0.05),
            "a5": (1, 0.6),
            "a6": (1, 0.5),
            "a7": (1, 0.4),
            "a8": (-1, 0.0),
        },
        {"silhouette": 0.25, "noise_share": 0.125},
    ),
    Publish(
        "plants",
        1,
        {"p1": (0, 0.9), "p2": (0, 0.8), "p3": (0, 0.7), "p4": (0, 0.02), "p5": (1, 0.03), "p6": (1, 0.04)},
        {"silhouette": 0.5},
    ),
    Publish(
        "animals",
        2,
        {
            "a1": (0, 0.9),
            "a2": (0, 0.8),
            "a3": (0, 0.7),
            "a4": (1, 0.3),
            "a5": (1, 0.6),
            "a6": (1, 0.5),
            "a8": (0, 0.06),
            "a9": (1, 0.45),
            "a10": (0, 0.2),
        },
        {"silhouette": 0.375},
    ),
    Publish("stones", 1, {"s1": (0, 0.9), "s2": (0, 0.8)}, {}),
    # Hidden again: no rows.
    Publish("stones", 1, {}, {}),
)


@dataclass(frozen=True)
class Fault:
    """A statement that breaks the sample, the tests that then fail (or how their names begin), and of which dataset."""

    sql: str
    fails: tuple[str, ...]
    dataset: str


FAULTS = (
    Fault(
        "UPDATE segment_sizes SET share = share + 0.1 WHERE dataset = 'animals' AND segment_id = 0",
        ("shares_sum_to_one",),
        "animals",
    ),
    Fault(
        "UPDATE segment_sizes SET rows = rows + 2 WHERE dataset = 'plants' AND segment_id = 0",
        ("sizes_sum_to_the_published_rows", "arrivals_are_the_sizes"),
        "plants",
    ),
    Fault(
        "UPDATE segment_sizes SET rows = 1 WHERE dataset = 'plants' AND segment_id = 1",
        ("sizes_sum_to_the_published_rows", "arrivals_are_the_sizes", "segments_with_a_single_row"),
        "plants",
    ),
    Fault(
        "INSERT INTO segments SELECT * REPLACE (1 AS segment_id) FROM segments WHERE entity_key = 'a1'",
        ("each_entity_has_one_segment", "open_stays_are_the_segments", "unique_stg_segments_member_key"),
        "animals",
    ),
    Fault("DELETE FROM segment_history WHERE entity_key = 'p1'", ("open_stays_are_the_segments",), "plants"),
    Fault(
        "INSERT INTO segment_history SELECT * REPLACE (1 AS segment_id, valid_from - INTERVAL 1 HOUR AS valid_from,"
        " 1 AS to_version, valid_from + INTERVAL 1 HOUR AS valid_to) FROM segment_history WHERE entity_key = 'p2'",
        ("stays_do_not_overlap",),
        "plants",
    ),
    Fault(
        "INSERT INTO segment_values FROM segment_values WHERE value = '(missing)'",
        ("each_value_is_counted_once", "values_sum_to_the_sizes"),
        "animals",
    ),
    Fault(
        "UPDATE segment_profile SET kind = 'colour' WHERE dataset = 'plants' AND trait_rank = 1",
        ("accepted_values_stg_segment_profile_kind",),
        "plants",
    ),
    Fault(
        "UPDATE segment_profile SET effect_kind = NULL WHERE dataset = 'animals' AND segment_id = 1",
        ("not_null_stg_segment_profile_effect_kind",),
        "animals",
    ),
    Fault(
        "UPDATE segment_descriptions SET segment_id = 7 WHERE dataset = 'plants' AND segment_id = 1",
        ("relationships_segment_profiles_segment_key", "relationships_stg_segment_descriptions_segment_key"),
        "plants",
    ),
)

# Legs of the published animals: a segment, a value, how many.
_LEGS = [(0, "4", 1, 4), (0, "2", 0, 1), (1, "2", 0, 2), (1, "4", 1, 1), (1, "(missing)", 2, 1)]


def write_sample(path: Path, publishes: tuple[Publish, ...] = PUBLISHES, faults: tuple[Fault, ...] = ()) -> Path:
    """Write the published file after these publishes, then break it; ``path``. Replaces a file that is there."""
    path.unlink(missing_ok=True)
    with duckdb.connect(path) as con:
        con.execute(_DDL)
        _write_publishes(con, publishes)
        for publish in {p.dataset: p for p in publishes}.values():
            if publish.members:
                _write_current(con, publish)
            if publish.dataset == "animals":
                legs = [("animals", 2, s, NAMES["animals", s], "legs", value, order, n) for s, value, order, n in _LEGS]
                _insert(con, "segment_values", legs)
                con.execute("CREATE TABLE animals_segmented AS FROM segments WHERE dataset = 'animals'")
        for fault in faults:
            con.execute(fault.sql)
        con.execute("CHECKPOINT")
    return path


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    for row in rows:
        con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _write_publishes(con: duckdb.DuckDBPyConnection, publishes: tuple[Publish, ...]) -> None:
    before: dict[str, Publish] = {}
    stays: dict[tuple[str, str], list[object]] = {}
    done: list[tuple[object, ...]] = []
    for number, publish in enumerate(publishes, 1):
        moment = DAY + timedelta(days=number)
        last = before.get(publish.dataset)
        old = {key: segment for key, (segment, _) in last.members.items()} if last else {}
        new = {key: segment for key, (segment, _) in publish.members.items()}
        moves = Counter((old.get(key), new.get(key)) for key in old.keys() | new.keys())
        _insert(
            con,
            "segment_transitions",
            [
                (number, publish.dataset, last.version if last else None, publish.version, origin, target, rows)
                for (origin, target), rows in moves.items()
            ],
        )
        for key in old.keys() | new.keys():
            if old.get(key) == new.get(key):
                continue
            if key in old:
                done.append((*stays.pop((publish.dataset, key)), publish.version, moment))
            if key in new:
                name = NAMES[publish.dataset, new[key]]
                stays[publish.dataset, key] = [publish.dataset, key, new[key], name, publish.version, moment]
        log = (publish.dataset, publish.version, f"run{number}", f"f{number}", len(new), len(set(new.values())), moment)
        _insert(con, "publish_log", [(number, *log, "the source changed", json.dumps(publish.figures), None)])
        before[publish.dataset] = publish
    _insert(con, "segment_history", [*done, *((*stay, None, None) for stay in stays.values())])


def _write_current(con: duckdb.DuckDBPyConnection, publish: Publish) -> None:
    """The tables that hold the last publish of a dataset alone."""
    dataset, version, rows = publish.dataset, publish.version, len(publish.members)
    for key, (segment, confidence) in publish.members.items():
        _insert(con, "segments", [(dataset, key, segment, NAMES[dataset, segment], confidence, version, DAY)])
    for metric, value in publish.figures.items():
        _insert(con, "segment_metrics", [(dataset, version, metric, value, f"how to read {metric}")])
    for segment, size in Counter(segment for segment, _ in publish.members.values()).items():
        head = (dataset, version, segment, NAMES[dataset, segment])
        keys = sorted(key for key, (held, _) in publish.members.items() if held == segment)
        _insert(con, "segment_sizes", [(*head, size, size / rows)])
        summary = f"{NAMES[dataset, segment]}, mostly"
        rule = (f"height > {segment}", 0.75, 0.5) if segment else (None, None, None)
        typical = json.dumps({"height": 1.5 + segment})
        described = (*head, size, size / rows, summary, *rule, typical, keys[:2], keys[-1:])
        _insert(con, "segment_descriptions", [described])
        number = (*head, 1, "height", "number", None, 1.5, 1.0, 0.8, "standardised difference", 0.6, 0.6, "is taller")
        category = (*head, 2, "colour", "category", "green", 0.8, 0.2, 2.0, "lift", 0.4, 0.5, "colour is green more")
        _insert(con, "segment_profile", [number, category])
