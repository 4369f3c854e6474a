"""TF-IDF: the words of a text, weighed by how rare they are in the corpus; no model, nothing to download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import TfidfOptions

_DOCUMENT, _ARRAYS = "tfidf.json", "tfidf.safetensors"
_ROWS_AT_ONCE = 10_000


MOST_TERMS = 100_000  # dimensions of a vector in DuckDB


class TfidfEncoder:
    """Term frequency times inverse document frequency of a text's terms (arXiv 2403.15112, section 3.2).

    By scikit-learn: terms are words of two characters or more, in lower case, and vectors without LSA have length 1.
    With ``options.lsa`` the vectors are projected on the corpus's first right singular vectors (latent semantic
    analysis, Deerwester et al., 1990). A text without any known term gets zeros; ``empty`` (bool[n]) tells which ones
    those were in the last call of ``encode``.
    """

    def __init__(
        self,
        options: TfidfOptions,
        terms: Sequence[str],
        idf: npt.NDArray[np.float64],
        components: npt.NDArray[np.float64] | None,
        *,
        normalize: bool = False,
    ) -> None:
        self.options, self.normalize = options, normalize
        self.terms = list(terms)
        self._idf, self._components = idf, components
        self._vectorizer = _vectorizer(options, vocabulary=self.terms)
        self._vectorizer.idf_ = idf
        self.empty = np.zeros(0, dtype=bool)

    @classmethod
    def fit(cls, texts: Sequence[str], options: TfidfOptions, *, seed: int, normalize: bool = False) -> TfidfEncoder:
        """Learn the terms, in alphabetical order, and their weights; ``seed`` is that of the truncated SVD.

        Raises ErasmoError where no term is left, and for more LSA dimensions than rows or terms have.
        """
        vectorizer = _vectorizer(options, min_df=options.min_df, max_df=options.max_df, limit=options.max_features)
        try:
            weights = vectorizer.fit_transform(texts)
        except ValueError as error:  # its words for each way in which no term can be left
            raise ErasmoError(
                f"Got no term for tfidf that is in at least min_df={options.min_df} of {len(texts)} rows and "
                f"in at most max_df={options.max_df:g} of them ({str(error).partition('.')[0]})",
                expected="at least one",
                fix="lower `encoder.min_df`, or give more rows",
            ) from error
        components = None
        if options.lsa is None and weights.shape[1] > MOST_TERMS:
            raise ErasmoError(
                f"Got {weights.shape[1]} terms for tfidf",
                expected=f"at most {MOST_TERMS}, as many numbers as a vector may have",
                fix="set `encoder.max_features`, raise `encoder.min_df`, or set `encoder.lsa`",
            )
        if options.lsa is not None:
            if options.lsa > min(weights.shape):
                raise ErasmoError(
                    f"Got encoder.lsa {options.lsa} for {weights.shape[0]} rows with {weights.shape[1]} terms",
                    expected=f"at most {min(weights.shape)} dimensions",
                    fix="lower `encoder.lsa`, or lower `encoder.min_df` for more terms",
                )
            from sklearn.decomposition import TruncatedSVD

            components = TruncatedSVD(options.lsa, random_state=seed).fit(weights).components_
        return cls(
            options, vectorizer.get_feature_names_out().tolist(), vectorizer.idf_, components, normalize=normalize
        )

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One float32 vector a text: [n, terms], or [n, lsa].

        Raises ErasmoError where they would not fit in memory.
        """
        width = len(self.terms) if self._components is None else len(self._components)
        _check_memory(len(texts), width)
        vectors = np.empty((len(texts), width), dtype=np.float32)
        self.empty = np.zeros(len(texts), dtype=bool)
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            weights = self._vectorizer.transform(texts[part])
            self.empty[part] = np.diff(weights.indptr) == 0
            vectors[part] = weights.toarray() if self._components is None else weights @ self._components.T
        if self.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def save(self, folder: Path) -> None:
        """Write options and terms as JSON, weights as safetensors, into ``folder``."""
        from safetensors.numpy import save_file

        arrays = {"idf": self._idf} | ({} if self._components is None else {"components": self._components})
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / _ARRAYS)
        document = {"options": self.options.model_dump(mode="json"), "terms": self.terms}
        (folder / _DOCUMENT).write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, normalize: bool = False) -> TfidfEncoder:
        """The encoder that was saved in ``folder``; it gives the same vectors, to the bit."""
        from safetensors.numpy import load_file

        document, arrays = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8")), load_file(folder / _ARRAYS)
        options = TfidfOptions.model_validate(document["options"])
        return cls(options, document["terms"], arrays["idf"], arrays.get("components"), normalize=normalize)


def _vectorizer(
    options: TfidfOptions,
    *,
    min_df: int = 1,
    max_df: float = 1.0,
    limit: int | None = None,
    vocabulary: Sequence[str] | None = None,
) -> Any:
    """The same analysis of texts for fitting, which looks for terms, and afterwards, when they are known."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, options.ngrams),
        stop_words=options.stop_words,
        sublinear_tf=options.sublinear,
        min_df=min_df,
        max_df=max_df,
        max_features=limit,
        vocabulary=vocabulary,
    )


def _check_memory(rows: int, width: int) -> None:
    import psutil

    needed, free = 4 * rows * width, psutil.virtual_memory().available
    if 2 * needed > free:  # what follows holds them twice for a while
        raise ErasmoError(
            f"Got {rows} rows by {width} terms for tfidf, which need about {2 * needed / 2**30:.1f} GiB",
            expected=f"at most the {free / 2**30:.1f} GiB of memory that are free",
            fix="set `encoder.lsa` to some hundred dimensions, or lower `encoder.max_features`",
        )
