"""What a person sees in the UI: lineage, partitions, an asset's plots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from erasmo_dagster import template
from erasmo_dagster.defs.instance import open_instance, run_dataset
from erasmo_dagster.settings import Project
from tests.browser.pages import browser_page, open_lineage, open_partition, open_picture
from tests.conftest import DatasetWriter
from tests.servers import Webserver, served
from tests.tiny_encoders import tiny_sentence_encoder

pytestmark = pytest.mark.browser


@pytest.fixture
def server(project: Project, write_dataset: DatasetWriter, tmp_path: Path) -> Iterator[Webserver]:
    by_hand = "refresh: {on_change: false}\n"
    sentences = tiny_sentence_encoder(tmp_path / "sentences")
    write_dataset("people", extra=by_hand, clustering=f"{{text_model: 'path:{sentences}'}}")
    write_dataset("others", extra=by_hand)
    shutil.copytree(Path(template.__file__).parent / "dbt_like_sql", project.sql_dir)
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
        leaderboard = page.locator("tr", has=page.get_by_text("leaderboard", exact=True))
        leaderboard.get_by_text("Gower, average linkage").first.wait_for(state="attached")
        page.get_by_text("what the columns alone tell").first.wait_for(state="attached")
        for name in ("sizes", "projection", "k_sweep", "leaderboard_plot"):
            picture = open_picture(page, name)
            assert picture.evaluate("picture => picture.naturalWidth") > 300
            page.get_by_role("button", name="Close").click()
            picture.wait_for(state="detached")
        open_partition(page, server.url, "segment_profile", "people")
        for name in ("heat_map", "distributions"):
            picture = open_picture(page, name)
            assert picture.evaluate("picture => picture.naturalWidth") > 300
            page.get_by_role("button", name="Close").click()
            picture.wait_for(state="detached")
        open_lineage(page, server.url, of="marts/segment_overview")
        for asset in ("segment_profile", "stg_segments", "segment_overview"):
            assert page.get_by_text(asset, exact=True).first.is_visible(), asset
        page.goto(f"{server.url}/assets/marts/segment_overview?view=checks")
        page.get_by_text("not_null_segment_overview_dataset").first.wait_for(state="attached", timeout=60_000)
        page.goto(f"{server.url}/assets/marts/segment_overview?view=overview")
        page.get_by_text("median_confidence").first.wait_for(state="attached", timeout=60_000)
        open_partition(page, server.url, "adapter", "people")
        assert open_picture(page, "loss").is_visible()
        open_partition(page, server.url, "segment_metrics", "people")
        page.get_by_text("silhouette").first.wait_for()
