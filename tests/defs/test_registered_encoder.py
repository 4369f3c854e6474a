"""Encoders that an installed package registers by an entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, encoder_names, load_dataset
from tests.conftest import customers
from tests.defs.lineage import Run, published, warehouse
from tests.defs.test_algorithms import strangers

MODULE = '''
import json
import numpy as np
from erasmo_dagster.settings import EncoderOptions

class Letters:
    """How often each of some letters is in a text."""
    class Options(EncoderOptions):
        name: str = "letters"
        letters: str = "aeiou"
    def __init__(self, options):
        self.letters = options.letters
    def encode(self, texts):
        return np.array([[text.count(letter) for letter in self.letters] for text in texts], dtype=np.float32)

class Learnt(Letters):
    """The same, less the mean of the corpus."""
    class Options(Letters.Options):
        name: str = "learnt"
    @classmethod
    def fit(cls, texts, options, *, seed):
        self = cls(options)
        self.mean = Letters.encode(self, texts).mean(axis=0)
        return self
    def save(self, folder):
        (folder / "mean.json").write_text(json.dumps(self.mean.tolist()))
    @classmethod
    def load(cls, folder, options):
        self = cls(options)
        self.mean = np.array(json.loads((folder / "mean.json").read_text()), dtype=np.float32)
        return self
    def encode(self, texts):
        return super().encode(texts) - self.mean
'''
ENTRIES = """\
[erasmo_dagster.encoders]
letters = own_encoders:Letters
learnt = own_encoders:Learnt
broken = no_such_module:Encoder
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that kind, as pip would have installed it."""
    site = tmp_path / "site"
    (site / "own_encoders-1.2.dist-info").mkdir(parents=True)
    (site / "own_encoders.py").write_text(MODULE)
    (site / "own_encoders-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own-encoders\nVersion: 1.2\n"
    )
    (site / "own_encoders-1.2.dist-info" / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "own_encoders", raising=False)


def write(project: Project, encoder: str, frame: pl.DataFrame) -> None:
    frame.write_parquet(project.root / "customers.parquet")
    (project.datasets_dir / "customers.yaml").write_text(
        "source: {path: customers.parquet}\nkey: id\nlabel: kind\ndrop: email\nclustering: {method: kmeans++, k: 3}\n"
        f"gate: {{min_segment_size: 1}}\nencoder: {encoder}\nrefresh: {{changed_share: 1, psi: 100}}\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["letters", "learnt"])
def test_a_registered_encoder_is_run_and_refreshed(project: Project, run: Run, encoder: str) -> None:
    assert encoder in encoder_names()
    write(project, f"{{name: {encoder}, letters: abcdef}}", customers())
    metadata = run()["adapter"]
    assert (metadata["learns"], metadata["base_revision"]) == (encoder == "learnt", "own-encoders 1.2")
    write(project, f"{{name: {encoder}, letters: abcdef}}", pl.concat([customers(), strangers(61)]))
    assert run()["refresh_plan"]["decision"] == "refresh"
    assert published(project, "select count(*) from segments") == [(64,)]
    assert warehouse(project, "select count(*) from embeddings_6 where version = 2") == [(64,)]


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("{name: letters, vowels: 3}", "the encoder letters has no option `vowels`, its options: letters"),
        ("broken", "the encoder broken (no_such_module:Encoder) does not load: ModuleNotFoundError"),
        ("lettres", "expected one of: erasmo, causal-lm, tfidf, sentence-transformer, openai, mpnet-dice, broken, "),
    ],
)
def test_what_cannot_be_used_is_told_of_in_one_line(project: Project, encoder: str, message: str) -> None:
    write(project, encoder, customers())
    with pytest.raises(ErasmoError) as caught:
        load_dataset(project, "customers")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
