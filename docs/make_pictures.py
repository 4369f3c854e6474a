"""Make the README's pictures from a running UI: ``python -m docs.make_pictures http://127.0.0.1:3000``.

Needs the demo to have run (``make demo``), the UI to be open (``make ui``) and Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.pages import browser_page, open_lineage, open_partition

PICTURES = Path(__file__).parent / "pictures"


def main(url: str) -> None:
    """Save the lineage and the segments of the penguins."""
    PICTURES.mkdir(exist_ok=True)
    with browser_page(1600, 700) as page:
        open_lineage(page, url)
        page.wait_for_timeout(3000)  # the graph moves into place
        page.screenshot(path=PICTURES / "lineage.png")
    with browser_page(1500, 1500) as page:
        open_partition(page, url, "segments", "penguins")
        page.locator("img[src^='data:image/png']").first.wait_for()
        page.wait_for_timeout(1500)
        page.screenshot(path=PICTURES / "segments.png")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000")
