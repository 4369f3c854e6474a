"""The warehouse's tables, and how a warehouse of an earlier release becomes one of this release."""

from __future__ import annotations

from pathlib import Path

import duckdb

from erasmo_dagster.errors import ErasmoError

# One script a schema version; a new warehouse runs them all, an older one those that it lacks.
_SCRIPTS = (
    """
CREATE TABLE meta (schema_version INTEGER NOT NULL);
CREATE TABLE versions (
    dataset VARCHAR, version INTEGER, run_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, version)
);
CREATE TABLE stage_outputs (
    dataset VARCHAR, version INTEGER, stage VARCHAR, output_version INTEGER NOT NULL,
    inputs_hash VARCHAR NOT NULL, details JSON NOT NULL, finished_at TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, version, stage)
);
CREATE TABLE corpus (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, entity_key VARCHAR NOT NULL,
    text_hash VARCHAR NOT NULL, clauses VARCHAR[] NOT NULL
);
CREATE VIEW corpus_text AS
    SELECT dataset, version, entity_key, text_hash, array_to_string(clauses, ', ') AS text FROM corpus;
CREATE TABLE segments (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, entity_key VARCHAR NOT NULL,
    segment_id INTEGER NOT NULL, segment_name VARCHAR NOT NULL, confidence FLOAT NOT NULL,
    assigned_at TIMESTAMP NOT NULL
);
CREATE TABLE segment_metrics (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, metric VARCHAR NOT NULL, value DOUBLE,
    description VARCHAR NOT NULL
);
CREATE TABLE published_versions (
    dataset VARCHAR PRIMARY KEY, version INTEGER NOT NULL, published_at TIMESTAMP NOT NULL
);
CREATE TABLE publish_log (
    publish_id INTEGER PRIMARY KEY, dataset VARCHAR NOT NULL, version INTEGER NOT NULL, run_id VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL, rows BIGINT NOT NULL, segments INTEGER NOT NULL, published_at TIMESTAMP NOT NULL,
    reason VARCHAR NOT NULL
);
""",
    # 2: what a refresh needs. `seen_version` is the one whose source counts as known: a rollback goes back to older
    # segments without making the table that it left look new. `retired_at` hides a dataset whose YAML has gone.
    """
ALTER TABLE published_versions ADD COLUMN seen_version INTEGER;
UPDATE published_versions SET seen_version = version;
ALTER TABLE published_versions ADD COLUMN retired_at TIMESTAMP;
ALTER TABLE publish_log ADD COLUMN figures JSON;
CREATE TABLE segment_names (
    dataset VARCHAR NOT NULL, segment_id INTEGER NOT NULL, segment_name VARCHAR NOT NULL,
    first_version INTEGER NOT NULL, PRIMARY KEY (dataset, segment_id)
);
INSERT INTO segment_names
    SELECT dataset, segment_id, any_value(segment_name), min(version) FROM segments GROUP BY ALL;
CREATE TABLE segment_history (
    dataset VARCHAR NOT NULL, entity_key VARCHAR NOT NULL, segment_id INTEGER NOT NULL, segment_name VARCHAR NOT NULL,
    from_version INTEGER NOT NULL, valid_from TIMESTAMP NOT NULL, to_version INTEGER, valid_to TIMESTAMP
);
INSERT INTO segment_history
    SELECT s.dataset, s.entity_key, s.segment_id, s.segment_name, p.version, p.published_at, NULL, NULL
    FROM published_versions p
    JOIN stage_outputs o ON o.dataset = p.dataset AND o.version = p.version AND o.stage = 'segments'
    JOIN segments s ON s.dataset = p.dataset AND s.version = o.output_version;
CREATE TABLE segment_transitions (
    publish_id INTEGER NOT NULL, dataset VARCHAR NOT NULL, from_version INTEGER, version INTEGER NOT NULL,
    from_segment_id INTEGER, to_segment_id INTEGER, rows BIGINT NOT NULL
);
CREATE TABLE check_results (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, check_name VARCHAR NOT NULL, passed BOOLEAN NOT NULL,
    blocking BOOLEAN NOT NULL, message VARCHAR NOT NULL, figures JSON NOT NULL, checked_at TIMESTAMP NOT NULL,
    PRIMARY KEY (dataset, version, check_name)
);
""",
    # 3: names and profiles. A name belongs to a version's description of the segment, not to its rows, so that a
    # segment which is renamed is the same segment still, in the history as well.
    """
CREATE TABLE segment_descriptions (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, segment_id INTEGER NOT NULL, segment_name VARCHAR NOT NULL,
    rows BIGINT NOT NULL, share DOUBLE NOT NULL, summary VARCHAR NOT NULL, rule VARCHAR, rule_precision DOUBLE,
    rule_coverage DOUBLE, typical_row JSON NOT NULL, central_members VARCHAR[] NOT NULL,
    doubtful_members VARCHAR[] NOT NULL
);
CREATE TABLE segment_profile (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, segment_id INTEGER NOT NULL, trait_rank INTEGER NOT NULL,
    column_name VARCHAR NOT NULL, kind VARCHAR NOT NULL, value VARCHAR, in_segment DOUBLE NOT NULL,
    in_rest DOUBLE NOT NULL, effect DOUBLE NOT NULL, effect_kind VARCHAR NOT NULL, strength DOUBLE NOT NULL,
    column_association DOUBLE NOT NULL, description VARCHAR NOT NULL
);
CREATE TABLE segment_values (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, segment_id INTEGER NOT NULL, column_name VARCHAR NOT NULL,
    value VARCHAR NOT NULL, value_order INTEGER NOT NULL, rows BIGINT NOT NULL
);
INSERT INTO segment_descriptions
    SELECT dataset, version, segment_id, any_value(segment_name), count(*),
        count(*) / sum(count(*)) OVER (PARTITION BY dataset, version), '', NULL, NULL, NULL, '{}', [], []
    FROM segments GROUP BY dataset, version, segment_id;
INSERT INTO stage_outputs
    SELECT dataset, version, 'segment_profile', output_version, inputs_hash, '{}', finished_at
    FROM stage_outputs WHERE stage = 'segments';
ALTER TABLE segments DROP COLUMN segment_name;
ALTER TABLE segment_history DROP COLUMN segment_name;
""",
    # 4: soft clusterings' memberships, summaries of long texts, and experiments, whose cells belong to no version.
    """
CREATE TABLE segment_memberships (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, entity_key VARCHAR NOT NULL, segment_id INTEGER NOT NULL,
    membership FLOAT NOT NULL
);
CREATE TABLE summaries (
    summarizer VARCHAR NOT NULL, text_hash VARCHAR NOT NULL, summary VARCHAR NOT NULL, made_at TIMESTAMP NOT NULL,
    PRIMARY KEY (summarizer, text_hash)
);
ALTER TABLE corpus ADD COLUMN summaries MAP(VARCHAR, VARCHAR);
CREATE TABLE experiments (
    experiment VARCHAR NOT NULL, cell VARCHAR NOT NULL, dataset VARCHAR NOT NULL, variant VARCHAR NOT NULL,
    encoder VARCHAR NOT NULL, algorithm VARCHAR NOT NULL, k INTEGER, seed INTEGER NOT NULL, options JSON NOT NULL,
    status VARCHAR NOT NULL, error VARCHAR, rows BIGINT, dimensions INTEGER, segments INTEGER, figures JSON NOT NULL,
    train_seconds DOUBLE, embed_seconds DOUBLE, cluster_seconds DOUBLE, train_tokens BIGINT, embed_tokens BIGINT,
    finished_at TIMESTAMP NOT NULL, PRIMARY KEY (experiment, cell)
);
""",
    # 5: the ways to segment a table that `clustering.method: auto` compared, under the version that was trained.
    """
CREATE TABLE segment_candidates (
    dataset VARCHAR NOT NULL, version INTEGER NOT NULL, candidate VARCHAR NOT NULL, chosen BOOLEAN NOT NULL,
    rank INTEGER, bits_saved DOUBLE, separation DOUBLE, gower_silhouette DOUBLE, tree_accuracy DOUBLE,
    stability DOUBLE, smallest DOUBLE NOT NULL, seconds DOUBLE NOT NULL, refused VARCHAR NOT NULL
);
""",
    # 6: the published files by number, and where copies of them went.
    """
CREATE TABLE releases (
    release INTEGER PRIMARY KEY, publish_id INTEGER NOT NULL, built_at TIMESTAMP NOT NULL, digest VARCHAR NOT NULL
);
ALTER TABLE publish_log ADD COLUMN targets JSON;
""",
)

SCHEMA_VERSION = len(_SCRIPTS)


def migrate(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Bring the warehouse in ``path`` to this release's tables, in one transaction.

    Raises ErasmoError where it is none of ours, or one of a later release.
    """
    found: int | None
    try:
        rows = con.execute("SELECT schema_version FROM meta").fetchall()
        found = rows[0][0] if rows else None
    except duckdb.CatalogException:
        found = None if con.execute("SELECT 1 FROM duckdb_tables() LIMIT 1").fetchall() else 0
    if found == SCHEMA_VERSION:
        return
    if found is None or found > SCHEMA_VERSION:
        raise ErasmoError(
            f"Got a warehouse of schema version {'unknown' if found is None else found} in {path}",
            expected=f"version {SCHEMA_VERSION} or an earlier one",
            fix="use the release of erasmo-dagster that wrote it, or another ERASMO_HOME",
        )
    con.begin()
    try:
        for script in _SCRIPTS[found:]:
            con.execute(script)
        con.execute("DELETE FROM meta")
        con.execute("INSERT INTO meta VALUES (?)", [SCHEMA_VERSION])
    except BaseException:
        con.rollback()
        raise
    con.commit()
