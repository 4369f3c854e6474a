from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.tables import plain
from benchmarks.speed import tables
from benchmarks.speed.results import begun, pieces_beside, read_results, write_results
from benchmarks.speed.workers import figures_of
from docs import make_scale
from docs.make_performance import PAGE, main
from erasmo_dagster.errors import ErasmoError

ROUND = {
    "rows": 5_000,
    "vs_paper": 31.5,
    "vs_sentence_transformers": 1.9,
    "ceiling": 2.2,
    "share_of_ceiling": 0.864,
    "share_of_peak": 0.51,
    "max_abs_diff": 2.5e-5,
    "rows_per_s": 19.0,
    "pieces": [{"ours": {"rows": 5_000}}],
}
TRAINING = {
    "vs_paper": 9.0,
    "vs_trainer": 1.2,
    "peak_mb": 1_900.0,
    "rows_per_s": 2.1,
    "tokens_per_s": 170.0,
    "pieces": [{"ours": {"rows": 96}}],
    "peers": {"trainer": {"rows_per_s": 1.8, "tokens_per_s": 140.0, "peak_mb": 3_000.0}, "paper": {"rows_per_s": 0.2}},
}


def test_pieces_are_kept_for_the_same_run_alone(tmp_path: Path) -> None:
    out = tmp_path / "results.json"

    def never() -> dict[str, Any]:
        raise AssertionError("was measured already")

    assert pieces_beside(out, seed=0).measured(lambda: {"seconds": 1.5}, part="text") == {"seconds": 1.5}
    with out.with_name("results.json.partial.jsonl").open("ab") as file:
        file.write(b'{"digest": "half a li')
    pieces = pieces_beside(out, seed=0)
    assert pieces.measured(never, part="text") == {"seconds": 1.5}
    assert pieces.get(part="clustering") is None
    assert pieces_beside(out, seed=1).get(part="text") is None
    pieces.measured(lambda: {"seconds": 2.5}, part="clustering")
    assert pieces_beside(out, seed=0).get(part="clustering") == {"seconds": 2.5}
    pieces.remove()
    assert list(tmp_path.iterdir()) == []


def test_parts_of_the_same_machine_come_together(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    first = begun(out, {"command": "a", "effort": "quick"})
    write_results(out, {**first, "lineage": {"first_s": 10.0, "refresh_s": 1.0}})
    assert begun(out, {"command": "b", "effort": "quick"})["lineage"]["first_s"] == 10.0
    assert "lineage" not in begun(out, {"command": "b", "effort": "full"})
    other = {**read_results(out), "machine": {"Processor": "another"}}
    out.write_text(json.dumps(other))
    assert "lineage" not in begun(out, {"command": "b", "effort": "quick"})
    out.write_text("{}")
    with pytest.raises(ErasmoError, match="results file"):
        read_results(out)


def test_what_is_asked_stands_beside_what_is_reached() -> None:
    lineage = {"rows": 10_000, "first_s": 100.0, "refresh_s": 6.0}
    other = {**ROUND, "rows": 700, "share_of_peak": 0.7, "max_abs_diff": 4e-5}
    results = {"embedding": {"bank": ROUND, "other": other}, "finetuning": TRAINING, "lineage": lineage}
    found = {row[0]: row[1:] for row in tables.targets(results).rows}
    peak = "embedding: share of the matrix peak, the least of all tables"
    assert found["embedding, bank: share of the ceiling"] == ("at least 0.75", "0.86", "5,000", "yes")
    assert found[peak] == ("at least 0.55", "0.51", "5,000", "no")
    assert found["embedding: largest difference of vectors"] == ("at most 0.0001", "4.0e-05", "700", "yes")
    assert found["fine-tuning: memory over the Trainer's"][1:] == ("0.63", "96", "yes")
    refresh = "lineage: a refresh over the first run"
    assert found[refresh] == ("at most 0.05 of 10,000 rows", "0.060", "10,000", "no")
    # Of fewer rows than are asked for it is told, and nothing is said of the bound.
    (fewer,) = tables.targets({"lineage": {"rows": 2_000, "first_s": 100.0, "refresh_s": 4.0}}).rows
    assert fewer == (refresh, "at most 0.05 of 10,000 rows", "0.040", "2,000", "–")
    assert not any("mushroom" in what for what in found)
    made = tables.targets({"embedding": {"synthetic-bank": ROUND}})
    assert made.rows[0][0] == "embedding, synthetic-bank: share of the ceiling"


def test_the_page_is_filled_from_results(tmp_path: Path) -> None:
    embedding, rest = tmp_path / "a.json", tmp_path / "b.json"
    asked = {"command": "python -m benchmarks.speed --only embedding", "data": "real", "device": "cpu", "threads": 2}
    write_results(embedding, {**begun(embedding, asked), "embedding": {"bank": ROUND}})
    sizes = {str(rows): {"adapter": {"seconds": 2.0, "peak_mb": 600.0 + rows / 1e5}} for rows in (10_000, 1_000_000)}
    scale = {"kmeans": {"1000000": {"seconds": 41.0, "peak_mb": 900.0}}}
    parts = {"finetuning": TRAINING, "memory": sizes, "clustering": {"scale": scale}, "text": {"error": "no time"}}
    write_results(rest, {**begun(rest, {"command": "python -m benchmarks.speed", "device": "NVIDIA"}), **parts})
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    main(embedding, rest, page=page)
    text = page.read_text(encoding="utf-8")
    assert "| bank | 5,000 | 31.5 | 1.90 | 2.20 | 0.86 | 0.51 | 2.5e-05 |" in text
    assert "| this project | 2.100 | 170 | 1,900 | – |" in text
    assert "| adapter | 2.0 | 600 | 2.0 | 610 |" in text
    assert (
        "| clustering: k-means of 64 dimensions, in seconds | at most 60 of 1,000,000 rows | 41 | 1,000,000 | yes |"
        in text
    )
    assert "- Accelerator: NVIDIA" in text
    assert "| text | no time |" in text
    once = text
    main(embedding, rest, page=page)
    assert page.read_text(encoding="utf-8") == once
    page.write_text(once.replace("<!-- memory -->", ""), encoding="utf-8")
    with pytest.raises(ErasmoError, match="no marks <!-- memory -->"):
        main(rest, page=page)


def told(seconds: float, work: int = 100, **more: float) -> dict[str, Any]:
    return {"work": work, "seconds": seconds, **more}


def test_one_worker_and_two_stand_beside_processes_without_ray() -> None:
    ways = {"local": told(50.0), "side_by_side": told(25.0)}
    ways |= {"ray_1": told(60.0, few_s=9.0, start_s=5.0), "ray_2": told(36.0, few_s=10.0, start_s=5.0)}
    figures = figures_of(ways)
    assert figures["rate"] == {"local": 2.0, "side_by_side": 4.0, "ray_1": 1.96, "ray_2": 3.85}
    assert (figures["machine"], figures["speedup"]) == (2.0, 1.962)
    assert figures["overhead"] == 0.02  # of Ray beside the same work, what a cluster takes to start left out
    assert figures["speedup_whole"] == round(65 / 41, 3)
    table = tables.workers({"workers": {"embedding": {**ways, **figures}}})
    assert [row[1:5] for row in table.rows] == [
        ("one process", "100 texts", "2.0", "1"),
        ("two processes that share nothing", "100 texts", "4.0", "2.00"),
        ("Ray, one worker", "100 texts", "2.0", "0.98"),
        ("Ray, two workers", "100 texts", "3.9", "1.93"),
    ]
    assert "Ray, two workers" in plain(table)


def test_ten_million_rows_are_reckoned_from_what_was_measured() -> None:
    piece = {"operations": 7.2e12, "tokens": 80_000, "ours": {"rows": 1_000}}
    workers = {"tokenizing": {"rate": {"local": 250_000.0}}, "transport": {"rate": {"ray_2": 5_000.0}}}
    memory = {"1000000": {"published_segments": {"seconds": 3.6, "peak_mb": 1.0}}}
    table = make_scale.far({"embedding": {"bank": {"pieces": [piece]}}, "workers": workers, "memory": memory})
    assert table.rows == (
        ("bank", "the model, assumed", "800", "TFLOP/s of eight", "0.03"),  # 10 million times 7.2 billion over 800e12
        ("bank", "tokenizing", "2,000,000", "tokens a second of eight", "0.11"),
        ("bank", "vectors through Ray to the disk", "5,000", "rows a second", "0.56"),
        ("bank", "published", "277,778", "rows a second", "0.01"),
    )
    assert make_scale.far({}).rows == ()
