"""The scikit-learn estimator on the table's own columns: `auto`, its default, and `mixture`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone

from erasmo_dagster.method import Erasmo
from tests.method.test_estimator import TFIDF, words
from tests.tiny_encoders import tiny_sentence_encoder


def shoppers(rows: int = 90) -> pl.DataFrame:
    """Three planted groups, told apart by two numbers that go along with each other, and by a category."""
    rng = np.random.default_rng(0)
    group, along = np.arange(rows) % 3, rng.normal(size=rows)
    visits = 3 * along + 4.0 * group + rng.normal(0, 0.3, rows)
    return pl.DataFrame(
        {"spent": 50 + 10 * along, "visits": visits, "channel": [("web", "shop", "phone")[g] for g in group]}
    )


def test_auto_is_the_default_of_frames_and_arrays_and_fetches_nothing_for_tables_without_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("erasmo_dagster.method.estimator.text_encoder", lambda *_: pytest.fail("asked for"))
    frame = shoppers()
    of_frame, of_rows = Erasmo(TFIDF).fit(frame), Erasmo(TFIDF).fit(frame.rows())
    assert of_frame.settings_.clustering.method == "auto"
    assert of_frame.n_clusters_ == 3
    np.testing.assert_array_equal(of_rows.labels_, of_frame.labels_)
    compared = {candidate.name: candidate for candidate in of_frame.candidates_}
    assert compared.keys() >= {"columns, mixture", "vectors, k-means", "one-hot, k-means"}
    assert of_frame.candidates_[0].refused == ""
    assert [name for name, one in compared.items() if "without texts" in one.refused] == ["rows as text, k-means"]
    assert words().fit(frame).candidates_ == ()


def test_columns_of_text_are_read_by_the_sentence_encoder_of_the_settings(tmp_path: Path) -> None:
    model = tiny_sentence_encoder(tmp_path / "sentences")
    group = np.arange(60) % 2
    remarks = ("the parcel came late and the box was torn", "a soft green dress that fits me very well")
    frame = pl.DataFrame({"remark": [f"{remarks[g]}, order {i}" for i, g in enumerate(group)], "visits": group * 4 + 1})
    estimator = Erasmo(TFIDF, n_clusters=2, columns={"remark": {"kind": "text"}}).set_params(
        clustering={"text_model": f"path:{model}"}
    )
    labels = estimator.fit_predict(frame)
    assert not next(one for one in estimator.candidates_ if one.name == "rows as text, k-means").refused
    assert len({*zip(group.tolist(), labels.tolist(), strict=True)}) == 2
    np.testing.assert_array_equal(estimator.predict(frame[:7]), labels[:7])


@pytest.mark.parametrize("algorithm", ["mixture", "auto"])
def test_rows_are_put_into_segments_of_their_columns(algorithm: str) -> None:
    frame = shoppers(99)
    estimator = words(algorithm=algorithm).fit(frame[:90])
    assert estimator.labels_.reshape(-1, 3).tolist() == [estimator.labels_[:3].tolist()] * 30
    assert len(set(estimator.labels_[:3].tolist())) == estimator.n_clusters_ == 3
    np.testing.assert_array_equal(estimator.predict(frame[:90]), estimator.labels_)
    np.testing.assert_array_equal(estimator.predict(frame[90:]), estimator.labels_[:9])
    assert estimator.transform(frame[90:]).shape == (9, estimator.cluster_centers_.shape[1])
    again = clone(estimator).fit(frame[:90])
    np.testing.assert_array_equal(again.labels_, estimator.labels_)
    for other in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(other.predict(frame), estimator.predict(frame))


def test_missing_and_unknown_values_are_placed_by_the_others() -> None:
    frame = shoppers()
    estimator = words(algorithm="mixture").fit(frame)
    new = frame[:6].with_columns(
        channel=pl.Series([None, "web", "phone", "pigeon", *frame["channel"][4:6]]),
        visits=pl.when(pl.int_range(6) == 1).then(None).otherwise("visits"),
    )
    assert estimator.predict(new)[[0, 2, 3, 4, 5]].tolist() == estimator.labels_[[0, 2, 3, 4, 5]].tolist()
    assert estimator.predict(new)[1] == estimator.labels_[0]  # by its channel alone


def test_rows_of_one_text_in_two_segments_stay_where_they_were() -> None:
    """Text keeps three digits, of which the groups share most; the columns keep all."""
    group, rng = np.arange(60) % 2, np.random.default_rng(0)
    sizes = {f"size {i}": 1 + 0.0045 * group + rng.normal(0, 0.0004, 60) for i in range(3)}
    frame = pl.DataFrame({**sizes, "job": [("a", "b")[i] for i in rng.integers(0, 2, 60)]})
    estimator = words(n_clusters=2, algorithm="mixture", text={"decimals": 3}).fit(frame)
    assert len({*zip(group.tolist(), estimator.labels_.tolist(), strict=True)}) == 2
    vectors = [row.tobytes() for row in estimator.transform(frame)]
    assert {v for v, g in zip(vectors, group, strict=True) if g} & {
        v for v, g in zip(vectors, group, strict=True) if not g
    }
    np.testing.assert_array_equal(estimator.predict(frame), estimator.labels_)


def test_a_table_that_lacks_a_column_is_refused_also_by_columns() -> None:
    estimator = words(algorithm="mixture").fit(shoppers())
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(shoppers().drop("visits"))
