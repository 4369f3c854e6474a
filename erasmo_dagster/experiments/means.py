"""What pictures, ranks and tables of an experiment have in common: its figures, their means, and its variants.

The frame has a row a cell (see :func:`erasmo_dagster.experiments.report.write_report`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from erasmo_dagster.method.profile_plots import FIGURE_NAMES
from erasmo_dagster.method.quality import METRICS, PAPER_METRICS

COSTS = ("train_seconds", "embed_seconds", "cluster_seconds")
SECONDS = "seconds"  # the sum of the three
KNOWN = {**METRICS, **PAPER_METRICS}
# Figures of distances between vectors: in another vector space the same segments have others.
_DISTANCES = ("silhouette", "calinski_harabasz", "davies_bouldin")
WITHIN_ONE_SPACE = frozenset({*_DISTANCES, *(f"paper_{name}" for name in _DISTANCES)})
# What judges segments across encoders, the best judge first: known groups, then the table's own columns.
JUDGES = ("ari", "gower_silhouette")
_NAMES = {
    **FIGURE_NAMES,
    "ari": "ARI",
    "nmi": "NMI",
    "ami": "AMI",
    "v_measure": "V-measure",
    "f1_weighted": "F1, weighted",
    "f1_macro": "F1, macro",
    "f1_weighted_majority": "F1 by majority",
    "f1_weighted_centroid": "F1 by centroid",
    "accuracy_majority": "accuracy by majority",
    "accuracy_centroid": "accuracy by centroid",
    SECONDS: "seconds",
}
_NO_FIGURES = frozenset({*COSTS, "rows", "dimensions", "segments", "k", "seed", "train_tokens", "embed_tokens"})
_AMOUNT = re.compile(r"([^\d]*[^\d\s:=])[\s:=]+(\d+(?:[._]\d+)*)\s*(%?)")


def figure_name(figure: str) -> str:
    """The figure as people call it."""
    plain_name = figure.removeprefix("paper_")
    name = _NAMES.get(plain_name) or plain_name.replace("_", " ")
    return name if plain_name == figure else f"{name}, paper's"


def higher_is_better(figure: str) -> bool | None:
    """Whether a high value is the good one; None where neither is, or the figure is not known."""
    if figure == SECONDS:
        return False
    return KNOWN[figure].higher_is_better if figure in KNOWN else None


def bounded(figure: str) -> bool:
    """Whether the figure has a scale of its own, so that values of two datasets may share one."""
    return figure in KNOWN and max(abs(KNOWN[figure].low), abs(KNOWN[figure].high)) <= 1


def figures_in(frame: pl.DataFrame) -> list[str]:
    """Figures that some finished cell has, in the order in which the method lists them, others last by name.

    Counts (rows, segments) are none.
    """
    done = finished(frame)
    found = [
        name
        for name, kind in frame.schema.items()
        if kind.is_float()
        and name not in _NO_FIGURES
        and not name.endswith("_rows")
        and done[name].is_finite().fill_null(False).any()
    ]
    order = {name: place for place, name in enumerate(KNOWN)}
    return sorted(found, key=lambda name: (order.get(name, len(order)), name))


def finished(frame: pl.DataFrame) -> pl.DataFrame:
    """The cells that ended well, with their ``seconds``: training, embedding and clustering together."""
    return frame.filter(pl.col("status") == "done").with_columns(
        pl.when(pl.any_horizontal(pl.col(COSTS).is_not_null()))
        .then(pl.sum_horizontal(pl.col(COSTS).cast(pl.Float64)))
        .alias(SECONDS)
    )


def means(frame: pl.DataFrame, by: Sequence[str], figures: Sequence[str]) -> pl.DataFrame:
    """Means of ``figures`` over the finished cells of each group, groups in the order in which they first appear.

    A value that is not finite counts as none; the mean is null where a group has no other. Beside each mean of
    ``f`` stand ``f_sd``, the standard deviation (null below two values), and, once, ``cells``.
    """
    values = {f: pl.when(pl.col(f).is_finite()).then(pl.col(f).cast(pl.Float64)) for f in figures}
    return (
        finished(frame)
        .group_by(by, maintain_order=True)
        .agg(
            *(value.mean().alias(f) for f, value in values.items()),
            *(value.std().alias(f"{f}_sd") for f, value in values.items()),
            pl.len().alias("cells"),
        )
    )


def kinds_in(frame: pl.DataFrame, column: str) -> list[str]:
    """The values of a column, in the order in which they first appear."""
    return [str(value) for value in frame[column].unique(maintain_order=True).drop_nulls().to_list()]


def amount_of(variant: str) -> tuple[str, float] | None:
    """What a variant changes and by how much; None where it is no single amount.

    >>> amount_of("missing 0.2"), amount_of("rows 1000"), amount_of("as it is")
    (('missing', 0.2), ('rows', 1000.0), None)
    """
    if (match := _AMOUNT.fullmatch(variant.strip())) is None:
        return None
    try:
        amount = float(match[2])
    except ValueError:
        return None
    return match[1], amount / 100 if match[3] else amount


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """The cells on tables that no amount was changed in; all cells of a dataset where it has no such."""
    changed = pl.col("variant").is_in([variant for variant in kinds_in(frame, "variant") if amount_of(variant)])
    return frame.filter(~changed | changed.all().over("dataset"))


def amounts_in(frame: pl.DataFrame) -> list[str]:
    """What the variants change by an amount, where a line can be drawn: by two amounts, the plain one among them."""
    seen: dict[str, dict[str, set[float | None]]] = {}
    tables = list(frame.select("dataset", "variant").unique(maintain_order=True).iter_rows())
    for dataset, variant in tables:
        if (found := amount_of(variant)) is not None:
            bare: set[float | None] = {None} if any(d == dataset and not amount_of(v) for d, v in tables) else set()
            seen.setdefault(found[0], {}).setdefault(dataset, bare).add(found[1])
    return [kind for kind, by_dataset in seen.items() if any(len(amounts) > 1 for amounts in by_dataset.values())]
