"""The report on an experiment is one whole file that says what ran, what failed and what may be compared."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.experiments import report
from erasmo_dagster.experiments.machine import machine
from erasmo_dagster.experiments.report import make_report, write_report
from erasmo_dagster.experiments.tables import compared, costs, digits, failures, leaderboards, markdown_tables
from tests.experiments.frames import failed, grid

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202eevil $x^2$ 你好 😀 {{ 7*7 }} | a `b` **c** \\frac{"
VOID = {"meta", "link", "img", "br"}
VARIANTS = ("as it is", "missing 0.1", "missing 0.2", "missing 0.3", "missing 0.4")


class Page(HTMLParser):
    """Tags and text of a page; every tag that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are drawn in a fraction of the time."""
    monkeypatch.setattr(report, "DPI", 30)


def page(frame: pl.DataFrame, **more: Any) -> Page:
    return Page(make_report(frame, name="paper-1", description="Which encoder?\n\nAnd why?", **more))


def published(*rows: tuple[str, str, str, str, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["dataset", "encoder", "algorithm", "figure", "value"], orient="row")


def test_the_report_tells_what_ran_and_on_what() -> None:
    def one_fails(row: dict[str, Any]) -> dict[str, Any]:
        return failed(row) if row["dataset"] == "zoo" and row["encoder"] == "one-hot" else row

    found = page(grid([f"d{i}" for i in range(5)] + ["zoo"], change=one_fails))
    text = " ".join(found.text.split())
    assert "34 of 36 cells done, 2 failed." in text
    assert "Which encoder? And why?" in text
    assert "Got memberships of 0.26, expected more." in text
    assert "erasmo experiment run paper-1" in text
    assert "compares only within one encoder's vectors" in text
    assert "Left out: 1 block in which one has no figure." in text
    assert "Friedman, p = " in text or "Friedman, p < " in text
    for name, words in machine().items():
        assert name in text
        assert " ".join(words.split()) in text
    anchors = {a["href"] for a in found.all("a")}
    assert anchors == {f"#{section['id']}" for section in found.all("section")} - {"#notes"}


def test_the_page_loads_nothing() -> None:
    found = page(grid(variants=VARIANTS))
    assert found.all("script") == []
    (policy,) = [m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    images = found.all("img")
    assert len(images) == 8  # three heat maps, two diagrams of ranks, cost, and figure and seconds by what is missing
    assert all((image["src"] or "").startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", make_report(grid(), name="x", description=""))


def test_texts_are_escaped_wherever_they_come_from(tmp_path: Path) -> None:
    names = {
        "datasets": [HOSTILE, "b"],
        "encoders": [HOSTILE, "k", "arm"],
        "algorithms": [HOSTILE],
        "variants": [HOSTILE],
    }
    frame = grid(**names, seeds=[0], change=lambda row: failed(row, HOSTILE) if row["encoder"] == "arm" else row)
    html = make_report(
        frame,
        name=HOSTILE,
        description=HOSTILE,
        published=published((HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0)),
        notes=HOSTILE,
        command=HOSTILE,
    )
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    text = " ".join(Page(html).text.split())
    assert text.count("<script>alert(1)</script>") > 12
    assert "{{ 7*7 }}" in text


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
@settings(max_examples=25)
def test_no_text_breaks_the_tables(name: str, other: str) -> None:
    frame = grid(
        [name],
        [name, other + "2"],
        [other],
        seeds=[0],
        change=lambda row: failed(row, name) if row["encoder"] == name else row,
    )
    markdown = markdown_tables(frame, published=published((name, other, other, "ari", 0.5)))
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert len(lines) == 3 + 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:3]} == {10}
    Page(report._template().render(**_bare(name, frame)))


def _bare(name: str, frame: pl.DataFrame) -> dict[str, Any]:
    """All that the page needs, without pictures."""
    empty: dict[str, Any] = dict.fromkeys(("heat_maps", "ranks", "amounts", "reading", "compared"), ())
    return {
        **empty,
        **{"name": name, "description": [name], "notes": [name], "command": name, "done": 1, "cells": 2},
        **{"made_of": [(name, [name])], "machine": {name: name}, "tables": leaderboards(frame), "folded": {name}},
        **{"grouped": report._grouped, "costs": costs(frame), "changed": True, "trade": None},
        **{"failed": failures(frame), "more_failed": 1, "tolerance": 0.05, "within": frozenset()},
    }


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert write_report(grid(), name="x", description="", out=out) == out
    assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(ErasmoError, match="a file in a folder that exists"):
        write_report(grid(), name="x", description="", out=tmp_path / "none" / "report.html")
    with pytest.raises(ErasmoError, match=r"Got no cell of experiment 'x'.*erasmo experiment run x"):
        write_report(grid().clear(), name="x", description="", out=out)


def test_a_report_where_all_failed_says_so() -> None:
    found = page(grid(change=failed))
    assert "No cell is done" in found.text
    assert found.all("img") == []


def test_an_algorithm_that_finds_k_is_ranked_beside_the_others() -> None:
    frame = grid(
        algorithms=("kmeans", "hdbscan"), change=lambda row: row | {"k": None if row["algorithm"] == "hdbscan" else 3}
    )
    blocks = {table.of: table.ranking.blocks for table in report._rank_tables(frame, ["ari"])}
    assert blocks == {"encoders": 2 * 2, "algorithms": 2 * 3}


def test_leaderboards_have_means_the_best_first_and_marked() -> None:
    (first, _) = leaderboards(grid(algorithms=["kmeans", "ward"], seeds=[0, 1, 2]))
    assert (first.dataset, first.variant, first.rows, first.judge) == ("zoo", "as it is", 150, "ari")
    assert [line.encoder for line in first.lines] == ["ERASMO"] * 2 + ["TF-IDF"] * 2 + ["one-hot"] * 2
    assert all(line.cells == 3 and line.values["ari"].spread for line in first.lines)
    values = [line.values["ari"].mean or 0 for line in first.lines]
    assert values == sorted(values, reverse=True)
    assert [line.values["ari"].best for line in first.lines] == [True] + [False] * 5
    # Distances of two encoders' vectors do not compare: one best an encoder.
    assert [line.values["davies_bouldin"].best for line in first.lines] == [True, False] * 3


def test_nothing_is_best_alone() -> None:
    (table,) = leaderboards(grid(["zoo"], ["TF-IDF"]))
    assert not any(value.best for value in table.lines[0].values.values())


def test_without_a_label_the_tables_own_columns_judge() -> None:
    (table,) = leaderboards(grid(["zoo"], change=lambda row: {**row, "ari": None, "f1_weighted": None}))
    assert table.judge == "gower_silhouette"
    assert "ari" not in table.figures


def test_published_figures_stand_beside_ours() -> None:
    frame = grid(
        ["zoo"],
        ["TF-IDF"],
        variants=VARIANTS,
        change=lambda row: {**row, "ari": 0.50 if row["variant"] == "as it is" else 0.1, "calinski_harabasz": 412.0},
    )
    asked = published(
        ("zoo", "TF-IDF", "kmeans", "ari", 0.45),
        ("zoo", "TF-IDF", "kmeans", "ari", 0.44),
        ("zoo", "TF-IDF", "kmeans", "calinski_harabasz", 400.0),
        ("zoo", "TF-IDF", "kmeans", "calinski_harabasz", 300.0),
        ("zoo", "MPNet", "kmeans", "ari", 0.6),
        ("zoo", "TF-IDF", "kmeans", "unknown", 0.6),
    )  # fmt: skip
    found = compared(frame, asked)
    assert [line.ours for line in found] == [0.5, 0.5, 412.0, 412.0, None, None]
    assert [line.far for line in found] == [False, True, False, True, False, False]
    text = " ".join(page(frame, published=asked, notes="Other texts.\n\nMore.").text.split())
    assert "+0.060 (!)" in text
    assert "not run" in text
    assert "Other texts. More." in text
    assert "+0.060 (!)" in markdown_tables(frame, published=asked)


def test_markdown_has_three_digits_and_the_best_in_bold() -> None:
    values = {"ERASMO": 0.8127, "TF-IDF": -0.0001, "one-hot": None}
    frame = grid(["zoo"], seeds=[0], change=lambda row: {**row, "ari": values[row["encoder"]]})
    lines = markdown_tables(frame, figures=["ari"]).splitlines()
    assert lines == [
        "**zoo**, as it is (150 rows)",
        "",
        "| encoder | algorithm | k | ARI |",
        "| --- | --- | --: | --: |",
        "| ERASMO | kmeans | 3 | **0.813** |",
        "| TF-IDF | kmeans | 3 | 0.000 |",
        "| one-hot | kmeans | 3 | – |",
    ]
    assert markdown_tables(grid(change=failed)) == ""


def test_costs_are_means_and_failures_are_gathered() -> None:
    frame = grid(algorithms=["kmeans", "fuzzy"], change=lambda row: failed(row) if row["algorithm"] == "fuzzy" else row)
    line = costs(frame)[1]
    assert (line["encoder"], line["embed_seconds"], line["train_seconds"], line["seconds"]) == (
        "TF-IDF",
        10,
        None,
        10.5,
    )
    assert line["embed_tokens"] == 9000
    assert [(f["encoder"], f["cells"], len(f["tables"])) for f in failures(frame)] == [
        ("ERASMO", 4, 2), ("TF-IDF", 4, 2), ("one-hot", 4, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (-0.0004, "0.000"), (-0.5, "−0.500"), (12.34, "12.3"), (12345.6, "12,346")],
)  # fmt: skip
def test_digits(value: float | None, text: str) -> None:
    assert digits(value) == text
