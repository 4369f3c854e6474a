"""Vectors that outlive the run that made them: what is kept, what is found again, what is damaged."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.base import Batch, assembled
from erasmo_dagster.method.vector_cache import VectorCache
from erasmo_dagster.settings import EmbeddingSettings

ROWS = [[f"age is {i}", f"job is {'retired' if i % 2 else 'student'}"] for i in range(10)]
PLAIN = EmbeddingSettings()


def vector(text: str) -> np.ndarray:
    return np.random.default_rng(list(text.encode())).normal(size=5).astype(np.float32)


class Batches:
    """Two texts a batch, from the last to the first; it fails when it has given as many as it may."""

    def __init__(self, allowed: int = 1000, error: BaseException | None = None, cut_at: str = "none") -> None:
        self.allowed, self.error, self.cut_at = allowed, error, cut_at
        self.given: list[str] = []
        self.closed = 0
        self.truncated = np.zeros(0, dtype=bool)
        self.tokens = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return assembled(len(texts), self.batches(texts))

    def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        self.truncated = np.array([self.cut_at in text for text in texts])
        self.tokens = len(texts)
        try:
            for end in range(len(texts), 0, -2):
                if self.allowed == 0:
                    raise self.error or ErasmoError("Got stopped")
                self.allowed -= 1
                start = max(end - 2, 0)
                self.given += texts[start:end]
                yield np.arange(start, end), np.stack([vector(text) for text in texts[start:end]])
        finally:
            self.closed += 1


class Whole:
    """An encoder that tells nothing in between."""

    def __init__(self, dimensions: int = 5) -> None:
        self.given: list[list[str]] = []
        self.dimensions = dimensions

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.given.append(list(texts))
        return np.stack([vector(text)[: self.dimensions] for text in texts])


def texts(rows: Sequence[Sequence[str]] = ROWS) -> list[str]:
    return [", ".join(row) for row in rows]


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def filled(folder: Path, some: Sequence[str], *, each: int = 2) -> dict[str, bytes]:
    """A cache of ``some`` texts in parts of ``each``; its files."""
    with VectorCache(folder, every_vectors=each) as cache:
        for start in range(0, len(some), each):
            group = some[start : start + each]
            cache.keep(group, np.stack([vector(text) for text in group]))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the cache ------------------------------------------------------------------------------------


def test_what_is_kept_is_found_by_its_text(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "new" / "cache") as cache:
        assert [len(found) for found in cache.known(["a"])] == [0, 0, 0]
        cache.keep(
            ["a", "", "ü 😀"], np.stack([vector("a"), vector(""), vector("ü 😀")]), np.array([False, True, False])
        )
        assert cache.known(["b", "a"])[0].tolist() == [1]
    cache = VectorCache(tmp_path / "new" / "cache")
    positions, vectors, cut = cache.known(["ü 😀", "no", "", "a"])
    order = np.argsort(positions)
    assert positions[order].tolist() == [0, 2, 3]
    np.testing.assert_array_equal(vectors[order], np.stack([vector("ü 😀"), vector(""), vector("a")]))
    assert vectors.dtype == np.float32
    assert cut[order].tolist() == [False, True, False]
    assert (len(cache), cache.dimensions) == (3, 5)


def test_parts_are_written_when_they_are_full_or_it_is_time_and_at_the_end(tmp_path: Path) -> None:
    with VectorCache(tmp_path, every_vectors=3) as cache:
        cache.keep(["a", "b"], np.ones((2, 4), np.float32))
        assert parts(tmp_path) == []
        cache.keep(["c"], np.ones((1, 4), np.float32))
        assert parts(tmp_path) == ["000001.safetensors"]
        cache.keep(["d"], np.ones((1, 4), np.float32))
    assert parts(tmp_path) == ["000001.safetensors", "000002.safetensors"]
    with VectorCache(tmp_path, every_seconds=0) as cache:
        cache.keep(["e"], np.ones((1, 4), np.float32))
        assert len(parts(tmp_path)) == 3
        cache.keep([], np.ones((0, 4), np.float32))
    assert len(VectorCache(tmp_path)) == 5


def test_what_is_written_elsewhere_is_forgotten_and_what_nobody_asked_for_stays(tmp_path: Path) -> None:
    names = sorted(filled(tmp_path, list("abcdef")))
    with VectorCache(tmp_path, every_vectors=2) as cache:
        cache.known(["c", "d", "e", "new"])
        cache.keep(["new"], np.ones((1, 5), np.float32))
        cache.forget()
        assert parts(tmp_path) == [names[0], names[2]]  # of the last, one text was not asked for
        assert sorted(cache.known(list("abcdef"))[0].tolist()) == [0, 1, 4, 5]
    assert len(VectorCache(tmp_path)) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ErasmoError])
def test_what_ends_the_block_loses_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), VectorCache(tmp_path) as cache:
        cache.keep(["a"], np.ones((1, 4), np.float32))
        raise error("stop")
    assert len(VectorCache(tmp_path)) == 1


def test_vectors_that_change_after_they_were_kept_are_kept_as_they_were(tmp_path: Path) -> None:
    vectors = np.ones((1, 4), np.float32)
    with VectorCache(tmp_path) as cache:
        cache.keep(["a"], vectors)
        vectors += 1
    np.testing.assert_array_equal(VectorCache(tmp_path).known(["a"])[1], np.ones((1, 4)))


def test_other_dimensions_are_refused_and_change_nothing(tmp_path: Path) -> None:
    before = filled(tmp_path, ["a", "b"])
    with pytest.raises(ErasmoError, match=r"Got vectors of 3 dimensions .*expected 5"), VectorCache(tmp_path) as cache:
        cache.keep(["c"], np.ones((1, 3), np.float32))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_dimensions_than_what_waits_to_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match="expected 4"), VectorCache(tmp_path) as cache:
        cache.keep(["a"], np.ones((1, 4), np.float32))
        cache.keep(["b"], np.ones((1, 3), np.float32))
    assert VectorCache(tmp_path).known(["a", "b"])[0].tolist() == [0]


def damage(part: Path, how: str) -> None:
    data = bytearray(part.read_bytes())
    if how == "a flipped bit":
        data[-9] ^= 1
    damaged = {
        "cut": bytes(data[: len(data) // 2]),
        "empty": b"",
        "text": b"not a tensor" * 9,
        "a flipped bit": bytes(data),
    }
    part.write_bytes(damaged[how])


@pytest.mark.parametrize("how", ["cut", "empty", "text", "a flipped bit"])
def test_damaged_parts_are_removed_and_the_others_are_read(tmp_path: Path, how: str) -> None:
    some = list("abcdef")
    names = sorted(filled(tmp_path, some))
    damage(tmp_path / names[1], how)
    with VectorCache(tmp_path) as cache:
        positions, vectors, _ = cache.known(some)
        assert sorted(positions.tolist()) == [0, 1, 4, 5]
        np.testing.assert_array_equal(vectors, np.stack([vector(some[i]) for i in positions]))
        assert parts(tmp_path) == [names[0], names[2]]
        cache.keep(["c", "d"], np.stack([vector("c"), vector("d")]))
    assert len(VectorCache(tmp_path).known(some)[0]) == 6


@pytest.mark.parametrize("how", ["cut", "a flipped bit"])
def test_a_cache_whose_only_part_is_damaged_takes_any_dimensions(tmp_path: Path, how: str) -> None:
    (name,) = filled(tmp_path, ["a", "b"])
    damage(tmp_path / name, how)
    with VectorCache(tmp_path) as cache:
        assert len(cache.known(["a", "b"])[0]) == 0
        cache.keep(["a"], np.ones((1, 3), np.float32))
    assert VectorCache(tmp_path).known(["a"])[1].shape == (1, 3)


def test_a_part_of_other_dimensions_and_one_that_is_half_written_are_removed(tmp_path: Path) -> None:
    filled(tmp_path, ["a", "b"])
    other = tmp_path / "other"
    with VectorCache(other) as cache:
        cache.keep(["c"], np.ones((1, 3), np.float32))
    (other / "000001.safetensors").rename(tmp_path / "000009.safetensors")
    other.rmdir()
    (tmp_path / "000010.tmp").write_bytes(b"half")
    assert VectorCache(tmp_path).known(["a", "b", "c"])[0].tolist() == [0, 1]
    assert parts(tmp_path) == ["000001.safetensors"]


def test_it_is_removed_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    filled(folder, ["a", "b"])
    with VectorCache(folder) as cache:
        cache.keep(["c"], np.stack([vector("c")]))
        cache.remove()
        assert (len(cache), parts(folder)) == (0, [])
    assert not folder.exists()
    VectorCache(folder).remove()


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", no_room)


def test_a_full_disk_is_told_of_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(tmp_path, ["a", "b"])
    full_disk(monkeypatch)
    with pytest.raises(ErasmoError, match="no space left"), VectorCache(tmp_path) as cache:
        cache.keep(["c"], np.stack([vector("c")]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_does_not_hide_what_ended_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full_disk(monkeypatch)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt), VectorCache(tmp_path) as cache:
        cache.keep(["c"], np.stack([vector("c")]))
        raise KeyboardInterrupt
    assert "no space left" in caplog.text


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ErasmoError("Got stopped"), KeyboardInterrupt()])
def test_an_interrupted_embedding_goes_on_where_it_stopped(tmp_path: Path, error: BaseException) -> None:
    whole = embed_rows(ROWS, Batches(), PLAIN, seed=0)
    broken, second, third = Batches(allowed=3, error=error, cut_at="age is 9"), Batches(cut_at="age is 3"), Batches()
    with pytest.raises(type(error)), VectorCache(tmp_path) as cache:
        embed_rows(ROWS, broken, PLAIN, seed=0, cache=cache)
    with VectorCache(tmp_path) as cache:
        resumed = embed_rows(ROWS, second, PLAIN, seed=0, cache=cache)
    with VectorCache(tmp_path) as cache:
        again = embed_rows(ROWS, third, PLAIN, seed=0, cache=cache)
    assert len(broken.given) == 6
    assert sorted(broken.given + second.given) == sorted(texts())
    assert third.given == []
    np.testing.assert_array_equal(resumed.vectors, whole.vectors)
    np.testing.assert_array_equal(again.vectors, whole.vectors)
    assert (resumed.known_texts, again.known_texts, resumed.distinct_texts) == (6, 10, 10)
    assert (resumed.tokens, again.tokens) == (4, 0)
    # Rows that were cut before the interruption count as well.
    assert (resumed.truncated_rows, again.truncated_rows) == (2, 2)


def test_an_encoder_without_batches_is_asked_for_the_rest(tmp_path: Path) -> None:
    encoder = Whole()
    with VectorCache(tmp_path) as cache:
        embed_rows(ROWS[:4], encoder, PLAIN, seed=0, cache=cache)
        result = embed_rows(ROWS, encoder, PLAIN, seed=0, cache=cache)
    assert encoder.given == [texts()[:4], texts()[4:]]
    np.testing.assert_array_equal(result.vectors, np.stack([vector(text) for text in texts()]))


def test_every_order_of_the_columns_goes_on_where_it_stopped(tmp_path: Path) -> None:
    settings = EmbeddingSettings(permutations=4, normalize=True)
    whole = embed_rows(ROWS, Batches(), settings, seed=0)
    given = []
    for allowed in (3, 7, 1000):
        encoder = Batches(allowed=allowed)
        try:
            with VectorCache(tmp_path) as cache:
                resumed = embed_rows(ROWS, encoder, settings, seed=0, cache=cache)
        except ErasmoError:
            pass
        given += encoder.given
    assert len(given) == len(set(given))
    np.testing.assert_array_equal(resumed.vectors, whole.vectors)


def test_an_encoder_of_other_dimensions_is_refused(tmp_path: Path) -> None:
    with VectorCache(tmp_path) as cache:
        embed_rows(ROWS[:4], Whole(), PLAIN, seed=0, cache=cache)
    with pytest.raises(ErasmoError, match=r"3 dimensions .*expected 5"), VectorCache(tmp_path) as cache:
        embed_rows(ROWS, Whole(dimensions=3), PLAIN, seed=0, cache=cache)
    assert len(VectorCache(tmp_path)) == 4


def test_vectors_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    class Broken(Batches):
        def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
            for n, (positions, part) in enumerate(super().batches(texts)):
                yield positions, np.full_like(part, np.nan) if n == 2 else part

    with pytest.raises(ErasmoError, match="2 of 2 vectors"), VectorCache(tmp_path) as cache:
        embed_rows(ROWS, Broken(), PLAIN, seed=0, cache=cache)
    assert len(VectorCache(tmp_path)) == 4


def test_the_encoder_is_told_when_nobody_takes_its_vectors(tmp_path: Path) -> None:
    encoder = Batches()
    with VectorCache(tmp_path) as cache:
        cache.keep(["x"], np.ones((1, 3), np.float32))
        with pytest.raises(ErasmoError) as error:
            embed_rows(ROWS, encoder, PLAIN, seed=0, cache=cache)
        assert (encoder.closed, len(encoder.given)) == (1, 2), error  # while the error is still held


def test_an_encoder_that_loses_a_batch_is_refused(tmp_path: Path) -> None:
    class Short(Batches):
        def batches(self, texts: Sequence[str]) -> Iterator[Batch]:
            yield from list(super().batches(texts))[1:]

    with pytest.raises(ErasmoError, match="Got vectors of 8 texts, expected those of 10"):
        embed_rows(ROWS, Short(), PLAIN, seed=0)


def test_vectors_are_scaled_on_the_way_out_and_kept_as_they_came(tmp_path: Path) -> None:
    with VectorCache(tmp_path) as cache:
        scaled = embed_rows(ROWS, Whole(), EmbeddingSettings(normalize=True), seed=0, cache=cache).vectors
        plain = embed_rows(ROWS, Whole(), PLAIN, seed=0, cache=cache).vectors
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(plain, np.stack([vector(text) for text in texts()]))


def test_no_rows_need_no_cache(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "cache") as cache:
        assert embed_rows([], Batches(), PLAIN, seed=0, cache=cache).vectors.shape == (0, 0)
    assert not (tmp_path / "cache").exists()


def test_parts_are_numbered_on(tmp_path: Path) -> None:
    for some in ("ab", "cd", "ef"):
        filled(tmp_path, list(some))
    numbers = [int(name.partition(".")[0]) for name in parts(tmp_path)]
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    assert len(numbers) == 3
