"""Numbers as digits: their exact decimal value, rounding to significant digits, how they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import polars as pl

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")

# Powers of ten between which a number is written plainly; beyond them as 1.5e-7. An exact value
# (Decimal, text) gets room for the 38 digits that a DECIMAL column holds; integers have no bound.
FLOAT_RANGE = (-6, 15)
EXACT_RANGE = (-38, 40)

_POWERS = np.array([float(f"1e{power}") for power in range(-5, 16)])
_BELOW_ONE = 5  # powers of ten from the first of these to 1
_SCALES = np.array([float(f"1e{power}") for power in range(23)])


@dataclass(frozen=True)
class Parts:
    """A finite number as ``±digits * 10**exponent``; ``digits`` has no zeros at its ends, or is "0"."""

    negative: bool
    digits: str
    exponent: int

    @property
    def magnitude(self) -> int:
        """The power of ten of the first digit: 2 for 123, -3 for 0.0012."""
        return len(self.digits) - 1 + self.exponent

    @property
    def plain(self) -> tuple[str, str]:
        """Digits before and after the point; the second is empty for a whole number."""
        if self.exponent >= 0:
            return self.digits + "0" * self.exponent, ""
        padded = self.digits.rjust(1 - self.exponent, "0")
        return padded[: self.exponent], padded[self.exponent :]


def exact(value: int | float | Decimal | str, decimals: int) -> Decimal:
    """The decimal value of a finite number.

    A fractional float is rounded to ``decimals`` significant digits, but never above its units, so
    12345678.9 at 6 digits is 12345679. Everything else keeps all its digits. Raises ValueError for
    text that is no number, for NaN and for infinity.
    """
    if isinstance(value, str):
        if not NUMBER.fullmatch(value.strip()):
            raise ValueError(f"not a number: {value[:40]!r}")
        return Decimal(value.strip())
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError(f"not a finite number: {value!r}")
    if isinstance(value, float) and not value.is_integer():
        kept = max(decimals, number.adjusted() + 1, 1)
        number = Context(prec=kept, rounding=ROUND_HALF_EVEN).plus(number)
    return number


def parts(number: Decimal) -> Parts:
    """Sign, digits and exponent of a finite number, without zeros that add nothing."""
    sign, figures, exponent = number.as_tuple()
    digits = "".join(map(str, figures)).lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return Parts(negative=False, digits="0", exponent=0)
    return Parts(negative=bool(sign), digits=kept, exponent=int(exponent) + len(digits) - len(kept))


def write_digits(value: int | float | Decimal | str, decimals: int) -> str:
    """A finite number in digits: ``41``, ``-0.5``, ``1.5e-7``; no separators of thousands, no ``.0``.

    Rounded as by :func:`exact`, and raises as it does.
    """
    if isinstance(value, int):
        return str(int(value))
    low, high = FLOAT_RANGE if isinstance(value, float) else EXACT_RANGE
    number = parts(exact(value, decimals))
    if number.digits == "0" or low <= number.magnitude < high:
        text = ".".join(part for part in number.plain if part)
    else:
        head, tail = number.digits[0], number.digits[1:]
        text = f"{head}.{tail}e{number.magnitude}" if tail else f"{head}e{number.magnitude}"
    return f"-{text}" if number.negative else text


def float_digits(values: pl.Series, decimals: int) -> pl.Series:
    """:func:`write_digits` of a Float64 column; null for the few values that are to be written one by one.

    Those are beyond 1e-5 .. 1e15, or lie so near the middle of two roundings that only their decimal value decides.
    """
    number = values.fill_null(np.nan).to_numpy()
    size = np.abs(number)
    within = (size < 1e15) & ((size >= 1e-5) | (size == 0))
    size = np.where(within, size, 1.0)
    # Seventeen significant digits are all that a double has.
    kept_whole = (size == np.floor(size)) | (decimals >= 17)
    # Doubles are in the order of their shortest texts, so these bounds part numbers as their texts would.
    before_point = np.searchsorted(_POWERS, size, side="right") - _BELOW_ONE
    scale = _SCALES[np.clip(max(decimals, 1) - before_point, 0, 22)]
    scaled = size * scale
    units = np.rint(scaled)
    # The product is off by less than 4e-16 of itself. Up to 15 digits, a double's shortest text is what it was made of.
    far = np.abs(scaled - np.floor(scaled) - 0.5) > np.maximum(1e-15 * scaled, 1e-9)
    sure = within & (kept_whole | (far & (scaled < 1e15)))
    rounded = np.copysign(np.where(kept_whole, size, units / scale), number) + 0.0
    texts = pl.Series(values.name, rounded).cast(pl.String).str.strip_suffix(".0")
    return texts.set(pl.Series(~sure), None)


def decimal_digits(values: pl.Series) -> pl.Series:
    """:func:`write_digits` of a Decimal column."""
    texts = values.cast(pl.String)
    exact_ones = texts.str.strip_chars_end("0").str.strip_chars_end(".")
    return exact_ones.zip_with(texts.str.contains(".", literal=True), texts)
