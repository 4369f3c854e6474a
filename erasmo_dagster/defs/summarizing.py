"""Summaries in the place of long texts: those that were made before are taken from the warehouse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from erasmo_dagster import progress
from erasmo_dagster.defs.sampling import snapshot_chunks, text_rows
from erasmo_dagster.defs.stages import StageRun
from erasmo_dagster.method.endpoints import shown_url
from erasmo_dagster.method.memory import release_memory
from erasmo_dagster.method.summaries import (
    Summarizer,
    TextRankSummarizer,
    long_texts,
    open_summarizer,
    stays_here,
    summarized_columns,
)
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import SummarizeSettings
from erasmo_dagster.settings.naming import is_here
from erasmo_dagster.store.summaries import read_summaries, write_summaries

_MAP = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))


@dataclass(frozen=True, eq=False)
class Summarized:
    """``frame`` is the table with summaries in the place of long texts, ``summaries`` each row's by column, as entries
    of a map, null where it has none.

    ``details`` tells of the work: by column the distinct ``long_texts`` and the identity of who summarizes them, the
    summaries ``made`` now, and of those the ``fallbacks`` to TextRank.
    """

    frame: pl.DataFrame
    summaries: pl.Series
    details: dict[str, Any]


def summarize_source(run: StageRun, snapshot: Path, plan: TextPlan) -> Summarized | None:
    """The text columns of all rows with summaries in the place of long texts; None where none are asked for.

    A text is summarized once, wherever it stands, and the work is told for the table: its texts are held as one.
    """
    if _settings(run, plan) is None:
        return None
    table = pl.scan_parquet(snapshot, glob=False)
    kinds = table.collect_schema()
    texts = [column.name for column in plan.columns if kinds.get(column.name) == pl.String]
    done = summarize_texts(run, table.select(texts).collect(), plan)
    return done if done.details else None


def corpus_rows(snapshot: Path, plan: TextPlan, summarized: Summarized | None) -> Iterator[pl.DataFrame]:
    """The corpus in the snapshot's order, some rows at a time: entity_key, text_hash, clauses, and any summaries."""
    start = 0
    for frame in snapshot_chunks(snapshot):
        if summarized:
            written = frame.with_columns(summarized.frame.slice(start, frame.height))
            summaries = summarized.summaries.slice(start, frame.height)
            yield text_rows(frame, written, plan).with_columns(summaries)
        else:
            yield text_rows(frame, frame, plan)
        start += frame.height


def summarize_texts(run: StageRun, frame: pl.DataFrame, plan: TextPlan) -> Summarized:
    """Summarize the long texts of ``frame`` as ``plan`` says; each distinct one at most once, whatever stops the run.

    Raises ErasmoError for a column that is not there, and where a model or an endpoint cannot be asked; what was
    summarized until then is kept.
    """
    settings = _settings(run, plan)
    if settings is None:
        return Summarized(frame, pl.Series("summaries", [None] * frame.height, dtype=_MAP), {})
    texts = {name: long_texts(frame[name], settings) for name in summarized_columns(frame, plan, settings)}
    private = {*run.settings.sensitive, *(column.name for column in plan.columns if column.sensitive)}
    private |= set(run.inputs["source_table"].details["sensitive"])
    kept = [name for name in texts if stays_here(name, settings, private)]
    sent = [name for name in texts if name not in kept]
    _tell_what_leaves(settings, {name: texts[name] for name in sent})
    found: dict[str, dict[str, str]] = {}
    by: dict[str, str] = {}
    made = fallbacks = 0
    for names, summarizer in (
        (sent, open_summarizer(settings, run.project.models)),
        (kept, TextRankSummarizer(settings.sentences)),
    ):
        wanted = sorted({text for name in names for text in texts[name]})
        summaries, fresh = _summaries(run, summarizer, wanted)
        by |= dict.fromkeys(names, summarizer.identity)
        found |= {name: {text: summaries[text] for text in texts[name]} for name in names}
        made += fresh
        fallbacks += summarizer.fallbacks
    if made:
        release_memory()
    new = {name: _looked_up(frame[name], summaries) for name, summaries in found.items()}
    replaced = frame.with_columns(summary.fill_null(frame[name]).alias(name) for name, summary in new.items())
    details = {
        "long_texts": {name: len(own) for name, own in texts.items()},
        "summarizers": by,
        "made": made,
        "fallbacks": fallbacks,
    }
    return Summarized(replaced, _as_maps(new, frame.height), details)


def _settings(run: StageRun, plan: TextPlan) -> SummarizeSettings | None:
    """The plan's settings; where summaries are made today, as the YAML says now."""
    same = plan.settings.deciding() == run.settings.text.deciding()
    return run.settings.text.summarize if same else plan.settings.summarize


def _tell_what_leaves(settings: SummarizeSettings, texts: Mapping[str, Sequence[str]]) -> None:
    if settings.by == "endpoint" and not is_here(settings.url or "") and any(texts.values()):
        shown = ", ".join(f"{name} ({len(long):,} texts)" for name, long in texts.items() if long)
        progress.note(f"Long texts that are not summarized yet go to {shown_url(settings.url or '')}: columns {shown}.")


def _summaries(run: StageRun, summarizer: Summarizer, texts: Sequence[str]) -> tuple[dict[str, str], int]:
    """The summary of every text, and how many are new.

    New ones are kept chunk by chunk, and the lock is held for reading and writing alone.
    """
    if not texts:
        return {}, 0
    identity = summarizer.identity
    with run.warehouse.get_connection() as con:
        summaries = read_summaries(con, identity, texts)
    missing = [text for text in texts if text not in summaries]
    if missing:
        with progress.bar("summarizing", len(missing), "texts") as shown:
            for start in range(0, len(missing), summarizer.chunk):
                chunk = missing[start : start + summarizer.chunk]
                made = dict(zip(chunk, summarizer.summarize(chunk), strict=True))
                with run.warehouse.get_connection() as con:
                    write_summaries(con, identity, made)
                summaries |= made
                shown.update(len(chunk))
    return summaries, len(missing)


def _looked_up(texts: pl.Series, summaries: Mapping[str, str]) -> pl.Series:
    """The summary of every row's text, null where it has none."""
    table = pl.DataFrame(
        {"text": list(summaries), "summary": list(summaries.values())}, schema={"text": pl.String, "summary": pl.String}
    )
    rows = pl.DataFrame({"text": texts})
    return rows.join(table, on="text", how="left", maintain_order="left")["summary"]


def _as_maps(summaries: Mapping[str, pl.Series], height: int) -> pl.Series:
    """Each row's summaries as entries of a map from column to summary, null where there are none."""
    rows: list[list[dict[str, str]]] = [[] for _ in range(height)]
    for name, column in summaries.items():
        for row, summary in zip(rows, column.to_list(), strict=True):
            if summary is not None:
                row.append({"key": name, "value": summary})
    return pl.Series("summaries", [row or None for row in rows], dtype=_MAP)
