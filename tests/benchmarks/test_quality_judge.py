from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import judge, memory
from benchmarks.quality.judge import external, judged, label_free, same_segment, stability
from benchmarks.quality.memory import Peak, resident, so_far
from tests.benchmarks.planted import drawn_of, planted


def test_external_figures_by_hand() -> None:
    labels, truth = np.array([0, 0, 1, 1, 1, 2]), ("a", "a", "b", "b", "a", "b")
    found = external(labels, truth)
    assert found["acc"] == pytest.approx(4 / 6)  # 0 is a, 1 is b, 2 is none
    # Pairs together in both: 2; in labels 4, in groups 6, of 15.
    assert found["ari"] == pytest.approx((2 - 4 * 6 / 15) / ((4 + 6) / 2 - 4 * 6 / 15))
    assert external(labels, None) == {"ari": None, "nmi": None, "acc": None}


def test_figures_of_the_tables_own_columns_know_good_segments_from_random_ones(tmp_path: Path) -> None:
    drawn = drawn_of(planted(), tmp_path)
    good, bad = np.arange(90) % 3, np.random.default_rng(0).integers(0, 3, 90)
    for name, least in (("gower_silhouette", 0.4), ("eta2", 0.5)):
        figures = [label_free(drawn.sample, labels)[name] for labels in (good, bad)]
        assert figures[0] is not None
        assert figures[1] is not None
        assert figures[0] > least > 0.2 > figures[1]
    assert judged(drawn, good)["ari"] == 1.0


def test_a_figure_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> float:
        raise ValueError("no figure today")

    monkeypatch.setattr(judge, "_separation", fail)
    drawn = drawn_of(planted(), tmp_path)
    found = judged(drawn, np.arange(90) % 3)
    assert found["eta2"] is None
    assert found["ari"] == 1.0
    assert "eta2: ValueError: no figure today" in capsys.readouterr().err


def test_stability_is_of_two_other_seeds_and_two_subsets() -> None:
    calls: list[tuple[int, int]] = []
    groups = np.arange(100) % 4

    def refit(rows: np.ndarray, seed: int) -> np.ndarray:
        calls.append((len(rows), seed))
        assert np.array_equal(rows, np.sort(rows))
        return (groups[rows] + seed) % 4  # other numbers, the same segments

    assert stability(refit, groups, sample_seed=0, seed=5) == {"seeds": 1.0, "stability": 1.0}
    assert calls == [(100, 6), (100, 7), (80, 5), (80, 5)]


def test_stability_counts_each_pair_for_a_third_and_chance_as_none() -> None:
    groups = np.arange(2_000) % 2

    def by_rows(rows: np.ndarray, seed: int) -> np.ndarray:
        return (
            groups[rows]
            if len(rows) == 2_000
            else np.random.default_rng(len(rows) + rows[:9].sum()).integers(0, 2, len(rows))
        )

    found = stability(by_rows, groups, sample_seed=0, seed=0)
    assert found["seeds"] == 1.0
    assert found["stability"] == pytest.approx(2 / 3, abs=0.01)

    def not_on_parts(rows: np.ndarray, seed: int) -> np.ndarray:
        if len(rows) < 2_000:
            raise RuntimeError("not on a subset")
        return groups

    assert stability(not_on_parts, groups, sample_seed=0, seed=0) == {"seeds": 1.0, "stability": None}

    def failing(rows: np.ndarray, seed: int) -> np.ndarray:
        raise RuntimeError("not at all")

    assert stability(failing, groups, sample_seed=0, seed=0) == {"seeds": None, "stability": None}


def test_rows_are_in_the_same_segment_whatever_its_number() -> None:
    labels = np.repeat([0, 1, 2], 10)
    other = np.repeat([7, 3, 5], 10)
    assert same_segment(labels, lambda: other) == 1.0
    other[:2] = 3
    assert same_segment(labels, lambda: other) == pytest.approx(28 / 30)
    assert same_segment(labels, lambda: np.zeros(30, np.int64)) == pytest.approx(1 / 3)  # one to one
    assert same_segment(labels, lambda: other[:3]) is None


@pytest.mark.parametrize("settable", [True, False])
def test_the_peak_is_of_the_block_and_not_of_what_was_before(monkeypatch: pytest.MonkeyPatch, settable: bool) -> None:
    if settable and not memory.set_back():
        pytest.skip("the system does not keep a peak that can be set back")
    if not settable:
        monkeypatch.setattr(memory, "set_back", lambda: False)
    before = np.ones(40 * 2**20 // 8)
    del before
    with Peak() as first:
        held = resident()
        block = np.ones(60 * 2**20 // 8)
        time.sleep(0.12)  # longer than the time between two samples
        del block
        assert so_far() >= held - 5
    with Peak() as second:
        time.sleep(0.06)
    assert first.mb == pytest.approx(held + 60, abs=15)
    assert second.mb < first.mb - 30
