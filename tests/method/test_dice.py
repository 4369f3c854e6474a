"""DICE vectors of numbers, and the baseline that puts them beside a sentence encoder's vectors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.encoders import BatchEncoder, FittedEncoder
from erasmo_dagster.method.encoders.dice import dice, orthonormal
from erasmo_dagster.method.encoders.mpnet_dice import MpnetDiceEncoder
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.textual import TextPlan, fit_text, join_clauses, write_clauses
from erasmo_dagster.settings import DatasetSettings, EmbeddingSettings, MpnetDiceOptions
from tests.tiny_encoders import tiny_sentence_encoder

WIDTH, D = 16, 4
SETTINGS = EmbeddingSettings(batch_tokens=64)
OPTIONS = MpnetDiceOptions(dimensions=D, device="cpu")

# --- DICE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 3, 10, 64])
def test_the_rotation_is_orthonormal_and_follows_the_seed(d: int) -> None:
    q = orthonormal(d, 3)
    assert np.allclose(q @ q.T, np.eye(d), atol=1e-12)
    assert q.tobytes() == orthonormal(d, 3).tobytes() != orthonormal(d, 4).tobytes()


@pytest.mark.parametrize("d", [2, 3, 10])
def test_the_vectors_are_the_papers(d: int) -> None:
    for value, theta in ((10.0, 0.0), (15.0, math.pi / 2), (12.0, math.pi / 5), (20.0, math.pi)):
        coordinates = [math.sin(theta) ** (i - 1) * math.cos(theta) for i in range(1, d)]
        coordinates.append(math.sin(theta) if d == 2 else math.sin(theta) ** d)
        expected = orthonormal(d, 0) @ coordinates
        assert np.allclose(dice(np.array([value]), 10, 20, orthonormal(d, 0))[0], expected, atol=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=3), st.integers(0, 5))
def test_in_two_dimensions_nearer_numbers_have_nearer_vectors(values: list[float], seed: int) -> None:
    a, b, c = dice(np.array(values), -100, 100, orthonormal(2, seed)).astype(float)
    near, far = sorted((abs(values[0] - values[1]), abs(values[0] - values[2])))
    if far - near < 1e-2:
        return
    vectors = sorted((float(np.linalg.norm(a - b)), float(np.linalg.norm(a - c))))
    ordered = [np.linalg.norm(a - b), np.linalg.norm(a - c)]
    if abs(values[0] - values[1]) > abs(values[0] - values[2]):
        ordered.reverse()
    assert ordered == vectors
    assert np.allclose(np.linalg.norm([a, b, c], axis=1), 1, atol=1e-6)


def test_what_is_beyond_the_range_stays_at_its_ends_and_missing_is_zeros() -> None:
    low, over, high, missing, up, down = dice(
        np.array([0.0, 99.0, 10.0, np.nan, np.inf, -np.inf]), 0, 10, orthonormal(5, 0)
    )
    assert np.array_equal(over, high)
    assert np.array_equal(up, high)
    assert np.array_equal(down, low)
    assert not missing.any()


@pytest.mark.parametrize(("low", "high"), [(-1.7e308, 1.7e308), (5.0, 5.0), (1e-320, 2e-320)])
def test_any_range_gives_finite_vectors_in_order(low: float, high: float) -> None:
    values = np.array([-np.inf, low / 2 + high / 2, np.inf])
    below, middle, above = dice(values, low, high, orthonormal(2, 0)).astype(float)
    assert below @ above == pytest.approx(-1, abs=1e-6)
    assert middle @ below == pytest.approx(middle @ above, abs=1e-2)


# --- MPNet and DICE ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return LocalModel("path:tiny", tiny_sentence_encoder(tmp_path_factory.mktemp("st") / "tiny"), "1")


def written(frame: pl.DataFrame, **settings: object) -> tuple[list[str], TextPlan]:
    plan = fit_text(frame, DatasetSettings.model_validate({"source": {"path": "x.csv"}, "key": "id", **settings}))
    return [join_clauses(row) for row in write_clauses(frame, plan).to_list()], plan


FRAME = pl.DataFrame(
    {
        "age": [20.0, 70.0, 45.0, None, 1.5e-7, 33.25],
        "price": [100, 250, 400, 250, 100, None],
        "job": ["nurse", "clerk", "nurse", "nurse", "clerk", "nurse"],
        "note": ["calls, is loud", "age is 41 years", "writes", "a, price is 3", "calls", "writes, price is 7"],
    }
)


def text_part(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, :WIDTH]


def test_numbers_go_to_dice_and_the_rest_to_the_sentence_encoder(base: LocalModel) -> None:
    texts, plan = written(FRAME, columns={"price": {"unit": "EUR"}})
    encoder = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=5)
    vectors = encoder.encode(texts)
    assert vectors.shape == (6, WIDTH + 2 * D)
    rotation = orthonormal(D, 5)
    order = [column.name for column in plan.columns if column.kind == "number"]
    assert encoder.columns == order == ["price", "age"]
    for i, name in enumerate(order):
        values = FRAME[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        expected = dice(values, np.nanmin(values), np.nanmax(values), rotation)
        assert np.array_equal(vectors[:, WIDTH + i * D : WIDTH + (i + 1) * D], expected)
    rests = [f"job is {job}, note is {note}" for job, note in FRAME.select("job", "note").iter_rows()]
    alone = SentenceTransformerEncoder(base, SETTINGS, "cpu").encode(rests)
    assert np.allclose(text_part(vectors), alone, atol=1e-5)


def test_units_infinities_codes_and_words_among_numbers(base: LocalModel) -> None:
    frame = pl.DataFrame(
        {
            "size": ["1.5", "12", "many", "-3", "2e3", None],
            "days": [-1, 5, 10, 20, -1, 7],
            "rate": [0.5, math.inf, -math.inf, 1.0, 0.25, math.nan],
            "job": ["a", "b", "c", "a", "b", "d"],
        }
    )
    texts, plan = written(
        frame, columns={"size": {"unit": "percent"}, "days": {"values": {"-1": "never"}}, "rate": {"unit": "kg"}}
    )
    encoder = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=0)
    rests, numbers = encoder._reading.split(texts)
    found = dict(zip(encoder.columns, numbers.T.tolist(), strict=True))
    nan = math.nan
    assert np.array_equal(found["size"], [1.5, 12, nan, -3, 2000, nan], equal_nan=True)
    assert np.array_equal(found["days"], [nan, 5, 10, 20, nan, 7], equal_nan=True)
    assert np.array_equal(found["rate"], [0.5, math.inf, -math.inf, 1, 0.25, nan], equal_nan=True)
    assert [set(rest.split(", ")) for rest in rests] == [
        {"days is never", "job is a"},
        {"job is b"},
        {"size is many", "job is c"},
        {"job is a"},
        {"days is never", "job is b"},
        {"job is d"},
    ]
    assert np.isfinite(encoder.encode(texts)).all()


def test_names_that_hold_each_other_and_orders_of_columns(base: LocalModel) -> None:
    frame = pl.DataFrame({"a": [1, 2, 3], "a, b": [4, 5, 7], "b is c": [7, 8, 9], "t": ["x", "y", "x"]})
    texts, plan = written(frame)
    encoder = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=0)
    rests, numbers = encoder._reading.split(texts)
    assert dict(zip(encoder.columns, numbers.T.tolist(), strict=True)) == {
        "a": [1, 2, 3],
        "a, b": [4, 5, 7],
        "b is c": [7, 8, 9],
    }
    assert rests == ["t is x", "t is y", "t is x"]
    reversed_texts = [join_clauses(row[::-1]) for row in write_clauses(frame, plan).to_list()]
    assert np.array_equal(encoder._reading.split(reversed_texts)[1], numbers)


def test_what_was_saved_gives_the_same_bits(base: LocalModel, tmp_path: Path) -> None:
    texts, plan = written(FRAME)
    encoder = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=5)
    encoder.save(tmp_path)
    loaded = MpnetDiceEncoder.load(tmp_path, base, SETTINGS, device="cpu")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert encoder.encode(texts).tobytes() == loaded.encode(texts).tobytes()
    assert isinstance(loaded, BatchEncoder)
    assert isinstance(loaded, FittedEncoder)


def test_a_new_row_beyond_the_range_does_not_move_the_others(base: LocalModel) -> None:
    texts, plan = written(FRAME)
    encoder = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=5)
    new = [*texts, "price is 9000, age is -5, job is clerk, note is new", "job is nurse", ""]
    vectors = encoder.encode(new)
    assert np.allclose(vectors[: len(texts)], encoder.encode(texts), atol=1e-5)
    assert not vectors[-2:, WIDTH:].any()
    price = vectors[:, WIDTH : WIDTH + D]
    assert np.array_equal(price[6], price[2])  # 400, the highest when fitted


def test_each_distinct_text_is_read_once_and_cut_rows_are_told(base: LocalModel) -> None:
    frame = pl.DataFrame({"n": list(range(8)), "t": ["word " * 60, "short"] * 4})
    texts, plan = written(frame)
    encoder = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=0)
    vectors = encoder.encode(texts)
    assert encoder.truncated.tolist() == [True, False] * 4
    alone = SentenceTransformerEncoder(base, SETTINGS, "cpu")
    alone.encode(["t is " + "word " * 60, "t is short"])
    assert encoder.tokens == alone.tokens
    assert len(np.unique(text_part(vectors), axis=0)) == 2


def test_only_numbers_and_no_numbers(base: LocalModel) -> None:
    numbers, plan = written(FRAME.select("age", "price"))
    encoder = MpnetDiceEncoder.fit(numbers, plan, OPTIONS, LocalModel("path:none", Path("/none"), ""), SETTINGS, seed=0)
    assert encoder.encode(numbers).shape == (6, 2 * D)  # and no model was looked for
    assert encoder.encode([]).shape == (0, 0)
    words, plan = written(FRAME.select("job", "note"))
    encoder = MpnetDiceEncoder.fit(words, plan, OPTIONS, base, SETTINGS, seed=0)
    assert encoder.columns == []
    assert np.array_equal(encoder.encode(words), SentenceTransformerEncoder(base, SETTINGS, "cpu").encode(words))


def test_whole_vectors_have_length_one_where_asked(base: LocalModel) -> None:
    texts, plan = written(FRAME)
    scaled = MpnetDiceEncoder.fit(
        texts, plan, OPTIONS, base, SETTINGS.model_copy(update={"normalize": True}), seed=5
    ).encode(texts)
    plain = MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=5).encode(texts)
    assert np.allclose(scaled, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)


def test_missing_values_that_have_no_clause_are_zeros_too(base: LocalModel) -> None:
    frame = FRAME.with_columns(note=pl.col("job"))
    said, plan = written(frame)
    silent, other = written(frame, text={"missing": None})
    with_word = MpnetDiceEncoder.fit(said, plan, OPTIONS, base, SETTINGS, seed=5).encode(said)
    without = MpnetDiceEncoder.fit(silent, other, OPTIONS, base, SETTINGS, seed=5).encode(silent)
    assert np.array_equal(with_word, without)


def test_numbers_in_words_are_refused_and_words_elsewhere_are_not(base: LocalModel) -> None:
    texts, plan = written(FRAME, text={"verbalize": True})
    with pytest.raises(ErasmoError, match=r"numbers in words in column 'price'.*verbalize") as caught:
        MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=0)
    assert "\n" not in str(caught.value)
    texts, plan = written(FRAME, columns={"note": {"verbalize": True}})
    assert len(MpnetDiceEncoder.fit(texts, plan, OPTIONS, base, SETTINGS, seed=0).columns) == 2
