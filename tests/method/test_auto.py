"""The choice among ways to segment a table: by what segments tell of its columns, and by nothing else."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import auto, candidates
from erasmo_dagster.method.auto import NOTHING_SAVED, NOTHING_TO_COMPARE_BY, TableSegments, segment_table
from erasmo_dagster.method.candidates import language_model_says
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.measures import table_measures
from erasmo_dagster.method.peers import PEERS, ROW_TEXTS
from erasmo_dagster.method.tables import texts as texts_module
from erasmo_dagster.method.tables.parts import Encode
from erasmo_dagster.method.tables.referee import Referee, Saved
from erasmo_dagster.method.tables.texts import TextModelError, text_encoder
from erasmo_dagster.method.textual import TextPlan, fit_text, write_clauses
from erasmo_dagster.settings import ClusteringSettings, DatasetSettings
from tests.tiny_encoders import tiny_sentence_encoder

ALL = ("columns, mixture", "columns, k-means", *PEERS)
COLUMNS = tuple(name for name in ALL if name != ROW_TEXTS)  # where there is no sentence encoder
VECTORS = ("vectors, k-means", "columns and vectors, mixture")
TOPICS = ("the parcel came late and the box was torn", "this soft green dress fits me very well indeed")


def planted(rows: int = 150, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Three groups that lie along each other in two numbers, and have jobs of their own for the most part."""
    rng = np.random.default_rng(seed)
    group, along = np.arange(rows) % 3, rng.normal(size=rows)
    job = np.where(rng.random(rows) < 0.9, group, rng.integers(0, 3, rows))
    spent, visits = 50 + 10 * along, 3 * along + 4.0 * group + rng.normal(0, 0.3, rows)
    return pl.DataFrame({"spent": spent, "visits": visits, "job": [f"job {j}" for j in job]}), group


def noise(rows: int = 150) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    return pl.DataFrame({f"n{i}": rng.normal(size=rows) for i in range(3)})


def about_topics(rows: int = 120, words: int = 3) -> tuple[pl.DataFrame, np.ndarray]:
    """Texts of some words about one of two topics, each a text of its own, beside a number that says nothing."""
    rng = np.random.default_rng(2)
    topic = np.arange(rows) % 2
    notes = [" ".join([*rng.permutation(TOPICS[t].split())[:words], f"number{i}"]) for i, t in enumerate(topic)]
    return pl.DataFrame({"note": notes, "size": rng.normal(size=rows)}), topic


def plan_of(frame: pl.DataFrame, **kinds: str) -> TextPlan:
    columns = {name: {"kind": kind} for name, kind in kinds.items()}
    return fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "none", "columns": columns}))


def drawn(
    frame: pl.DataFrame,
    *,
    plan: TextPlan | None = None,
    vectors: np.ndarray | None = None,
    seed: int = 0,
    method: str = "auto",
    encode: Encode | None = None,
    measured: bool = False,
    **clustering: Any,
) -> TableSegments:
    known = {"method": method, "n_init": 3, "k_max": 5, "text_model": "path:nowhere"}
    settings = ClusteringSettings.model_validate({**known, **clustering})
    given = None if vectors is None else vectors.astype(np.float32)
    plan = plan_of(frame) if plan is None else plan
    return segment_table(
        frame,
        plan,
        settings,
        seed=seed,
        models_dir=Path("nowhere"),
        vectors=given,
        encode=encode,
        measured=measured,
    )


def random_vectors(rows: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(rows, width))


class LetterHashes:
    """Stands in for the sentence encoder: vectors of the letters' hash, which tell of no topic."""

    opened = 0
    read: list[str] = []

    def __init__(self, *_: object) -> None:
        type(self).opened += 1

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.read.extend(texts)
        seeds = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") for text in texts]
        return np.stack([np.random.default_rng(seed).normal(size=12) for seed in seeds]).astype(np.float32)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> type[LetterHashes]:
    LetterHashes.opened, LetterHashes.read = 0, []
    found = SimpleNamespace(revision="r1")
    monkeypatch.setattr(texts_module, "SentenceTransformerEncoder", LetterHashes)
    monkeypatch.setattr(texts_module, "resolve", lambda *_: found)
    monkeypatch.setattr(auto, "resolve", lambda *_: found)
    return LetterHashes


# Who wins


@pytest.mark.parametrize("k", [3, "auto"])
def test_the_most_bits_win_at_one_number_of_segments(k: int | str) -> None:
    frame, groups = planted()
    found = drawn(frame, k=k)
    assert found.chosen == "columns, mixture"
    assert adjusted_rand_score(groups, found.labels) > 0.9
    assert found.k == 3
    assert sorted(c.name for c in found.candidates) == sorted(ALL)
    bits = [c.bits_saved or 0.0 for c in found.candidates if not c.refused]
    assert bits == sorted(bits, reverse=True)
    assert found.candidates[0].name == found.chosen
    assert bits[0] > 1
    assert all(c.seconds > 0 and 0 < c.smallest <= 1 / 3 for c in found.candidates if c.name != ROW_TEXTS)
    assert {c.separation for c in found.candidates} == {c.stability for c in found.candidates} == {None}
    assert (found.result.sweep != ()) == (found.result.reason != "") == (k == "auto")
    assert found.space is not None
    assert found.texts is None
    np.testing.assert_array_equal(found.result.model.place(found.points).labels, found.labels)


def test_the_method_that_is_named_is_drawn_alone() -> None:
    frame, _ = planted()
    found = drawn(frame, method="mixture", k=3)
    assert (found.chosen, found.candidates) == ("mixture", ())
    np.testing.assert_array_equal(found.labels, drawn(frame, k=3).labels)


def ready_made(monkeypatch: pytest.MonkeyPatch, bits: dict[str, float], fails: Sequence[str] = ()) -> None:
    """Let the referee give these bits by the candidates' order; ``fails`` cannot be drawn."""
    real, asked = auto._Table._draw, []

    def draw(self: auto._Table, way: auto._Way) -> TableSegments:
        name = way.peer or {True: "columns", False: "vectors"}[way.columns] + (
            " and vectors" if way.columns and way.vectors else ""
        )
        name += "" if way.peer else ", mixture" if way.settings.method == "mixture" else ", k-means"
        if name in fails:
            raise ErasmoError("Got no luck", expected="some")
        asked.append(name)
        return real(self, way)

    class Known:
        def __init__(self, *_: object, **__: object) -> None:
            self._names = iter([name for name in (*ALL[:2], *VECTORS, *PEERS) if name in bits])

        def saved(self, labels: np.ndarray) -> Saved:
            return Saved(bits[next(self._names)], 0.1)

    monkeypatch.setattr(auto._Table, "_draw", draw)
    monkeypatch.setattr(auto, "Referee", Known)


@pytest.mark.parametrize("winner", COLUMNS)
def test_whoever_has_the_most_bits_is_taken(winner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_made(monkeypatch, {name: 1.0 + (name == winner) for name in COLUMNS})
    frame, _ = planted(90)
    found = drawn(frame, k=3)
    assert found.chosen == winner
    assert [c.name for c in found.candidates] == [winner, *(name for name in ALL if name != winner)]
    assert found.space is not None
    read = found.space.read(frame, text_encoder("path:x", Path()))
    np.testing.assert_array_equal(found.result.model.place(read).labels, found.labels)


@pytest.mark.parametrize(("best", "chosen"), [(0.19, "columns, mixture"), (0.21, "columns, k-means")])
def test_bits_within_their_error_decide_nothing(best: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_made(monkeypatch, dict(zip(COLUMNS, (-0.5, best, -0.1, -0.2, -0.3), strict=True)))
    found = drawn(planted(90)[0], k=3)
    assert found.chosen == chosen
    assert found.candidates[0].name == "columns, k-means"
    assert (NOTHING_SAVED in found.result.notes) == (best < 0.2)


def test_one_partition_told_in_two_orders_is_a_tie_which_the_first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    ready_made(monkeypatch, dict(zip(COLUMNS, (1.0, 1.0 + 1e-15, 0.5, 1 + 1e-14, 0.2), strict=True)))
    assert drawn(planted(90)[0], k=3).chosen == "columns, mixture"


@pytest.mark.parametrize("k", [3, "auto"])
def test_a_way_that_fails_is_listed_and_stops_nothing(k: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_made(monkeypatch, dict.fromkeys(COLUMNS[1:], 1.0), fails=["columns, mixture"])
    found = drawn(planted(90)[0], k=k)
    assert found.chosen == "columns, k-means"
    last = next(c for c in found.candidates if c.name == "columns, mixture")
    assert (last.name, last.bits_saved, last.smallest) == ("columns, mixture", None, 0.0)
    assert last.refused == "Got no luck, expected some."


@pytest.mark.parametrize("k", [3, "auto"])
def test_where_every_way_fails_the_reasons_are_given(k: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready_made(monkeypatch, {}, fails=ALL)
    with pytest.raises(ErasmoError, match=r"Got no segments from clustering.method=auto \(columns, mixture: Got no lu"):
        drawn(planted(90)[0], k=k)


def test_more_segments_than_rows_are_refused_in_one_line() -> None:
    with pytest.raises(ErasmoError, match=r"Got 12 rows for clustering\.k=12") as caught:
        drawn(planted(12)[0], k=12)
    assert "\n" not in str(caught.value)


def test_tiny_segments_are_refused_unless_all_are() -> None:
    """Average linkage sets the odd rows apart; the mixture does not."""
    frame, _ = planted(300)
    odd = pl.DataFrame({"spent": [50.0, 51.0], "visits": [90.0, 91.0], "job": ["job 0"] * 2})
    found = drawn(pl.concat([frame, odd]), k=3)
    refused = {c.name: c.refused for c in found.candidates if c.refused and c.name != ROW_TEXTS}
    assert refused
    assert set(refused.values()) <= {f"a segment holds {share:.1%} of the rows" for share in (1 / 302, 2 / 302)}
    assert found.chosen not in refused
    assert [bool(c.refused) for c in found.candidates] == sorted(bool(c.refused) for c in found.candidates)


def test_where_all_have_tiny_segments_the_best_of_them_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "LEAST_SHARE", 0.5)
    found = drawn(planted(90)[0], k=3)
    assert found.chosen == "columns, mixture"
    assert [c.name for c in found.candidates if c.refused] == [ROW_TEXTS]


# What decides


def test_the_order_of_the_columns_changes_no_bit() -> None:
    frame, _ = planted()
    found = drawn(frame, k=3)
    for order in (["visits", "spent", "job"], ["job", "visits", "spent"]):
        plan = plan_of(frame)
        by_name = {column.name: column for column in plan.columns}
        plan = plan.model_copy(update={"columns": tuple(by_name[name] for name in order)})
        other = drawn(frame.select(order), plan=plan, k=3)
        assert other.labels.tobytes() == found.labels.tobytes()
        assert other.points.tobytes() == found.points.tobytes()
        assert [(c.name, c.bits_saved) for c in other.candidates] == [(c.name, c.bits_saved) for c in found.candidates]


@pytest.mark.parametrize("seed", [0, 4])
def test_rows_in_another_order_and_another_seed_give_the_same_groups(seed: int) -> None:
    frame, _ = planted()
    found, order = drawn(frame), np.random.default_rng(seed).permutation(len(frame))
    other = drawn(frame[order], seed=seed)
    assert adjusted_rand_score(found.labels[order], other.labels) >= 0.9


def test_the_label_is_not_looked_at() -> None:
    frame, groups = planted()
    plan = plan_of(frame)
    found = drawn(frame, k=3)
    for label in (groups, np.random.default_rng(0).permutation(groups)):
        other = drawn(frame.with_columns(label=pl.Series(label)), plan=plan, k=3)
        assert other.labels.tobytes() == found.labels.tobytes()
        assert [c.bits_saved for c in other.candidates] == [c.bits_saved for c in found.candidates]


def test_settings_of_the_sweep_are_heeded() -> None:
    frame, _ = planted()
    found = drawn(frame, k_min=2, k_max=4, choose_by="davies_bouldin")
    assert [point.k for point in found.result.sweep] == [2, 3, 4]
    assert "have the lowest Davies-Bouldin" in found.result.reason
    assert found.k == min(found.result.sweep, key=lambda point: point.davies_bouldin).k


@pytest.mark.parametrize("k", [3, "auto"])
def test_of_many_rows_some_are_compared_and_all_are_in_segments(k: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "COMPARED_ROWS", 120)
    heights = []

    class Counting(Referee):
        def __init__(self, frame: pl.DataFrame, *args: Any, **kwargs: Any) -> None:
            heights.append(frame.height)
            super().__init__(frame, *args, **kwargs)

    monkeypatch.setattr(auto, "Referee", Counting)
    frame, groups = planted(700)
    found = drawn(frame, vectors=random_vectors(700), k=k)
    assert heights == [120]
    assert (found.labels.shape, found.k) == ((700,), 3)
    assert adjusted_rand_score(groups, found.labels) > 0.9
    assert found.labels.tobytes() == drawn(frame, vectors=random_vectors(700), k=k).labels.tobytes()


def test_nothing_is_drawn_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_by: list[str] = []

    def counting(points: np.ndarray, settings: ClusteringSettings, **options: Any) -> ClusterResult:
        drawn_by.append(settings.method)
        return cluster(points, settings, **options)

    monkeypatch.setattr(auto, "cluster", counting)
    drawn(planted()[0])
    assert drawn_by == ["mixture", "kmeans++"]  # and once more by the peer, in its own module


# Vectors


def test_vectors_are_candidates_only_where_there_are_any() -> None:
    frame, _ = planted()
    found = drawn(frame, vectors=random_vectors(150), k=3)
    assert sorted(c.name for c in found.candidates) == sorted((*ALL, *VECTORS))
    assert found.chosen == "columns, mixture"
    assert language_model_says(found.candidates).startswith(
        "Reading whole rows as text, as language models do, adds no"
    )
    assert language_model_says(drawn(frame, k=3).candidates) == ""


@pytest.mark.parametrize("k", [2, "auto"])
def test_vectors_that_know_what_the_columns_hide_win(k: int | str, hashes: type[LetterHashes]) -> None:
    frame, topic = about_topics()
    vectors = random_vectors(120) + 12 * topic[:, None]
    found = drawn(frame, plan=plan_of(frame, note="text"), vectors=vectors, k=k, n_init=5)  # one start of each view
    assert found.chosen in VECTORS
    assert adjusted_rand_score(topic, found.labels) == 1.0
    assert language_model_says(found.candidates).startswith("Reading whole rows as text, as language models do, adds ")
    assert "nothing" not in language_model_says(found.candidates)
    if found.space is None:
        np.testing.assert_array_equal(found.points, vectors.astype(np.float32))
        assert found.texts is None
    else:
        assert found.space.needs_vectors
        assert found.texts == "r1"


def test_where_the_columns_tell_nothing_vectors_may_say_how_many() -> None:
    """Three groups of vectors, of which no column tells."""
    group = np.arange(150) % 3
    vectors = random_vectors(150) * 0.1 + np.eye(8)[group]
    found = drawn(noise(), vectors=vectors)
    assert found.k == 3
    assert NOTHING_SAVED in found.result.notes


# Texts


def test_texts_are_read_once_for_all_candidates(hashes: type[LetterHashes]) -> None:
    frame, _ = about_topics(60)
    frame = pl.concat([frame, frame])
    found = drawn(frame, plan=plan_of(frame, note="text"), vectors=random_vectors(120), k=2)
    assert len(found.candidates) == len((*ALL, *VECTORS))
    assert hashes.opened == 1
    notes = set(frame["note"].to_list())
    assert len(hashes.read) == len(set(hashes.read)) == 2 * len(notes)
    assert {text for text in hashes.read if text not in notes} == {
        f"note is {note}, size is {size}" for note, size in zip(frame["note"], _written(frame), strict=True)
    }


def _written(frame: pl.DataFrame) -> list[str]:
    plan = plan_of(frame, note="text")
    return [row[1].removeprefix("size is ") for row in write_clauses(frame, plan).to_list()]


def test_no_model_is_opened_for_a_method_on_columns_without_text(hashes: type[LetterHashes]) -> None:
    assert drawn(planted()[0], k=3, method="mixture").texts is None
    assert hashes.opened == 0


def test_whole_rows_are_read_once_however_often_they_are_segmented(hashes: type[LetterHashes]) -> None:
    frame, _ = planted(60)
    found = drawn(frame, k=3, measured=True)
    assert found.texts is None  # which nothing needs later
    assert len(hashes.read) == len(set(hashes.read)) == 60
    assert hashes.read[0].count(" is ") == 3
    by_name = {c.name: c for c in found.candidates}
    assert by_name[ROW_TEXTS].bits_saved is not None
    assert language_model_says(found.candidates).startswith(
        "Reading whole rows as text, as language models do, adds nothing"
    )


def test_rows_that_a_language_model_tells_apart_best_are_taken() -> None:
    """The encoder knows what the words of a row mean; the columns each tell little."""
    frame, group = planted(90)

    def encode(texts: Sequence[str]) -> np.ndarray:
        whole = write_clauses(frame, plan_of(frame)).list.join(", ").to_list()
        groups = np.array([group[whole.index(text)] for text in texts])
        return np.eye(3, dtype=np.float32)[groups] + np.float32(0.01) * random_vectors(len(texts), 3).astype("f4")

    found = drawn(frame, k=3, encode=encode)
    by_name = {c.name: c for c in found.candidates}
    assert by_name[ROW_TEXTS].bits_saved == pytest.approx(
        Referee(frame, plan_of(frame).columns, seed=0).bits_saved(group)
    )
    assert by_name[ROW_TEXTS].rounded_bits == max(c.rounded_bits for c in found.candidates)
    assert adjusted_rand_score(group, found.labels) == 1.0


@pytest.mark.parametrize("k", [3, "auto"])
def test_where_no_column_tells_rows_apart_the_vectors_do(k: int | str) -> None:
    group = np.arange(60) % 3
    frame = pl.DataFrame({"same": ["x"] * 60, "parts": [{"a": int(g)} for g in group]})
    found = drawn(
        frame, vectors=np.eye(3, dtype=np.float32)[group] + 0.01 * random_vectors(60)[:, :3], k=k, measured=True
    )
    assert (found.chosen, found.candidates, found.space) == ("vectors, k-means", (), None)
    assert found.result.notes[-1] == NOTHING_TO_COMPARE_BY
    assert found.stability is not None
    if k == 3:
        assert adjusted_rand_score(group, found.labels) == 1.0
    with pytest.raises(ErasmoError):
        drawn(frame, k=k)


def test_a_peer_that_tells_fewer_segments_than_asked_for_says_so() -> None:
    frame = pl.DataFrame({"a": ["x", "y", "z"] * 10, "b": [1.0, 5.0, 9.0] * 10})
    found = drawn(frame, k=5)
    assert found.k < 5
    assert any("Asked for k=5" in note for note in found.result.notes)


def test_an_encoder_that_cannot_be_had_is_looked_for_once() -> None:
    asked = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        raise ErasmoError("Got no network")

    frame, _ = about_topics(60)
    with pytest.raises(ErasmoError, match=r"columns, mixture: Got no network\.; columns, k-means: Got no network"):
        drawn(frame, plan=plan_of(frame, note="text"), k=2, encode=encode)
    assert len(asked) == 1
    found = drawn(planted()[0], k=3, encode=encode)  # where there is no column of text, all else goes on
    assert {c.name: c.refused for c in found.candidates if c.refused} == {ROW_TEXTS: "Got no network."}
    assert found.chosen == "columns, mixture"


@pytest.mark.parametrize("k", [2, "auto"])
def test_a_network_that_fails_does_not_decide_on_the_segments_of_texts(k: int | str) -> None:
    def encode(texts: Sequence[str]) -> np.ndarray:
        raise TextModelError("pypi:some==1", ErasmoError("Got no network"))

    frame, group = about_topics(60)
    with pytest.raises(TextModelError, match=r"clustering\.text_model"):
        drawn(frame, plan=plan_of(frame, note="text"), k=k, encode=encode, vectors=np.eye(4, dtype=np.float32)[group])
    rows = planted()[0]
    found = drawn(rows, k=k, encode=encode, vectors=np.zeros((rows.height, 2), dtype=np.float32))
    assert ROW_TEXTS in {c.name for c in found.candidates if "clustering.text_model" in c.refused}


# Figures


def test_candidates_are_measured_on_the_rows_compared_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, _ = planted(90)
    plain, found = drawn(frame, k=3), drawn(frame, k=3, measured=True)
    assert found.labels.tobytes() == plain.labels.tobytes()
    assert [(c.name, c.bits_saved) for c in found.candidates] == [(c.name, c.bits_saved) for c in plain.candidates]
    assert plain.stability is None
    assert found.stability is not None
    assert found.stability.resamples == 10
    assert len(found.stability.jaccard) == found.k
    best = found.candidates[0]
    told = table_measures(frame, plan_of(frame).columns, found.labels, seed=0)
    assert best.separation == pytest.approx(told["separation"])
    assert best.gower_silhouette == pytest.approx(told["gower_silhouette"])
    assert best.tree_accuracy == pytest.approx(told["tree_accuracy"])
    assert best.stability == found.stability.ari > 0.9
    drawn_too = [c for c in found.candidates if c.bits_saved is not None]
    assert all(-0.5 <= (c.stability or 0.0) <= 1 and c.separation is not None for c in drawn_too)


def test_the_stability_of_a_method_by_name_is_told_too() -> None:
    found = drawn(planted(90)[0], k=3, method="mixture", measured=True)
    assert found.stability is not None
    assert found.stability.ari > 0.9


@pytest.mark.parametrize("winner", ["Gower, average linkage", "columns, k-means"])
def test_the_published_segments_stability_is_of_all_rows_that_they_are_drawn_on(
    winner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "COMPARED_ROWS", 80)
    ready_made(monkeypatch, {name: 1.0 + (name == winner) for name in COLUMNS})
    found = drawn(planted(120)[0], k=3, measured=True)
    assert found.chosen == winner
    assert found.stability is not None
    assert found.stability.rows == (80 if winner in PEERS else 120)


def test_a_figure_that_fails_is_left_out_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a cell of the table")

    monkeypatch.setattr(candidates, "separation", broken)
    monkeypatch.setattr(auto, "peer_steadiness", broken)
    found = drawn(planted(60)[0], k=3, measured=True)
    assert {c.separation for c in found.candidates} == {None}
    assert {c.name for c in found.candidates if c.stability is not None} == {"columns, mixture", "columns, k-means"}
    assert found.candidates[0].tree_accuracy is not None
    told = capsys.readouterr().err
    assert "A figure is left out: RuntimeError" in told
    assert "a cell of the table" not in told


def test_the_encoder_reads_a_text_once_and_forgets_the_oldest(
    hashes: type[LetterHashes], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = text_encoder("path:x", Path())
    assert hashes.opened == 0
    assert encode([]).shape == (0, 1)
    assert hashes.opened == 0
    first = encode(["b", "a", "b"])
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(encode(["a", "c"])[0], first[1])
    assert (hashes.read, hashes.opened) == (["b", "a", "c"], 1)
    monkeypatch.setattr(texts_module, "MOST_KEPT", 3)
    np.testing.assert_array_equal(encode(["a", "d"])[0], first[1])  # which it still knew
    assert hashes.read == ["b", "a", "c", "d"]
    encode(["b", "a", "d"])
    assert hashes.read == ["b", "a", "c", "d", "b"]


def test_the_encoder_is_pickled_without_what_it_has_read(hashes: type[LetterHashes]) -> None:
    encode = text_encoder("path:x", Path("somewhere"))
    vectors = encode(["a text that no pickle holds"])
    pickled = pickle.dumps(encode)
    assert b"no pickle holds" not in pickled
    np.testing.assert_array_equal(pickle.loads(pickled)(["a text that no pickle holds"]), vectors)
    assert hashes.opened == 2


def test_a_real_sentence_encoder_reads_texts(tmp_path: Path) -> None:
    model = f"path:{tiny_sentence_encoder(tmp_path / 'encoder')}"
    frame, _ = about_topics(40)
    found = drawn(frame, plan=plan_of(frame, note="text"), k=2, text_model=model)
    assert found.texts
    assert found.space is not None
    assert found.space.needs_texts
    encode = text_encoder(model, tmp_path)
    np.testing.assert_allclose(found.space.read(frame, encode), found.points, atol=1e-4)


def test_texts_alone_are_nothing_to_one_hot_vectors(hashes: type[LetterHashes]) -> None:
    frame, topic = about_topics(words=10)
    frame = frame.select("note")
    found = drawn(frame, plan=plan_of(frame, note="text"), k=2)
    by_name = {c.name: c for c in found.candidates}
    assert by_name["one-hot, k-means"].bits_saved is None
    assert "Got a table without numbers" in by_name["one-hot, k-means"].refused
    assert found.chosen == "Gower, average linkage"  # by words, which the encoder of hashes knows nothing of
    assert adjusted_rand_score(topic, found.labels) > 0.9
    assert found.texts == "r1"
