"""The pages of Dagster's UI that people look at, opened in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

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


def open_lineage(page: Page, url: str) -> None:
    """The graph of all assets."""
    page.goto(f"{url}/asset-groups?expanded=*", wait_until="networkidle")
    page.get_by_text("published_segments").first.wait_for(timeout=30_000)


def open_partition(page: Page, url: str, asset: str, partition: str) -> None:
    """One asset's partitions, with one of them open: its metadata and pictures."""
    page.goto(f"{url}/assets/{asset}?view=partitions&partition={partition}", wait_until="networkidle")
    page.get_by_text(partition, exact=True).first.wait_for(timeout=30_000)
