"""Measures of segments from the source's own columns, never from vectors or a label. Pure functions."""

from erasmo_dagster.method.measures.explain import Explained, explain
from erasmo_dagster.method.measures.figures import TableMeasures, measure_table, stability_measures, table_measures
from erasmo_dagster.method.measures.rows import Estimate
from erasmo_dagster.method.measures.separation import ColumnSeparation, Separation, separation
from erasmo_dagster.method.measures.silhouette import gower_silhouette_of
from erasmo_dagster.method.measures.stability import Refit, Stability, order_agreement, stability

__all__ = [
    "ColumnSeparation",
    "Estimate",
    "Explained",
    "Refit",
    "Separation",
    "Stability",
    "TableMeasures",
    "explain",
    "gower_silhouette_of",
    "measure_table",
    "order_agreement",
    "separation",
    "stability",
    "stability_measures",
    "table_measures",
]
