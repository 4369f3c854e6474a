"""Plain text as a table: lines of a file, files of a folder."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from erasmo_dagster.settings import DatasetSettings
from erasmo_dagster.store import plain_text
from erasmo_dagster.store.sources import ENTITY_KEY
from erasmo_dagster.store.watch import look
from tests.store.reader import SECRET, Reader


def rows(read: Reader, path: str, key: str) -> dict[int | str, str | None]:
    frame = read.frame(path, key=key)
    assert frame.columns == [ENTITY_KEY, key, "text"]
    return dict(zip(frame[key].to_list(), frame["text"].to_list(), strict=True))


def test_each_line_that_is_not_blank_is_a_row_with_its_number(read: Reader) -> None:
    read.write("notes.txt", '\ufeffFirst, “line”\r\n\r\n  third\tone  \n \t \nNA\n"fünf", 007')
    assert rows(read, "notes.txt", "line") == {1: "First, “line”", 3: "third\tone", 5: "NA", 6: '"fünf", 007'}
    snapshot = read("notes.txt", key="line")
    assert snapshot.columns == {"line": "BIGINT", "text": "VARCHAR"}


def test_each_file_of_a_pattern_is_a_row_with_its_path(read: Reader) -> None:
    read.write("texts/b.txt", "\ufeffTwo\r\nlines\r\n")
    read.write("texts/a.txt", "One")
    read.write("texts/blank.txt", " \n")
    read.write("texts/empty.txt", "")
    read.write("texts/deep/c [1].txt", "Below")
    read.write("texts/other.csv", "a,b")
    flat = {"a.txt": "One", "b.txt": "Two\nlines", "blank.txt": None, "empty.txt": None}
    for pattern in ("texts/*.txt", "./texts/*.txt", f"{read.project.root}/texts/*.txt"):
        assert rows(read, pattern, "file") == flat
    for pattern in ("texts/**/*.txt", "texts/**/**/*.txt"):
        assert rows(read, pattern, "file") == {**flat, "deep/c [1].txt": "Below"}
    assert rows(read, "*/*.txt", "file") == {f"texts/{name}": text for name, text in flat.items()}


def test_endings_format_and_gzip(read: Reader) -> None:
    read.write("a.md", "# One\ntwo\n")
    assert rows(read, "a.md", "line") == {1: "# One", 2: "two"}
    read.write("a.TXT.gz", gzip.compress(b"one\ntwo\n", mtime=0))
    assert rows(read, "a.TXT.gz", "line") == {1: "one", 2: "two"}
    read.write("log", "one\ntwo\n")
    assert read.frame(key="line", source={"path": "log", "format": "text"})["text"].to_list() == ["one", "two"]
    read.write("z/1.txt.gz", gzip.compress(b"one", mtime=0))
    read.write("z/2.txt.gz", gzip.compress(b"two", mtime=0))
    assert rows(read, "z/*.gz", "file") == {"1.txt.gz": "one", "2.txt.gz": "two"}


def test_a_query_may_read_it_beside_a_table(read: Reader) -> None:
    read.write("texts/a.txt", "One")
    read.write("texts/b.txt", "Two")
    read.write("t.csv", "file,topic\na.txt,x\nb.txt,y\n")
    query = "select file, text, topic from source join topics using (file)"
    frame = read.frame("texts/*.txt", key="file", source={"tables": {"topics": {"path": "t.csv"}}, "query": query})
    assert frame.drop(ENTITY_KEY).rows() == [("a.txt", "One", "x"), ("b.txt", "Two", "y")]


@pytest.mark.parametrize(
    ("name", "content", "path", "said"),
    [
        ("a.txt", b"", "a.txt", "is empty (0 bytes)"),
        ("a.txt", b"\n \n", "a.txt", "Got no row in a.txt, expected at least 2"),
        ("a.txt", b"one", "a.txt", "Got one row in a.txt, expected at least 2"),
        ("a.txt", b"ok\nna\xefve\n", "a.txt", "Got bytes that are not UTF-8 in line 2 of a.txt"),
        ("t/a.txt", b"ok\n\nna\xefve\n", "t/*.txt", "Got bytes that are not UTF-8 in line 3 of file a.txt of t/*.txt"),
        ("a.txt", "x\ny".encode("utf-16"), "a.txt", "Got bytes that are not UTF-8 in line 1 of a.txt"),
        ("a.txt.gz", b"no gzip", "a.txt.gz", "Got a.txt.gz, which is not a whole gzip file"),
        (
            "t/a.txt.gz",
            gzip.compress(b"x" * 99, mtime=0)[:-9],
            "t/*.gz",
            "Got file a.txt.gz of t/*.gz, which is not a whole gzip file",
        ),
        ("t/a.txt", b"one", "u/*.txt", "Got no file for u/*.txt"),
        ("t/a.txt", b"one", "t/*.txt", "Got one row in t/*.txt"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_line(read: Reader, name: str, content: bytes, path: str, said: str) -> None:
    read.write(name, content)
    assert said in read.refusal(path, key="file" if "*" in path else "line")


def test_faults_quote_no_text(read: Reader) -> None:
    read.write("a.txt", f"{SECRET}\n{SECRET} na".encode() + b"\xefve\n")
    assert SECRET not in read.refusal("a.txt", key="line")
    assert "delimiter" in read.refusal(key="line", source={"path": "a.txt", "delimiter": ";"})


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_a_file_whose_name_is_not_utf8_is_refused(read: Reader) -> None:
    read.write("t/a.txt", "one")
    Path(os.fsdecode(os.fsencode(str(read.project.root / "t")) + b"/\xff.txt")).write_text("two")
    assert "whose name is not UTF-8" in read.refusal("t/*.txt", key="file")


def test_a_file_above_the_limit_is_refused(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "_LARGEST", 3)
    read.write("t/a.txt", "one")
    read.write("t/b.txt", "four")
    assert "Got file b.txt of t/*.txt of more than" in read.refusal("t/*.txt", key="file")


def test_many_rows_are_written_in_chunks(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "_ROWS", 7)
    monkeypatch.setattr(plain_text, "_BYTES", 20)
    read.write("a.txt", "".join(f"line number {i}\n" * (i != 50) or "\n" for i in range(1, 101)))
    assert rows(read, "a.txt", "line") == {i: f"line number {i}" for i in range(1, 101) if i != 50}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), min_size=2, max_size=8))
def test_lines_come_back_as_they_were(read: Reader, lines: list[str]) -> None:
    lines = [line.replace("\n", " ") for line in lines]
    kept = {i: line.strip() for i, line in enumerate(lines, start=1) if line.strip()}
    if lines[0].startswith("\ufeff") or len(kept) < 2:
        return
    read.write("a.txt", "\n".join(lines))
    assert rows(read, "a.txt", "line") == kept


def test_a_watcher_sees_a_file_come_change_and_go(read: Reader) -> None:
    settings = DatasetSettings.model_validate({"source": {"path": "texts/*.txt"}, "key": "file"})
    for name in "abc":
        read.write(f"texts/{name}.txt", f"text {name}")

    def seen() -> str:
        return look("texts", settings, read.project, None).fingerprint.digest

    first = seen()
    assert seen() == first
    read.write("texts/d.txt", "")
    assert (grown := seen()) != first
    read.write("texts/d.txt", "text d")
    assert seen() not in (first, grown)
    (read.project.root / "texts" / "d.txt").unlink()
    assert seen() == first
    (read.project.root / "texts" / "c.txt").rename(read.project.root / "texts" / "e.txt")
    assert seen() != first
