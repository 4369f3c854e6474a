"""Traits as a few words, "long bill" or "Biscoe island": what summaries and names are made of."""

from __future__ import annotations

import re

from erasmo_dagster.method.columns import collapse
from erasmo_dagster.method.profiling.results import Trait
from erasmo_dagster.method.profiling.shown import clean

# Head word of a label -> the words for more and for less of it, which take its place: "bill length" is a "long bill".
_INSTEAD = {
    **dict.fromkeys(("length", "duration"), ("long", "short")),
    "depth": ("deep", "shallow"),
    **dict.fromkeys(("width", "breadth"), ("wide", "narrow")),
    "thickness": ("thick", "thin"),
    **dict.fromkeys(("mass", "weight"), ("heavy", "light")),
    "age": ("older", "younger"),
    "height": ("tall", "short"),
    **dict.fromkeys(("price", "cost"), ("expensive", "cheap")),
    "temperature": ("hot", "cold"),
    "speed": ("fast", "slow"),
    "size": ("large", "small"),
    "hardness": ("hard", "soft"),
    "density": ("dense", "thin"),
}
# The same for words that stay: "long distance".
_BESIDE = {
    "distance": ("long", "short"),
    "time": ("long", "short"),
    **dict.fromkeys(("amount", "quantity", "volume", "area"), ("large", "small")),
    **dict.fromkeys(("year", "date"), ("late", "early")),
}
_COUNTED = ("number", "count", "counts", "num", "no")
_PLURAL_UNITS = ("seconds", "minutes", "hours", "days", "weeks", "months", "years")
# Units that a label ends in, where nobody gave it a better name.
_UNITS = frozenset(
    (
        *("mm", "cm", "m", "km", "metres", "meters", "in", "ft"),
        *("mg", "g", "grams", "kg", "kilograms", "t", "lb", "lbs"),
        *("usd", "eur", "gbp", "pct", "percent", "%", "c", "f", "celsius"),
        *("ms", "s", "sec", "secs", "min", "mins", "h", "hr", "hrs", "years", "yrs"),
    )
)
_YES, _NO = frozenset(("yes", "true")), frozenset(("no", "false"))
_ITSELF = frozenset(("sex", "gender"))  # "male" needs no word after it
_PART_LENGTH = 40


def phrase(trait: Trait, most: int = _PART_LENGTH) -> str:
    """A trait in a few words, of at most ``most`` characters."""
    label = clean(trait.label, most)
    if trait.kind in ("number", "moment"):
        return clean(_graded(label, trait.strength > 0, moment=trait.kind == "moment"), most)
    if trait.kind == "missing":
        return clean(f"{'missing' if trait.strength > 0 else 'known'} {label}", most)
    value = clean(trait.value or "", most)
    if trait.kind == "term":
        return f"“{clean(value, most - 2)}”"
    return clean(_valued(label, value), most)


def _graded(label: str, more: bool, *, moment: bool) -> str:
    words = label.split()
    while len(words) > 1 and words[-1].strip("()[]").lower() in _UNITS:
        words.pop()
    plain, head = " ".join(words), words[-1].lower() if words else ""
    if moment:
        return f"{'late' if more else 'early'} {plain}"
    many = "many" if more else "few"
    if len(words) > 2 and words[0].lower() in _COUNTED and words[1].lower() == "of":
        return f"{many} {' '.join(words[2:])}"
    if len(words) > 1 and words[0].lower() in _PLURAL_UNITS:
        return f"{many} {plain}"
    if head in _COUNTED and len(words) > 1:
        counted = words[:-1]
        return f"{many} {' '.join(counted)}" if counted[-1].lower().endswith("s") else f"{_high(more)} {plain}"
    if head in _INSTEAD and len(words) <= 3 and "of" not in words:
        if head in ("price", "cost") and len(words) > 1:
            return f"{_high(more)} {plain}"  # "unit price": it is not the unit that is expensive
        return collapse(f"{_INSTEAD[head][not more]} {' '.join(words[:-1])}")
    if head in _BESIDE:
        return f"{_BESIDE[head][not more]} {plain}"
    return f"{_high(more)} {plain}"


def _high(more: bool) -> str:
    return "high" if more else "low"


def _valued(label: str, value: str) -> str:
    words = label.split()
    if len(words) > 1 and words[-1].lower() in ("name", "id", "code"):
        label = " ".join(words[:-1])
    low = value.lower()
    if low in _YES:
        return label
    if low in _NO:
        return f"{'not' if re.search('(ed|able|ible|ive|ous|al|ful|less|ic)$', label, re.IGNORECASE) else 'no'} {label}"
    if label.lower() in _ITSELF or _says(value, label):
        return value
    if re.match(r"[^\W\d_]", value):
        return f"{value} {label}"
    return f"{label} {value}"


def _says(value: str, label: str) -> bool:
    """Whether the value has the label in it: "technician job"."""
    return re.search(rf"\b{re.escape(label)}s?\b", value, re.IGNORECASE) is not None


def says_the_same(trait: Trait, other: Trait) -> bool:
    """Whether two values are nearly one word, as where a department and a class are called alike."""
    first, second = (" ".join((of.value or "").casefold().split()) for of in (trait, other))
    if not (first and second) or {first, second} & (_YES | _NO):
        return False
    return first == second or (
        min(len(first), len(second)) >= 4 and (first.startswith(second) or second.startswith(first))
    )
