"""Pictures are small PNG files that show what they should."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist
from sklearn.datasets import make_blobs

from erasmo_dagster.method.candidates import Candidate
from erasmo_dagster.method.clustering import SweepPoint
from erasmo_dagster.method.plots import (
    COLOURS,
    NOISE,
    k_sweep,
    leaderboard,
    loss_curve,
    project_2d,
    projection,
    segment_sizes,
)

MAX_BYTES = 60_000


def opened(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    assert len(png) < MAX_BYTES
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert picture.width == 700
    assert 60 < picture.height < 600
    return picture


def pixels(picture: Image.Image, colour: str) -> int:
    """Pixels that are nearly of this colour: a palette of 128 colours rounds."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(np.asarray(picture).astype(int) - wanted).max(axis=2) < 12).sum())


def points(*losses: tuple[int, float | None, float | None]) -> list[SimpleNamespace]:
    return [SimpleNamespace(step=i, tokens=n, train_loss=t, eval_loss=e) for i, (n, t, e) in enumerate(losses)]


def test_loss_curve_shows_both_losses() -> None:
    picture = opened(loss_curve(points((0, None, 4.0), (1000, 3.0, 3.1), (2000, 2.0, 2.5), (3000, 1.5, 2.6))))
    assert pixels(picture, COLOURS[0]) > 300  # held-out rows
    assert pixels(picture, COLOURS[4]) > 300  # training rows
    assert pixels(picture, COLOURS[5]) > 20  # the lowest, ringed


def test_loss_curve_without_held_out_rows() -> None:
    picture = opened(loss_curve(points((0, None, None), (1000, 3.0, None), (2000, 2.0, None))))
    assert pixels(picture, COLOURS[4]) > 300
    assert pixels(picture, COLOURS[0]) == pixels(picture, COLOURS[5]) == 0


@pytest.mark.parametrize("losses", [[], [(0, None, 4.2)], [(0, None, None)]])
def test_loss_curve_of_hardly_anything(losses: list[tuple[int, float | None, float | None]]) -> None:
    opened(loss_curve(points(*losses)))


def test_projection_colours_the_segments() -> None:
    vectors, labels = make_blobs((150, 120, 74), n_features=30, random_state=0)
    picture = opened(projection(vectors.astype(np.float32), labels, seed=0))
    assert all(pixels(picture, colour) > 400 for colour in COLOURS[:3])
    assert pixels(picture, COLOURS[3]) == 0


def test_projection_of_many_rows_and_segments_stays_small_and_repeats() -> None:
    vectors = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    labels = np.random.default_rng(1).integers(-1, 60, 20_000)
    first = projection(vectors, labels, seed=0)
    opened(first)
    assert first == projection(vectors, labels, seed=0)


def test_noise_is_grey() -> None:
    vectors, labels = make_blobs((50, 50), n_features=3, random_state=0)
    picture = opened(projection(vectors.astype(np.float32), labels - 1, seed=0))
    assert pixels(picture, NOISE) > 100
    assert pixels(picture, COLOURS[0]) > 100
    assert pixels(picture, COLOURS[1]) == 0


@pytest.mark.parametrize("vectors", [np.zeros((1, 4)), np.ones((6, 4)), np.arange(5.0)[:, None]], ids=str)
def test_projection_of_hardly_anything(vectors: np.ndarray) -> None:
    opened(projection(vectors.astype(np.float32), np.zeros(len(vectors), int), seed=0))
    places = project_2d(vectors, seed=0)
    assert places.shape == (len(vectors), 2)
    assert np.isfinite(places).all()


def test_two_dimensions_hold_what_lies_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(80, 2)) @ np.linalg.qr(rng.normal(size=(12, 2)))[0].T + 5
    places = project_2d(plane.astype(np.float32), seed=0)
    np.testing.assert_allclose(pdist(places), pdist(plane), rtol=1e-3, atol=1e-4)
    assert places[:, 0].var() > places[:, 1].var()
    assert places.tobytes() == project_2d(plane.astype(np.float32), seed=0).tobytes()


def test_bars_are_as_long_as_segments_are_large() -> None:
    picture = opened(segment_sizes({0: 200, 1: 100, 2: 50}))
    areas = [pixels(picture, colour) for colour in COLOURS[:3]]
    assert areas[0] == pytest.approx(2 * areas[1], rel=0.05)
    assert areas[1] == pytest.approx(2 * areas[2], rel=0.05)


@pytest.mark.parametrize("counts", [{0: 1}, {0: 2, -1: 3}, {i: 1000 - i for i in range(60)}])
def test_bars_of_few_and_of_many_segments(counts: dict[int, int]) -> None:
    opened(segment_sizes(counts))


def sweep(*bits: float | None, smallest: int = 50) -> list[SweepPoint]:
    return [SweepPoint(k, 1 / k, 10.0 * k, 2.0 + k % 3, smallest, b) for k, b in enumerate(bits, start=2)]


def test_sweep_marks_the_chosen_k() -> None:
    points = sweep(*[None] * 9)
    chosen = opened(k_sweep(points, 4))
    assert pixels(chosen, COLOURS[0]) > 300
    assert pixels(chosen, COLOURS[5]) > 60
    assert chosen.tobytes() != opened(k_sweep(points, 5)).tobytes()
    opened(k_sweep(points[:1], 2))


def test_sweep_shows_bits_first_where_there_are_any() -> None:
    plain, bits = opened(k_sweep(sweep(None, None, None), 3)), opened(k_sweep(sweep(1.0, 2.0, 2.1), 3))
    assert bits.height > plain.height + 100
    assert pixels(bits, COLOURS[5]) > pixels(plain, COLOURS[5]) + 60  # chosen in one panel more, and in its legend


def test_sweep_draws_a_line_at_what_is_enough_only_where_bits_decide() -> None:
    points = sweep(1.0, 2.0, 2.1)

    def dashes(choose_by: str, rows: int | None = None) -> int:
        picture = opened(k_sweep(points, 3, choose_by=choose_by, rows=rows))
        return int((np.abs(np.asarray(picture).astype(int) - 0x88).max(axis=2) < 12).sum())

    assert dashes("bits_saved") > dashes("silhouette") + 150
    nothing = k_sweep(sweep(-1.0, -2.0), 2, choose_by="bits_saved")  # nothing is enough of what is not saved
    opened(nothing)


def test_sweep_marks_what_has_too_small_a_segment() -> None:
    points = [*sweep(1.0, 2.0), *[SweepPoint(4, 0.1, 9.0, 2.0, 3, 5.0)]]
    marked = opened(k_sweep(points, 3, rows=1000, choose_by="bits_saved"))
    assert marked.tobytes() != opened(k_sweep(points, 3, rows=100, choose_by="bits_saved")).tobytes()
    every = [SweepPoint(k, 0.1, 9.0, 2.0, 1, 1.0) for k in (2, 3)]
    opened(k_sweep(every, 2, rows=1000, choose_by="bits_saved"))


def test_the_reason_stands_below_the_sweep_in_as_many_lines_as_it_takes() -> None:
    points = sweep(1.0, 2.0)
    without = opened(k_sweep(points, 3))
    one, many = (opened(k_sweep(points, 3, reason="because $ of $ it " * n)) for n in (1, 20))
    assert without.height < one.height < many.height
    ink = (np.asarray(many)[-40:].max(axis=2) < 140).any(axis=0)
    assert ink.sum() > 100
    assert not ink[-4:].any()  # nothing runs out of the picture


def board(*given: tuple[float | None, str]) -> list[Candidate]:
    return [Candidate(f"way {i}, of some length", bits, 0.2, 1.0, refused) for i, (bits, refused) in enumerate(given)]


def test_the_leaderboard_has_a_bar_for_each_candidate() -> None:
    picture = opened(leaderboard(board((4.0, ""), (2.0, ""), (1.0, "")), "way 0, of some length"))
    assert pixels(picture, COLOURS[5]) == pytest.approx(4 * pixels(picture, COLOURS[4]) / 3, rel=0.05)
    other = opened(leaderboard(board((4.0, ""), (2.0, ""), (1.0, "")), "way 2, of some length"))
    assert pixels(other, COLOURS[4]) == pytest.approx(6 * pixels(other, COLOURS[5]), rel=0.05)


def test_what_may_not_win_is_hatched_and_says_why() -> None:
    plain = opened(leaderboard(board((4.0, ""), (2.0, "")), "way 0, of some length"))
    refused = opened(leaderboard(board((4.0, ""), (2.0, "a segment holds 0.4% of the rows")), "way 0, of some length"))
    assert pixels(plain, COLOURS[4]) > 1000
    assert pixels(refused, COLOURS[4]) == 0
    assert pixels(refused, NOISE) > 150
    long = "Got $1 of something very long that no picture has room for, " * 5
    undrawn = opened(leaderboard(board((4.0, ""), (None, long)), "way 0, of some length"))
    ink = (np.asarray(undrawn)[:-60, -4:].max(axis=2) < 140).any()  # above the axis
    assert not ink


@pytest.mark.parametrize("bits", [(0.0,), (-1.0, -2.0), (None, None), (1e-12, -1e-12), (3.0, *[None] * 9)])
def test_leaderboards_of_hardly_anything(bits: tuple[float | None, ...]) -> None:
    opened(leaderboard(board(*((b, "" if b is not None else "no") for b in bits)), "way 0, of some length"))
