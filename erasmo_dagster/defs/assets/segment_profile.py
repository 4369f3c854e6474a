"""What sets each segment apart."""

import json
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from erasmo_dagster.defs.naming import name_segments
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import picture, table
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.sampling import SnapshotTable
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.method import profile_plots
from erasmo_dagster.method.columns import ColumnPlan, labels, plan_column
from erasmo_dagster.method.drift import own_distances
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.profiling import SegmentProfile, TableProfile, count_values, profile_segments
from erasmo_dagster.store.artifacts import snapshot_path, state_dir, text_dir
from erasmo_dagster.store.standing import read_drawn_in
from erasmo_dagster.store.versions import publications, stage_output
from erasmo_dagster.store.warehouse import read_segments, write_profile

MEMBERS = 5  # central and doubtful ones that a description names


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="segments",
    kinds={"polars", "scikitlearn"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["segment_profile"],
    deps=["source_table", "text_corpus", "embeddings", "segments"],
)
def segment_profile(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One name, rule and list of traits per segment, from the source's own columns; nothing of a sensitive column."""
    run = begin_stage(context, warehouse)
    settings = run.settings
    with warehouse.get_connection() as con:
        segmented = read_segments(con, run.dataset, run.inputs["segments"].version)
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    frame = SnapshotTable(segmented, path)
    segment_ids = segmented["segment_id"].to_numpy()
    told, shown = _columns(run, frame)
    profile = profile_segments(frame, segment_ids, told, language=settings.text.language, seed=settings.seed)
    values = count_values(frame, segment_ids, shown)
    private = sorted({*settings.sensitive, *run.inputs["source_table"].details["sensitive"]})
    forgets = _is_more_than_before(run, private)
    names, remarks = name_segments(run, profile, forget=forgets)
    for remark in remarks:
        context.log.warning(remark)
    descriptions = _descriptions(profile, names, _members(run, segmented))
    traits = _traits(profile)
    with warehouse.get_connection() as con:
        write_profile(con, run.dataset, run.version, descriptions=descriptions, traits=traits, values=values)
        hashed = run.hash_inputs(settings.naming.model_dump(), private)
        output = run.record(con, hashed, {"named": len(names), "private": private, "forgets": forgets})
    metadata: dict[str, Any] = {
        "profile": table(
            [
                {
                    "segment": s.segment_id,
                    "name": names[s.segment_id],
                    "rows": s.rows,
                    "what sets it apart": s.summary,
                    "rule": s.rule.text if s.rule else "",
                    "precision": s.rule.precision if s.rule else None,
                    "coverage": s.rule.coverage if s.rule else None,
                }
                for s in profile.segments
            ]
        ),
        "traits": table(
            [
                {"segment": names[t["segment_id"]], **{k: t[k] for k in ("description", "effect_kind", "effect")}}
                for t in traits.filter(pl.col("trait_rank") <= 5).iter_rows(named=True)
            ]
        ),
    }
    if cells := profile_plots.heat_cells(traits.to_dicts(), names, {c.name: c.label for c in told}):
        metadata["heat_map"] = picture(profile_plots.heat_map(cells), "columns by segment")
    if not values.is_empty():
        drawn = [c.name for c in told if c.name in set(values["column_name"])] or values[
            "column_name"
        ].unique().to_list()
        metadata["distributions"] = picture(
            profile_plots.distributions(
                values, names, columns=_strongest(traits, drawn), labels={c.name: c.label for c in shown}
            ),
            "values by segment",
        )
    if remarks:
        metadata["remarks"] = dg.MetadataValue.md("\n".join(f"- {remark}" for remark in remarks))
    return run.result(output, {"segments": len(names), **metadata})


def _is_more_than_before(run: StageRun, private: list[str]) -> bool:
    """Whether a column has become private since the published profile, whose names may tell of it."""
    with run.warehouse.get_connection() as con:
        published = publications(con).get(run.dataset)
        before = stage_output(con, run.dataset, published.version, "segment_profile") if published else None
    return before is not None and bool(set(private) - set(before.details.get("private", private)))


def _columns(run: StageRun, frame: SnapshotTable) -> tuple[list[ColumnPlan], list[ColumnPlan]]:
    """The columns that profiles tell of (those that the method reads), and those whose values are counted.

    Keys are neither, nor is anything sensitive by the YAML as it is now, whatever it said at the training.
    """
    settings = run.settings
    plan = FittedState.load(text_dir(run.project, run.dataset, run.inputs["text_corpus"].version)).text
    private = {*settings.sensitive, *run.inputs["source_table"].details["sensitive"]}
    told = [column for column in plan.columns if column.name in frame.columns and column.name not in private]
    fitted = {column.name: column for column in told}
    others = [name for name in frame.columns if name not in {*private, *settings.key}]
    named = labels(others, settings.columns)
    plans = [fitted.get(name) or plan_column(frame[name], named[name], settings) for name in others]
    return told, [column for column in plans if not _names_rows(column, frame[column.name])]


def _names_rows(column: ColumnPlan, values: pl.Series) -> bool:
    """Whether the column is a name or an address rather than a category: to count its values says nothing."""
    return column.kind == "category" and values.n_unique() > max(50, values.len() / 2)


def _members(run: StageRun, segmented: pl.DataFrame) -> pl.DataFrame:
    """Per segment the keys nearest to its centre and those of the lowest confidence; none where a key is sensitive."""
    empty = pl.DataFrame(schema={"segment_id": pl.Int32, "central": pl.List(pl.String), "doubtful": pl.List(pl.String)})
    if set(run.settings.key) & set(run.settings.sensitive):
        return empty
    with run.warehouse.get_connection() as con:
        keys, vectors = read_drawn_in(con, run.dataset, run.inputs["segments"], run.inputs["embeddings"])
    fitted = FittedState.load(state_dir(run.project, run.dataset, run.inputs["segments"].version)).clustering
    if fitted is None or not keys.equals(segmented["entity_key"]):
        return empty  # vectors of other rows, where stages were materialized one by one
    distance = own_distances(vectors, fitted.labels(segmented["segment_id"].to_numpy()), fitted.model)
    ids = segmented["segment_id"].to_numpy()
    confidence = segmented["confidence"].to_numpy()
    found: list[dict[str, Any]] = []
    for segment in np.unique(ids).tolist():
        own = np.flatnonzero(ids == segment)
        nearest = own[np.argsort(distance[own], kind="stable")[:MEMBERS]]
        doubtful = own[np.argsort(confidence[own], kind="stable")[:MEMBERS]]  # ties in the order of the keys
        nearest = nearest[np.isfinite(distance[nearest])]  # noise has no centre
        found.append(
            {
                "segment_id": segment,
                "central": keys.gather(nearest).to_list() if len(nearest) else None,
                "doubtful": keys.gather(doubtful).to_list(),
            }
        )
    return pl.DataFrame(found, schema=empty.schema)


def _descriptions(profile: TableProfile, names: dict[int, str], members: pl.DataFrame) -> pl.DataFrame:
    rows = [_description(segment, names[segment.segment_id]) for segment in profile.segments]
    frame = pl.DataFrame(
        rows,
        schema_overrides={
            "segment_id": pl.Int32,
            "rule": pl.String,
            "rule_precision": pl.Float64,
            "rule_coverage": pl.Float64,
        },
        infer_schema_length=None,
    )
    none = pl.lit([], dtype=pl.List(pl.String))
    return frame.join(members, on="segment_id", how="left", maintain_order="left").select(
        *frame.columns,
        pl.col("central").fill_null(none).alias("central_members"),
        pl.col("doubtful").fill_null(none).alias("doubtful_members"),
    )


def _description(segment: SegmentProfile, name: str) -> dict[str, Any]:
    rule = segment.rule
    return {
        "segment_id": segment.segment_id,
        "segment_name": name,
        "rows": segment.rows,
        "share": segment.share,
        "summary": segment.summary,
        "rule": rule.text if rule else None,
        "rule_precision": rule.precision if rule else None,
        "rule_coverage": rule.coverage if rule else None,
        "typical_row": json.dumps(segment.typical, ensure_ascii=False),
    }


_TRAIT_COLUMNS = {
    "segment_id": pl.Int32,
    "trait_rank": pl.Int32,
    "column_name": pl.String,
    "kind": pl.String,
    "value": pl.String,
    "in_segment": pl.Float64,
    "in_rest": pl.Float64,
    "effect": pl.Float64,
    "effect_kind": pl.String,
    "strength": pl.Float64,
    "column_association": pl.Float64,
    "description": pl.String,
}


def _traits(profile: TableProfile) -> pl.DataFrame:
    rows = [
        {**vars(trait), "column_name": trait.column, "trait_rank": rank}
        for segment in profile.segments
        for rank, trait in enumerate(segment.traits, start=1)
    ]
    return pl.DataFrame([{name: row[name] for name in _TRAIT_COLUMNS} for row in rows], schema=_TRAIT_COLUMNS)


def _strongest(traits: pl.DataFrame, columns: list[str], most: int = 8) -> list[str]:
    """The columns by their strongest trait in any segment, then those without one."""
    best = dict(traits.group_by("column_name").agg(pl.col("strength").abs().max()).iter_rows())
    return sorted(columns, key=lambda name: (-best.get(name, 0.0), columns.index(name)))[:most]
