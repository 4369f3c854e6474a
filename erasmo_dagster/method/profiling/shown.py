"""How numbers, moments, shares and strings of the data are written in a profile."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

import polars as pl

from erasmo_dagster.method.cells import column_texts
from erasmo_dagster.method.columns import ColumnPlan, collapse
from erasmo_dagster.method.digits import write_digits
from erasmo_dagster.method.verbalize import is_currency
from erasmo_dagster.settings import TextSettings

VALUE_LENGTH = 80  # characters of a value that are shown
LABEL_LENGTH = 60
_DAY = 86_400.0
# Characters that join letters in some scripts, and emoji; other unseen ones go.
_JOINERS = "\u200c\u200d"


def clean(text: str, most: int = VALUE_LENGTH) -> str:
    """A text on one line, without control and unseen characters, of at most ``most`` characters."""
    one_line = collapse(text[: 20 * most])
    if not one_line.isprintable():
        one_line = collapse("".join(_seen(character) for character in one_line))
    return one_line if len(one_line) <= most else one_line[: most - 1].rstrip() + "…"


def _seen(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    # Cf turns the direction of what follows, or shows nothing; what is left is of no known character.
    return "" if unicodedata.category(character) == "Cf" else " " if character.isspace() else "\ufffd"


def label_of(column: ColumnPlan) -> str:
    """The column's label as it is shown."""
    return clean(column.label, LABEL_LENGTH) or "unnamed"


def percent(share: float) -> str:
    """A share as ``95 %``; 0 and 100 only where it is exactly that."""
    points = 100 * share
    if 1 <= points <= 99 or share in (0, 1):
        return f"{points:.0f} %"
    for decimals in (1, 2):
        text = f"{points:.{decimals}f}"
        if 0 < float(text) < 100:
            return f"{text} %"
    return "under 0.01 %" if points < 50 else "over 99.99 %"


def number(value: float, unit: str | None, digits: int = 3) -> str:
    """A number of at least ``digits`` significant digits, never rounded above its units, with its unit."""
    if abs(value) >= 1e15:
        value = float(f"{value:.6g}")
    return with_unit(write_digits(float(value), digits), unit)


def with_unit(text: str, unit: str | None) -> str:
    """The digits with the unit after them; amounts of money with two decimals or none."""
    if not unit:
        return text
    if is_currency(unit) and "e" not in text and len(text.partition(".")[2]) == 1:
        text += "0"
    return f"{text} {'%' if unit in ('percent', '%') else clean(unit, 20)}"


def numbers(first: float, second: float, unit: str | None) -> tuple[str, str]:
    """Two numbers with as many digits as tell them apart, at most 12; 42 beside 47.6 is 42.0."""
    pair = number(first, None), number(second, None)
    for digits in range(4, 13):
        if pair[0] != pair[1]:
            break
        pair = number(first, None, digits), number(second, None, digits)
    places = [len(text.partition(".")[2]) for text in pair]
    if not any("e" in text for text in pair) and 1 <= max(places) <= 2 and abs(places[0] - places[1]) == max(places):
        whole = places.index(0)
        if abs((first, second)[whole]) < 10 ** (3 - max(places)):
            padded = f"{pair[whole]}.{'0' * max(places)}"
            pair = (padded, pair[1]) if whole == 0 else (pair[0], padded)
    return with_unit(pair[0], unit), with_unit(pair[1], unit)


def moment(seconds: float, dtype: pl.DataType, *, whole_days: bool) -> str:
    """Seconds since 1970 (since midnight, or long, for times and durations) as ``2024-03-01`` or ``2024-03-01 14:30``.

    In the column's own time zone.
    """
    series = moment_series(math.floor(seconds) if whole_days or isinstance(dtype, pl.Date) else seconds, dtype)
    plan = ColumnPlan(
        name="x", label="x", kind="datetime", values={}, unit=None, verbalize=False, sensitive=False, dates_only=True
    )
    if isinstance(dtype, pl.Datetime) and whole_days:
        series = series.dt.date()
    text = column_texts(series, plan, TextSettings())[0]
    # An offset goes where it says no more than the column's name does.
    text = re.sub(r"(?<=\d)(Z|[+-]\d\d:\d\d)$", "", text.replace("T", " ")) if text else f"{seconds:.6g}"
    return re.sub(r"(?<=\d\d:\d\d):00$", "", text)


def moment_series(seconds: float, dtype: pl.DataType) -> pl.Series:
    """One moment as a Series of the column's type, in microseconds; null where the type cannot hold it."""
    whole = pl.Series([round(seconds * 1e6)], dtype=pl.Int64)
    if isinstance(dtype, pl.Date):
        return pl.Series([math.floor(seconds / _DAY)], dtype=pl.Int64).cast(pl.Date, strict=False)
    if isinstance(dtype, pl.Time):
        return (whole * 1000).cast(pl.Time, strict=False)
    if isinstance(dtype, pl.Duration):
        return whole.cast(pl.Duration("us"))
    zone = dtype.time_zone if isinstance(dtype, pl.Datetime) else None
    return whole.cast(pl.Datetime("us", zone))


def moments(first: float, second: float, dtype: pl.DataType) -> tuple[str, str]:
    """Two moments: as days where those differ, else with the time, to the second."""
    if not isinstance(dtype, (pl.Time, pl.Duration)):
        days = tuple(moment(value, dtype, whole_days=True) for value in (first, second))
        if days[0] != days[1] or isinstance(dtype, pl.Date):
            return days[0], days[1]
    whole = [float(round(value)) for value in (first, second)]
    if whole[0] == whole[1]:
        whole = [first, second]
    return moment(whole[0], dtype, whole_days=False), moment(whole[1], dtype, whole_days=False)


def shortest_between(low: float, high: float) -> Decimal:
    """The decimal with the fewest digits in [low, high), the nearest to the middle among equals; low < high.

    As a float it lies there too, so that ``value > it`` and ``value >= high`` agree wherever no value lies between.
    """
    exact_low, exact_high = Decimal(low), Decimal(high)
    with localcontext() as context:
        context.prec = 800
        middle = (exact_low + exact_high) / 2
        top = max(exact_low.copy_abs(), exact_high.copy_abs()).adjusted()
        # The gap's own size: one digit more is always enough, but for the rounding to floats.
        least = (exact_high - exact_low).adjusted() - 1
        for exponent in range(top + 1, least - 1, -1):
            step = Decimal(1).scaleb(exponent)
            first = (exact_low / step).to_integral_value(ROUND_CEILING)
            last = (exact_high / step).to_integral_value(ROUND_FLOOR)
            wanted = min(max((middle / step).to_integral_value(), first), last)
            candidate = wanted * step
            if candidate >= exact_high:
                candidate = (wanted - 1) * step
            if exact_low <= candidate < exact_high and low <= float(candidate) < high:
                return Decimal(0) if candidate == 0 else candidate.normalize()
    return Decimal(repr(low))


def decimal(value: Decimal) -> str:
    """A decimal with all its digits, plain or as ``1.5e-7``."""
    return write_digits(value, 17) if -6 <= value.adjusted() < 15 else write_digits(float(value), 17)


def decimal_of(value: float) -> str:
    """A float with all the digits that it needs."""
    return write_digits(value, 17)


def round_moment(below: float, above: float, dtype: pl.DataType) -> tuple[float, str]:
    """The roundest moment T with below < T <= above, and how it is written: a day, a minute, a second, or ``above``."""
    series = moment_series(above, dtype)
    if isinstance(dtype, pl.Datetime):
        for step in ("1y", "1mo", "1d", "1h", "1m", "1s"):
            rounded = series.dt.truncate(step)
            seconds = rounded.to_physical()[0] / 1e6
            if below < seconds <= above:
                return seconds, moment(seconds, dtype, whole_days=step in ("1y", "1mo", "1d"))
    elif isinstance(dtype, pl.Date):
        for step in ("1y", "1mo"):
            seconds = series.dt.truncate(step).to_physical()[0] * _DAY
            if below < seconds <= above:
                return seconds, moment(seconds, dtype, whole_days=True)
    else:
        for whole in (3600.0, 60.0, 1.0):
            seconds = math.floor(above / whole) * whole
            if below < seconds <= above:
                return seconds, moment(seconds, dtype, whole_days=False)
    return above, exact_moment(above, dtype)


def exact_moment(seconds: float, dtype: pl.DataType) -> str:
    """A moment of the data; as a day where it is a midnight."""
    text = moment(seconds, dtype, whole_days=False)
    return text.removesuffix(" 00:00") if isinstance(dtype, pl.Datetime) else text
