"""Experiments' files: what they may say, and one line for what they may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments.settings import (
    Algorithm,
    find_experiment,
    load_experiment,
    merged,
    ready_experiments,
)
from erasmo_dagster.settings import ClusteringSettings
from erasmo_dagster.show_experiments import ready_settings
from tests.experiments.conftest import customers_of

Write = Callable[..., Path]
TFIDF = {"name": "TF-IDF", "encoder": "tfidf"}


def test_axes_are_all_combinations(write_grid: Write, data: Path) -> None:
    axes = {
        "tuning": {"tuned": {"encoder": "erasmo", "adapter": {"max_tokens": 9}}, "untuned": {"encoder": "causal-lm"}},
        "pooling": {"mean": {}, "last": {"embedding": {"pooling": "last"}}},
    }
    _, settings = load_experiment(write_grid(encoders=[{"axes": axes, "rows": 100}, TFIDF]), data=data)
    assert [arm.name for arm in settings.encoders] == [
        "tuned, mean",
        "tuned, last",
        "untuned, mean",
        "untuned, last",
        "TF-IDF",
    ]
    last = settings.encoders[1]
    assert (last.rows, last.adapter, last.embedding) == (100, {"max_tokens": 9}, {"pooling": "last"})


def test_variants_and_algorithms_name_themselves(write_grid: Write, data: Path) -> None:
    variants: list[Any] = [{}, {"missing": 0.2}, {"rows": 20, "noise": 0.1}, {"name": "own", "duplicate_columns": 3}]
    file = write_grid(
        variants=variants, algorithms=["kmeans", {"method": "spectral"}, {"name": "a", "method": "hdbscan"}]
    )
    _, settings = load_experiment(file, data=data)
    assert [variant.name for variant in settings.variants] == ["as it is", "missing 0.2", "rows 20, noise 0.1", "own"]
    assert [algorithm.name for algorithm in settings.algorithms] == ["kmeans", "spectral", "a"]


def test_full_is_merged_by_name_and_lifts_rows(write_grid: Write, data: Path) -> None:
    dataset = {**customers_of(data), "rows": 20}
    full = {"seeds": [1, 2], "encoders": [{"name": "TF-IDF", "encoder": {"name": "tfidf", "min_df": 2}}]}
    file = write_grid(datasets=[dataset], encoders=[TFIDF, {"name": "one-hot", "baseline": "one-hot"}], full=full)
    name, small = load_experiment(file, data=data)
    assert (name, small.seeds, small.datasets[0].rows) == ("small", (0,), 20)
    name, whole = load_experiment(file, data=data, full=True)
    assert (name, whole.seeds, whole.datasets[0].rows) == ("small-full", (1, 2), None)
    assert [arm.name for arm in whole.encoders] == ["TF-IDF", "one-hot"]
    assert whole.encoders[0].encoder.deciding()["min_df"] == 2  # type: ignore[union-attr]


def test_merging() -> None:
    assert merged([{"name": "a", "x": 1}, "b"], [{"name": "b", "y": 2}, {"name": "c"}]) == [
        {"name": "a", "x": 1},
        {"name": "b", "y": 2},
        {"name": "c"},
    ]
    assert merged([1, 2], [3]) == [3]
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"b": None, "c": 2}}


def test_an_algorithm_without_a_method_is_k_means() -> None:
    unnamed = Algorithm.model_validate({"name": "reduced", "reduce": {"method": "pca", "dimensions": 8}})
    assert unnamed.settings(3) == ClusteringSettings.model_validate(
        {"method": "kmeans++", "k": 3, "reduce": {"method": "pca", "dimensions": 8}}
    )
    assert unnamed.settings("auto").choose_by == "silhouette"
    with pytest.raises(ValueError, match=r"clustering\.method kmeans\+\+, the default, does not have; set"):
        Algorithm.model_validate({"name": "ward", "linkage": "ward"})


def test_published_figures_become_rows(write_grid: Write, data: Path) -> None:
    one = {"dataset": "customers", "encoder": "TF-IDF", "algorithm": "kmeans", "ari": 0.4, "silhouette": 0.1}
    _, settings = load_experiment(write_grid(published=[one]), data=data)
    frame = settings.published_figures()
    assert frame is not None
    assert frame.rows() == [
        ("customers", "TF-IDF", "kmeans", "ari", 0.4),
        ("customers", "TF-IDF", "kmeans", "silhouette", 0.1),
    ]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"description": None}, "got no `description`, which is required"),
        ({"algoritms": ["kmeans"]}, "got unknown key `algoritms`, expected one of: description"),
        ({"algorithms": ["kmean"]}, "got `algorithms.0.method` = 'kmean'"),
        ({"algorithms": ["kmeans", "kmeans"]}, "algorithms: got 'kmeans' twice"),
        ({"algorithms": [{"method": "kmeans", "k": 3}]}, "`k` stands beside `algorithms`"),
        (
            {"algorithms": [{"method": "kmeans", "linkage": "ward"}]},
            "`linkage`, which clustering.method kmeans does not",
        ),
        ({"k": [1]}, "got k=1, expected at least 2, `label` or `auto`"),
        ({"k": "some"}, "k.0"),
        ({"seeds": []}, "got `seeds`"),
        ({"encoders": [{"name": "x"}]}, "expected either `encoder` or `baseline`"),
        ({"encoders": [{"encoder": "tfidf"}]}, "got no `encoders.0.name`"),
        ({"encoders": [{"name": "x", "encoder": "bert"}]}, "got encoder 'bert', expected one of: erasmo, causal-lm"),
        ({"encoders": [{"name": "x", "encoder": {"name": "tfidf", "n": 1}}]}, "the encoder tfidf has no option `n`"),
        ({"encoders": [{"name": "x", "baseline": "ohe"}]}, "got baseline 'ohe', expected one of: one-hot, paper"),
        (
            {"encoders": [{"name": "x", "baseline": "one-hot", "options": {"n": 1}}]},
            "`options.n` of the baseline one-hot",
        ),
        ({"encoders": [{"name": "x", "baseline": "one-hot", "order": "random"}]}, "got `order`, which a baseline does"),
        ({"encoders": [{"name": "x", "encoder": "tfidf", "options": {}}]}, "got `options`, which an encoder does not"),
        ({"encoders": [{"name": "x", "encoder": "tfidf", "trained_on": "zoo"}]}, "'zoo', expected one of `datasets`"),
        (
            {"encoders": [{"name": "x", "encoder": "tfidf", "algorithms": "ward"}]},
            "'ward', expected one of `algorithms`",
        ),
        ({"encoders": [{"axes": {"a": {"x": 1}}}]}, "axes: expected axis -> name of a level -> the fields"),
        ({"datasets": [{"name": "a", "label": "kind"}]}, "`label` describes a dataset of the experiment's own"),
        ({"datasets": [{"name": "a", "source": {"path": "x.csv"}}]}, "key"),
        ({"datasets": ["A b"]}, "expected a lowercase letter"),
        ({"datasets": [{"name": "a", "variants": "rows 5"}]}, "'rows 5', expected one of `variants`: as it is"),
        ({"datasets": []}, "got `datasets`"),
        ({"variants": [{"missing": 2}]}, "got `variants.0.missing` = 2"),
        ({"variants": [{"noise": 0.1, "nois": 1}]}, "got unknown key `variants.0.nois`, expected one of: name, rows"),
        ({"published": [{"dataset": "a", "encoder": "b", "algorithm": "c", "arri": 1}]}, "got figure 'arri', expected"),
        ({"full": {"seeds": [-1]}}, "with `full`: got `seeds.0` = -1"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(write_grid: Write, data: Path, fields: dict[str, Any], told: str) -> None:
    file = write_grid(**fields) if fields.get("datasets") != [] else _without_datasets(write_grid)
    with pytest.raises(ErasmoError) as fault:
        load_experiment(file, data=data)
    assert told in str(fault.value)
    assert str(file) in str(fault.value)
    assert "\n" not in str(fault.value)


def _without_datasets(write_grid: Write) -> Path:
    file = write_grid()
    head, _, tail = file.read_text().partition("datasets:")
    file.write_text(f"{head}datasets: []\n{tail[tail.index('encoders:') :]}")
    return file


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", ""])
def test_what_is_no_experiment_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ErasmoError) as fault:
        load_experiment(file)
    assert str(file) in str(fault.value)


def test_the_folder_of_the_data_is_asked_for(write_grid: Write, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA", raising=False)
    file = write_grid()
    with pytest.raises(ErasmoError, match=r"\$\{DATA\} in the path of dataset 'customers'.*--data DIR"):
        load_experiment(file)
    monkeypatch.setenv("DATA", str(data))
    _, settings = load_experiment(file)
    assert settings.datasets[0].source is not None
    assert settings.datasets[0].source.path == str(data / "customers.parquet")


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_experiment("paper-2") in ready_experiments()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper-2").write_text("description: mine\n")
    assert find_experiment("paper-2") == tmp_path / "paper-2"
    with pytest.raises(ErasmoError, match="Got experiment 'nothing', expected a YAML file, or one of: ablation, "):
        find_experiment("nothing")


@pytest.mark.parametrize("file", ready_experiments(), ids=lambda file: file.stem)
@pytest.mark.parametrize("full", [False, True])
def test_what_comes_with_the_package_is_valid(file: Path, full: bool, tmp_path: Path) -> None:
    name, settings = load_experiment(file, full=full, data=tmp_path)
    assert name == file.stem + ("-full" if full else "")
    assert settings.description


def test_a_whole_run_has_its_own_published_figures() -> None:
    small, whole = ready_settings("paper-2"), ready_settings("paper-2-full")
    assert small is not None
    assert whole is not None
    assert {p.dataset for p in whole.published} - {p.dataset for p in small.published} == {"newsgroups"}
    assert ready_settings("of my own") is None
