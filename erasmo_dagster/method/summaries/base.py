"""What a summarizer is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol


class Summarizer(Protocol):
    """Writes summaries; the same text has the same one for as long as ``identity`` is the same.

    ``chunk`` is the number of texts to hand over at once, few enough to lose no more when a run is interrupted.
    ``fallbacks`` counts the texts so far whose summary is TextRank's, since a model's answer could not be used.
    """

    chunk: int
    fallbacks: int

    @property
    def identity(self) -> str:
        """A digest of all that summaries depend on beside their text."""
        ...

    def summarize(self, texts: Sequence[str]) -> list[str]:
        """One summary a text, in the texts' order, none longer than its text."""
        ...


def identity_of(**about: Any) -> str:
    """A digest of what a summarizer is: 24 hexadecimal digits, the same in every release and on every machine."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
