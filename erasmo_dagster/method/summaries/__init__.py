"""Summaries of long texts, which take their place before they are encoded (as in arXiv 2403.15112)."""

from erasmo_dagster.method.summaries.base import Summarizer
from erasmo_dagster.method.summaries.choice import long_texts, open_summarizer, stays_here, summarized_columns
from erasmo_dagster.method.summaries.textrank import TextRankSummarizer, textrank

__all__ = [
    "Summarizer",
    "TextRankSummarizer",
    "long_texts",
    "open_summarizer",
    "stays_here",
    "summarized_columns",
    "textrank",
]
