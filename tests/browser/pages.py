"""The pages of Dagster's UI that people look at, opened in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browser_page(width: int = 1500, height: int = 900) -> Iterator[Page]:
    """A page of the system's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "expected chromium on the PATH: install it (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def open_lineage(page: Page, url: str, of: str = "published_segments") -> None:
    """The graph of everything that an asset is made of."""
    page.goto(f"{url}/assets/{of}?view=lineage&lineageScope=upstream&lineageDepth=20")
    page.get_by_text("source_table").first.wait_for(timeout=60_000)


def open_partition(page: Page, url: str, asset: str, partition: str) -> None:
    """One asset's partitions, with one of them open: its metadata."""
    page.goto(f"{url}/assets/{asset}?view=partitions&partition={partition}")
    page.get_by_text("Latest materialization").wait_for(timeout=60_000)


def open_picture(page: Page, name: str) -> Locator:
    """A picture among the metadata that is open: the UI shows it in a dialog."""
    row = page.locator("tr", has=page.get_by_text(name, exact=True))
    row.get_by_text("[Show Markdown]").click()
    picture = page.locator("img[src^='data:image/png']")
    picture.wait_for(timeout=30_000)
    return picture
