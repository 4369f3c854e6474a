"""The first paper's baseline: a sentence encoder for what is text beside DICE vectors for numbers.

It reads the text of a row, as every encoder does, and takes it apart again into its clauses: a clause begins where a
column's name and ``is`` stand at the start or after a comma. A clause of a number column whose value is a number goes
to DICE, one with the word for missing is left out, and one with something else (the word of a coded value) stays in
the text. Where a text column quotes the clause of a number column, the first one that is a number or missing counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.columns import shorten
from erasmo_dagster.method.digits import NUMBER
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.encoders.dice import dice, orthonormal
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.textual import TextPlan, join_clauses
from erasmo_dagster.method.verbalize import unit_word
from erasmo_dagster.settings import EmbeddingSettings, MpnetDiceOptions

_DOCUMENT, _ARRAYS = "mpnet_dice.json", "mpnet_dice.safetensors"
_INFINITIES = {"infinity": math.inf, "minus infinity": -math.inf}


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: its name in the text, the unit after its values, and their range when fitted."""

    label: str
    unit: str | None
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Reading:
    """How texts are taken apart: the names of all columns, those of numbers, the word for a missing value."""

    labels: tuple[str, ...]
    numbers: tuple[NumberColumn, ...]
    missing: str | None

    @property
    def only_numbers(self) -> bool:
        """Whether no column is text."""
        return len(self.numbers) == len(self.labels)

    def split(self, texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float64]]:
        """What of each text is for the sentence encoder, and its numbers float64[n, columns]: NaN where missing."""
        names = "|".join(re.escape(label) for label in sorted(self.labels, key=len, reverse=True))
        starts = re.compile(rf"(?:^|(?<=, ))({names}) is ")
        columns = {column.label: i for i, column in enumerate(self.numbers)}
        numbers = np.full((len(texts), len(columns)), np.nan)
        rests = []
        for row, text in enumerate(texts):
            found = list(starts.finditer(text))
            begins = [match.start() for match in found]
            rest = [text[: begins[0] - 2] if begins else text] if begins[:1] != [0] else []
            seen: set[int] = set()
            for match, end in zip(found, [*(b - 2 for b in begins[1:]), len(text)], strict=False):
                column = columns.get(match[1])
                number = None
                if column is not None and column not in seen:
                    number = self._number(text[match.end() : end], self.numbers[column].unit)
                if column is None or number is None:
                    rest.append(text[match.start() : end])
                else:
                    numbers[row, column] = number
                    seen.add(column)
            rests.append(join_clauses(rest))
        return rests, numbers

    def _number(self, value: str, unit: str | None) -> float | None:
        """The number that a clause's value is, as cells.py writes it; NaN for missing, None for anything else."""
        if value == self.missing:
            return math.nan
        if value in _INFINITIES:
            return _INFINITIES[value]
        digits = value.removesuffix(f" {unit}") if unit else value
        return float(digits) if NUMBER.fullmatch(digits) else None


class MpnetDiceEncoder:
    """MPNet, or another sentence encoder, for the text of a row, beside a DICE vector for each of its number columns.

    A baseline of arXiv 2410.03738: text part and number parts are concatenated. A missing number is
    zeros. Where all columns are numbers there is no text part, where none is there are no DICE vectors (``columns``
    is empty then). Each distinct remaining text is read once; after ``encode``, ``tokens`` counts what was read and
    ``truncated`` tells for each row whether its text was cut.
    """

    def __init__(
        self,
        reading: Reading,
        rotation: npt.NDArray[np.float64],
        base: LocalModel,
        settings: EmbeddingSettings,
        *,
        device: str = "auto",
    ) -> None:
        self.columns = [column.label for column in reading.numbers]
        self.settings = settings
        self._reading, self._rotation = reading, rotation
        self._base, self._device = base, device
        self._text: SentenceTransformerEncoder | None = None
        self.truncated = np.zeros(0, dtype=bool)
        self.tokens = 0

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        plan: TextPlan,
        options: MpnetDiceOptions,
        base: LocalModel,
        settings: EmbeddingSettings,
        *,
        seed: int,
    ) -> MpnetDiceEncoder:
        """Learn every number column's range from the rows' texts; ``seed`` is that of the rotation.

        Raises ErasmoError where numbers are written in words.
        """
        planned = [column for column in plan.columns if column.kind == "number"]
        if worded := [column.name for column in planned if column.verbalize]:
            raise ErasmoError(
                f"Got numbers in words in column {shorten(worded[0])} for mpnet-dice, which reads digits",
                expected="`verbalize: false`",
                fix="remove `text.verbalize` and `columns.<name>.verbalize`, or take another encoder",
            )
        language = plan.settings.language
        reading = Reading(
            tuple(column.label for column in plan.columns),
            tuple(NumberColumn(c.label, unit_word(c.unit, language) if c.unit else None) for c in planned),
            plan.settings.missing,
        )
        _, numbers = reading.split(texts)
        ranged = []
        for column, values in zip(reading.numbers, numbers.T, strict=True):
            finite = values[np.isfinite(values)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
            ranged.append(NumberColumn(column.label, column.unit, low, high))
        reading = Reading(reading.labels, tuple(ranged), reading.missing)
        return cls(reading, orthonormal(options.dimensions, seed), base, settings, device=options.device)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One float32 vector a text: [n, text dimensions + columns * DICE dimensions]."""
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        """As ``encode``, batch by batch, in the sentence encoder's order."""
        self.tokens, self.truncated = 0, np.zeros(len(texts), dtype=bool)
        if not texts:
            return
        rests, numbers = self._reading.split(texts)
        spread = [
            dice(values, column.low, column.high, self._rotation)
            for column, values in zip(self._reading.numbers, numbers.T, strict=True)
        ]
        if self._reading.only_numbers:
            yield np.arange(len(texts)), self._scaled(np.concatenate(spread, axis=1))
            return
        place: dict[str, int] = {}
        rows: list[list[int]] = []  # of each distinct rest
        for row, rest in enumerate(rests):
            if place.setdefault(rest, len(place)) == len(rows):
                rows.append([])
            rows[place[rest]].append(row)
        text = self._text_encoder()
        for positions, vectors in text.batches(list(place)):
            self.tokens = text.tokens
            who = [rows[position] for position in positions]
            at = np.concatenate([np.asarray(own, dtype=np.intp) for own in who])
            self.truncated[at] = np.repeat(text.truncated[positions], [len(own) for own in who])
            parts = [np.repeat(vectors, [len(own) for own in who], axis=0), *(part[at] for part in spread)]
            yield at, self._scaled(np.concatenate(parts, axis=1))

    def save(self, folder: Path) -> None:
        """Write columns and ranges as JSON, the rotation as safetensors, into ``folder``."""
        from safetensors.numpy import save_file

        save_file({"rotation": np.ascontiguousarray(self._rotation)}, folder / _ARRAYS)
        document = json.dumps(asdict(self._reading), ensure_ascii=False, indent=2)
        (folder / _DOCUMENT).write_text(document + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls, folder: Path, base: LocalModel, settings: EmbeddingSettings, *, device: str = "auto"
    ) -> MpnetDiceEncoder:
        """The encoder that was saved in ``folder``, over the same sentence encoder ``base``."""
        from safetensors.numpy import load_file

        saved = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
        columns = tuple(NumberColumn(**column) for column in saved["numbers"])
        reading = Reading(tuple(saved["labels"]), columns, saved["missing"])
        return cls(reading, load_file(folder / _ARRAYS)["rotation"], base, settings, device=device)

    def _text_encoder(self) -> SentenceTransformerEncoder:
        """The sentence encoder, loaded when the first text wants it; scaled, if at all, with the numbers."""
        if self._text is None:
            alone = self.settings.model_copy(update={"normalize": False})
            self._text = SentenceTransformerEncoder(self._base, alone, self._device)
        return self._text

    def _scaled(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.settings.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return vectors
