from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quality.__main__ import main
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


def call(data: Path, *given: str) -> int:
    out = data.parent / "out" / "results.json"
    told = ["--data", str(data), "--suite", str(data / "suite.yaml"), "--out", str(out), "--models", str(data / "m")]
    return main([*told, *given])


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


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--methods", "kmeans"), "Got method 'kmeans'"),
        (("--datasets", "zoo"), "Got table 'zoo'"),
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
