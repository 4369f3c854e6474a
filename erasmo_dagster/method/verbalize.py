"""Numbers in words by num2words: ERASMO-NV (arXiv 2410.03738, section 3.1).

====================  =========================================================================
what                  how it is said (English)
====================  =========================================================================
whole number          ``-41`` minus forty-one
fractional number     the digits after the point one by one: ``0.05`` zero point zero five
beyond 10**33,        scientific: ``1e40`` one times ten to the power of forty. Also where the
below 10**-6          language has no words for a number of that size
percentage            ``25%`` twenty-five percent
currency              ``$1,200.50`` one thousand, two hundred dollars, fifty cents. Where the
                      language lacks the currency, or the amount has more than two decimals, the
                      number and the code: one point two five five EUR
other unit            the number and the unit: seventy kg
date                  ``2021-03-04`` the fourth of March twenty twenty-one
time                  ``14:30`` fourteen hours thirty minutes; seconds where they are not zero
in a text             every number that stands by itself or before a unit (``10kg``), also ``1,200``,
                      ``1.2e-5``, ISO dates and times. Digits with leading zeros one by one. Left as
                      they are: names such as ``mp3``, versions such as ``1.2.3``, ordinals (``2nd``)
====================  =========================================================================

In other languages the same, with these differences. Dates and times are the number words of their
parts, largest first: year, month, day, hour, minute, second. Where a language has no word for
percent or for a power here, ``%`` and ``e`` stand for them. Decimal commas (``3,5``, ``1.200,50``)
are read in texts of languages that write them.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache

import polars as pl

from erasmo_dagster.method.digits import Parts, exact, parts
from erasmo_dagster.method.distinct import coded
from erasmo_dagster.method.words import currency, known_language, ordinal, speech, spelled, whole, year

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_SYMBOLS = {"$": "USD", "US$": "USD", "R$": "BRL", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW"}
_CODES = (
    "AED|ARS|AUD|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|ISK|JPY|KRW|MXN|MYR|NGN|NOK|NZD|PEN|PHP|"
    "PLN|RON|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR"
)
_DATE = r"(?P<year>{sign}[0-9]{{4{more}}})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12][0-9]|3[01])"
_CLOCK = (
    r"(?P<hour{n}>[01]?[0-9]|2[0-3]):(?P<minute{n}>[0-5][0-9])(?::(?P<second{n}>[0-5][0-9](?:\.[0-9]+)?))?"
    r"(?P<zone{n}>Z|[+-][0-9]{{2}}:[0-9]{{2}})?"
)
_MOMENT = re.compile(
    rf"(?:{_DATE.format(sign='[+-]?', more=',7')}(?:[T ]{_CLOCK.format(n='')})?|{_CLOCK.format(n='2')})"
)
_IN_TEXT = (
    rf"(?P<moment>(?<![\w.]){_DATE.format(sign='', more='')}(?:[T ]{_CLOCK.format(n='')})?(?![\w:]|\.[0-9])"
    rf"|(?<![\w:.]){_CLOCK.format(n='2')}(?![\w:]|\.[0-9]))"
)
# Between two numbers these get spaces, which keep the words apart: 20-30 is "twenty - thirty".
_JOINTS = "-–—/:'+*×"


def verbalize_number(
    value: int | float | Decimal | str, language: str = "en", unit: str | None = None, decimals: int = 6
) -> str:
    """A finite number in words, with its unit (``percent``, a three-letter currency code, or any word).

    Fractional floats are rounded to ``decimals`` significant digits, never above their units;
    integers, Decimals and numbers in text keep every digit. Raises ErasmoError for an unknown
    language, ValueError for what is no finite number.
    """
    language = known_language(language)
    number = parts(exact(value, decimals))
    if unit and is_currency(unit) and (money := _money(number, unit, language)):
        return money
    words = _signed(number, language)
    return f"{words} {unit_word(unit, language)}" if unit else words


def verbalize_digits(digits: pl.Series, language: str = "en") -> pl.Series:
    """:func:`verbalize_number` of texts such as ``-12.5`` (as ``write_digits`` has them), without a unit.

    Words are put together of those of the whole part and of the digits after the point. Null where the number is none
    of these, below 10**-6, or of a whole part that the language has no words for. Raises ErasmoError for an unknown
    language.
    """
    language = known_language(language)
    said = speech(language)
    plain = pl.col("digits").str.contains(r"^-?[0-9]+(?:\.[0-9]+)?$") & ~pl.col("digits").str.contains(r"^-?0\.0{6}")
    number = pl.when(plain).then(pl.col("digits")).str.strip_prefix("-").str.splitn(".", 2).struct
    split = pl.DataFrame({"digits": digits}).select(
        "digits", before=number.field("field_0"), after=number.field("field_1")
    )
    each, codes = coded(split["before"])
    units = pl.Series([None if text is None else whole(int(text), language) for text in each], dtype=pl.String)
    spelled_out = [f"{said.gap}{spelled(digit, language)}" for digit in "0123456789"]
    return (
        split.with_columns(before=units.gather(codes))
        .select(
            pl.concat_str(
                pl.when(pl.col("digits").str.starts_with("-"))
                .then(pl.lit(f"{said.minus}{said.gap}"))
                .otherwise(pl.lit("")),
                "before",
                pl.when(pl.col("after").is_null())
                .then(pl.lit(""))
                .otherwise(
                    f"{said.gap}{said.point}" + pl.col("after").str.replace_many(list("0123456789"), spelled_out)
                ),
            )
        )
        .to_series()
    )


def is_currency(unit: str) -> bool:
    """Whether a unit is written as a currency code is: three capital letters."""
    return re.fullmatch(r"[A-Z]{3}", unit) is not None


def unit_word(unit: str, language: str) -> str:
    """The unit as it stands after a number: ``percent`` in the language's own word, others unchanged."""
    return speech(known_language(language)).percent if unit in ("percent", "%") else unit


def verbalize_datetime(value: date | datetime | time | str, language: str = "en") -> str:
    """A date, a time or both in words; text must be ISO 8601, other text goes to :func:`verbalize_text`.

    Years before 1 and after 9999 are allowed in text, as are fractions of a second. Raises
    ErasmoError for an unknown language.
    """
    text = value if isinstance(value, str) else value.isoformat()
    moment = _MOMENT.fullmatch(text.strip())
    return _moment(moment, known_language(language)) if moment else verbalize_text(text, language)


def verbalize_text(text: str, language: str = "en") -> str:
    """A text with its numbers in words, as the table above says; the rest of it is unchanged.

    Raises ErasmoError for an unknown language.
    """
    language = known_language(language)
    if not re.search("[0-9]", text):
        return text
    return _pattern(speech(language).decimal_mark).sub(lambda found: _replacement(found, language), text)


def _signed(number: Parts, language: str) -> str:
    words = _unsigned(number, language)
    said = speech(language)
    return f"{said.minus}{said.gap}{words}" if number.negative else words


def _unsigned(number: Parts, language: str) -> str:
    said = speech(language)
    if -6 <= number.magnitude < 40:
        before, after = number.plain
        if (units := whole(int(before), language)) is not None:
            return units + (said.gap + said.point + said.gap + spelled(after, language) if after else "")
    mantissa = spelled(number.digits[0], language)
    if rest := number.digits[1:]:
        mantissa += said.gap + said.point + said.gap + spelled(rest, language)
    exponent = _signed(parts(Decimal(number.magnitude)), language)
    return f"{mantissa} {said.power} {exponent}"


def _money(number: Parts, code: str, language: str) -> str | None:
    if not (number.exponent >= -2 and number.magnitude < 40):
        return None
    amount = Decimal(".".join(number.plain).rstrip("."))
    said = currency(amount, code, language)
    if said is None:
        return None
    minus = speech(language)
    return f"{minus.minus}{minus.gap}{said}" if number.negative else said


def _moment(found: re.Match[str], language: str) -> str:
    day = _date(found, language) if found["year"] else ""
    clock = _clock(found, "" if found["hour"] else "2", language) if found["hour"] or found["hour2"] else ""
    between = " at " if language.startswith("en") else speech(language).gap or " "
    return between.join(part for part in (day, clock) if part)


def _date(found: re.Match[str], language: str) -> str:
    number, month, day = int(found["year"]), int(found["month"]), int(found["day"])
    if not language.startswith("en"):
        return " ".join(_signed(parts(Decimal(part)), language) for part in (number, month, day))
    spoken = year(abs(number), language) or _signed(parts(Decimal(abs(number))), language)
    sign = "minus " if number < 0 else ""
    return f"the {ordinal(day, language)} of {_MONTHS[month - 1]} {sign}{spoken}"


def _clock(found: re.Match[str], group: str, language: str) -> str:
    amounts = [(found[f"hour{group}"], "hour"), (found[f"minute{group}"], "minute")]
    second = found[f"second{group}"]
    if second and Decimal(second):
        amounts.append((second, "second"))
    said = [_amount(Decimal(amount), name, language) for amount, name in amounts]
    if zone := found[f"zone{group}"]:
        said.append(_zone(zone, language))
    return " ".join(said)


def _amount(amount: Decimal, name: str, language: str) -> str:
    words = _signed(parts(amount), language)
    if not language.startswith("en"):
        return words
    return f"{words} {name}" if amount == 1 else f"{words} {name}s"


def _zone(zone: str, language: str) -> str:
    if zone in ("Z", "+00:00", "-00:00"):
        return "UTC"
    sign = speech(language).minus if zone[0] == "-" else "plus"
    hours, minutes = Decimal(zone[1:3]), Decimal(zone[4:6])
    said = [_amount(hours, "hour", language)] + ([_amount(minutes, "minute", language)] if minutes else [])
    return " ".join(["UTC", sign, *said])


@lru_cache(maxsize=2)
def _pattern(mark: str) -> re.Pattern[str]:
    """What is put in words in a text of a language with this decimal mark."""
    group = re.escape("," if mark == "." else ".")
    point = re.escape(mark)
    before = rf"(?<!\w)(?<![0-9]\.)(?<![0-9]{point})"
    number = (
        rf"(?P<number>[0-9]{{1,3}}(?:,[0-9]{{3}})+\.[0-9]+|[0-9]{{1,3}}(?:\.[0-9]{{3}})+,[0-9]+"
        rf"|[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|(?:[0-9]+|(?<![.,])){point}[0-9]+|(?:[0-9]+|(?<![.,]))\.[0-9]+|[0-9]+)"
        rf"(?P<power>[eE][+-]?[0-9]{{1,3}})?"
    )
    after = rf"(?![0-9])(?!\.[0-9])(?!{point}[0-9])(?![^\W\d_]+[0-9])(?!_)(?!(?:st|nd|rd|th)\b)"
    symbol = "|".join(re.escape(each) for each in sorted(_SYMBOLS, key=len, reverse=True))
    suffix = rf"(?:\s?(?P<percent>%)|\s?(?P<code>(?:{_CODES})\b|[€£₹₩]))?"
    return re.compile(
        rf"{_IN_TEXT}|(?:(?<![\w)\]%.])(?P<minus>[-−]))?(?:(?<!\w)(?P<symbol>{symbol})\s?(?P<minus2>-)?)?"
        rf"{before}{number}{after}{suffix}"
    )


def _replacement(found: re.Match[str], language: str) -> str:
    words = _moment(found, language) if found["moment"] else _number_in_text(found, language)
    text, start, end = found.string, found.start(), found.end()
    left = " " if _between_numbers(text, start - 1) else ""
    right = " " if text[end : end + 1].isalnum() or _between_numbers(text, end) else ""
    return f"{left}{words}{right}"


def _between_numbers(text: str, at: int) -> bool:
    around = text[at - 1 : at] + text[at + 1 : at + 2]
    return 0 < at < len(text) and text[at] in _JOINTS and len(around) == 2 and around.isdigit()


def _number_in_text(found: re.Match[str], language: str) -> str:
    digits = found["number"]
    unit = "percent" if found["percent"] else found["symbol"] or found["code"]
    minus = "-" if found["minus"] or found["minus2"] else ""
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit() and not found["power"]:
        # An identifier or a post code: 007 is not 7.
        said = speech(language)
        words = (f"{said.minus}{said.gap}" if minus else "") + spelled(digits, language)
        return f"{words} {unit_word(_SYMBOLS.get(unit, unit), language)}" if unit else words
    plain = _without_separators(digits, speech(language).decimal_mark)
    return verbalize_number(f"{minus}{plain}{found['power'] or ''}", language, _SYMBOLS.get(unit or "", unit))


def _without_separators(digits: str, mark: str) -> str:
    """``1,200.50`` -> ``1200.50``; the separator that comes last is the decimal one where there are both."""
    if "." in digits and "," in digits:
        mark = max(".", ",", key=digits.rfind)
    elif mark == "," and "," not in digits and not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{3})+", digits):
        mark = "."
    return digits.replace("," if mark == "." else ".", "").replace(mark, ".")
