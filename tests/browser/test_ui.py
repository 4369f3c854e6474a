"""What a person sees in the UI: lineage, partitions, an asset's plots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.settings import Project
from tests.browser.pages import browser_page, open_lineage, open_partition
from tests.conftest import DatasetWriter
from tests.servers import Webserver, served

pytestmark = pytest.mark.browser


@pytest.fixture
def server(project: Project, write_dataset: DatasetWriter, tmp_path: Path) -> Iterator[Webserver]:
    write_dataset("people")
    write_dataset("others")
    with open_instance(project) as instance:
        run_dataset(instance, project, "people")
    with served(project, tmp_path / "ui.log") as server:
        yield server


def test_the_ui_shows_lineage_partitions_and_plots(server: Webserver) -> None:
    with browser_page() as page:
        open_lineage(page, server.url)
        for asset in ("source_table", "text_corpus", "adapter", "embeddings", "segments", "segment_metrics"):
            assert page.get_by_text(asset, exact=True).first.is_visible(), asset
        open_partition(page, server.url, "segments", "people")
        assert page.get_by_text("others", exact=True).first.is_visible()
        pictures = page.locator("img[src^='data:image/png']")
        pictures.first.wait_for(timeout=30_000)
        widths = [pictures.nth(i).evaluate("picture => picture.naturalWidth") for i in range(pictures.count())]
        assert len(widths) >= 2
        assert all(width > 300 for width in widths)
        open_partition(page, server.url, "segment_metrics", "people")
        assert page.get_by_text("silhouette").first.is_visible()
