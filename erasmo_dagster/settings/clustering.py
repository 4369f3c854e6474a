"""How vectors become segments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from erasmo_dagster.settings.base import Settings


class ClusteringSettings(Settings):
    """Vectors -> segments."""

    method: Literal["kmeans", "kmeans++", "agglomerative", "spectral"] = Field(
        "kmeans++", description="`kmeans` starts from random rows, `kmeans++` from spread ones."
    )
    k: int | Literal["auto"] = Field(
        "auto", description="Number of segments, at least 2; `auto` sweeps k_min to k_max and keeps the figures."
    )
    k_min: int = Field(2, ge=2, description="Fewest segments that the sweep tries.")
    k_max: int = Field(10, ge=2, description="Most segments that the sweep tries.")
    choose_by: Literal["silhouette", "calinski_harabasz", "davies_bouldin"] = Field(
        "silhouette", description="Figure by which the sweep chooses."
    )
    linkage: Literal["ward", "complete", "average"] = Field("ward", description="Linkage of `agglomerative`.")
    affinity: Literal["nearest_neighbors", "rbf"] = Field("nearest_neighbors", description="Graph of `spectral`.")
    n_init: int = Field(10, ge=1, le=1000, description="Starts of k-means; the best is kept.")
    scale: Literal["none", "standard"] = Field(
        "none", description="`standard` centres every dimension and scales it to unit variance first."
    )
    metrics_rows: int = Field(
        5_000, ge=100, description="Rows on which the silhouette is computed, a seeded sample where there are more."
    )

    @model_validator(mode="after")
    def _k_in_range(self) -> ClusteringSettings:
        if isinstance(self.k, int) and self.k < 2:
            raise ValueError(f"got k={self.k}, expected at least 2 or `auto`")
        if self.k_max < self.k_min:
            raise ValueError(f"got k_max={self.k_max} below k_min={self.k_min}")
        return self
