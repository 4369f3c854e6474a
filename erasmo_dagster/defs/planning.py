"""Refresh or retrain: the facts of one run, gathered in the order of what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.defs.encoding import Encoded, encode, forget_unfinished, way_of_reading
from erasmo_dagster.defs.points import drawn_in
from erasmo_dagster.defs.stages import StageRun, settings_digests
from erasmo_dagster.defs.summarizing import corpus_rows, summarize_source
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.drift import population_stability_index, share_beyond
from erasmo_dagster.method.fitted import FittedClustering, FittedState
from erasmo_dagster.method.placing import place_rows
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
from erasmo_dagster.store.artifacts import adapter_dir, snapshot_path, state_dir, version_dir
from erasmo_dagster.store.corpus import Corpus, corpus_file, corpus_in, corpus_of, count_rows
from erasmo_dagster.store.sources import Fingerprint, is_unchanged, schema_changes
from erasmo_dagster.store.standing import match_rows
from erasmo_dagster.store.vectors import read_vectors, write_joined
from erasmo_dagster.store.versions import (
    FITTED_STATE,
    NEW_VECTORS,
    STAGES,
    StageOutput,
    link_stage,
    publications,
    stage_output,
)


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
    with _texts(run, standing) as corpus:
        changes = _compare_texts(run, standing, corpus)
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


@contextmanager
def _texts(run: StageRun, standing: Standing) -> Iterator[Corpus]:
    """The rows of this run's source as the standing plan writes them, in a file that is gone afterwards."""
    path = snapshot_path(run.project, run.dataset, run.inputs["source_table"].version)
    plan = standing.state.text
    written = corpus_rows(path, plan, summarize_source(run, path, plan))
    with corpus_file(written, version_dir(run.project, run.dataset, run.version)) as file:
        yield corpus_in(file)


def _compare_texts(run: StageRun, standing: Standing, corpus: Corpus) -> RowChanges:
    before, trained = (
        corpus_of(run.dataset, outputs["text_corpus"].version) for outputs in (standing.outputs, standing.trained)
    )
    same_row, same = ("entity_key",), ("entity_key", "text_hash")
    with run.warehouse.get_connection() as con:
        rows = count_rows(con, corpus)
        new, otherwise = (count_rows(con, corpus, without=before, by=by) for by in (same_row, same))
        gone = count_rows(con, before, without=corpus, by=same_row)
        since = count_rows(con, corpus, without=trained, by=same)
    return RowChanges(rows=rows, new=new, changed=otherwise - new, gone=gone, since_training=since)


def _measure_drift(run: StageRun, standing: Standing, corpus: Corpus) -> tuple[Drift, int]:
    """Embed what is new, put every row into the standing segments, and compare with the training."""
    adapter, fitted = standing.outputs["adapter"], standing.clustering
    way = way_of_reading(run, standing.outputs["embeddings"])
    encoded = encode(run, adapter, corpus, standing.state.text, way)
    with run.warehouse.get_connection() as con:
        if encoded.read is not None:
            write_joined(con, run.dataset, run.version, corpus, encoded.width, parts=encoded.parts)
            details = {"encoder": encoded.encoder, "width": encoded.width, **encoded.read.details()}
            link_stage(con, run.dataset, run.version, StageOutput(NEW_VECTORS, run.version, encoded.encoder, details))
        rows = match_rows(con, run.dataset, standing.version, corpus)
    forget_unfinished(run, encoded.encoder)
    changed = rows.changed
    new, since = changed["new"].to_numpy(), changed["since"].to_numpy()
    points = _points(run, standing, encoded, changed.select("entity_key", "text_hash"))
    new_keys = changed["entity_key"].filter(changed["new"])
    placed = place_rows(rows.segment_ids, rows.confidence, rows.new, new_keys, points[new], fitted)
    ids, counts = np.unique(placed.segment_ids, return_counts=True)
    sizes = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return Drift(
        psi=population_stability_index(fitted.rows_by_id, sizes),
        new_rows=int(since.sum()),
        beyond=share_beyond(
            points[since],
            fitted.labels(placed.segment_ids[rows.since]),
            fitted.model,
            fitted.reach,
            noise_share=fitted.noise_share,
        ),
    ), encoded.read.texts if encoded.read else 0


def _points(run: StageRun, standing: Standing, encoded: Encoded, rows: pl.DataFrame) -> npt.NDArray[np.float32]:
    """What ``rows`` (entity_key, text_hash) are placed by; points that are new are written down."""
    with run.warehouse.get_connection() as con:
        versions = [*encoded.held, run.version]
        _, vectors = read_vectors(con, run.dataset, versions, encoded.width, rows["text_hash"])
    return drawn_in(run, standing.clustering, standing.fitted, rows, vectors, keep=True)
