"""Options of clustering: each is of some methods, and refused by name with the others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from erasmo_dagster.settings import ClusteringSettings
from erasmo_dagster.settings.clustering import METHODS, ON_COLUMNS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"linkage": "ward"},
            "got `linkage`, which clustering.method auto, the default, does not have; "
            "set clustering.method to one of: agglomerative",
        ),
        (
            {"scale": "standard"},
            "got `scale`, which clustering.method auto, the default, does not have; "
            "set clustering.method to one of: kmeans, kmeans++, bisecting_kmeans, agglomerative, ",
        ),
        ({"reduce": {"method": "pca"}}, "got `reduce`, which clustering.method auto, the default, does not have"),
        ({"method": "auto", "scale": "none"}, "got `scale`, which clustering.method auto does not have; it is of: "),
        ({"method": "kmeans++", "linkage": "ward"}, "got `linkage`, which clustering.method kmeans++ does not have"),
        (
            {"method": "agglomerative", "n_init": 3},
            "got `n_init`, which clustering.method agglomerative does not have; it is of: kmeans, kmeans++, "
            "bisecting_kmeans, spectral, mixture, auto, fuzzy_cmeans, gaussian_mixture",
        ),
        ({"method": "mixture", "scale": "standard"}, "got `scale`, which clustering.method mixture does not have"),
        (
            {"method": "kmeans++", "text_model": "path:x"},
            "got `text_model`, which clustering.method kmeans++ does not have; it is of: mixture, auto",
        ),
        (
            {"method": "kmeans++", "choose_by": "bits_saved"},
            "got choose_by=bits_saved, which is of auto and mixture; expected silhouette for kmeans++",
        ),
        ({"method": "hdbscan", "k": 3}, "got `k`, which clustering.method hdbscan does not have; it is of: kmeans, "),
        ({"method": "hdbscan", "k_max": 3}, "got `k_max`, which clustering.method hdbscan does not have"),
        (
            {"method": "kmeans", "m": 1.5},
            "got `m`, which clustering.method kmeans does not have; it is of: fuzzy_cmeans",
        ),
        ({"min_samples": None}, "got `min_samples`, which clustering.method auto, the default, does not have"),
        ({"method": "fuzzy_cmeans", "m": 1.0}, "greater than 1"),
        (
            {"method": "fuzzy_cmeans", "reduce": {"method": "pca", "dimensions": 17}},
            "got reduce.dimensions=17, expected at most 16 for fuzzy_cmeans",
        ),
        ({"reduce": {"dimensions": 3}}, "got `dimensions`, which `reduce.method` none does not have"),
        ({"reduce": {"method": "truncate"}}, "expected `dimensions` beside `reduce.method: truncate`"),
        (
            {"method": "dbscan"},
            "'kmeans', 'kmeans++', 'bisecting_kmeans', 'agglomerative', 'spectral', 'fuzzy_cmeans', ",
        ),
    ],
)
def test_an_option_that_a_method_lacks_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ClusteringSettings.model_validate(given)
    assert message in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written_can_be_read(method: str) -> None:
    reduce = {} if method in ON_COLUMNS else {"reduce": {"method": "pca"}}
    settings = ClusteringSettings.model_validate({"method": method, **reduce, "k": "auto"})
    written = settings.model_dump(mode="json")
    assert ClusteringSettings.model_validate(written) == settings
    assert ("linkage" in written) == (method == "agglomerative")
    assert ("k" in written) == (method != "hdbscan")
    assert ("scale" in written) == ("text_model" not in written) == (method not in ON_COLUMNS)
    assert written.get("choose_by") == (
        None if method == "hdbscan" else "bits_saved" if method in ON_COLUMNS else "silhouette"
    )


@pytest.mark.parametrize(
    ("given", "reduction"),
    [
        ({}, "none"),
        ({"method": "fuzzy_cmeans"}, "pca"),
        ({"method": "gaussian_mixture"}, "pca"),
        ({"method": "gaussian_mixture", "reduce": {"method": "none"}}, "none"),
        ({"method": "kmeans", "reduce": {"method": "umap", "dimensions": 5}}, "umap"),
    ],
)
def test_soft_methods_are_reduced_unless_told_otherwise(given: dict[str, Any], reduction: str) -> None:
    settings = ClusteringSettings.model_validate(given)
    assert settings.reduction == (reduction, settings.reduce.dimensions or 16)


def test_auto_is_what_stands_where_no_method_is_named() -> None:
    settings = ClusteringSettings()
    assert (settings.method, settings.k, settings.choose_by) == ("auto", "auto", "bits_saved")
    assert ClusteringSettings.model_validate({"method": "auto"}) == settings
    assert ClusteringSettings.model_validate({"choose_by": "silhouette"}).choose_by == "silhouette"
    old = {"method": "kmeans++", "k": 3, "n_init": 10, "scale": "none", "reduce": {}, "metrics_rows": 5_000}
    assert ClusteringSettings.model_validate(old).model_dump() != ClusteringSettings(k=3).model_dump()


def test_what_a_given_k_does_not_heed_is_not_written() -> None:
    one, other = (ClusteringSettings.model_validate({"k": 3, "k_max": most}) for most in (7, 8))
    assert one.model_dump() == other.model_dump()
    assert ClusteringSettings(k_max=7).model_dump() != ClusteringSettings(k_max=8).model_dump()
