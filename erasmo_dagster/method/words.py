"""The boundary to num2words: what it can say in each language, and what to do where it cannot.

Only whole numbers from 0 up are asked of it. Its own negatives and decimals differ in quality from
language to language (release 0.5.14 says -0.5 as "zero point five" in English and fails for -1 in
Polish), so signs, decimals and powers are put together here, the same way for all languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from erasmo_dagster.errors import ErasmoError

# Whole numbers from here on are said in scientific form. Below this bound num2words 0.5.14 gives two
# numbers one text in four languages, and in Amharic it may never return: they get bounds of their
# own. Where it raises an exception, no bound is needed.
WORD_LIMIT = 10**33
_LOWER_LIMITS = {"am": 10**3, "ce": 10**18, "fa": 10**18, "tr": 10**15, "vi": 10**15}

# Languages that say one currency only, through a float, so exact to the cent below the given bound.
_OWN_CURRENCY = {"pt_BR": ("BRL", 10**13)}

# Words that num2words lacks, or has only as a placeholder such as "(-)".
_MINUS = {"ar": "سالب", "bn": "ঋণাত্মক", "cy": "meinws", "fa": "منفی", "id": "min", "it": "meno", "vi": "âm"}
_POINT = {
    "ar": "فاصلة",
    "bn": "দশমিক",
    "cy": "pwynt",
    "fa": "ممیز",
    "id": "koma",
    "it": "virgola",
    "ja": "点",
    "ru": "запятая",
    "vi": "phẩy",
}
_POWER = {
    "de": "mal zehn hoch",
    "en": "times ten to the power of",
    "es": "por diez elevado a",
    "fr": "fois dix puissance",
    "it": "per dieci alla",
    "pt": "vezes dez elevado a",
}
_PERCENT = {
    "cs": "procent",
    "da": "procent",
    "de": "Prozent",
    "en": "percent",
    "es": "por ciento",
    "fi": "prosenttia",
    "fr": "pour cent",
    "it": "per cento",
    "ja": "パーセント",
    "ko": "퍼센트",
    "nl": "procent",
    "no": "prosent",
    "pl": "procent",
    "pt": "por cento",
    "ru": "процентов",
    "sv": "procent",
    "uk": "відсотків",
}
_WITHOUT_SPACES = frozenset({"ja", "th"})
_POINT_DECIMALS = frozenset({"am", "ar", "bn", "cy", "en", "fa", "he", "ja", "kn", "ko", "te", "th"})


@dataclass(frozen=True)
class Speech:
    """The words that join numbers in one language."""

    minus: str
    point: str
    power: str
    percent: str
    gap: str
    decimal_mark: str


def _converters() -> dict[str, Any]:
    from num2words import CONVERTER_CLASSES

    return dict(CONVERTER_CLASSES)


@lru_cache(maxsize=64)
def known_language(language: str) -> str:
    """The name by which num2words knows a language: ``pt-br`` is ``pt_BR``, ``en_US`` is ``en``.

    Raises ErasmoError, naming the languages there are, for any other.
    """
    names = {name.lower(): name for name in _converters()}
    asked = language.replace("-", "_").lower()
    for candidate in (asked, asked.partition("_")[0]):
        if candidate in names:
            return names[candidate]
    raise ErasmoError(
        f"Got language {language!r}, in which num2words has no number words",
        expected=f"one of: {', '.join(sorted(_converters()))}",
        fix="set text.language to one of them, or text.verbalize to false",
    )


@lru_cache(maxsize=64)
def speech(language: str) -> Speech:
    """The joining words of a language that :func:`known_language` returned."""
    base = language.partition("_")[0]
    converter = _converters()[language]
    return Speech(
        minus=_MINUS.get(base) or _word(converter, "negword") or "minus",
        point=_POINT.get(base) or _word(converter, "pointword") or "point",
        power=_POWER.get(base, "e"),
        percent=_PERCENT.get(base, "%"),
        gap="" if base in _WITHOUT_SPACES else " ",
        decimal_mark="." if base in _POINT_DECIMALS else ",",
    )


def _word(converter: Any, attribute: str) -> str | None:
    word = getattr(converter, attribute, None)
    return word.strip() if isinstance(word, str) and "(" not in word else None


def _ask(number: int | Decimal, language: str, to: str, **options: Any) -> str | None:
    """What num2words says, or None where it says nothing or fails."""
    from num2words import num2words

    try:
        said = num2words(number, lang=language, to=to, **options)
    except Exception:  # a form that a language lacks shows as any of eight exception types
        return None
    return said.strip() or None if isinstance(said, str) else None


@lru_cache(maxsize=100_000)
def whole(number: int, language: str) -> str | None:
    """The words of a whole number from 0 up; None where the language has none."""
    if number >= _LOWER_LIMITS.get(language, WORD_LIMIT):
        return None
    return _ask(number, language, "cardinal")


def spelled(digits: str, language: str) -> str:
    """The words of each digit, one by one."""
    return speech(language).gap.join(whole(int(digit), language) or digit for digit in digits)


def ordinal(number: int, language: str) -> str | None:
    """The words of ``number``-th, or None."""
    return _ask(number, language, "ordinal")


def year(number: int, language: str) -> str | None:
    """The words of a year from 0 up, or None."""
    return _ask(number, language, "year")


def currency(amount: Decimal, code: str, language: str) -> str | None:
    """The words of an amount of money from 0 up, with at most two decimals; None where num2words has none.

    A whole amount is said without its zero cents.
    """
    own, bound = _OWN_CURRENCY.get(language, ("", 0))
    if code == own:
        return _ask(amount, language, "currency") if amount < bound else None
    # Some languages take any code for their own currency: only codes that they list are asked for.
    listed = code in getattr(_converters()[language], "CURRENCY_FORMS", {})
    if not listed or amount >= _LOWER_LIMITS.get(language, WORD_LIMIT):
        return None
    if amount == amount.to_integral_value():
        said = _ask(amount, language, "currency", currency=code, separator="\0")
        if said and "\0" in said:
            return said.partition("\0")[0].strip()
    return _ask(amount, language, "currency", currency=code)
