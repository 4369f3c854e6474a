from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.quality.results import Kept, Row, means, read_results, write_results
from benchmarks.quality.tables import (
    ablation,
    all_tables,
    by_table,
    duel,
    errors,
    gain,
    idea_list,
    markdown,
    mean_ranks,
    oracle_gaps,
    overall,
    plain,
)
from docs.make_quality import PAGE, main
from erasmo_dagster.errors import ErasmoError


def rows_of(aris: dict[str, dict[str, list[float | None]]]) -> list[Row]:
    """Table -> method -> ARI by seed, None where it failed."""
    return [
        Row(table, method, seed, 2, 10, ari=ari, seconds=1.0 + seed, error="Got nothing." if ari is None else None)
        for table, methods in aris.items()
        for method, values in methods.items()
        for seed, ari in enumerate(values)
    ]


ROWS = rows_of(
    {
        "one": {"auto": [0.5, 0.7], "fused": [0.4, 0.4], "onehot-kmeans": [0.6, 0.6], "paper": [0.9]},
        "two": {"auto": [0.31], "fused": [0.1], "onehot-kmeans": [0.3], "paper": [0.0]},
        "text": {"auto": [0.2], "fused": [0.5], "onehot-kmeans": [None], "paper": [None]},
    }
)


def test_means_are_of_tables_and_those_of_seeds() -> None:
    found = means(ROWS)
    assert found["auto"]["ari"] == pytest.approx((0.6 + 0.31 + 0.2) / 3, abs=1e-6)
    assert found["onehot-kmeans"]["ari"] == pytest.approx(0.45)
    assert [found[m]["datasets"] for m in ("auto", "onehot-kmeans")] == [3, 2]
    assert found["auto"]["seconds"] == pytest.approx((1.5 + 1 + 1) / 3, abs=1e-3)
    assert found["auto"]["nmi"] is None
    assert means(rows_of({"t": {"m": [None]}}))["m"]["ari"] is None


def test_ranks_share_ties_and_put_failures_last() -> None:
    # one: paper .9, auto and one-hot .6, fused .4; two: auto, one-hot, fused, paper; text: fused, auto, two without.
    assert mean_ranks(ROWS) == {
        "auto": pytest.approx((2.5 + 1 + 2) / 3),
        "fused": pytest.approx((4 + 3 + 1) / 3),
        "onehot-kmeans": pytest.approx((2.5 + 2 + 3.5) / 3),
        "paper": pytest.approx((1 + 4 + 3.5) / 3),
    }
    assert mean_ranks(rows_of({"t": {"a": [None], "b": [None]}})) == {}


def test_a_tie_is_a_difference_of_at_most_a_hundredth() -> None:
    close = rows_of({"a": {"x": [0.51], "y": [0.50]}, "b": {"x": [0.5], "y": [0.511]}, "c": {"x": [0.6], "y": [0.3]}})
    found = duel(close, "x", "y")
    assert (found.wins, found.ties, found.losses, found.tables) == (1, 1, 1, 3)
    assert duel(ROWS, "auto", "onehot-kmeans").tables == 2  # not where one has failed


def test_the_oracle_is_the_best_peer_or_fused_and_never_paper() -> None:
    gaps = oracle_gaps(ROWS)
    assert gaps["one"] == (pytest.approx(0.6), "onehot-kmeans", pytest.approx(0.6))
    assert gaps["two"][1:] == ("onehot-kmeans", 0.3)
    assert gaps["text"][1:] == ("fused", 0.5)


def test_tables_hold_what_was_found() -> None:
    table = by_table(ROWS)
    assert table.head == ("table", "auto", "fused", "onehot-kmeans", "paper")
    assert table.rows[0] == ("one", "0.600 ± 0.141", "0.400 ± 0.000", "0.600 ± 0.000", "0.900")
    assert table.rows[2] == ("text", "0.200", "0.500", "–", "–")
    assert table.rows[3] == ("mean", "0.370", "0.333", "0.450", "0.450")
    first = overall(ROWS).rows[0]
    assert first[:3] == ("auto", "3", "0.370")
    assert first[overall(ROWS).head.index("ari shared")] == "0.455"
    assert errors(ROWS).rows == (("text", "onehot-kmeans, paper", "Got nothing."),)
    assert [t.title for t in all_tables(rows_of({"t": {"x": [0.1]}}))] == [t.title for t in all_tables(ROWS)][:2]


IDEAS = rows_of(
    {
        "one": {"fused": [0.4, 0.5], "idea:no-texts": [0.5, 0.7], "idea:no-floor": [0.41, 0.5]},
        "two": {"fused": [0.1, 0.3], "idea:no-texts": [0.1, 0.2], "idea:no-floor": [None, None]},
        "three": {"fused": [0.1], "idea:no-prior": [0.9]},
    }
)


def test_what_an_idea_adds_is_over_what_both_have() -> None:
    found = gain(IDEAS, "idea:no-texts", "fused")
    assert found is not None
    assert (found.better, found.worse, found.tables) == (1, 1, 2)
    assert found.ari == pytest.approx((0.6 + 0.15) / 2)
    assert found.gain == pytest.approx((0.15 - 0.05) / 2)
    # Seed 0 has 0.1 and 0, seed 1 has 0.2 and -0.1: both 0.05 on average.
    assert found.gain_deviation == pytest.approx(0)
    assert found.ari_deviation == pytest.approx(abs(0.3 - 0.45) / 2**0.5)
    floor = gain(IDEAS, "idea:no-floor", "fused")
    assert floor is not None
    assert (floor.gain, floor.better, floor.tables) == (pytest.approx(0.005), 0, 1)
    one = gain(IDEAS, "idea:no-prior", "fused")
    assert one is not None
    assert (one.gain, one.gain_deviation) == (pytest.approx(0.8), None)
    assert gain(IDEAS, "auto", "fused") is None


def test_ideas_have_a_table_of_their_own_and_no_rank() -> None:
    lines = {line[0]: line[1:] for line in ablation(IDEAS).rows}
    assert list(lines) == ["no-texts", "no-floor", "no-prior"]
    assert lines["no-texts"] == ("0.375 ± 0.106", "fused", "+0.050 ± 0.000", "1", "1", "2")
    assert lines["no-prior"] == ("0.900", "fused", "+0.800", "1", "0", "1")
    assert by_table(IDEAS).head == ("table", "fused")
    assert [line[0] for line in overall(IDEAS).rows] == ["fused"]
    assert ablation(IDEAS).title in [table.title for table in all_tables(IDEAS)]
    assert ablation(ROWS).title not in [table.title for table in all_tables(ROWS)]
    assert [line[1] for line in errors(IDEAS).rows] == ["idea:no-floor"]


def test_the_page_tells_of_every_idea() -> None:
    assert idea_list() in PAGE.read_text()


def test_plain_text_is_aligned_and_markdown_escaped() -> None:
    lines = plain(by_table(ROWS)).splitlines()
    assert lines[2:5] == [
        "table           auto          fused  onehot-kmeans  paper",
        "-----  -------------  -------------  -------------  -----",
        "one    0.600 ± 0.141  0.400 ± 0.000  0.600 ± 0.000  0.900",
    ]
    text = markdown(errors([Row("a|b", "x", 0, error="fault")]))
    assert text.splitlines()[2] == "| a\\|b | x | fault |"


def test_results_are_written_whole_and_read_back(tmp_path: Path) -> None:
    out = tmp_path / "new" / "results.json"
    write_results(out, ROWS, {"rows": 10})
    told, rows = read_results(out)
    assert rows == ROWS
    assert list(told) == ["machine", "versions", "default", "settings", "rows", "means"]
    assert told["default"] == "auto"
    assert {"numpy", "scikit-learn"} <= set(told["versions"])
    assert list(told["rows"][0]) == [
        *("dataset", "method", "seed", "k", "n", "ari", "nmi", "acc", "gower_silhouette", "eta2", "stability"),
        *("seeds", "order"),
        *("seconds", "peak_mb", "error"),
    ]
    assert sorted(path.name for path in out.parent.iterdir()) == ["results.json"]
    out.write_text("{}")
    with pytest.raises(ErasmoError, match="a results file"):
        read_results(out)


def test_rows_that_are_kept_survive_half_a_line_and_other_fields(tmp_path: Path) -> None:
    file = tmp_path / "partial.jsonl"
    Kept(file).add("first", ROWS[0])
    file.write_text(file.read_text() + json.dumps({"digest": "old", "row": {"dataset": "x"}}) + '\n{"dig')
    kept = Kept(file)
    kept.add("second", ROWS[1])
    again = Kept(file)
    assert (again.get("first"), again.get("second"), again.get("old")) == (ROWS[0], ROWS[1], None)


def test_rows_have_no_more_digits_than_mean_something() -> None:
    row = Row("t", "m", 0, ari=1 / 3, seconds=1.23456, peak_mb=99.999).rounded()
    assert (row.ari, row.seconds, row.peak_mb, row.nmi) == (0.333333, 1.235, 100.0, None)


def test_the_page_has_a_mark_for_every_table_and_is_filled_again(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(PAGE.read_text())
    write_results(results, ROWS, {"tokens": 500, "paper_rows": 40})
    main(results, page=page)
    text = page.read_text()
    assert "| one | 0.600 ± 0.141 | 0.400 ± 0.000 | 0.600 ± 0.000 | 0.900 |" in text
    assert "- paper: 40 rows of each table" in text
    assert "- Tables: one (10 rows), two (10 rows), text (10 rows)" in text
    main(results, page=page)
    assert page.read_text() == text
    write_results(results, rows_of({"t": {"auto": [0.5], "fused": [0.4]}}), {})
    main(results, page=page)
    assert "| onehot-kmeans |" not in page.read_text()
    more = tmp_path / "more.json"
    write_results(more, rows_of({"t": {"auto": [0.7], "paper": [0.1]}}), {})
    main(results, more, page=page)
    assert "| t | 0.700 | 0.400 | 0.100 |" in page.read_text()
    page.write_text("no marks")
    with pytest.raises(ErasmoError, match="by-table"):
        main(results, page=page)


def test_every_field_of_a_row_is_in_the_file() -> None:
    assert len(fields(Row)) == 16
