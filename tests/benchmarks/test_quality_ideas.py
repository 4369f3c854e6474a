"""Methods of one idea each: that each does what it says, and no label reaches it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks.quality import ideas_columns as columns
from benchmarks.quality import ideas_rows as rows
from benchmarks.quality import ideas_views as views
from benchmarks.quality.ideas import ALL, GROUPS, IDEA_METHODS, IDEAS, PREFIX, ideas_named, is_idea
from benchmarks.quality.ideas_columns import Readers, changed
from benchmarks.quality.methods import METHODS, Place, methods_named
from benchmarks.quality.peers import Labels
from benchmarks.quality.reading import Reader, texts_of
from benchmarks.quality.suite import Drawn
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.tables import mixture, parts
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.starts import starts
from tests.benchmarks.planted import drawn_of, planted

WORDS = {"A": "cats and dogs at play", "B": "stocks fell sharply today", "C": "rain and wind all week long"}


def reader(asked: list[str] | None = None) -> Reader:
    """Reads a text as how often each letter is in it, and notes what it was asked."""

    class Letters(Reader):
        def __call__(self, texts):  # type: ignore[no-untyped-def]
            if asked is not None:
                asked.extend(texts)
            return np.array([[t.count(chr(c)) for c in range(97, 123)] * 2 for t in texts], np.float32)

    return Letters(lambda: (Path(), lambda _: iter(())))


@pytest.fixture
def drawn(tmp_path: Path) -> Drawn:
    """Three planted groups, with a column of text that tells them apart as well."""
    frame = planted(60)
    notes = [f"{WORDS[kind]}, and note that number {i} is one of them" for i, kind in enumerate(frame["kind"])]
    return drawn_of(frame.with_columns(pl.Series("note", notes)), tmp_path)


@pytest.fixture
def readers() -> Readers:
    return Readers(reader(), reader())


def agreement(drawn: Drawn, labels: Labels) -> float:
    assert drawn.truth is not None
    return float(adjusted_rand_score(drawn.truth, labels))


def test_every_idea_is_beside_a_method_that_is_run() -> None:
    names = [idea.name for idea in IDEAS]
    assert len(set(names)) == len(names)
    known = {**METHODS, **IDEA_METHODS}
    for idea in IDEAS:
        assert idea.name in known
        assert idea.against in known
        assert idea.against != idea.name
        assert idea.says.endswith(".")
        assert (idea.method is not None) == is_idea(idea.name) == bool(idea.group)
        if idea.against in IDEA_METHODS:  # it has a result wherever the idea has
            assert IDEA_METHODS[idea.against].slow <= known[idea.name].slow
    assert not set(IDEA_METHODS) & set(METHODS)
    assert not any("," in name for name in IDEA_METHODS)  # --methods takes them by name


def test_ideas_are_asked_for_by_group_and_slow_ones_with_full() -> None:
    assert set(GROUPS) == {"columns", "rows", "views", "tuned"}
    quick, every = ideas_named([ALL]), ideas_named([ALL], full=True)
    assert set(every) == set(IDEA_METHODS)
    assert set(every) - set(quick) == {name for name in every if "causal" in name or "contrast" in name}
    assert ideas_named(["tuned"]) == []
    assert ideas_named([]) == []
    assert f"{PREFIX}no-texts" in ideas_named(["columns"])
    asked = methods_named([*ideas_named(["views"]), "auto"], others=IDEA_METHODS)
    assert [method.name for method in asked] == ["auto", *ideas_named(["views"])]
    with pytest.raises(ErasmoError, match="Got ideas 'numbers'"):
        ideas_named(["numbers"])
    with pytest.raises(ErasmoError, match="Got method 'idea:none'"):
        methods_named(["idea:none"], others=IDEA_METHODS)


def test_what_ideas_depend_on_is_told(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path)
    told = {name: method.about(place) for name, method in IDEA_METHODS.items()}
    assert told[f"{PREFIX}no-texts"]["code"] != told[f"{PREFIX}rows-unit"]["code"]
    assert told[f"{PREFIX}contrast-causal"]["tokens"] == 20_000
    assert "base model" in told[f"{PREFIX}causal-beside"]
    assert "base model" not in told[f"{PREFIX}rows-beside"]


def test_the_mixtures_of_ideas_are_the_projects_with_one_thing_changed(drawn: Drawn, readers: Readers) -> None:
    sample, seen = drawn.sample, []
    before = (mixture.LEAST_SHARE, parts.FEW_NUMBERS)
    with changed(mixture__LEAST_SHARE=0.5, parts__FEW_NUMBERS=0):
        seen.append((mixture.LEAST_SHARE, parts.FEW_NUMBERS))
        with pytest.raises(ZeroDivisionError), changed(mixture__LEAST_SHARE=0.7):
            raise ZeroDivisionError
        seen.append((mixture.LEAST_SHARE, parts.FEW_NUMBERS))
    assert seen == [(0.5, 0)] * 2
    assert before == (mixture.LEAST_SHARE, parts.FEW_NUMBERS)
    plain = columns.mixture(sample, readers.sentences, 0)
    assert agreement(drawn, plain) == 1.0
    draws = {
        "no texts": columns.no_texts,
        "by words": columns.texts_by_words,
        "points": columns.points_kmeans,
        "blocks": columns.weighted_blocks(0.0),
        "diagonal": columns.other_mixture(mixture___structures=lambda _: (False,)),
        "one view": columns.other_mixture(mixed__starts=columns.one_view),
        "beside": columns.beside_mixture(Readers.minilm),
        "block": columns.weighted_blocks(1.0, Readers.causal_rows),
    }
    for name, draw in draws.items():
        labels = draw(sample, readers, 0)
        assert labels.shape == (60,), name
        assert agreement(drawn, labels) > 0.9, name
        assert np.array_equal(draw(sample, readers, 0), labels), name


def test_texts_are_left_out_where_an_idea_says_so(drawn: Drawn, tmp_path: Path) -> None:
    asked: list[str] = []
    readers = Readers(reader(asked), reader(asked))
    columns.no_texts(drawn.sample, readers, 0)
    columns.texts_by_words(drawn.sample, readers, 0)
    assert asked == []
    columns.mixture(drawn.sample, readers.sentences, 0)
    assert len(asked) == 60
    alone = planted(30).select("kind", note=pl.concat_str(pl.lit("a note that is rather long, on number "), "age"))
    with pytest.raises(ErasmoError, match="no column it can use"):
        columns.no_texts(drawn_of(alone, tmp_path, drop=[]).sample, readers, 0)


def test_one_view_starts_from_all_dimensions_alone() -> None:
    points = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    points[:, 2:] = points[:, 2:] > 0
    layout = Layout(2, (2,), ())
    of_all = starts(points, layout, 3, count=5, seed=0)
    alone = columns.one_view(points, layout, 3, count=5, seed=0)
    assert np.array_equal(alone[0], of_all[0])  # the first is of all dimensions in both
    assert not np.array_equal(alone[1], of_all[1])


def test_a_block_of_many_columns_weighs_as_much_as_one_of_few() -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(400, 1)) @ np.ones((1, 50)) + rng.normal(size=(400, 50)) * 1e-3
    for block in (wide * 1e4, wide[:, :1] * 1e-4, wide):
        balanced = columns._balanced(block.astype(np.float32))
        assert np.linalg.norm(balanced, ord=2) == pytest.approx(20, rel=1e-4)  # the root of the rows
    assert not columns._balanced(np.ones((5, 2), np.float32)).any()


def test_vectors_that_share_a_few_directions_are_told_apart_without_them() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(120) % 3
    vectors = np.zeros((120, 30))
    vectors[np.arange(120), group] = 1
    vectors += rng.normal(size=vectors.shape) * 0.1
    hidden = vectors + rng.normal(size=(120, 1)) * 50 * rng.normal(size=(1, 30)) + 7

    def found(by: rows.Spread | None) -> float:
        labels = rows.spread(lambda _, __: hidden.astype(np.float32), by)
        sample = type("S", (), {"k": 3})()
        return float(adjusted_rand_score(group, labels(sample, None, 0)))  # type: ignore[arg-type]

    assert found(None) < 0.2 < 0.9 < found(rows.without_first(1))
    white = rows.whitened(hidden.astype(np.float32))
    assert white.shape == (120, 16)
    assert np.allclose(np.cov(white.T, bias=True), np.eye(16), atol=1e-3)
    assert rows.whitened(np.eye(4, dtype=np.float32)).shape == (4, 3)  # no direction without variance
    assert np.allclose(np.linalg.norm(rows.unit(hidden.astype(np.float32)), axis=1), 1)
    assert not rows.unit(np.ones((3, 2), np.float32)).any()


def test_orders_are_the_same_for_all_rows_or_each_rows_own(drawn: Drawn) -> None:
    asked: list[str] = []
    readers = Readers(reader(asked), reader())
    rows.orders_averaged(drawn.sample, readers, 0)
    assert len(asked) == 4 * 60
    heads = [text.partition(" is ")[0] for text in asked]
    assert all(len(set(heads[start : start + 60])) == 1 for start in range(0, 240, 60))
    assert asked[:60] == texts_of(drawn.sample)
    asked.clear()
    rows.orders_by_row(drawn.sample, readers, 0)
    assert len({text.partition(" is ")[0] for text in asked}) > 3
    first = list(asked)
    asked.clear()
    rows.orders_by_row(drawn.sample, readers, 0)
    assert asked == first
    rows.orders_by_row(drawn.sample, readers, 1)
    assert asked[60:] != first


def test_numbers_are_told_by_their_place_or_in_words(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"size": [*(float(i) for i in range(99)), None], "code": [i % 3 for i in range(100)], "kind": ["A", "B"] * 50}
    )
    sample = drawn_of(frame, tmp_path, drop=[]).sample
    texts = texts_of(rows.relative(sample))
    assert texts[0].endswith("size is very low (bottom 5 percent)")
    assert texts[50].endswith("size is average")
    assert texts[98].endswith("size is very high (top 5 percent)")
    assert texts[99].endswith(texts_of(sample)[99].rpartition("size is ")[2])  # what is missing stays so
    assert [text.count("(bottom 5 percent)") for text in texts].count(1) == 5
    assert "code is 0" in texts[0]
    asked: list[str] = []
    rows.numbers_in_words(sample, Readers(reader(asked), reader()), 0)
    assert asked[41].endswith("size is forty-one")
    tied = drawn_of(
        frame.with_columns(size=pl.Series([1.0] * 80 + [float(i) for i in range(2, 22)])), tmp_path, drop=[]
    )
    told = {text.rpartition(" is ")[2] for text in texts_of(rows.relative(tied.sample))[:80]}
    assert told == {"average"}  # equal numbers have one place, that of their middle


def test_views_agree_on_what_is_there(drawn: Drawn, readers: Readers) -> None:
    for draw in (views.consensus, views.fused_graph):
        labels = draw(drawn.sample, readers, 0)
        assert len(set(labels.tolist())) == 3
        assert agreement(drawn, labels) > 0.9


def test_a_choice_is_by_its_figure_alone(drawn: Drawn, readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    group = np.arange(60) % 3
    candidates = {"bad": np.arange(60) // 20, "good": group, "odd": np.where(np.arange(60) == 0, 1, 0)}
    calls: list[str] = []

    def fails(sample, readers, seed):  # type: ignore[no-untyped-def]
        calls.append("fails")
        raise ErasmoError("Got nothing", expected="something")

    draws = {name: lambda *_, labels=labels: labels for name, labels in candidates.items()}
    monkeypatch.setattr(views, "_CANDIDATES", {"fails": fails, **draws})
    monkeypatch.setattr(views, "_kept", {})
    for judge in (views.by_bits, views.by_silhouette, views.by_separation):
        assert np.array_equal(views.chosen_by(judge)(drawn.sample, readers, 0), group)
    assert calls == ["fails"]  # drawn once for all
    assert readers.shared_seconds > 0
    fixed = {"bad": 1.0, "good": None, "odd": 0.5}
    assert np.array_equal(
        views.chosen_by(lambda *_: lambda name, _: fixed[name])(drawn.sample, readers, 0), np.arange(60) // 20
    )
    monkeypatch.setattr(views, "_CANDIDATES", {"fails": fails})
    with pytest.raises(ErasmoError, match="no candidate"):
        views.chosen_by(views.by_bits)(drawn.sample, readers, 1)


def test_the_most_stable_candidate_is_chosen(drawn: Drawn, readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    def ages(sample, readers, seed):  # type: ignore[no-untyped-def]
        return (sample.frame["age"].to_numpy() // 25).astype(np.int64)

    def chance(sample, readers, seed):  # type: ignore[no-untyped-def]
        return np.random.default_rng(int(sample.frame["age"].sum() * 1e6)).integers(0, 3, sample.frame.height)

    def small(sample, readers, seed):  # type: ignore[no-untyped-def]
        if sample.frame.height < 60:
            raise ErasmoError("Got too few rows", expected="more")
        return np.arange(60) % 2

    monkeypatch.setattr(views, "_CANDIDATES", {"small": small, "chance": chance, "ages": ages})
    monkeypatch.setattr(views, "_kept", {})
    assert agreement(drawn, views.chosen_by(views.by_stability)(drawn.sample, readers, 0)) == 1.0


@pytest.mark.parametrize("with_other", [True, False])
def test_a_segment_below_the_floor_wins_only_where_all_have_one(
    tmp_path: Path, readers: Readers, monkeypatch: pytest.MonkeyPatch, with_other: bool
) -> None:
    sample = drawn_of(planted(200), tmp_path).sample
    tiny, other = (np.arange(200) == 0).astype(np.int64), np.arange(200) % 2
    draws = {"tiny": lambda *_: tiny} | ({"other": lambda *_: other} if with_other else {})
    monkeypatch.setattr(views, "_CANDIDATES", draws)
    monkeypatch.setattr(views, "_kept", {})
    found = views.chosen_by(lambda *_: lambda name, __: float(name == "tiny"))(sample, readers, 0)
    assert np.array_equal(found, other if with_other else tiny)
