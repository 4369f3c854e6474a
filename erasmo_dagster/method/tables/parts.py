"""How one column of a table becomes dimensions: a number, a category, a text.

Every part is fitted once and reads later rows unchanged. What a row lacks is exactly 0 in all of a part's dimensions,
and nothing that is there is: so 0 is the mean for distances, and "missing" for a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan, code_of, collapse

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]
# Distinct texts -> float32[n, w].
Encode = Callable[[Sequence[str]], Floats]

# A column of numbers with at most so many different ones is read as codes: 0/1 flags, grades, counts of a few things.
FEW_NUMBERS = 12
# Values of a category that get a dimension, the most frequent ones; the others share one.
MOST_VALUES = 30
# Principal components of a text column's vectors.
TEXT_DIMENSIONS = 32
# Numbers farther from the mean than so many standard deviations count as that far.
FARTHEST = 8.0
_NOT_ZERO = 1e-6  # what is there is never 0
_LEAST_VARIANCE = 1e-12


class Part(Protocol):
    """Some dimensions of a table's points, made of one column."""

    kind: ClassVar[str]
    column: str

    @property
    def width(self) -> int:
        """Number of its dimensions."""
        ...

    def arrays(self) -> Arrays:
        """Its arrays, by the names of its fields."""
        ...

    def details(self) -> dict[str, Any]:
        """Its other fields, as JSON."""
        ...


@dataclass(frozen=True)
class NumberPart:
    """One dimension: the number, centred and scaled to unit variance."""

    kind: ClassVar[str] = "number"

    column: str
    mean: float
    scale: float

    @classmethod
    def fit(cls, column: str, values: Doubles) -> NumberPart | None:
        """From ``values`` float64[n], NaN where missing; None for one that does not vary."""
        present = values[~np.isnan(values)]
        scale = float(present.std()) if present.size else 0.0
        return cls(column, float(present.mean()), scale) if scale > 0 and np.isfinite(scale) else None

    @property
    def width(self) -> int:
        """1."""
        return 1

    def read(self, values: Doubles) -> Floats:
        """float32[n, 1] of ``values`` float64[n]."""
        scaled = ((values - self.mean) / self.scale).clip(-FARTHEST, FARTHEST)
        scaled = np.where(np.abs(scaled) < _NOT_ZERO, _NOT_ZERO, scaled)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)[:, None]

    def arrays(self) -> Arrays:
        """None."""
        return {}

    def details(self) -> dict[str, Any]:
        """Mean and scale."""
        return {"column": self.column, "mean": self.mean, "scale": self.scale}


@dataclass(frozen=True)
class CategoryPart:
    """A dimension a value, all of one height, so that the column's variance adds up to 1.

    ``levels`` are the numbers that the values stand for, where it is a column of few numbers: one that was not there is
    read as the nearest. ``others`` says whether there were values beyond ``values``, which share the last dimension.
    """

    kind: ClassVar[str] = "category"

    column: str
    values: tuple[str, ...]
    others: bool
    height: float
    levels: tuple[float, ...] | None = None

    @classmethod
    def fit(cls, column: str, codes: pl.Series, levels: dict[str, float] | None = None) -> CategoryPart | None:
        """From the codes of the rows, null where missing; None where there is but one."""
        counts = codes.drop_nulls().value_counts(name="rows").sort(["rows", codes.name], descending=[True, False])
        if counts.height < 2:
            return None
        kept = counts[codes.name].head(MOST_VALUES).to_list()
        shares = counts["rows"].to_numpy() / len(codes)
        if counts.height > MOST_VALUES:
            shares = np.append(shares[:MOST_VALUES], shares[MOST_VALUES:].sum())
        variance = float((shares * (1 - shares)).sum())
        numbers = tuple(levels[value] for value in kept) if levels is not None else None
        return cls(column, tuple(kept), counts.height > MOST_VALUES, float(1 / np.sqrt(variance)), numbers)

    @property
    def width(self) -> int:
        """Number of values, and one for the others."""
        return len(self.values) + self.others

    def read(self, codes: pl.Series, numbers: Doubles | None = None) -> Floats:
        """float32[n, width] of the rows' codes, null where missing; ``numbers`` float64[n] where these are numbers."""
        place = {value: index for index, value in enumerate(self.values)}
        found = np.array([-1 if code is None else place.get(code, -2) for code in codes.to_list()], dtype=np.int64)
        unknown = found == -2
        if unknown.any():
            if self.levels is not None and numbers is not None:
                apart = np.abs(numbers[unknown][:, None] - np.array(self.levels))
                found[unknown] = apart.argmin(axis=1)
            else:
                # A value that no one had seen: like the others where there are some, else like nothing.
                found[unknown] = len(self.values) if self.others else -1
        read = np.zeros((len(found), self.width), dtype=np.float32)
        rows = np.flatnonzero(found >= 0)
        read[rows, found[rows]] = self.height
        return read

    def arrays(self) -> Arrays:
        """None."""
        return {}

    def details(self) -> dict[str, Any]:
        """All fields."""
        return {
            "column": self.column,
            "values": list(self.values),
            "others": self.others,
            "height": self.height,
            "levels": None if self.levels is None else list(self.levels),
        }


@dataclass(frozen=True, eq=False)
class DensePart:
    """The first principal components of vectors: of a text column's values, or of whole rows (``column`` is then empty).

    ``components`` float64[d, w] lead from ``mean`` float64[w] to ``d`` dimensions. Together they have the variance of as
    many columns as the components are effectively, (sum of variances)² / (sum of squared variances): a text says more
    than a number does.
    """

    kind: ClassVar[str] = "dense"

    column: str
    mean: Doubles
    components: Doubles

    @classmethod
    def fit(cls, column: str, vectors: Floats, *, seed: int) -> DensePart | None:
        """From ``vectors`` float32[n, w] of the rows that have one; None where they do not differ."""
        from sklearn.decomposition import PCA

        if len(vectors) < 2:
            return None
        mean = vectors.mean(axis=0, dtype=np.float64)
        moved = vectors.astype(np.float64) - mean
        pca = PCA(min(TEXT_DIMENSIONS, *moved.shape), random_state=seed).fit(moved)
        variances = pca.explained_variance_
        varying = int((variances > _LEAST_VARIANCE * max(variances[0], _LEAST_VARIANCE)).sum())
        if variances[0] <= _LEAST_VARIANCE or not varying:
            return None
        variances, components = variances[:varying], pca.components_[:varying]
        components = components * np.sign(components[np.arange(varying), np.abs(components).argmax(axis=1)])[:, None]
        effective = variances.sum() ** 2 / (variances**2).sum()
        return cls(column, mean, np.ascontiguousarray(components * np.sqrt(effective / variances.sum())))

    @property
    def width(self) -> int:
        """Number of components."""
        return len(self.components)

    def read(self, vectors: Floats, present: npt.NDArray[np.bool_]) -> Floats:
        """float32[n, d]: of ``vectors`` float32[m, w], one for each of the m rows in ``present`` bool[n]."""
        read = np.zeros((len(present), self.width), dtype=np.float32)
        moved = vectors.astype(np.float64) - self.mean
        # One component at a time: the order in which a matrix product adds up depends on the number of rows.
        points = np.stack([np.einsum("ij,j->i", moved, component) for component in self.components], axis=1)
        points[:, 0] = np.where(np.abs(points[:, 0]) < _NOT_ZERO, _NOT_ZERO, points[:, 0])
        read[present] = points
        return read

    def arrays(self) -> Arrays:
        """Mean and components."""
        return {"mean": self.mean, "components": self.components}

    def details(self) -> dict[str, Any]:
        """The column."""
        return {"column": self.column}


def numbers_of(series: pl.Series) -> Doubles:
    """A column of numbers or moments as float64[n]: NaN where missing, infinities as the finite extremes."""
    dtype = series.dtype
    if dtype.is_temporal():
        series = series.to_physical()
    elif isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        series = series.cast(pl.String).str.strip_chars()  # the number of a category is no value
    elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return np.full(len(series), np.nan)
    values: Doubles = series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float64)
    finite = values[np.isfinite(values)]
    return values.clip(finite.min(), finite.max()) if len(finite) else np.full(len(values), np.nan)


def codes_of(series: pl.Series) -> pl.Series:
    """A column of categories as texts (name ``code``), null where missing or blank."""
    if series.dtype == pl.String:
        codes = series.str.replace_all(r"[\s\x00-\x1f\x7f-\x9f]+", " ").str.strip_chars(" ")
        return codes.replace("", None).alias("code")
    known: dict[Any, str | None] = {}
    texts: list[str | None] = []
    for value in series.to_list():
        if value is None or value != value:
            texts.append(None)
            continue
        if value not in known:
            known[value] = code_of(value) or None
        texts.append(known[value])
    return pl.Series("code", texts, dtype=pl.String)


def texts_of(series: pl.Series) -> pl.Series:
    """A column of texts on one line each, null where missing or blank."""
    distinct = series.cast(pl.String, strict=False).unique().drop_nulls().to_list()
    clean = {text: collapse(text) or None for text in distinct}
    return series.cast(pl.String, strict=False).replace_strict(clean, default=None, return_dtype=pl.String)


def few_numbers(values: Doubles) -> dict[str, float] | None:
    """Code -> number of a column of at most FEW_NUMBERS different ones; None where there are more."""
    distinct = np.unique(values[~np.isnan(values)])
    return {code_of(float(value)): float(value) for value in distinct} if len(distinct) <= FEW_NUMBERS else None


def number_codes(values: Doubles) -> pl.Series:
    """Numbers float64[n] as the codes of :func:`few_numbers`, null where missing."""
    distinct = {float(v): code_of(float(v)) for v in np.unique(values[~np.isnan(values)])}
    return pl.Series("code", [None if v != v else distinct[v] for v in values.tolist()], dtype=pl.String)


def is_measured(plan: ColumnPlan) -> bool:
    """Whether a column's values are numbers or moments, and no codes with names."""
    return plan.kind in ("number", "datetime") and not plan.values
