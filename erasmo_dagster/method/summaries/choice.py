"""Which texts of a table are summarized, and by whom."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import resolve
from erasmo_dagster.method.columns import some
from erasmo_dagster.method.summaries.base import Summarizer
from erasmo_dagster.method.summaries.sentences import count_words
from erasmo_dagster.method.summaries.textrank import TextRankSummarizer
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import DEFAULT_MODEL, SummarizeSettings


def summarized_columns(frame: pl.DataFrame, plan: TextPlan, settings: SummarizeSettings) -> list[str]:
    """The columns of ``frame`` with texts to summarize, in the plan's order: those that are named, else all of kind
    text; of strings only.

    Raises ErasmoError where one is named that is no text of the plan; one that the plan has left out is passed over.
    """
    strings = [column for column in plan.columns if frame.schema.get(column.name) == pl.String]
    wrong = sorted(set(settings.columns) - {column.name for column in strings} - set(plan.dropped))
    if wrong:
        raise ErasmoError(
            f"Got text.summarize.columns with {some(wrong)}",
            expected=f"columns of strings beside key, label and drop: {some([c.name for c in strings]) or 'none'}",
            fix="correct the names there",
        )
    return [c.name for c in strings if (c.name in settings.columns if settings.columns else c.kind == "text")]


def long_texts(series: pl.Series, settings: SummarizeSettings) -> list[str]:
    """The distinct texts of more than ``settings.longer_than`` words, in order."""
    distinct = series.drop_nulls().unique().sort().to_list()
    return [text for text in distinct if count_words(text) > settings.longer_than]


def open_summarizer(settings: SummarizeSettings, models_dir: Path) -> Summarizer:
    """The summarizer that the settings name; a model's weights are fetched where they are not there, not yet loaded.

    Raises ErasmoError as :func:`~erasmo_dagster.method.base_models.resolve` does.
    """
    if settings.by == "base_model":
        from erasmo_dagster.method.summaries.chat_model import ChatModelSummarizer

        base = resolve(settings.model or DEFAULT_MODEL, models_dir)
        return ChatModelSummarizer(base, settings.sentences, settings.device)
    if settings.by == "endpoint":
        from erasmo_dagster.method.summaries.endpoint import EndpointSummarizer

        return EndpointSummarizer(settings)
    return TextRankSummarizer(settings.sentences)


def stays_here(column: str, settings: SummarizeSettings, sensitive: Collection[str]) -> bool:
    """Whether a column's texts are for no endpoint: TextRank summarizes them on this machine."""
    return settings.by == "endpoint" and column in sensitive
