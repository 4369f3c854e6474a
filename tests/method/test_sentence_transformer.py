"""Sentence encoders against the library's own `encode`, on a tiny BERT."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.base_models import LocalModel, resolve
from erasmo_dagster.method.encoders import BatchEncoder
from erasmo_dagster.method.encoders.sentence_transformer import SentenceTransformerEncoder
from erasmo_dagster.method.gguf import write_manifest
from erasmo_dagster.settings import EmbeddingSettings
from tests.tiny_encoders import tiny_sentence_encoder

TEXTS = [
    "age is 41, job is technician",
    "",
    "ünï 🙂",
    "species is Gentoo, island is Biscoe, sex is female",
    "a",
    "word " * 90,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sentence_encoder(tmp_path_factory.mktemp("st") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def opened(folder: Path, **settings: object) -> SentenceTransformerEncoder:
    base = resolve(f"path:{folder}", folder.parent / "models")
    return SentenceTransformerEncoder(base, EmbeddingSettings.model_validate(settings), "cpu")


def theirs(folder: Path, **options: object) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(TEXTS, show_progress_bar=False, **options))


def test_the_vectors_are_the_librarys(folder: Path) -> None:
    encoder = opened(folder, batch_tokens=64)
    vectors = encoder.encode(TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), 16))
    assert np.allclose(vectors, theirs(folder), atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)  # the model's own module
    assert np.ptp(vectors @ vectors.T) > 0.1
    assert isinstance(encoder, BatchEncoder)


def test_a_plain_transformers_folder_is_pooled_by_the_mean(copy: Path) -> None:
    for name in ("modules.json", "sentence_bert_config.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "1_Pooling")
    encoder = opened(copy)
    assert np.allclose(encoder.encode(TEXTS), theirs(copy), atol=1e-5)
    assert not np.allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-2)
    assert encoder.max_length == 64
    scaled = opened(copy, normalize=True).encode(TEXTS)
    assert np.allclose(scaled, theirs(copy, normalize_embeddings=True), atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(folder: Path) -> None:
    encoder = opened(folder)
    together = encoder.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        assert np.allclose(encoder.encode([text])[0], together[i], atol=1e-5)
    assert encoder.encode(TEXTS).tobytes() == together.tobytes()
    assert encoder.encode([]).shape == (0, 0)


def test_long_texts_are_cut_and_told_of(folder: Path) -> None:
    encoder = opened(folder)
    encoder.encode(TEXTS)
    assert encoder.max_length == 48
    assert encoder.truncated.tolist() == [False] * 5 + [True]
    whole = encoder.tokens
    short = opened(folder, max_length=8)
    vectors = short.encode(TEXTS)
    assert short.max_length == 8
    assert short.truncated.tolist() == [True, False, False, True, False, True]
    assert 0 < short.tokens < whole
    assert not np.allclose(vectors[0], encoder.encode(TEXTS[:1])[0], atol=1e-3)
    assert opened(folder, max_length=5000).max_length == 48


def test_batches_hold_each_text_once(folder: Path) -> None:
    encoder = opened(folder, batch_tokens=64)
    parts = list(encoder.batches(TEXTS))
    assert len(parts) > 1
    assert sorted(int(i) for positions, _ in parts for i in positions) == list(range(len(TEXTS)))


def test_words_that_a_model_puts_before_every_text_count(copy: Path) -> None:
    prompts = {"prompts": {"cluster": "topic of the text: "}, "default_prompt_name": "cluster"}
    (copy / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    encoder, plain = opened(copy, max_length=20), opened(copy)
    encoder.encode(TEXTS[4:5])
    assert encoder.tokens > 3
    assert np.allclose(plain.encode(TEXTS), theirs(copy), atol=1e-5)


def test_nothing_is_asked_of_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert opened(folder).encode(TEXTS).shape == (6, 16)


# --- what does not load --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("modules.json", b"{"),
        ("modules.json", b"[1]"),
        ("config.json", b"[]"),
        ("1_Pooling/config.json", b"{"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_damaged_files_are_one_clear_line(name: str, content: bytes, copy: Path) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(ErasmoError, match="does not load") as caught:
        opened(copy)
    assert "\n" not in str(caught.value)


def test_a_module_without_its_files_does_not_load(copy: Path) -> None:
    shutil.rmtree(copy / "1_Pooling")
    with pytest.raises(ErasmoError, match="does not load"):
        opened(copy)


def test_one_changed_byte_of_an_unpacked_model_is_noticed(copy: Path) -> None:
    write_manifest(copy, "pypi:tiny==1.0", "tiny.whl", "0")
    base = LocalModel("pypi:tiny==1.0", copy, "0")
    assert SentenceTransformerEncoder(base, EmbeddingSettings(), "cpu").encode(["a"]).shape == (1, 16)
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text() + " ")
    with pytest.raises(ErasmoError, match=r"1_Pooling/config\.json other than it was written.*delete the folder"):
        SentenceTransformerEncoder(base, EmbeddingSettings(), "cpu")


def test_weights_that_lack_a_layer_are_not_filled_with_random_numbers(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    whole = opened(copy).encode(TEXTS)
    for name in [name for name in tensors if name.startswith("pooler.")]:
        del tensors[name]  # read of nothing
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert np.array_equal(opened(copy).encode(TEXTS), whole)
    for name in [name for name in tensors if "layer.1.output.dense" in name]:
        del tensors[name]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ErasmoError, match=r"no weights for .*layer\.1\.output\.dense"):
        opened(copy)


def test_a_model_that_brings_its_own_code_is_refused(copy: Path, tmp_path: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = "own.Pooling"
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ErasmoError, match="does not load"):
        opened(copy)
    assert not (tmp_path / "ran").exists()


def test_a_module_with_pickled_weights_is_refused(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "3_Dense").mkdir()
    (copy / "3_Dense" / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ErasmoError, match=r"pickled pytorch_model\.bin"):
        opened(copy)


def test_a_causal_language_model_is_refused_and_its_encoder_named(tiny_model: Path) -> None:
    with pytest.raises(ErasmoError, match="set the encoder causal-lm"):
        opened(tiny_model)


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ErasmoError, match="device mps"):
        SentenceTransformerEncoder(LocalModel("path:x", folder, ""), EmbeddingSettings(), "mps")
