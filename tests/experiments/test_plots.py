"""Pictures of an experiment are small PNG files that show what they should, whatever the grid."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from erasmo_dagster.experiments.heat import MOST_COLUMNS, heat_layout, heat_map
from erasmo_dagster.experiments.means import amount_of, amounts_in, plain
from erasmo_dagster.experiments.plots import by_amount, cost, critical_difference
from erasmo_dagster.experiments.ranks import rank_arms
from erasmo_dagster.method.plots import COLOURS
from tests.experiments.frames import failed, grid

LONG = "ERASMO base, fine-tuned, shuffled, mean of the last layer, canonical order of clauses"
ENCODERS = (LONG, "one-hot $x_1$ {0} \\frac", "你好 😀", *(f"encoder {i}" for i in range(12)))
DATASETS = tuple(f"dataset {i} with a name" for i in range(10))
FEW = tuple(f"d{i}" for i in range(6))


def opened(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    assert len(png) < 80_000
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert picture.width == 700
    assert 60 < picture.height < 1000
    return picture


def pixels(picture: Image.Image, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(np.asarray(picture).astype(int) - wanted).max(axis=2) < 12).sum())


def white_edges(picture: Image.Image) -> bool:
    """Whether nothing is cut at the left and right."""
    pixel = np.asarray(picture)
    return bool((pixel[:, 0] > 200).all() and (pixel[:, -1] > 200).all())


def some_fail(row: dict[str, Any]) -> dict[str, Any]:
    return failed(row) if int(row["cell"], 16) % 5 == 0 else {**row, "gower_silhouette": None}


@pytest.mark.parametrize(
    ("datasets", "encoders", "algorithms", "figure"),
    [
        (["zoo"], ["TF-IDF"], ["kmeans"], "ari"),
        (["zoo", "penguins"], ["a", "b", "c"], ["kmeans", "agglomerative", "spectral, rbf"], "calinski_harabasz"),
        (["zoo", "penguins"], ["a", "b", "c"], ["kmeans", "agglomerative", "spectral, rbf"], "gower_silhouette"),
        (DATASETS, ENCODERS, ["kmeans"], "davies_bouldin"),
        (["zoo", LONG], ["a", "b"], [f"algorithm {i}" for i in range(13)], "silhouette"),
    ],
    ids=["one", "few", "nulls", "many", "algorithms"],
)
def test_every_grid_has_a_heat_map(
    datasets: list[str], encoders: list[str], algorithms: list[str], figure: str
) -> None:
    frame = grid(datasets, encoders, algorithms, seeds=[0], change=some_fail)
    assert white_edges(opened(heat_map(frame, figure)))


def test_the_heat_map_is_darkest_where_it_is_best() -> None:
    frame = grid(["zoo"], ["good", "bad"])
    for figure in ("ari", "davies_bouldin"):
        picture = np.asarray(opened(heat_map(frame, figure)).convert("L")).astype(int)
        row = picture[:, 200:260].mean(axis=1)
        dark, light = int(row.argmin()), np.flatnonzero((row > 200) & (row < 250))
        assert row[dark] < 100
        assert light.size > 10
        assert dark < light.mean()  # the first encoder is the good one, and drawn first


@pytest.mark.parametrize(
    ("frame", "rows", "columns", "averaged"),
    [
        (grid(), "encoder", ("dataset",), ()),
        (grid(algorithms=["a", "b"]), "encoder", ("dataset", "algorithm"), ()),
        (grid(encoders=["e"], algorithms=["a", "b"]), "algorithm", ("dataset",), ()),
        (grid(algorithms=[f"a{i}" for i in range(9)]), "algorithm", ("dataset", "encoder"), ()),
        (grid(DATASETS, algorithms=["a", "b"]), "encoder", ("dataset",), ("algorithm",)),
        (grid(variants=["as it is", "scrambled"]), "encoder", ("dataset", "variant"), ()),
    ],
    ids=range(6),
)
def test_a_heat_map_shows_the_most_that_fits(
    frame: pl.DataFrame, rows: str, columns: tuple[str, ...], averaged: tuple[str, ...]
) -> None:
    layout = heat_layout(frame)
    assert (layout.rows, layout.columns, layout.averaged) == (rows, columns, averaged)
    assert frame.select(layout.columns).n_unique() <= MOST_COLUMNS


def test_a_frame_in_which_all_failed_is_drawn() -> None:
    frame = grid(change=failed)
    for png in (heat_map(frame, "ari"), cost(frame, "ari"), by_amount(frame, "rows", "ari")):
        opened(png)


@pytest.mark.parametrize("encoders", [["a", "b", "c"], ENCODERS], ids=["few", "many"])
def test_the_diagram_has_every_arm(encoders: list[str]) -> None:
    ranking = rank_arms(grid(FEW, encoders), "ari")
    assert ranking.p_value is not None
    assert ranking.p_value < 0.05
    picture = opened(critical_difference(ranking))
    assert white_edges(picture)
    assert pixels(picture, COLOURS[0]) > 12 * len(encoders)  # a dot each


def test_one_bar_joins_arms_that_do_not_differ() -> None:
    same = grid(FEW, change=lambda row: {**row, "ari": 0.5})
    opened(critical_difference(rank_arms(same, "ari")))
    with pytest.raises(ValueError, match="No test"):
        critical_difference(rank_arms(grid(), "ari"))


def test_the_diagram_leaves_no_figure_open() -> None:
    from matplotlib import pyplot

    critical_difference(rank_arms(grid(FEW), "ari"))
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("figure", ["ari", "davies_bouldin"])
def test_cost_marks_each_encoder_and_the_front(figure: str) -> None:
    dear = opened(cost(grid(["zoo"]), figure))
    assert all(pixels(dear, colour) > 20 for colour in COLOURS[:3])
    steps = {"ERASMO": 50.0, "TF-IDF": 5.0, "one-hot": 0.5}
    front = opened(cost(grid(["zoo"], change=lambda row: {**row, "embed_seconds": steps[row["encoder"]]}), figure))
    # Where the cheapest is the best there is no step.
    assert pixels(front, "#BBBBBB") > pixels(dear, "#BBBBBB") + 300


def test_cost_of_many_arms_of_no_seconds_and_of_unknown_ones() -> None:
    opened(cost(grid(DATASETS, ENCODERS, seeds=[0], change=some_fail), "ari"))
    opened(cost(grid(change=lambda row: {**row, "embed_seconds": 0.0, "cluster_seconds": 0.0}), "ari"))
    opened(cost(grid(change=lambda row: {**row, "embed_seconds": None, "cluster_seconds": None}), "ari"))


VARIANTS = ["as it is", "missing 0.1", "missing 0.4", "rows 100", "rows 20000", "duplicate columns 3", "missing 0.1, noise 0.1"]  # fmt: skip


def test_amounts_are_read_from_the_variants_names() -> None:
    assert [amount_of(name) for name in VARIANTS] == [
        *(None, ("missing", 0.1), ("missing", 0.4), ("rows", 100.0), ("rows", 20000.0), ("duplicate columns", 3.0)),
        None,
    ]
    assert amount_of("missing 20 %") == ("missing", 0.2)
    assert amount_of("1.2.3") is amount_of("v 1.2.3") is amount_of("") is None
    assert amounts_in(grid(variants=VARIANTS)) == ["missing", "rows", "duplicate columns"]
    assert amounts_in(grid(variants=["missing 0.1"])) == []
    assert set(plain(grid(variants=VARIANTS))["variant"]) == {"as it is", "missing 0.1, noise 0.1"}


def test_a_dataset_that_has_no_plain_table_is_not_lost() -> None:
    both = pl.concat(
        [grid(["bank"], variants=["rows 100", "rows 300"]), grid(["zoo"], variants=["as it is", "rows 50"])]
    )
    kept = plain(both).select("dataset", "variant").unique().rows()
    assert set(kept) == {("bank", "rows 100"), ("bank", "rows 300"), ("zoo", "as it is")}


@pytest.mark.parametrize("kind", ["missing", "rows", "duplicate columns"])
@pytest.mark.parametrize("figure", ["ari", "seconds"])
def test_lines_go_over_amounts(kind: str, figure: str) -> None:
    picture = opened(by_amount(grid(variants=VARIANTS), kind, figure))
    assert all(pixels(picture, colour) > 100 for colour in COLOURS[:3])
    opened(by_amount(grid(DATASETS, ENCODERS, variants=VARIANTS[:3], seeds=[0], change=some_fail), kind, figure))
