from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.suite import BadEntry, Entry, draw, load_suite, read_source
from erasmo_dagster.errors import ErasmoError
from tests.benchmarks.planted import drawn_of, planted


def suite(folder: Path, text: str) -> Path:
    file = folder / "suite.yaml"
    file.write_text(text)
    return file


def test_a_suite_is_read(tmp_path: Path) -> None:
    first, second = load_suite(
        suite(
            tmp_path,
            "- {name: a, file: a.parquet, label: y, drop: [id, x], k: true, rows: 50}\n"
            '- {name: b, file: b.csv, label: num, drop: one, k: 2, label_rule: "num > 0"}\n',
        )
    )
    assert first == Entry(name="a", file="a.parquet", label="y", drop=("id", "x"), k=None, rows=50)
    assert second == Entry(name="b", file="b.csv", label="num", drop=("one",), k=2, label_rule="num > 0")


def test_an_entry_that_is_not_valid_stands_in_its_place_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = load_suite(
        suite(
            tmp_path,
            "- {name: a, file: a, lable: y}\n- {name: b, file: b, label: y, k: 1}\n- {name: c, file: c, k: false}\n"
            "- just a word\n- {file: e}\n- {name: f, file: f, label: y, source: somewhere}\n",
        )
    )
    bad, good = entries[:5], entries[5]
    assert all(isinstance(entry, BadEntry) for entry in bad)
    assert [entry.name for entry in bad] == ["a", "b", "c", "entry 4", "entry 5"]
    assert "did you mean 'label'?" in bad[0].error  # type: ignore[union-attr]
    assert "`k`" in bad[1].error  # type: ignore[union-attr]
    assert isinstance(good, Entry)
    assert "f: the field 'source' of the suite is not read" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "name: a", "- {name: a", "- {name: a, file: x}\n- {name: a, file: y}"])
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ErasmoError):
        load_suite(suite(tmp_path, text))
    with pytest.raises(ErasmoError, match="a suite to read"):
        load_suite(tmp_path / "absent.yaml")


def test_label_and_dropped_columns_are_gone_before_anything_sees_the_table(tmp_path: Path) -> None:
    drawn = drawn_of(planted(), tmp_path)
    assert drawn.sample.frame.columns == ["age", "balance", "job", "city", "member"]
    assert {column.name for column in drawn.sample.plan.columns} == {"age", "balance", "job", "city", "member"}
    assert drawn.truth == tuple("ABC" * 30)
    assert drawn.sample.k == 3


def test_the_seed_draws_the_rows_and_leaves_their_order(tmp_path: Path) -> None:
    frame = planted(300).with_row_index("number").with_columns(pl.col("number").cast(pl.Int64))
    draws = [drawn_of(frame, tmp_path, rows=60, seed=seed) for seed in (0, 0, 1)]
    numbers = [d.sample.frame["number"].to_list() for d in draws]
    assert numbers[0] == numbers[1] != numbers[2]
    assert all(len(n) == 60 and n == sorted(n) for n in numbers)
    assert draws[0].sample.id == draws[1].sample.id != draws[2].sample.id
    assert [planted(300)["kind"][i] for i in numbers[2]] == list(draws[2].truth or ())


def test_an_entrys_rows_are_a_cap_and_no_more(tmp_path: Path) -> None:
    planted(90).write_parquet(tmp_path / "t.parquet")
    source = read_source(Entry(name="t", file="t.parquet", label="kind", rows=40), tmp_path)
    assert [draw(source, rows, 0).sample.frame.height for rows in (30, 1_000)] == [30, 40]


def test_rows_without_a_group_are_left_out(tmp_path: Path) -> None:
    frame = planted(90).with_columns(
        kind=pl.when(pl.arange(90) < 30).then(None).when(pl.arange(90) < 40).then(pl.lit("  ")).otherwise("kind")
    )
    drawn = drawn_of(frame, tmp_path)
    assert drawn.sample.frame.height == 50
    assert set(drawn.truth or ()) == {"A", "B", "C"}


@pytest.mark.parametrize(
    ("label", "rule"),
    [([0, 1, 4, 0], "num > 0"), (["0", "1", "4.0", "0"], "num > 0"), (["n", "y", "y", "n"], "num = 'y'")],
)
def test_a_rule_makes_the_groups_whatever_the_labels_type(tmp_path: Path, label: list[object], rule: str) -> None:
    pl.DataFrame({"num": label * 3, "x": range(12)}).write_parquet(tmp_path / "t.parquet")
    drawn = draw(read_source(Entry(name="t", file="t.parquet", label="num", label_rule=rule, k=2), tmp_path), 1_000, 0)
    assert drawn.truth == ("false", "true", "true", "false") * 3


@pytest.mark.parametrize("rule", ["x > 1", "num >", "num + 'a' > 3", "no_such(num)"])
def test_a_rule_that_does_not_hold_is_refused(tmp_path: Path, rule: str) -> None:
    pl.DataFrame({"num": [0, 1, 2, 0], "x": range(4)}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ErasmoError, match="label_rule"):
        read_source(Entry(name="t", file="t.parquet", label="num", label_rule=rule), tmp_path)


def test_a_csv_file_is_read_with_types_and_its_label_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("code,size\n01,1.5\n1,2.5\n01,\n1,4\n")
    drawn = draw(read_source(Entry(name="t", file="t.csv", label="code"), tmp_path), 1_000, 0)
    assert drawn.truth == ("01", "1", "01", "1")
    assert drawn.sample.frame.schema == {"size": pl.Float64}


def test_plain_text_has_one_column_and_its_files_may_be_the_groups(tmp_path: Path) -> None:
    for number in range(6):
        group = tmp_path / f"g{number % 2}"
        group.mkdir(exist_ok=True)
        (group / f"{number}.txt").write_text(f"Text number {number}.")
    entry = Entry(name="t", file="g*/*.txt", label="file", label_rule="starts_with(file, 'g1')")
    drawn = draw(read_source(entry, tmp_path), 1_000, 0)
    assert drawn.sample.frame.columns == ["text"]
    assert [column.kind for column in drawn.sample.plan.columns] == ["text"]
    assert drawn.truth == ("false",) * 3 + ("true",) * 3


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"file": "absent.parquet"}, "absent.parquet"),
        ({"label": "knd"}, "did you mean 'kind'"),
        ({"drop": ["leek"]}, "did you mean 'leak'"),
        ({"drop": ["age", "balance", "job", "city", "member", "leak"]}, "without a column"),
        ({"label_rule": "kind IS NOT NULL"}, "1 group "),
        ({"k": 90}, "90 rows for 90 segments"),
        ({"label": None}, "no `k`"),
    ],
)
def test_what_cannot_be_drawn_says_why(tmp_path: Path, entry: dict[str, object], what: str) -> None:
    with pytest.raises(ErasmoError) as caught:
        drawn_of(planted(), tmp_path, **entry)
    assert what in str(caught.value)


def test_a_table_without_a_label_has_no_groups(tmp_path: Path) -> None:
    drawn = drawn_of(planted(), tmp_path, label=None, k=4)
    assert drawn.truth is None
    assert drawn.sample.k == 4


def test_a_part_has_its_own_rows_groups_and_name(tmp_path: Path) -> None:
    drawn = drawn_of(planted(), tmp_path)
    part = drawn.part(np.array([5, 3, 80]))
    assert part.truth == ("C", "A", "C")
    assert part.sample.frame.equals(drawn.sample.frame[[5, 3, 80]])
    assert len({part.sample.id, drawn.sample.id, drawn.part(np.array([3, 5, 80])).sample.id}) == 3
    assert drawn.sample.part(np.arange(90)) is drawn.sample
    whole = [column.name for column in drawn.sample.plan.columns]
    for rows in (np.arange(0, 90, 7), np.arange(30, 34)):  # by their number of values they would come otherwise
        own = [column.name for column in drawn.sample.part(rows).plan.columns]
        assert own == [name for name in whole if name in own]


def test_columns_from_last_to_first_are_another_sample(tmp_path: Path) -> None:
    sample = drawn_of(planted(), tmp_path).sample
    read, own = sample.reversed(plan=True), sample.reversed(plan=False)
    assert read.frame.columns == own.frame.columns == sample.frame.columns[::-1]
    assert read.plan.columns == sample.plan.columns[::-1]
    assert own.plan == sample.plan
    assert len({sample.id, read.id, own.id}) == 3
