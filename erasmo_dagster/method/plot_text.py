"""Texts from data in pictures: in one line, short enough, of characters that the font has, and never a formula."""

from __future__ import annotations

import re
from functools import cache


@cache
def _glyphs() -> frozenset[int]:
    """Characters that the pictures' font has."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def shortened(text: str, most: int) -> str:
    """``text`` in one line of at most ``most`` characters, all of which can be drawn."""
    # Cut first: what is looked at below may be very long.
    drawable = "".join(c if ord(c) in _glyphs() else "□" for c in text[: 4 * most] if c.isprintable() or c.isspace())
    line = " ".join(part for part in re.split(r"[^\S\u00a0]+", drawable) if part)
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def drawn_label(text: str, most: int) -> str:
    """``text`` as a label: shortened, and escaped."""
    return escaped(shortened(text, most))


def escaped(text: str) -> str:
    """Text that Matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
