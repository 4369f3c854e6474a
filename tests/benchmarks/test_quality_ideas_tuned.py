from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.ideas import IDEA_METHODS, PREFIX
from benchmarks.quality.ideas_tuned import Tuned, _batches, view
from benchmarks.quality.methods import Place
from benchmarks.quality.reading import texts_of
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.textual import write_clauses
from tests.benchmarks.planted import drawn_of, planted
from tests.tiny_encoders import tiny_sentence_encoder


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    encoder = tiny_sentence_encoder(tmp_path / "encoder", max_seq_length=64)
    return Place(tmp_path, tmp_path, tokens=3_500, base_model=f"path:{tiny_model}", sentence_model=f"path:{encoder}")


@pytest.mark.parametrize("causal", [False, True])
def test_a_model_learns_to_know_a_row_again(tmp_path: Path, place: Place, causal: bool) -> None:
    import torch

    sample = drawn_of(planted(40), tmp_path).sample
    clauses = write_clauses(sample.frame, sample.plan).to_list()
    torch.manual_seed(0)
    model = Tuned(place.base_model if causal else place.sentence_model, place, causal=causal)
    before = model.read(texts_of(sample))
    model.train(clauses, 12_000, 0)
    after = model.read(texts_of(sample))
    assert before.shape == after.shape
    assert not np.allclose(before, after, atol=1e-4)
    assert model.steps == len(model.losses) >= 6
    assert np.mean(model.losses[-3:]) < np.mean(model.losses[:3])
    alone = model.read(texts_of(sample)[3:4])
    assert np.allclose(alone, after[3:4], atol=1e-5)  # whatever stands beside it
    with pytest.raises(ErasmoError, match="Got 5 tokens"):
        Tuned(place.base_model if causal else place.sentence_model, place, causal=causal).train(clauses, 5, 0)


def test_the_same_seed_gives_the_same_segments(tmp_path: Path, place: Place) -> None:
    sample = drawn_of(planted(24), tmp_path).sample
    method = IDEA_METHODS[f"{PREFIX}contrast-minilm"]
    first, again = (method.open(sample, place)(np.arange(24), 3).labels for _ in range(2))
    assert np.array_equal(first, again)
    assert len(set(first.tolist())) == 3


def test_a_view_is_a_part_of_a_row_in_another_order() -> None:
    clauses, rng = [f"c{i} is {i}" for i in range(10)], np.random.default_rng(0)
    views = [view(clauses, rng) for _ in range(200)]
    assert all(set(v) <= set(clauses) and len(set(v)) == len(v) for v in views)
    assert np.mean([len(v) for v in views]) == pytest.approx(8, abs=0.3)
    assert len({v[0] for v in views}) == 10
    assert all(view(["one"], rng) == ["one"] for _ in range(50))


def test_rows_come_in_steps_of_at_least_two() -> None:
    steps = list(islice(_batches(25, np.random.default_rng(0)), 4))
    assert [len(step) for step in steps] == [12, 12, 12, 12]  # the last row of an epoch is left out
    assert len({*steps[0], *steps[1]}) == 24
