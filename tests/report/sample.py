"""A small published file of a dataset that looks like the penguins, with as many segments and publishes as wanted."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import duckdb

NAMES = ("long bill, Biscoe island", "short bill, deep bill, Torgersen island", "long bill, Dream island")
NUMBERS = {
    "bill_length_mm": (39.0, 4.0),
    "bill_depth_mm": (17.0, 1.4),
    "flipper_length_mm": (190.0, 13.0),
    "body_mass_g": (3700.0, 600.0),
}
CATEGORIES = {"island": ("Biscoe", "Torgersen", "Dream"), "sex": ("female", "male"), "year": ("2007", "2008", "2009")}
START = datetime(2026, 3, 2, 9, 30)

TABLES = """
CREATE TABLE segments(dataset VARCHAR, entity_key VARCHAR, segment_id INTEGER, segment_name VARCHAR, confidence FLOAT, version INTEGER, assigned_at TIMESTAMP);
CREATE TABLE segment_sizes(dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR, rows BIGINT, share DOUBLE);
CREATE TABLE segment_metrics(dataset VARCHAR, version INTEGER, metric VARCHAR, value DOUBLE, description VARCHAR);
CREATE TABLE segment_history(dataset VARCHAR, entity_key VARCHAR, segment_id INTEGER, segment_name VARCHAR, from_version INTEGER, valid_from TIMESTAMP, to_version INTEGER, valid_to TIMESTAMP);
CREATE TABLE segment_transitions(publish_id INTEGER, dataset VARCHAR, from_version INTEGER, version INTEGER, from_segment_id INTEGER, to_segment_id INTEGER, rows BIGINT);
CREATE TABLE publish_log(publish_id INTEGER, dataset VARCHAR, version INTEGER, run_id VARCHAR, fingerprint VARCHAR, rows BIGINT, segments INTEGER, published_at TIMESTAMP, reason VARCHAR, figures JSON);
CREATE TABLE segment_profile(dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR, trait_rank INTEGER, column_name VARCHAR, kind VARCHAR, value VARCHAR, in_segment DOUBLE, in_rest DOUBLE, effect DOUBLE, effect_kind VARCHAR, strength DOUBLE, column_association DOUBLE, description VARCHAR);
CREATE TABLE segment_descriptions(dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR, rows BIGINT, share DOUBLE, summary VARCHAR, rule VARCHAR, rule_precision DOUBLE, rule_coverage DOUBLE, typical_row JSON, central_members VARCHAR[], doubtful_members VARCHAR[]);
CREATE TABLE segment_values(dataset VARCHAR, version INTEGER, segment_id INTEGER, segment_name VARCHAR, column_name VARCHAR, value VARCHAR, value_order INTEGER, rows BIGINT);
"""

DESCRIPTIONS = {
    "silhouette": "How much nearer rows are to their own segment than to the next, -1 to 1; compare within one vector space.",
    "gower_silhouette": "The silhouette by the table's own columns (Gower distance), -1 to 1; compares across models.",
    "separation": "Mean share of a column's variance or entropy that segments explain, 0 to 1; it grows with the segments, so compare at equal numbers of them.",
    "tree_accuracy": "Share of unseen rows whose segment a small decision tree on the columns tells, 0 to 1; read it against tree_baseline.",
    "tree_baseline": "Share of rows in the largest segment: what tree_accuracy is for who always guesses that one.",
    "stability": "Agreement (adjusted Rand index) of the segments with those found on resampled rows; 1 is the same, 0 chance, 0.8 good and below 0.65 poor.",
    "stability_worst_segment": "How well the least stable segment is found again on resampled rows (Jaccard, 0 to 1); below 0.6 do not trust it, from 0.75 on it is valid.",
    "silhouette_rows": "Rows on which the silhouette was measured.",
    "calinski_harabasz": "Variance between segments over variance within; higher is better, and it grows with the rows.",
    "davies_bouldin": "Spread of segments against the distance to their most similar one; lower is better, 0 is perfect.",
    "rows": "Rows that the figures of separation are about; noise is left out.",
    "segments": "Segments that these rows are in.",
    "ari": "Agreement with the label beyond chance (adjusted Rand index); 1 is equal, 0 chance.",
}


@dataclass
class Sample:
    """What to write. ``values`` replaces the words of the category columns, ``text`` what is said of a segment."""

    names: Sequence[str] = NAMES
    dataset: str = "penguins"
    rows: int = 344
    publishes: int = 4
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reason: str = "refresh: 12 rows are new, 3 have changed"
    run_id: str = "b8f6c1d2-4a7e-4b53-9c0d-6a1f2e3d4c5b"
    key: str = "N{number}A{half}"
    profiles: bool = True
    figures: bool = True
    transitions: bool = True
    noise: bool = False


def write_sample(path: Path, sample: Sample | None = None) -> Path:
    """Write the published file of one dataset to ``path``; the same sample gives the same tables."""
    sample = sample or Sample()
    rng = random.Random(7)
    ids = [*([-1] if sample.noise else []), *range(len(sample.names))]
    names = {-1: "noise"} | dict(enumerate(sample.names))
    weights = [1.0 / (1 + i % 5) for i in range(len(ids))]
    chosen = [*ids, *rng.choices(ids, weights, k=max(0, sample.rows - len(ids)))]
    rows = [_row(rng, segment, sample, number) for number, segment in enumerate(chosen)]
    with closing(duckdb.connect(str(path))) as con:
        con.execute(TABLES)
        sizes = Counter(chosen)
        version = sample.publishes
        for segment in ids:
            own = [row for row in rows if row["segment"] == segment]
            rest = [row for row in rows if row["segment"] != segment]
            head = (sample.dataset, version, segment, names[segment])
            _insert(con, "segment_sizes", [(*head, sizes[segment], sizes[segment] / len(rows))])
            if sample.profiles:
                _describe(con, head, own, rest, rows, sample)
        _insert(
            con,
            "segments",
            [
                (sample.dataset, row["key"], row["segment"], names[row["segment"]], row["confidence"], version, START)
                for row in rows
            ],
        )
        _publishes(con, sample, ids, sizes, rng)
    return path


def _row(rng: random.Random, segment: int, sample: Sample, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"segment": segment, "key": sample.key.format(number=number // 2 + 1, half=number % 2 + 1)}
    row["confidence"] = round(rng.uniform(0.01, 0.9), 3)
    for place, (name, (mean, spread)) in enumerate(NUMBERS.items()):
        row[name] = (
            None if rng.random() < 0.02 else round(rng.gauss(mean + spread * ((segment * (place + 1)) % 3), spread), 1)
        )
    for place, (name, words) in enumerate(CATEGORIES.items()):
        words = sample.values.get(name, words)
        likely = (segment + place) % len(words)
        row[name] = words[likely] if place != 2 and rng.random() < 0.85 else rng.choice(words)
    return row


def _describe(
    con: duckdb.DuckDBPyConnection,
    head: tuple[Any, ...],
    own: list[dict[str, Any]],
    rest: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    sample: Sample,
) -> None:
    traits: list[tuple[Any, ...]] = []
    for name in NUMBERS:
        label = name.replace("_", " ")
        values = [row[name] for row in own if row[name] is not None] or [0.0]
        others = [row[name] for row in rest if row[name] is not None] or [0.0]
        spread = pstdev(values + others) or 1.0
        effect = (fmean(values) - fmean(others)) / spread
        strength = max(-0.95, min(0.95, effect / 2.2))
        said = f"{label} {fmean(values):.1f} on average, {fmean(others):.1f} in the rest"
        traits.append(
            (
                name,
                "number",
                None,
                fmean(values),
                fmean(others),
                effect,
                "standardised difference",
                strength,
                abs(strength),
                said,
            )
        )
        _bins(con, head, name, own, rows)
    for name in CATEGORIES:
        counts = Counter(row[name] for row in own)
        every = Counter(row[name] for row in rows)
        value, count = counts.most_common(1)[0]
        here, there = count / len(own), sum(row[name] == value for row in rest) / max(1, len(rest))
        lift = here / (every[value] / len(rows))
        said = f"{name} is {value} in {here:.0%} of rows, {there:.0%} in the rest"
        traits.append((name, "category", value, here, there, lift, "lift", here - there, abs(here - there), said))
        order = {value: place for place, (value, _) in enumerate(every.most_common())}
        _insert(con, "segment_values", [(*head, name, value, order[value], n) for value, n in counts.items()])
    traits = sorted((t for t in traits if abs(t[7]) > 0.1), key=lambda trait: -abs(trait[7]))
    _insert(con, "segment_profile", [(*head, rank, *trait) for rank, trait in enumerate(traits, start=1)])
    typical = {
        name.replace("_", " "): str(next((row[name] for row in own if row[name] is not None), ""))
        for name in (*NUMBERS, *CATEGORIES)
    }
    summary = "; ".join(trait[9] for trait in traits[:2]) or "no column sets it apart"
    rule = f"bill length is above 42.3 and island is {own[0]['island']}"
    members = [row["key"] for row in own]
    _insert(
        con,
        "segment_descriptions",
        [
            (
                *head,
                len(own),
                len(own) / len(rows),
                summary,
                rule if head[2] % 3 != 2 else None,
                *((0.942, 0.871) if head[2] % 3 != 2 else (None, None)),
                json.dumps(typical),
                members[:5],
                members[-5:],
            )
        ],
    )


def _bins(
    con: duckdb.DuckDBPyConnection,
    head: tuple[Any, ...],
    name: str,
    own: list[dict[str, Any]],
    rows: list[dict[str, Any]],
) -> None:
    every = sorted(row[name] for row in rows if row[name] is not None)
    edges = [every[round(i * (len(every) - 1) / 8)] for i in range(9)]
    for place, (low, high) in enumerate(pairwise(edges)):
        count = sum(row[name] is not None and low <= row[name] and (row[name] < high or place == 7) for row in own)
        if count:
            _insert(con, "segment_values", [(*head, name, f"{low:g} to {high:g}", place, count)])
    if missing := sum(row[name] is None for row in own):
        _insert(con, "segment_values", [(*head, name, "(missing)", 99, missing)])


def _publishes(
    con: duckdb.DuckDBPyConnection, sample: Sample, ids: Sequence[int], sizes: Mapping[int, int], rng: random.Random
) -> None:
    total = sum(sizes.values())
    for publish in range(1, sample.publishes + 1):
        last = publish == sample.publishes
        figures = {
            "silhouette": 0.31 + 0.02 * publish,
            "gower_silhouette": 0.44 - 0.01 * publish,
            "separation": 0.36 + 0.01 * publish,
            "tree_accuracy": 0.95 - 0.01 * publish,
            "tree_baseline": 0.44,
            "stability": 0.9 + 0.01 * publish,
            "stability_worst_segment": 0.81,
            "calinski_harabasz": 180.0 + 9 * publish,
            "davies_bouldin": 1.2 - 0.05 * publish,
            "ari": 0.58 + 0.01 * publish,
            "silhouette_rows": float(total),
            "rows": float(total),
            "segments": float(len(ids)),
        }
        when = START + timedelta(days=7 * (publish - 1))
        reason = sample.reason if publish > 1 else "retrain: nothing was published before"
        _insert(
            con,
            "publish_log",
            [
                (
                    publish,
                    sample.dataset,
                    publish,
                    sample.run_id,
                    f"{publish}f3a9c0d2e",
                    total - 4 * (sample.publishes - publish),
                    len(ids),
                    when,
                    reason,
                    json.dumps(figures) if sample.figures else None,
                )
            ],
        )
        if last and sample.figures:
            _insert(
                con,
                "segment_metrics",
                [(sample.dataset, publish, name, value, DESCRIPTIONS[name]) for name, value in figures.items()],
            )
        if not sample.transitions:
            continue
        for segment in ids:
            if publish == 1:
                moves: list[tuple[int | None, int | None, int]] = [(None, segment, sizes[segment])]
            else:
                to = ids[(ids.index(segment) + 1) % len(ids)]
                moves = [(segment, segment, max(1, sizes[segment] - 6)), (None, segment, 4)]
                moves += [(segment, to, rng.randint(1, 5))] if to != segment else []
                moves += [(segment, None, 2)] if segment % 2 == 0 else []
            _insert(
                con,
                "segment_transitions",
                [(publish, sample.dataset, publish - 1 or None, publish, *move) for move in moves],
            )


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """All rows in one statement: a statement a row takes seconds."""
    for first in range(0, len(rows), 500):
        part = rows[first : first + 500]
        places = ", ".join(f"({', '.join('?' * len(row))})" for row in part)
        con.execute(f"INSERT INTO {table} VALUES {places}", [value for row in part for value in row])
