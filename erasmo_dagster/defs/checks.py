"""The gate: blocking checks between a run and the published file, and one that only warns.

A check writes its result down with the version; publishing refuses a version whose results are not all there and good.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from erasmo_dagster.defs.partitions import dataset_check
from erasmo_dagster.defs.resources import WarehouseResource
from erasmo_dagster.defs.sampling import planned_columns_of, sampled_rows
from erasmo_dagster.defs.stages import root_run
from erasmo_dagster.method.fitted import FittedState
from erasmo_dagster.method.gower import gower_distances, gower_silhouette
from erasmo_dagster.method.quality import METRICS
from erasmo_dagster.settings import DatasetSettings, Project, load_dataset
from erasmo_dagster.store.artifacts import snapshot_path, text_dir
from erasmo_dagster.store.checks import GATE, CheckResult, write_check
from erasmo_dagster.store.versions import (
    STAGES,
    StageOutput,
    newest_version_with,
    publications,
    stage_output,
    upstream,
    version_of_run,
)
from erasmo_dagster.store.warehouse import count_strays, read_metrics_of, read_segments, segment_sizes


@dataclass(frozen=True)
class Candidate:
    """The version at the gate."""

    dataset: str
    version: int
    settings: DatasetSettings
    project: Project
    warehouse: WarehouseResource
    outputs: Mapping[str, StageOutput]

    def output(self, stage: str) -> StageOutput:
        """The output of a stage that the version uses."""
        if stage in self.outputs:
            return self.outputs[stage]
        with self.warehouse.get_connection() as con:
            return upstream(con, self.dataset, self.version, stage)

    def figures(self, version: int) -> dict[str, float]:
        """The figures of a version."""
        with self.warehouse.get_connection() as con:
            output = stage_output(con, self.dataset, version, "segment_metrics")
            return read_metrics_of(con, self.dataset, output.version) if output else {}


Verdict = tuple[bool, str, dict[str, Any]]


def _eval_loss_is_finite(candidate: Candidate) -> Verdict:
    """The loss on held-out rows is a finite number: training has not run away."""
    details = candidate.output("adapter").details
    loss = (details.get("training") or {}).get("eval_loss")
    if "training" not in details:
        return True, "nothing was trained", {}
    if loss is None:
        return True, "no rows were held out (adapter.eval_fraction)", {}
    return math.isfinite(loss), f"eval loss {loss:.4g}", {"eval_loss": loss}


def _every_row_has_one_segment(candidate: Candidate) -> Verdict:
    """Every row of the source is in exactly one segment, and no other row is."""
    source, segments = candidate.output("source_table"), candidate.output("segments")
    path = snapshot_path(candidate.project, candidate.dataset, source.version)
    with candidate.warehouse.get_connection() as con:
        strays = count_strays(con, candidate.dataset, segments.version, path)
    told = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in strays.items() if count)
    return not told, told or f"{source.details['rows']} rows, each in one segment", strays


def _segments_are_large_enough(candidate: Candidate) -> Verdict:
    """No segment has fewer rows than gate.min_segment_size."""
    least = candidate.settings.gate.min_segment_size
    held = candidate.output("segments").version
    with candidate.warehouse.get_connection() as con:
        sizes = segment_sizes(con, candidate.dataset, held)
    small = {segment: size for segment, size in sizes.items() if size < least}
    told = ", ".join(f"segment {segment} has {size}" for segment, size in small.items())
    figures = {"smallest": min(sizes.values(), default=0), "least": least}
    return not small, f"{told} (gate.min_segment_size {least})" if small else f"smallest {figures['smallest']}", figures


def _floors_hold(candidate: Candidate) -> Verdict:
    """No figure is worse than its floor in gate.floors."""
    figures = candidate.figures(candidate.version)
    floors = candidate.settings.gate.floors
    shown: dict[str, Any] = {name: figures.get(name) for name in floors}
    broken = []
    for name, floor in floors.items():
        value = figures.get(name)
        lower_is_better = METRICS[name].higher_is_better is False
        if value is None or not math.isfinite(value) or (value > floor if lower_is_better else value < floor):
            found = "absent" if value is None else f"{value:.4g}"
            broken.append(f"{name} is {found} (gate.floors {'at most' if lower_is_better else 'at least'} {floor:g})")
    return not broken, "; ".join(broken) or (f"{len(floors)} floors hold" if floors else "no floors are set"), shown


def _no_worse_than_published(candidate: Candidate) -> Verdict:
    """On the same rows, the segments are no worse than the published ones by the silhouette under Gower distance.

    Both segmentations are judged by the rows as they are now: what is asked is which of the two to serve.
    """
    with candidate.warehouse.get_connection() as con:
        published = publications(con).get(candidate.dataset)
        if published is None or published.version == candidate.version:
            return True, "nothing else is published", {}
        new, old = (
            read_segments(con, candidate.dataset, upstream(con, candidate.dataset, version, "segments").version)
            for version in (candidate.version, published.version)
        )
    both = sampled_rows(new.join(old.select("entity_key", old="segment_id"), on="entity_key"), candidate.settings.seed)
    path = snapshot_path(candidate.project, candidate.dataset, candidate.output("source_table").version)
    corpus = candidate.output("text_corpus")
    plan = FittedState.load(text_dir(candidate.project, candidate.dataset, corpus.version)).text
    frame, columns = planned_columns_of(both, path, plan.columns, label=candidate.settings.label)
    distances = gower_distances(frame, columns) if both.height > 2 else None
    if distances is None:
        return (
            True,
            "no rows, or no column of numbers, moments, categories or text, to compare by",
            {"rows": both.height},
        )
    # One segment alone has no silhouette; by convention (Rousseeuw 1987) a row alone with its own scores 0.
    now, before = (
        gower_silhouette(distances, labels.to_numpy()) or 0.0 for labels in (both["segment_id"], both["old"])
    )
    most = candidate.settings.gate.max_drop
    figures = {"rows": both.height, "silhouette": now, "published": before, "max_drop": most}
    message = (
        f"silhouette under Gower distance {now:.3f}, version {published.version} has {before:.3f} on the same rows"
    )
    return before - now <= most, message, figures


def _vectors_no_worse(candidate: Candidate) -> Verdict:
    """The silhouette of the vectors has not fallen; compared between versions of one adapter alone."""
    with candidate.warehouse.get_connection() as con:
        published = publications(con).get(candidate.dataset)
        if published is None or published.version == candidate.version:
            return True, "nothing else is published", {}
        adapters = {
            upstream(con, candidate.dataset, version, "adapter").version
            for version in (candidate.version, published.version)
        }
    if len(adapters) > 1:
        return True, "another adapter: silhouettes of two vector spaces do not compare", {}
    now, before = (
        candidate.figures(version).get("silhouette", math.nan) for version in (candidate.version, published.version)
    )
    message = f"silhouette of the vectors {now:.3f}, version {published.version} has {before:.3f}"
    figures = {"silhouette": now, "published": before}
    return not before - now > candidate.settings.gate.max_drop, message, figures


def _check(asset: str, judge: Callable[[Candidate], Verdict]) -> dg.AssetChecksDefinition:
    name = judge.__name__.removeprefix("_")
    blocking = name in GATE

    @dataset_check(
        asset=asset,
        name=name,
        description=" ".join((judge.__doc__ or "").split()),
        blocking=blocking,
    )
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        candidate = _candidate(context, warehouse, asset)
        passed, message, figures = judge(candidate)
        figures = {key: value if _is_json(value) else None for key, value in figures.items()}
        with warehouse.get_connection() as con:
            result = CheckResult(name, passed, blocking, message, figures)
            write_check(con, candidate.dataset, candidate.version, result)
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
            description=message,
            metadata={"version": candidate.version, **{k: v for k, v in figures.items() if v is not None}},
        )

    return check


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _candidate(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, stage: str) -> Candidate:
    dataset, project = context.partition_key, warehouse.project
    with warehouse.get_connection() as con:
        version = version_of_run(con, dataset, root_run(context))
        if version is None or stage_output(con, dataset, version, stage) is None:
            version = newest_version_with(con, dataset, stage)
        assert version is not None, "a check runs after its asset"
        found = {name: stage_output(con, dataset, version, name) for name in STAGES}
    outputs = {name: output for name, output in found.items() if output is not None}
    return Candidate(dataset, version, load_dataset(project, dataset), project, warehouse, outputs)


GATE_CHECKS = [
    _check("adapter", _eval_loss_is_finite),
    _check("segments", _every_row_has_one_segment),
    _check("segments", _segments_are_large_enough),
    _check("segments", _no_worse_than_published),
    _check("segment_metrics", _floors_hold),
    _check("segment_metrics", _vectors_no_worse),
]
