"""A report opens from disk, alone, on a laptop and on a phone, and prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erasmo_dagster.method.plots import projection
from erasmo_dagster.report.render import render_report
from tests.browser.pages import browser_page
from tests.report.sample import NAMES, Sample
from tests.report.test_gather import gathered
from tests.report.test_render import HOSTILE, PROVENANCE

pytestmark = pytest.mark.browser
PLAIN = HOSTILE.replace("{", "(").replace("}", ")")


@pytest.mark.parametrize(
    "sample",
    [
        Sample(),
        Sample(names=[f"{NAMES[i % 3]} {i}" for i in range(14)], publishes=9, noise=True),
        Sample(names=("W" * 300, PLAIN), values={"island": [f"{PLAIN}{i}" + "y" * 200 for i in range(9)]}, key="K" * 200 + "{number}{half}", run_id="r" * 300, reason="z" * 500),
    ],
    ids=["usual", "many", "hostile"],
)  # fmt: skip
def test_a_report_needs_nothing_and_fits(tmp_path: Path, sample: Sample) -> None:
    rng = np.random.default_rng(0)
    picture = projection(rng.normal(size=(200, 4)), rng.integers(0, 3, 200), seed=0, dpi=200)
    report = tmp_path / "report.html"
    report.write_text(render_report(gathered(tmp_path, sample), picture, PROVENANCE), encoding="utf-8")
    asked: list[str] = []
    said: list[str] = []
    with browser_page(1280, 900) as page:
        page.context.set_offline(True)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        for width in (1280, 420):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(report.as_uri())
            page.wait_for_load_state("load")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            images = page.locator("img")
            assert images.count() == 5
            assert images.evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 500)")
            # Nothing hangs out of the page but inside a box that scrolls.
            assert (
                page.evaluate(
                    "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll')"
                    " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
                )
                == []
            )
        paper = page.pdf(prefer_css_page_size=True)
    assert said == []
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert paper.startswith(b"%PDF")


def test_a_page_of_the_report_is_not_blank(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(render_report(gathered(tmp_path), None, PROVENANCE), encoding="utf-8")
    with browser_page(1280, 900) as page:
        page.goto(report.as_uri())
        page.screenshot(path=tmp_path / "page.png")
        assert page.locator("h1").inner_text() == "penguins"
        page.get_by_role("link", name=NAMES[1]).click()
        assert page.locator("#segment1").evaluate("card => card.getBoundingClientRect().top") < 900
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50
