"""The tables of the published file, and how the file is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import DatasetSettings, Project
from erasmo_dagster.store.artifacts import snapshot_path
from erasmo_dagster.store.experiments import COMMENTS as EXPERIMENT_COMMENTS
from erasmo_dagster.store.experiments import leaderboard, published_cells
from erasmo_dagster.store.parts import snapshot_files
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.sql import literal, quote, read_parquet
from erasmo_dagster.store.versions import FITTED_STATE, StageOutput, stage_output

# The columns that publish adds to a source's own.
WIDE_COLUMNS = ("entity_key", "segment_id", "segment_name", "confidence", "version", "assigned_at")

# Table -> its query over the warehouse, where `chosen_*` and `known_names` are what is published with this file.
_TABLES = {
    "segments": """
        SELECT dataset, entity_key, segment_id, segment_name, confidence, version, assigned_at FROM chosen_segments""",
    "segment_memberships": """
        SELECT m.dataset, m.entity_key, m.segment_id,
            coalesce(n.segment_name, 'segment ' || m.segment_id) AS segment_name, m.membership, c.version
        FROM main.segment_memberships m
        JOIN chosen_versions c ON m.dataset = c.dataset AND m.version = c.segments_version
        LEFT JOIN known_names n ON m.dataset = n.dataset AND m.segment_id = n.segment_id""",
    "segment_profile": """
        SELECT p.dataset, c.version, p.segment_id, n.segment_name, p.* EXCLUDE (dataset, version, segment_id)
        FROM main.segment_profile p JOIN chosen_versions c ON p.dataset = c.dataset AND p.version = c.profile_version
        JOIN known_names n ON p.dataset = n.dataset AND p.segment_id = n.segment_id
        WHERE (p.dataset, p.column_name) NOT IN (FROM hidden_columns)""",
    "segment_descriptions": """
        SELECT d.* REPLACE (c.version AS version, n.segment_name AS segment_name,
            CASE WHEN o.dataset IS NULL THEN d.summary ELSE '' END AS summary,
            CASE WHEN o.dataset IS NULL THEN d.rule END AS rule,
            CASE WHEN o.dataset IS NULL THEN d.rule_precision END AS rule_precision,
            CASE WHEN o.dataset IS NULL THEN d.rule_coverage END AS rule_coverage,
            CASE WHEN o.dataset IS NULL THEN d.typical_row ELSE '{}' END AS typical_row,
            CASE WHEN o.dataset IS NULL THEN d.central_members ELSE [] END AS central_members,
            CASE WHEN o.dataset IS NULL THEN d.doubtful_members ELSE [] END AS doubtful_members)
        FROM main.segment_descriptions d
        JOIN chosen_versions c ON d.dataset = c.dataset AND d.version = c.profile_version
        JOIN known_names n ON d.dataset = n.dataset AND d.segment_id = n.segment_id
        LEFT JOIN outdated_profiles o ON d.dataset = o.dataset""",
    "segment_values": """
        SELECT v.dataset, c.version, v.segment_id, n.segment_name, v.* EXCLUDE (dataset, version, segment_id)
        FROM main.segment_values v JOIN chosen_versions c ON v.dataset = c.dataset AND v.version = c.profile_version
        JOIN known_names n ON v.dataset = n.dataset AND v.segment_id = n.segment_id
        WHERE (v.dataset, v.column_name) NOT IN (FROM hidden_columns)""",
    "segment_sizes": """
        SELECT *, rows / sum(rows) OVER (PARTITION BY dataset) AS share
        FROM (SELECT dataset, version, segment_id, segment_name, count(*) AS rows FROM chosen_segments GROUP BY ALL)""",
    "segment_metrics": """
        SELECT m.* REPLACE (c.version AS version) FROM main.segment_metrics m
        JOIN chosen_versions c ON m.dataset = c.dataset AND m.version = c.metrics_version""",
    "segment_leaderboard": """
        SELECT l.* REPLACE (c.version AS version) FROM main.segment_candidates l
        JOIN chosen_versions c ON l.dataset = c.dataset AND l.version = c.fitted_version""",
    "segment_history": """
        SELECT h.dataset, h.entity_key, h.segment_id, n.segment_name, h.* EXCLUDE (dataset, entity_key, segment_id)
        FROM next_history h LEFT JOIN known_names n ON h.dataset = n.dataset AND h.segment_id = n.segment_id""",
    "segment_transitions": "SELECT * FROM next_transitions",
    "publish_log": "SELECT * FROM main.publish_log UNION ALL BY NAME SELECT * FROM new_log",
    "experiments": published_cells(),
}

_COMMENTS = {
    "segments": "One row per entity of each dataset: the segment it is in now.",
    "segments.dataset": "Name of the dataset.",
    "segments.entity_key": "The entity's key as text; a JSON array where the key has several columns.",
    "segments.segment_id": "Number of the segment within its dataset; -1 is noise, a row that is in no segment.",
    "segments.segment_name": "Readable name of the segment.",
    "segments.confidence": "(d2 - d1) / d2 over the distances to the nearest two segment centres, 0 to 1. It says how "
    "clearly a row is in its segment; it is not a probability. Of fuzzy c-means and Gaussian mixtures it is the "
    "largest membership, of HDBSCAN the method's own, 0 for noise.",
    "segments.version": "Version of the dataset that this row was published with.",
    "segments.assigned_at": "When the row was assigned, UTC.",
    "segment_memberships": "One row per entity and segment of the datasets whose method gives memberships: fuzzy "
    "c-means and Gaussian mixtures.",
    "segment_memberships.membership": "How much of the entity is in the segment, 0 to 1; an entity's add up to 1.",
    "segment_memberships.version": "Version of the dataset that this row was published with.",
    "segment_profile": "One row per segment and trait: what its rows have more of than the rest, strongest first.",
    "segment_profile.trait_rank": "1 for the trait that sets the segment apart the most.",
    "segment_profile.column_name": "The source's column.",
    "segment_profile.kind": "number, moment (in seconds since 1970), category, missing or term (a word in a text).",
    "segment_profile.value": "The category or the term; null for numbers and moments, and for missing.",
    "segment_profile.in_segment": "Mean within the segment, or share (0 to 1) of its rows that have the value.",
    "segment_profile.in_rest": "The same in all other rows.",
    "segment_profile.effect": "How much more: a standardised difference (Cohen's d) for numbers and moments, else the "
    "lift, that is the share in the segment by the share in all rows.",
    "segment_profile.effect_kind": "standardised difference, or lift.",
    "segment_profile.strength": "Correlation (-1 to 1) of having the trait with being in the segment.",
    "segment_profile.column_association": "Cramér's V (0 to 1) of the whole column with being in the segment; for "
    "numbers, moments and terms the size of the strength.",
    "segment_profile.description": "The trait in words.",
    "segment_descriptions": "One row per segment: what it is, in words.",
    "segment_descriptions.summary": "Its strongest traits in a sentence.",
    "segment_descriptions.rule": "A rule by the source's columns that most of the segment's rows fulfil.",
    "segment_descriptions.rule_precision": "Share of the rows that fulfil the rule which are in the segment.",
    "segment_descriptions.rule_coverage": "Share of the segment's rows that fulfil the rule.",
    "segment_descriptions.typical_row": "Median, most frequent value or terms of each column, JSON.",
    "segment_descriptions.central_members": "Keys of the entities nearest to the segment's centre.",
    "segment_descriptions.doubtful_members": "Keys of the entities with the lowest confidence.",
    "segment_values": "One row per segment, column and value: how often each value is in each segment.",
    "segment_values.value": "The value; numbers in bins, rare values together as (other), (missing).",
    "segment_values.value_order": "Place of the value in its column.",
    "segment_values.rows": "Rows of the segment with the value.",
    "segment_sizes": "One row per segment: how many rows it has.",
    "segment_sizes.rows": "Rows in the segment; they sum to the dataset's rows.",
    "segment_sizes.share": "Share of the dataset's rows, 0 to 1.",
    "segment_metrics": "One row per dataset and figure: how good the segmentation is.",
    "segment_metrics.metric": "Name of the figure.",
    "segment_metrics.value": "Its value.",
    "segment_metrics.description": "How to read it.",
    "segment_leaderboard": "One row per dataset and way to segment it that clustering.method auto has compared, on the "
    "same rows; of a refresh without retraining, those of the training.",
    "segment_leaderboard.version": "Version of the dataset that is published.",
    "segment_leaderboard.candidate": "What was clustered, and how.",
    "segment_leaderboard.chosen": "Whether the published segments are this one's.",
    "segment_leaderboard.rank": "1 for the one that saves the most bits; null for those that may not be chosen.",
    "segment_leaderboard.bits_saved": "How many bits shorter the segments make the description of a row's columns; "
    "below 0 they cost more than they tell. Null where it could not be drawn.",
    "segment_leaderboard.separation": "Share of what tells rows apart, column by column, that lies between the "
    "segments, 0 to 1.",
    "segment_leaderboard.gower_silhouette": "Silhouette by the table's own columns, -1 to 1.",
    "segment_leaderboard.tree_accuracy": "Share of the rows whose segment a small tree tells, 0 to 1.",
    "segment_leaderboard.stability": "Agreement (adjusted Rand index) with the same method on resampled rows: 1 is "
    "always the same, 0 is chance; of the one chosen on more rows and resamples.",
    "segment_leaderboard.smallest": "Share of the rows that its smallest segment holds, 0 to 1.",
    "segment_leaderboard.seconds": "What drawing it took.",
    "segment_leaderboard.refused": "Why it may not be chosen; empty where it may.",
    "segment_history": "One row per uninterrupted stay of an entity in a segment: who was where, when.",
    "segment_history.from_version": "Version with which the stay began.",
    "segment_history.valid_from": "When it was published, UTC.",
    "segment_history.to_version": "Version with which the stay ended; null while it lasts.",
    "segment_history.valid_to": "When it ended, UTC; null while it lasts.",
    "segment_transitions": "One row per publish and pair of segments: how many rows went from the one to the other.",
    "segment_transitions.publish_id": "The publish, as in publish_log.",
    "segment_transitions.from_version": "Version that was published before; null at the first.",
    "segment_transitions.from_segment_id": "Where the rows were; null for rows that are new.",
    "segment_transitions.to_segment_id": "Where they are; null for rows that went.",
    "publish_log": "One row per publish: what was published when, by which run, from which state of the source.",
    "publish_log.fingerprint": "Short hash of the source's columns and rows.",
    "publish_log.figures": "The version's figures by name, JSON.",
    "publish_log.targets": "Where copies of the file went after this publish, JSON: by target its kind, a hash of "
    "where it is, the release that its readers have, since when, and the error where one failed. Null where there are "
    "no other targets, and in a copy for the newest publish.",
    "publish_log.reason": "What started the run and what was decided, or who published it otherwise.",
    **EXPERIMENT_COMMENTS,
}
_VIEWS = {"leaderboard": leaderboard()}


def needed(con: duckdb.DuckDBPyConnection, dataset: str, version: int, stage: str) -> StageOutput:
    """The output of a stage that a published version must have. Raises ErasmoError where it has none."""
    output = stage_output(con, dataset, version, stage)
    if output is None:
        raise ErasmoError(
            f"Got version {version} of {dataset!r} without {stage}", fix=f"run `erasmo run {dataset}` again"
        )
    return output


def literals(row: Mapping[str, Any]) -> str:
    """A row as a SELECT list of parameters, by name."""
    return ", ".join(f"? AS {name}" for name in row)


def build_file(
    con: duckdb.DuckDBPyConnection,
    project: Project,
    datasets: Mapping[str, DatasetSettings],
    chosen: Mapping[str, int],
    log: Mapping[str, Any] | None,
    candidate: Path,
) -> None:
    """Write the published file to ``candidate``: ``chosen`` versions, and ``log`` as a new last row of the log, if any.

    The history is what :func:`~erasmo_dagster.store.history.prepared_history` has prepared on this connection.
    """
    con.execute(
        "CREATE TEMP TABLE chosen_versions (dataset VARCHAR, version INTEGER,"
        " segments_version INTEGER, metrics_version INTEGER, profile_version INTEGER, fitted_version INTEGER)"
    )
    for name, version in chosen.items():
        held = [
            needed(con, name, version, stage).version for stage in ("segments", "segment_metrics", "segment_profile")
        ]
        fitted = stage_output(con, name, version, FITTED_STATE)
        trained = None if fitted is None else fitted.version
        con.execute("INSERT INTO chosen_versions VALUES (?, ?, ?, ?, ?, ?)", [name, version, *held, trained])
    _hide(con, datasets, chosen)
    con.execute(
        "CREATE TEMP VIEW known_names AS WITH chosen AS (SELECT d.dataset, d.segment_id, d.segment_name"
        " FROM main.segment_descriptions d"
        " JOIN chosen_versions c ON d.dataset = c.dataset AND d.version = c.profile_version),"
        " known AS (FROM chosen UNION ALL BY NAME SELECT dataset, segment_id, segment_name FROM main.segment_names"
        " ANTI JOIN chosen USING (dataset, segment_id))"
        " SELECT k.dataset, k.segment_id, CASE WHEN o.dataset IS NOT NULL AND k.segment_id >= 0"
        " AND (k.dataset, k.segment_id, k.segment_name) NOT IN (FROM given_names)"
        " THEN 'segment ' || k.segment_id ELSE k.segment_name END AS segment_name"
        " FROM known k LEFT JOIN outdated_profiles o ON k.dataset = o.dataset"
    )
    con.execute(
        "CREATE TEMP VIEW chosen_segments AS SELECT s.* REPLACE (c.version AS version),"
        " coalesce(n.segment_name, 'segment ' || s.segment_id) AS segment_name"
        " FROM main.segments s JOIN chosen_versions c ON s.dataset = c.dataset AND s.version = c.segments_version"
        " LEFT JOIN known_names n ON s.dataset = n.dataset AND s.segment_id = n.segment_id"
    )
    if log is None:
        con.execute("CREATE TEMP TABLE new_log AS FROM main.publish_log LIMIT 0")
    else:
        con.execute(f"CREATE TEMP TABLE new_log AS SELECT {literals(log)}", list(log.values()))
    # The oldest storage that is still read by every release since 1.0: shells and BI tools lag behind this one.
    con.execute(f"ATTACH {literal(candidate)} AS published (STORAGE_VERSION 'v1.0.0')")
    try:
        for table, query in _TABLES.items():
            con.execute(f"CREATE TABLE published.{table} AS SELECT * FROM ({query}) ORDER BY ALL")
        for name, version in chosen.items():
            _wide_table(con, project, name, version, datasets.get(name))
        _create_views(con)
        for name, comment in _COMMENTS.items():
            table, _, column = name.partition(".")
            kind = "VIEW" if table in _VIEWS else "TABLE"
            what = f"COLUMN published.{table}.{column}" if column else f"{kind} published.{table}"
            con.execute(f"COMMENT ON {what} IS {literal(comment)}")
        con.execute("CHECKPOINT published")
    finally:
        con.execute("DETACH published")
        con.execute(
            "DROP TABLE new_log; DROP VIEW chosen_segments; DROP VIEW known_names; DROP TABLE chosen_versions;"
            " DROP TABLE hidden_columns; DROP TABLE outdated_profiles; DROP TABLE given_names"
        )


def _create_views(con: duckdb.DuckDBPyConnection) -> None:
    """Views over the published tables, which they name alone: under whatever name the file is attached, they hold."""
    (here,) = con.execute("SELECT current_database()").fetchall()[0]
    con.execute("USE published")
    try:
        for name, query in _VIEWS.items():
            con.execute(f"CREATE VIEW {name} AS {query}")
    finally:
        con.execute(f"USE {quote(here)}")


def _private(source: StageOutput, settings: DatasetSettings | None) -> set[str]:
    """Columns that are private now, or were when the rows were read."""
    return {*source.details["sensitive"], *(settings.sensitive if settings is not None else ())}


def _hide(con: duckdb.DuckDBPyConnection, datasets: Mapping[str, DatasetSettings], chosen: Mapping[str, int]) -> None:
    """Columns that profiles may not tell of, and profiles that were made when one of them was not private yet.

    What such a profile says in words may tell of the column: only names that the YAML gives are left of it.
    """
    con.execute("CREATE TEMP TABLE hidden_columns (dataset VARCHAR, column_name VARCHAR)")
    con.execute("CREATE TEMP TABLE outdated_profiles (dataset VARCHAR)")
    con.execute("CREATE TEMP TABLE given_names (dataset VARCHAR, segment_id INTEGER, segment_name VARCHAR)")
    for name, version in chosen.items():
        settings = datasets.get(name)
        private = _private(needed(con, name, version, "source_table"), settings)
        for column in sorted(private):
            con.execute("INSERT INTO hidden_columns VALUES (?, ?)", [name, column])
        if private - set(needed(con, name, version, "segment_profile").details.get("private", ())):
            con.execute("INSERT INTO outdated_profiles VALUES (?)", [name])
        for segment, given in settings.naming.names.items() if settings is not None else ():
            con.execute("INSERT INTO given_names VALUES (?, ?, ?)", [name, segment, given])


def _wide_table(
    con: duckdb.DuckDBPyConnection, project: Project, dataset: str, version: int, settings: DatasetSettings | None
) -> None:
    """``<dataset>_segmented``: the source's own columns beside the segment."""
    source = needed(con, dataset, version, "source_table")
    private = set() if settings is not None and settings.publish.sensitive else _private(source, settings)
    columns = [name for name in source.details["columns"] if name not in private]
    corpus = stage_output(con, dataset, version, "text_corpus")
    long_texts = corpus.details.get("summarized", {}).get("long_texts", {}) if corpus else {}
    summarized = [name for name in columns if name in long_texts]
    aliases = _aliases(columns)
    beside = _summary_names(summarized, [*columns, *aliases.values(), *WIDE_COLUMNS])
    own = ", ".join(
        f"t.{quote(name)} AS {quote(alias)}"
        + (f", c.summaries[{literal(name)}] AS {quote(beside[name])}" if name in beside else "")
        for name, alias in aliases.items()
    )
    added = ", ".join(f"s.{name}" for name in WIDE_COLUMNS)
    summaries = ""
    if beside and corpus:
        texts = f"main.corpus WHERE dataset = {literal(dataset)} AND version = {int(corpus.version)}"
        summaries = f" LEFT JOIN (SELECT entity_key, summaries FROM {texts}) c ON c.entity_key = s.entity_key"
    table = f"published.{quote(dataset + '_segmented')}"
    rows = read_parquet(snapshot_files(snapshot_path(project, dataset, source.version)))
    con.execute(
        f"CREATE TABLE {table} AS SELECT {', '.join(filter(None, [own, added]))}"
        f" FROM {rows} t JOIN chosen_segments s ON s.entity_key = t.{quote(ENTITY_KEY)}{summaries}"
        " WHERE s.dataset = ? ORDER BY s.entity_key",
        [dataset],
    )
    grain = f"One row per entity of {dataset}: its own columns beside its segment."
    con.execute(f"COMMENT ON TABLE {table} IS {literal(grain)}")
    con.execute(f"COMMENT ON COLUMN {table}.confidence IS {literal(_COMMENTS['segments.confidence'])}")
    for name, summary in beside.items():
        told = f"Summary that the method read in the place of {name}; null where it read the text itself."
        con.execute(f"COMMENT ON COLUMN {table}.{quote(summary)} IS {literal(told)}")


def _summary_names(columns: list[str], others: list[str]) -> dict[str, str]:
    """Summarized column -> the name of the column of its summaries, unlike all others."""
    taken = {name.casefold() for name in others}
    names = {}
    for name in columns:
        summary = f"{name}_summary"
        while summary.casefold() in taken:
            summary = f"{summary}_"
        taken.add(summary.casefold())
        names[name] = summary
    return names


def _aliases(columns: list[str]) -> dict[str, str]:
    """Source column -> its name in the wide table, where the segment's columns keep theirs."""
    taken = {name.casefold() for name in (*columns, *WIDE_COLUMNS)}
    aliases = {}
    for name in columns:
        alias = name
        if name.casefold() in WIDE_COLUMNS:
            alias = f"source_{name}"
            while alias.casefold() in taken:
                alias = f"source_{alias}"
            taken.add(alias.casefold())
        aliases[name] = alias
    return aliases
