from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from benchmarks.speed import peak
from benchmarks.speed.__main__ import main
from benchmarks.speed.data import ENTRIES, make_table, open_tables
from benchmarks.speed.results import PARTS
from benchmarks.speed.setting import Bench


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with parts that measure nothing; those given take their place."""
    monkeypatch.setattr("benchmarks.speed.data._ROWS", dict.fromkeys(ENTRIES, 60))

    def steps(bench: Bench) -> Iterator[dict[str, Any]]:
        yield {"bank": {"rows": bench.tables.sample("bank", 0).frame.height}}

    def sizes(_: Bench) -> Iterator[dict[str, Any]]:
        yield {"10000": {"text_corpus": {"seconds": 1.0, "peak_mb": 200.0}}}

    def run(*given: str, **parts: Callable[..., Any]) -> int:
        for name in PARTS:
            whole = (
                steps if name in ("embedding", "finetuning", "precision", "workers") else lambda *_: {"seconds": 1.0}
            )
            whole = sizes if name == "memory" else whole
            part = SimpleNamespace(measure=parts.get(name, whole))
            monkeypatch.setitem(sys.modules, f"benchmarks.speed.{name}", part)
        return main([*given, "--out", str(tmp_path / "results.json"), "--threads", "1", "--device", "cpu"])

    return run


def results(tmp_path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    return told


def test_a_run_writes_every_part(call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--quick") == 0
    told = results(tmp_path)
    assert [name for name in told if name in PARTS] == list(PARTS)
    assert told["embedding"] == {"bank": {"rows": 60}}
    assert (told["effort"], told["data"], told["threads"]) == ("quick", "synthetic", 1)
    assert told["command"].endswith("--out results.json --threads 1 --device cpu")
    assert set(told["machine"]) == {"Processor", "Memory", "System"}
    assert list(tmp_path.glob("*.partial.jsonl")) == []
    assert "seconds" in capsys.readouterr().out


def test_a_stopped_run_leaves_what_it_has_and_goes_on(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    asked = ("--only", "lineage,text,memory")
    assert call(*asked, memory=stopped) == 130
    assert "interrupted" in capsys.readouterr().err
    assert results(tmp_path)["text"] == {"seconds": 1.0}
    assert call(*asked, text=stopped) == 0  # it is not measured again
    assert set(results(tmp_path)) >= {"text", "memory", "lineage"}
    assert call("--only", "clustering") == 0  # what was measured before is still there
    assert set(results(tmp_path)) >= {"text", "memory", "lineage", "clustering"}


def test_a_part_that_fails_stops_no_other(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> Any:
        raise ValueError("got nothing\nat all")

    assert call("--only", "text,lineage", text=failing) == 1
    assert results(tmp_path)["text"] == {"error": "ValueError: got nothing at all"}
    assert results(tmp_path)["lineage"] == {"seconds": 1.0}
    assert "Without a result" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"), [(("--only", "speed"), "Got part 'speed'"), (("--data", "nowhere"), "without bank.parquet")]
)
def test_what_cannot_be_run_is_told_in_a_line(
    call: Callable[..., int], given: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*given) == 1
    printed = capsys.readouterr().err
    assert told in printed
    assert len(printed.splitlines()) == 1


def test_made_tables_are_like_those_that_they_stand_for() -> None:
    bank = make_table("bank", 500, seed=0)
    assert bank.equals(make_table("bank", 500, seed=0))
    assert not bank.equals(make_table("bank", 500, seed=1))
    assert bank.shape == (500, 17)
    assert bank["marital"].n_unique() == 3
    assert bank["balance"].dtype == pl.Int64
    reviews = make_table("clothing", 50, seed=0)["Review Text"]
    assert 15 < reviews.str.split(" ").list.len().mean() < 110  # type: ignore[operator]
    with open_tables(None, 0) as tables:
        assert tables.called("bank") == "synthetic-bank"
        sample = tables.sample("mushroom", 0, 100)
    assert sample.frame.shape == (100, 22)
    assert "class" not in sample.frame.columns
    assert not tables.folder.exists()


@pytest.mark.slow
def test_both_model_parts_measure_a_tiny_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.speed import embedding, finetuning

    monkeypatch.setattr(peak, "SQUARE", 64)
    monkeypatch.setattr("benchmarks.speed.data._ROWS", dict.fromkeys(ENTRIES, 400))
    plan = embedding._Plan(rounds=2, rows=40, paper_rows=2, sentence_rows=20)
    monkeypatch.setitem(embedding._PLANS, "default", plan)
    training = finetuning._Plan(rounds=1, rows=16, paper_rows=2, loss_rows=72)
    monkeypatch.setitem(finetuning._PLANS, "default", training)
    out = tmp_path / "results.json"
    given = ["--base-model", f"path:{tiny_model}", "--device", "cpu", "--threads", "1", "--out", str(out)]
    assert main(["--only", "embedding,finetuning", *given]) == 0
    told = results(tmp_path)
    found = told["embedding"]["synthetic-bank"]
    assert found["max_abs_diff"] < 1e-4
    assert found["rows"] == 40
    assert 1 < found["ceiling"] < 5
    assert found["share_of_ceiling"] == pytest.approx(found["vs_sentence_transformers"] / found["ceiling"], rel=0.01)
    assert 0 < found["share_of_peak"] < 1
    assert [piece["paper"]["rows"] for piece in found["pieces"]] == [2, 2]
    trained = told["finetuning"]
    assert trained["vs_paper"] > 0
    assert trained["eval_loss"] == pytest.approx(trained["peers"]["trainer"]["eval_loss"], rel=0.02)
    first = trained["pieces"][0]
    assert (first["ours"]["rows"], first["trainer"]["rows"]) == (16, 16)
    # Another order of the features makes a few tokens more or less.
    assert first["ours"]["tokens"] == pytest.approx(first["trainer"]["tokens"], rel=0.05)
    assert min(first[name]["peak_mb"] for name in first) > 100
