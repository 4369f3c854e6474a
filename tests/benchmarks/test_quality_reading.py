from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import reading
from benchmarks.quality.reading import LAST, MIDDLE, Reader, causal_reader, layer_of, sentence_reader, texts_of
from tests.benchmarks.planted import drawn_of, planted
from tests.tiny_encoders import tiny_sentence_encoder


class Model:
    """Reads a text as its length, some texts at a time; notes what it read, and fails once it has read ``most``."""

    def __init__(self, file: Path, most: int = 10_000, batch: int = 2) -> None:
        self.file, self.most, self.batch, self.read = file, most, batch, list[str]()

    def opened(self) -> tuple[Path, reading.Load]:
        def load(texts):  # type: ignore[no-untyped-def]
            for start in range(0, len(texts), self.batch):
                if len(self.read) >= self.most:
                    raise ConnectionAbortedError
                part = texts[start : start + self.batch]
                self.read += part
                yield np.arange(start, start + len(part)), np.array([[len(t), 1.0] for t in part], np.float32)

        return self.file, load


def test_each_text_is_read_once_on_a_machine(tmp_path: Path) -> None:
    model = Model(tmp_path / "new" / "texts.sqlite")
    reader = Reader(model.opened)
    assert reader(["a", "bcd", "a"]).tolist() == [[1, 1], [3, 1], [1, 1]]
    assert reader(["bcd", "ef"])[:, 0].tolist() == [3, 2]
    assert model.read == ["a", "bcd", "ef"]
    assert (reader.kept_seconds, reader.kept_mb) == (0.0, 0.0)  # it has read all itself
    again = Reader(model.opened)
    assert again(["ef", "a", "g"])[:, 0].tolist() == [2, 1, 1]
    assert model.read == ["a", "bcd", "ef", "g"]
    assert again.kept_seconds > 0
    assert again.kept_mb > 1
    before = again.kept_seconds
    again(["ef"])
    assert again.kept_seconds == before  # each text counts once
    assert Reader(model.opened)([]).shape == (0, 1)


def test_what_was_read_before_a_stop_is_kept(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(10)]
    stopped = Model(tmp_path / "texts.sqlite", most=4)
    with pytest.raises(ConnectionAbortedError):
        Reader(stopped.opened)(texts)
    model = Model(tmp_path / "texts.sqlite")
    assert Reader(model.opened)(texts).shape == (10, 2)
    assert sorted(stopped.read + model.read) == texts


def test_many_texts_and_odd_ones_are_found_again(tmp_path: Path) -> None:
    texts = [str(i) for i in range(1_201)] + ["", "\ud800", "naïve\x00"]
    model = Model(tmp_path / "texts.sqlite", batch=400)
    first = Reader(model.opened)(texts)
    assert np.array_equal(Reader(model.opened)(texts), first)
    assert len(model.read) == len(texts)


def test_a_model_that_leaves_texts_out_is_an_error(tmp_path: Path) -> None:
    def load(texts):  # type: ignore[no-untyped-def]
        yield np.array([0]), np.ones((1, 2), np.float32)

    with pytest.raises(ValueError, match="got vectors of 1 texts, expected 2"):
        Reader(lambda: (tmp_path / "t.sqlite", load))(["a", "b"])


def test_models_are_told_apart_and_read_as_the_project_does(tmp_path: Path, tiny_model: Path) -> None:
    encoders = [f"path:{tiny_sentence_encoder(tmp_path / str(seed), seed=seed)}" for seed in (0, 1)]
    one, other = (sentence_reader(name, tmp_path, tmp_path / "cache") for name in encoders)
    sample = drawn_of(planted(12), tmp_path).sample
    texts = texts_of(sample)
    assert texts[0].count(" is ") == 5
    assert one(texts).shape == other(texts).shape == (12, 16)
    assert not np.allclose(one(texts), other(texts))
    causal = causal_reader(f"path:{tiny_model}", tmp_path, tmp_path / "cache")(texts)
    middle, last = layer_of(causal, MIDDLE), layer_of(causal, LAST)
    assert middle.shape == last.shape
    assert not np.allclose(middle, last)
    assert len(list((tmp_path / "cache" / "texts").glob("*.sqlite"))) == 3
