"""What a report tells is what the published file says."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.report.gather import ReportData, gather_report
from tests.report.sample import NAMES, Sample, write_sample


def gathered(folder: Path, sample: Sample | None = None, *changes: str) -> ReportData:
    path = write_sample(folder / "segments.duckdb", sample)
    if changes:
        with closing(duckdb.connect(str(path))) as con:
            con.execute(";".join(changes))
    with closing(duckdb.connect(str(path), read_only=True)) as con:
        return gather_report(con, (sample or Sample()).dataset, labels={"body_mass_g": "body mass (g)"})


def test_segments_have_their_sizes_words_and_traits(tmp_path: Path) -> None:
    data = gathered(tmp_path)
    assert [segment.name for segment in data.segments] == list(NAMES)
    assert sum(segment.rows for segment in data.segments) == data.rows == 344
    assert sum(segment.share for segment in data.segments) == pytest.approx(1)
    strengths = [abs(trait.strength) for trait in data.segments[0].traits]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths
    assert data.segments[0].rule_precision == 0.942
    assert data.segments[2].rule is None
    assert data.segments[0].typical["island"] == "Biscoe"
    assert len(data.segments[0].central) == 5


def test_publishes_count_who_moved(tmp_path: Path) -> None:
    data = gathered(tmp_path)
    first, last = data.publishes[0], data.publishes[-1]
    assert (first.came, first.went, first.moved, first.stayed) == (344, 0, 0, 0)
    sums = {"new": 0, "gone": 0, "moved": 0, "stayed": 0}
    for source, target, rows in data.pairs:
        kind = "new" if source == "new" else "gone" if target == "gone" else "stayed" if source == target else "moved"
        sums[kind] += rows
    assert (last.came, last.went, last.moved, last.stayed) == tuple(sums.values())
    assert last.figures["silhouette"] == pytest.approx(0.39)


def test_labels_are_given_words_or_the_columns_name(tmp_path: Path) -> None:
    labels = gathered(tmp_path).labels
    assert labels["body_mass_g"] == "body mass (g)"
    assert labels["bill_length_mm"] == "bill length mm"


def test_a_first_publish_has_no_movement(tmp_path: Path) -> None:
    assert gathered(tmp_path, Sample(publishes=1)).pairs == ()


def test_a_segment_that_is_no_more_keeps_its_name_from_the_history(tmp_path: Path) -> None:
    data = gathered(
        tmp_path,
        Sample(),
        "INSERT INTO segment_history VALUES ('penguins', 'a', 7, 'old ones', 1, '2026-01-01', 2, '2026-01-02')",
        "INSERT INTO segment_transitions VALUES (4, 'penguins', 3, 4, 7, 0, 3), (4, 'penguins', 3, 4, 8, -1, 1)",
    )
    assert ("old ones", NAMES[0], 3) in data.pairs
    assert ("segment 8", "noise", 1) in data.pairs


def test_segments_with_the_names_of_comers_and_goers_are_told_apart(tmp_path: Path) -> None:
    data = gathered(tmp_path, Sample(names=("new", "gone")))
    names = {name for pair in data.pairs for name in pair[:2]}
    assert names == {"new", "gone", "new (0)", "gone (1)"}
    assert sum(rows for source, _, rows in data.pairs if source == "new") == data.publishes[-1].came


def test_another_datasets_rows_are_left_out(tmp_path: Path) -> None:
    tables = ("segment_sizes", "segment_profile", "segment_values", "segment_transitions", "publish_log")
    copies = [f"INSERT INTO {table} SELECT * REPLACE ('others' AS dataset) FROM {table}" for table in tables]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone, beside = gathered(tmp_path / "a"), gathered(tmp_path / "b", Sample(), *copies)
    assert alone.values.equals(beside.values)
    assert (alone.segments, alone.publishes, alone.pairs) == (beside.segments, beside.publishes, beside.pairs)


def test_a_file_without_profiles_and_figures_can_be_told_of(tmp_path: Path) -> None:
    bare = Sample(profiles=False, figures=False, transitions=False)
    data = gathered(tmp_path, bare, "DROP TABLE segment_profile", "DROP TABLE segment_descriptions")
    assert all(segment.traits == () and segment.summary == "" for segment in data.segments)
    assert data.values.is_empty()
    assert data.publishes[-1].figures == {}
    assert data.publishes[-1].came is None


def test_figures_that_are_no_numbers_are_none(tmp_path: Path) -> None:
    change = "UPDATE segment_metrics SET value = 'nan' WHERE metric = 'ari'"
    logged = """UPDATE publish_log SET figures = '{"ari": null, "silhouette": 1}' WHERE publish_id = 4"""
    data = gathered(tmp_path, Sample(), change, logged)
    assert {figure.metric: figure.value for figure in data.figures}["ari"] is None
    assert data.publishes[-1].figures == {"silhouette": 1.0}


def test_a_blank_name_becomes_the_segments_number(tmp_path: Path) -> None:
    assert gathered(tmp_path, Sample(names=("  ", "b"))).segments[0].name == "segment 0"


def test_a_dataset_that_is_not_published_is_refused(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "segments.duckdb")
    with (
        closing(duckdb.connect(str(path), read_only=True)) as con,
        pytest.raises(ErasmoError, match="erasmo run nobody"),
    ):
        gather_report(con, "nobody")
