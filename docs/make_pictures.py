"""Make the README's pictures from a running UI: ``python -m docs.make_pictures http://127.0.0.1:3000``.

Needs the demo to have run (``make demo``), the UI to be open (``make ui``) and Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.pages import browser_page, open_lineage, open_partition, open_picture

PICTURES = Path(__file__).parent / "pictures"


def main(url: str) -> None:
    """Save the lineage and the segments of the penguins."""
    PICTURES.mkdir(exist_ok=True)
    with browser_page(1600, 780) as page:
        open_lineage(page, url)
        page.wait_for_timeout(4000)  # the graph moves into place
        page.screenshot(path=PICTURES / "lineage.png")
    with browser_page(1500, 860) as page:
        open_partition(page, url, "segments", "penguins")
        open_picture(page, "projection")
        page.wait_for_timeout(1000)
        page.screenshot(path=PICTURES / "segments.png")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000")
