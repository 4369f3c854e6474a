"""The report on an experiment opens from disk, alone, on a laptop and on a phone, and fits."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from erasmo_dagster.experiments.report import write_report
from tests.browser.pages import browser_page
from tests.experiments.frames import failed, grid
from tests.experiments.test_report import HOSTILE, VARIANTS

pytestmark = pytest.mark.browser
WIDE = HOSTILE + "W" * 300


@pytest.mark.parametrize(
    "frame",
    [
        grid(algorithms=["kmeans", "agglomerative", "spectral, rbf"], variants=VARIANTS),
        grid([WIDE, "b"], [WIDE, "k", "l"], [WIDE], [WIDE], change=lambda r: failed(r, WIDE) if r["seed"] else r),
    ],
    ids=["usual", "hostile"],
)
def test_a_report_needs_nothing_and_fits(tmp_path: Path, frame: pl.DataFrame) -> None:
    out = write_report(frame, name=WIDE, description=WIDE, out=tmp_path / "report.html", notes=WIDE, command=WIDE)
    asked: list[str] = []
    said: list[str] = []
    with browser_page(1280, 900) as page:
        page.context.set_offline(True)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(out.as_uri())
            page.wait_for_load_state("load")
            page.evaluate("document.querySelectorAll('details').forEach(box => box.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            images = page.locator("img")
            assert images.count() > 2
            assert images.evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 500)")
            assert (
                page.evaluate(
                    "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll')"
                    " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
                )
                == []
            )
    assert said == []
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)
