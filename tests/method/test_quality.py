"""Figures of separation and of agreement with a label, and the sentence that reads them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    adjusted_mutual_info_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    f1_score,
    silhouette_score,
)

from erasmo_dagster.method.quality import (
    METRICS,
    PAPER_METRICS,
    external_metrics,
    internal_metrics,
    paper_metrics,
    read_jaccard,
    read_metrics,
    read_stability,
)
from erasmo_dagster.settings.refresh import Figure, GateFigure, GateSettings, LabelFigure

INTERNAL = {
    "silhouette",
    "silhouette_error",
    "silhouette_rows",
    "calinski_harabasz",
    "davies_bouldin",
    "rows",
    "segments",
}
SHARED = {"ari", "nmi", "ami", "homogeneity", "completeness", "v_measure"}
CENTROID = {"accuracy_centroid", "f1_weighted_centroid"}
READ = {"accuracy", "f1_weighted", "f1_macro", "accuracy_majority", "f1_weighted_majority"}
EXTERNAL = SHARED | READ | CENTROID | {"label_rows"}
TABLE = {
    *("separation", "separation_error", "separation_p", "gower_silhouette", "gower_silhouette_error"),
    *("tree_accuracy", "tree_accuracy_error", "tree_baseline"),
}
STABILITY = {
    "stability",
    *(f"stability_{name}" for name in ("error", "split_half", "seeds", "worst_segment", "orders")),
}


def two_groups(rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(rows) % 3 // 2
    vectors = np.random.default_rng(0).normal(size=(rows, 5)) + 3 * labels[:, None]
    return vectors.astype(np.float32), labels


# From the vectors


def test_internal_figures_are_scikit_learns() -> None:
    vectors, labels = two_groups()
    exact = vectors.astype(np.float64)
    figures = internal_metrics(vectors, labels, max_rows=1000, seed=0)
    assert figures == pytest.approx(
        {
            "silhouette": silhouette_score(exact, labels),
            "calinski_harabasz": calinski_harabasz_score(exact, labels),
            "davies_bouldin": davies_bouldin_score(exact, labels),
            "silhouette_error": 0,
            "silhouette_rows": 60,
            "rows": 60,
            "segments": 2,
        },
        rel=1e-5,
    )


def test_a_large_common_mean_loses_no_digits() -> None:
    vectors, labels = two_groups(3000)
    shifted = vectors + np.float32(20_000)
    figures = internal_metrics(shifted, labels, max_rows=500, seed=0)
    exact = internal_metrics(shifted.astype(np.float64) - 20_000, labels, max_rows=500, seed=0)
    assert figures == pytest.approx(exact, rel=1e-4)


def test_a_sample_is_seeded_and_holds_every_segment() -> None:
    vectors, _ = two_groups(2000)
    labels = (np.arange(2000) == 1234).astype(int)  # one row alone, which a sample of 100 would miss
    figures = internal_metrics(vectors, labels, max_rows=100, seed=0)
    assert figures["silhouette_rows"] == 100
    assert figures["rows"] == 2000
    assert figures == internal_metrics(vectors, labels, max_rows=100, seed=0)
    assert figures["silhouette"] != internal_metrics(vectors, labels, max_rows=100, seed=1)["silhouette"]


def test_the_error_of_a_sampled_silhouette_is_how_far_samples_differ() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 4000)
    vectors = (2 * np.eye(5)[labels] + rng.normal(size=(4000, 5))).astype(np.float32)
    drawn = [internal_metrics(vectors, labels, max_rows=200, seed=seed) for seed in range(30)]
    error = np.mean([figures["silhouette_error"] for figures in drawn])
    assert error == pytest.approx(np.std([figures["silhouette"] for figures in drawn]), rel=0.35)
    assert internal_metrics(vectors, labels, max_rows=3900, seed=0)["silhouette_error"] < error / 10


def test_noise_is_left_out() -> None:
    vectors, labels = two_groups()
    noisy = np.concatenate([vectors, np.full((7, 5), 1e4, np.float32)])
    figures = internal_metrics(noisy, np.concatenate([labels, np.full(7, -1)]), max_rows=1000, seed=0)
    assert figures == internal_metrics(vectors, labels, max_rows=1000, seed=0)


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.arange(5), np.full(5, -1), np.array([-1, -1, -1, 0, 1])])
def test_undefined_figures_are_not_there(labels: np.ndarray) -> None:
    figures = internal_metrics(np.eye(5, dtype=np.float32), labels, max_rows=100, seed=0)
    kept = labels[labels >= 0]
    assert figures == {"silhouette_rows": 0, "rows": len(kept), "segments": len(set(kept.tolist()))}


def test_rows_that_are_all_alike_give_finite_figures() -> None:
    figures = internal_metrics(np.ones((6, 2), np.float32), np.arange(6) % 2, max_rows=100, seed=0)
    assert all(math.isfinite(value) for value in figures.values())


# Against a label


def test_more_segments_than_classes_by_hand() -> None:
    figures = external_metrics(np.array([0, 0, 1, 1, 2]), ["a", "a", "b", None, "b"])
    # 0 is matched to a, 1 or 2 to b: three of the four rows with a label; F1 of a is 1, of b 2/3.
    assert figures["label_rows"] == 4
    assert figures["accuracy"] == 3 / 4
    assert figures["f1_weighted"] == pytest.approx((2 * 1 + 2 * 2 / 3) / 4)
    assert figures["homogeneity"] == pytest.approx(1)
    assert figures["ari"] == pytest.approx(4 / 7)  # 1 pair together in both, of 2 by label, 1 by segment, 6 in all


def test_fewer_segments_than_classes_by_hand() -> None:
    figures = external_metrics(np.array([0, 0, 0, 1, 1]), ["a", "a", "b", "c", "c"])
    # 0 is matched to a, 1 to c, b to none: F1 of a is 4/5, of b 0, of c 1.
    assert figures["accuracy"] == 4 / 5
    assert figures["f1_weighted"] == pytest.approx((2 * 4 / 5 + 0 + 2 * 1) / 5)


def test_the_matching_is_the_best_overall_not_the_greediest() -> None:
    # Segment 0 has most rows of a, but giving it b and segment 1 a is right for more rows.
    labels = np.array([0] * 5 + [0] * 4 + [1] * 4)
    truth = ["a"] * 5 + ["b"] * 4 + ["a"] * 4
    assert external_metrics(labels, truth)["accuracy"] == 8 / 13


def test_noise_is_matched_to_no_class() -> None:
    figures = external_metrics(np.array([-1, -1, -1, 0]), ["a", "a", "a", "b"])
    assert figures["accuracy"] == 1 / 4
    assert figures["f1_weighted"] == pytest.approx(1 / 4)
    assert figures["ari"] == 1  # a group of its own there


def test_perfect_agreement() -> None:
    figures = external_metrics(np.array([4, 4, 0, 0, 1]), ["x", "x", "", "", "z"])
    assert figures == dict.fromkeys(EXTERNAL - CENTROID, 1) | {"label_rows": 5}


@pytest.mark.parametrize("truth", [["a"] * 20, [str(i) for i in range(20)], ["a"] + [None] * 19])
def test_labels_that_say_little_give_figures_in_bounds(truth: list[str | None]) -> None:
    figures = external_metrics(np.arange(20) % 3, truth)
    assert all(METRICS[name].low <= value <= METRICS[name].high for name, value in figures.items())


def test_a_label_without_values_measures_nothing() -> None:
    assert external_metrics(np.array([0, 1]), [None, None]) == {"label_rows": 0}


def test_labels_and_truth_are_as_many() -> None:
    with pytest.raises(ValueError, match="got 2 labels and 3"):
        external_metrics(np.array([0, 1]), ["a", "b", "c"])


def test_two_segments_of_one_label_are_read_as_it_by_majority_alone() -> None:
    labels, truth = np.array([0, 0, 1, 1, 2, 2, 2]), ["a", "a", "a", "a", "b", "b", "a"]
    figures = external_metrics(labels, truth)
    # One to one, a is matched to 0 or 1, and the two rows of the other are wrong, as is the last.
    assert figures["accuracy"] == 4 / 7
    assert figures["accuracy_majority"] == 6 / 7
    assert figures["f1_weighted_majority"] == pytest.approx((5 * 8 / 9 + 2 * 4 / 5) / 7)


def test_a_segment_for_every_row_is_perfect_by_majority() -> None:
    figures = external_metrics(np.arange(6), ["a", "a", "a", "b", "b", "b"])
    assert figures["accuracy_majority"] == figures["f1_weighted_majority"] == 1
    assert figures["accuracy"] == 2 / 6


def test_a_tie_of_the_majority_goes_to_the_first_name() -> None:
    assert external_metrics(np.array([0, 0, 1]), ["b", "a", "b"])["accuracy_majority"] == 2 / 3
    assert external_metrics(np.array([0, 0, 0, 0]), ["b", "a", "b", "a"])["f1_weighted_majority"] == pytest.approx(
        1 / 3
    )


def test_the_macro_f1_counts_every_label_alike_and_nothing_else() -> None:
    figures = external_metrics(np.array([0, 0, 0, 1, -1]), ["a", "a", "b", "c", "c"])
    assert figures["f1_macro"] == pytest.approx((4 / 5 + 0 + 2 / 3) / 3)


def test_a_segment_is_read_as_the_label_with_the_nearest_direction() -> None:
    # Segment 1 holds a and b alike; its mean points along b, which is shorter: cosine and not distance.
    vectors = np.array([[10, 0], [10, 0], [0, 4], [0, 4], [0, 1], [0.5, 0]], np.float32)
    labels, truth = np.array([0, 0, 1, 1, 1, 1]), ["a", "a", "a", "a", "b", "b"]
    figures = external_metrics(labels, truth, vectors)
    # a's mean is (5, 2), b's (.25, .5); segment 0's (10, 0) is nearest to a, segment 1's (.125, 2.25) to b.
    assert figures["accuracy_centroid"] == 4 / 6
    assert figures["f1_weighted_centroid"] == pytest.approx(
        f1_score([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1], average="weighted")
    )
    assert figures["accuracy_majority"] == 4 / 6
    assert external_metrics(labels, truth, 7 * vectors) == pytest.approx(figures)


def test_vectors_of_nothing_have_no_direction_and_break_nothing() -> None:
    figures = external_metrics(np.array([0, 0, 1, -1]), ["a", "b", None, "b"], np.zeros((4, 3), np.float32))
    assert figures["accuracy_centroid"] == 1 / 3  # the first name, and noise is wrong


def test_information_beyond_chance_is_scikit_learns() -> None:
    labels, truth = np.arange(30) % 4, ["a", "b", "c"] * 10
    assert external_metrics(labels, truth)["ami"] == adjusted_mutual_info_score(truth, labels)


def test_vectors_are_as_many_as_labels() -> None:
    with pytest.raises(ValueError, match="got 2 labels and 3 vectors"):
        external_metrics(np.array([0, 1]), ["a", "b"], np.eye(3, dtype=np.float32))


# As the first paper's code has it


def test_the_papers_figures_are_of_merged_segments() -> None:
    # Four tight segments; by majority 0 and 1 are a, 2 and 3 are b.
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    vectors = (rng.normal(size=(40, 2), scale=0.1) + np.array([[0, 0], [0, 9], [9, 0], [9, 9]])[labels]).astype(
        np.float32
    )
    truth = ["a"] * 19 + ["b"] * 21
    figures = paper_metrics(vectors, labels, truth, max_rows=100, seed=0)
    merged = labels // 2
    classes = np.array([0] * 19 + [1] * 21)
    exact = vectors.astype(np.float64)
    assert figures == pytest.approx(
        {
            "paper_silhouette": silhouette_score(exact, merged),
            "paper_calinski_harabasz": calinski_harabasz_score(exact, merged),
            "paper_davies_bouldin": davies_bouldin_score(exact, merged),
            "paper_f1_weighted": f1_score(classes, merged, average="weighted"),
            "paper_ari": external_metrics(merged, truth)["ari"],
            "paper_homogeneity": external_metrics(merged, truth)["homogeneity"],
        },
        rel=1e-5,
    )
    honest = internal_metrics(vectors, labels, max_rows=100, seed=0)
    assert figures["paper_silhouette"] < honest["silhouette"] - 0.3
    assert set(figures) == set(PAPER_METRICS)


@pytest.mark.parametrize("truth", [None, [None] * 60])
def test_without_a_label_the_papers_figures_are_of_the_segments_as_they_are(truth: list[None] | None) -> None:
    vectors, labels = two_groups()
    figures = paper_metrics(vectors, labels, truth, max_rows=100, seed=0)
    honest = internal_metrics(vectors, labels, max_rows=100, seed=0)
    assert figures == {f"paper_{name}": honest[name] for name in ("silhouette", "calinski_harabasz", "davies_bouldin")}


def test_segments_that_merge_into_one_have_no_separation_in_the_papers_way() -> None:
    vectors, labels = two_groups()
    figures = paper_metrics(vectors, labels, ["a"] * 59 + ["b"], max_rows=100, seed=0)
    assert set(figures) == {"paper_f1_weighted", "paper_ari", "paper_homogeneity"}


# What a gate may ask


def test_a_gate_knows_every_figure_that_can_be_good_or_bad() -> None:
    assert set(get_args(LabelFigure)) == EXTERNAL - {"label_rows"}
    judged = {name for name, info in METRICS.items() if info.higher_is_better is not None}
    assert set(get_args(GateFigure)) == judged
    assert set(get_args(Figure)) == (judged & (INTERNAL | EXTERNAL)) | {"gower_silhouette"}


def test_the_floors_that_the_page_shows_are_floors() -> None:
    page = (Path(__file__).parents[2] / "docs" / "keep-segments-fresh.md").read_text()
    (shown,) = re.findall(r"^    gate:\n(?:      .*\n)+", page, flags=re.MULTILINE)
    floors = GateSettings.model_validate(yaml.safe_load(shown)["gate"]).floors
    stable = {"stability", "stability_worst_segment"}
    assert set(floors) == {"tree_accuracy", "separation", "separation_p"} | stable
    for name, floor in floors.items():
        assert METRICS[name].low < floor < METRICS[name].high


# How stable


@pytest.mark.parametrize(
    ("jaccard", "reading"),
    [
        (0.0, "not to be trusted"),
        (0.599, "not to be trusted"),
        (0.6, "a pattern whose rows are doubtful"),
        (0.75, "valid"),
        (0.85, "highly stable"),
        (1.0, "highly stable"),
    ],
)
def test_hennigs_reading_of_a_segment(jaccard: float, reading: str) -> None:
    assert read_jaccard(jaccard) == reading


@pytest.mark.parametrize(
    ("agreement", "verdict"), [(1.0, "Stable: "), (0.85, "Mostly"), (0.65, "Stable in part"), (-0.01, "Not stable")]
)
def test_stability_is_read_in_one_sentence(agreement: float, verdict: str) -> None:
    told = read_stability({"stability": agreement, "stability_worst_segment": 0.7, "stability_seeds": 0.95})
    assert told.startswith(verdict)
    assert f"{agreement:.2f}" in told
    assert "the least stable one is a pattern whose rows are doubtful (Jaccard 0.70)" in told
    assert "seed" not in told
    assert told.endswith(".")
    assert told.count(". ") == 0
    assert "the seed decides" in read_stability({"stability": agreement, "stability_seeds": 0.4})


def test_nothing_is_said_of_a_stability_that_is_not_known() -> None:
    assert read_stability({"stability_orders": 1.0, "silhouette": 0.3}) == ""


# Names of segments mean nothing


@settings(deadline=None)
@given(st.data())
def test_renaming_segments_changes_no_figure(data: st.DataObject) -> None:
    rows = data.draw(st.integers(4, 25))
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)))
    truth = data.draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=rows, max_size=rows))
    renamed = np.array(data.draw(st.permutations(range(5))))[labels]
    vectors = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    assert external_metrics(renamed, truth, vectors) == pytest.approx(external_metrics(labels, truth, vectors))
    before = internal_metrics(vectors, labels, max_rows=100, seed=0)
    assert internal_metrics(vectors, renamed, max_rows=100, seed=0) == pytest.approx(before, rel=1e-4)


# How to read them


def test_every_figure_is_described_in_one_line() -> None:
    assert set(METRICS) == INTERNAL | EXTERNAL | TABLE | STABILITY
    for name, info in (METRICS | PAPER_METRICS).items():
        assert info.name == name
        assert info.low < info.high
        assert info.description.endswith(".")
        assert "\n" not in info.description


def test_figures_are_the_described_ones() -> None:
    vectors, labels = two_groups()
    assert set(internal_metrics(vectors, labels, max_rows=100, seed=0)) == INTERNAL
    assert set(external_metrics(labels, ["a", "b"] * 30, vectors)) == EXTERNAL
    assert set(external_metrics(labels, ["a", "b"] * 30)) == EXTERNAL - CENTROID


def figures(silhouette: float, variance_between: float, rows: int = 1000, segments: int = 4) -> dict[str, float]:
    ratio = variance_between / (segments - 1) / ((1 - variance_between) / (rows - segments))
    return {"silhouette": silhouette, "calinski_harabasz": ratio, "rows": rows, "segments": segments, "ari": 0.3}


@pytest.mark.parametrize(
    ("silhouette", "between", "verdict"),
    [
        (0.7, 0.8, "Clear"),
        (0.5, 0.1, "Compact, yet little"),
        (0.3, 0.5, "Visible"),
        (0.25, 0.1, "Visible"),
        (0.1, 0.5, "Separated but loose"),
        (0.1, 0.2, "Hardly grouped"),
        (-0.2, 0.1, "Hardly grouped"),
    ],
)
@pytest.mark.parametrize("rows", [100, 45_211])
def test_the_reading(silhouette: float, between: float, verdict: str, rows: int) -> None:
    sentence = read_metrics(figures(silhouette, between, rows))
    assert sentence.startswith(verdict)
    assert f"silhouette {silhouette:.2f}" in sentence
    assert f"{between:.0%} of the variance" in sentence
    assert "below 0.25" in sentence  # the thresholds are said
    assert "only with others of the same vectors" in sentence
    assert "\n" not in sentence


def test_the_share_of_variance_is_what_it_says() -> None:
    vectors, labels = two_groups()
    measured = internal_metrics(vectors, labels, max_rows=100, seed=0)
    centers = np.stack([vectors[labels == s].mean(axis=0) for s in (0, 1)])
    share = ((centers[labels] - vectors.mean(axis=0)) ** 2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum()
    assert f"{share:.0%} of the variance" in read_metrics(measured)


def test_nothing_to_read_is_said() -> None:
    assert "nothing to read" in read_metrics({"silhouette_rows": 0, "rows": 5, "segments": 1})
