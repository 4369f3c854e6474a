"""Shared prefixes once: the same vectors as one sequence at a time, whatever is shared and wherever it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel
from erasmo_dagster.method.encoders import CausalLMEncoder
from erasmo_dagster.method.engines import NotServedError, PlainEngine, SharedPrefixEngine
from erasmo_dagster.method.engines.prefixes import as_stream, chunks
from erasmo_dagster.method.loading import load_base
from erasmo_dagster.settings import EmbeddingSettings

pytestmark = pytest.mark.usefixtures("one_thread")

WAYS = [
    EmbeddingSettings(),
    EmbeddingSettings(pooling="last"),
    EmbeddingSettings(pooling="mean_layers", normalize=True),
    EmbeddingSettings(layer=1),
]

# A row is a choice at each of a few columns, a clause is a run of tokens: rows share prefixes as those of a table do.
CLAUSES = [[[column * 20 + value] * (1 + (column + value) % 4) for value in range(4)] for column in range(6)]
ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12)


def sequences_of(rows: list[list[int]]) -> list[list[int]]:
    return [[token for column, value in enumerate(row) for token in CLAUSES[column][value]] for row in rows]


@pytest.fixture(scope="module")
def engines(models: dict[str, LocalModel]) -> dict[str, tuple[SharedPrefixEngine, PlainEngine]]:
    import torch

    made = {}
    for arch in ("llama", "gpt2"):
        shared, plain = (load_base(models[arch])[0].eval() for _ in range(2))
        device = torch.device("cpu")
        made[arch] = SharedPrefixEngine(shared, device), PlainEngine(plain, device)
    return made


def vectors(engine: Any, sequences: list[list[int]], **options: Any) -> list[np.ndarray]:
    """One array a way, in the sequences' order."""
    found: list[np.ndarray] = [np.full((len(sequences), 32), np.nan, np.float32) for _ in WAYS]
    parts = (
        engine._read(engine._slot, as_stream(sequences), WAYS, **options) if options else engine.read(sequences, WAYS)
    )
    for part in parts:
        for way, own in enumerate(part.vectors):
            assert np.isnan(found[way][part.positions]).all()  # none comes twice
            found[way][part.positions] = own
    return found


# --- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, size=st.integers(1, 40), block=st.integers(1, 12))
def test_vectors_are_those_of_one_sequence_at_a_time(
    arch: str, engines: dict[str, tuple[SharedPrefixEngine, PlainEngine]], rows: list[list[int]], size: int, block: int
) -> None:
    shared, plain = engines[arch]
    sequences = sequences_of(rows)
    alone = [np.concatenate(pair) for pair in zip(*(vectors(plain, [s]) for s in sequences), strict=True)]
    for cut in ({"size": size, "block": block}, {}):
        for found, expected in zip(vectors(shared, sequences, **cut), alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, size=st.integers(1, 30), block=st.integers(1, 10))
def test_every_token_attends_to_its_own_sequence_and_nothing_else(rows: list[list[int]], size: int, block: int) -> None:
    sequences = sequences_of(rows)
    stream = as_stream(sequences)
    prefixes = {tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)}
    assert len(stream.tokens) == len(prefixes)
    held: list[tuple[int, ...]] = []  # the prefix that each token of the carried path, then of the chunk, ends
    done = []
    for chunk in chunks(stream, size, block):
        held = held[: chunk.carried]
        for part in chunk.blocks:
            within = list(range(chunk.carried + part.start, chunk.carried + part.stop))
            held += [()] * len(within)
            for row, at in zip(part.sees, within, strict=True):
                seen = [place for place, sees in zip([*part.above.tolist(), *within], row, strict=True) if sees]
                parent = held[seen[-2]] if len(seen) > 1 else ()
                held[at] = (*parent, int(stream.tokens[chunk.start + at - chunk.carried]))
                assert [held[place] for place in seen] == [held[at][:n] for n in range(1, len(held[at]) + 1)]
        for rank, path in zip(chunk.sequences.tolist(), chunk.paths, strict=True):
            assert held[path[-1]] == tuple(sequences[stream.order[rank]])
            done.append(int(stream.order[rank]))
        held = [held[place] for place in chunk.path.tolist()]
    assert sorted(done) == list(range(len(sequences)))


def test_long_sequences_are_cut_into_larger_blocks(engines: dict[str, tuple[SharedPrefixEngine, PlainEngine]]) -> None:
    shared, plain = engines["llama"]
    rng = np.random.default_rng(0)
    base = rng.integers(0, 250, 500).tolist()
    sequences = [base, [*base[:300], *rng.integers(0, 250, 212).tolist()], base[:20]]
    for found, expected in zip(vectors(shared, sequences), vectors(plain, sequences), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


# --- what is not served --------------------------------------------------------------------------


def test_a_model_with_a_window_is_read_by_batches_where_a_text_is_longer(
    models: dict[str, LocalModel], capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = CausalLMEncoder(models["qwen2"], None, EmbeddingSettings(), device="cpu")
    model = encoder._loaded.model
    for layer in model.base_model.layers:
        layer.self_attn.sliding_window = 24
    short, long = ["age is 41", "age is 42"], ["age is 41", "age is 42, note is " + "far " * 30]
    assert len(encoder.encode(short)) == 2
    assert encoder.engine == "shared prefixes"
    found = encoder.encode(long)
    assert "looks back over 24 tokens" in encoder.engine
    assert encoder.engine in capsys.readouterr().err
    assert np.isfinite(found).all()
    assert model.config._attn_implementation != "erasmo_layout"


@pytest.mark.parametrize("arch", ["bloom", "falcon"])
def test_a_model_of_another_attention_falls_back_and_says_so(
    arch: str, models: dict[str, LocalModel], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    encoder = CausalLMEncoder(models[arch], None, EmbeddingSettings(), device="cpu")
    assert encoder.engine.startswith("padded batches, since shared prefixes do not serve")
    assert encoder.engine in capsys.readouterr().err
    with pytest.raises(NotServedError):
        SharedPrefixEngine(load_base(models[arch])[0].eval(), torch.device("cpu"))


def test_positions_that_turn_with_the_longest_text_are_read_one_text_at_a_time() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=250, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    )  # fmt: skip
    model, device = LlamaForCausalLM(config), torch.device("cpu")
    model.train(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 250, n).tolist() for n in (60, 20, 45, 31)]
    alone = [np.concatenate([vectors(PlainEngine(model, device), [s])[0] for s in sequences])]
    np.testing.assert_allclose(vectors(PlainEngine(model, device), sequences)[0], alone[0], atol=1e-5)
    shared = SharedPrefixEngine(model, device)
    assert len(list(shared.read([s for s in sequences if len(s) <= 32], WAYS))) > 0
    with pytest.raises(NotServedError, match="positions turn with texts of more than 32 tokens"):
        list(shared.read(sequences, WAYS))


def test_what_is_computed_is_counted(models: dict[str, LocalModel]) -> None:
    encoder = CausalLMEncoder(models["llama"], None, EmbeddingSettings(), device="cpu")
    encoder.encode(["age is 41, job is retired", "age is 41, job is student"] * 3)
    assert encoder.engine == "shared prefixes"
    assert 0 < encoder.distinct_tokens < encoder.tokens / 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_device_that_is_too_small_gets_fewer_tokens_at_once(
    which: int, engines: dict[str, tuple[SharedPrefixEngine, PlainEngine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 250, 40).tolist() for _ in range(20)]
    expected = vectors(engines["llama"][1], sequences)
    engine = engines["llama"][which]
    blocks = engine._blocks

    def small(**given: Any) -> Any:
        if given["input_ids"].numel() > 300:
            raise torch.OutOfMemoryError("too small")
        return blocks(**given)

    monkeypatch.setattr(engine, "_blocks", small)
    monkeypatch.setattr(engine, "size", 1024)
    for found, right in zip(vectors(engine, sequences), expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-4)
    assert engine.size == 256
    monkeypatch.setattr(engine, "_blocks", lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("too small")))
    with pytest.raises(torch.OutOfMemoryError):
        list(engine.read(sequences, WAYS))


def test_a_layer_that_the_model_lacks(engines: dict[str, tuple[SharedPrefixEngine, PlainEngine]]) -> None:
    for engine in engines["gpt2"]:
        with pytest.raises(ErasmoError, match=r"Got embedding.layer 7"):
            list(engine.read([[1, 2]], [EmbeddingSettings(layer=7)]))
