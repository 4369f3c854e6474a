"""TF-IDF: scikit-learn's numbers, from arrays that were saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.encoders import Encoder, FittedEncoder
from erasmo_dagster.method.encoders.tfidf import TfidfEncoder
from erasmo_dagster.settings import TfidfOptions

JOBS = ("Technician", "retired", "student of 𝐀lgebra", "élève")
TEXTS = [
    f"age is {20 + i % 7}, job is {JOBS[i % 4]}, note is {'likes short calls' if i % 3 else 'writes letters'}"
    for i in range(60)
]
NEW = ["age is 21, job is retired", "🙂", "", "note is writes, calls and unheard-of words"]


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"min_df": 1, "ngrams": 2, "max_features": 20},
        {"max_df": 0.5, "stop_words": "english", "sublinear": True},
    ],
)
def test_the_numbers_are_scikit_learns(own: dict[str, object]) -> None:
    options = TfidfOptions.model_validate(own)
    theirs = TfidfVectorizer(
        min_df=options.min_df,
        max_df=options.max_df,
        max_features=options.max_features,
        ngram_range=(1, options.ngrams),
        stop_words=options.stop_words,
        sublinear_tf=options.sublinear,
    )
    expected = theirs.fit_transform(TEXTS).toarray().astype(np.float32)
    encoder = TfidfEncoder.fit(TEXTS, options, seed=0)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, expected)
    assert encoder.terms == sorted(encoder.terms) == theirs.get_feature_names_out().tolist()
    assert np.array_equal(encoder.encode(NEW), theirs.transform(NEW).toarray().astype(np.float32))


@pytest.mark.parametrize("lsa", [None, 3])
@pytest.mark.parametrize("normalize", [False, True])
def test_what_was_saved_gives_the_same_bits(lsa: int | None, normalize: bool, tmp_path: Path) -> None:
    encoder = TfidfEncoder.fit(TEXTS, TfidfOptions(lsa=lsa, ngrams=2), seed=7, normalize=normalize)
    encoder.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tfidf.json", "tfidf.safetensors"]
    loaded = TfidfEncoder.load(tmp_path, normalize=normalize)
    for texts in (TEXTS, NEW):
        assert encoder.encode(texts).tobytes() == loaded.encode(texts).tobytes()
    assert loaded.options == encoder.options
    again = TfidfEncoder.fit(TEXTS, TfidfOptions(lsa=lsa, ngrams=2), seed=7, normalize=normalize)
    assert again.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_lsa_is_the_truncated_svd_of_the_weights() -> None:
    encoder = TfidfEncoder.fit(TEXTS, TfidfOptions(lsa=3), seed=7)
    weights = TfidfVectorizer(min_df=5).fit_transform(TEXTS)
    expected = TruncatedSVD(3, random_state=7).fit(weights).transform(weights)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (60, 3)
    assert np.allclose(vectors, expected, atol=1e-6)
    scaled = TfidfEncoder.fit(TEXTS, TfidfOptions(lsa=3), seed=7, normalize=True).encode(TEXTS)
    assert np.allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("lsa", [None, 2])
def test_a_text_without_a_known_term_is_zeros_and_told_of(lsa: int | None) -> None:
    encoder = TfidfEncoder.fit(TEXTS, TfidfOptions(lsa=lsa), seed=0, normalize=True)
    vectors = encoder.encode(NEW)
    assert encoder.empty.tolist() == [False, True, True, False]
    assert np.array_equal(np.abs(vectors).sum(axis=1) == 0, encoder.empty)
    assert encoder.encode([]).shape == (0, vectors.shape[1])


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (TfidfOptions(min_df=5), TEXTS[:4]),
        (TfidfOptions(min_df=5), [f"word{i}" for i in range(30)]),
        (TfidfOptions(min_df=50, max_df=0.1), TEXTS),
        (TfidfOptions(min_df=1, stop_words="english"), ["the and", "of"]),
        (TfidfOptions(min_df=1), ["", "?"]),
    ],
)
def test_no_term_left_is_one_clear_line(options: TfidfOptions, texts: list[str]) -> None:
    with pytest.raises(ErasmoError, match=rf"min_df={options.min_df} of {len(texts)} rows") as caught:
        TfidfEncoder.fit(texts, options, seed=0)
    assert "\n" not in str(caught.value)


def test_more_dimensions_than_terms_are_refused() -> None:
    with pytest.raises(ErasmoError, match=r"encoder\.lsa 500 for 60 rows with \d+ terms, expected at most \d+"):
        TfidfEncoder.fit(TEXTS, TfidfOptions(lsa=500), seed=0)


def test_what_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TfidfEncoder.fit(TEXTS, TfidfOptions(), seed=0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(ErasmoError, match=r"60 rows by \d+ .*encoder\.lsa"):
        encoder.encode(TEXTS)


def test_it_is_an_encoder_that_learns() -> None:
    encoder = TfidfEncoder.fit(TEXTS, TfidfOptions(), seed=0)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, FittedEncoder)


def test_more_terms_than_a_vector_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasmo_dagster.method.encoders.tfidf.MOST_TERMS", 3)
    texts = ["one two three four", "five six"]
    with pytest.raises(ErasmoError, match="Got 6 terms for tfidf, expected at most 3"):
        TfidfEncoder.fit(texts, TfidfOptions(min_df=1, max_features=None), seed=0)
    assert TfidfEncoder.fit(texts, TfidfOptions(min_df=1, lsa=2), seed=0).encode(texts).shape == (2, 2)
