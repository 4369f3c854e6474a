"""Refresh or retrain: the facts of one run, gathered in the order of what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from erasmo_dagster.defs.encoding import encode, forget_unfinished, way_of_reading
from erasmo_dagster.defs.points import drawn_in
from erasmo_dagster.defs.stages import StageRun, settings_digests
from erasmo_dagster.defs.summarizing import summarize_texts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.drift import population_stability_index, share_beyond
from erasmo_dagster.method.fitted import FittedClustering, FittedState
from erasmo_dagster.method.placing import place_rows
from erasmo_dagster.method.textual import text_hashes, write_clauses
from erasmo_dagster.refresh.decision import (
    Decision,
    Drift,
    Grounds,
    RefreshPlan,
    RowChanges,
    decide_by_drift,
    decide_by_grounds,
    decide_by_rows,
)
from erasmo_dagster.store.artifacts import adapter_dir, snapshot_path, state_dir
from erasmo_dagster.store.sources import ENTITY_KEY, Fingerprint, is_unchanged, schema_changes
from erasmo_dagster.store.standing import standing_rows
from erasmo_dagster.store.versions import (
    FITTED_STATE,
    NEW_VECTORS,
    STAGES,
    StageOutput,
    link_stage,
    publications,
    stage_output,
)
from erasmo_dagster.store.warehouse import read_text_hashes, write_embeddings


@dataclass(frozen=True, eq=False)
class Standing:
    """The published version, and the training that its segments are of.

    ``outputs`` has the published version's stages, ``trained`` those of the version that was last trained.
    """

    version: int
    outputs: Mapping[str, StageOutput]
    fitted: int
    trained: Mapping[str, StageOutput]
    state: FittedState
    clustering: FittedClustering


def make_plan(run: StageRun, *, forced: bool) -> RefreshPlan:
    """Decide what happens to the dataset in this run; new and changed rows may be embedded for it."""
    standing = _find_standing(run)
    digests = settings_digests(run.settings)
    policy = run.settings.refresh

    def plan(decision: Decision, **facts: Any) -> RefreshPlan:
        stands = standing if isinstance(standing, Standing) else None
        return RefreshPlan(
            decision=decision,
            forced=forced,
            standing=stands.version if stands else None,
            fitted=stands.fitted if stands else None,
            settings=digests,
            **facts,
        )

    if isinstance(standing, str):
        return plan(decide_by_grounds(Grounds(stands=False, why_not=standing), policy))
    decision = decide_by_grounds(_grounds(run, standing, digests, forced=forced), policy)
    if decision.mode == "retrain":
        return plan(decision)
    corpus, changes = _compare_texts(run, standing)
    decision = decide_by_rows(decision, changes, policy)
    if decision.mode == "retrain":
        return plan(decision, changes=changes)
    drift, embedded = _measure_drift(run, standing, corpus)
    return plan(decide_by_drift(decision, drift, policy), changes=changes, drift=drift, embedded=embedded)


def _find_standing(run: StageRun) -> Standing | str:
    """What is published with all that a refresh needs of it, or why there is nothing to refresh."""
    with run.warehouse.get_connection() as con:
        published = publications(con).get(run.dataset)
        if published is None:
            return "nothing of this dataset has been published yet"
        outputs = _outputs(con, run.dataset, published.version)
        fitted = outputs.get(FITTED_STATE)
        if fitted is None or not set(STAGES) <= set(outputs):
            return f"version {published.version} comes from an earlier release, or was made in parts"
        trained = _outputs(con, run.dataset, fitted.version)
    try:
        state = FittedState.load(state_dir(run.project, run.dataset, outputs["segments"].version))
    except ErasmoError as error:
        return f"the fitted state of version {published.version} cannot be read ({error.got})"
    adapter = outputs["adapter"]
    learns = adapter.details.get("learns", True)
    if learns and not adapter_dir(run.project, run.dataset, adapter.version).is_dir():
        return f"what the encoder learnt for version {adapter.version} is gone"
    assert state.clustering is not None
    return Standing(published.version, outputs, fitted.version, trained, state, state.clustering)


def _outputs(con: Any, dataset: str, version: int) -> dict[str, StageOutput]:
    found = {stage: stage_output(con, dataset, version, stage) for stage in (*STAGES, FITTED_STATE)}
    return {stage: output for stage, output in found.items() if output is not None}


def _grounds(run: StageRun, standing: Standing, digests: Mapping[str, str], *, forced: bool) -> Grounds:
    source, before = run.inputs["source_table"], standing.outputs["source_table"]
    unchanged = source.version == before.version or is_unchanged(
        Fingerprint.model_validate(source.details["fingerprint"]),
        Fingerprint.model_validate(before.details["fingerprint"]),
        snapshot_path(run.project, run.dataset, before.version),
    )
    trained_by = RefreshPlan.model_validate(standing.trained["refresh_plan"].details["plan"]).settings
    columns = [
        {name: kind for name, kind in output.details["columns"].items() if name not in run.settings.excluded}
        for output in (standing.trained["source_table"], source)
    ]
    return Grounds(
        stands=True,
        forced=forced,
        source_changed=not unchanged,
        settings=tuple(sorted(name for name, digest in digests.items() if trained_by.get(name) != digest)),
        schema=tuple(schema_changes(*columns)),
    )


def _compare_texts(run: StageRun, standing: Standing) -> tuple[pl.DataFrame, RowChanges]:
    source = run.inputs["source_table"]
    frame = pl.read_parquet(snapshot_path(run.project, run.dataset, source.version)).sort(ENTITY_KEY)
    clauses = write_clauses(summarize_texts(run, frame, standing.state.text).frame, standing.state.text)
    corpus = pl.DataFrame({"entity_key": frame[ENTITY_KEY], "text_hash": text_hashes(clauses), "clauses": clauses})
    with run.warehouse.get_connection() as con:
        before = read_text_hashes(con, run.dataset, standing.outputs["text_corpus"].version)
        trained = read_text_hashes(con, run.dataset, standing.trained["text_corpus"].version)
    rows = corpus.select("entity_key", "text_hash")
    new = rows.join(before, on="entity_key", how="anti").height
    otherwise = rows.join(before, on=["entity_key", "text_hash"], how="anti").height
    return corpus, RowChanges(
        rows=corpus.height,
        new=new,
        changed=otherwise - new,
        gone=before.join(rows, on="entity_key", how="anti").height,
        since_training=rows.join(trained, on=["entity_key", "text_hash"], how="anti").height,
    )


def _measure_drift(run: StageRun, standing: Standing, corpus: pl.DataFrame) -> tuple[Drift, int]:
    """Embed what is new, put every row into the standing segments, and compare with the training."""
    adapter, fitted = standing.outputs["adapter"], standing.clustering
    way = way_of_reading(run, standing.outputs["embeddings"])
    encoded = encode(run, adapter, corpus, standing.state.text, way)
    texts = 0
    with run.warehouse.get_connection() as con:
        if encoded.run is not None:
            texts = encoded.run.distinct_texts
            keys = corpus.filter(pl.Series(encoded.fresh))
            vectors = encoded.vectors[encoded.fresh]
            write_embeddings(con, run.dataset, run.version, keys, vectors)
            details = {
                "encoder": encoded.encoder,
                "width": int(vectors.shape[1]),
                "texts_embedded": texts,
                "tokens": encoded.run.tokens,
                "truncated_rows": encoded.run.truncated_rows,
                "model_seconds": round(encoded.run.seconds, 2),
                "tokens_per_second": round(encoded.run.tokens_per_second, 1),
            }
            link_stage(con, run.dataset, run.version, StageOutput(NEW_VECTORS, run.version, encoded.encoder, details))
        segmented = standing_rows(con, run.dataset, standing.version)
        trained = read_text_hashes(con, run.dataset, standing.trained["text_corpus"].version)
    forget_unfinished(run, encoded.encoder)
    points = drawn_in(run, fitted, standing.fitted, corpus, encoded.vectors, keep=True)
    placed = place_rows(corpus, points, segmented, fitted)
    ids, counts = np.unique(placed.segment_ids, return_counts=True)
    sizes = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    later = corpus.select("entity_key", "text_hash").with_row_index("at")
    since = later.join(trained, on=["entity_key", "text_hash"], how="anti")["at"].to_numpy()
    return Drift(
        psi=population_stability_index(fitted.rows_by_id, sizes),
        new_rows=len(since),
        beyond=share_beyond(
            points[since],
            fitted.labels(placed.segment_ids[since]),
            fitted.model,
            fitted.reach,
            noise_share=fitted.noise_share,
        ),
    ), texts
