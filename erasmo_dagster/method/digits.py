"""Numbers as digits: their exact decimal value, rounding to significant digits, how they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")

# Powers of ten between which a number is written plainly; beyond them as 1.5e-7. An exact value
# (Decimal, text) gets room for the 38 digits that a DECIMAL column holds; integers have no bound.
FLOAT_RANGE = (-6, 15)
EXACT_RANGE = (-38, 40)


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
