"""Words and word pairs that free texts of a segment have more of than the rest.

Grootendorst (2022), "BERTopic: Neural topic modeling with a class-based TF-IDF procedure", section 3.3: a term's weight
in a class is its frequency there times log(1 + A / f), where f is its frequency in all classes and A the mean number of
terms of a class. It chooses the candidates; which of them are traits is decided by shares of rows, as for categories.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from erasmo_dagster.method.profiling.prepare import Ints, Membership, TextColumn
from erasmo_dagster.method.profiling.results import Trait
from erasmo_dagster.method.profiling.traits import MOST_A_COLUMN, phi, share_trait

MOST_TERMS = 4  # traits of a column and segment
MOST_FALLBACK = 3
_CANDIDATES = 40
_VOCABULARY = 20_000
_CHARACTERS = (400, 4_000)  # of a text that candidates are looked for in, least and most
_MOST_TEXTS = 8_000
_ALL_CHARACTERS = 5_000_000  # of all texts; the words of a million characters take half a second
_TERM_LENGTH = 40
_WORD = re.compile(r"[^\W\d][\w']*")
# What scikit-learn's list lacks: the parts of contractions.
_CONTRACTED = frozenset(
    (
        *("ain", "aren", "couldn", "didn", "doesn", "don", "hadn", "hasn", "haven", "isn", "mightn", "mustn", "needn"),
        *("shan", "shouldn", "wasn", "weren", "won", "wouldn", "i'm", "i've", "i'd", "i'll", "im", "ive", "let's"),
        *("that's", "there's", "here's", "what's", "who's", "didnt", "dont", "doesnt", "isnt", "wasnt", "cant"),
    )
)


def candidate_terms(
    column: TextColumn, members: Membership, rows: Ints, language: str
) -> tuple[list[list[str]], list[list[str]]]:
    """Per segment the terms to look at, by their correlation with it, and those that are most typical of it.

    Both are taken from the texts of the first of ``rows`` int64[m], which are in random order.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    rows = rows[:_MOST_TEXTS]
    segments = len(members.ids)
    none: list[list[str]] = [[] for _ in range(segments)]
    words = column.words[rows]
    present = ~words.is_null().to_numpy()
    most = min(_CHARACTERS[1], max(_CHARACTERS[0], _ALL_CHARACTERS // max(1, int(present.sum()))))
    texts = words.drop_nulls().str.slice(0, most).to_list()
    codes = members.codes[rows][present]
    stop = stop_words() if language.lower().startswith("en") else frozenset[str]()
    vectorizer = CountVectorizer(analyzer=lambda text: terms_of(text, stop), max_features=_VOCABULARY)
    try:
        counts = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a word
        return none, none
    names = vectorizer.get_feature_names_out()
    holds = (counts > 0).astype(np.int64)
    rows_with = np.asarray(holds.sum(axis=0)).ravel()
    everywhere = np.asarray(counts.sum(axis=0)).ravel().astype(np.float64)
    average = everywhere.sum() / len(np.unique(codes))
    telling, typical = [], []
    for place in range(segments):
        mine = np.flatnonzero(codes == place)
        frequency = np.asarray(counts[mine].sum(axis=0)).ravel().astype(np.float64)
        weight = frequency * np.log1p(average / everywhere)
        both = np.asarray(holds[mine].sum(axis=0)).ravel()
        # The names are sorted, so that a stable sort leaves equals in their order.
        order = [int(i) for i in np.argsort(-weight, kind="stable")[:_CANDIDATES] if weight[i] > 0]
        size = int(np.count_nonzero(members.codes[rows] == place))
        strength = {i: phi(float(both[i]), size, float(rows_with[i]), len(rows)) for i in order}
        best = sorted((i for i in order if strength[i] > 0), key=lambda i: (-strength[i], names[i]))
        telling.append(_apart([str(names[i]) for i in best], 2 * MOST_TERMS))
        often = [i for i in order if both[i] >= min(2, len(mine))]
        typical.append(_apart([str(names[i]) for i in often], MOST_FALLBACK))
    return telling, typical


def term_traits(column: TextColumn, members: Membership, place: int, terms: list[str]) -> list[Trait]:
    """The terms among ``terms`` that are traits of a segment, counted over all rows, strongest first."""
    found = []
    for term in terms:
        trait = share_trait(column, members, place, column.holds(term), kind="term", value=term)
        if trait is not None and trait.strength > 0:
            found.append(trait)
    return sorted(found, key=lambda trait: (-trait.strength, trait.value or ""))[: max(MOST_TERMS, MOST_A_COLUMN)]


def terms_of(text: str, stop: frozenset[str]) -> list[str]:
    """Words and pairs of neighbouring words of a text as :func:`.prepare.words_of` writes it, without stop words."""
    terms, before = [], ""
    for word in text.split():
        if (
            len(word) < 2
            or len(word) > _TERM_LENGTH
            or not _WORD.fullmatch(word)
            or word in stop
            or _clipped(word, stop)
        ):
            before = ""
            continue
        terms.append(word)
        if before and before != word and len(before) + len(word) < _TERM_LENGTH:
            terms.append(f"{before} {word}")
        before = word
    return terms


@cache
def stop_words() -> frozenset[str]:
    """English stop words, contractions among them."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | _CONTRACTED


def _clipped(word: str, stop: frozenset[str]) -> bool:
    """Whether a word with an apostrophe is one of the stop words and a part of another: ``didn't``, ``you're``."""
    head, mark, _ = word.partition("'")
    return bool(mark) and (head in stop or head + "n" in stop)


def _apart(terms: list[str], most: int) -> list[str]:
    """The first terms of which none says a part of another."""
    kept: list[str] = []
    for term in terms:
        if not any(_akin(word, other) for word in term.split() for told in kept for other in told.split()):
            kept.append(term)
        if len(kept) == most:
            break
    return kept


def _akin(word: str, other: str) -> bool:
    """Whether two words are one, or one is the other and an ending: dress and dresses."""
    short, long = sorted((word, other), key=len)
    return word == other or (len(short) >= 4 and len(long) <= len(short) + 3 and long.startswith(short))
