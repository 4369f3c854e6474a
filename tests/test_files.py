"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from erasmo_dagster.files import whole_file


def test_a_file_takes_the_place_of_the_old_one_when_the_block_ends_well(tmp_path: Path) -> None:
    final = tmp_path / "new folder" / "a.json"
    for text in ("old", "new"):
        with whole_file(final) as file:
            file.write_text(text)
            assert final.is_file() == (text == "new")
        assert final.read_text() == text
    assert list(final.parent.iterdir()) == [final]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    final = tmp_path / "a.json"
    final.write_text("old")
    with pytest.raises(ValueError, match="half"), whole_file(final) as file:
        file.write_text("ne")
        raise ValueError("half")
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_what_a_killed_writer_left_goes_and_what_another_one_writes_stays(tmp_path: Path) -> None:
    final = tmp_path / "a[1].json"
    old, young, other = (tmp_path / name for name in (".a[1].json.1.tmp", ".a[1].json.2.tmp", ".a1.json.1.tmp"))
    for file in (old, young, other):
        file.write_text("half")
    for file in (old, other):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    with whole_file(final) as file:
        file.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([final, young, other])
