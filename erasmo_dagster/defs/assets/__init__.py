"""One file a stage, in the order in which a table becomes segments."""

from erasmo_dagster.defs.assets.adapter import adapter
from erasmo_dagster.defs.assets.embeddings import embeddings
from erasmo_dagster.defs.assets.published_segments import published_segments
from erasmo_dagster.defs.assets.refresh_plan import refresh_plan
from erasmo_dagster.defs.assets.segment_metrics import segment_metrics
from erasmo_dagster.defs.assets.segment_profile import segment_profile
from erasmo_dagster.defs.assets.segments import segments
from erasmo_dagster.defs.assets.source_table import source_table
from erasmo_dagster.defs.assets.text_corpus import text_corpus

STAGE_ASSETS = [
    source_table,
    refresh_plan,
    text_corpus,
    adapter,
    embeddings,
    segments,
    segment_metrics,
    segment_profile,
    published_segments,
]
