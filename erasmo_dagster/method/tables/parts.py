"""How one column of a table becomes dimensions: a number, a category, a text.

Every part is fitted once and reads later rows unchanged. What a row lacks is exactly 0 in all of a part's dimensions,
and nothing that is there is: so 0 is the mean for distances, and "missing" for a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.cells import column_texts
from erasmo_dagster.method.columns import ColumnPlan, code_of, collapse
from erasmo_dagster.method.threads import one_thread
from erasmo_dagster.settings import TextSettings

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
_CHUNK = 2048  # vectors that are projected at a time

_EPOCH = datetime(1970, 1, 1)
_MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3}
# Microseconds of the years 1 to 9999, and of a span that 64 bits hold. Databases keep their "infinity" beyond.
_CALENDAR = (-62_135_596_800e6, 253_402_300_800e6)
_SPAN = (-9e18, 9e18)
_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "1"), "true") | dict.fromkeys(("false", "f", "no", "n", "0"), "false")


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
    """One dimension: the number, centred and scaled to unit variance.

    Infinities are read as ``least`` and ``most``, the finite extremes. ``moments``: see :func:`numbers_of`.
    """

    kind: ClassVar[str] = "number"

    column: str
    mean: float
    scale: float
    least: float = -np.inf
    most: float = np.inf
    moments: bool = False

    @classmethod
    def fit(cls, column: str, values: Doubles, *, moments: bool = False) -> NumberPart | None:
        """From ``values`` float64[n], NaN where missing; None for one that does not vary."""
        finite = values[np.isfinite(values)]
        if not finite.size:
            return None
        least, most = float(finite.min()), float(finite.max())
        present = values[~np.isnan(values)].clip(least, most)
        # In units of a power of 2, which changes no digit: the squares of 1e300 are more than a float holds.
        exponent = int(np.frexp(max(-least, most))[1])
        present = np.ldexp(present, -exponent)
        mean, scale = (float(np.ldexp(figure, exponent)) for figure in (present.mean(), present.std()))
        return cls(column, mean, scale, least, most, moments) if scale / 2 > 0 else None

    @property
    def width(self) -> int:
        """1."""
        return 1

    def read(self, values: Doubles) -> Floats:
        """float32[n, 1] of ``values`` float64[n]."""
        values = np.where(np.isinf(values), values.clip(self.least, self.most), values)
        with np.errstate(over="ignore"):
            # Of halves, as the difference of two numbers can exceed a float.
            scaled: Doubles = ((values / 2 - self.mean / 2) / (self.scale / 2)).clip(-FARTHEST, FARTHEST)
        scaled = np.where(np.abs(scaled) < _NOT_ZERO, _NOT_ZERO, scaled)
        return np.asarray(np.nan_to_num(scaled, nan=0.0)[:, None], dtype=np.float32)

    def arrays(self) -> Arrays:
        """None."""
        return {}

    def details(self) -> dict[str, Any]:
        """All fields."""
        return {
            "column": self.column,
            "mean": self.mean,
            "scale": self.scale,
            "least": self.least,
            "most": self.most,
            "moments": self.moments,
        }


@dataclass(frozen=True)
class CategoryPart:
    """A dimension a value, all of one height, so that the column's variance adds up to 1.

    ``levels`` are the numbers that the values stand for, where it is a column of few numbers: one that was not there is
    read as the nearest, ``moments`` as :func:`numbers_of` says. ``others`` says whether there were values beyond
    ``values``, which share the last dimension. Where the values are truth values, they are read in any spelling.
    """

    kind: ClassVar[str] = "category"

    column: str
    values: tuple[str, ...]
    others: bool
    height: float
    levels: tuple[float, ...] | None = None
    moments: bool = False

    @classmethod
    def fit(
        cls, column: str, codes: pl.Series, levels: dict[str, float] | None = None, *, moments: bool = False
    ) -> CategoryPart | None:
        """From the codes of the rows, null where missing; None where there is but one.

        ``levels`` are the numbers of all codes, where these stand for numbers.
        """
        counts = codes.drop_nulls().value_counts(name="rows").sort(["rows", codes.name], descending=[True, False])
        if counts.height < 2:
            return None
        kept = counts[codes.name].head(MOST_VALUES).to_list()
        shares = counts["rows"].to_numpy() / len(codes)
        if counts.height > MOST_VALUES:
            shares = np.append(shares[:MOST_VALUES], shares[MOST_VALUES:].sum())
        variance = float((shares * (1 - shares)).sum())
        numbers = tuple(levels[value] for value in kept) if levels is not None else None
        return cls(column, tuple(kept), counts.height > MOST_VALUES, float(1 / np.sqrt(variance)), numbers, moments)

    @property
    def width(self) -> int:
        """Number of values, and one for the others."""
        return len(self.values) + self.others

    def read(self, codes: pl.Series, numbers: Doubles | None = None) -> Floats:
        """float32[n, width] of the rows' codes, null where missing; ``numbers`` float64[n] where these are numbers."""
        place = {value: index for index, value in enumerate(self.values)}
        if self.levels is None and place.keys() <= {"true", "false"}:
            codes = truths_of(codes)
        found = np.array([-1 if code is None else place.get(code, -2) for code in codes.to_list()], dtype=np.int64)
        unknown = found == -2
        if unknown.any():
            if self.levels is not None and numbers is not None:
                levels = np.array(self.levels)
                within = numbers[unknown].clip(levels.min(), levels.max()) / 2  # halves, as a range can exceed a float
                found[unknown] = np.abs(within[:, None] - levels / 2).argmin(axis=1)
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
            "moments": self.moments,
        }


@dataclass(frozen=True, eq=False)
class DensePart:
    """The first principal components of vectors: of a text column's, or of whole rows' (``column`` is then empty).

    ``components`` float64[d, w] lead from ``mean`` float64[w] to ``d`` dimensions. Together they have the variance of
    as many columns as the components are effectively, (sum of variances)² / (sum of squared variances): a text says
    more than a number does.
    """

    kind: ClassVar[str] = "dense"

    column: str
    mean: Doubles
    components: Doubles

    @classmethod
    def fit(cls, column: str, vectors: Floats, *, seed: int) -> DensePart | None:
        """From ``vectors`` float32[n, w] of the rows that have one; None where they do not differ."""
        if len(vectors) < 2 or (vectors.min(axis=0) == vectors.max(axis=0)).all():
            return None
        mean = vectors.mean(axis=0, dtype=np.float64)
        with one_thread():  # several threads add up in another order
            variances, components = _principal(vectors, mean, seed)
        varying = int((variances > _LEAST_VARIANCE * max(variances[0], _LEAST_VARIANCE)).sum())
        if variances[0] <= _LEAST_VARIANCE or not varying:
            return None
        variances, components = variances[:varying], components[:varying]
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
        places = np.flatnonzero(present)
        for start in range(0, len(places), _CHUNK):
            moved = vectors[start : start + _CHUNK].astype(np.float64) - self.mean
            # One component at a time: the order in which a matrix product adds up depends on the number of rows.
            points = np.stack([np.einsum("ij,j->i", moved, component) for component in self.components], axis=1)
            points[:, 0] = np.where(np.abs(points[:, 0]) < _NOT_ZERO, _NOT_ZERO, points[:, 0])
            read[places[start : start + _CHUNK]] = points
        return read

    def arrays(self) -> Arrays:
        """Mean and components."""
        return {"mean": self.mean, "components": self.components}

    def details(self) -> dict[str, Any]:
        """The column."""
        return {"column": self.column}


def _principal(vectors: Floats, mean: Doubles, seed: int) -> tuple[Doubles, Doubles]:
    """The largest variances float64[d], in falling order, and their directions float64[d, w]."""
    from sklearn.decomposition import PCA

    n, width = vectors.shape
    if n < 10 * width:
        pca = PCA(min(TEXT_DIMENSIONS, n, width), random_state=seed, copy=False)
        pca.fit(vectors.astype(np.float64) - mean)
        return pca.explained_variance_, pca.components_
    # What PCA does itself with so many rows, but without a copy of them all in 64 bits.
    covariance = np.zeros((width, width))
    for start in range(0, n, _CHUNK):
        moved = vectors[start : start + _CHUNK].astype(np.float64) - mean
        covariance += moved.T @ moved
    variances, directions = np.linalg.eigh(covariance / (n - 1))
    largest = slice(None, -min(TEXT_DIMENSIONS, width) - 1, -1)
    return variances[largest].clip(0), directions[:, largest].T


def numbers_of(series: pl.Series, *, moments: bool = False) -> Doubles:
    """A column of numbers, or of moments in microseconds, as float64[n]: NaN where missing, infinities as they are.

    Moments beyond the calendar are infinities. With ``moments`` strings are read as moments in ISO 8601, else as
    numbers. A value does not depend on those beside it.
    """
    dtype = series.dtype
    if dtype.is_temporal():
        return _microseconds(series)
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        series = series.cast(pl.String).str.strip_chars()  # the number of a category is no value
        if moments:
            return _microseconds(_read_moments(series))
    elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return np.full(len(series), np.nan)
    return series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float64)


def _microseconds(series: pl.Series) -> Doubles:
    dtype = series.dtype
    unit = 1e-3 if isinstance(dtype, pl.Time) else 86_400e6
    if isinstance(dtype, (pl.Datetime, pl.Duration)):
        unit = _MICROSECONDS[dtype.time_unit]
    physical = series.to_physical().cast(pl.Float64).fill_null(np.nan).to_numpy()
    values: Doubles = physical * unit if unit >= 1 else physical / 1e3
    low, high = _SPAN if isinstance(dtype, pl.Duration) else _CALENDAR
    values = np.where(values < low, -np.inf, values)
    return np.where(values > high, np.inf, values)


def _read_moments(texts: pl.Series) -> pl.Series:
    """Null where a text is no moment in ISO 8601."""
    read: dict[str, datetime] = {}
    for text in texts.drop_nulls().unique().to_list():
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            continue
        read[text] = when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
    amounts = {text: (when - _EPOCH) // timedelta(microseconds=1) for text, when in read.items()}
    return texts.replace_strict(amounts, default=None, return_dtype=pl.Int64).cast(pl.Datetime("us"))


def codes_of(series: pl.Series) -> pl.Series:
    """A column of categories as texts (name ``code``), null where missing or blank."""
    dtype = series.dtype
    if dtype == pl.String:
        codes = series.str.replace_all(r"[\s\x00-\x1f\x7f-\x9f]+", " ").str.strip_chars(" ")
        return codes.replace("", None).alias("code")
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return _written(series).alias("code")
    if dtype == pl.Float32:
        series = series.cast(pl.String).cast(pl.Float64)  # a 32-bit 0.1 stays 0.1
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


def truths_of(codes: pl.Series) -> pl.Series:
    """Codes with every spelling of a truth value as ``true`` and ``false``."""
    spelled = {code: _TRUTHS.get(code.lower(), code) for code in codes.drop_nulls().unique().to_list()}
    return codes.replace_strict(spelled, default=None, return_dtype=pl.String) if spelled else codes


def texts_of(series: pl.Series) -> pl.Series:
    """A column of texts on one line each, null where missing or blank."""
    if not isinstance(series.dtype, (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        return _written(series)
    distinct = series.cast(pl.String).unique().drop_nulls().to_list()
    clean = {text: collapse(text) or None for text in distinct}
    return series.cast(pl.String).replace_strict(clean, default=None, return_dtype=pl.String)


def _written(series: pl.Series) -> pl.Series:
    """Values that are no strings as a row's text has them."""
    plan = ColumnPlan(name=series.name, label="", kind="text", values={}, unit=None, verbalize=False, sensitive=False)
    return column_texts(series, plan, TextSettings())


def few_numbers(values: Doubles) -> dict[str, float] | None:
    """Code -> number of a column of at most FEW_NUMBERS different ones; None where there are more.

    Infinities count as the finite extremes; where there is nothing else, as -1 and 1.
    """
    present = values[~np.isnan(values)]
    finite = present[np.isfinite(present)]
    distinct = np.unique(finite if len(finite) else np.sign(present))
    return {code_of(float(value)): float(value) for value in distinct} if len(distinct) <= FEW_NUMBERS else None


def number_codes(values: Doubles) -> pl.Series:
    """Numbers float64[n] as the codes of :func:`few_numbers`, null where missing."""
    distinct = {float(v): code_of(float(v)) for v in np.unique(values[~np.isnan(values)])}
    return pl.Series("code", [None if v != v else distinct[v] for v in values.tolist()], dtype=pl.String)


def is_measured(plan: ColumnPlan) -> bool:
    """Whether a column's values are numbers or moments, and no codes with names."""
    return plan.kind in ("number", "datetime") and not plan.values
