"""A plain text file, from `erasmo add` to published segments and a refresh."""

from __future__ import annotations

import pytest

from erasmo_dagster.settings import Project
from erasmo_dagster.store.infer import infer_dataset, write_dataset
from tests.conftest import DatasetWriter
from tests.defs.lineage import Run, published, warehouse

TOPICS = (
    "the dog runs after the cat in the garden",
    "shares fell as the bank raised its rate",
    "add salt and boil the rice",
)


def lines(count: int) -> str:
    return "".join(f"{TOPICS[i % 3]}, take {i}\n{'' if i % 10 else chr(10)}" for i in range(count))


def add(project: Project, file: str, write: DatasetWriter) -> None:
    inferred = infer_dataset(file, (), project, name="notes")
    path = write_dataset(project, inferred)
    model = f'{{base_model: "path:{write.model}", max_tokens: 300, batch_size: 4, eval_every: 5, device: cpu}}'
    settings = f"adapter: {model}\nclustering: {{method: kmeans++, k: 3}}\nembedding: {{permutations: 2}}\n"
    path.write_text(path.read_text() + settings)


@pytest.mark.slow
def test_lines_become_segments_and_new_ones_refresh(project: Project, write_dataset: DatasetWriter, run: Run) -> None:
    (project.root / "notes.txt").write_text(lines(40))
    add(project, "notes.txt", write_dataset)
    metadata = run("notes")
    assert metadata["text_corpus"]["dagster/row_count"] == 40
    shown = metadata["text_corpus"]["sample"].split("\n\n")
    assert {line.removeprefix("> ") for line in shown} <= {f"{TOPICS[i % 3]}, take {i}" for i in range(40)}
    texts = warehouse(project, "select clauses from corpus order by entity_key::int")
    assert [text for ([text],) in texts] == [f"{TOPICS[i % 3]}, take {i}" for i in range(40)]
    assert [name for name, *_ in published(project, "describe notes_segmented")][:3] == ["line", "text", "entity_key"]
    (project.root / "notes.txt").write_text(lines(41))
    plan = run("notes")["refresh_plan"]
    assert (plan["decision"], plan["rows_new"], plan["rows_changed"], plan["rows_gone"]) == ("refresh", 1, 0, 0)
    assert published(project, "select count(*) from notes_segmented") == [(41,)]


@pytest.mark.slow
def test_files_become_segments_empty_ones_too(
    project: Project, write_dataset: DatasetWriter, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "texts").mkdir()
    for i in range(30):
        (project.root / "texts" / f"{i}.txt").write_text(f"{TOPICS[i % 3]}.\nTake {i}." if i else "")
    add(project, "texts/*.txt", write_dataset)
    run("notes")
    assert warehouse(project, "select clauses from corpus where entity_key = '0.txt'") == [(["missing"],)]
    assert published(project, "select text from notes_segmented where file = '4.txt'") == [(f"{TOPICS[1]}.\nTake 4.",)]
    assert published(project, "select count(*) from notes_segmented") == [(30,)]
