"""Make the pictures of the docs from a real UI, in Chromium.

``python -m docs.make_pictures http://127.0.0.1:3000`` makes those of the README: the demo must have run (``make demo``)
and the UI be open (``make ui``); ``python -m docs.make_pictures report`` the one of a report, after the demo.
``python -m docs.make_pictures refresh`` makes those of "Keep segments fresh", from a project of its own with a tiny
model.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from erasmo_dagster.report import write_report
from erasmo_dagster.settings import Project, find_project, open_project
from erasmo_dagster.store.checks import blocked_versions
from erasmo_dagster.store.versions import published_versions
from erasmo_dagster.store.warehouse import open_warehouse
from tests.browser.pages import browser_page, open_lineage, open_partition, open_picture
from tests.conftest import DatasetWriter, customers, make_project
from tests.servers import served, wait_for
from tests.tiny_models import tiny_causal_lm

PICTURES = Path(__file__).parent / "pictures"


def main(url: str) -> None:
    """Save the lineage down to a mart, and the segments and their profile of the penguins."""
    PICTURES.mkdir(exist_ok=True)
    with browser_page(1700, 860) as page:
        open_lineage(page, url, of="marts/segment_overview")
        page.wait_for_timeout(4000)  # the graph moves into place
        page.mouse.move(900, 500)
        page.mouse.wheel(0, 60)  # and away from the buttons at its edge
        page.wait_for_timeout(2000)
        page.screenshot(path=PICTURES / "lineage.png")
    with browser_page(1500, 860) as page:
        open_partition(page, url, "segment_profile", "penguins")
        open_picture(page, "heat_map")
        page.wait_for_timeout(1000)
        page.screenshot(path=PICTURES / "heat_map.png")
    with browser_page(1500, 860) as page:
        open_partition(page, url, "segments", "penguins")
        open_picture(page, "projection")
        page.wait_for_timeout(1000)
        page.screenshot(path=PICTURES / "segments.png")


def report(folder: Path) -> None:
    """Save what a report says of the penguins' segments."""
    PICTURES.mkdir(exist_ok=True)
    file = write_report(find_project(), "penguins", folder / "penguins.html")
    with browser_page(1180, 1100) as page:
        page.goto(file.as_uri())
        top = page.locator("#segments").bounding_box()
        last = page.locator("#segments .card").nth(1).bounding_box()
        assert top is not None
        assert last is not None
        page.screenshot(
            path=PICTURES / "profile.png",
            full_page=True,
            clip={"x": 0, "y": top["y"], "width": 1180, "height": last["y"] + last["height"] - top["y"] + 24},
        )


def refresh(folder: Path) -> None:
    """Save a tick of the sensor, and a version that failed at the gate."""
    PICTURES.mkdir(exist_ok=True)
    project = make_project(folder)
    (project.root / "erasmo.yaml").write_text("sensor_interval: 5s\n")
    project = open_project(project.root, project.home)
    write = DatasetWriter(project, tiny_causal_lm(folder / "model"))
    write("customers")
    write("leads", customers(45))
    with served(project, folder / "ui.log") as server, browser_page(1500, 800) as page:
        wait_for("the first versions", lambda: versions(project) == {"customers": 1, "leads": 1}, seconds=240)
        customers(45).rename({"id": "lead_id"}).write_parquet(project.root / "leads.parquet")
        write("customers", customers(66))
        wait_for("the refresh", lambda: versions(project)["customers"] == 2, seconds=120)
        time.sleep(15)  # a few ticks without a change
        page.goto(f"{server.url}/locations/erasmo/sensors/source_changes")
        page.get_by_text("View logs").first.wait_for(timeout=60_000)
        page.wait_for_timeout(3000)
        page.get_by_text("0 runs requested").nth(2).click()
        page.wait_for_timeout(4000)
        page.screenshot(path=PICTURES / "sensor_tick.png")
        write("customers", customers(69), "gate: {min_segment_size: 30}\n")
        wait_for("the block", lambda: blocked(project), seconds=120)
        time.sleep(5)
        page.goto(f"{server.url}/assets/segments?view=checks&checkDetail=segments_are_large_enough")
        page.get_by_text("segments_are_large_enough").first.wait_for(timeout=60_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=PICTURES / "failed_gate.png")


def versions(project: Project) -> dict[str, int]:
    """What is published."""
    with open_warehouse(project.warehouse) as con:
        return published_versions(con)


def blocked(project: Project) -> bool:
    """Whether a version was stopped at the gate."""
    with open_warehouse(project.warehouse) as con:
        return "customers" in blocked_versions(con)


if __name__ == "__main__":
    if sys.argv[1:] in (["refresh"], ["report"]):
        with tempfile.TemporaryDirectory() as folder:
            {"refresh": refresh, "report": report}[sys.argv[1]](Path(folder))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000")
