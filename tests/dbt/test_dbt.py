"""The folder ``dbt_like_sql`` means the same to dbt and to us: the same rows, the same verdicts."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import pytest

from tests.dbt.sample import FAULTS, write_sample
from tests.dbt.test_folder import FOLDER, MARTS, SINGULAR, STAGING, sql_project

CHECKOUT = Path(__file__).parents[2]
GENERIC = ("not_null", "unique", "accepted_values", "relationships")
# dbt counts the values that are wrong, we the rows that have them.
COUNTED_BY_VALUE = ("unique", "accepted_values")

pytestmark = pytest.mark.dbt


@dataclass(frozen=True)
class DbtProject:
    """A copy of the folder, the file that it reads and the file that dbt writes."""

    folder: Path
    published: Path
    written: Path

    def run(self, command: str = "build") -> tuple[int, dict[str, dict[str, Any]], str]:
        """Run dbt with this command: exit status, result by node name, what it printed. No network, no tracking."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DBT_", "ERASMO_"))} | {
            "ERASMO_PUBLISHED": str(self.published),
            "ERASMO_DBT_FILE": str(self.written),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DBT_USE_COLORS": "false",
            "HOME": str(self.folder.parent),
            # Whatever asked for the network would ask this proxy, which is not there.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
        }
        arguments = [dbt(), command, "--profiles-dir", ".", "--project-dir", ".", "--show-all-deprecations"]
        done = subprocess.run(arguments, cwd=self.folder, env=environment, capture_output=True, text=True)
        file = self.folder / "target" / "run_results.json"
        results = json.loads(file.read_text())["results"] if file.is_file() else []
        return done.returncode, {result["unique_id"].split(".")[2]: result for result in results}, done.stdout

    def build(self) -> Built:
        """``dbt build``, in which nothing fails and nothing warns; its files are kept when the next one runs."""
        before = self.published.read_bytes()
        status, results, printed = self.run()
        assert status == 0, printed
        assert {result["status"] for result in results.values()} == {"success", "pass"}, printed
        assert self.published.read_bytes() == before
        kept = Path(mkdtemp(dir=self.folder.parent))
        files = [Path(shutil.copy(file, kept)) for file in (self.published, self.written)]
        return Built(results, printed, *files)


@dataclass(frozen=True)
class Built:
    """What a build said and left: result by node name, what was printed, the file that was read and the one written."""

    results: dict[str, dict[str, Any]]
    printed: str
    published: Path
    written: Path

    @contextmanager
    def opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(self.written, read_only=True) as con:
            con.execute(f"ATTACH '{self.published}' AS erasmo (READ_ONLY)")
            yield con


def dbt() -> str:
    """The command. dbt and mypy do not go into one environment, so that dbt has its own, beside the checkout's."""
    places = [Path(sys.executable).with_name("dbt"), CHECKOUT / ".venv-dbt" / "bin" / "dbt"]
    found = next((str(place) for place in places if place.is_file()), shutil.which("dbt"))
    if found is None:
        pytest.skip("dbt is not installed")
    return found


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> DbtProject:
    """One copy for all tests, so that dbt parses it once."""
    root = tmp_path_factory.mktemp("dbt")
    shutil.copytree(FOLDER, root / "dbt_like_sql", ignore=shutil.ignore_patterns("target", "logs", "*.duckdb"))
    return DbtProject(root / "dbt_like_sql", root / "segments.duckdb", root / "dbt.duckdb")


@pytest.fixture(scope="module")
def sample(copied: DbtProject) -> Built:
    write_sample(copied.published)
    return copied.build()


@pytest.fixture(scope="module")
def broken(copied: DbtProject) -> dict[str, dict[str, Any]]:
    """Every fault at once: results of the tests by name. ``dbt build`` would skip what depends on a failed test."""
    write_sample(copied.published, faults=FAULTS)
    status, _, printed = copied.run("run")
    assert status == 0, printed
    return copied.run("test")[1]


def comparable(con: duckdb.DuckDBPyConnection, model: str) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
    """Columns with their types, and the rows in an order that no rounding can change."""
    columns = [(name, kind) for name, kind, *_ in con.execute(f'DESCRIBE main."{model}"').fetchall()]
    rows = con.execute(f'FROM main."{model}"').fetchall()
    return columns, sorted(rows, key=lambda row: repr([cell for cell in row if not isinstance(cell, float)]))


def alike(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-12)
    return bool(left == right)


def columns_of(con: duckdb.DuckDBPyConnection, model: str, columns: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = con.execute(f'SELECT {columns} FROM main."{model}"').fetchall()
    return rows


def test_dbt_builds_every_model_and_passes_every_test_without_a_warning(sample: Built) -> None:
    assert sample.results.keys() >= {*STAGING, *MARTS, *SINGULAR}
    assert "WARN=0 ERROR=0 SKIP=0" in sample.printed
    told = [line for line in sample.printed.splitlines() if "WARN=0" not in line]
    assert not [line for line in told if "warn" in line.lower() or "deprecat" in line.lower()]


def test_the_marts_say_what_a_person_counts(sample: Built) -> None:
    with sample.opened() as con:
        overview = columns_of(con, "segment_overview", "segment_key, segment_name, rows, rows_came, rows_went, summary")
        assert overview == [
            ("animals.0", "on four legs", 5, 2, 1, "on four legs, mostly"),
            ("animals.1", "on two legs", 4, 2, 1, "on two legs, mostly"),
            ("plants.0", "trees", 4, 4, 0, "trees, mostly"),
            ("plants.1", "grasses", 2, 2, 0, "grasses, mostly"),
        ]
        shares = [cell for row in columns_of(con, "segment_overview", "share, median_confidence") for cell in row]
        assert shares == pytest.approx([5 / 9, 0.7, 4 / 9, 0.475, 4 / 6, 0.75, 2 / 6, 0.035])
        profiles = columns_of(con, "segment_profiles", "segment_key, first_trait, third_trait, rule, rule_precision")
        assert profiles[1] == ("animals.1", "is taller", None, "height > 1", 0.75)
        changed = columns_of(
            con, "changed_rows", "member_key, from_segment_id, from_segment_name, to_segment_id, to_segment_name"
        )
        assert changed == [
            ("animals.a4", 0, "on four legs", 1, "on two legs"),
            ("animals.a8", -1, "noise", 0, "on four legs"),
        ]
        newest = [key for (key,) in columns_of(con, "newest_members", "member_key")]
        assert newest == ["animals.a10", "animals.a9", *(f"plants.p{number}" for number in range(1, 7))]
        doubtful = columns_of(con, "doubtful_members", "entity_key, is_below_limit")
        assert doubtful[:5] == [("a8", True), ("a10", False), ("a4", False), ("a9", False), ("a6", False)]
        assert doubtful[5:8] == [("p4", True), ("p5", True), ("p6", True)]
        movements = columns_of(
            con, "segment_movements", "movement, from_segment_name, to_segment_name, rows, share_of_origin"
        )
        assert movements[5:] == [
            ("new", None, "on four legs", 1, None),
            ("new", None, "on two legs", 1, None),
            ("moved", "noise", "on four legs", 1, 1.0),
            ("moved", "on four legs", "on two legs", 1, 0.25),
            ("gone", "on two legs", None, 1, pytest.approx(1 / 3)),
            ("new", None, "pebbles", 2, None),
            ("gone", "pebbles", None, 2, 1.0),
        ]
        figures = columns_of(con, "metrics_over_time", "publish_id, metric, value, change, description")
        assert figures[:3] == [
            (1, "noise_share", 0.125, None, None),
            (1, "silhouette", 0.25, None, "how to read silhouette"),
            (3, "silhouette", 0.375, 0.125, "how to read silhouette"),
        ]
        values = columns_of(con, "segments_by_column", "segment_id, value, rows, share_of_segment, share_of_all, lift")
        assert values[1] == (0, "4", 4, pytest.approx(0.8), pytest.approx(5 / 9), pytest.approx(1.44))
        assert values[4] == (1, "(missing)", 1, pytest.approx(0.25), pytest.approx(1 / 9), pytest.approx(2.25))


def test_an_empty_published_file_passes(copied: DbtProject) -> None:
    write_sample(copied.published, publishes=())
    with copied.build().opened() as con:
        assert [con.execute(f"SELECT count(*) FROM {mart}").fetchall() for mart in MARTS] == [[(0,)]] * len(MARTS)


def test_each_fault_fails_its_tests_and_a_single_row_only_warns(broken: dict[str, dict[str, Any]]) -> None:
    noticed = {name for name, result in broken.items() if result["status"] in ("fail", "warn")}
    expected = {name for fault in FAULTS for name in fault.fails}
    assert {name for name in expected if not any(found.startswith(name) for found in noticed)} == set()
    assert noticed & SINGULAR == expected & SINGULAR == SINGULAR
    assert {name for name, result in broken.items() if result["status"] == "warn"} == {"segments_with_a_single_row"}


def test_our_engine_and_dbt_build_the_same_rows(sample: Built, tmp_path: Path) -> None:
    from erasmo_dagster.store.sql_models import build_models

    ours = write_sample(tmp_path / "segments.duckdb")
    build = build_models(ours, sql_project())
    assert {model.name for model in build.models} == {*STAGING, *MARTS}
    assert all(test.passed for test in build.tests)
    with duckdb.connect(ours, read_only=True) as con:
        built = {model: comparable(con, model) for model in (*STAGING, *MARTS)}
    with sample.opened() as con:
        for model, (columns, rows) in built.items():
            their_columns, their_rows = comparable(con, model)
            assert columns == their_columns, model
            assert len(rows) == len(their_rows), model
            for row, their_row in zip(rows, their_rows, strict=True):
                assert all(alike(*cells) for cells in zip(row, their_row, strict=True)), (model, row, their_row)


def test_our_engine_and_dbt_judge_the_same(
    broken: dict[str, dict[str, Any]], copied: DbtProject, tmp_path: Path
) -> None:
    from erasmo_dagster.store.sql_models import build_models

    build = build_models(write_sample(tmp_path / "segments.duckdb", faults=FAULTS), sql_project())
    nodes = json.loads((copied.folder / "target" / "manifest.json").read_text())["nodes"]
    theirs: Counter[tuple[object, ...]] = Counter()
    for result in broken.values():
        node = nodes[result["unique_id"]]
        model = (node.get("attached_node") or "").split(".")[-1]
        kind = node["test_metadata"]["name"] if model else node["name"]
        failures = result["failures"] if kind not in COUNTED_BY_VALUE else None
        theirs[kind, model, node.get("column_name") or "", result["status"] == "pass", failures] += 1
    ours: Counter[tuple[object, ...]] = Counter()
    for test in build.tests:
        singular = test.name in SINGULAR
        kind = test.name if singular else next(kind for kind in GENERIC if test.name.startswith(f"{kind}_"))
        failures = test.failures if kind not in COUNTED_BY_VALUE else None
        about = ("", "") if singular else (test.model, test.column or "")
        ours[kind, *about, test.passed, failures] += 1
    assert ours == theirs
