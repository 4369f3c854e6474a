"""Texts read by actors on a real cluster: the same vectors, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pytest

from erasmo_dagster.distributed.cluster import attached
from erasmo_dagster.distributed.embedding import LONGEST_PART, PartReader, Reader, ReadTexts, part_size, read_parts
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.embedding import embed_rows
from erasmo_dagster.method.encoders.kinds import identify, open_encoder
from erasmo_dagster.settings import DatasetSettings, ExecutionSettings
from erasmo_dagster.store.vectors import cut_unread
from tests.distributed.encoders import Gate, install_encoders, is_ended
from tests.ray_cluster import RayNodes

pytestmark = pytest.mark.ray


def clauses(count: int, *special: str) -> list[list[str]]:
    """Distinct rows in the order of their texts; each of ``special`` is the note of one in their midst."""
    notes = {count * (n + 1) // (len(special) + 1): note for n, note in enumerate(special)}
    return [[f"age is {i // 10:03}", f"job is {i % 10}", f"note is {notes.get(i, 'plain')}"] for i in range(count)]


def unread(folder: Path, rows: Sequence[Sequence[str]]) -> Path:
    """As `export_unread` writes them."""
    hashes = [f"hash {n:05}" for n in range(len(rows))]
    pl.DataFrame({"text_hash": hashes, "clauses": rows}).write_parquet(folder / "unread.parquet")
    return folder / "unread.parquet"


def reader(encoder: dict[str, Any], models: Path, **more: Any) -> Reader:
    settings = DatasetSettings.model_validate({"source": {"path": "t.csv"}, "key": "id", "encoder": encoder, **more})
    return Reader(identify(settings, models), settings, None, models, ["age", "job", "note"], 0)


def read(
    folder: Path, rows: Sequence[Sequence[str]], how: Reader, nodes: RayNodes, each: int, **more: Any
) -> list[ReadTexts]:
    with attached(nodes.settings(**more), folder) as cluster:
        files = cut_unread(unread(folder, rows), folder / "parts", each)
        return list(read_parts(files, len(rows), how, cluster))


def in_order(parts: Sequence[ReadTexts]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Hashes, vectors and cuts of all parts, by the hash; each text is there once."""
    hashes = [text_hash for part in parts for text_hash in part.hashes]
    order = np.argsort(hashes)
    vectors, cut = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("vectors", "cut"))
    return sorted(hashes), vectors, cut


@pytest.fixture
def gate(tmp_path: Path, nodes: RayNodes) -> Gate:
    install_encoders(nodes)
    return Gate(tmp_path / "gate")


def gated(gate: Gate, **options: Any) -> Reader:
    return reader({"name": "gated", "gate": str(gate.folder), **options}, gate.folder)


def counted(rows: Sequence[Sequence[str]]) -> np.ndarray:
    return np.array([[", ".join(row).count(letter) for letter in "abcdefgh"] for row in rows], dtype=np.float32)


def assert_whole(parts: Sequence[ReadTexts], rows: Sequence[Sequence[str]]) -> None:
    hashes, vectors, _ = in_order(parts)
    assert hashes == [f"hash {n:05}" for n in range(len(rows))]
    np.testing.assert_array_equal(vectors, counted(rows))


def test_parts_are_so_large_that_every_worker_has_some() -> None:
    assert part_size(10_000_000, 8) == LONGEST_PART
    assert part_size(1000, 8) == 32
    assert part_size(1, 8) == 1


@pytest.mark.parametrize("permutations", [0, 2])
def test_the_vectors_are_those_of_the_local_engine(
    nodes: RayNodes, tiny_model: Path, tmp_path: Path, permutations: int
) -> None:
    rows = clauses(120, "long " * 600)
    how = reader({"name": "causal-lm", "model": f"path:{tiny_model}", "device": "cpu"}, tmp_path / "models",
                 embedding={"permutations": permutations})  # fmt: skip
    encoder = open_encoder(how.about, how.settings, None, how.models)
    here = embed_rows(rows, encoder, how.settings.embedding, seed=0, features=how.features)
    parts = read(tmp_path, rows, how, nodes, each=15)
    hashes, vectors, cut = in_order(parts)
    assert len(parts) == 8
    assert hashes == [f"hash {n:05}" for n in range(120)]
    np.testing.assert_allclose(vectors, here.vectors, atol=1e-4)
    assert cut.tolist() == here.cut.tolist()
    assert cut.sum() == 1
    assert sum(part.tokens for part in parts) == here.tokens
    assert sum(part.computed for part in parts) < here.tokens  # prefixes are shared within parts
    assert {part.engine for part in parts} == {"shared prefixes"}


def test_an_actor_that_is_killed_loses_nothing(nodes: RayNodes, gate: Gate, tmp_path: Path) -> None:
    rows = clauses(60, "wait")
    lost = []
    with attached(nodes.settings(), tmp_path) as cluster:
        files = cut_unread(unread(tmp_path, rows), tmp_path / "parts", 5)
        parts = []
        for part in read_parts(files, len(rows), gated(gate), cluster):
            if not lost:
                lost.append(gate.waiting())
                assert lost[0] in {process.pid for process in nodes.processes()}
                os.kill(lost[0], signal.SIGKILL)
                gate.open()
            parts.append(part)
    assert_whole(parts, rows)
    tries = {file.stem: file.stat().st_size for file in (tmp_path / "parts").glob("*.tries")}
    assert sorted(tries.values())[-1] == 2
    assert sorted(gate.read()) == sorted(", ".join(row) for row in rows)  # what was done is not done again


def test_a_node_that_is_gone_loses_nothing_though_the_others_are_full(
    nodes: RayNodes, gate: Gate, tmp_path: Path
) -> None:
    rows = clauses(60, "wait")
    lost: list[int] = []
    with attached(nodes.settings(), tmp_path) as cluster:
        assert (cluster.nodes, cluster.workers) == (3, 2)
        files = cut_unread(unread(tmp_path, rows), tmp_path / "parts", 5)
        parts = []
        for part in read_parts(files, len(rows), gated(gate), cluster):
            if not lost:
                lost.append(gate.waiting())
                above = {process.pid for process in psutil.Process(lost[0]).parents()}
                nodes.kill_worker(next(node for node in nodes.workers if node.pid in above))
                gate.open()
            parts.append(part)
    assert_whole(parts, rows)
    nodes.add_worker()


def test_texts_that_end_every_worker_are_told_of_in_one_line(nodes: RayNodes, gate: Gate, tmp_path: Path) -> None:
    with pytest.raises(ErasmoError, match=r"^Got 2 workers of Ray lost while they read the same texts, expected at mo"):
        read(tmp_path, clauses(20, "deadly"), gated(gate), nodes, each=5, max_failures=1, workers=1)


def test_what_a_user_must_mend_comes_as_it_was_and_is_not_tried_again(
    nodes: RayNodes, gate: Gate, tmp_path: Path
) -> None:
    with pytest.raises(ErasmoError) as caught:
        read(tmp_path, clauses(20, "mend"), gated(gate), nodes, each=5, workers=1)
    assert str(caught.value) == "Got a text to mend, expected none: mend it."
    assert (caught.value.got, caught.value.fix) == ("Got a text to mend", "mend it")
    assert {file.stat().st_size for file in (tmp_path / "parts").glob("*.tries")} == {1}


def test_a_model_that_is_gone_is_told_of_as_by_the_local_engine(
    nodes: RayNodes, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    how = reader({"name": "causal-lm", "model": f"path:{tmp_path / 'model'}", "device": "cpu"}, tmp_path / "models")
    (tmp_path / "model").unlink()
    with pytest.raises(ErasmoError) as here:
        open_encoder(how.about, how.settings, None, how.models)
    with pytest.raises(ErasmoError) as there:
        read(tmp_path, clauses(8), how, nodes, each=4, workers=1)
    assert str(there.value) == str(here.value)


def test_other_weights_than_those_of_the_run_are_not_read_with(tiny_model: Path, tmp_path: Path) -> None:
    how = reader({"name": "causal-lm", "model": f"path:{tiny_model}", "device": "cpu"}, tmp_path / "models")
    (file,) = cut_unread(unread(tmp_path, clauses(2)), tmp_path / "parts", 2)
    batch = pa.table({"file": [str(file)]})
    execution = ExecutionSettings(engine="ray")
    (found,) = PartReader(how, execution)(batch)
    assert found.num_rows == 2
    (found,) = PartReader(replace(how, about={**how.about, "revision": "before"}), execution)(batch)
    assert f"Got other weights of path:{tiny_model} on node" in found["told"][0].as_py()


def test_a_fault_of_ours_keeps_its_words(nodes: RayNodes, gate: Gate, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a fault of ours") as caught:
        read(tmp_path, clauses(8, "bug"), gated(gate), nodes, each=4, workers=1)
    assert not isinstance(caught.value, ErasmoError)


@dataclass(frozen=True)
class Look:
    """Bytes that this process and each worker hold for themselves, texts that each has read, and the object stores."""

    driver: int
    workers: dict[int, int]
    read: dict[int, int]
    stores: list[Any]

    @classmethod
    def now(cls, gate: Gate) -> Look:
        import ray
        from ray._private.internal_api import node_stats

        read = gate.counts()
        return cls(
            _own_bytes(os.getpid()),
            {pid: _own_bytes(pid) for pid in read if not is_ended(pid)},
            read,
            [
                node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False).store_stats
                for node in ray.nodes()
                if node["Alive"]
            ],
        )

    @property
    def stored(self) -> int:
        """Bytes in the stores of all nodes, without the copies that a node may drop."""
        return sum(store.object_store_bytes_primary_copy for store in self.stores)


def _own_bytes(pid: int) -> int:
    own: int = psutil.Process(pid).memory_full_info().uss
    return own


def test_more_vectors_pass_through_than_the_memory_that_was_asked_for(
    nodes: RayNodes, gate: Gate, tmp_path: Path
) -> None:
    rows, width, store = clauses(4000), 16_384, 80 * 2**20
    passed, looks = 0, []
    with attached(nodes.settings(object_store_mb=80), tmp_path) as cluster:
        files = cut_unread(unread(tmp_path, rows), tmp_path / "parts", 125)
        for number, part in enumerate(read_parts(files, len(rows), gated(gate, width=width), cluster)):
            assert part.vectors.shape == (125, width)
            passed += part.vectors.nbytes
            time.sleep(0.2)  # slower than the workers, so that they have to wait
            if number % 4 == 3:
                looks.append(Look.now(gate))
    assert passed > 3 * store
    first, middle, last = looks[0], looks[len(looks) // 2], looks[-1]
    # Nobody holds what has passed: no process, and no store.
    assert max(look.driver for look in looks) - first.driver < passed / 4
    for pid, before in first.workers.items():
        assert max(look.workers.get(pid, 0) for look in looks) - before < passed / 4
    assert max(look.stored for look in looks) <= store
    assert [(one.object_store_bytes_avail, one.object_store_bytes_fallback) for one in last.stores] == [(store, 0)] * 3
    # A worker that had to wait is there still: both read from the beginning to the end.
    assert len(first.read) == 2
    assert all(last.read[pid] > middle.read[pid] > first.read[pid] for pid in first.read)
