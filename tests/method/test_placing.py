"""Rows into segments that stand: what reads as before stays, the rest goes to the nearest centre."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.method.fitted import FittedClustering
from erasmo_dagster.method.placing import Placement, place_rows
from erasmo_dagster.method.segment_model import FuzzyCenter, NearestCenter, NearestRow, Rule, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.settings import ClusteringSettings

# Three centres on a line. The segments are called as those published before, so not 0, 1, 2.
CENTERS = np.array([[0.0], [10.0], [20.0]], dtype=np.float32)
IDS = (7, 2, 31)


def fitted(rule: Rule | None = None) -> FittedClustering:
    model = SegmentModel(Space(1, np.zeros(1)), CENTERS, rule or NearestCenter())
    return FittedClustering(ClusteringSettings(), model, 3, IDS, (1, 1, 1), 0, np.zeros(3))


def frame(rows: dict[str, str]) -> pl.DataFrame:
    """Rows by key, with the hash of what each reads."""
    return pl.DataFrame(
        {"entity_key": list(rows), "text_hash": list(rows.values())},
        schema={"entity_key": pl.String, "text_hash": pl.String},
    )


def standing(*rows: tuple[str, str, int, float]) -> pl.DataFrame:
    schema = {"entity_key": pl.String, "text_hash": pl.String, "segment_id": pl.Int32, "confidence": pl.Float32}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def place(rows: dict[str, str], at: list[float], before: pl.DataFrame, rule: Rule | None = None) -> Placement:
    vectors = np.array(at, dtype=np.float32).reshape(-1, 1)
    return place_rows(frame(rows), vectors.__getitem__, before, fitted(rule))


def test_a_row_that_reads_as_before_keeps_its_segment_wherever_its_vector_is() -> None:
    got = place({"1": "a", "2": "b"}, [20.0, 0.0], standing(("1", "a", 7, 0.25), ("2", "b", 2, 0.5)))
    assert got.segment_ids.tolist() == [7, 2]
    assert got.confidence.tolist() == [0.25, 0.5]
    assert got.kept.tolist() == [True, True]
    assert [str(array.dtype) for array in (got.segment_ids, got.confidence, got.kept)] == ["int32", "float32", "bool"]


def test_a_row_with_another_text_goes_to_the_nearest_centre() -> None:
    got = place(
        {"1": "changed", "new": "x", "2": "b"}, [19.0, 6.0, 0.0], standing(("1", "a", 7, 0.9), ("2", "b", 31, 0.5))
    )
    assert got.segment_ids.tolist() == [31, 2, 31]
    assert got.kept.tolist() == [False, False, True]
    assert got.confidence.tolist() == pytest.approx([8 / 9, 2 / 6, 0.5])


def test_a_row_that_reads_like_one_that_stands_goes_where_that_one_is() -> None:
    got = place({"new": "a", "2": "a"}, [20.0, 20.0], standing(("1", "a", 7, 0.25), ("2", "b", 2, 0.5)))
    assert got.segment_ids.tolist() == [7, 7]
    assert got.confidence.tolist() == [0.25, 0.25]
    assert got.kept.tolist() == [True, True]


def test_a_tie_between_twins_goes_to_the_lower_segment_but_rows_that_stand_keep_their_own() -> None:
    before = standing(("1", "a", 31, 0.1), ("2", "a", 7, 0.3), ("3", "a", 31, 0.2))
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        got = place({"1": "a", "new": "a", "3": "a"}, [20.0] * 3, before[order])
        assert got.segment_ids.tolist() == [31, 7, 31]
        assert got.confidence.tolist() == pytest.approx([0.1, 0.3, 0.2])


def test_twins_of_one_segment_with_other_confidences_give_the_same_one_each_time() -> None:
    before = standing(("1", "a", 7, 0.1), ("2", "a", 7, 0.3))
    both = [place({"new": "a"}, [0.0], before[order]).confidence.tolist() for order in ([0, 1], [1, 0])]
    assert both[0] == both[1]


def test_distances_are_scaled_as_they_were_in_the_training() -> None:
    centers = np.array([[0.0, 0.0], [8.0, 2.0]], dtype=np.float32)
    for scale, expected in (([1.0, 1.0], 4), ([100.0, 1.0], 3)):
        space = Space(2, np.zeros(2), scale=np.array(scale))
        model = SegmentModel(space, space.project(centers), NearestCenter())
        state = FittedClustering(ClusteringSettings(), model, 2, (4, 3), (1, 1), 0, np.zeros(2))
        got = place_rows(frame({"1": "a"}), lambda _: np.array([[0.0, 2.0]], np.float32), standing(), state)
        assert got.segment_ids.tolist() == [expected]


def test_noise_stays_noise_and_new_rows_can_become_it() -> None:
    rule = NearestRow(CENTERS, np.arange(3), np.full(3, 0.5, np.float32), gaps=np.ones(3))
    got = place(
        {"1": "a", "new": "x", "2": "c", "like 1": "a"}, [20, 10.5, 14, 20], standing(("1", "a", -1, 0.0)), rule
    )
    assert got.segment_ids.tolist() == [-1, 2, -1, -1]
    assert got.confidence.tolist() == [0, 0.5, 0, 0]
    assert got.kept.tolist() == [True, False, False, True]


def test_rows_that_are_placed_have_memberships_and_the_others_say_whose_they_keep() -> None:
    before = standing(("1", "a", 7, 0.25), ("2", "b", 2, 0.5))
    got = place({"2": "b", "new": "x", "like 1": "a"}, [0.0, 1.0, 0.0], before, FuzzyCenter(2.0))
    assert got.like.tolist() == [1, -1, 0]
    assert got.memberships["entity_key"].to_list() == ["new"] * 3
    assert got.memberships["segment_id"].to_list() == list(IDS)
    weights = np.array([1, 1 / 9**2, 1 / 19**2])
    assert got.memberships["membership"].to_list() == pytest.approx(weights / weights.sum())
    assert got.confidence[1] == got.memberships["membership"].max()
    assert place({"2": "b", "new": "x"}, [0.0, 1.0], before).memberships.is_empty()


def test_no_row_and_nothing_standing() -> None:
    none = place({}, [], standing(("1", "a", 7, 0.5)))
    assert (len(none.segment_ids), len(none.confidence), len(none.kept)) == (0, 0, 0)
    fresh = place({"1": "a", "2": "a"}, [0.0, 11.0], standing())
    assert fresh.segment_ids.tolist() == [7, 2]
    assert not fresh.kept.any()


def naive(rows: list[tuple[str, str, float]], before: list[tuple[str, str, int, float]]) -> list[tuple[int, bool]]:
    placed = []
    for key, text, at in rows:
        own = [segment for other, read, segment, _ in before if (other, read) == (key, text)]
        twins = [segment for _, read, segment, _ in before if read == text]
        nearest = IDS[int(np.abs(CENTERS[:, 0] - at).argmin())]
        placed.append((own[0] if own else min(twins) if twins else nearest, bool(own or twins)))
    return placed


texts = st.sampled_from("abcde")
places: st.SearchStrategy[float] = st.sampled_from([0.0, 3.0, 8.0, 14.0, 19.0])


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from("123456789"), st.tuples(texts, places), min_size=1),
    st.dictionaries(st.sampled_from("123456789"), st.tuples(texts, st.sampled_from(IDS))),
)
def test_a_row_is_placed_alike_in_any_order_and_beside_any_others(
    rows: dict[str, tuple[str, float]], before: dict[str, tuple[str, int]]
) -> None:
    wanted = [(key, text, at) for key, (text, at) in rows.items()]
    stood = [(key, text, segment, 0.5) for key, (text, segment) in before.items()]

    def placed(some: list[tuple[str, str, float]]) -> list[tuple[int, bool]]:
        vectors: npt.NDArray[np.float32] = np.array([[at] for _, _, at in some], dtype=np.float32)
        got = place_rows(frame({key: text for key, text, _ in some}), vectors.__getitem__, standing(*stood), fitted())
        return list(zip(got.segment_ids.tolist(), got.kept.tolist(), strict=True))

    whole = placed(wanted)
    assert whole == naive(wanted, stood)
    assert placed(wanted[::-1]) == whole[::-1]
    assert [placed([row])[0] for row in wanted] == whole
