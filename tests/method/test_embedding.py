"""Rows to vectors: pooling, batches, truncation, orders of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.adapter import fine_tune
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders import CausalLMEncoder
from erasmo_dagster.method.loading import load_base
from erasmo_dagster.settings import AdapterSettings, EmbeddingSettings
from tests.tiny_models import ARCHITECTURES, POSITIONS

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [
    "age is 41",
    "age is 41, job is technician, note is likes short calls",
    "ünï 😀",
    "sex is male, island is Biscoe",
]
ROWS = [["age is 41", "job is technician"], ["age is 70", "job is retired"], ["age is 41", "job is technician"]]


def encoder(base: LocalModel, adapter: Path | None = None, **settings: Any) -> CausalLMEncoder:
    return CausalLMEncoder(base, adapter, EmbeddingSettings(**settings), device="cpu")


def hidden_states(base: LocalModel, text: str) -> list[np.ndarray]:
    """Every layer's states of one text, as transformers gives them: [tokens, d] each."""
    import torch

    model, tokenizer = load_base(base)
    model.eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([tokenizer(text).input_ids]), output_hidden_states=True)
    return [layer[0].numpy() for layer in out.hidden_states]


class CountingEncoder:
    """Bag of letters; remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.given.append(list(texts))
        # Position counts too, so that the order of the clauses shows in the vector.
        return np.array([[sum(ord(c) * (i + 1) for i, c in enumerate(text)), len(text)] for text in texts], np.float32)


# --- the encoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_embeds_what_it_was_fine_tuned_on(
    arch: str, models: dict[str, LocalModel], tmp_path: Path
) -> None:
    rows = [[f"age is {20 + i}", f"job is {'retired' if i % 2 else 'student'}"] for i in range(12)]
    settings = AdapterSettings(max_steps=1, learning_rate=1e-2, device="cpu")
    folder = tmp_path / "adapter"
    fine_tune(rows, models[arch], settings, seed=0, out=folder, checkpoints=tmp_path / "training", provenance={})
    plain, tuned = encoder(models[arch]), encoder(models[arch], folder, batch_tokens=64)
    before, after = (embed_rows(rows, e, e.settings, seed=0).vectors for e in (plain, tuned))
    assert before.shape == after.shape == (12, 32)
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-4
    alone = np.concatenate([tuned.encode([", ".join(row)]) for row in rows])
    np.testing.assert_allclose(after, alone, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last", "mean_layers"])
def test_the_texts_beside_it_change_no_vector(pooling: str, base: LocalModel) -> None:
    ours = encoder(base, pooling=pooling)
    together = ours.encode(TEXTS)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, np.concatenate([ours.encode([text]) for text in TEXTS]), atol=1e-5)
    np.testing.assert_allclose(together[::-1], ours.encode(TEXTS[::-1]), atol=1e-5)
    small_batches = encoder(base, pooling=pooling, batch_tokens=64)
    np.testing.assert_allclose(together, small_batches.encode(TEXTS), atol=1e-5)


def test_pooling_is_what_it_says(base: LocalModel) -> None:
    layers = hidden_states(base, TEXTS[1])
    expected = {
        ("mean", -1): layers[-1].mean(0),
        ("mean", 0): layers[0].mean(0),
        ("mean", 1): layers[1].mean(0),
        ("mean", -2): layers[-2].mean(0),
        ("last", -1): layers[-1][-1],
        ("last", 1): layers[1][-1],
        ("mean_layers", -1): np.mean([layer.mean(0) for layer in layers[1:]], axis=0),
    }
    for (pooling, layer), vector in expected.items():
        got = encoder(base, pooling=pooling, layer=layer).encode(TEXTS)  # beside shorter ones, so it is padded around
        np.testing.assert_allclose(got[1], vector, atol=1e-5, err_msg=f"{pooling}, layer {layer}")


def test_a_layer_that_the_model_lacks_is_refused(base: LocalModel) -> None:
    for layer in (3, -4):
        with pytest.raises(ErasmoError, match=r"embedding\.layer"):
            encoder(base, layer=layer).encode(TEXTS)


def test_normalised_vectors_have_length_one(base: LocalModel) -> None:
    plain, scaled = encoder(base).encode(TEXTS), encoder(base, normalize=True).encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(scaled, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)


def test_long_texts_are_cut_and_counted(base: LocalModel) -> None:
    ours = encoder(base, max_length=8)
    vectors = ours.encode(TEXTS)
    tokens = [len(ids) for ids in load_base(base)[1](TEXTS).input_ids]
    assert ours.truncated.tolist() == [n > 8 for n in tokens]
    assert 0 < ours.truncated_rows < len(TEXTS)
    assert ours.tokens == sum(min(n, 8) for n in tokens)
    np.testing.assert_allclose(vectors[1], cut_mean(base, TEXTS[1], 8), atol=1e-5)


def cut_mean(base: LocalModel, text: str, tokens: int) -> np.ndarray:
    """Mean of the first tokens; in a causal model the later ones do not reach back."""
    mean: np.ndarray = hidden_states(base, text)[-1][:tokens].mean(0)
    return mean


@pytest.mark.parametrize("arch", ["gpt2", "llama", "bloom"])
def test_a_text_longer_than_the_model_takes_is_cut_to_fit(arch: str, models: dict[str, LocalModel]) -> None:
    ours = encoder(models[arch])
    vectors = ours.encode(["word " * 2 * POSITIONS, "age is 41"])
    assert np.isfinite(vectors).all()
    assert ours.truncated.tolist() == [True, False]
    assert encoder(models[arch], max_length=10 * POSITIONS).max_length == POSITIONS


def test_an_empty_text_has_a_vector(base: LocalModel) -> None:
    vectors = encoder(base).encode(["", "age is 41"])
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0]).max() > 0


# --- rows ----------------------------------------------------------------------------------------


def test_equal_rows_are_encoded_once_and_share_a_vector() -> None:
    counting = CountingEncoder()
    result = embed_rows(ROWS, counting, EmbeddingSettings(), seed=0)
    assert counting.given == [["age is 41, job is technician", "age is 70, job is retired"]]
    assert (result.rows, result.distinct_texts, result.vectors.shape) == (3, 2, (3, 2))
    assert result.vectors.dtype == np.float32
    np.testing.assert_array_equal(result.vectors[0], result.vectors[2])
    np.testing.assert_array_equal(result.vectors[:2], counting.encode(counting.given[0]))


def test_permutations_average_over_orders_that_all_rows_share() -> None:
    rows = [[f"{name} is {value}" for name in "abcdef"] for value in (1, 22)]
    rows.append(["b is 3", "e is 3"])  # a row that lacks clauses keeps the order of those it has
    counting = CountingEncoder()
    result = embed_rows(rows, counting, EmbeddingSettings(permutations=4), seed=0)
    orders = [[[clause[0] for clause in text.split(", ")] for text in texts] for texts in counting.given]
    assert len(orders) == 4
    for first, second, partial in orders:
        assert first == second
        assert sorted(first) == list("abcdef")
        assert partial == [name for name in first if name in "be"]
    assert len({tuple(first) for first, _, _ in orders}) > 1
    expected = np.mean([CountingEncoder().encode(texts) for texts in counting.given], axis=0)
    np.testing.assert_allclose(result.vectors, expected, rtol=1e-6)
    again, other = CountingEncoder(), CountingEncoder()
    embed_rows(rows, again, EmbeddingSettings(permutations=4), seed=0)
    embed_rows(rows, other, EmbeddingSettings(permutations=4), seed=1)
    assert again.given == counting.given != other.given


FEATURES = list("abcdef")
PARTIAL = [
    ["c is 1", "e is 2"],
    ["a is 1", "b is 2", "f is 3"],
    [],
    ["a is 9", "b is 8", "c is 7", "d is 6", "e is 5", "f is 4"],
    ["b is 2", "f is 3"],
    ["c is 1", "e is 2"],
]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("permutations", [0, 1, 5])
def test_rows_embedded_apart_have_the_vectors_of_the_whole_where_the_features_are_named(
    permutations: int, normalize: bool
) -> None:
    settings = EmbeddingSettings(permutations=permutations, normalize=normalize)

    def embed(rows: list[list[str]]) -> np.ndarray:
        return embed_rows(rows, CountingEncoder(), settings, seed=3, features=FEATURES).vectors

    whole = embed(PARTIAL)
    for subset in ([0], [1], [2], [4, 0], [5, 4, 3, 2, 1, 0], [0, 1, 2]):
        np.testing.assert_array_equal(embed([PARTIAL[i] for i in subset]), whole[subset])


def test_without_the_features_a_part_is_read_in_other_orders() -> None:
    settings = EmbeddingSettings(permutations=5)
    whole = embed_rows(PARTIAL, CountingEncoder(), settings, seed=3).vectors
    alone = embed_rows(PARTIAL[:1], CountingEncoder(), settings, seed=3).vectors
    assert not np.array_equal(alone[0], whole[0])


def test_named_features_are_in_the_order_that_rows_with_all_of_them_show() -> None:
    full = [[f"{name} is {value}" for name in FEATURES] for value in (1, 2)]
    settings = EmbeddingSettings(permutations=4)
    named, found = CountingEncoder(), CountingEncoder()
    embed_rows(full, named, settings, seed=0, features=FEATURES)
    embed_rows(full, found, settings, seed=0)
    assert named.given == found.given


def test_features_whose_names_hold_the_word_is() -> None:
    names = ["what is it", "what", "it is", "is"]
    rows = [[f"{name} is {value}" for name in names if name != value] for value in ("it", "what", "is")]
    settings = EmbeddingSettings(permutations=6)
    whole, alone = (
        embed_rows(some, CountingEncoder(), settings, seed=0, features=names).vectors for some in (rows, rows[1:2])
    )
    np.testing.assert_array_equal(whole[1:2], alone)


def test_averaged_vectors_are_scaled_after_the_mean() -> None:
    result = embed_rows(ROWS, CountingEncoder(), EmbeddingSettings(permutations=3, normalize=True), seed=0)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, rtol=1e-5)


def test_every_row_that_was_cut_counts(base: LocalModel) -> None:
    rows = [["note is " + "calls " * 20], ["note is short"], ["note is " + "calls " * 20]]
    ours = encoder(base, max_length=12)
    result = embed_rows(rows, ours, ours.settings, seed=0)
    assert (result.truncated_rows, ours.truncated_rows) == (2, 1)
    assert result.tokens == ours.tokens > 0
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)


def test_a_row_without_clauses_has_a_vector(base: LocalModel) -> None:
    ours = encoder(base)
    assert np.isfinite(embed_rows([[], ["age is 41"]], ours, ours.settings, seed=0).vectors).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(value: float) -> None:
    class Broken:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            vectors = np.zeros((len(texts), 3), np.float32)
            vectors[-1, 1] = value
            return vectors

    with pytest.raises(ErasmoError, match="1 of 2 vectors"):
        embed_rows(ROWS, Broken(), EmbeddingSettings(), seed=0)


def test_an_encoder_that_loses_a_text_is_refused() -> None:
    class Short:
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts) - 1, 3), np.float32)

    with pytest.raises(ErasmoError, match=r"\(1, 3\)"):
        embed_rows(ROWS, Short(), EmbeddingSettings(), seed=0)


def test_several_ways_of_pooling_are_read_at_once(base: LocalModel) -> None:
    ways = [
        EmbeddingSettings(),
        EmbeddingSettings(pooling="last", layer=1),
        EmbeddingSettings(pooling="mean_layers", normalize=True),
    ]
    texts = [", ".join(row) for row in ROWS]
    together = list(encoder(base).batches_of_ways(texts, ways))
    for index, way in enumerate(ways):
        alone = CausalLMEncoder(base, None, way, device="cpu").encode(texts)
        for positions, vectors in together:
            np.testing.assert_array_equal(vectors[index], alone[positions])
