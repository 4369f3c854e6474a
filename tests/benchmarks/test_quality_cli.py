from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quality.__main__ import _methods, _parser, main
from tests.benchmarks.planted import planted


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    planted().write_parquet(folder / "planted.parquet")
    (folder / "notes.txt").write_text("".join(f"This is the rather long note number {i} of many.\n" for i in range(9)))
    (folder / "suite.yaml").write_text(
        "- {name: planted, file: planted.parquet, label: kind, drop: leak, k: true}\n"
        "- {name: notes, file: notes.txt, k: 2}\n- {name: gone, file: gone.parquet, label: y}\n"
    )
    return folder


def needed(data: Path) -> list[str]:
    out = data.parent / "out" / "results.json"
    return ["--data", str(data), "--suite", str(data / "suite.yaml"), "--out", str(out), "--models", str(data / "m")]


def call(data: Path, *given: str) -> int:
    return main([*needed(data), *given])


def test_a_run_prints_its_tables_and_goes_on_where_it_was(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--methods", "gower-average,onehot-kmeans", "--rows", "60", "--seeds", "2")
    assert call(data, *given) == 0
    printed = capsys.readouterr()
    assert "planted  1.000 ± 0.000  1.000 ± 0.000" in printed.out
    assert "no column it can use" in printed.out
    assert "12 rows, 6 of them without a result" in printed.out
    file = data.parent / "out" / "results.json"
    results = json.loads(file.read_text())
    assert [(r["dataset"], r["method"], r["seed"], r["n"]) for r in results["rows"]][:4] == [
        *(("planted", "onehot-kmeans", seed, 60) for seed in (0, 1)),
        *(("planted", "gower-average", seed, 60) for seed in (0, 1)),
    ]
    assert results["means"]["gower-average"]["ari"] == 1.0
    assert results["settings"]["seeds"] == 2
    notes = [r for r in results["rows"] if r["dataset"] == "notes" and r["method"] == "gower-average"]
    assert all(r["ari"] is None and r["error"] is None and r["stability"] is not None for r in notes)
    assert call(data, *given) == 0
    assert json.loads(file.read_text())["rows"] == results["rows"]  # seconds too: nothing was run again


def test_ideas_are_run_beside_the_methods_and_have_their_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = "fused,idea:points-kmeans,idea:no-prior"
    assert call(data, "--datasets", "planted", "--methods", methods, "--seeds", "2", "--no-stability") == 0
    printed = capsys.readouterr().out
    assert "points-kmeans  1.000 ± 0.000  fused    0.000 ± 0.000 " in printed
    results = json.loads((data.parent / "out" / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == [
        name for name in ("fused", "idea:points-kmeans", "idea:no-prior") for _ in range(2)
    ]
    assert "--ideas" in _parser().format_help()
    asked = _methods(_parser().parse_args([*needed(data), "--methods", "auto", "--ideas", "tuned,views", "--full"]))
    names = [method.name for method in asked]
    assert names[:4] == ["auto", "erasmo", "erasmo-nv", "paper"]
    assert names[-2:] == ["idea:contrast-minilm", "idea:contrast-causal"]
    assert "idea:consensus" in names
    assert "idea:no-prior" not in names
    every = [method.name for method in _methods(_parser().parse_args([*needed(data), "--ideas"]))]
    assert "idea:no-prior" in every
    assert not any("causal" in name for name in every)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--methods", "kmeans"), "Got method 'kmeans'"),
        (("--datasets", "zoo"), "Got table 'zoo'"),
        (("--ideas", "zoo"), "Got ideas 'zoo'"),
        (("--slow-datasets", "zoo"), "Got table 'zoo'"),
        (("--data", "nowhere"), "Got --data nowhere"),
        (("--suite", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(
    data: Path, given: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(data, *given) == 1
    printed = capsys.readouterr().err
    assert told in printed
    assert len(printed.splitlines()) == 1


def test_a_run_without_any_result_ends_with_one(data: Path) -> None:
    assert call(data, "--methods", "gower-average", "--datasets", "gone") == 1
    assert json.loads((data.parent / "out" / "results.json").read_text())["rows"][0]["error"]
