"""The sentence encoder of columns of text: what it reads, and what is said where it cannot be had."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.tables import texts
from erasmo_dagster.method.tables.texts import TextModelError, text_encoder
from tests.tiny_encoders import tiny_sentence_encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"path:{tiny_sentence_encoder(tmp_path_factory.mktemp('models') / 'sentences')}"


def test_a_text_has_one_vector_whatever_is_beside_it_and_copies_read_the_same(model: str, tmp_path: Path) -> None:
    encode = text_encoder(model, tmp_path, device="cpu")
    vectors = encode(["a cat", "a dog", "a cat"])
    assert vectors.shape == (3, 16)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_array_equal(encode(["a dog"])[0], vectors[1])
    np.testing.assert_allclose(pickle.loads(pickle.dumps(encode))(["a cat"])[0], vectors[0], atol=1e-6)
    assert encode([]).shape == (0, 1)


def test_what_cannot_be_had_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str, models_dir: Path) -> None:
        raise ErasmoError("Got no such wheel", expected="a network", fix="correct `adapter.base_model`")

    monkeypatch.setattr(texts, "resolve", absent)
    encode = text_encoder("pypi:some==1", tmp_path)
    with pytest.raises(TextModelError) as fault:
        encode(["a cat"])
    assert str(fault.value) == (
        "Got no such wheel (clustering.text_model is pypi:some==1), expected a network: correct "
        "`clustering.text_model`; or set clustering.method to kmeans++, which needs no sentence encoder."
    )
    assert encode([]).shape == (0, 1)


def test_a_folder_that_is_not_there_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(TextModelError, match=r"nowhere, where nothing is .*correct `clustering\.text_model`"):
        text_encoder(f"path:{tmp_path / 'nowhere'}", tmp_path)(["a cat"])


def test_what_was_read_is_kept_for_the_next_time(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    first = text_encoder(model, tmp_path, device="cpu", kept=kept)(["a cat", "a dog"])
    read: list[list[str]] = []
    batches = SentenceTransformerEncoder.batches

    def counted(self: Any, asked: list[str]) -> Any:
        read.append(list(asked))
        return batches(self, asked)

    monkeypatch.setattr(SentenceTransformerEncoder, "batches", counted)
    again = text_encoder(model, tmp_path, device="cpu", kept=kept)
    assert again(["a dog", "a cat"]).tobytes() == first[::-1].tobytes()
    assert read == []
    assert again(["a fox", "a dog"])[1].tobytes() == first[1].tobytes()
    assert read == [["a fox"]]
    monkeypatch.setattr(texts, "MOST_KEPT", 2)
    assert text_encoder(model, tmp_path, device="cpu", kept=kept)(["a cat"]).shape == (1, 16)
    assert read[1:] == [["a cat"]]  # there were more than are kept, so that the folder was begun anew
