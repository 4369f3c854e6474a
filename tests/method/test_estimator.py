"""The scikit-learn estimator: the same functions, and scikit-learn's own checks."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import Erasmo
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.kinds import fit_encoder, identify, open_encoder
from erasmo_dagster.method.textual import fit_text, write_clauses
from erasmo_dagster.settings import DatasetSettings
from tests.conftest import customers

TFIDF = {"name": "tfidf", "min_df": 1}
TEXTS = [
    "the cat sat on the mat",
    "a cat and a kitten",
    "kitten or cat",
    "stocks fell today",
    "stocks rose",
    "no stocks",
]


def people(rows: int = 45) -> pl.DataFrame:
    return customers(rows).drop("id", "email", "kind")


def words(**parameters: Any) -> Erasmo:
    """k-means of the rows' words, so that no sentence encoder reads the columns of text."""
    return Erasmo(**{"encoder": TFIDF, "n_clusters": 3, "algorithm": "kmeans++", **parameters})


# scikit-learn's own checks

ONE_SEGMENT = "it asks for one segment (n_clusters=1), which is no grouping and refused; see the test of the same below"
NOT_FOR_SEGMENTS = {
    "check_fit2d_1feature": ONE_SEGMENT,
    "check_fit2d_predict1d": ONE_SEGMENT,
    "check_dont_overwrite_parameters": ONE_SEGMENT,
    "check_methods_subset_invariance": ONE_SEGMENT,
}
# The checks hold numbers alone. In words, whole and by pairs of words, near numbers share terms, as the check of the
# segments' agreement with blobs asks for.
NUMBERS = Erasmo({**TFIDF, "ngrams": 2}, n_clusters=2, verbalize=True, text={"decimals": 0})


@parametrize_with_checks([NUMBERS], expected_failed_checks=lambda _: NOT_FOR_SEGMENTS)
def test_scikit_learns_checks(estimator: Erasmo, check: Any) -> None:
    try:
        check(estimator)
    except SkipTest as reason:  # of arrays on other devices: none comes near, since rows become text
        if "SCIPY_ARRAY_API" not in str(reason):
            raise


def table_of_numbers(columns: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, size=(30, columns))


def test_one_column_is_enough() -> None:
    assert clone(NUMBERS).fit(table_of_numbers(1)).n_features_in_ == 1


def test_a_row_alone_is_no_table() -> None:
    fitted = clone(NUMBERS).fit(table_of_numbers())
    for method in (fitted.predict, fitted.transform):
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
            method(table_of_numbers()[0])


def test_fitting_changes_no_parameter_and_adds_only_attributes_of_the_fit() -> None:
    estimator = clone(NUMBERS)
    before = copy.deepcopy(vars(estimator))
    estimator.fit(table_of_numbers())
    assert {name: vars(estimator)[name] for name in before} == before
    assert all(name.startswith("_") or name.endswith("_") for name in set(vars(estimator)) - set(before))


def test_a_rows_answer_does_not_depend_on_the_rows_beside_it() -> None:
    rows = table_of_numbers()
    fitted = clone(NUMBERS).fit(rows[:20])
    vectors = np.concatenate([fitted.transform(row[None]) for row in rows])
    np.testing.assert_array_equal(fitted.transform(rows), vectors)
    np.testing.assert_array_equal(fitted.predict(rows), np.concatenate([fitted.predict(row[None]) for row in rows]))


# The same as the functions


def test_the_functions_give_the_same(tmp_path: Path) -> None:
    frame = people()
    settings = DatasetSettings.model_validate(
        {
            "source": {"path": "-"},
            "key": "none",
            "encoder": TFIDF,
            "clustering": {"method": "kmeans++", "k": 3},
            "seed": 7,
        }
    )
    plan = fit_text(frame, settings)
    rows = write_clauses(frame, plan).to_list()
    about = identify(settings, tmp_path)
    fit_encoder(
        rows,
        plan,
        settings,
        about,
        models_dir=tmp_path,
        out=tmp_path / "learnt",
        checkpoints=tmp_path / "checkpoints",
        provenance={},
    )
    encoder = open_encoder(about, settings, tmp_path / "learnt", tmp_path)
    vectors = embed_rows(rows, encoder, settings.embedding, seed=7).vectors
    labels = cluster(vectors, settings.clustering, seed=7).labels
    estimator = words(random_state=7)
    np.testing.assert_array_equal(estimator.fit_transform(frame), vectors)
    np.testing.assert_array_equal(estimator.labels_, labels)
    assert estimator.plan_ == plan
    assert estimator.settings_.clustering == settings.clustering


def tuned(model: Path, **parameters: Any) -> Erasmo:
    adapter = {"batch_size": 4, "eval_every": 5, "device": "cpu"}
    options = {"algorithm": "kmeans++", "n_clusters": 3, "adapter": adapter, "random_state": 3, **parameters}
    return Erasmo(base_model=f"path:{model}", max_tokens=300, **options)


def test_a_fine_tuned_model_is_learnt_used_and_copied(tiny_model: Path) -> None:
    frame = people()
    estimator = tuned(tiny_model)
    vectors = estimator.fit_transform(frame)
    assert vectors.shape == (45, 32)
    assert vectors.dtype == np.float32
    assert estimator.encoder_["training"]["tokens"] >= 300
    np.testing.assert_array_equal(estimator.predict(frame), estimator.labels_)
    np.testing.assert_array_equal(tuned(tiny_model).fit_transform(frame), vectors)
    other = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(other.transform(frame), estimator.transform(frame))
    untuned = words(encoder={"name": "causal-lm", "model": f"path:{tiny_model}"}).fit_transform(frame)
    assert np.abs(untuned - vectors).max() > 1e-3


# Tables


def test_segments_tell_the_planted_groups_apart() -> None:
    frame = people()
    labels = words().fit_predict(frame)
    assert len({(job, label) for job, label in zip(frame["job"], labels.tolist(), strict=True)}) == 3


def test_frames_of_polars_and_pandas_and_arrays_of_their_values_are_one_table() -> None:
    frame = people()
    pandas = pd.DataFrame(frame.to_dict(as_series=False))
    of_polars, of_pandas = words().fit(frame), words().fit(pandas)
    assert of_polars.feature_names_in_.tolist() == of_pandas.feature_names_in_.tolist() == frame.columns
    np.testing.assert_array_equal(of_polars.transform(frame), of_pandas.transform(pandas))
    np.testing.assert_array_equal(of_polars.transform(frame), of_polars.transform(frame.lazy()))
    by_name = {f"x{i}": {"name": name} for i, name in enumerate(frame.columns)}
    for table in (frame.rows(), [list(row) for row in frame.rows()], np.array(frame.rows(), dtype=object)):
        of_rows = words(columns=by_name).fit(table)
        assert not hasattr(of_rows, "feature_names_in_")
        assert of_rows.n_features_in_ == 3
        np.testing.assert_array_equal(of_rows.labels_, of_polars.labels_)


def test_types_of_an_arrays_columns_are_those_of_its_values() -> None:
    rows = [[1, "a", True, None], [2, "b", False, float("nan")], [3, "a", True, 0.5], [4, "b", False, {"deep": [1]}]]
    kinds = {column.name: column.kind for column in words(n_clusters=2).fit(rows).plan_.columns}
    assert kinds == {"x0": "number", "x1": "category", "x2": "boolean", "x3": "nested"}


@pytest.mark.parametrize(
    "texts",
    [TEXTS, tuple(TEXTS), np.array(TEXTS), pl.Series(TEXTS), pd.Series(TEXTS), pl.DataFrame({"text": TEXTS})],
    ids=lambda texts: type(texts).__name__,
)
def test_strings_are_plain_text(texts: Any) -> None:
    estimator = words(n_clusters=2).fit(texts)
    assert estimator.n_features_in_ == 1
    assert estimator.labels_[:3].tolist() == [estimator.labels_[0]] * 3
    assert estimator.labels_[3:].tolist() == [1 - estimator.labels_[0]] * 3
    terms = estimator.fit_transform(texts).shape[1]
    assert terms == len({word for text in TEXTS for word in text.split() if len(word) > 1})  # and no name of a column


def test_new_texts_go_where_their_words_are() -> None:
    estimator = words(n_clusters=2).fit(TEXTS)
    assert estimator.predict(["stocks went down", "a cat"]).tolist() == estimator.labels_[[3, 0]].tolist()


def test_a_missing_text_is_a_text() -> None:
    assert words(n_clusters=2).fit([*TEXTS, None]).labels_.shape == (7,)


def test_summaries_take_the_place_of_long_texts() -> None:
    long = [" ".join(f"{text} and so on." for _ in range(3)) + " Nothing else matters here." for text in TEXTS]
    settings = {"summarize": {"by": "textrank", "sentences": 1, "longer_than": 5}}
    estimator = words(n_clusters=2, text=settings)
    assert estimator.fit_transform(long).shape[1] < words(n_clusters=2).fit_transform(long).shape[1]
    np.testing.assert_array_equal(estimator.predict(long), estimator.labels_)


def test_new_rows_go_where_a_refresh_puts_them() -> None:
    frame = people(60)
    for algorithm in ("kmeans++", "agglomerative"):
        estimator = words(algorithm=algorithm).fit(frame[:45])
        np.testing.assert_array_equal(estimator.predict(frame[:45]), estimator.labels_)
        new = estimator.predict(frame[45:])
        np.testing.assert_array_equal(new, estimator.labels_[:15])  # the planted groups go in turns
        placed = estimator.clustering_.model.place(estimator.transform(frame[45:])).labels
        np.testing.assert_array_equal(placed, new)


def test_noise_is_minus_one_and_no_segment() -> None:
    frame = pl.concat([people(), people()[:1].with_columns(job=pl.lit("astronaut"), note=pl.lit("is on the moon"))])
    estimator = Erasmo(TFIDF, algorithm="hdbscan", clustering={"min_cluster_size": 5}).fit(frame)
    assert estimator.labels_[-1] == -1
    assert estimator.n_clusters_ == len(estimator.cluster_centers_) == estimator.labels_.max() + 1
    np.testing.assert_array_equal(estimator.predict(frame), estimator.labels_)


def test_rows_that_read_as_the_trainings_keep_their_segments_though_a_centre_is_nearer() -> None:
    estimator = words(n_clusters=2, algorithm="agglomerative", clustering={"linkage": "complete"}).fit(people())
    moved = {text: 1 - segment for text, segment in estimator._segment_of_text.items()}
    estimator._segment_of_text = moved
    np.testing.assert_array_equal(estimator.predict(people()), 1 - estimator.labels_)


# As scikit-learn's others


def test_parameters_are_got_set_and_cloned() -> None:
    estimator = words(algorithm="agglomerative", clustering={"linkage": "average"}, random_state=5)
    other = clone(estimator)
    assert other.get_params() == estimator.get_params()
    assert not hasattr(other, "labels_")
    assert other.set_params(n_clusters="auto").fit(people()).clustering_.sweep
    for grid in ParameterGrid({"algorithm": ["kmeans", "spectral"], "n_clusters": [2, 3]}):
        assert clone(estimator).set_params(clustering=None, **grid).fit(people()).n_clusters_ == grid["n_clusters"]


def test_a_pipeline_may_go_on_from_the_vectors() -> None:
    frame = people()
    pipeline = make_pipeline(words(), StandardScaler(), KMeans(3, n_init=3, random_state=0))
    labels = pipeline.fit_predict(frame)
    np.testing.assert_array_equal(pipeline.predict(frame), labels)
    assert len(set(labels.tolist())) == 3
    assert pipeline[0].get_feature_names_out()[:2].tolist() == ["erasmo0", "erasmo1"]


@pytest.mark.parametrize(("output", "kind"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_vectors_come_as_a_frame_where_that_is_asked_for(output: str, kind: Any) -> None:
    estimator = words().set_output(transform=output)
    for frame in (estimator.fit_transform(people()), estimator.transform(people())):
        assert isinstance(frame, kind)
        assert list(frame.columns) == estimator.get_feature_names_out().tolist()
        np.testing.assert_array_equal(frame.to_numpy(), clone(words()).fit(people()).transform(people()))


def test_a_second_fit_forgets_the_first() -> None:
    estimator = words().fit(people())
    estimator.fit(TEXTS)
    assert estimator.n_features_in_ == 1
    assert not hasattr(estimator, "feature_names_in_")
    assert estimator.labels_.shape == (6,)


def test_a_fit_that_fails_leaves_what_was_learnt_as_it_was() -> None:
    estimator = words().fit(people())
    vectors = estimator.transform(people())
    with pytest.raises(ErasmoError, match="whose values differ"):
        estimator.fit(people().with_columns(pl.lit(1).alias(name) for name in people().columns))
    np.testing.assert_array_equal(estimator.transform(people()), vectors)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "pickle"])
def test_copies_have_what_was_learnt_in_a_folder_of_their_own(copied: Any) -> None:
    estimator = words().fit(people())
    other = copied(estimator)
    mine, its = (Path(e._reader._folder) for e in (estimator, other))
    assert mine != its
    expected = estimator.predict(people())
    del estimator
    gc.collect()
    assert not mine.parent.exists()
    np.testing.assert_array_equal(other.predict(people()), expected)
    np.testing.assert_array_equal(other.labels_, expected)
    del other
    gc.collect()
    assert not its.parent.exists()


def test_seeds_are_numbers_generators_or_chance() -> None:
    seeds = [words(random_state=seed)._settings(people()).seed for seed in (4, np.int64(4), None, None)]
    assert seeds[:2] == [4, 4]
    assert seeds[2] != seeds[3]
    states = [words(random_state=np.random.RandomState(1))._settings(people()).seed for _ in range(2)]
    assert states[0] == states[1]


def test_centres_are_the_means_of_the_segments_vectors() -> None:
    estimator = words()
    vectors = estimator.fit_transform(people())
    for segment, center in enumerate(estimator.cluster_centers_):
        np.testing.assert_allclose(center, vectors[estimator.labels_ == segment].mean(axis=0), rtol=1e-6)


def test_models_are_in_the_home_or_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert words()._models() == Path.home() / ".cache" / "erasmo" / "models"
    monkeypatch.setenv("ERASMO_HOME", str(tmp_path))
    assert words()._models() == tmp_path / "models"
    assert words(models_dir=tmp_path / "own")._models() == tmp_path / "own"


# Bad input, in one line


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"encoder": "tfid"}, "expected one of: erasmo, causal-lm, tfidf"),
        ({"encoder": {"name": "tfidf", "pooling": "mean"}}, "encoder tfidf has no option `pooling`"),
        ({"encoder": 3}, "expected an encoder's name"),
        ({"n_clusters": 1}, "k=1, expected at least 2"),
        ({"n_clusters": 45}, "Got 45 rows for clustering.k=45"),
        ({"n_clusters": "many"}, "Got n_clusters"),
        ({"algorithm": "kmens"}, "Got algorithm='kmens'"),
        ({"base_model": "path:x"}, "`adapter` is read by the encoder erasmo alone"),
        ({"embedding": {"pooling": "last"}}, "does not heed `embedding.pooling`"),
        ({"clustering": {"k": 3}}, "Got clustering with k, .* set n_clusters"),
        ({"text": {"verbalize": True}}, "set verbalize"),
        ({"algorithm": "auto", "clustering": {"scale": "standard"}}, "got `scale`, which algorithm auto, the default"),
        ({"clustering": {"n_int": 3}}, "Got clustering.n_int, which is no option"),
        ({"columns": {"shoe": {"name": "size"}}}, "'shoe', which the table lacks"),
        ({"random_state": -1}, "Got seed=-1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(parameters: dict[str, Any], message: str) -> None:
    estimator = words().set_params(**parameters)
    with pytest.raises(ErasmoError, match=message) as caught:
        estimator.fit(people())
    assert "\n" not in str(caught.value)


def test_before_the_fit_nothing_is_known() -> None:
    for method in (words().predict, words().transform):
        with pytest.raises(NotFittedError):
            method(people())


def test_another_table_than_that_of_the_fit_is_refused() -> None:
    estimator = words().fit(people())
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(people().rename({"job": "work"}))
    for table in (people()[:1], people()[:1].rows(), [TEXTS[0]]):
        with pytest.raises(ValueError, match=r"1 sample\(s\) while a minimum of 2"):
            words().fit(table)
    with pytest.raises(ValueError, match=r"0 sample\(s\) while a minimum of 1"):
        estimator.transform(people()[:0])


def test_importing_the_method_does_not_load_scikit_learn() -> None:
    code = (
        "import sys, erasmo_dagster.method as method\n"
        "assert 'sklearn' not in sys.modules\n"
        "assert 'Erasmo' in method.__all__ and not hasattr(method, 'Erasmus')\n"
        "from erasmo_dagster.method import Erasmo; Erasmo()\n"
        "print(sorted({'torch', 'transformers', 'dagster', 'duckdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
