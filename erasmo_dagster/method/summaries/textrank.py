"""TextRank: the sentences of a text that are most like the others (Mihalcea and Tarau, EMNLP 2004, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from erasmo_dagster.method.summaries.base import identity_of
from erasmo_dagster.method.summaries.sentences import join_sentences, split_sentences, words

MOST_SENTENCES = 500  # of a text that are compared: their pairs grow with the square
_VERSION = 1  # raised where other sentences are chosen
_DAMPING = 0.85  # section 2
_DIGITS = 6  # of a score relative to the mean one: below is rounding, and a tie


def textrank(text: str, sentences: int) -> str:
    """The ``sentences`` best sentences of a text in their own order; the text itself where it has no more.

    A graph of sentences, joined by how alike they are, is ranked by PageRank; ties go to the earlier sentence. They
    are alike by the cosine of TF-IDF vectors, where the paper takes common words by the logarithms of the lengths. Of
    a text of more than 500 sentences the first 500 are ranked. The summary is never longer than the text.
    """
    split = split_sentences(text)
    if len(split) <= sentences:
        return text
    scores = _scores(split[:MOST_SENTENCES])
    best = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:sentences]
    return join_sentences([split[at] for at in sorted(best)])


class TextRankSummarizer:
    """Summaries of a text's own sentences; the same text has the same one on every machine."""

    chunk = 256

    def __init__(self, sentences: int) -> None:
        self.sentences = sentences
        self.fallbacks = 0

    @property
    def identity(self) -> str:
        """A digest of the number of sentences and of how they are chosen."""
        return identity_of(by="textrank", sentences=self.sentences, version=_VERSION)

    def summarize(self, texts: Sequence[str]) -> list[str]:
        """One summary a text."""
        return [textrank(text, self.sentences) for text in texts]


def _scores(sentences: Sequence[str]) -> list[float]:
    """PageRank of every sentence, relative to the mean."""
    import networkx
    from sklearn.feature_extraction.text import TfidfVectorizer

    tokens = [words(sentence) for sentence in sentences]
    if not any(tokens):
        return [1.0] * len(sentences)
    vectors = TfidfVectorizer(analyzer=_as_they_are, sublinear_tf=True).fit_transform(tokens)
    alike = (vectors @ vectors.T).tolil()
    alike.setdiag(0)
    graph = networkx.from_scipy_sparse_array(alike.tocsr())
    ranks = networkx.pagerank(graph, alpha=_DAMPING, max_iter=500, tol=1e-10)
    return [round(ranks[at] * len(sentences), _DIGITS) for at in range(len(sentences))]


def _as_they_are(tokens: list[str]) -> list[str]:
    return tokens
