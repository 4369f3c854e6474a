"""Segments of the rows."""

from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.defs.orders import order_figures
from erasmo_dagster.defs.partitions import dataset_partitions
from erasmo_dagster.defs.pictures import picture, table
from erasmo_dagster.defs.points import drawn_in, source_columns
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.stages import CODE_VERSIONS, OWNERS, StageRun, begin_stage
from erasmo_dagster.method import plots
from erasmo_dagster.method.auto import TableSegments, segment_table
from erasmo_dagster.method.candidates import HOW_TO_READ, language_model_says, leaderboard_rows
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.drift import segment_reach
from erasmo_dagster.method.fitted import FittedClustering, FittedState
from erasmo_dagster.method.matching import SegmentMatch, assign_ids, match_segments
from erasmo_dagster.method.measures import stability_measures
from erasmo_dagster.method.placing import membership_rows, place_rows
from erasmo_dagster.method.steadiness import steadiness
from erasmo_dagster.settings.clustering import ON_COLUMNS
from erasmo_dagster.store.artifacts import state_dir, text_dir, vectors_dir
from erasmo_dagster.store.corpus import corpus_of, read_hashes
from erasmo_dagster.store.names import next_segment_id
from erasmo_dagster.store.standing import match_rows
from erasmo_dagster.store.vectors import read_embeddings, write_embeddings
from erasmo_dagster.store.versions import (
    FITTED_STATE,
    StageOutput,
    link_stage,
    publications,
    record_stage,
    stage_output,
)
from erasmo_dagster.store.warehouse import (
    read_segments,
    write_candidates,
    write_memberships,
    write_segments,
)


@dataclass(frozen=True, eq=False)
class _Segmented:
    """What a run found: the fitted clustering, and segment id and confidence of each row in the vectors' order.

    ``memberships`` has columns entity_key, segment_id, membership, and no row where the method has none. ``points``
    float32[n, d] are what the rows were placed by. ``leaderboard`` is of the ways that a training has compared.
    """

    fitted: FittedClustering
    points: npt.NDArray[np.float32]
    segment_ids: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    memberships: pl.DataFrame
    assigned_at: pl.Series
    trained_by: StageOutput | None
    details: dict[str, Any]
    shown: dict[str, Any] = field(default_factory=dict)
    leaderboard: list[dict[str, Any]] = field(default_factory=list)


@dg.asset(
    partitions_def=dataset_partitions,
    group_name="segments",
    kinds={"scikitlearn", "duckdb"},
    owners=OWNERS,
    code_version=CODE_VERSIONS["segments"],
    deps=["source_table", "refresh_plan", "text_corpus", "embeddings"],
)
def segments(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult[None]:
    """One segment per entity, with a confidence."""
    run = begin_stage(context, warehouse)
    vectors_of = run.inputs["embeddings"]
    with warehouse.get_connection() as con:
        entity_keys, vectors = read_embeddings(con, run.dataset, vectors_of.version, vectors_of.details["width"])
        rows = read_hashes(con, corpus_of(run.dataset, run.inputs["text_corpus"].version))
        published = publications(con).get(run.dataset)
        base = published.version if published else None
    standing = run.standing("clustering", "segments")
    found = _cluster(run, entity_keys, vectors) if standing is None else _keep(run, standing, rows, vectors)
    text = FittedState.load(text_dir(run.project, run.dataset, run.inputs["text_corpus"].version)).text
    FittedState(text=text, clustering=found.fitted).save(state_dir(run.project, run.dataset, run.version))
    ids, counts = np.unique(found.segment_ids, return_counts=True)
    sizes: dict[int, int] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    noise = sizes.get(-1, 0)
    details = {"rows": len(entity_keys), "k": len(sizes) - (noise > 0), "noise": noise, "base": base, **found.details}
    if found.fitted.table is not None:
        details["points"] = found.fitted.table.dimensions
    with warehouse.get_connection() as con:
        if found.fitted.table is not None:
            write_embeddings(con, run.dataset, run.version, rows, found.points, kind="points")
        placed = pl.DataFrame(
            {
                "entity_key": entity_keys,
                "segment_id": found.segment_ids,
                "confidence": found.confidence,
                "assigned_at": found.assigned_at,
            }
        )
        write_segments(con, run.dataset, run.version, placed)
        write_memberships(con, run.dataset, run.version, found.memberships)
        write_candidates(con, run.dataset, run.version, found.leaderboard)
        hashed = run.hash_inputs(run.settings.clustering.model_dump(), run.settings.seed)
        if found.trained_by is None:
            record_stage(con, run.dataset, run.version, FITTED_STATE, inputs_hash=hashed, details={})
        else:
            link_stage(con, run.dataset, run.version, found.trained_by)
        output = run.record(con, hashed, details)
    return run.result(output, {"dagster/row_count": len(entity_keys), **_pictures(run, found, sizes)})


def _keep(run: StageRun, standing: StageOutput, rows: pl.DataFrame, vectors: npt.NDArray[np.float32]) -> _Segmented:
    """The segments that stand, with the rows that are new or changed put into them."""
    fitted = FittedState.load(state_dir(run.project, run.dataset, standing.version)).clustering
    assert fitted is not None
    with run.warehouse.get_connection() as con:
        corpus = corpus_of(run.dataset, run.inputs["text_corpus"].version)
        stood = match_rows(con, run.dataset, run.plan.standing or 0, corpus)
        trained_by = stage_output(con, run.dataset, run.plan.standing or 0, FITTED_STATE)
    points = drawn_in(run, fitted, run.plan.fitted or 0, rows, vectors)
    new_keys = rows["entity_key"].filter(pl.Series(stood.new))
    placed = place_rows(stood.segment_ids, stood.confidence, stood.new, new_keys, points[stood.new], fitted)
    assigned = int(stood.new.sum())
    kept = len(stood.new) - assigned
    return _Segmented(
        fitted,
        points,
        placed.segment_ids,
        placed.confidence,
        pl.concat([stood.memberships, placed.memberships]),
        stood.assigned_at,
        trained_by,
        {"kept": kept, "assigned": assigned, "notes": []},
        {"rows_kept": kept, "rows_assigned": assigned, "segments_of_version": run.plan.fitted},
    )


def _cluster(run: StageRun, entity_keys: pl.Series, vectors: npt.NDArray[np.float32]) -> _Segmented:
    """New segments, called as the published ones where they share the most of their rows."""
    settings = run.settings.clustering
    found = _drawn(run, vectors)
    result, points, stable = found.result, found.points, found.stability
    with run.warehouse.get_connection() as con:
        published = publications(con).get(run.dataset)
        output = stage_output(con, run.dataset, published.version, "segments") if published else None
        before = read_segments(con, run.dataset, output.version) if output else None
        next_id = next_segment_id(con, run.dataset)
    matches: list[SegmentMatch] = []
    if before is not None:
        both = pl.DataFrame({"entity_key": entity_keys, "label": result.labels}).join(before, on="entity_key")
        matches = match_segments(both["label"].to_numpy(), both["segment_id"].to_numpy())
    ids = np.array(assign_ids(result.k, matches, next_id), dtype=np.int32)
    fitted = FittedClustering(
        settings=settings,
        model=result.model,
        k=result.k,
        segment_ids=tuple(ids.tolist()),
        sizes=tuple(np.bincount(result.labels[result.labels >= 0], minlength=result.k).tolist()),
        noise=int((result.labels < 0).sum()),
        reach=segment_reach(points, result.labels, result.model),
        table=found.space,
        texts=found.texts,
        stability={**(stability_measures(stable) if stable else {}), **order_figures(run, found)},
        jaccard=stable.jaccard if stable else (),
    )
    leaderboard = leaderboard_rows(found.candidates, found.chosen)
    details = {
        "sweep": [vars(point) for point in result.sweep],
        "notes": list(result.notes),
        "chosen": found.chosen,
        "candidates": leaderboard,
        "matches": [vars(match) for match in matches],
    }
    shown: dict[str, Any] = {}
    if before is not None:
        shown["ids_kept"] = ", ".join(str(match.published) for match in matches) or "none"
        shown["ids_new"] = ", ".join(str(i) for i in ids.tolist() if i >= next_id) or "none"
    if result.sweep:
        sweep = plots.k_sweep(
            result.sweep, result.k, rows=len(points), reason=result.reason, choose_by=settings.choose_by
        )
        shown["k_sweep"] = picture(sweep, "figures by number of segments")
        shown["k_figures"] = table([vars(point) for point in result.sweep])
        shown["k_reason"] = result.reason
    if found.candidates:
        shown["chosen"] = found.chosen
        shown["leaderboard"] = table([{name: _short(value) for name, value in row.items()} for row in leaderboard])
        shown["leaderboard_plot"] = picture(
            plots.leaderboard(found.candidates, found.chosen), "bits saved by each candidate"
        )
        read = [*HOW_TO_READ, language_model_says(found.candidates)]
        shown["reading"] = dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in read if sentence))
    moments = pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, len(entity_keys))
    memberships = membership_rows(entity_keys, result.memberships, fitted)
    ids_of_rows = fitted.ids(result.labels)
    return _Segmented(
        fitted, points, ids_of_rows, result.confidence, memberships, moments, None, details, shown, leaderboard
    )


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _drawn(run: StageRun, vectors: npt.NDArray[np.float32]) -> TableSegments:
    """New segments, in the vectors or in the table's own columns, as the settings say, and how stable they are."""
    settings, seed = run.settings, run.settings.seed
    if settings.clustering.method not in ON_COLUMNS:
        result = cluster(vectors, settings.clustering, seed=seed)
        return TableSegments(
            result, vectors, stability=steadiness(vectors, result.labels, settings.clustering, seed=seed)
        )
    plan = FittedState.load(text_dir(run.project, run.dataset, run.inputs["text_corpus"].version)).text
    # What the YAML has made the label since the texts were planned has no say.
    plan = plan.model_copy(update={"columns": tuple(c for c in plan.columns if c.name != settings.label)})
    frame = source_columns(run, [column.name for column in plan.columns])
    models = run.project.models
    kept = vectors_dir(run.project, run.dataset, "texts")
    return segment_table(
        frame, plan, settings.clustering, seed=seed, models_dir=models, vectors=vectors, measured=True, kept=kept
    )


def _pictures(run: StageRun, found: _Segmented, sizes: dict[int, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "segments": dg.MetadataValue.int(len(sizes) - (-1 in sizes)),
        **({"noise": dg.MetadataValue.int(sizes[-1])} if -1 in sizes else {}),
        "mean_confidence": dg.MetadataValue.float(round(float(found.confidence.mean()), 4)),
        "sizes": picture(plots.segment_sizes(sizes), "rows by segment"),
        "projection": picture(
            plots.projection(found.points, found.segment_ids.astype(np.int64), seed=run.settings.seed),
            "vectors by segment, in two dimensions",
        ),
        **found.shown,
    }
    if notes := found.details["notes"]:
        shown["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in notes))
    return shown
