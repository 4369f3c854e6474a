"""Sentences by rules: no model and no data to fetch.

A sentence ends at ``.``, ``!``, ``?`` or ``…`` with its closing quotes and brackets, where white space follows and the
next word does not begin in lower case; at ``。``, ``！``, ``？`` and the like wherever they are; at a blank line,
before a bullet, and at the end of a line too short to have been wrapped. A single ``.`` ends none after a title
(``Dr.``), an initial (``J.``), an abbreviation, the number of an item (``3.``), and within a number.
"""

from __future__ import annotations

import re

# Scripts without spaces between words: kana, Han.
_NO_SPACES = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}](?:[^\W{_NO_SPACES}]|['’.,-](?=\w))*")
_CLOSING = "\"'”’»)\\]}」』）】"
_OPENING = "\"'“‘«([{「『（【¿¡-–—*"
_END = re.compile(rf"(?:[.!?…]+[{_CLOSING}]*(?=\s)|[。！？｡．؟।]+[{_CLOSING}]*)")
_BULLET = re.compile(r"[ \t]*(?:[-*+•‣▪◦–—]|\(?(?:\d{1,3}|[A-Za-z])[.)])[ \t]+\S")
_NEAR = 40  # characters around a full stop that are looked at
_WRAPPED = 50  # characters from which on a line may have been wrapped, its sentence going on in the next
_TITLES = """
mr mrs ms dr prof rev hon st mt ft gen sen rep gov capt lt col sgt maj cmdr pres messrs mme mlle hr fr sra
"""
_SHORT = """
e.g i.e eg ie cf vs viz al fig figs eq no nos nr vol vols pp p ch sec ed eds est approx ca resp incl max min tel
jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun dept univ assn bros ave blvd rd
bzw z.b d.h u.a vgl evtl str abs p.ex art núm
"""
_NEVER_LAST = frozenset((_TITLES + _SHORT).split())
# These end a sentence as often as not: they do where no lower case follows.
_MAY_BE_LAST = frozenset({"a.m", "p.m"})


def count_words(text: str) -> int:
    """Words of a text; in scripts without spaces each character counts as one."""
    return sum(1 for _ in _WORD.finditer(text))


def words(text: str) -> list[str]:
    """The words of a text in lower case, as ``count_words`` counts them."""
    return _WORD.findall(text.lower())


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in their order. Beside white space at their ends nothing is lost."""
    return [sentence for block in _blocks(text) for sentence in _split_block(block)]


def join_sentences(sentences: list[str]) -> str:
    """Sentences as one text: a space between them, but none after a full stop of a script without spaces."""
    joined = ""
    for sentence in sentences:
        spaced = joined and not re.search(rf"[。！？｡．][{_CLOSING}]*$", joined)
        joined += (" " if spaced else "") + sentence
    return joined


def _blocks(text: str) -> list[str]:
    """Stretches that no sentence crosses: paragraphs, items of lists, short lines."""
    blocks: list[list[str]] = [[]]
    before = ""
    for line in text.splitlines():
        stripped = line.strip()
        goes_on = len(before) >= _WRAPPED or stripped[:1].islower()
        if not stripped or not before or _BULLET.match(line) or not goes_on:
            blocks.append([])
        if stripped:
            blocks[-1].append(line)
        before = stripped
    return ["\n".join(block).strip() for block in blocks if block]


def _split_block(block: str) -> list[str]:
    sentences, start = [], 0
    for end in _END.finditer(block):
        if _ends(block, start, end):
            sentences.append(block[start : end.end()].strip())
            start = end.end()
    sentences.append(block[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(block: str, start: int, end: re.Match[str]) -> bool:
    """Whether what looks like the end of a sentence is one."""
    following = block[end.end() : end.end() + _NEAR].lstrip().lstrip(_OPENING).lstrip()
    if following[:1].islower():
        return False
    if end[0].rstrip("\"'”’»)]}") != ".":
        return True
    near = max(start, end.start() - _NEAR)
    before = block[near : end.start()]
    if not (word := re.search(r"[^\s\"'“‘«(\[{]+$", before)):
        return True
    last = word[0]
    if near == start and before.strip() == last and re.fullmatch(r"\d{1,3}|[A-Za-z]", last):
        return False  # the number of an item
    if re.fullmatch(r"[^\W\d_]", last) and last.isupper() and last != "I":
        return False  # an initial
    if re.fullmatch(r"(?:[^\W\d_]\.)+[^\W\d_]", last):
        return last.lower() in _MAY_BE_LAST  # U.S., e.g.
    return last.lower() not in _NEVER_LAST
