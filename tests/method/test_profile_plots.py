"""Pictures of profiles show what they should, whatever the names and numbers are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from erasmo_dagster.method.plots import COLOURS, NOISE
from erasmo_dagster.method.profile_plots import (
    GONE,
    LESS,
    MORE,
    NEW,
    HeatCell,
    distributions,
    heat_cells,
    heat_map,
    metrics_over_versions,
    movement,
)

HOSTILE = "$x^2$ $ <b> \x1b\u202e 你好 😀 אבג \\frac{1}{ _a " + "x" * 300
FIGURES = {
    **{"separation": 0.2, "gower_silhouette": 0.4, "tree_accuracy": 0.9, "stability": 0.8, "silhouette": 0.3},
    **{"calinski_harabasz": 190.0, "davies_bouldin": 1.1, "ari": 0.5},
}


def opened(png: bytes, dpi: int = 100) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert picture.width == 7 * dpi
    assert 60 < picture.height < 30 * dpi
    return picture


def pixels(picture: Image.Image, colour: str, within: int = 14) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(np.asarray(picture).astype(int) - wanted).max(axis=2) < within).sum())


def cell(segment: int, column: str, strength: float, text: str = "+1.2 sd", name: str = "long bill") -> HeatCell:
    return HeatCell(segment, f"{name} {segment}", column, column.replace("_", " "), strength, text)


def values(*rows: tuple[int, str, str, int, int]) -> pl.DataFrame:
    names = ["segment_id", "column_name", "value", "value_order", "rows"]
    return pl.DataFrame(list(rows), schema=names, orient="row")


def trait(segment: int, column: str, strength: float, **more: Any) -> dict[str, Any]:
    plain = {"kind": "number", "value": None, "in_segment": 40.0, "effect": -1.26}
    return {"segment_id": segment, "column_name": column, "strength": strength, **plain, **more}


def test_a_cell_is_the_strongest_trait_of_its_column() -> None:
    cells = heat_cells(
        [
            trait(0, "island", 0.2, kind="category", value="Dream", in_segment=0.3),
            trait(0, "island", 0.8, kind="category", value="Biscoe", in_segment=0.951),
            trait(1, "mass", -0.7),
            trait(1, "note", 0.5, kind="term", value="refund", in_segment=0.4),
            trait(1, "sex", 0.3, kind="missing", in_segment=0.25),
            trait(5, "mass", 0.9),
        ],
        {0: "a", 1: "b"},
        {"mass": "body mass"},
    )
    told = {(c.segment_id, c.label): c.text.replace("\u00a0", " ") for c in cells}
    assert told == {
        (0, "island"): "Biscoe 95 %",
        (1, "body mass"): "−1.3 sd",
        (1, "note"): "“refund” 40 %",
        (1, "sex"): "missing 25 %",
    }


def test_heat_is_signed() -> None:
    picture = opened(heat_map([cell(0, "mass", 1.0), cell(1, "mass", -1.0)]))
    assert pixels(picture, MORE) > 3000
    assert pixels(picture, LESS) > 3000
    warm = opened(heat_map([cell(0, "mass", 1.0), cell(1, "mass", 0.9)]))
    assert pixels(warm, LESS) < pixels(picture, LESS) / 4  # what is left is the scale's


@pytest.mark.parametrize("segments", [1, 2, 7, 12, 40])
def test_heat_maps_of_few_and_of_many(segments: int) -> None:
    cells = [cell(s, f"column_{c}", np.sin(s + c), "Torgersen 95\u00a0%") for s in range(segments) for c in range(20)]
    first = heat_map(cells)
    opened(first)
    assert first == heat_map(cells)


def test_a_heat_map_of_nothing_says_so() -> None:
    opened(heat_map([]))


def test_shares_are_as_wide_as_they_are_large() -> None:
    held = values((0, "sex", "f", 0, 30), (0, "sex", "m", 1, 10), (1, "sex", "f", 0, 5), (1, "sex", "m", 1, 15))
    picture = opened(distributions(held, {0: "a", 1: "b"}, columns=["sex"], labels={"sex": "sex"}))
    first, second = pixels(picture, COLOURS[0]), pixels(picture, COLOURS[1])
    assert first == pytest.approx(second, rel=0.05)  # 75 % and 25 % against 25 % and 75 %
    held = values((0, "sex", "f", 0, 30), (0, "sex", "m", 1, 10))
    picture = opened(distributions(held, {0: "a"}, columns=["sex"], labels={}))
    assert pixels(picture, COLOURS[0]) == pytest.approx(3 * pixels(picture, COLOURS[1]), rel=0.1)


def test_rare_categories_are_grey_together() -> None:
    held = values(*((0, "job", f"job {i}", i, 20 - i) for i in range(15)))
    picture = opened(distributions(held, {0: "a"}, columns=["job"], labels={}))
    assert pixels(picture, NOISE) > 500
    assert all(pixels(picture, colour) > 100 for colour in COLOURS)
    some = opened(distributions(held.head(7), {0: "a"}, columns=["job"], labels={}))
    assert pixels(some, NOISE) < 200


def test_bins_of_numbers_go_from_light_to_dark() -> None:
    bins = ["-5 to 1.5", "1.5 to 3", "3 to 1e+06"]
    held = values(*((0, "mass", name, place, 10) for place, name in enumerate(bins)), (0, "mass", "(missing)", 9, 5))
    picture = opened(distributions(held, {0: "a"}, columns=["mass"], labels={}))
    assert pixels(picture, COLOURS[1]) == pixels(picture, COLOURS[2]) == 0
    row = np.asarray(picture.convert("L"))[picture.height // 3]
    shades = [int(v) for v in dict.fromkeys(row.tolist()) if v not in range(200, 256)]
    assert shades == sorted(shades, reverse=True)


@pytest.mark.parametrize("segments", [2, 12, 40])
def test_distributions_of_few_and_of_many(segments: int) -> None:
    rows = [(s, f"c{c}", f"v{v}", v, 1 + (s + v) % 5) for s in range(-1, segments) for c in range(9) for v in range(4)]
    names = {s: f"short bill, Torgersen island {s}" for s in range(-1, segments)}
    opened(distributions(values(*rows), names, columns=[f"c{c}" for c in range(9)], labels={}))


@pytest.mark.parametrize("columns", [[], ["absent"]])
def test_distributions_of_nothing(columns: list[str]) -> None:
    empty = values((0, "a", "b", 0, 1)).clear()
    opened(distributions(empty, {}, columns=columns, labels={}))
    opened(distributions(empty, {0: "a"}, columns=columns, labels={}))


@pytest.mark.parametrize("versions", [1, 2, 50])
def test_figures_over_versions(versions: int) -> None:
    logged = [(v, {name: value + v / 100 for name, value in FIGURES.items()}) for v in range(1, versions + 1)]
    picture = opened(metrics_over_versions(logged))
    assert pixels(picture, COLOURS[5]) > 5 * 20  # the last of each
    assert (pixels(picture, COLOURS[0]) > 300) == (versions > 1)


@pytest.mark.parametrize(("known", "rows"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_figures_over_versions_stand_four_in_a_row(known: int, rows: int) -> None:
    picture = opened(metrics_over_versions([(v, dict(list(FIGURES.items())[:known])) for v in (1, 2, 3)]))
    assert picture.height == pytest.approx(210 * rows, abs=2)
    assert pixels(picture, COLOURS[5]) > known * 20


def test_figures_that_are_not_there_are_left_out() -> None:
    gaps = [(1, {"silhouette": 0.1}), (2, {}), (3, {"silhouette": float("nan"), "rows": 4.0}), (3, {"ari": 0.2})]
    opened(metrics_over_versions(gaps))
    opened(metrics_over_versions([]))
    opened(metrics_over_versions([(1, {"rows": 4.0})]))


def test_rows_that_stayed_are_grey_and_movers_are_not() -> None:
    stayed = opened(movement([("a", "a", 90), ("b", "b", 9)]))
    moved = opened(movement([("a", "a", 90), ("a", "b", 5), ("b", "b", 9), (NEW, "a", 3), ("b", GONE, 2)]))
    blue = "#084889"
    assert pixels(stayed, "#EDEDED", 4) > 5000
    assert pixels(moved, blue, 40) > 1000
    assert pixels(stayed, blue, 40) == 0


@pytest.mark.parametrize("segments", [0, 1, 12, 40])
def test_movement_of_few_and_of_many(segments: int) -> None:
    pairs = [(f"segment {s}", f"segment {t}", 1 + s * t) for s in range(segments) for t in range(segments)]
    pairs += [(NEW, f"segment {s}", 3) for s in range(segments)]
    opened(movement(pairs))


def test_names_and_values_may_hold_anything() -> None:
    opened(heat_map([HeatCell(0, HOSTILE, HOSTILE, HOSTILE, 0.5, HOSTILE), cell(1, "mass", 0.1)]))
    held = values(*((s, HOSTILE, f"{v}{HOSTILE}{v}", v, 3) for s in (0, 1) for v in range(9)), (0, HOSTILE, "", 10, 1))
    opened(distributions(held, {0: HOSTILE, 1: " \n "}, columns=[HOSTILE], labels={HOSTILE: HOSTILE}))
    opened(movement([(HOSTILE, HOSTILE, 3), (HOSTILE, "$", 1), ("", GONE, 10**12)]))


def test_pictures_are_as_fine_as_asked() -> None:
    opened(heat_map([cell(0, "mass", 0.5)], dpi=150), 150)
    opened(metrics_over_versions([(1, FIGURES)], dpi=150), 150)
    opened(movement([("a", "a", 1)], dpi=150), 150)
    opened(distributions(values((0, "a", "b", 0, 1)), {0: "s"}, columns=["a"], labels={}, dpi=150), 150)
