"""The project's own methods and those with a language model, on tiny models of random weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from benchmarks.quality import methods
from benchmarks.quality.methods import METHODS, PEER_NAMES, SLOW, Place, methods_named
from benchmarks.quality.suite import Drawn
from erasmo_dagster.errors import ErasmoError
from tests.benchmarks.planted import drawn_of, planted
from tests.tiny_encoders import tiny_sentence_encoder

ROWS = np.arange(30)


@pytest.fixture
def drawn(tmp_path: Path) -> Drawn:
    return drawn_of(planted(30), tmp_path)


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    return Place(tmp_path / "models", tmp_path / "cache", tokens=300, base_model=f"path:{tiny_model}")


def test_methods_are_named_in_order_and_slow_ones_asked_for() -> None:
    assert tuple(METHODS) == (
        *("auto", "fused", "erasmo", "erasmo-nv", "onehot-kmeans", "famd-kmeans", "kprototypes", "gower-average"),
        *("gower-spectral", "skrub-kmeans", "minilm-kmeans", "paper"),
    )
    assert len(PEER_NAMES) == 7
    assert [m.name for m in methods_named(None)] == [name for name in METHODS if name not in SLOW]
    assert [m.name for m in methods_named(["paper", "auto"])] == ["auto", "paper"]
    assert [m.name for m in methods_named(None, full=True)] == list(METHODS)
    assert [m.name for m in methods_named(["auto"], full=True)] == ["auto", *SLOW]
    assert [m.name for m in METHODS.values() if m.slow] == list(SLOW)
    with pytest.raises(ErasmoError, match="Got method 'kmeans'"):
        methods_named(["kmeans"])


@pytest.mark.parametrize(("name", "method"), [("auto", "auto"), ("fused", "mixture")])
def test_the_projects_own_methods_get_the_table_without_its_label(
    drawn: Drawn, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    given = []

    def segment_table(frame, plan, clustering, *, seed, models_dir, vectors=None, encode):  # type: ignore[no-untyped-def]
        given.append(
            (frame.columns, len(plan.columns), clustering, seed, models_dir, vectors, encode(["a text"]).shape)
        )
        return SimpleNamespace(labels=np.zeros(frame.height, np.int64), k=1, chosen="stand-in")

    module = ModuleType("erasmo_dagster.method.auto")
    module.segment_table = segment_table  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "erasmo_dagster.method.auto", module)
    monkeypatch.setattr(methods, "ClusteringSettings", SimpleNamespace(model_validate=lambda told: told))
    place = replace(place, sentence_model=f"path:{tiny_sentence_encoder(tmp_path / 'encoder')}")
    fit = METHODS[name].open(drawn.sample, place)
    assert len(fit(ROWS, 7).labels) == 30
    again = fit(ROWS[:10], 8)
    assert len(again.labels) == 10
    assert again.kept_seconds > 0  # its texts had been read
    features = ["age", "balance", "job", "city", "member"]
    told = {"method": method, "k": 3, "text_model": place.sentence_model}
    assert given[0] == (features, 5, told, 7, place.models, None, (1, 16))
    assert given[1][3] == 8


def test_the_sentence_encoder_reads_once_for_all_fits(drawn: Drawn, place: Place, tmp_path: Path) -> None:
    place = replace(place, sentence_model=f"path:{tiny_sentence_encoder(tmp_path / 'encoder')}")
    method = METHODS["minilm-kmeans"]
    fit = method.open(drawn.sample, place)
    first = fit(ROWS, 0)
    assert (len(first.labels), len(set(first.labels.tolist())), first.kept_seconds) == (30, 3, 0.0)
    assert fit(ROWS, 1).kept_seconds > 0
    assert len(fit(ROWS[5:], 0).labels) == 25
    assert len(list((place.cache / "texts").iterdir())) == 1
    again = method.open(drawn.sample, place)(ROWS, 0)
    assert np.array_equal(again.labels, first.labels)
    assert again.kept_seconds > 0
    assert again.kept_mb > 0
    other = drawn.sample.reversed(plan=True)
    assert method.open(other, place)(ROWS, 0).kept_seconds == 0.0  # other texts


def test_erasmo_is_trained_once_for_each_seed_and_kind_of_numbers(drawn: Drawn, place: Place) -> None:
    fit = METHODS["erasmo"].open(drawn.sample, place)
    first = fit(ROWS, 0)
    assert first.labels.shape == (30,)
    assert first.kept_seconds == 0.0
    adapters = place.cache / "encoders"
    (one,) = adapters.iterdir()
    trained = (one / "encoder" / "erasmo.json").stat().st_mtime_ns
    again = fit(ROWS, 0)
    assert np.array_equal(again.labels, first.labels)
    assert again.kept_seconds > 0
    assert (one / "encoder" / "erasmo.json").stat().st_mtime_ns == trained
    METHODS["erasmo-nv"].open(drawn.sample, place)(ROWS, 0)
    assert len(list(adapters.iterdir())) == 2


def test_paper_runs_as_published(drawn: Drawn, place: Place) -> None:
    place = replace(place, paper_rows=12, paper_steps=0)
    method = METHODS["paper"]
    assert method.rows is not None
    assert method.rows(place) == 12
    labels = method.open(drawn.sample, place)(np.arange(12), 0).labels
    assert (labels.shape, len(set(labels.tolist()))) == ((12,), 3)


def test_what_figures_depend_on_is_told(place: Place) -> None:
    for method in METHODS.values():
        told = method.about(place)
        assert {"code", "versions"} <= set(told)
        assert method.about(place) == told
    erasmo, paper = METHODS["erasmo"], METHODS["paper"]
    assert erasmo.about(replace(place, tokens=9)) != erasmo.about(place)
    assert paper.about(replace(place, paper_steps=9)) != paper.about(place)
    assert paper.about(replace(place, tokens=9)) == paper.about(place)
