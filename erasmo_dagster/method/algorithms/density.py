"""HDBSCAN."""

from __future__ import annotations

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.algorithms.base import Cut, Partitioner, Points
from erasmo_dagster.settings import ClusteringSettings

_FEWEST = 5  # rows of a segment, where the settings do not say


def hdbscan(points: Points, settings: ClusteringSettings) -> Partitioner:
    """Dense regions of any shape and number, the rest is noise (Campello, Moulavi and Sander, 2013), by scikit-learn.

    Its confidence is the method's own: how near to the densest part of its segment a row is. Raises ErasmoError for
    fewer rows than twice the smallest segment, and where no region is denser than its surroundings.
    """
    rows = len(points)
    smallest = settings.min_cluster_size or max(_FEWEST, rows // 100)
    for name, value, least in (
        ("min_cluster_size", smallest, 2 * smallest),
        ("min_samples", settings.min_samples, settings.min_samples or 0),
    ):
        if rows < least:
            raise ErasmoError(
                f"Got {rows} row{'s' * (rows != 1)} for clustering.{name}={value}",
                expected=f"at least {least}",
                fix=f"lower clustering.{name} or bring more rows",
            )

    def cut(_: int) -> Cut:
        from sklearn.cluster import HDBSCAN

        model = HDBSCAN(min_cluster_size=smallest, min_samples=settings.min_samples, copy=True).fit(points)
        if (model.labels_ < 0).all():
            raise ErasmoError(
                f"Got noise in all {rows} rows from clustering.method=hdbscan",
                expected="at least two dense regions",
                fix=f"lower clustering.min_cluster_size (now {smallest}), or choose another clustering.method",
            )
        return Cut(model.labels_, confidence=model.probabilities_)

    return Partitioner(cut, "rows")
